//! The I/O around the machine: the task that dispatches.

use crate::Invoker;
use crate::attempt::Desk;
use crate::destination::Destinations;
use crate::machine::{Action, Input, Machine, Settlement};
use crate::queue::{Counters, EventsOptions, TOPIC};
use crate::record::{self, Payload};
use martlet_model::Timestamp;
use martlet_store::{Digest, Lease, Leased, Release, Store, StoreError};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinError, JoinSet};

/// Most settlements that are made durable together; what is more waits for the next time.
const SETTLED_TOGETHER: usize = 256;

pub(crate) struct Dispatcher<I> {
    desk: Arc<Desk<I>>,
    machine: Machine,
    /// Everything under way; each task ends with the inputs that it means.
    tasks: JoinSet<Done>,
    /// Which task runs which event, for the case that it panics.
    running: HashMap<Id, Lease>,
    /// Leased and not settled.
    held: HashMap<Lease, Held>,
    /// Settlements that wait for those under way.
    unsettled: Vec<Settlement>,
    settling: bool,
}

/// An event that is leased.
struct Held {
    leased: Arc<Leased>,
    blob: Option<Digest>,
}

/// How a task ended.
enum Done {
    Leased(Result<(Vec<Leased>, Option<Timestamp>), StoreError>),
    Ran(Settlement),
    Settled(Vec<Settlement>, Result<(), StoreError>),
    Extended,
}

impl<I: Invoker> Dispatcher<I> {
    pub(crate) fn new(
        store: Store,
        invoker: Arc<I>,
        destinations: Destinations,
        options: EventsOptions,
        counters: Arc<Counters>,
    ) -> Self {
        let EventsOptions { concurrency, retry, clock } = options;
        Self {
            desk: Arc::new(Desk { store, invoker, destinations, retry, clock, counters }),
            machine: Machine::new(concurrency),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            held: HashMap::new(),
            unsettled: Vec::new(),
            settling: false,
        }
    }

    pub(crate) async fn run(mut self, appended: &Notify, mut drain: watch::Receiver<bool>) {
        let mut inputs = vec![Input::Tick];
        let mut draining = false;
        loop {
            for input in inputs.drain(..) {
                let now = (self.desk.clock)();
                for action in self.machine.handle(input, now) {
                    self.begin(action, now);
                }
            }
            self.settle();
            self.desk.counters.running.store(self.machine.running(), Ordering::Relaxed);
            if draining && self.machine.is_idle() {
                return;
            }
            let sleep =
                self.machine.wake_at().map(|at| Duration::from_millis(at.millis_since((self.desk.clock)())));
            tokio::select! {
                Some(joined) = self.tasks.join_next_with_id() => {
                    self.end(joined, &mut inputs);
                    // Whatever else has ended by now is settled together with it.
                    while let Some(joined) = self.tasks.try_join_next_with_id() {
                        self.end(joined, &mut inputs);
                    }
                }
                () = appended.notified() => inputs.push(Input::Appended),
                () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => inputs.push(Input::Tick),
                // Every handle gone is no reason to stop: what was accepted is still to be run.
                Ok(_) = drain.wait_for(|drain| *drain), if !draining => {
                    draining = true;
                    inputs.push(Input::Drain);
                }
            }
        }
    }

    fn begin(&mut self, action: Action, now: Timestamp) {
        let log = self.desk.store.log.clone();
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
                let Some(held) = self.held.get(&lease) else { return };
                let (desk, leased) = (Arc::clone(&self.desk), Arc::clone(&held.leased));
                let id = self.tasks.spawn(async move { Done::Ran(desk.turn(&leased).await) }).id();
                self.running.insert(id, lease);
            }
            Action::Settle(settlement) => self.unsettled.push(settlement),
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

    /// Makes settlements durable, all that wait together: while one write runs the next gathers by itself.
    fn settle(&mut self) {
        if self.settling || self.unsettled.is_empty() {
            return;
        }
        self.settling = true;
        let settlements: Vec<Settlement> =
            self.unsettled.drain(..self.unsettled.len().min(SETTLED_TOGETHER)).collect();
        let blob = |lease: &Lease| self.held.get(lease).and_then(|held| held.blob);
        let (mut done, mut later, mut garbage) = (Vec::new(), Vec::new(), Vec::new());
        for settlement in &settlements {
            match *settlement {
                Settlement::Done(lease) => {
                    done.push(lease);
                    garbage.extend(blob(&lease));
                }
                Settlement::Later { lease, at, note } => {
                    later.push(Release { lease, visible_at: at, note });
                }
            }
        }
        let (log, blobs) = (self.desk.store.log.clone(), self.desk.store.blobs.clone());
        self.tasks.spawn(async move {
            let settle = async {
                // Blobs go first: an event without its blob is known to be done, a blob without its event would stay for ever.
                for digest in garbage {
                    blobs.delete(&digest).await?;
                }
                // A lease that was lost belongs to somebody else, who settles it.
                let acknowledged = async {
                    match done.is_empty() {
                        true => Ok(Vec::new()),
                        false => log.acknowledge(TOPIC, &done).await,
                    }
                };
                let released = async {
                    match later.is_empty() {
                        true => Ok(Vec::new()),
                        false => log.release(TOPIC, &later).await,
                    }
                };
                let (acknowledged, released) = tokio::join!(acknowledged, released);
                acknowledged.and(released).map(drop)
            };
            let result = settle.await;
            Done::Settled(settlements, result)
        });
    }

    fn end(&mut self, joined: Result<(Id, Done), JoinError>, inputs: &mut Vec<Input>) {
        let (id, done) = match joined {
            Ok(joined) => joined,
            Err(failed) => {
                let Some(lease) = self.running.remove(&failed.id()) else { return };
                tracing::error!(error = %failed, "running an event panicked; it will be tried again");
                let (note, now) =
                    (self.held.get(&lease).map_or(0, |held| held.leased.note), (self.desk.clock)());
                let settlement = Settlement::Later { lease, at: now.plus_millis(1_000), note: note + 1 };
                inputs.push(Input::Finished(settlement));
                return;
            }
        };
        match done {
            Done::Leased(Ok((leased, next_visible))) => {
                let leases = leased.iter().map(|leased| leased.lease).collect();
                for leased in leased {
                    let blob = match record::decode(&leased.payload) {
                        Ok((_, Payload::Blob(digest))) => Some(digest),
                        _ => None,
                    };
                    self.held.insert(leased.lease, Held { leased: Arc::new(leased), blob });
                }
                inputs.push(Input::Leased { leases, next_visible });
            }
            Done::Leased(Err(error)) => {
                tracing::error!(%error, "accepted events cannot be leased; trying again in a second");
                inputs.push(Input::LeaseFailed);
            }
            Done::Ran(settlement) => {
                self.running.remove(&id);
                inputs.push(Input::Finished(settlement));
            }
            Done::Settled(settlements, result) => {
                self.settling = false;
                if let Err(error) = &result {
                    tracing::error!(%error, "the end of an event cannot be stored; trying again in a second");
                }
                for settlement in settlements {
                    inputs.push(match &result {
                        Ok(()) => {
                            self.held.remove(&settlement.lease());
                            Input::Settled(settlement)
                        }
                        Err(_) => Input::SettleFailed(settlement),
                    });
                }
            }
            Done::Extended => {}
        }
    }
}
