//! The dispatcher over real stores, with an invoker that does what each test says.

use crate::*;
use martlet_model::{AccountId, FunctionName, Region};
use martlet_store::{Memory, Store, open_embedded};
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, timeout};

pub(crate) fn event(number: u8) -> Event {
    Event {
        request_id: RequestId::from_random([number; 16]),
        function: FunctionArn {
            region: Region::new("us-east-1").expect("a region"),
            account: AccountId::new("000000000000").expect("an account"),
            name: FunctionName::new("hello").expect("a name"),
        },
        qualifier: Some("live".to_owned()),
        version: Version::Published(3),
        payload: format!("{{\"number\":{number}}}").into(),
        trace_id: "Root=1-2-3".to_owned(),
        tenant: None,
        accepted: Timestamp(5),
    }
}

/// The events' function ran well.
fn succeeded() -> Outcome {
    Outcome::Completed(Answer { version: Version::Latest, payload: "\"done\"".into(), function_error: None })
}

/// It failed.
fn failed() -> Outcome {
    let payload = r#"{"errorMessage":"no","errorType":"E"}"#.into();
    Outcome::Completed(Answer {
        version: Version::Latest,
        payload,
        function_error: Some("Unhandled".to_owned()),
    })
}

/// The event as the function sees it: with a step of its lineage.
fn seen_as(event: Event) -> Event {
    let trace_id = martlet_model::lineage::step(&event.trace_id, &event.function).0;
    Event { trace_id, ..event }
}

/// Tells the test about every attempt and answers as the test decided for it.
struct Script {
    attempts: mpsc::UnboundedSender<Attempt>,
    answers: Mutex<HashMap<RequestId, VecDeque<Outcome>>>,
    /// Nothing: the function is gone.
    treatment: Mutex<Option<Treatment>>,
    /// What was delivered, by target.
    delivered: Mutex<Vec<(String, Delivery)>>,
    /// How often deliveries fail for the moment.
    busy: AtomicUsize,
    /// A run takes a permit, so a test can hold runs up.
    gate: Semaphore,
    panics: AtomicUsize,
    entered: Notify,
}

impl Script {
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Attempt>) {
        let (attempts, seen) = mpsc::unbounded_channel();
        let script = Self {
            attempts,
            answers: Mutex::default(),
            treatment: Mutex::new(Some(Treatment::default())),
            delivered: Mutex::default(),
            busy: AtomicUsize::new(0),
            gate: Semaphore::new(1_000),
            panics: AtomicUsize::new(0),
            entered: Notify::new(),
        };
        (Arc::new(script), seen)
    }

    /// What the turns of an event come to; after these it succeeds.
    fn answers(&self, number: u8, outcomes: impl IntoIterator<Item = Outcome>) {
        self.answers.lock().expect("lock").insert(event(number).request_id, outcomes.into_iter().collect());
    }

    fn treat(&self, treatment: Option<Treatment>) {
        *self.treatment.lock().expect("lock") = treatment;
    }

    fn delivered(&self) -> Vec<(String, Delivery)> {
        self.delivered.lock().expect("lock").clone()
    }
}

impl Invoker for Script {
    fn treatment(&self, _event: &Event) -> Option<Treatment> {
        self.treatment.lock().expect("lock").clone()
    }

    async fn invoke(&self, attempt: Attempt) -> Outcome {
        self.entered.notify_one();
        self.gate.acquire().await.expect("open").forget();
        let id = attempt.event.request_id.clone();
        self.attempts.send(attempt).expect("the test listens");
        let take_one = |left: usize| left.checked_sub(1);
        if self.panics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_ok() {
            panic!("as the test asked");
        }
        let mut answers = self.answers.lock().expect("lock");
        answers.get_mut(&id).and_then(VecDeque::pop_front).unwrap_or_else(succeeded)
    }
}

struct Wall(Arc<Script>);

