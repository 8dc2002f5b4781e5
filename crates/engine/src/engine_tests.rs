use super::*;
use bytes::Bytes;
use martlet_environment::{InitType, Piece, response_stream};
use martlet_model::Timestamp;
use martlet_model::{
    AccountId, Code, Configuration, FunctionName, FunctionVersion, Region, RequestId, RuntimeName,
};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::sync::{Semaphore, watch};

/// A world whose environments echo the payload, and do what the payload says.
#[derive(Default)]
struct World {
    started: AtomicUsize,
    stopped: AtomicUsize,
    finished: AtomicUsize,
    frozen: AtomicUsize,
    prepared: AtomicUsize,
    forked: AtomicUsize,
    refuse_starts: bool,
    init_fails: bool,
    /// Functions can be forked.
    forks: bool,
    /// The template that lives now: set to false, it ends.
    template: Mutex<Option<Arc<watch::Sender<bool>>>>,
    /// Of each environment, in the order of their starts: set to false, it ends.
    alive: Mutex<Vec<Arc<watch::Sender<bool>>>>,
    /// "hold" events wait for a permit.
    gate: Option<Semaphore>,
}

#[derive(Clone, Default)]
struct Played(Arc<World>);

struct Fake {
    world: Arc<World>,
    number: usize,
    event: Option<Invocation>,
    sink: Option<ResponseSink>,
    alive: Arc<watch::Sender<bool>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the world is full")]
struct Full;

impl Played {
    fn environment(&self) -> Fake {
        let number = self.0.started.fetch_add(1, Ordering::SeqCst);
        let alive = Arc::new(watch::channel(true).0);
        self.0.alive.lock().unwrap().push(Arc::clone(&alive));
        Fake { world: Arc::clone(&self.0), number, event: None, sink: None, alive }
    }
}

impl Host for Played {
    type Environment = Fake;
    type Template = FakeTemplate;
    type StartError = Full;

    fn can_fork(&self, _: &Deployment) -> bool {
        self.0.forks
    }

    async fn start(&self, _: Arc<Deployment>, _: InitType) -> Result<Fake, Full> {
        tokio::task::yield_now().await;
        if self.0.refuse_starts { Err(Full) } else { Ok(self.environment()) }
    }

    async fn prepare(&self, _: Arc<Deployment>, _: InitType) -> Result<Prepared<FakeTemplate, Fake>, Full> {
        tokio::task::yield_now().await;
        if self.0.refuse_starts {
            return Err(Full);
        }
        self.0.prepared.fetch_add(1, Ordering::SeqCst);
        let alive = Arc::new(watch::channel(true).0);
        *self.0.template.lock().unwrap() = Some(Arc::clone(&alive));
        Ok(Prepared::Template(FakeTemplate { world: Arc::clone(&self.0), alive }))
    }

    async fn fork(&self, template: Arc<FakeTemplate>, _: InitType) -> Result<Fake, Full> {
        tokio::task::yield_now().await;
        if !*template.alive.borrow() {
            return Err(Full);
        }
        self.0.forked.fetch_add(1, Ordering::SeqCst);
        Ok(self.environment())
    }

    fn is_template_gone(_: &Full) -> bool {
        true
    }
}

struct FakeTemplate {
    world: Arc<World>,
    alive: Arc<watch::Sender<bool>>,
}

impl Template for FakeTemplate {
    fn memory_bytes(&self) -> u64 {
        1 << 20
    }

    fn freeze(&self) {}

    fn set_stock(&self, _: usize) {}

    fn exited(&self) -> impl Future<Output = ()> + Send + 'static {
        ended(&self.alive)
    }

    async fn stop(self: Arc<Self>) {
        self.alive.send_replace(false);
        self.world.stopped.fetch_add(1, Ordering::SeqCst);
    }
}

fn ended(alive: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut alive = alive.subscribe();
    async move {
        let _ = alive.wait_for(|alive| !alive).await;
    }
}

impl ExecutionEnvironment for Fake {
    fn stream_to(&mut self, sink: ResponseSink) {
        self.sink = Some(sink);
    }

    fn begin(&mut self, invocation: Invocation) {
        self.event = Some(invocation);
    }

