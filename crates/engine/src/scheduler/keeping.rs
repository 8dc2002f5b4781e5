//! What is kept, for how long, and what makes room.

use super::history::Window;
use super::memory::Holder;
use super::timers::Timer;
use super::version::Mould;
use super::{Action, EnvironmentId, Kind, MINUTE, Moment, SECOND, Scheduler, VersionId};
use crate::EngineOptions;
use std::time::Duration;

/// How much idle time of an environment of the usual size one avoided start is worth. Where memory is short, the budget decides
/// before this does.
const START_IS_WORTH: u64 = 29 * MINUTE;
/// The size of which that is said.
const USUAL_BYTES: f64 = 128.0 * 1_048_576.0;
/// How long more environments idle than the one that its version's next call will take.
const SURPLUS: u64 = 2 * MINUTE;
/// How much more than it costs a start ahead of need has to promise: what was missed counts like what was taken, but saved nothing.
const MARGIN: f64 = 2.0;

/// How long something of so many bytes may idle for one start that it avoids, in microseconds.
fn worth(bytes: u64) -> u64 {
    (START_IS_WORTH as f64 * (USUAL_BYTES / bytes.max(1) as f64).clamp(0.25, 4.0)) as u64
}

/// What of the options these decisions need, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) idle: u64,
    pub(super) adaptive: bool,
    pub(super) freeze_after: u64,
    pub(super) longest_wait: u64,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Policy {
    pub(super) fn new(options: &EngineOptions) -> Self {
        Self {
            idle: micros(options.idle),
            adaptive: options.adaptive_idle,
            freeze_after: micros(options.freeze_after),
            longest_wait: micros(options.longest_wait),
        }
    }
}

impl Scheduler {
    /// Does what is due: freezes, stops, starts ahead, and reconsiders lines. Returns when to call again, `None` when
    /// nothing is planned.
    pub fn tick(&mut self, now: Moment, actions: &mut Vec<Action>) -> Option<Moment> {
        while let Some((at, timer)) = self.timers.pop(now) {
            match timer {
                Timer::Idle(environment) => self.look_at_idle(environment, now, actions),
                Timer::Template(template) => self.look_at_template(template, now, actions),
                Timer::Line(version) => self.look_at_line(version, now, actions),
                Timer::Spare(version) => self.start_spare(version, now, actions),
                Timer::Provision(version) => self.provide_again(version, at, now, actions),
                Timer::Prewarm(version) => self.prewarm(version, at, now, actions),
                Timer::Forget(version) => self.forget(version, at, now, actions),
                Timer::Starts => {
                    self.queues.timer = None;
                    self.start_queued(now, actions);
                }
            }
        }
        self.timers.next()
    }

    /// When [`tick`](Self::tick) is to be called next, `None` when nothing is planned.
    #[must_use]
    pub fn next_tick(&self) -> Option<Moment> {
        self.timers.next()
    }

    /// The machine is short of memory: stops what would be missed least until `bytes` are freed.
    pub fn relieve(&mut self, bytes: u64, now: Moment, actions: &mut Vec<Action>) {
        let aim = self.memory.reserved().saturating_sub(bytes);
        while self.memory.reserved() > aim && self.evict_lowest(f64::INFINITY, now, actions) {}
    }

    /// Makes room for `bytes` by evicting what has a lower rank than `ceiling`; nothing is evicted in vain.
    pub(super) fn make_room(
        &mut self,
        bytes: u64,
        ceiling: f64,
        now: Moment,
        actions: &mut Vec<Action>,
    ) -> bool {
        if self.memory.fits(bytes) {
            return true;
        }
        if ceiling <= 0.0 || !self.memory.could_fit(bytes) {
            return false;
        }
        while !self.memory.fits(bytes) {
            if !self.evict_lowest(ceiling, now, actions) {
                return false;
            }
        }
        true
    }

