//! Which execution environment runs this invocation, now or in a moment.
//!
//! [`scheduler`] decides, without I/O and with time as a parameter; [`Engine`] carries its decisions out. The task that
//! calls [`Engine::run`] talks to the environment itself: a warm invocation takes one short lock before and one
//! after, and wakes nobody (`warm`). Starts and stops are tasks of their own (`shared`); one task keeps the time (`keeper`).

mod host;
mod keeper;
mod options;
mod pressure;
pub mod scheduler;
mod shared;
mod warm;

pub use host::{ExecutionEnvironment, Host, Prepared, Template};
pub use options::EngineOptions;
pub use scheduler::{Counts, Limit, Provisioned, Unprovided};

use martlet_environment::{Completed, Completion, Deployment, ResponseSink};
use martlet_model::{FunctionArn, Invocation, Version};
use scheduler::VersionId;
use shared::{Key, Shared};
use std::sync::Arc;
use std::time::Duration;
use warm::Place;

/// How many new environments may die in a row without having seen one event that was given to them.
const REDELIVERIES: u32 = 3;
/// The same with those that stood ready: whatever killed one may have killed all of them, and nobody had noticed yet.
const REDELIVERIES_IN_ALL: u32 = 16;

/// Why an invocation was not run. Nothing of it reached the function.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Rejected {
    /// A limit of the account or of the function is reached.
    #[error("{limit}")]
    Throttled {
        /// Which one.
        limit: Limit,
        /// For how long at least another try is in vain.
        again: Duration,
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

impl<H: Host> Engine<H> {
    /// An engine without environments. Must be called inside a tokio runtime, where its keeper task lives until
    /// [`Engine::drain`].
    #[must_use]
    pub fn new(host: H, options: EngineOptions) -> Self {
        let shared = Arc::new(Shared::new(host, options));
        tokio::spawn(keeper::keep(Arc::clone(&shared)));
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
        invocation: Invocation,
        wanted: Wanted,
    ) -> Result<Ran, Rejected> {
        self.run_to(deployment, invocation, wanted, None).await
    }

    /// The same, with the response going to `sink` while the function makes it. An event whose response has begun is given to
    /// no other environment, whatever happens.
    ///
    /// # Errors
    /// As [`Engine::invoke`]; nothing has gone to `sink` then.
    pub async fn stream(
        &self,
        deployment: &Arc<Deployment>,
        invocation: Invocation,
        wanted: Wanted,
        sink: ResponseSink,
    ) -> Result<Ran, Rejected> {
        self.run_to(deployment, invocation, wanted, Some(&sink)).await
    }

    async fn run_to(
        &self,
        deployment: &Arc<Deployment>,
        mut invocation: Invocation,
        wanted: Wanted,
        sink: Option<&ResponseSink>,
    ) -> Result<Ran, Rejected> {
        let mut place = self.shared.arrive(deployment, invocation.tenant.as_ref(), wanted)?;
        let (mut new, mut in_all) = (0, 0);
        loop {
            let (mut busy, start) = match place {
                Place::Ready(busy, start) => (busy, start),
                Place::Line(line) => line.wait().await?,
            };
            match busy.run(invocation, sink).await {
                Completion::Done(completed) => return Ok(Ran { completed, start }),
                Completion::Undelivered(back) => {
                    invocation = back;
                    in_all += 1;
                    new += u32::from(matches!(start, Start::Fork | Start::Ordinary));
                    if new == REDELIVERIES || in_all == REDELIVERIES_IN_ALL {
                        return Err(Rejected::KeepsDying(in_all));
                    }
                    place = Place::Line(busy.exchange().ok_or(Rejected::Closing)?);
                }
            }
        }
    }

    /// Makes every environment of the function stale but those of the revisions that `keep` approves: idle ones stop now, busy
    /// ones when they are done. Templates go with them.
    pub fn retire(&self, function: &FunctionArn, keep: impl Fn(&Deployment) -> bool) {
        self.shared.decide(|state, now, actions| {
            state.known.retain(|key, version| {
                let stale = key.0.version.function == *function && !keep(&key.0);
                if stale {
                    state.scheduler.retire(*version, now, actions);
                }
                !stale
            });
        });
    }

    /// Gives a function so much of the account's concurrency for itself, and no more; `None` lets it share with others. Callers
    /// that it has may stay.
    pub fn reserve(&self, function: &FunctionArn, concurrency: Option<u32>) {
        self.shared.decide(|state, now, _| {
            if concurrency.is_none() && !state.functions.contains_key(function) {
                return;
            }
            let id = state.function(function, now);
            state.scheduler.reserve(id, concurrency.map(|most| most as usize), now);
            state.forget_function(function);
        });
    }

    /// Keeps so many environments of each of these versions of a function started from now on, and none of its other versions.
    pub fn provision(&self, function: &FunctionArn, wanted: &[(Arc<Deployment>, u32)]) {
        self.shared.decide(|state, now, actions| {
            let has_some =
                state.functions.get(function).is_some_and(|id| state.scheduler.has_provisioned(*id));
            if wanted.is_empty() && !has_some {
                return;
            }
            let of_function = state.known.iter().filter(|(key, _)| key.0.version.function == *function);
            let mut targets: Vec<(VersionId, u32)> = of_function.map(|(_, version)| (*version, 0)).collect();
            for (deployment, count) in wanted {
                let key = Key::new(deployment, None);
                let version = match state.known.get(&key) {
                    Some(version) => *version,
                    None => self.shared.meet(state, &key, now),
                };
                targets.retain(|(known, _)| *known != version);
                targets.push((version, *count));
            }
            for (version, count) in targets {
                state.scheduler.provision(version, count as usize, now, actions);
            }
            state.forget_function(function);
        });
    }

    /// What is provisioned of a version at this moment.
    #[must_use]
    pub fn provisioned(&self, deployment: &Arc<Deployment>) -> Provisioned {
        let state = self.shared.lock();
        let version = state.known.get(&Key::new(deployment, None));
        version.map(|version| state.scheduler.provisioned(*version)).unwrap_or_default()
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
        self.shared.decide(|state, now, actions| state.scheduler.close(now, actions));
        self.shared.earlier.notify_one();
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

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
