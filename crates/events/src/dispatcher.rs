//! The I/O around the machine: the handle that accepts, and the task that dispatches.

use crate::machine::{Action, Input, Machine, Settlement};
use crate::record::{self, INLINE_BYTES, Payload};
use crate::{Attempt, Event, Invoker, Outcome};
use bytes::{Bytes, BytesMut};
use martlet_model::Timestamp;
use martlet_store::{Digest, Lease, Leased, Store, StoreError};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinError, JoinSet};

/// The topic of all asynchronous invocations.
const TOPIC: &str = "events/async";

/// How events are dispatched.
#[derive(Clone)]
pub struct EventsOptions {
    /// Most events that run at once. Default 100.
    pub concurrency: usize,
    /// Tells the time; a parameter so that tests can make it.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl EventsOptions {
    /// The defaults, with this clock.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Fn() -> Timestamp + Send + Sync>) -> Self {
        Self { concurrency: 100, clock }
    }
}

/// Why an event was not accepted.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the event could not be made durable")]
pub struct AcceptError(#[from] StoreError);

/// Numbers for health and metrics, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events accepted.
    pub accepted: u64,
    /// Events that ran, successfully or not.
    pub completed: u64,
    /// Attempts that found no capacity or no platform.
    pub postponed: u64,
    /// Events given up because their function is gone or their record cannot be read.
    pub given_up: u64,
    /// Events that run now.
    pub running: usize,
}

#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    completed: AtomicU64,
    postponed: AtomicU64,
    given_up: AtomicU64,
    running: AtomicUsize,
}

/// The handle of the queue of asynchronous invocations. Cheap to clone. The dispatcher goes on when the last handle
/// is gone; [`AsyncInvocations::drain`] or the end of the runtime stops it.
#[derive(Clone)]
pub struct AsyncInvocations {
    store: Store,
    appended: Arc<Notify>,
    counters: Arc<Counters>,
    draining: Arc<watch::Sender<bool>>,
    stopped: watch::Receiver<bool>,
}

impl AsyncInvocations {
    /// Starts the dispatcher as a task of the current tokio runtime. It begins with what an earlier run left.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start<I: Invoker>(store: Store, invoker: Arc<I>, options: EventsOptions) -> Self {
        let (draining, drain) = watch::channel(false);
        let (stopping, stopped) = watch::channel(false);
        let handle = Self {
            store: store.clone(),
            appended: Arc::default(),
            counters: Arc::default(),
            draining: Arc::new(draining),
            stopped,
        };
        let dispatcher = Dispatcher {
            store,
            invoker,
            clock: options.clock,
            machine: Machine::new(options.concurrency),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            events: HashMap::new(),
            counters: handle.counters.clone(),
        };
        let appended = handle.appended.clone();
        tokio::spawn(async move {
            dispatcher.run(&appended, drain).await;
            stopping.send_replace(true);
        });
        handle
    }

    /// Takes responsibility for `event`: when this resolves to `Ok` it is on stable storage and will run at least
    /// once. Works while draining, too; the event then runs after the next start.
    ///
    /// # Errors
    /// [`AcceptError`] when it could not be stored; it will not run then.
    pub async fn accept(&self, event: Event) -> Result<(), AcceptError> {
        let payload = if event.payload.len() <= INLINE_BYTES {
            Payload::Here(event.payload.clone())
        } else {
            let head = record::blob_head(&event.request_id);
            let mut blob = BytesMut::with_capacity(head.len() + event.payload.len());
            blob.extend_from_slice(head.as_bytes());
            blob.extend_from_slice(&event.payload);
            Payload::Blob(self.store.blobs.put(blob.freeze()).await?)
        };
        let record = record::encode(&event, &payload);
        if let Err(error) = self.store.log.append(TOPIC, &[record]).await {
            if let Payload::Blob(digest) = payload {
                // Best effort: nothing names it, so what is left costs room only.
                self.store.blobs.delete(&digest).await.ok();
            }
            return Err(error.into());
        }
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        self.appended.notify_one();
        Ok(())
    }

    /// Begins no more events and resolves when those that run are done and settled, or after `patience`. What the end
    /// of the process cuts off then runs again after the next start.
    pub async fn drain(&self, patience: Duration) {
        self.draining.send_replace(true);
        let mut stopped = self.stopped.clone();
        // An error means that the dispatcher is gone already.
        tokio::time::timeout(patience, stopped.wait_for(|stopped| *stopped)).await.ok();
    }

    /// How many events are accepted and not done.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn backlog(&self) -> Result<u64, StoreError> {
        Ok(self.store.log.state(TOPIC).await?.records)
    }

    /// Numbers for health and metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            accepted: count(&self.counters.accepted),
            completed: count(&self.counters.completed),
            postponed: count(&self.counters.postponed),
            given_up: count(&self.counters.given_up),
            running: self.counters.running.load(Ordering::Relaxed),
        }
    }
}