    /// Evicts what would be missed least; false when there is nothing of a lower rank than `ceiling`.
    fn evict_lowest(&mut self, ceiling: f64, now: Moment, actions: &mut Vec<Action>) -> bool {
        while let Some(holder) = self.memory.lowest(ceiling) {
            let gone = match holder {
                Holder::Environment(environment) => self.evict(environment, now, actions),
                Holder::Template(template) => self.evict_template(template, actions),
            };
            if gone {
                return true;
            }
        }
        false
    }

    /// The order of what can go says that it is this environment's turn. Returns whether it went: not if it is at work,
    /// or was since it took its place in the order.
    fn evict(&mut self, environment: EnvironmentId, now: Moment, actions: &mut Vec<Action>) -> bool {
        let Some(slot) = self.environments.get_mut(environment.0) else { return false };
        let entered = slot.entered.take().unwrap_or(0.0);
        if !slot.idle {
            return false;
        }
        if slot.rank > entered {
            slot.entered = Some(slot.rank);
            self.memory.enter(slot.rank, Holder::Environment(environment));
            return false;
        }
        let (rank, version) = (slot.rank, slot.version);
        self.memory.evicted(rank);
        self.remove(environment, now);
        actions.push(Action::Stop(environment));
        // The template stays, in an order of its own: it is worth more than the environment was.
        self.settle(version, now, actions);
        true
    }

    fn look_at_idle(&mut self, environment: EnvironmentId, now: Moment, actions: &mut Vec<Action>) {
        let Some(slot) = self.environments.get_mut(environment.0) else { return };
        slot.timer = None;
        if !slot.idle {
            // It says so when it is idle again.
            return;
        }
        let (version, since, provisioned) = (slot.version, slot.since, slot.provisioned);
        let freezes = since.plus(self.policy.freeze_after);
        let due = if now < freezes {
            freezes
        } else {
            if !slot.frozen {
                slot.frozen = true;
                actions.push(Action::Freeze(environment));
            }
            if provisioned {
                return;
            }
            self.idle_until(version, environment, since, now)
        };
        if due > now {
            if let Some(slot) = self.environments.get_mut(environment.0) {
                slot.timer = Some(due);
                self.timers.set(due, Timer::Idle(environment));
            }
            return;
        }
        self.remove(environment, now);
        actions.push(Action::Stop(environment));
        self.settle(version, now, actions);
    }

    /// Until when an environment that is idle since `since` stays.
    fn idle_until(
        &mut self,
        version: VersionId,
        environment: EnvironmentId,
        since: Moment,
        now: Moment,
    ) -> Moment {
        let window = self.window(version);
        let Some(entry) = self.versions.get(version.0) else { return now };
        if !self.policy.adaptive {
            return since.plus(window.keep);
        }
        let next_in_turn = entry.newest == Some(environment) && entry.busy() == 0 && entry.starting == 0;
        if !next_in_turn {
            return since.plus(self.keep_more(version));
        }
        keep_until(window, entry.quiet_since, now)
    }

    /// For how long the version is kept, from its last call on.
    fn window(&mut self, version: VersionId) -> Window {
        let fixed = Window { prewarm: None, linger: 0, keep: self.policy.idle };
        // What is kept is the last environment, and its template with it.
        let template = match self.versions.get(version.0).map(|entry| entry.mould) {
            Some(Mould::Ready(template)) => {
                self.templates.get(template.0).map_or(0, |template| template.bytes)
            }
            _ => 0,
        };
        match self.versions.get_mut(version.0) {
            Some(entry) if self.policy.adaptive => {
                entry.window(worth(entry.idle_bytes + template), self.policy.idle)
            }
            _ => fixed,
        }
    }

    /// The same for what works besides others.
    fn keep_more(&mut self, version: VersionId) -> u64 {
        let Some(entry) = self.versions.get_mut(version.0) else { return 0 };
        entry.keep_last(worth(entry.idle_bytes), SURPLUS)
    }

