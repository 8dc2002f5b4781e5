//! Which execution environment runs this invocation, now or in a moment.
//!
//! [`scheduler`] decides, without I/O and with time as a parameter; [`Engine`] carries its decisions out. The task that
//! calls [`Engine::invoke`] talks to the environment itself: a warm invocation takes one short lock before and one
//! after, and wakes nobody.

mod host;
mod options;
mod pressure;
pub mod scheduler;

pub use host::{ExecutionEnvironment, Host};
pub use options::EngineOptions;
pub use scheduler::{Counts, Limits};

use martlet_environment::{Completed, Completion, Deployment};
use martlet_model::{FunctionArn, Invocation, Timestamp, Version};
use scheduler::{Action, Arrival, EnvironmentId, Scheduler, Ticket, VersionId};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// How often one event is given to another environment because the one before died without having seen it.
const REDELIVERIES: u32 = 3;

/// Why an invocation was not run. Nothing of it reached the function.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Rejected {
    /// The account's concurrency is used up.
    #[error("all {limit} concurrent executions of the account are in use")]
    Throttled {
        /// The account's limit.
        limit: usize,
    },
    /// The function may use more memory than environments may hold together on this machine.
    #[error(
        "the function's memory of {function_mb} MB does not fit the memory budget of {budget_mb} MB; lower the \
         function's MemorySize or raise memory_budget_mb"
    )]
    TooLarge {
        /// What the function asks for.
        function_mb: u64,
        /// What there is in total.
        budget_mb: u64,
    },
    /// There is more to do than this machine can do in time.
    #[error("the function is called more often than this machine can run it; its line would not end in time")]
    Overloaded,
    /// The platform could not start an environment.
    #[error("no execution environment could be started: {0}")]
    StartFailed(Arc<str>),
    /// Environments died again and again before they saw the event.
    #[error("{0} execution environments in a row ended before they took the event")]
    KeepsDying(u32),
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Closing,
}

/// How the environment that ran an invocation had come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    /// It had run events before.
    Warm,
    /// It had been started ahead of need, and waited.
    Spare,
    /// It was forked from a template for this invocation or one beside it in line.
    Fork,
    /// Its init phase was run for this invocation or one beside it in line.
    Ordinary,
}

/// Which environment a caller asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Whichever serves soonest.
    #[default]
    Any,
    /// One that has served nobody and is stopped afterwards: `Cold(Spare)` takes a spare, and makes one first when there is
    /// none; `Cold(Fork)` forks; `Cold(Ordinary)` runs the init phase. A function that cannot be forked starts
    /// ordinarily whatever is asked for. `Cold(Warm)` is the same as [`Wanted::Any`].
    Cold(Start),
}

/// What became of an invocation that was run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What the function made of the event.
    pub completed: Completed,
    /// How the environment that ran it had come about.
    pub start: Start,
}

/// What one function version has running, for `ls` and the health page.
#[derive(Clone, Debug)]
pub struct VersionCounts {
    /// The function.
    pub function: FunctionArn,
    /// The version.
    pub version: Version,
    /// Its environments and callers.
    pub counts: Counts,
}

/// Runs invocations. Cheap to clone; all clones are the same engine.
pub struct Engine<H: Host> {
    shared: Arc<Shared<H>>,
}

impl<H: Host> Clone for Engine<H> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<H: Host> {
    host: H,
    options: EngineOptions,
    epoch: Instant,
    state: Mutex<State<H>>,
    /// Wakes the keeper when an environment becomes idle that wants it earlier than planned.
    idle_again: Notify,
    /// Wakes whoever waits for the end of the last environment.
    ended: Notify,
}

struct State<H: Host> {
    scheduler: Scheduler,
    known: HashMap<Key, VersionId>,
    deployments: HashMap<VersionId, Arc<Deployment>>,
    parked: HashMap<EnvironmentId, H::Environment>,
    line: HashMap<Ticket, oneshot::Sender<Result<Busy<H>, Rejected>>>,
    /// Environments whose end a task waits for.
    watched: HashSet<EnvironmentId>,
    /// Environments whose shutdown phase is under way.
    stopping: usize,
    /// When the keeper looks again by itself.
    keeper_wakes: Option<Timestamp>,
}

