//! Environments that are kept started because somebody asked for so many of a version.
//!
//! They are started at once and replaced when they end, hold all their memory whether or not they work, are never evicted and do not
//! grow old. They are taken before all others; calls that find none run on environments as everybody else's. Starting
//! them leaves room for a start that somebody waits for. What could not be started is tried again, later each time.

use super::starts::Purpose;
use super::timers::Timer;
use super::version::Mould;
use super::{Action, Kind, MINUTE, Moment, SECOND, Scheduler, StartId, VersionId};

/// How long until another try after a failed one, the first time; twice as long after each further one.
const AGAIN: u64 = SECOND;
const AGAIN_AT_MOST: u64 = 5 * MINUTE;

/// Why there are less than were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unprovided {
    /// An environment could not be started.
    StartFailed,
    /// The function's init code failed.
    InitFailed,
    /// They do not fit into the memory that environments may hold together.
    Memory,
}

/// What is provisioned of one version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provisioned {
    /// How many were asked for.
    pub wanted: usize,
    /// How many there are, never more than that.
    pub allocated: usize,
    /// What was wrong with the last try, if that is why there are not all.
    pub failure: Option<Unprovided>,
}

/// What a version knows about what is provisioned of it.
#[derive(Debug, Default)]
pub(super) struct Provisioning {
    pub(super) wanted: usize,
    /// Those that exist, idle and busy.
    pub(super) living: usize,
    pub(super) starting: usize,
    failure: Option<Unprovided>,
    /// Not before then.
    again: Option<Moment>,
    pause: u64,
    queued: bool,
}

impl Provisioning {
    pub(super) fn is_over(&self) -> bool {
        self.wanted == 0 && self.starting == 0
    }

    /// There is one more than was asked for.
    pub(super) fn has_too_many(&self) -> bool {
        self.living > self.wanted
    }

    pub(super) fn lacks(&self) -> bool {
        self.living + self.starting < self.wanted
    }

    pub(super) fn worked(&mut self) {
        self.living += 1;
        self.pause = 0;
        if self.living >= self.wanted {
            self.failure = None;
        }
    }
}

impl Scheduler {
    /// Keeps `wanted` environments of a version started from now on. Those that are too many stop, busy ones when they are
    /// done.
    pub fn provision(&mut self, version: VersionId, wanted: usize, now: Moment, actions: &mut Vec<Action>) {
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        let before = std::mem::replace(&mut entry.provisioning.wanted, wanted);
        if before == wanted {
            return;
        }
        entry.provisioning.failure = None;
        entry.provisioning.again = None;
        entry.provisioning.pause = 0;
        self.account.provision(entry.function, before, wanted);
        while let Some(entry) = self.versions.get(version.0)
            && entry.provisioning.has_too_many()
            && let Some(environment) = entry.standing.last().copied()
        {
            self.remove(environment, now);
            actions.push(Action::Stop(environment));
        }
        self.provide(version, now, actions);
        self.settle(version, now, actions);
    }

    /// What is provisioned of a version.
    #[must_use]
    pub fn provisioned(&self, version: VersionId) -> Provisioned {
        let Some(entry) = self.versions.get(version.0) else { return Provisioned::default() };
        let Provisioning { wanted, living, starting, failure, .. } = entry.provisioning;
        let failure = failure.filter(|_| living < wanted && starting == 0);
        Provisioned { wanted, allocated: living.min(wanted), failure }
    }

    /// Whether what comes of a start is to be kept; that of a template is if any environment of its version is.
    #[must_use]
    pub fn is_provisioned(&self, start: StartId) -> bool {
        let Some(start) = self.starts.get(start.0) else { return false };
        let kept = self.versions.get(start.version().0).is_some_and(|entry| entry.provisioning.wanted > 0);
        start.purpose == Purpose::Provision || (start.kind == Kind::Prepare && kept)
    }

    /// Whether the environment that comes of a start is kept, as things are.
    #[must_use]
    pub fn keeps(&self, start: StartId) -> bool {
        let Some(start) = self.starts.get(start.0) else { return false };
        match start.kind {
            // It was told so when it began, if its version is kept at all.
            Kind::Prepare => self
                .versions
                .get(start.version().0)
                .is_some_and(|entry| entry.provisioning.lacks() && entry.is_quiet()),
            Kind::Fork | Kind::Ordinary => start.purpose == Purpose::Provision,
        }
    }

    /// A start of an environment that is to be kept came to an environment that is of no use, since the function's init code
    /// has failed. The environment is not known here.
    pub fn init_failed(&mut self, start: StartId, now: Moment, actions: &mut Vec<Action>) {
        self.give_up_start(start, Unprovided::InitFailed, now, actions);
    }

    /// A start of an environment that is to be kept came to nothing.
    pub(super) fn give_up_start(
        &mut self,
        start: StartId,
        why: Unprovided,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(under_way) = self.end_start(start, false, now) else { return };
        let version = under_way.version();
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        self.memory.release(entry.memory_bytes);
        if under_way.kind == Kind::Prepare {
            entry.mould = Mould::None;
            entry.doubt(now);
        }
        self.unprovided(version, why, now);
        self.start_what_fits(version, now, actions);
        self.provide(version, now, actions);
        self.settle(version, now, actions);
    }

    /// Notes why one could not be kept, and tries again later.
    pub(super) fn unprovided(&mut self, version: VersionId, why: Unprovided, now: Moment) {
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        let provisioning = &mut entry.provisioning;
        provisioning.failure = Some(why);
        provisioning.pause = (provisioning.pause * 2).clamp(AGAIN, AGAIN_AT_MOST);
        let at = now.plus(provisioning.pause);
        if let Some(before) = provisioning.again.replace(at) {
            self.timers.cancel(before, Timer::Provision(version));
        }
        self.timers.set(at, Timer::Provision(version));
    }

    /// Time for another try.
    pub(super) fn provide_again(
        &mut self,
        version: VersionId,
        planned: Moment,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        if let Some(entry) = self.versions.get_mut(version.0)
            && entry.provisioning.again == Some(planned)
        {
            entry.provisioning.again = None;
            self.provide(version, now, actions);
        }
    }

    /// Starts what lacks, as far as that holds up nobody.
    pub(super) fn provide(&mut self, version: VersionId, now: Moment, actions: &mut Vec<Action>) {
        while !self.closing
            && let Some(entry) = self.versions.get(version.0)
            && entry.provisioning.lacks()
            && !entry.retired
            && entry.provisioning.again.is_none()
            && let Some(kind) = entry.next_kind(now)
        {
            let needed = entry.memory_bytes;
            if kind == Kind::Fork && !entry.may_fork() {
                return;
            }
            if !self.queues.may_start_ahead(kind, now) {
                return self.provide_later(version, now);
            }
            if !self.make_room(needed, f64::INFINITY, now, actions) {
                return self.unprovided(version, Unprovided::Memory, now);
            }
            self.begin(version, kind, Purpose::Provision, now, actions);
        }
    }

    /// Puts the version among those that get the next start that nobody waits for.
    fn provide_later(&mut self, version: VersionId, now: Moment) {
        self.plan_starts(now);
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        if !std::mem::replace(&mut entry.provisioning.queued, true) {
            self.queues.kept.push_back(version);
        }
    }

    /// Goes through the versions that lack some.
    pub(super) fn provide_queued(&mut self, now: Moment, actions: &mut Vec<Action>) {
        for version in std::mem::take(&mut self.queues.kept) {
            if let Some(entry) = self.versions.get_mut(version.0) {
                entry.provisioning.queued = false;
                self.provide(version, now, actions);
            }
        }
    }
}
