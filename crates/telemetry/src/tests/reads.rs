use super::*;

#[tokio::test]
async fn what_was_logged_before_is_read() {
    let bench = Bench::new();
    for round in 0..20 {
        let text = round.to_string();
        bench.log("s", &[(round, &text)]);
        assert_eq!(messages(&bench.page("s", PageStart::Tail, 1).await.events), [text.as_str()]);
    }
}

#[tokio::test]
async fn events_come_back_as_they_were_logged() {
    let bench = Bench::new();
    let id = RequestId::from_random([9; 16]);
    let event = LogEvent {
        timestamp: Timestamp(999_000),
        message: "two\nlines \u{1F426}".to_owned(),
        request_id: Some(id.clone()),
    };
    bench.telemetry.log(&GROUP.into(), &"s".into(), vec![event]);
    let event = &bench.page("s", PageStart::Head, 9).await.events[0];
    assert_eq!(event.message, "two\nlines \u{1F426}");
    assert_eq!((event.timestamp, event.ingested), (Timestamp(999_000), Timestamp(1_000_000)));
    assert_eq!((event.request_id.as_ref(), &*event.stream), (Some(&id), "s"));
    assert_eq!(event.cursor.to_string().parse(), Ok(event.cursor));
    assert_eq!("7".parse::<Cursor>(), Err(CursorError));
    assert!(bench.filter(|query| query.request_id = Some(id)).await.events.len() == 1);
    let other = RequestId::from_random([8; 16]);
    assert!(bench.filter(|query| query.request_id = Some(other)).await.events.is_empty());
}

#[tokio::test]
async fn a_stream_is_paged_in_both_directions() {
    let bench = Bench::new();
    bench.log("s", &[(10, "a"), (10, "b"), (20, "c")]);
    bench.log("other", &[(10, "x"), (15, "y"), (30, "z")]);
    bench.log("s", &[(30, "d"), (40, "e")]);

    let head = bench.page("s", PageStart::Head, 2).await;
    assert_eq!(messages(&head.events), ["a", "b"]);
    let next = bench.page("s", PageStart::After(head.end), 2).await;
    assert_eq!(messages(&next.events), ["c", "d"]);
    let last = bench.page("s", PageStart::After(next.end), 2).await;
    assert_eq!(messages(&last.events), ["e"]);
    let none = bench.page("s", PageStart::After(last.end), 2).await;
    assert!(none.events.is_empty());
    assert_eq!(none.end, last.end, "the end stays where it is");
    let back = bench.page("s", PageStart::Before(none.begin), 1).await;
    assert_eq!(messages(&back.events), ["e"], "turning round finds the last event again");
    bench.log("s", &[(50, "f")]);
    assert_eq!(messages(&bench.page("s", PageStart::After(none.end), 2).await.events), ["f"]);

    let tail = bench.page("s", PageStart::Tail, 2).await;
    assert_eq!(messages(&tail.events), ["e", "f"]);
    let before = bench.page("s", PageStart::Before(tail.begin), 3).await;
    assert_eq!(messages(&before.events), ["b", "c", "d"]);
    let first = bench.page("s", PageStart::Before(before.begin), 3).await;
    assert_eq!(messages(&first.events), ["a"]);
    let none = bench.page("s", PageStart::Before(first.begin), 3).await;
    assert!(none.events.is_empty() && none.begin == first.begin);
    assert_eq!(messages(&bench.page("s", PageStart::After(none.end), 1).await.events), ["a"]);
}

#[tokio::test]
async fn start_and_end_bound_a_stream() {
    let bench = Bench::new();
    bench.log("s", &[(10, "a"), (20, "b"), (30, "c")]);
    for from in [PageStart::Head, PageStart::Tail] {
        for (start, end, expected) in [
            (Some(10), Some(30), vec!["a", "b"]),
            (Some(11), None, vec!["b", "c"]),
            (None, Some(10), vec![]),
            (Some(31), None, vec![]),
            (Some(30), Some(20), vec![]),
        ] {
            let query = EventQuery {
                group: GROUP.to_owned(),
                stream: "s".to_owned(),
                start: start.map(Timestamp),
                end: end.map(Timestamp),
                from,
                limit: 9,
            };
            let page = bench.telemetry.events(query).await.expect("events");
            assert_eq!(messages(&page.events), expected, "{start:?} {end:?}");
        }
    }
}

