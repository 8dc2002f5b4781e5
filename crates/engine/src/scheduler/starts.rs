//! When something is started, what, and for whom.

use super::rate::{Bucket, Rate};
use super::timers::Timer;
use super::version::Mould;
use super::{
    Action, EnvironmentId, Kind, Moment, Refusal, Scheduler, Slot, StartId, TemplateId, Ticket, Unprovided,
    VersionId,
};
use crate::{EngineOptions, Start};
use std::collections::VecDeque;

/// How long a call has the machine for itself until the spare that it may have taken is replaced, in microseconds.
const START_FIRST: u64 = 3_000;
/// Most spares that a burst adds.
const BURST_SPARES: usize = 8;

/// What a start is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody waits.
    Line,
    /// Somebody may come.
    Ahead,
    /// It is to be kept.
    Provision,
}

/// A start under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    version: VersionId,
    pub(super) kind: Kind,
    pub(super) purpose: Purpose,
    began: Moment,
    /// The caller that asked for it, and the start it asked for.
    pub(super) ticket: Option<Ticket>,
    asked: Start,
    forced: bool,
}

/// Versions that want one more start than they have, in the order in which they asked, and the bounds that make them wait.
/// Forks and starts that run an init phase have a queue and a bound each, so that neither holds up the other.
#[derive(Debug)]
pub(super) struct Queues {
    forks: VecDeque<VersionId>,
    inits: VecDeque<VersionId>,
    /// Those that lack environments which are to be kept, and wait for the bounds only.
    pub(super) kept: VecDeque<VersionId>,
    forking: usize,
    initialising: usize,
    most_forks: usize,
    most_inits: usize,
    bucket: Bucket,
    rate: Rate,
    /// When the machine's rate allows one more start that somebody waits for.
    pub(super) timer: Option<Moment>,
}

impl Queues {
    pub(super) fn new(options: &EngineOptions) -> Self {
        let starts = f64::from(options.starts_per_second.max(1));
        let machine = Rate { per_second: starts, burst: starts };
        Self {
            forks: VecDeque::new(),
            inits: VecDeque::new(),
            kept: VecDeque::new(),
            forking: 0,
            initialising: 0,
            most_forks: options.concurrent_forks.max(1),
            most_inits: options.concurrent_starts.max(1),
            bucket: Bucket::full(machine, Moment(0)),
            rate: machine,
            timer: None,
        }
    }

    /// Whether any version stands in one of the queues.
    pub(super) fn is_waiting(&self) -> bool {
        !self.forks.is_empty() || !self.inits.is_empty() || !self.kept.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.forks.clear();
        self.inits.clear();
        self.kept.clear();
    }

    fn of(&mut self, kind: Kind) -> &mut VecDeque<VersionId> {
        if kind == Kind::Fork { &mut self.forks } else { &mut self.inits }
    }

    fn under_way(&mut self, kind: Kind) -> &mut usize {
        if kind == Kind::Fork { &mut self.forking } else { &mut self.initialising }
    }

    /// Whether one more of `kind` may begin that nobody waits for.
    pub(super) fn may_start_ahead(&mut self, kind: Kind, now: Moment) -> bool {
        self.has_place(kind, true) && self.bucket.has_one(self.rate, now)
    }

    /// Whether one more of `kind` is within the bound, and another one would be as well if `with_reserve`.
    fn has_place(&self, kind: Kind, with_reserve: bool) -> bool {
        let (now, most) = match kind {
            Kind::Fork => (self.forking, self.most_forks),
            Kind::Ordinary | Kind::Prepare => (self.initialising, self.most_inits),
        };
        now + usize::from(with_reserve && most > 1) < most
    }
}

impl UnderWay {
    pub(super) fn version(&self) -> VersionId {
        self.version
    }
}

impl Scheduler {
    /// A start asked for by [`Action::Start`] or [`Action::Fork`] is done; the new environment gets its number.
    pub fn started(
        &mut self,
        start: StartId,
        memory_bytes: u64,
        now: Moment,
        actions: &mut Vec<Action>,
    ) -> EnvironmentId {
        let keep = self.keeps(start);
        let under_way = self.end_start(start, true, now);
        self.welcome(under_way, keep, memory_bytes, now, actions)
    }