impl Destination for Wall {
    fn deliver<'a>(
        &'a self,
        target: &'a str,
        delivery: Delivery,
    ) -> Pin<Box<dyn Future<Output = Result<(), Undelivered>> + Send + 'a>> {
        Box::pin(async move {
            let take_one = |left: usize| left.checked_sub(1);
            if self.0.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_ok() {
                return Err(Undelivered::NotNow("busy".to_owned()));
            }
            if target.ends_with(":gone") {
                return Err(Undelivered::Refused("it is gone".to_owned()));
            }
            self.0.delivered.lock().expect("lock").push((target.to_owned(), delivery));
            Ok(())
        })
    }
}

/// The queue of a store, with a script that runs its events.
fn start(store: Store, script: Arc<Script>, options: EventsOptions) -> AsyncInvocations {
    let events = AsyncInvocations::new(store);
    let destinations = Destinations::default().with("lambda", Arc::new(Wall(script.clone())));
    events.dispatch(script, destinations, options);
    events
}

/// A clock that follows tokio's, so that paused tests skip the waits.
fn options(concurrency: usize) -> EventsOptions {
    let start = Instant::now();
    let clock = move || Timestamp(1_000_000 + u64::try_from(start.elapsed().as_millis()).expect("short"));
    EventsOptions { concurrency, ..EventsOptions::with_clock(Arc::new(clock)) }
}