#[tokio::test]
async fn pages_end_at_a_megabyte() {
    let bench = Bench::new();
    let big = "x".repeat(400_000);
    bench.log("s", &[(1, &big), (2, &big), (3, &big)]);
    assert_eq!(bench.page("s", PageStart::Head, 9).await.events.len(), 2);
    let page = bench.filter(|_| ()).await;
    assert_eq!(page.events.len(), 2);
    let next = page.next.expect("there is more");
    let rest = bench.filter(|query| query.from = next).await;
    assert_eq!((rest.events.len(), rest.next), (1, None));
    let giant = "x".repeat(2_000_000);
    bench.log("g", &[(1, &giant)]);
    assert_eq!(bench.page("g", PageStart::Head, 9).await.events.len(), 1, "one event is always a page");
}

#[tokio::test]
async fn a_group_is_searched_across_streams() {
    let bench = Bench::new();
    bench.log("2026/[1]a", &[(10, "ERROR one"), (30, "fine")]);
    bench.log("2026/[1]b", &[(20, "ERROR two"), (40, "ERROR three")]);
    bench.log("2027/[1]c", &[(5, "ERROR zero")]);
    let found = async |change: fn(&mut FilterQuery)| {
        let page = bench.filter(change).await;
        page.events.into_iter().map(|event| event.message).collect::<Vec<_>>()
    };
    assert_eq!(found(|_| ()).await.len(), 5);
    let errors = found(|query| query.pattern = "ERROR".parse().expect("a pattern")).await;
    assert_eq!(errors, ["ERROR zero", "ERROR one", "ERROR two", "ERROR three"]);
    assert_eq!(found(|query| query.streams = vec!["2026/[1]b".into()]).await, ["ERROR two", "ERROR three"]);
    assert_eq!(found(|query| query.stream_prefix = "2027/".into()).await, ["ERROR zero"]);
    assert_eq!(found(|query| query.start = Some(Timestamp(30))).await, ["fine", "ERROR three"]);
    assert_eq!(found(|query| query.end = Some(Timestamp(10))).await, ["ERROR zero", "ERROR one"]);

    for (first, expected) in [(PageStart::Head, [5, 10, 20, 30, 40]), (PageStart::Tail, [40, 30, 20, 10, 5])]
    {
        let mut from = Some(first);
        let mut paged = Vec::new();
        while let Some(start) = from {
            let page = bench.filter(|query| (query.from, query.limit) = (start, 2)).await;
            paged.extend(page.events.iter().map(|event| event.timestamp.0));
            from = page.next;
        }
        assert_eq!(paged, expected);
    }
}