/// An event that was leased and not settled.
struct Held {
    record: Bytes,
    blob: Option<Digest>,
}

struct Dispatcher<I> {
    store: Store,
    invoker: Arc<I>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    machine: Machine,
    /// Everything under way; each task ends with the input that it means.
    tasks: JoinSet<Done>,
    /// Which task runs which event, for the case that it panics.
    running: HashMap<Id, Lease>,
    /// The records of the leases that the machine knows.
    events: HashMap<Lease, Held>,
    counters: Arc<Counters>,
}

/// How a task ended.
enum Done {
    Leased(Result<(Vec<Leased>, Option<Timestamp>), StoreError>),
    Ran(Lease, Outcome),
    Settled(Settlement, Result<(), StoreError>),
    Extended,
}

impl<I: Invoker> Dispatcher<I> {
    async fn run(mut self, appended: &Notify, mut drain: watch::Receiver<bool>) {
        let mut input = Some(Input::Tick);
        let mut draining = false;
        loop {
            if let Some(input) = input.take() {
                let now = (self.clock)();
                for action in self.machine.handle(input, now) {
                    self.begin(action, now);
                }
                self.counters.running.store(self.machine.running(), Ordering::Relaxed);
            }
            if draining && self.machine.is_idle() {
                return;
            }
            let sleep =
                self.machine.wake_at().map(|at| Duration::from_millis(at.millis_since((self.clock)())));
            input = tokio::select! {
                Some(joined) = self.tasks.join_next_with_id() => self.end(joined),
                () = appended.notified() => Some(Input::Appended),
                () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => Some(Input::Tick),
                // Every handle gone is no reason to stop: what was accepted is still to be run.
                Ok(_) = drain.wait_for(|drain| *drain), if !draining => {
                    draining = true;
                    Some(Input::Drain)
                }
            };
        }
    }

    fn begin(&mut self, action: Action, now: Timestamp) {
        let (log, blobs) = (self.store.log.clone(), self.store.blobs.clone());
        match action {
            Action::Lease { max, until } => {
                self.tasks.spawn(async move {
                    let lease = async {
                        let leased = log.lease(TOPIC, max, until, now).await?;
                        // A full batch says that there may be more; otherwise ask when there will be.
                        let next = match leased.len() == max {
                            true => Some(Timestamp(0)),
                            // What is leased must not be lost for this error; look again soon.
                            false => log
                                .state(TOPIC)
                                .await
                                .map_or(Some(now.plus_millis(1_000)), |state| state.next_visible),
                        };
                        Ok((leased, next))
                    };
                    Done::Leased(lease.await)
                });
            }
            Action::Run(lease) => {
                let record = self.events.get(&lease).map(|held| held.record.clone()).unwrap_or_default();
                let (store, invoker, counters) =
                    (self.store.clone(), self.invoker.clone(), self.counters.clone());
                let run = async move {
                    Done::Ran(lease, attempt(&store, &*invoker, &counters, lease, &record).await)
                };
                let id = self.tasks.spawn(run).id();
                self.running.insert(id, lease);
            }
            Action::Settle(settlement) => {
                let blob = match settlement {
                    Settlement::Done(lease) => self.events.get(&lease).and_then(|held| held.blob),
                    Settlement::Later(..) => None,
                };
                self.tasks.spawn(async move {
                    let settle = async {
                        // The blob goes first: an event without its blob is known to be done, a blob without its
                        // event would stay for ever.
                        if let Some(digest) = blob {
                            blobs.delete(&digest).await?;
                        }
                        // A lease that was lost belongs to somebody else, who settles it.
                        match settlement {
                            Settlement::Done(lease) => log.acknowledge(TOPIC, &[lease]).await?,
                            Settlement::Later(lease, at) => log.release(TOPIC, &[lease], at).await?,
                        };
                        Ok(())
                    };
                    Done::Settled(settlement, settle.await)
                });
            }
            Action::Extend { leases, until } => {
                self.tasks.spawn(async move {
                    if let Err(error) = log.extend(TOPIC, &leases, until).await {
                        tracing::warn!(%error, "leases of running events could not be extended; some may run twice");
                    }
                    Done::Extended
                });
            }
        }
    }