/// Waits until the log is empty; the bound is for a test that fails.
async fn settled(events: &AsyncInvocations) {
    timeout(Duration::from_secs(3_600), async {
        while events.backlog().await.expect("backlog") != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("every event is done");
}

#[tokio::test(start_paused = true)]
async fn accepted_events_run_as_they_were_accepted() {
    let (script, mut seen) = Script::new();
    let events = start(Memory::default().open(), script, options(2));
    events.accept(event(1)).await.expect("accept");
    assert_eq!(seen.recv().await, Some(Attempt { event: seen_as(event(1)), number: 1 }));
    settled(&events).await;
    let stats = events.stats();
    assert_eq!((stats.accepted, stats.succeeded, stats.running), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn events_without_capacity_wait_and_others_overtake_them() {
    let (script, mut seen) = Script::new();
    script.answers(1, [Outcome::Throttled, Outcome::Unavailable]);
    let events = start(Memory::default().open(), script, options(1));
    let begin = Instant::now();
    events.accept(event(1)).await.expect("accept");
    events.accept(event(2)).await.expect("accept");
    let mut order = Vec::new();
    for _ in 0..4 {
        let attempt = seen.recv().await.expect("an attempt");
        order.push((attempt.event.request_id.clone(), attempt.number));
    }
    let id = |number| event(number).request_id;
    // Turns without capacity are no attempts.
    assert_eq!(order, [(id(1), 1), (id(2), 1), (id(1), 1), (id(1), 1)]);
    let waited = begin.elapsed();
    assert!(Duration::from_secs(3) <= waited && waited < Duration::from_secs(4), "{waited:?}");
    settled(&events).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_run_at_once_than_allowed() {
    let (script, mut seen) = Script::new();
    script.gate.forget_permits(1_000);
    let events = start(Memory::default().open(), script.clone(), options(3));
    for number in 0..10 {
        events.accept(event(number)).await.expect("accept");
    }
    while events.stats().running < 3 {
        script.entered.notified().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(events.stats().running, 3);
    script.gate.add_permits(10);
    for _ in 0..10 {
        seen.recv().await.expect("an attempt");
    }
    settled(&events).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_function_is_gone_is_given_up() {
    let (script, _seen) = Script::new();
    script.treat(None);
    let events = start(Memory::default().open(), script.clone(), options(1));
    events.accept(event(1)).await.expect("accept");
    settled(&events).await;
    // Of a version that is gone the rest is known, and told.
    script.treat(Some(told("arn:aws:lambda:r:a:function")));
    script.answers(2, [Outcome::FunctionGone]);
    events.accept(event(2)).await.expect("accept");
    settled(&events).await;
    assert_eq!((events.stats().given_up, events.stats().succeeded), (2, 0));
    assert_eq!(script.delivered().len(), 2);
    assert_eq!(events.metrics()[&event(1).function].async_events_dropped, 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_hurts_only_its_attempt() {
    let (script, mut seen) = Script::new();
    script.panics.store(1, Ordering::Relaxed);
    let events = start(Memory::default().open(), script, options(1));
    events.accept(event(1)).await.expect("accept");
    assert_eq!(seen.recv().await.expect("an attempt").number, 1);
    assert_eq!(seen.recv().await.expect("another").number, 1);
    settled(&events).await;
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_what_runs_and_leaves_the_rest() {
    let memory = Memory::default();
    let (script, mut seen) = Script::new();
    script.gate.forget_permits(1_000);
    let events = start(memory.open(), script.clone(), options(1));
    events.accept(event(1)).await.expect("accept");
    script.entered.notified().await;
    events.accept(event(2)).await.expect("accept");
    let drain = tokio::spawn({
        let events = events.clone();
        async move { events.drain(Duration::from_secs(60)).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!drain.is_finished());
    script.gate.add_permits(5);
    drain.await.expect("no panic");
    assert_eq!(events.backlog().await.expect("backlog"), 1);
    events.accept(event(3)).await.expect("accepting goes on");
    drop(events);
    assert_eq!(seen.recv().await.expect("the first").event, seen_as(event(1)));
    assert!(seen.try_recv().is_err());

    let (script, mut seen) = Script::new();
    let events = start(memory.open(), script, options(1));
    assert_eq!(seen.recv().await.expect("the second").event, seen_as(event(2)));
    assert_eq!(seen.recv().await.expect("the third").event, seen_as(event(3)));
    settled(&events).await;
}

#[tokio::test(start_paused = true)]
async fn draining_does_not_wait_longer_than_its_patience() {
    let (script, _seen) = Script::new();
    script.gate.forget_permits(1_000);
    let events = start(Memory::default().open(), script.clone(), options(1));
    events.accept(event(1)).await.expect("accept");
    script.entered.notified().await;
    let begin = Instant::now();
    events.drain(Duration::from_secs(9)).await;
    assert_eq!(begin.elapsed().as_secs(), 9);
}

#[tokio::test]
async fn big_payloads_travel_by_blob_and_leave_none_behind() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let store = open_embedded(directory.path()).expect("open");
    let (script, mut seen) = Script::new();
    let events = start(store.clone(), script, options(2));
    let big = |number| Event { payload: vec![b'x'; 900_000].into(), ..event(number) };
    // The same bytes twice: each event has a blob of its own, so the first to end takes nothing from the other.
    events.accept(big(1)).await.expect("accept");
    events.accept(big(2)).await.expect("accept");
    for _ in 0..2 {
        assert_eq!(seen.recv().await.expect("an attempt").event.payload, big(1).payload);
    }
    settled(&events).await;
    assert!(store.blobs.list(None, 9).await.expect("list").is_empty());
}

#[tokio::test]
async fn an_event_whose_blob_is_gone_was_done() {
    let store = Memory::default().open();
    let (script, mut seen) = Script::new();
    let accepted = Event { payload: vec![b'x'; 100_000].into(), ..event(1) };
    {
        let events = AsyncInvocations::new(store.clone());
        events.accept(accepted).await.expect("accept");
    }
    let blob = store.blobs.list(None, 1).await.expect("list")[0];
    store.blobs.delete(&blob).await.expect("delete");
    let events = start(store, script, options(1));
    settled(&events).await;
    assert!(seen.try_recv().is_err());
}

/// What the process that dies leaves behind: an event accepted and never looked at, and one in the middle of its run.
#[test]
fn what_was_accepted_runs_after_the_process_died() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let open = || -> Store { open_embedded(directory.path()).expect("open") };
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
    let first = runtime().expect("a runtime");
    first.block_on(async {
        let (script, _seen) = Script::new();
        script.gate.forget_permits(1_000);
        let events = start(open(), script.clone(), options(1));
        events.accept(event(1)).await.expect("accept");
        script.entered.notified().await;
        events.accept(event(2)).await.expect("accept");
    });
    // Every task is dropped where it stands, as by a kill.
    first.shutdown_background();
    runtime().expect("a runtime").block_on(async {
        let (script, mut seen) = Script::new();
        let events = start(open(), script, options(1));
        assert_eq!(seen.recv().await, Some(Attempt { event: seen_as(event(1)), number: 2 }));
        assert_eq!(seen.recv().await, Some(Attempt { event: seen_as(event(2)), number: 1 }));
        settled(&events).await;
    });
}

/// Everything is told to functions of this prefix.
fn told(prefix: &str) -> Treatment {
    let target = |name: &str| Some(format!("{prefix}:{name}"));
    Treatment {
        on_success: target("good"),
        on_failure: target("bad"),
        dead_letter: target("dead"),
        ..Treatment::default()
    }
}

const PREFIX: &str = "arn:aws:lambda:us-east-1:000000000000:function";

#[tokio::test(start_paused = true)]
async fn a_function_error_is_retried_after_one_and_two_minutes_and_then_told() {
    let (script, mut seen) = Script::new();
    script.treat(Some(told(PREFIX)));
    // What finds no capacity between the attempts changes neither their number nor their waits.
    script.answers(1, [failed(), Outcome::Throttled, failed(), failed()]);
    let events = start(Memory::default().open(), script.clone(), options(2));
    let begin = Instant::now();
    events.accept(event(1)).await.expect("accept");
    let mut turns = Vec::new();
    for _ in 0..4 {
        let number = seen.recv().await.expect("an attempt").number;
        turns.push((number, begin.elapsed().as_secs()));
    }
    assert_eq!(turns, [(1, 0), (2, 60), (2, 61), (3, 181)]);
    settled(&events).await;
    let delivered = script.delivered();
    let targets: Vec<&str> = delivered.iter().map(|(target, _)| target.as_str()).collect();
    assert_eq!(targets, [format!("{PREFIX}:bad"), format!("{PREFIX}:dead")]);
    let Message::Record(record) = &delivered[0].1.message else { panic!("a record") };
    let record: serde_json::Value = serde_json::from_slice(record).expect("JSON");
    assert_eq!(record["requestContext"]["condition"], "RetriesExhausted");
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 3);
    assert_eq!(record["responsePayload"]["errorMessage"], "no");
    let Message::DeadLetter(letter) = &delivered[1].1.message else { panic!("a dead letter") };
    assert_eq!((&letter.body, letter.error_message.as_str()), (&event(1).payload, "no"));
    // The lineage goes along, so that a loop through destinations is noticed.
    assert_eq!(delivered[0].1.trace_id, seen_as(event(1)).trace_id);
    let stats = events.stats();
    assert_eq!((stats.retried, stats.postponed, stats.given_up), (2, 1, 1));
    let metrics = events.metrics()[&event(1).function];
    assert_eq!((metrics.async_events_received, metrics.async_events_dropped), (1, 1));
    assert_eq!(
        (metrics.async_event_age.sample_count, metrics.async_event_age.maximum / 1_000),
        (4, 181 + 999)
    );
}

#[tokio::test(start_paused = true)]
async fn success_is_told_where_that_is_wanted() {
    let (script, _seen) = Script::new();
    script.treat(Some(told(PREFIX)));
    script.busy.store(3, Ordering::Relaxed);
    let events = start(Memory::default().open(), script.clone(), options(2));
    events.accept(event(1)).await.expect("accept");
    settled(&events).await;
    let delivered = script.delivered();
    assert_eq!((delivered.len(), delivered[0].0.as_str()), (1, format!("{PREFIX}:good").as_str()));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_delivered_is_counted_and_the_event_ends() {
    let (script, _seen) = Script::new();
    let gone = |service: &str| Some(format!("arn:aws:{service}:us-east-1:000000000000:gone"));
    script.treat(Some(Treatment {
        retries: 0,
        on_failure: gone("lambda"),
        dead_letter: gone("sqs"),
        ..Treatment::default()
    }));
    script.answers(1, [failed()]);
    let events = start(Memory::default().open(), script, options(2));
    events.accept(event(1)).await.expect("accept");
    settled(&events).await;
    let metrics = events.metrics()[&event(1).function];
    assert_eq!((metrics.destination_delivery_failures, metrics.dead_letter_errors), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn events_end_at_their_age_wherever_they_are() {
    let (script, mut seen) = Script::new();
    let age = Duration::from_secs(60);
    script.treat(Some(Treatment { age, ..told(PREFIX) }));
    script.answers(1, std::iter::repeat_n(Outcome::Throttled, 99));
    let events = start(Memory::default().open(), script.clone(), options(2));
    // The clock of the tests begins at a million.
    events.accept(Event { accepted: Timestamp(1_000_000), ..event(1) }).await.expect("accept");
    let begin = Instant::now();
    settled(&events).await;
    assert_eq!(begin.elapsed().as_secs(), 60);
    let mut turns = 0;
    while let Ok(attempt) = seen.try_recv() {
        turns += 1;
        assert_eq!(attempt.number, 1);
    }
    assert_eq!(turns, 6, "after 0, 1, 3, 7, 15 and 31 s");
    let Message::Record(record) = script.delivered()[0].1.message.clone() else { panic!("a record") };
    let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
    assert_eq!(record["requestContext"]["condition"], "EventAgeExceeded");
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 0);
    assert_eq!(record["responseContext"], serde_json::json!({"statusCode": 429}));
}

#[tokio::test(start_paused = true)]
async fn a_function_that_leads_to_itself_is_stopped() {
    let (script, mut seen) = Script::new();
    script.treat(Some(told(PREFIX)));
    let events = start(Memory::default().open(), script.clone(), options(2));
    let mut trace_id = String::new();
    for run in 0..20 {
        events.accept(Event { trace_id: trace_id.clone(), ..event(run) }).await.expect("accept");
        settled(&events).await;
        let Ok(attempt) = seen.try_recv() else {
            assert_eq!(run, 16);
            let (target, delivery) = script.delivered()[16].clone();
            assert_eq!(target, format!("{PREFIX}:bad"));
            let Message::Record(record) = delivery.message else { panic!("a record") };
            assert!(String::from_utf8_lossy(&record).contains(r#""condition":"RecursiveInvocation""#));
            assert_eq!(events.metrics()[&event(1).function].recursive_invocations_dropped, 1);
            return;
        };
        trace_id = attempt.event.trace_id;
    }
    panic!("nobody stopped it");
}

/// Killed between two attempts and in the middle of one: the count goes on where it was, and the wait is not cut short.
#[test]
fn the_attempt_count_survives_the_process() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let open = || -> Store { open_embedded(directory.path()).expect("open") };
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
    let (script, mut seen) = Script::new();
    script.answers(1, [failed(), Outcome::Throttled, failed()]);
    let quick = || EventsOptions { retry: Duration::from_millis(300), ..options(1) };
    let soon = Duration::from_secs(20);
    let dead = |work: Pin<Box<dyn Future<Output = ()> + '_>>| {
        let process = runtime().expect("a runtime");
        process.block_on(work);
        // Every task is dropped where it stands; none may go on beside the next process.
        process.shutdown_timeout(soon);
    };
    dead(Box::pin(async {
        let events = start(open(), script.clone(), quick());
        events.accept(event(1)).await.expect("accept");
        assert_eq!(timeout(soon, seen.recv()).await.expect("soon").expect("an attempt").number, 1);
        while events.stats().retried == 0 || events.stats().running > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }));
    let mut numbers = Vec::new();
    dead(Box::pin(async {
        let events = start(open(), script.clone(), quick());
        // Throttled, then failed for the second time.
        for _ in 0..2 {
            numbers.push(timeout(soon, seen.recv()).await.expect("soon").expect("an attempt").number);
        }
        while events.stats().retried == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }));
    script.gate.forget_permits(1_000);
    dead(Box::pin(async {
        // Earlier turns may have left their mark.
        timeout(Duration::from_millis(1), script.entered.notified()).await.ok();
        let _events = start(open(), script.clone(), quick());
        // Cut off in the middle of the third.
        timeout(soon, script.entered.notified()).await.expect("soon");
    }));
    script.gate.add_permits(9);
    dead(Box::pin(async {
        let events = start(open(), script.clone(), quick());
        numbers.push(timeout(soon, seen.recv()).await.expect("soon").expect("an attempt").number);
        settled(&events).await;
    }));
    assert_eq!(numbers, [2, 2, 4]);
}
