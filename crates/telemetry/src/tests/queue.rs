use super::*;

#[tokio::test]
async fn what_finds_no_room_is_dropped_counted_and_told() {
    let bench = Bench::with(|options| TelemetryOptions { queue_bytes: 1_000, ..options });
    let long = "x".repeat(990);
    bench.log("s", &[(1, &long)]);
    assert_eq!(bench.telemetry.stats().dropped_events, 1, "more than the queue holds");
    bench.log("s", &[(2, "a"), (3, "b")]);
    let page = bench.page("s", PageStart::Head, 9).await;
    assert_eq!(page.events.len(), 3);
    let notice = messages(&page.events).into_iter().find(|message| message.starts_with("MARTLET dropped 1 "));
    assert!(notice.is_some(), "{:?}", messages(&page.events));
    assert_eq!(bench.telemetry.stats().queued_bytes, 0);
}

#[tokio::test]
async fn metering_records_find_room_beside_a_full_queue() {
    let bench = Bench::with(|options| TelemetryOptions { queue_bytes: 3_000, ..options });
    bench.log("s", &[(1, &"x".repeat(2_900))]);
    bench.telemetry.meter(record(1));
    let page = bench.telemetry.metering(MeteringQuery { limit: 9, ..MeteringQuery::default() }).await;
    assert_eq!(page.expect("metering").records.len(), 1);
    assert_eq!(bench.telemetry.stats(), Stats::default());
}

#[tokio::test]
async fn many_callers_lose_nothing() {
    let bench = Bench::with(|options| TelemetryOptions { commit_every: Duration::from_millis(5), ..options });
    let threads: Vec<_> = (0..8)
        .map(|caller: u64| {
            let telemetry = bench.telemetry.clone();
            thread::spawn(move || {
                let (group, stream) = (Arc::from(GROUP), Arc::from(format!("s{caller}")));
                for number in 0..500 {
                    let event = LogEvent {
                        timestamp: Timestamp(number / 7),
                        message: number.to_string(),
                        request_id: None,
                    };
                    telemetry.log(&group, &stream, vec![event]);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    bench.telemetry.flush().await.expect("flush");
    for caller in 0..8 {
        let page = bench.page(&format!("s{caller}"), PageStart::Head, 10_000).await;
        let numbers: Vec<u64> =
            page.events.iter().map(|event| event.message.parse().expect("a number")).collect();
        assert_eq!(numbers, (0..500).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_survived() {
    let bench = Bench::new();
    bench.log("s", &[(1, "first")]);
    bench.telemetry.flush().await.expect("flush");
    // Another connection that writes keeps the writer out, as a full disk would.
    let path = bench.directory.path().join("telemetry.db");
    let blocker = Connection::open(path).expect("open");
    blocker.execute_batch("BEGIN IMMEDIATE").expect("lock");
    bench.log("s", &[(2, "second")]);
    bench.telemetry.flush().await.expect_err("the lock is held");
    blocker.execute_batch("ROLLBACK").expect("unlock");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while bench.telemetry.flush().await.is_err() {
        assert!(std::time::Instant::now() < deadline);
    }
    assert_eq!(messages(&bench.page("s", PageStart::Head, 9).await.events), ["first", "second"]);
}
