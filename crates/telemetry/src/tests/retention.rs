use super::*;

const DAY: u64 = 24 * 60 * 60 * 1000;

async fn left(bench: &Bench) -> Vec<String> {
    bench.telemetry.sweep().await.expect("sweep");
    bench.filter(|_| ()).await.events.into_iter().map(|event| event.message).collect()
}

#[tokio::test]
async fn events_go_when_their_time_has_come() {
    let bench = Bench::with(|options| TelemetryOptions { retention_days: 2, ..options });
    bench.log("old", &[(0, "old")]);
    bench.log("both", &[(DAY, "elder"), (3 * DAY, "younger")]);
    bench.now.store(2 * DAY, Ordering::Relaxed);
    assert_eq!(left(&bench).await, ["old", "elder", "younger"]);
    bench.now.store(2 * DAY + 1, Ordering::Relaxed);
    assert_eq!(left(&bench).await, ["elder", "younger"]);
    let names = bench.stream_infos().await.into_iter().map(|stream| stream.name).collect::<Vec<_>>();
    assert_eq!(names, ["both"], "a stream without events goes with them");
    bench.now.store(4 * DAY, Ordering::Relaxed);
    assert_eq!(left(&bench).await, ["younger"]);
    let both = &bench.stream_infos().await[0];
    assert_eq!((both.first_event, both.stored_bytes), (Timestamp(3 * DAY), 7 + 26));
    // The row of the stream is gone; its name is free.
    bench.log("old", &[(4 * DAY, "again")]);
    assert_eq!(left(&bench).await, ["younger", "again"]);
}

#[tokio::test]
async fn groups_may_have_their_own_retention() {
    let bench = Bench::with(|options| TelemetryOptions { retention_days: 0, ..options });
    bench.log("s", &[(0, "a"), (5 * DAY, "b")]);
    bench.now.store(900 * DAY, Ordering::Relaxed);
    assert_eq!(left(&bench).await, ["a", "b"], "0 is for ever");
    bench.telemetry.retain(GROUP, Some(896)).await.expect("retain");
    assert_eq!(left(&bench).await, ["b"]);
    let groups =
        bench.telemetry.groups(GroupQuery { limit: 1, ..GroupQuery::default() }).await.expect("groups");
    assert_eq!(groups[0].retention_days, Some(896));
    bench.telemetry.retain(GROUP, None).await.expect("retain");
    bench.now.store(9_000 * DAY, Ordering::Relaxed);
    assert_eq!(left(&bench).await, ["b"]);
}

#[tokio::test]
async fn more_than_a_step_goes_too() {
    let bench = Bench::with(|options| TelemetryOptions { retention_days: 1, ..options });
    let events: Vec<(u64, &str)> = (0..12_000).map(|at| (at, "x")).collect();
    bench.log("s", &events);
    (0..10).for_each(|number| bench.telemetry.meter(record(number)));
    bench.log("s", &[(500 * DAY, "last")]);
    bench.now.store(500 * DAY, Ordering::Relaxed);
    assert_eq!(left(&bench).await, ["last"]);
    let page = bench.telemetry.metering(MeteringQuery { limit: 9, ..MeteringQuery::default() }).await;
    assert!(page.expect("metering").records.is_empty());
    let groups =
        bench.telemetry.groups(GroupQuery { limit: 1, ..GroupQuery::default() }).await.expect("groups");
    assert_eq!(groups[0].stored_bytes, 4 + 26);
}