    /// A start asked for by [`Action::Prepare`] is done, but it became an environment that no fork can be made of; ever, if it
    /// is `unforkable`.
    pub fn prepared_environment(
        &mut self,
        start: StartId,
        unforkable: bool,
        memory_bytes: u64,
        now: Moment,
        actions: &mut Vec<Action>,
    ) -> EnvironmentId {
        let keep = self.keeps(start);
        let under_way = self.end_start(start, unforkable, now);
        if let Some(entry) = under_way.as_ref().and_then(|start| self.versions.get_mut(start.version.0)) {
            entry.mould = if unforkable { Mould::Never } else { Mould::None };
            if unforkable {
                entry.ordinary.observe(entry.prepare.micros());
            } else {
                entry.doubt(now);
            }
        }
        self.welcome(under_way, keep, memory_bytes, now, actions)
    }

    /// A start came to nothing. The caller that asked for it, or the head of the line, hears of it: one refusal a failed
    /// start, so that a version that cannot start ends its line instead of trying for ever.
    pub fn start_failed(&mut self, start: StartId, now: Moment, actions: &mut Vec<Action>) {
        let is_kept = |start: &UnderWay| start.purpose == Purpose::Provision && start.kind != Kind::Prepare;
        if self.starts.get(start.0).is_some_and(is_kept) {
            return self.give_up_start(start, Unprovided::StartFailed, now, actions);
        }
        let Some(under_way) = self.end_start(start, false, now) else { return };
        let version = under_way.version;
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        self.memory.release(entry.memory_bytes);
        if under_way.kind == Kind::Prepare {
            entry.mould = Mould::None;
            entry.doubt(now);
        }
        let unlucky = if under_way.forced {
            under_way.ticket
        } else {
            let in_line = entry.line.pop_front().map(|waiting| waiting.ticket);
            in_line.or_else(|| entry.forced.pop_front().map(|forced| forced.ticket))
        };
        if let Some(ticket) = unlucky {
            self.refuse(version, ticket, Refusal::StartFailed, actions);
        }
        self.start_what_fits(version, now, actions);
        self.provide(version, now, actions);
        self.settle(version, now, actions);
    }

    /// A fork came to nothing because its template has ended. Nobody is refused for it: another template is made.
    pub fn template_gone(
        &mut self,
        start: StartId,
        template: TemplateId,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        self.template_died(template, now, actions);
        let Some(under_way) = self.end_start(start, false, now) else { return };
        let version = under_way.version;
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        self.memory.release(entry.memory_bytes);
        if let Some(ticket) = under_way.ticket {
            entry.forced.push_front(super::Forced { ticket, start: under_way.asked, since: under_way.began });
        }
        self.start_what_fits(version, now, actions);
        self.provide(version, now, actions);
        self.settle(version, now, actions);
    }

    /// Takes a start off the books but for its memory.
    pub(super) fn end_start(&mut self, start: StartId, worked: bool, now: Moment) -> Option<UnderWay> {
        let under_way = self.starts.remove(start.0)?;
        *self.queues.under_way(under_way.kind) -= 1;
        let entry = self.versions.get_mut(under_way.version.0)?;
        if under_way.kind == Kind::Fork {
            entry.forking -= 1;
        }
        if under_way.forced {
            entry.starting_forced -= 1;
        } else if under_way.kind == Kind::Prepare {
            // Whoever waits for a template waits for no start yet.
        } else if under_way.purpose == Purpose::Provision {
            entry.provisioning.starting -= 1;
        } else {
            entry.starting -= 1;
            entry.began -= under_way.began.0;
        }
        if worked {
            entry.start_time_mut(under_way.kind).observe(now.since(under_way.began));
            if under_way.kind == Kind::Fork {
                entry.forked();
            }
        }
        Some(under_way)
    }