#[tokio::test]
async fn groups_and_streams_are_listed_a_page_at_a_time() {
    let bench = Bench::new();
    for name in ["a", "b/1", "b/2", "b/3", "c"] {
        bench.log_to(name, "s", &[(1, "12345")]);
    }
    let groups = async |prefix: &str, after: Option<&str>, limit| {
        let after = after.map(str::to_owned);
        let query = GroupQuery { prefix: prefix.to_owned(), after, limit, ..GroupQuery::default() };
        let groups = bench.telemetry.groups(query).await.expect("groups");
        groups.into_iter().map(|group| (group.name, group.stored_bytes)).collect::<Vec<_>>()
    };
    assert_eq!(groups("b/", None, 2).await, [("b/1".to_owned(), 31), ("b/2".to_owned(), 31)]);
    assert_eq!(groups("b/", Some("b/2"), 2).await, [("b/3".to_owned(), 31)]);
    let query = GroupQuery { prefix: "b".into(), contains: "3".into(), after: None, limit: 9 };
    assert_eq!(bench.telemetry.groups(query).await.expect("groups")[0].name, "b/3");

    bench.log("x1", &[(30, "a"), (10, "bb")]);
    bench.log("x2", &[(20, "a")]);
    bench.log("x3", &[(20, "a")]);
    bench.log("y_", &[(5, "a")]);
    let names = async |order, descending, prefix: &str, after: Option<(u64, &str)>| {
        let query = StreamQuery {
            group: GROUP.to_owned(),
            prefix: prefix.to_owned(),
            order,
            descending,
            after: after.map(|(at, name)| (Timestamp(at), name.to_owned())),
            limit: 3,
        };
        let streams = bench.telemetry.streams(query).await.expect("streams");
        streams.into_iter().map(|stream| stream.name).collect::<Vec<_>>()
    };
    assert_eq!(names(StreamOrder::Name, false, "", None).await, ["x1", "x2", "x3"]);
    assert_eq!(names(StreamOrder::Name, false, "", Some((0, "x3"))).await, ["y_"]);
    assert_eq!(names(StreamOrder::Name, true, "x", None).await, ["x3", "x2", "x1"]);
    assert_eq!(names(StreamOrder::LastEvent, true, "", None).await, ["x1", "x3", "x2"]);
    assert_eq!(names(StreamOrder::LastEvent, true, "", Some((20, "x3"))).await, ["x2", "y_"]);
    assert_eq!(names(StreamOrder::LastEvent, false, "", None).await, ["y_", "x2", "x3"]);
    assert!(names(StreamOrder::Name, false, "%", None).await.is_empty());
    let first = &bench.stream_infos().await[0];
    assert_eq!((first.first_event, first.last_event), (Timestamp(10), Timestamp(30)));
    assert_eq!((first.last_ingestion, first.stored_bytes), (Timestamp(1_000_000), 3 + 2 * 26));
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let bench = Bench::new();
    bench.log("s", &[(1, "a")]);
    let query = |group: &str, stream: &str| EventQuery {
        group: group.to_owned(),
        stream: stream.to_owned(),
        start: None,
        end: None,
        from: PageStart::Head,
        limit: 1,
    };
    let group = bench.telemetry.events(query("none", "s")).await;
    assert!(matches!(group, Err(TelemetryError::NoSuchGroup(name)) if name == "none"));
    let stream = bench.telemetry.events(query(GROUP, "t")).await;
    assert!(matches!(stream, Err(TelemetryError::NoSuchStream(name)) if name == "t"));
    assert!(matches!(bench.telemetry.retain("none", Some(1)).await, Err(TelemetryError::NoSuchGroup(_))));
}

#[tokio::test]
async fn metering_records_come_back_as_they_were() {
    let bench = Bench::new();
    (0..5).for_each(|number| bench.telemetry.meter(record(number)));
    let read = async |query| bench.telemetry.metering(query).await.expect("metering");
    let all = read(MeteringQuery { limit: 9, ..MeteringQuery::default() }).await;
    assert_eq!(all.records, (0..5).map(record).collect::<Vec<_>>());
    assert_eq!(all.next, None);
    let first = read(MeteringQuery { limit: 3, ..MeteringQuery::default() }).await;
    let rest = read(MeteringQuery { limit: 3, after: first.next, ..MeteringQuery::default() }).await;
    assert_eq!((first.records.len(), rest.records.len(), rest.next), (3, 2, None));
    let some = MeteringQuery {
        function: Some(record(1).function),
        start: Timestamp(2_000),
        end: Some(Timestamp(4_000)),
        limit: 9,
        ..MeteringQuery::default()
    };
    assert_eq!(read(some).await.records, [record(3)]);
}

#[tokio::test]
async fn everything_is_there_after_opening_again() {
    let bench = Bench::new();
    bench.log("s", &[(1, "before")]);
    let Bench { directory, telemetry, .. } = bench;
    drop(telemetry);
    // This one has the clock of the machine, by which these events are long expired.
    let options = TelemetryOptions { retention_days: 0, ..TelemetryOptions::default() };
    let telemetry = Telemetry::open(directory.path(), options).expect("open again");
    let bench = Bench { directory, now: Arc::default(), telemetry };
    bench.log("s", &[(1, "after")]);
    bench.telemetry.flush().await.expect("flush");
    let page = bench.page("s", PageStart::Head, 9).await;
    assert_eq!(messages(&page.events), ["before", "after"]);
    assert!(page.events[0].cursor < page.events[1].cursor);
}