/// One revision of one function version. A new revision is another key, so it never meets a stale environment.
#[derive(Clone)]
struct Key(Arc<Deployment>);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0.version, &other.0.version);
        Arc::ptr_eq(&self.0, &other.0)
            || (a.revision == b.revision && a.version == b.version && a.function == b.function)
    }
}

impl Eq for Key {}

impl std::hash::Hash for Key {
    fn hash<S: std::hash::Hasher>(&self, state: &mut S) {
        self.0.version.function.name.hash(state);
        self.0.version.revision.hash(state);
    }
}

/// An environment that belongs to one caller. Dropped, it goes back; dropped in the middle of an invocation, the
/// invocation is finished first, so a caller that hangs up stops nothing.
struct Busy<H: Host> {
    shared: Arc<Shared<H>>,
    id: EnvironmentId,
    environment: Option<H::Environment>,
    running: bool,
}

impl<H: Host> Engine<H> {
    /// An engine without environments. Must be called inside a tokio runtime, where its keeper task lives until
    /// [`Engine::drain`].
    #[must_use]
    pub fn new(host: H, options: EngineOptions) -> Self {
        let limits = Limits {
            concurrency: options.concurrency,
            concurrent_starts: options.concurrent_starts,
            memory_bytes: options.memory_bytes,
            idle_millis: options.idle.as_millis() as u64,
            freeze_millis: options.freeze_after.as_millis() as u64,
        };
        let shared = Arc::new(Shared {
            host,
            options,
            epoch: Instant::now(),
            state: Mutex::new(State {
                scheduler: Scheduler::new(limits),
                known: HashMap::new(),
                deployments: HashMap::new(),
                parked: HashMap::new(),
                line: HashMap::new(),
                watched: HashSet::new(),
                stopping: 0,
                keeper_wakes: None,
            }),
            idle_again: Notify::new(),
            ended: Notify::new(),
        });
        tokio::spawn(keep(Arc::clone(&shared)));
        Self { shared }
    }

    /// Runs one event and returns what the function made of it, a failure of the function included.
    ///
    /// # Errors
    /// [`Rejected`] when the event reached no function code.
    pub async fn invoke(
        &self,
        deployment: &Arc<Deployment>,
        invocation: Invocation,
    ) -> Result<Completed, Rejected> {
        Ok(self.run(deployment, invocation, Wanted::Any).await?.completed)
    }

    /// Runs one event on the kind of environment that is `wanted`, and says which start it had.
    ///
    /// # Errors
    /// As [`Engine::invoke`].
    pub async fn run(
        &self,
        deployment: &Arc<Deployment>,
        mut invocation: Invocation,
        _wanted: Wanted,
    ) -> Result<Ran, Rejected> {
        let mut place = self.shared.arrive(deployment)?;
        for _ in 0..REDELIVERIES {
            let (mut busy, start) = match place {
                Place::Ready(busy) => (busy, Start::Warm),
                Place::Line(line) => (line.wait().await?, Start::Ordinary),
            };
            match busy.run(invocation).await {
                Completion::Done(completed) => return Ok(Ran { completed, start }),
                Completion::Undelivered(back) => {
                    invocation = back;
                    place = Place::Line(busy.exchange());
                }
            }
        }
        Err(Rejected::KeepsDying(REDELIVERIES))
    }

    /// Makes every environment of the function stale but those of the revisions that `keep` approves: idle ones stop now, busy
    /// ones when they are done.
    pub fn retire(&self, function: &FunctionArn, keep: impl Fn(&Deployment) -> bool) {
        let mut actions = vec![];
        let mut state = self.shared.lock();
        let state = &mut *state;
        state.known.retain(|key, version| {
            let stale = key.0.version.function == *function && !keep(&key.0);
            if stale {
                state.scheduler.retire(*version, &mut actions);
            }
            !stale
        });
        self.shared.carry_out(state, actions, &Rejected::Closing);
    }