    /// A new environment: for who asked for it, for the line, or for later.
    fn welcome(
        &mut self,
        under_way: Option<UnderWay>,
        keep: bool,
        memory_bytes: u64,
        now: Moment,
        actions: &mut Vec<Action>,
    ) -> EnvironmentId {
        let version = under_way.as_ref().map_or(VersionId(u64::MAX), |start| start.version);
        let mut slot = Slot {
            version,
            idle: false,
            since: now,
            frozen: false,
            reserved: 0,
            served: false,
            once: false,
            provisioned: false,
            newer: None,
            older: None,
            rank: 0.0,
            entered: None,
            timer: None,
        };
        let (Some(under_way), Some(entry)) = (under_way, self.versions.get_mut(version.0)) else {
            let environment = EnvironmentId(self.environments.insert(slot));
            self.environments.remove(environment.0);
            actions.push(Action::Stop(environment));
            return environment;
        };
        slot.reserved = entry.memory_bytes;
        entry.living += 1;
        slot.provisioned = keep;
        if keep {
            entry.provisioning.worked();
        }
        let too_many = keep && entry.provisioning.has_too_many();
        let start = if under_way.kind == Kind::Fork { Start::Fork } else { Start::Ordinary };
        let mut asked = under_way.ticket.map(|ticket| (ticket, under_way.asked));
        if asked.is_none() && under_way.kind == Kind::Prepare && entry.line.is_empty() {
            asked = entry.forced.pop_front().map(|forced| (forced.ticket, forced.start));
        }
        let handed = match asked {
            // What was forked to be a spare is one, however short it was.
            Some((ticket, Start::Spare)) if start == Start::Fork => Some((ticket, Start::Spare)),
            Some((ticket, _)) => Some((ticket, start)),
            // It was not started for whoever takes it.
            None if keep => entry.line.pop_front().map(|waiting| (waiting.ticket, Start::Spare)),
            None => entry.line.pop_front().map(|waiting| (waiting.ticket, start)),
        };
        slot.once = asked.is_some();
        let retired = entry.retired;
        let environment = EnvironmentId(self.environments.insert(slot));
        match handed {
            Some((ticket, start)) => actions.push(Action::Hand(ticket, environment, start)),
            None if retired || too_many => {
                self.remove(environment, now);
                actions.push(Action::Stop(environment));
            }
            None => self.rest(environment, memory_bytes, now),
        }
        self.start_what_fits(version, now, actions);
        self.provide(version, now, actions);
        self.start_spare(version, now, actions);
        self.settle(version, now, actions);
        environment
    }

    /// The caller of a start that it asked for is gone. True when there was such a start.
    pub(super) fn forget_caller(&mut self, ticket: Ticket) -> bool {
        for key in self.starts.keys() {
            if let Some(start) = self.starts.get_mut(key)
                && start.ticket == Some(ticket)
            {
                start.ticket = None;
                return true;
            }
        }
        false
    }

    /// Gives idle environments to whoever stands in line; the two meet only when an environment turned out to be dead.
    pub(super) fn serve_line(&mut self, version: VersionId, now: Moment, actions: &mut Vec<Action>) {
        while let Some(entry) = self.versions.get_mut(version.0)
            && let Some(environment) = entry.next_idle()
            && let Some(waiting) = entry.line.pop_front()
        {
            let start = self.occupy(environment, false, now);
            actions.push(Action::Hand(waiting.ticket, environment, start));
        }
    }

    /// Something of `version` has changed: begins what starts it wants now, and those of others that fit.
    pub(super) fn start_what_fits(&mut self, version: VersionId, now: Moment, actions: &mut Vec<Action>) {
        self.enqueue(version, now);
        if self.queues.is_waiting() {
            self.start_queued(now, actions);
        }
    }

    /// Begins what starts fit.
    pub(super) fn start_queued(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.closing {
            return;
        }
        self.start_of_queue(Kind::Fork, now, actions);
        self.start_of_queue(Kind::Ordinary, now, actions);
        // Who stood among the inits may want a fork by now, and the other way round; those moved to the end of a queue.
        self.start_of_queue(Kind::Fork, now, actions);
        self.provide_queued(now, actions);
    }

    fn start_of_queue(&mut self, queue: Kind, now: Moment, actions: &mut Vec<Action>) {
        while self.queues.has_place(queue, false)
            && let Some(&version) = self.queues.of(queue).front()
        {
            let wanted = self.wanted_start(version, now);
            let fits_here = wanted.is_some_and(|kind| (kind == Kind::Fork) == (queue == Kind::Fork));
            let (Some(kind), true) = (wanted, fits_here) else {
                self.dequeue(queue, version);
                self.enqueue(version, now);
                continue;
            };
            let Some(entry) = self.versions.get_mut(version.0) else { continue };
            // Who asks for a cold start measures; and a template is not part of what a function grows by.
            if entry.forced.is_empty()
                && kind != Kind::Prepare
                && let Some(next) = self.account.may_grow(entry.function, now)
            {
                self.dequeue(queue, version);
                self.set_line_timer(version, next);
                continue;
            }
            let needed = entry.memory_bytes;
            if !self.queues.bucket.has_one(self.queues.rate, now) {
                self.plan_starts(now);
                return;
            }
            if !self.make_room(needed, f64::INFINITY, now, actions) {
                return;
            }
            self.dequeue(queue, version);
            self.begin(version, kind, Purpose::Line, now, actions);
            self.enqueue(version, now);
        }
    }

