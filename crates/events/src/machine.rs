//! When to lease, run, acknowledge, release and extend: the dispatcher's decisions, as a machine that takes what
//! happened and the time, and returns what to do. It does no I/O and has no clock.

use martlet_model::Timestamp;
use martlet_store::Lease;
use std::collections::HashMap;

/// How long a lease lasts without being extended. It is extended at half time for as long as its event runs, so it
/// only bounds how long an event waits when its holder is gone and the store does not know it.
pub(crate) const LEASE_MILLIS: u64 = 5 * 60 * 1_000;
/// How long to leave a failing store alone.
const STORE_REST_MILLIS: u64 = 1_000;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Events were appended.
    Appended,
    /// A lease request was answered. `next_visible` is when there will be more, 0 when there is already.
    Leased { leases: Vec<Lease>, next_visible: Option<Timestamp> },
    /// A lease request failed.
    LeaseFailed,
    /// The turn of an event is over.
    Finished(Settlement),
    /// A settlement is durable.
    Settled(Settlement),
    /// A settlement failed.
    SettleFailed(Settlement),
    /// Time has passed.
    Tick,
    /// Begin nothing new.
    Drain,
}

/// What to do. Each but `Run` and `Extend` is answered by exactly one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Lease up to `max` events until `until`; `Leased` or `LeaseFailed`.
    Lease { max: usize, until: Timestamp },
    /// Run the leased event; `Finished`.
    Run(Lease),
    /// Make the end of a lease durable; `Settled` or `SettleFailed`.
    Settle(Settlement),
    /// Extend leases, as well as it goes: one that is lost means that the event may run twice.
    Extend { leases: Vec<Lease>, until: Timestamp },
}

/// The end of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// The event is done.
    Done(Lease),
    /// The event waits until then.
    Later {
        /// Its lease.
        lease: Lease,
        /// When its next turn is.
        at: Timestamp,
        /// How many of its turns so far were no attempts.
        note: u32,
    },
}

impl Settlement {
    /// The lease that ends.
    pub(crate) fn lease(self) -> Lease {
        let (Self::Done(lease) | Self::Later { lease, .. }) = self;
        lease
    }
}

pub(crate) struct Machine {
    concurrency: usize,
    /// The events that run, and when each lease ends.
    running: HashMap<Lease, Timestamp>,
    /// A lease request is under way.
    leasing: bool,
    /// When there is something to lease: 0 is now, `None` not before an append.
    look_at: Option<Timestamp>,
    /// Settlements under way.
    settling: usize,
    /// Settlements that failed, and when to try them again.
    unsettled: Vec<(Timestamp, Settlement)>,
    draining: bool,
}

impl Machine {
    pub(crate) fn new(concurrency: usize) -> Self {
        Self {
            concurrency: concurrency.max(1),
            running: HashMap::new(),
            leasing: false,
            // What was accepted before the start waits in the log.
            look_at: Some(Timestamp(0)),
            settling: 0,
            unsettled: Vec::new(),
            draining: false,
        }
    }

    /// Takes in what happened at `now`; answers what to do about it.
    pub(crate) fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Appended => self.look_at = Some(Timestamp(0)),
            Input::Leased { leases, next_visible } => {
                self.leasing = false;
                // An append since the request is not in its answer; the earlier time wins.
                self.look_at = self.look_at.into_iter().chain(next_visible).min();
                for lease in leases {
                    self.running.insert(lease, now.plus_millis(LEASE_MILLIS));
                    actions.push(Action::Run(lease));
                }
            }
            Input::LeaseFailed => {
                self.leasing = false;
                self.look_at = Some(now.plus_millis(STORE_REST_MILLIS));
            }
            Input::Finished(settlement) => {
                self.running.remove(&settlement.lease());
                actions.push(self.settle(settlement));
            }
            Input::Settled(settlement) => {
                self.settling -= 1;
                // Only now: a request that was answered before knows nothing of the event's delay.
                if let Settlement::Later { at, .. } = settlement {
                    self.look_at = self.look_at.into_iter().chain([at]).min();
                }
            }
            Input::SettleFailed(settlement) => {
                self.settling -= 1;
                self.unsettled.push((now.plus_millis(STORE_REST_MILLIS), settlement));
            }
            Input::Tick => {}
            Input::Drain => self.draining = true,
        }
        self.settle_again(now, &mut actions);
        self.extend(now, &mut actions);
        self.look(now, &mut actions);
        actions
    }

    /// When to send a `Tick`; `None` when only something else can change anything.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        let look = self.look_at.filter(|_| self.may_lease());
        let extend =
            self.running.values().map(|until| Timestamp(until.0.saturating_sub(LEASE_MILLIS / 2))).min();
        let settle = self.unsettled.iter().map(|(at, _)| *at).min();
        look.into_iter().chain(extend).chain(settle).min()
    }

    /// Nothing runs and nothing is left to be made durable.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && !self.leasing && self.settling == 0 && self.unsettled.is_empty()
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    fn may_lease(&self) -> bool {
        !self.draining && !self.leasing && self.running.len() < self.concurrency
    }

    fn look(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.may_lease() && self.look_at.is_some_and(|at| at <= now) {
            self.leasing = true;
            self.look_at = None;
            let max = self.concurrency - self.running.len();
            actions.push(Action::Lease { max, until: now.plus_millis(LEASE_MILLIS) });
        }
    }

    fn settle(&mut self, settlement: Settlement) -> Action {
        self.settling += 1;
        Action::Settle(settlement)
    }

    fn settle_again(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let due = self.unsettled.extract_if(.., |(at, _)| *at <= now);
        let due: Vec<Settlement> = due.map(|(_, settlement)| settlement).collect();
        actions.extend(due.into_iter().map(|settlement| self.settle(settlement)));
    }

    fn extend(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let until = now.plus_millis(LEASE_MILLIS);
        let mut leases = Vec::new();
        for (lease, end) in &mut self.running {
            if end.millis_since(now) <= LEASE_MILLIS / 2 {
                *end = until;
                leases.push(*lease);
            }
        }
        if !leases.is_empty() {
            leases.sort_unstable();
            actions.push(Action::Extend { leases, until });
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