    /// What every version with environments or callers has at this moment.
    #[must_use]
    pub fn counts(&self) -> Vec<VersionCounts> {
        let state = self.shared.lock();
        let counts = state.known.iter().map(|(key, id)| VersionCounts {
            function: key.0.version.function.clone(),
            version: key.0.version.version,
            counts: state.scheduler.counts(*id),
        });
        counts.filter(|version| version.counts != Counts::default()).collect()
    }

    /// Takes nothing in any more, lets what runs finish, and resolves when every environment is gone or `patience` is
    /// over; true when all were gone.
    pub async fn drain(&self, patience: Duration) -> bool {
        {
            let mut actions = vec![];
            let mut state = self.shared.lock();
            state.scheduler.close(&mut actions);
            self.shared.carry_out(&mut state, actions, &Rejected::Closing);
        }
        self.shared.idle_again.notify_one();
        let all_gone = async {
            loop {
                let ended = self.shared.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if self.shared.lock().is_empty() {
                    return;
                }
                ended.await;
            }
        };
        tokio::time::timeout(patience, all_gone).await.is_ok()
    }
}

enum Place<H: Host> {
    Ready(Busy<H>),
    Line(Line<H>),
}

/// A caller's place in line; dropping it leaves the line.
struct Line<H: Host> {
    shared: Arc<Shared<H>>,
    version: VersionId,
    ticket: Ticket,
    handed: oneshot::Receiver<Result<Busy<H>, Rejected>>,
}

impl<H: Host> Line<H> {
    async fn wait(mut self) -> Result<Busy<H>, Rejected> {
        (&mut self.handed).await.unwrap_or(Err(Rejected::Closing))
    }
}

impl<H: Host> Drop for Line<H> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.line.remove(&self.ticket).is_some() {
            state.scheduler.gave_up(self.version, self.ticket);
        }
    }
}

impl<H: Host> Busy<H> {
    async fn run(&mut self, invocation: Invocation) -> Completion {
        let Some(environment) = self.environment.as_mut() else { return Completion::Undelivered(invocation) };
        self.running = true;
        environment.begin(invocation);
        let completion = environment.complete().await;
        self.running = false;
        if let Completion::Done(completed) = &completion
            && let Some(environment) = self.environment.take()
        {
            self.shared.release(self.id, environment, completed.reusable);
        }
        completion
    }

    /// Gives a dead environment back for the next one of its version.
    fn exchange(mut self) -> Line<H> {
        let (sender, handed) = oneshot::channel();
        let mut actions = vec![];
        let mut state = self.shared.lock();
        let (version, ticket) = state.scheduler.broke_before_use(self.id, &mut actions);
        state.line.insert(ticket, sender);
        if let Some(environment) = self.environment.take() {
            self.shared.stop(&mut state, environment);
        }
        self.shared.carry_out(&mut state, actions, &Rejected::Closing);
        drop(state);
        Line { shared: Arc::clone(&self.shared), version, ticket, handed }
    }
}

impl<H: Host> Drop for Busy<H> {
    fn drop(&mut self) {
        let Some(mut environment) = self.environment.take() else { return };
        let (shared, id) = (Arc::clone(&self.shared), self.id);
        if !self.running {
            shared.release(id, environment, true);
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let reusable = match environment.complete().await {
                    Completion::Done(completed) => completed.reusable,
                    Completion::Undelivered(_) => false,
                };
                shared.release(id, environment, reusable);
            });
        }
    }
}

impl<H: Host> State<H> {
    fn is_empty(&self) -> bool {
        self.scheduler.environments() == 0 && self.stopping == 0
    }
}