    /// Sees to it that starts are looked at again when the machine's rate allows one, if that is what holds them up.
    pub(super) fn plan_starts(&mut self, now: Moment) {
        if self.queues.timer.is_none() && !self.queues.bucket.has_one(self.queues.rate, now) {
            let next = self.queues.bucket.next(self.queues.rate);
            self.queues.timer = Some(next);
            self.timers.set(next, Timer::Starts);
        }
    }

    fn dequeue(&mut self, queue: Kind, version: VersionId) {
        self.queues.of(queue).pop_front();
        if let Some(entry) = self.versions.get_mut(version.0) {
            entry.queued = None;
        }
    }

    /// Puts the version into a queue if it wants a start and is in none.
    pub(super) fn enqueue(&mut self, version: VersionId, now: Moment) {
        if self.closing || self.versions.get(version.0).is_none_or(|entry| entry.queued.is_some()) {
            return;
        }
        let Some(kind) = self.wanted_start(version, now) else { return };
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        entry.queued = Some(kind);
        self.queues.of(kind).push_back(version);
        if entry.line_timer.is_none()
            && let Some(since) = entry.waits_since()
        {
            let end = since.plus(self.policy.longest_wait);
            self.set_line_timer(version, end);
        }
    }

    /// Which start the version should have next for those who wait. When it is better to wait, a timer asks again.
    fn wanted_start(&mut self, version: VersionId, now: Moment) -> Option<Kind> {
        let entry = self.versions.get(version.0)?;
        let next = entry.next_kind(now);
        if let Some(forced) = entry.forced.front() {
            let kind = if forced.start == Start::Ordinary { Some(Kind::Ordinary) } else { next };
            if kind.is_some_and(|kind| kind != Kind::Fork || entry.may_fork()) {
                return kind;
            }
        }
        let kind = next?;
        if kind == Kind::Fork && !entry.may_fork() {
            return None;
        }
        if entry.wants_start(kind, now) {
            return Some(kind);
        }
        if let Some(at) = entry.patience_ends(kind) {
            self.set_line_timer(version, at);
        }
        None
    }

    /// Sees to it that the line is looked at by then. A later look than planned is not planned: the earlier one will see.
    pub(super) fn set_line_timer(&mut self, version: VersionId, at: Moment) {
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        if entry.line_timer.is_none_or(|planned| at < planned) {
            if let Some(planned) = entry.line_timer.replace(at) {
                self.timers.cancel(planned, Timer::Line(version));
            }
            self.timers.set(at, Timer::Line(version));
        }
    }

    /// A caller in line has waited for long.
    pub(super) fn look_at_line(&mut self, version: VersionId, now: Moment, actions: &mut Vec<Action>) {
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        entry.line_timer = None;
        self.start_what_fits(version, now, actions);
        let longest = self.policy.longest_wait;
        while let Some(entry) = self.versions.get_mut(version.0)
            && entry.mould != Mould::Preparing
            && let Some(first_without) = entry.line.get(entry.starting).copied()
        {
            let end = first_without.since.plus(longest);
            if end > now {
                self.set_line_timer(version, end);
                break;
            }
            entry.line.remove(entry.starting);
            self.refuse(version, first_without.ticket, Refusal::Overloaded, actions);
        }
        while let Some(entry) = self.versions.get_mut(version.0)
            && entry.mould != Mould::Preparing
            && let Some(forced) = entry.forced.front().copied()
        {
            let end = forced.since.plus(longest);
            if end > now {
                self.set_line_timer(version, end);
                break;
            }
            entry.forced.pop_front();
            self.refuse(version, forced.ticket, Refusal::Overloaded, actions);
        }
        self.settle(version, now, actions);
    }