    fn end(&mut self, joined: Result<(Id, Done), JoinError>) -> Option<Input> {
        let (id, done) = match joined {
            Ok(joined) => joined,
            Err(failed) => {
                let lease = self.running.remove(&failed.id())?;
                tracing::error!(error = %failed, "running an event panicked; it will be tried again");
                return Some(Input::Finished { lease, outcome: Outcome::Unavailable });
            }
        };
        match done {
            Done::Leased(Ok((leased, next_visible))) => {
                let leases = leased.iter().map(|leased| leased.lease).collect();
                for Leased { lease, payload } in leased {
                    let blob = match record::decode(&payload) {
                        Ok((_, Payload::Blob(digest))) => Some(digest),
                        _ => None,
                    };
                    self.events.insert(lease, Held { record: payload, blob });
                }
                Some(Input::Leased { leases, next_visible })
            }
            Done::Leased(Err(error)) => {
                tracing::error!(%error, "accepted events cannot be leased; trying again in a second");
                Some(Input::LeaseFailed)
            }
            Done::Ran(lease, outcome) => {
                self.running.remove(&id);
                Some(Input::Finished { lease, outcome })
            }
            Done::Settled(settlement, result) => match result {
                Ok(()) => {
                    let (Settlement::Done(lease) | Settlement::Later(lease, _)) = settlement;
                    self.events.remove(&lease);
                    Some(Input::Settled)
                }
                Err(error) => {
                    tracing::error!(%error, "the end of an event cannot be stored; trying again in a second");
                    Some(Input::SettleFailed(settlement))
                }
            },
            Done::Extended => None,
        }
    }
}

/// One attempt: reads the record and its payload, and has it run.
async fn attempt<I: Invoker>(
    store: &Store,
    invoker: &I,
    counters: &Counters,
    lease: Lease,
    record: &Bytes,
) -> Outcome {
    let give_up = || {
        counters.given_up.fetch_add(1, Ordering::Relaxed);
        Outcome::FunctionGone
    };
    let (mut event, payload) = match record::decode(record) {
        Ok(decoded) => decoded,
        Err(error) => {
            tracing::error!(%error, position = lease.position, "an accepted event cannot be read and is given up");
            return give_up();
        }
    };
    event.payload = match payload {
        Payload::Here(bytes) => bytes,
        Payload::Blob(digest) => match store.blobs.get(&digest).await {
            Ok(Some(blob)) => blob.slice(record::blob_head(&event.request_id).len().min(blob.len())..),
            Ok(None) => {
                tracing::info!(request_id = %event.request_id, "the event was done before the last stop");
                return Outcome::Completed;
            }
            Err(StoreError::Damaged { .. }) => {
                tracing::error!(request_id = %event.request_id, "the event's payload is damaged; it is given up");
                return give_up();
            }
            Err(error) => {
                tracing::error!(%error, request_id = %event.request_id, "the event's payload cannot be read now");
                return Outcome::Unavailable;
            }
        },
    };
    let request_id = event.request_id.clone();
    let outcome = invoker.invoke(Attempt { event, number: lease.attempt }).await;
    match outcome {
        Outcome::Completed => counters.completed.fetch_add(1, Ordering::Relaxed),
        Outcome::Throttled { .. } | Outcome::Unavailable => {
            counters.postponed.fetch_add(1, Ordering::Relaxed)
        }
        Outcome::FunctionGone => {
            tracing::warn!(%request_id, "an event's function no longer exists; the event is given up");
            counters.given_up.fetch_add(1, Ordering::Relaxed)
        }
    };
    outcome
}