impl<H: Host> Shared<H> {
    fn lock(&self) -> MutexGuard<'_, State<H>> {
        // A panic elsewhere must not end every other invocation with it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The scheduler's time: monotonic, counted from the engine's start.
    fn now(&self) -> Timestamp {
        Timestamp(self.epoch.elapsed().as_millis() as u64)
    }

    fn arrive(self: &Arc<Self>, deployment: &Arc<Deployment>) -> Result<Place<H>, Rejected> {
        let memory_bytes = u64::from(deployment.version.configuration.memory_mb) << 20;
        let mut actions = vec![];
        let mut state = self.lock();
        let key = Key(Arc::clone(deployment));
        let version = match state.known.get(&key) {
            Some(version) => *version,
            None => {
                let version = state.scheduler.add_version(memory_bytes);
                state.known.insert(key, version);
                state.deployments.insert(version, Arc::clone(deployment));
                version
            }
        };
        let place = match state.scheduler.arrive(version, &mut actions) {
            Arrival::Run(id) => {
                let environment = state.parked.remove(&id);
                Place::Ready(Busy { shared: Arc::clone(self), id, environment, running: false })
            }
            Arrival::Wait(ticket) => {
                let (sender, handed) = oneshot::channel();
                state.line.insert(ticket, sender);
                Place::Line(Line { shared: Arc::clone(self), version, ticket, handed })
            }
            Arrival::Throttled => return Err(Rejected::Throttled { limit: self.options.concurrency }),
            Arrival::TooLarge => {
                let budget_mb = self.options.memory_bytes >> 20;
                return Err(Rejected::TooLarge { function_mb: memory_bytes >> 20, budget_mb });
            }
            Arrival::Closing => return Err(Rejected::Closing),
        };
        self.carry_out(&mut state, actions, &Rejected::Closing);
        Ok(place)
    }

    /// An environment has done its work and is free, or broken.
    fn release(self: &Arc<Self>, id: EnvironmentId, environment: H::Environment, reusable: bool) {
        let memory_bytes = environment.memory_bytes();
        let mut actions = vec![];
        let mut state = self.lock();
        if reusable {
            self.watch(&mut state, id, &environment);
            state.parked.insert(id, environment);
            state.scheduler.finished(id, memory_bytes, self.now(), &mut actions);
            self.rouse_keeper(&mut state);
        } else {
            state.scheduler.broke(id, &mut actions);
            self.stop(&mut state, environment);
        }
        self.carry_out(&mut state, actions, &Rejected::Closing);
    }

    fn carry_out(self: &Arc<Self>, state: &mut State<H>, mut actions: Vec<Action>, refusal: &Rejected) {
        let mut done = 0;
        while let Some(action) = actions.get(done).copied() {
            done += 1;
            match action {
                Action::Hand(ticket, id) => {
                    let Some(environment) = state.parked.remove(&id) else { continue };
                    let busy =
                        Busy { shared: Arc::clone(self), id, environment: Some(environment), running: false };
                    let handed = match state.line.remove(&ticket) {
                        Some(caller) => caller.send(Ok(busy)),
                        None => Err(Ok(busy)),
                    };
                    if let Err(Ok(mut busy)) = handed
                        && let Some(environment) = busy.environment.take()
                    {
                        let memory_bytes = environment.memory_bytes();
                        state.parked.insert(id, environment);
                        state.scheduler.finished(id, memory_bytes, self.now(), &mut actions);
                    }
                }
                Action::Refuse(ticket) => {
                    if let Some(caller) = state.line.remove(&ticket) {
                        // A caller that has gone needs no answer.
                        let _ = caller.send(Err(refusal.clone()));
                    }
                }
                Action::Start(version) => self.start(state, version),
                Action::Stop(id) => {
                    if let Some(environment) = state.parked.remove(&id) {
                        self.stop(state, environment);
                    }
                }
                Action::Freeze(id) => {
                    if let Some(environment) = state.parked.get_mut(&id) {
                        environment.freeze();
                    }
                }
            }
        }
        let State { deployments, known, scheduler, .. } = state;
        if deployments.len() > known.len() {
            deployments.retain(|version, _| scheduler.knows(*version));
        }
    }