    async fn complete(&mut self) -> Completion {
        let text = self.event.as_ref().map(|event| event.payload.clone()).unwrap_or_default();
        if !*self.alive.borrow()
            || (text.starts_with(b"dead once") && self.number == 0)
            || text.starts_with(b"dead always")
        {
            self.sink = None;
            return Completion::Undelivered(self.event.take().expect("an event was begun"));
        }
        if text.starts_with(b"hold")
            && let Some(gate) = &self.world.gate
        {
            gate.acquire().await.expect("the gate stays open").forget();
        }
        self.event = None;
        self.world.finished.fetch_add(1, Ordering::SeqCst);
        let payload = Bytes::from(self.number.to_string());
        if let Some(sink) = self.sink.take() {
            sink.push(Piece::Data(payload.clone()));
        }
        let reusable = !text.starts_with(b"crash");
        Completion::Done(Completed { payload, function_error: None, log_tail: vec![], reusable })
    }

    fn freeze(&mut self) {
        self.world.frozen.fetch_add(1, Ordering::SeqCst);
    }

    fn is_initialized(&self) -> bool {
        !self.world.init_fails
    }

    fn memory_bytes(&self) -> u64 {
        1 << 20
    }

    fn exited(&self) -> impl Future<Output = ()> + Send + 'static {
        ended(&self.alive)
    }

    async fn stop(self) {
        self.world.stopped.fetch_add(1, Ordering::SeqCst);
    }
}

fn deployment(revision: &str) -> Arc<Deployment> {
    let function = FunctionArn {
        region: Region::new("us-east-1").unwrap(),
        account: AccountId::new("000000000000").unwrap(),
        name: FunctionName::new("f").unwrap(),
    };
    let configuration = Configuration::new(RuntimeName::new("python3.12"), "a.b");
    let code = Code { digest: "0".repeat(64), bytes: 1 };
    let version = FunctionVersion {
        function,
        version: Version::Latest,
        configuration,
        code,
        revision: revision.into(),
    };
    Arc::new(Deployment { version, code_dir: "/nowhere".into(), opt_dir: None })
}

