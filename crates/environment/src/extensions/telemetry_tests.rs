use super::*;

fn body(destination: &str, rest: &str) -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":"2022-07-01","types":["platform","function"],"destination":{destination}{rest}}}"#
    )
    .into_bytes()
}

const HERE: &str = r#"{"protocol":"HTTP","URI":"http://sandbox.localdomain:4243/x"}"#;

fn at(start: Instant, millis: u64) -> (Timestamp, Instant) {
    (Timestamp(millis), start + Duration::from_millis(millis))
}

fn subscribed(rest: &str) -> (Telemetry, Instant) {
    let (mut telemetry, start) = (Telemetry::new(), Instant::now());
    telemetry.subscribe("a", Api::Telemetry, &body(HERE, rest), at(start, 0)).unwrap().unwrap();
    telemetry.take(0, at(start, 0), true);
    (telemetry, start)
}

#[test]
fn what_is_asked_for_is_applied_or_refused_by_name() {
    let ask = |api: Api, text: Vec<u8>| {
        let mut telemetry = Telemetry::new();
        let told = telemetry.subscribe("a", api, &text, at(Instant::now(), 0));
        told.map(|_| telemetry.destination(0).clone()).map_err(|refused| refused.2)
    };
    let http = Destination::Http { put: false, port: 4243, path: "/x".into() };
    assert_eq!(ask(Api::Telemetry, body(HERE, "")), Ok(http));
    assert_eq!(
        ask(Api::Telemetry, body(r#"{"protocol":"TCP","port":9}"#, "")),
        Ok(Destination::Tcp { port: 9 })
    );
    let logs = br#"{"types":["function"],"destination":{"protocol":"HTTP","URI":"http://sandbox:1","method":"PUT","encoding":"JSON"}}"#;
    let put = Destination::Http { put: true, port: 1, path: "/".into() };
    assert_eq!(ask(Api::Logs, logs.to_vec()), Ok(put));
    for (text, names) in [
        (body(&HERE.replace("sandbox.localdomain", "127.0.0.1"), ""), "URI host"),
        (body(&HERE.replace("http:", "https:"), ""), "only http"),
        (body(r#"{"protocol":"UDP"}"#, ""), "protocol"),
        (body(HERE, r#","buffering":{"maxItems":999}"#), "maxItems"),
        (body(HERE, r#","buffering":{"maxBytes":1048577}"#), "maxBytes"),
        (body(HERE, r#","buffering":{"timeoutMs":24}"#), "timeoutMs"),
        (body(HERE, r#","more":1"#), "more"),
        (logs.to_vec(), "schemaVersion"),
    ] {
        let refused = ask(Api::Telemetry, text).unwrap_err();
        assert!(refused.contains(names), "{refused}");
    }
}

#[test]
fn one_that_comes_late_hears_what_was_told_before_and_after_init_nobody_comes() {
    let (mut telemetry, start) = (Telemetry::new(), Instant::now());
    telemetry.platform(at(start, 1), None, Some(("initStart", json!({ "phase": "init" }))));
    telemetry.printed(Category::Extension, Timestamp(1), "not asked for", start);
    telemetry.subscribe("a", Api::Telemetry, &body(HERE, ""), at(start, 2)).unwrap().unwrap();
    assert_eq!(telemetry.subscribe("a", Api::Telemetry, &body(HERE, ""), at(start, 2)), Ok(None));
    let logs = telemetry.subscribe("a", Api::Logs, &body(HERE, ""), at(start, 2)).unwrap_err();
    assert_eq!(logs.0, 403);
    assert_eq!(telemetry.take(0, at(start, 3), false), None);
    let events = telemetry.take(0, at(start, 1002), false).unwrap().events;
    assert_eq!(
        events,
        [
            r#"{"record":{"phase":"init"},"time":"1970-01-01T00:00:00.001Z","type":"platform.initStart"}"#,
            r#"{"record":{"name":"a","state":"Subscribed","types":["platform","function"]},"time":"1970-01-01T00:00:00.002Z","type":"platform.telemetrySubscription"}"#
        ]
    );
    telemetry.close();
    let late = telemetry.subscribe("b", Api::Telemetry, &body(HERE, ""), at(start, 4)).unwrap_err();
    assert_eq!((late.0, late.1.as_str()), (403, "Telemetry.SubscriptionClosed"));
}

#[test]
fn it_is_sent_when_it_is_much_or_old() {
    let (mut telemetry, start) = subscribed(r#","buffering":{"maxItems":1000,"timeoutMs":100}"#);
    telemetry.printed(Category::Function, Timestamp(0), "x", at(start, 10).1);
    assert_eq!(telemetry.due(0), Some(at(start, 110).1));
    assert_eq!(telemetry.take(0, at(start, 109), false), None);
    assert_eq!(telemetry.take(0, at(start, 110), false).unwrap().events.len(), 1);
    for _ in 0..1500 {
        telemetry.printed(Category::Function, Timestamp(0), "x", at(start, 200).1);
    }
    assert_eq!(telemetry.take(0, at(start, 200), false).unwrap().events.len(), 1000);
    assert_eq!(telemetry.take(0, at(start, 200), false), None);
    assert_eq!(telemetry.take(0, at(start, 200), true).unwrap().events.len(), 500);
    assert_eq!(telemetry.due(0), None);
}

#[test]
fn what_nobody_fetches_is_dropped_and_told() {
    let (mut telemetry, start) = subscribed("");
    let line = "x".repeat(100_000);
    for _ in 0..30 {
        telemetry.printed(Category::Function, Timestamp(0), &line, start);
    }
    let mut events = Vec::new();
    while let Some(batch) = telemetry.take(0, at(start, 5000), true) {
        assert!(batch.bytes() < (256 << 10) + 100_100);
        events.extend(batch.events);
    }
    let told = events.iter().filter(|event| event.contains("platform.logsDropped")).count();
    assert_eq!((events.len(), told), (11, 1));
    telemetry.lost(0, 3, 9);
    telemetry.printed(Category::Function, Timestamp(0), "y", start);
    let batch = telemetry.take(0, at(start, 6000), true).unwrap();
    assert!(batch.events[1].contains(r#""droppedBytes":9,"droppedRecords":3"#), "{batch:?}");
}
