//! The dispatcher over real stores, with an invoker that does what each test says.

use crate::*;
use martlet_model::{AccountId, FunctionName, Region};
use martlet_store::{Memory, Store, open_embedded};
use std::collections::HashMap;
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
        accepted: Timestamp(5),
    }
}

/// Tells the test about every attempt and answers as the test decided for it.
struct Script {
    attempts: mpsc::UnboundedSender<Attempt>,
    answers: Mutex<HashMap<(RequestId, u32), Outcome>>,
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
            gate: Semaphore::new(1_000),
            panics: AtomicUsize::new(0),
            entered: Notify::new(),
        };
        (Arc::new(script), seen)
    }

    fn answer(&self, number: u8, attempt: u32, outcome: Outcome) {
        self.answers.lock().expect("lock").insert((event(number).request_id, attempt), outcome);
    }
}

impl Invoker for Script {
    async fn invoke(&self, attempt: Attempt) -> Outcome {
        self.entered.notify_one();
        self.gate.acquire().await.expect("open").forget();
        let key = (attempt.event.request_id.clone(), attempt.number);
        self.attempts.send(attempt).expect("the test listens");
        let take_one = |left: usize| left.checked_sub(1);
        if self.panics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_ok() {
            panic!("as the test asked");
        }
        self.answers.lock().expect("lock").remove(&key).unwrap_or(Outcome::Completed)
    }
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
    let events = AsyncInvocations::start(Memory::default().open(), script, options(2));
    events.accept(event(1)).await.expect("accept");
    assert_eq!(seen.recv().await, Some(Attempt { event: event(1), number: 1 }));
    settled(&events).await;
    let stats = events.stats();
    assert_eq!((stats.accepted, stats.completed, stats.running), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn events_without_capacity_wait_and_others_overtake_them() {
    let (script, mut seen) = Script::new();
    let throttled = Outcome::Throttled { retry_after: None };
    script.answer(1, 1, throttled);
    script.answer(1, 2, Outcome::Unavailable);
    let events = AsyncInvocations::start(Memory::default().open(), script, options(1));
    let begin = Instant::now();
    events.accept(event(1)).await.expect("accept");
    events.accept(event(2)).await.expect("accept");
    let mut order = Vec::new();
    for _ in 0..4 {
        let attempt = seen.recv().await.expect("an attempt");
        order.push((attempt.event.request_id.clone(), attempt.number));
    }
    let id = |number| event(number).request_id;
    assert_eq!(order, [(id(1), 1), (id(2), 1), (id(1), 2), (id(1), 3)]);
    let waited = begin.elapsed();
    assert!(Duration::from_secs(3) <= waited && waited < Duration::from_secs(4), "{waited:?}");
    settled(&events).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_run_at_once_than_allowed() {
    let (script, mut seen) = Script::new();
    script.gate.forget_permits(1_000);
    let events = AsyncInvocations::start(Memory::default().open(), script.clone(), options(3));
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
    script.answer(1, 1, Outcome::FunctionGone);
    let events = AsyncInvocations::start(Memory::default().open(), script, options(1));
    events.accept(event(1)).await.expect("accept");
    settled(&events).await;
    assert_eq!((events.stats().given_up, events.stats().completed), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_hurts_only_its_attempt() {
    let (script, mut seen) = Script::new();
    script.panics.store(1, Ordering::Relaxed);
    let events = AsyncInvocations::start(Memory::default().open(), script, options(1));
    events.accept(event(1)).await.expect("accept");
    assert_eq!(seen.recv().await.expect("an attempt").number, 1);
    assert_eq!(seen.recv().await.expect("another").number, 2);
    settled(&events).await;
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_what_runs_and_leaves_the_rest() {
    let memory = Memory::default();
    let (script, mut seen) = Script::new();
    script.gate.forget_permits(1_000);
    let events = AsyncInvocations::start(memory.open(), script.clone(), options(1));
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
    assert_eq!(seen.recv().await.expect("the first").event, event(1));
    assert!(seen.try_recv().is_err());

    let (script, mut seen) = Script::new();
    let events = AsyncInvocations::start(memory.open(), script, options(1));
    assert_eq!(seen.recv().await.expect("the second").event, event(2));
    assert_eq!(seen.recv().await.expect("the third").event, event(3));
    settled(&events).await;
}

#[tokio::test(start_paused = true)]
async fn draining_does_not_wait_longer_than_its_patience() {
    let (script, _seen) = Script::new();
    script.gate.forget_permits(1_000);
    let events = AsyncInvocations::start(Memory::default().open(), script.clone(), options(1));
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
    let events = AsyncInvocations::start(store.clone(), script, options(2));
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
        let (idle, _) = Script::new();
        let events = AsyncInvocations::start(store.clone(), idle, options(1));
        events.drain(Duration::from_secs(5)).await;
        events.accept(accepted).await.expect("accept");
    }
    let blob = store.blobs.list(None, 1).await.expect("list")[0];
    store.blobs.delete(&blob).await.expect("delete");
    let events = AsyncInvocations::start(store, script, options(1));
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
        let events = AsyncInvocations::start(open(), script.clone(), options(1));
        events.accept(event(1)).await.expect("accept");
        script.entered.notified().await;
        events.accept(event(2)).await.expect("accept");
    });
    // Every task is dropped where it stands, as by a kill.
    first.shutdown_background();
    runtime().expect("a runtime").block_on(async {
        let (script, mut seen) = Script::new();
        let events = AsyncInvocations::start(open(), script, options(1));
        assert_eq!(seen.recv().await, Some(Attempt { event: event(1), number: 2 }));
        assert_eq!(seen.recv().await, Some(Attempt { event: event(2), number: 1 }));
        settled(&events).await;
    });
}