fn event(payload: &str) -> Invocation {
    Invocation {
        request_id: RequestId::from_random([7; 16]),
        invoked_arn: String::new(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        client_context: None,
        tenant: None,
        trace_id: String::new(),
        accepted: Timestamp(0),
        trigger: martlet_model::Trigger::Request,
        attempt: 1,
    }
}

fn options() -> EngineOptions {
    EngineOptions {
        concurrency: 10,
        freeze_after: Duration::from_millis(1),
        spares: 0,
        ..EngineOptions::default()
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never came true: {what}");
}

async fn answer(engine: &Engine<Played>, deployment: &Arc<Deployment>, payload: &str) -> String {
    let completed = engine.invoke(deployment, event(payload)).await.unwrap();
    String::from_utf8(completed.payload.to_vec()).unwrap()
}

#[tokio::test]
async fn environments_are_reused_and_a_broken_one_is_replaced() {
    let world = Played::default();
    let engine = Engine::new(world.clone(), options());
    let d = deployment("1");
    assert_eq!(answer(&engine, &d, "a").await, "0");
    assert_eq!(answer(&engine, &d, "b").await, "0");
    assert_eq!(answer(&engine, &d, "crash").await, "0");
    assert_eq!(answer(&engine, &d, "c").await, "1");
    until("frozen when idle", || world.0.frozen.load(Ordering::SeqCst) > 0).await;
    assert!(engine.drain(Duration::from_secs(5)).await);
    assert_eq!(world.0.stopped.load(Ordering::SeqCst), 2);
    assert!(matches!(engine.invoke(&d, event("d")).await, Err(Rejected::Closing)));
}

#[tokio::test]
async fn an_environment_is_frozen_in_time_whatever_else_is_idle() {
    let world = Played::default();
    let engine = Engine::new(world.clone(), options());
    for (number, revision) in ["1", "2", "3", "4"].into_iter().enumerate() {
        answer(&engine, &deployment(revision), "a").await;
        let idle = Instant::now();
        until("it is frozen", || world.0.frozen.load(Ordering::SeqCst) == number + 1).await;
        // Far below the interval at which the keeper looks at the machine's memory.
        assert!(idle.elapsed() < pressure::INTERVAL / 2, "{:?}", idle.elapsed());
    }
}

#[tokio::test]
async fn an_event_that_never_arrived_is_given_to_another_environment() {
    let engine = Engine::new(Played::default(), options());
    assert_eq!(answer(&engine, &deployment("1"), "dead once").await, "1");
    let refused = engine.invoke(&deployment("1"), event("dead always")).await;
    assert!(matches!(refused, Err(Rejected::KeepsDying(_))), "{refused:?}");
    assert_eq!(engine.counts().iter().map(|c| c.counts.waiting).sum::<usize>(), 0);
}

#[tokio::test]
async fn a_stream_has_what_the_environment_that_ran_it_said_and_ends() {
    let world = Played::default();
    let engine = Engine::new(world, options());
    let (sink, mut stream) = response_stream();
    let ran = engine.stream(&deployment("1"), event("dead once"), Wanted::Any, sink).await.unwrap();
    assert_eq!(stream.next().await, Some(Piece::Data(ran.completed.payload)));
    assert_eq!(stream.next().await, None);

    let (sink, mut stream) = response_stream();
    let refused = engine.stream(&deployment("1"), event("dead always"), Wanted::Any, sink).await;
    assert!(matches!(refused, Err(Rejected::KeepsDying(_))), "{refused:?}");
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn an_idle_environment_that_ends_is_forgotten() {
    let world = Played::default();
    let engine = Engine::new(world.clone(), options());
    let d = deployment("1");
    assert_eq!(answer(&engine, &d, "a").await, "0");
    world.0.alive.lock().unwrap()[0].send_replace(false);
    until("it is cleared away", || world.0.stopped.load(Ordering::SeqCst) == 1).await;
    assert_eq!(engine.counts().len(), 0);
    assert_eq!(answer(&engine, &d, "b").await, "1");
}

#[tokio::test]
async fn a_caller_that_hangs_up_stops_nothing() {
    let world = Played(Arc::new(World { gate: Some(Semaphore::new(0)), ..World::default() }));
    let engine = Engine::new(world.clone(), options());
    let d = deployment("1");
    let call = tokio::spawn({
        let (engine, d) = (engine.clone(), Arc::clone(&d));
        async move { engine.invoke(&d, event("hold")).await }
    });
    until("the call runs", || engine.counts().iter().any(|c| c.counts.busy == 1)).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(world.0.finished.load(Ordering::SeqCst), 0);
    world.0.gate.as_ref().unwrap().add_permits(1);
    until("the event is finished all the same", || world.0.finished.load(Ordering::SeqCst) == 1).await;
    assert_eq!(answer(&engine, &d, "next").await, "0");
}

#[tokio::test]
async fn a_start_that_fails_is_told_with_its_reason() {
    let world = Played(Arc::new(World { refuse_starts: true, ..World::default() }));
    let engine = Engine::new(world, options());
    let refused = engine.invoke(&deployment("1"), event("a")).await.unwrap_err();
    assert_eq!(refused.to_string(), "no execution environment could be started: the world is full");
    assert!(engine.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_new_revision_never_runs_on_an_old_environment() {
    let world = Played::default();
    let engine = Engine::new(world.clone(), options());
    let (old, new) = (deployment("1"), deployment("2"));
    assert_eq!(answer(&engine, &old, "a").await, "0");
    assert_eq!(answer(&engine, &new, "a").await, "1");
    engine.retire(&old.version.function, |kept| kept.version.revision == "2");
    until("the old one is stopped", || world.0.stopped.load(Ordering::SeqCst) == 1).await;
    assert_eq!(answer(&engine, &new, "a").await, "1");
}

#[tokio::test]
async fn callers_over_the_limit_are_throttled_and_callers_in_line_can_leave() {
    let world = Played(Arc::new(World { gate: Some(Semaphore::new(0)), ..World::default() }));
    let engine =
        Engine::new(world.clone(), EngineOptions { concurrency: 2, memory_bytes: 128 << 20, ..options() });
    let d = deployment("1");
    let call = |payload: &'static str| {
        let (engine, d) = (engine.clone(), Arc::clone(&d));
        tokio::spawn(async move { engine.invoke(&d, event(payload)).await })
    };
    let running = call("hold");
    until("one runs", || engine.counts().iter().any(|c| c.counts.busy == 1)).await;
    let waiting = call("b");
    until("one waits: there is memory for one", || engine.counts().iter().any(|c| c.counts.waiting == 1))
        .await;
    assert!(matches!(
        engine.invoke(&d, event("c")).await,
        Err(Rejected::Throttled { limit: Limit::Concurrency, .. })
    ));
    waiting.abort();
    assert!(waiting.await.is_err());
    assert_eq!(engine.counts()[0].counts.waiting, 0);
    world.0.gate.as_ref().unwrap().add_permits(1);
    assert!(running.await.unwrap().is_ok());
}

fn forking() -> Played {
    Played(Arc::new(World { forks: true, ..World::default() }))
}

async fn ran(engine: &Engine<Played>, deployment: &Arc<Deployment>, wanted: Wanted) -> (String, Start) {
    let ran = engine.run(deployment, event("a"), wanted).await.unwrap();
    (String::from_utf8(ran.completed.payload.to_vec()).unwrap(), ran.start)
}

#[tokio::test]
async fn what_can_be_forked_is_prepared_once_and_forked_then() {
    let world = forking();
    let engine = Engine::new(world.clone(), options());
    let d = deployment("1");
    assert_eq!(ran(&engine, &d, Wanted::Any).await, ("0".into(), Start::Fork));
    assert_eq!(ran(&engine, &d, Wanted::Any).await, ("0".into(), Start::Warm));
    assert_eq!(ran(&engine, &d, Wanted::Cold(Start::Fork)).await, ("1".into(), Start::Fork));
    assert_eq!(ran(&engine, &d, Wanted::Cold(Start::Ordinary)).await, ("2".into(), Start::Ordinary));
    assert_eq!(ran(&engine, &d, Wanted::Any).await, ("0".into(), Start::Warm));
    assert_eq!(world.0.prepared.load(Ordering::SeqCst), 1);
    assert_eq!(world.0.forked.load(Ordering::SeqCst), 2);
    assert!(engine.drain(Duration::from_secs(5)).await);
    assert_eq!(world.0.stopped.load(Ordering::SeqCst), 4, "three environments and the template");
}

#[tokio::test]
async fn a_caller_that_wants_a_spare_finds_the_next_one_ready() {
    let engine = Engine::new(forking(), options());
    let d = deployment("1");
    assert_eq!(ran(&engine, &d, Wanted::Cold(Start::Spare)).await.1, Start::Spare);
    until("the next spare is ready", || engine.counts().iter().any(|c| c.counts.idle == 1)).await;
    assert_eq!(ran(&engine, &d, Wanted::Cold(Start::Spare)).await.1, Start::Spare);
}

#[tokio::test]
async fn a_template_that_died_is_made_again_and_nobody_hears_of_it() {
    let world = forking();
    let engine = Engine::new(world.clone(), options());
    let d = deployment("1");
    answer(&engine, &d, "a").await;
    let template = world.0.template.lock().unwrap().clone().unwrap();
    template.send_replace(false);
    assert_eq!(ran(&engine, &d, Wanted::Cold(Start::Fork)).await, ("1".into(), Start::Fork));
    assert_eq!(world.0.prepared.load(Ordering::SeqCst), 2);
    assert!(engine.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn five_hundred_first_calls_are_no_stampede() {
    let world = forking();
    let engine =
        Engine::new(world.clone(), EngineOptions { concurrency: 1000, memory_bytes: 1 << 40, ..options() });
    let d = deployment("1");
    let calls: Vec<_> = (0..500)
        .map(|_| {
            let (engine, d) = (engine.clone(), Arc::clone(&d));
            tokio::spawn(async move { engine.invoke(&d, event("a")).await.map(drop) })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(world.0.prepared.load(Ordering::SeqCst), 1);
    // Both take next to no time here, so this is no more than an order of magnitude.
    assert!(world.0.forked.load(Ordering::SeqCst) <= 100, "{:?}", world.0.forked);
    assert!(engine.drain(Duration::from_secs(5)).await);
}