    /// Whether one more environment of the version, which is started ordinarily and idles until it is taken or its time is
    /// over, is likely to save more than it costs. What it saves whoever takes it is a start, or only the wait until another
    /// one is free, if that is shorter.
    pub(super) fn spare_pays(&mut self, version: VersionId) -> bool {
        let idles = if self.policy.adaptive { self.keep_more(version) } else { self.policy.idle };
        let Some(entry) = self.versions.get(version.0) else { return false };
        let Some(service) = entry.service.known() else { return false };
        let saved = (service as f64 / entry.ordinary.micros().max(1) as f64).min(1.0);
        entry.odds.share() * saved * worth(entry.idle_bytes) as f64 >= MARGIN * idles as f64
    }

    /// Something of the version has gone: plans for what is left of it, which may be nothing but its history.
    pub(super) fn settle(&mut self, version: VersionId, now: Moment, actions: &mut Vec<Action>) {
        let Some(entry) = self.versions.get(version.0) else { return };
        if entry.living > 0 || entry.is_starting() || !entry.is_quiet() {
            return;
        }
        let (retired, quiet_since) = (entry.retired, entry.quiet_since);
        let window = self.window(version);
        let kept = keep_until(window, quiet_since, now);
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        if let (Some(prewarm), false) = (window.prewarm, retired || !self.policy.adaptive) {
            let at = quiet_since.plus(prewarm);
            if at > now && entry.prewarm_at != Some(at) {
                entry.prewarm_at = Some(at);
                self.timers.set(at, Timer::Prewarm(version));
            }
        }
        if let Mould::Ready(template) = entry.mould {
            let until = if retired || self.closing { now } else { kept };
            self.release_template(template, until, now, actions);
        }
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        if !entry.is_empty() {
            return;
        }
        if retired {
            self.drop_version(version);
            actions.push(Action::Forget(version));
        } else if entry.forget_at.is_none() {
            let at = now.plus(entry.remembered);
            entry.forget_at = Some(at);
            self.timers.set(at, Timer::Forget(version));
        }
    }

    /// A call is expected soon: has an environment ready for it, if it is still not there.
    fn prewarm(&mut self, version: VersionId, planned: Moment, now: Moment, actions: &mut Vec<Action>) {
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        if entry.prewarm_at != Some(planned) {
            return;
        }
        entry.prewarm_at = None;
        if entry.living > 0 || entry.is_starting() || !entry.is_quiet() || entry.retired || self.closing {
            return;
        }
        if let Some(kind) = entry.next_kind(now) {
            let saves = entry.saves(if kind == Kind::Fork { Kind::Fork } else { Kind::Prepare });
            let rank = self.memory.rank(saves, entry.memory_bytes);
            entry.prewarming = kind == Kind::Prepare;
            self.start_ahead(version, kind, rank, now, actions);
        }
    }

    fn forget(&mut self, version: VersionId, planned: Moment, now: Moment, actions: &mut Vec<Action>) {
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        if entry.forget_at != Some(planned) {
            return;
        }
        entry.forget_at = None;
        let last = entry.called.unwrap_or(entry.quiet_since).plus(entry.remembered);
        if !entry.is_empty() || last > now {
            // Used again since: look again when that is as long ago.
            let at = last.max(now.plus(SECOND));
            entry.forget_at = Some(at);
            self.timers.set(at, Timer::Forget(version));
            return;
        }
        self.drop_version(version);
        actions.push(Action::Forget(version));
    }

    fn drop_version(&mut self, version: VersionId) {
        if let Some(entry) = self.versions.remove(version.0) {
            self.account.part(entry.function);
        }
    }
}

/// Until when something is kept of a version that is quiet since `quiet_since`: to the end of the window, or only to its first gap
/// if that is where `now` is.
fn keep_until(window: Window, quiet_since: Moment, now: Moment) -> Moment {
    match window.prewarm {
        Some(prewarm) if now < quiet_since.plus(prewarm) => quiet_since.plus(window.linger),
        _ => quiet_since.plus(window.keep),
    }
}
