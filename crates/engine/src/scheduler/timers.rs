//! What is to be looked at when: an ordered set, so that a look costs what is due and not what is known.

use super::{EnvironmentId, Moment, TemplateId, VersionId};
use std::collections::BTreeSet;

/// What to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// An idle environment is to be frozen or stopped.
    Idle(EnvironmentId),
    /// A template is to be frozen or dropped.
    Template(TemplateId),
    /// A caller in line has waited long enough.
    Line(VersionId),
    /// A spare was taken, and the call that took it has had its start.
    Spare(VersionId),
    /// A call is expected soon.
    Prewarm(VersionId),
    /// An environment that is to be kept could not be started, and may be now.
    Provision(VersionId),
    /// The version's history is of no use any more.
    Forget(VersionId),
    /// The machine may start something again.
    Starts,
}

#[derive(Debug)]
pub(super) struct Timers {
    due: BTreeSet<(Moment, Timer)>,
}

impl Timers {
    pub(super) fn new() -> Self {
        Self { due: BTreeSet::new() }
    }

    pub(super) fn set(&mut self, at: Moment, timer: Timer) {
        self.due.insert((at, timer));
    }

    pub(super) fn cancel(&mut self, at: Moment, timer: Timer) {
        self.due.remove(&(at, timer));
    }

    /// The first one that is due, which is no longer set then.
    pub(super) fn pop(&mut self, now: Moment) -> Option<(Moment, Timer)> {
        if self.due.first()?.0 > now {
            return None;
        }
        self.due.pop_first()
    }

    pub(super) fn next(&self) -> Option<Moment> {
        self.due.first().map(|(at, _)| *at)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }

    pub(super) fn clear(&mut self) {
        self.due.clear();
    }
}