    fn start(self: &Arc<Self>, state: &State<H>, version: VersionId) {
        let Some(deployment) = state.deployments.get(&version).cloned() else { return };
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            match shared.host.start(Arc::clone(&deployment)).await {
                Ok(environment) => shared.started(version, environment),
                Err(error) => {
                    let reason = describe(&error);
                    tracing::error!(function = %deployment.version.function, %reason, "an execution environment could not be started");
                    let mut actions = vec![];
                    let mut state = shared.lock();
                    state.scheduler.start_failed(version, &mut actions);
                    shared.carry_out(&mut state, actions, &Rejected::StartFailed(reason.into()));
                    shared.ended.notify_waiters();
                }
            }
        });
    }

    fn started(self: &Arc<Self>, version: VersionId, environment: H::Environment) {
        let mut actions = vec![];
        let mut state = self.lock();
        let id = state.scheduler.started(version, self.now(), &mut actions);
        self.watch(&mut state, id, &environment);
        state.parked.insert(id, environment);
        self.rouse_keeper(&mut state);
        self.carry_out(&mut state, actions, &Rejected::Closing);
    }

    /// Sees to it that the keeper looks in time to freeze what becomes idle now. A function in steady use rouses it once in a
    /// freezing time, not once an event.
    fn rouse_keeper(&self, state: &mut State<H>) {
        let freezes = self.now().plus_millis(self.options.freeze_after.as_millis() as u64);
        if state.keeper_wakes.is_none_or(|wakes| freezes < wakes) {
            state.keeper_wakes = Some(freezes);
            self.idle_again.notify_one();
        }
    }

    /// Sees to it that an environment that ends while it is idle is forgotten. One that ends at work is its runner's to
    /// report, and may have new processes when it is free again.
    fn watch(self: &Arc<Self>, state: &mut State<H>, id: EnvironmentId, environment: &H::Environment) {
        if !state.watched.insert(id) {
            return;
        }
        let exited = environment.exited();
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            exited.await;
            let mut actions = vec![];
            let mut state = shared.lock();
            state.watched.remove(&id);
            if state.scheduler.died(id, &mut actions)
                && let Some(environment) = state.parked.remove(&id)
            {
                shared.stop(&mut state, environment);
            }
            shared.carry_out(&mut state, actions, &Rejected::Closing);
        });
    }

    fn stop(self: &Arc<Self>, state: &mut State<H>, environment: H::Environment) {
        state.stopping += 1;
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            environment.stop().await;
            shared.lock().stopping -= 1;
            shared.ended.notify_waiters();
        });
    }
}

/// Freezes, stops and evicts idle environments when their time has come, until the engine is drained.
async fn keep<H: Host>(shared: Arc<Shared<H>>) {
    let mut looked: Option<Instant> = None;
    loop {
        let wait = {
            let mut actions = vec![];
            let mut state = shared.lock();
            let now = shared.now();
            let next = state.scheduler.tick(now, &mut actions);
            if looked.is_none_or(|looked| looked.elapsed() >= pressure::INTERVAL) {
                looked = Some(Instant::now());
                if let Some(missing) = pressure::missing_bytes() {
                    state.scheduler.relieve(missing, &mut actions);
                }
            }
            shared.carry_out(&mut state, actions, &Rejected::Closing);
            if state.scheduler.is_closed() && state.is_empty() {
                return;
            }
            let wait =
                next.map(|due| Duration::from_millis(due.millis_since(now).max(1)).min(pressure::INTERVAL));
            state.keeper_wakes = wait.map(|wait| now.plus_millis(wait.as_millis() as u64));
            wait
        };
        let roused = shared.idle_again.notified();
        match wait {
            None => roused.await,
            // Whether roused or on time, there is something to look at.
            Some(wait) => drop(tokio::time::timeout(wait, roused).await),
        }
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