    /// Begins a start. There must be room for it.
    pub(super) fn begin(
        &mut self,
        version: VersionId,
        kind: Kind,
        purpose: Purpose,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        self.memory.reserve(entry.memory_bytes);
        self.queues.bucket.take();
        let mut under_way =
            UnderWay { version, kind, purpose, began: now, ticket: None, asked: Start::Warm, forced: false };
        if purpose == Purpose::Line {
            entry.count_burst(now);
            // One spare serves one of a burst.
            if kind == Kind::Ordinary && entry.lively && entry.busy() > 0 && entry.starting == 0 {
                entry.odds.missed();
            }
            // Who asked for a fork takes the ordinary start that there is when nothing can be forked.
            let matches = |start: Start| kind == Kind::Ordinary || start != Start::Ordinary;
            if kind != Kind::Prepare
                && entry.forced.front().is_some_and(|forced| matches(forced.start))
                && let Some(forced) = entry.forced.pop_front()
            {
                (under_way.ticket, under_way.asked, under_way.forced) =
                    (Some(forced.ticket), forced.start, true);
            }
        }
        if under_way.forced {
            entry.starting_forced += 1;
        } else if kind == Kind::Prepare {
            // It becomes a template.
        } else if purpose == Purpose::Provision {
            entry.provisioning.starting += 1;
        } else {
            self.account.grow(entry.function);
            entry.starting += 1;
            entry.began += now.0;
        }
        *self.queues.under_way(kind) += 1;
        let start = StartId(self.starts.insert(under_way));
        match (kind, entry.mould) {
            (Kind::Prepare, _) => {
                entry.mould = Mould::Preparing;
                actions.push(Action::Prepare(start, version));
            }
            (Kind::Fork, Mould::Ready(template)) => {
                entry.forking += 1;
                self.use_template(template, now, actions);
                actions.push(Action::Fork(start, version, template));
            }
            (Kind::Fork | Kind::Ordinary, _) => actions.push(Action::Start(start, version)),
        }
    }

    /// Whether the version should have one more spare than it has, and having it would hold up nobody.
    pub(super) fn wants_spare(&self, version: VersionId, now: Moment) -> bool {
        let Some(entry) = self.versions.get(version.0) else { return false };
        if entry.retired || self.closing || !entry.line.is_empty() || self.queues.is_waiting() {
            return false;
        }
        let burst = match entry.next_kind(now) {
            Some(Kind::Fork | Kind::Prepare) => (entry.burst_level(now) / 4.0) as usize,
            _ => 0,
        };
        let ready = entry.idle + entry.starting;
        let measured = now < entry.measured_until
            && entry.starting == 0
            && entry
                .oldest
                .is_none_or(|oldest| self.environments.get(oldest.0).is_some_and(|slot| slot.served));
        let wanted =
            entry.lively && ready < self.options.spares + burst.min(BURST_SPARES) && self.options.spares > 0;
        wanted || measured
    }

    /// Sees to it that there is a spare for the next call. A fork waits until this call has had its start: it would take the
    /// processor from it, and is soon done.
    pub(super) fn replace_spare(&mut self, version: VersionId, now: Moment, actions: &mut Vec<Action>) {
        let forks =
            self.versions.get(version.0).is_some_and(|entry| entry.next_kind(now) == Some(Kind::Fork));
        if !forks {
            self.start_spare(version, now, actions);
        } else if self.wants_spare(version, now) {
            self.timers.set(now.plus(START_FIRST), Timer::Spare(version));
        }
    }

    /// Starts a spare if one is wanted.
    pub(super) fn start_spare(&mut self, version: VersionId, now: Moment, actions: &mut Vec<Action>) {
        if !self.wants_spare(version, now) {
            return;
        }
        let Some(entry) = self.versions.get(version.0) else { return };
        let next = entry.next_kind(now);
        match next {
            Some(Kind::Fork) if !entry.may_fork() => {}
            Some(Kind::Ordinary) => {
                if self.spare_pays(version)
                    && self.start_ahead(version, Kind::Ordinary, 0.0, now, actions)
                    && let Some(entry) = self.versions.get_mut(version.0)
                {
                    entry.odds.made();
                }
            }
            Some(kind) => drop(self.start_ahead(version, kind, 0.0, now, actions)),
            None => {}
        }
    }

    /// Starts something that nobody waits for yet, if the bounds leave room for somebody else's start besides, and if it
    /// displaces only what is worth less than `rank`. Says whether it did.
    pub(super) fn start_ahead(
        &mut self,
        version: VersionId,
        kind: Kind,
        rank: f64,
        now: Moment,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(entry) = self.versions.get_mut(version.0) else { return false };
        let needed = entry.memory_bytes;
        let allowed =
            self.account.may_grow(entry.function, now).is_none() && self.queues.may_start_ahead(kind, now);
        let starts = allowed && self.make_room(needed, rank, now, actions);
        if starts {
            self.begin(version, kind, Purpose::Ahead, now, actions);
        }
        starts
    }
}
