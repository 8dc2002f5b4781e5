//! Every decision about execution environments and templates, as a state machine without I/O or clock.
//!
//! Events come in as method calls with the time; what to do about them comes out as [`Action`]s, which the caller
//! carries out in order. The rules, and the file of each:
//!
//! - An arrival takes the idle environment of its version that was used last, so that the others can age and go; spares,
//!   which have served nobody yet, come after all others. Without one it waits in its version's line. Whichever
//!   environment of the version is free next serves the head of the line, be it a new one or one that just finished:
//!   nobody waits for "his" start. (here)
//! - A caller in line causes a start if it is expected to stand there for longer than the start takes, or has stood
//!   there for so long. Starts under way never outnumber the callers in line; the machine, each version and each second have
//!   bounds. (`starts`, `version`, `rate`)
//! - A version that can be forked gets a template first, once, and everybody waits for that; then forks. (`starts`, `templates`)
//! - A function that is called often has a spare ready for the call that comes while all others run; one that is not
//!   forked, and so shares no memory, only while such calls come often enough to pay for it. (`starts`, `keeping`, `odds`)
//! - What somebody asked to be kept started is. (`provisioning`)
//! - What is idle is kept as long as its function's history makes it pay, and comes back shortly before a call is
//!   expected. (`keeping`, `history`)
//! - A start needs room in the memory budget, and what would be missed least makes room for it. When all are busy, the start
//!   waits its turn, in the order in which versions asked. (`memory`)
//! - Callers over their function's share of [`EngineOptions::concurrency`], running and waiting, are refused at the door, and so
//!   are those who call too often. (`account`) So is one whose line would not end in time. (here)
//!
//! No event walks over what is known: versions, environments and templates are found by number, what is due by time and
//! what can go by rank. A version costs nothing before its first call, and a few hundred bytes of history after its last.

mod account;
mod estimate;
mod history;
mod keeping;
mod memory;
mod odds;
mod provisioning;
mod rate;
mod slab;
mod starts;
mod templates;
mod timers;
mod types;
mod version;

pub use provisioning::{Provisioned, Unprovided};
pub use types::{
    Action, Arrival, Counts, EnvironmentId, FunctionId, Limit, Moment, Refusal, StartId, TemplateId, Ticket,
    VersionId,
};

use crate::{EngineOptions, Start, Wanted};
use account::Account;
use keeping::Policy;
use memory::{Holder, Memory};
use slab::Slab;
use starts::{Queues, UnderWay};
use templates::Template;
use timers::{Timer, Timers};
use types::{Kind, MINUTE, SECOND};
use version::{Forced, Version, Waiting};

/// How long a spare is replaced at once after somebody asked for a start from one.
const MEASURED: u64 = 10 * SECOND;

/// One environment.
#[derive(Debug)]
struct Slot {
    version: VersionId,
    idle: bool,
    /// Since when it is idle or busy.
    since: Moment,
    frozen: bool,
    /// What it counts with in the budget.
    reserved: u64,
    /// It has run an event.
    served: bool,
    /// It was started for one caller, and is stopped after it.
    once: bool,
    /// It is kept because somebody asked for so many.
    provisioned: bool,
    /// Its neighbours among the idle ones of its version.
    newer: Option<EnvironmentId>,
    older: Option<EnvironmentId>,
    /// What it would be missed by, and under which rank it stands in the order of those that can go.
    rank: f64,
    entered: Option<f64>,
    /// When it is looked at next.
    timer: Option<Moment>,
}

/// The state of all versions, environments and templates. See the module's text for the rules.
#[derive(Debug)]
pub struct Scheduler {
    options: EngineOptions,
    policy: Policy,
    versions: Slab<Version>,
    environments: Slab<Slot>,
    templates: Slab<Template>,
    starts: Slab<UnderWay>,
    queues: Queues,
    memory: Memory,
    timers: Timers,
    account: Account,
    callers: usize,
    next_ticket: u64,
    closing: bool,
}

impl Scheduler {
    /// An empty machine, at time 0.
    #[must_use]
    pub fn new(options: EngineOptions) -> Self {
        Self {
            options,
            policy: Policy::new(&options),
            versions: Slab::new(),
            environments: Slab::new(),
            templates: Slab::new(),
            starts: Slab::new(),
            queues: Queues::new(&options),
            memory: Memory::new(options.memory_bytes),
            timers: Timers::new(),
            account: Account::new(&options),
            callers: 0,
            next_ticket: 0,
            closing: false,
        }
    }

    /// Makes a function known, which is forgotten again as soon as it has neither versions nor a share of the account.
    pub fn add_function(&mut self, now: Moment) -> FunctionId {
        self.account.add(now)
    }

    /// Whether the function is still known.
    #[must_use]
    pub fn knows_function(&self, function: FunctionId) -> bool {
        self.account.knows(function)
    }

    /// Gives a function so much of the account's concurrency for itself, and no more; `None` lets it share with others. Callers
    /// that it has may stay.
    pub fn reserve(&mut self, function: FunctionId, concurrency: Option<usize>, now: Moment) {
        self.account.reserve(function, concurrency, now);
    }

    /// Whether anything is provisioned of the function's versions.
    #[must_use]
    pub fn has_provisioned(&self, function: FunctionId) -> bool {
        self.account.has_provisioned(function)
    }

    /// Makes a version of a function known; its environments may use `memory_bytes` each, and `can_fork` says whether its
    /// runtime can be forked at all.
    pub fn add_version(
        &mut self,
        function: FunctionId,
        memory_bytes: u64,
        can_fork: bool,
        now: Moment,
    ) -> VersionId {
        let can_fork = can_fork && self.options.fork_start;
        self.account.join(function);
        VersionId(self.versions.insert(Version::new(function, memory_bytes, can_fork, now)))
    }

    /// Lets what is known about a version go an hour after its last call: there may be many of its kind.
    pub fn forget_soon(&mut self, version: VersionId) {
        if let Some(entry) = self.versions.get_mut(version.0) {
            entry.remembered = 60 * MINUTE;
        }
    }

    /// A caller wants to run `version`, which must be known.
    pub fn arrive(
        &mut self,
        version: VersionId,
        wanted: Wanted,
        now: Moment,
        actions: &mut Vec<Action>,
    ) -> Arrival {
        if self.closing {
            return Arrival::Closing;
        }
        let Some(entry) = self.versions.get_mut(version.0) else { return Arrival::Closing };
        if let Err((limit, again)) = self.account.admit(entry.function, now) {
            return Arrival::Throttled(limit, again);
        }
        entry.count_call(now);
        entry.lively = entry.called.is_some_and(|called| now.since(called) < MINUTE);
        entry.called = Some(now);
        entry.prewarm_at = None;
        let cold = match wanted {
            Wanted::Any | Wanted::Cold(Start::Warm) => None,
            Wanted::Cold(start) => Some(start),
        };
        let ready = match cold {
            None => entry.next_idle(),
            Some(Start::Spare) => {
                entry.measured_until = now.plus(MEASURED);
                entry.oldest.filter(|oldest| self.environments.get(oldest.0).is_some_and(|slot| !slot.served))
            }
            Some(_) => None,
        };
        if let Some(environment) = ready {
            self.enter(version);
            let start = self.occupy(environment, cold.is_some(), now);
            self.replace_spare(version, now, actions);
            return Arrival::Run(environment, start);
        }
        if entry.memory_bytes > self.options.memory_bytes {
            return Arrival::TooLarge;
        }
        if entry.line.len() + entry.forced.len() >= self.options.longest_line {
            return Arrival::Overloaded;
        }
        self.enter(version);
        let ticket = self.ticket();
        let Some(entry) = self.versions.get_mut(version.0) else { return Arrival::Closing };
        match cold {
            None => entry.line.push_back(Waiting { ticket, since: now }),
            Some(start) => entry.forced.push_back(Forced { ticket, start, since: now }),
        }
        self.start_what_fits(version, now, actions);
        if cold.is_none() && self.line_is_hopeless(version, now) {
            if let Some(entry) = self.versions.get_mut(version.0) {
                entry.line.pop_back();
            }
            self.leave(version);
            return Arrival::Overloaded;
        }
        if cold.is_none()
            && let Some(again) = self.grows_too_fast(version, now)
        {
            if let Some(entry) = self.versions.get_mut(version.0) {
                entry.line.pop_back();
            }
            self.leave(version);
            return Arrival::Throttled(Limit::Growth, again);
        }
        Arrival::Wait(ticket)
    }

    /// A caller in line went away. Does nothing when it had already been served or refused.
    pub fn gave_up(&mut self, version: VersionId, ticket: Ticket, now: Moment, actions: &mut Vec<Action>) {
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        if let Some(position) = entry.line.iter().position(|waiting| waiting.ticket == ticket) {
            entry.line.remove(position);
        } else if let Some(position) = entry.forced.iter().position(|forced| forced.ticket == ticket) {
            entry.forced.remove(position);
        } else if !self.forget_caller(ticket) {
            return;
        }
        self.leave(version);
        self.settle(version, now, actions);
    }

    /// An invocation is over and the environment can take another; it was measured to hold `memory_bytes`.
    pub fn finished(
        &mut self,
        environment: EnvironmentId,
        memory_bytes: u64,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(slot) = self.environments.get_mut(environment.0) else { return };
        let version = slot.version;
        let took = now.since(slot.since);
        slot.served = true;
        let once = slot.once;
        self.leave(version);
        if let Some(entry) = self.versions.get_mut(version.0) {
            entry.service.observe(took);
        }
        if once {
            self.remove(environment, now);
            actions.push(Action::Stop(environment));
            self.settle(version, now, actions);
        } else {
            self.offer(environment, memory_bytes, now, actions);
        }
        if self.queues.is_waiting() {
            self.start_queued(now, actions);
        }
    }

    /// An invocation is over and its environment with it (crash, time-out, out of memory).
    pub fn broke(&mut self, environment: EnvironmentId, now: Moment, actions: &mut Vec<Action>) {
        let Some(version) = self.remove(environment, now) else { return };
        self.leave(version);
        self.start_what_fits(version, now, actions);
        self.provide(version, now, actions);
        self.settle(version, now, actions);
    }

    /// A caller was handed a dead environment and stands at the head of the line again.
    pub fn broke_before_use(
        &mut self,
        environment: EnvironmentId,
        now: Moment,
        actions: &mut Vec<Action>,
    ) -> Option<(VersionId, Ticket)> {
        let ticket = self.ticket();
        let version = self.remove(environment, now)?;
        if let Some(entry) = self.versions.get_mut(version.0) {
            entry.line.push_front(Waiting { ticket, since: now });
        }
        // Another idle one may serve at once.
        self.serve_line(version, now, actions);
        self.start_what_fits(version, now, actions);
        self.provide(version, now, actions);
        Some((version, ticket))
    }

    /// An environment ended by itself. True when it was idle, so that the caller should drop what it holds of it; a
    /// busy one is reported by whoever runs it.
    pub fn died(&mut self, environment: EnvironmentId, now: Moment, actions: &mut Vec<Action>) -> bool {
        let Some(slot) = self.environments.get(environment.0).filter(|slot| slot.idle) else { return false };
        // One that never came to serve may be followed by more of its kind.
        let hopeless = slot.provisioned && !slot.served;
        let Some(version) = self.remove(environment, now) else { return false };
        if hopeless {
            self.unprovided(version, Unprovided::StartFailed, now);
        }
        self.start_what_fits(version, now, actions);
        self.provide(version, now, actions);
        self.settle(version, now, actions);
        true
    }

    /// The version was replaced or deleted: its idle environments and its template stop, busy ones stop when they are
    /// done, callers in line are still served.
    pub fn retire(&mut self, version: VersionId, now: Moment, actions: &mut Vec<Action>) {
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        entry.retired = true;
        self.provision(version, 0, now, actions);
        while let Some(environment) = self.versions.get(version.0).and_then(|entry| entry.oldest) {
            self.remove(environment, now);
            actions.push(Action::Stop(environment));
        }
        self.start_what_fits(version, now, actions);
        self.settle(version, now, actions);
    }

    /// Takes nobody in any more and stops all that is idle; what runs may finish, who waits is refused.
    pub fn close(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.closing = true;
        self.queues.clear();
        self.timers.clear();
        for start in self.starts.keys() {
            let Some(start) = self.starts.get_mut(start) else { continue };
            let version = start.version();
            if let Some(ticket) = start.ticket.take() {
                self.refuse(version, ticket, Refusal::Closing, actions);
            }
        }
        for key in self.versions.keys() {
            let Some(entry) = self.versions.get_mut(key) else { continue };
            let line: Vec<Ticket> = entry.line.drain(..).map(|waiting| waiting.ticket).collect();
            let forced: Vec<Ticket> = entry.forced.drain(..).map(|forced| forced.ticket).collect();
            for ticket in line.into_iter().chain(forced) {
                self.refuse(VersionId(key), ticket, Refusal::Closing, actions);
            }
            self.retire(VersionId(key), now, actions);
        }
        self.timers.clear();
    }

    /// Whether [`close`](Self::close) was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closing
    }

    /// Callers running and waiting.
    #[must_use]
    pub fn callers(&self) -> usize {
        self.callers
    }

    /// Environments living, and starts under way, preparations of templates included.
    #[must_use]
    pub fn environments(&self) -> usize {
        self.environments.len() + self.starts.len()
    }

    /// Templates that forks can be made of.
    #[must_use]
    pub fn templates(&self) -> usize {
        self.templates.len()
    }

    /// Bytes of the memory budget that are in use.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        self.memory.reserved()
    }

    /// Whether the version is still known. [`Action::Forget`] says when it is not.
    #[must_use]
    pub fn knows(&self, version: VersionId) -> bool {
        self.versions.get(version.0).is_some()
    }

    /// What one version has at this moment.
    #[must_use]
    pub fn counts(&self, version: VersionId) -> Counts {
        let Some(entry) = self.versions.get(version.0) else { return Counts::default() };
        let preparing = usize::from(entry.mould == version::Mould::Preparing);
        Counts {
            busy: entry.busy(),
            idle: entry.idle,
            starting: entry.starting + entry.starting_forced + entry.provisioning.starting + preparing,
            waiting: entry.line.len() + entry.forced.len(),
            templates: usize::from(matches!(entry.mould, version::Mould::Ready(_))),
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn enter(&mut self, version: VersionId) {
        self.callers += 1;
        if let Some(entry) = self.versions.get(version.0) {
            self.account.enter(entry.function);
        }
    }

    fn leave(&mut self, version: VersionId) {
        self.callers -= 1;
        if let Some(entry) = self.versions.get(version.0) {
            self.account.leave(entry.function);
        }
    }

    fn refuse(&mut self, version: VersionId, ticket: Ticket, why: Refusal, actions: &mut Vec<Action>) {
        self.leave(version);
        actions.push(Action::Refuse(ticket, why));
    }

    /// Whether who joined the line last would stand there for too long, and no start can help.
    fn line_is_hopeless(&self, version: VersionId, now: Moment) -> bool {
        let Some(entry) = self.versions.get(version.0) else { return false };
        entry.line.len() > entry.starting
            && !self.memory.could_fit(entry.memory_bytes)
            && entry.expected_wait(entry.line.len(), now).is_some_and(|wait| wait > self.policy.longest_wait)
    }

    /// For how long at least who joined the line last is in vain there: the line wants one more start than the function may have.
    fn grows_too_fast(&mut self, version: VersionId, now: Moment) -> Option<u64> {
        let entry = self.versions.get(version.0)?;
        let kind = entry.next_kind(now).filter(|kind| *kind != Kind::Prepare)?;
        let without = entry.line.len().saturating_sub(entry.starting);
        if without == 0 || !entry.is_worth_a_start(kind, now) {
            return None;
        }
        self.account.must_not_grow_by(entry.function, without, now)
    }

    /// Gives a free environment to the head of the line, or lets it idle.
    fn offer(
        &mut self,
        environment: EnvironmentId,
        memory_bytes: u64,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(slot) = self.environments.get_mut(environment.0) else { return };
        let version = slot.version;
        let Some(entry) = self.versions.get_mut(version.0) else { return };
        if let Some(waiting) = entry.line.pop_front() {
            slot.since = now;
            actions.push(Action::Hand(waiting.ticket, environment, Start::Warm));
            return;
        }
        let provisioned = slot.provisioned;
        if entry.retired || (provisioned && entry.provisioning.has_too_many()) {
            self.remove(environment, now);
            actions.push(Action::Stop(environment));
            self.settle(version, now, actions);
            return;
        }
        self.rest(environment, memory_bytes, now);
    }

    /// An idle environment goes to work; says which start that is for whoever it works for.
    fn occupy(&mut self, environment: EnvironmentId, once: bool, now: Moment) -> Start {
        self.unlink(environment);
        let Some(slot) = self.environments.get_mut(environment.0) else { return Start::Warm };
        if !slot.provisioned {
            let full = self.versions.get(slot.version.0).map_or(slot.reserved, |entry| entry.memory_bytes);
            self.memory.work(slot.reserved, full);
            slot.reserved = full;
        }
        slot.idle = false;
        slot.frozen = false;
        slot.once = once;
        slot.since = now;
        if slot.served {
            return Start::Warm;
        }
        if let Some(entry) = self.versions.get_mut(slot.version.0).filter(|_| !once && !slot.provisioned) {
            entry.odds.taken();
        }
        Start::Spare
    }

    /// A busy environment becomes idle.
    fn rest(&mut self, environment: EnvironmentId, memory_bytes: u64, now: Moment) {
        let Some(slot) = self.environments.get_mut(environment.0) else { return };
        let Some(entry) = self.versions.get_mut(slot.version.0) else { return };
        slot.idle = true;
        slot.frozen = false;
        slot.since = now;
        entry.idle += 1;
        if slot.provisioned {
            entry.standing.push(environment);
            if slot.served {
                entry.leave_level(now);
            }
            return self.look_at_idle_later(environment, now);
        }
        self.memory.rest(slot.reserved, memory_bytes);
        slot.reserved = memory_bytes;
        // A spare goes below everything that has served.
        let served = slot.served;
        let (newer, older) = if served { (None, entry.newest) } else { (entry.oldest, None) };
        (slot.newer, slot.older) = (newer, older);
        match older {
            None => entry.oldest = Some(environment),
            Some(older) => link(&mut self.environments, older, |slot| slot.newer = Some(environment)),
        }
        match newer {
            None => entry.newest = Some(environment),
            Some(newer) => link(&mut self.environments, newer, |slot| slot.older = Some(environment)),
        }
        if served {
            entry.leave_level(now);
        }
        let kind = match entry.mould {
            version::Mould::Ready(_) => Kind::Fork,
            version::Mould::Never => Kind::Ordinary,
            _ => Kind::Prepare,
        };
        entry.idle_bytes = memory_bytes;
        let rank = self.memory.rank(entry.saves(kind), memory_bytes);
        let Some(slot) = self.environments.get_mut(environment.0) else { return };
        slot.rank = rank;
        if slot.entered.is_none() {
            slot.entered = Some(rank);
            self.memory.enter(rank, Holder::Environment(environment));
        }
        self.look_at_idle_later(environment, now);
    }

    fn look_at_idle_later(&mut self, environment: EnvironmentId, now: Moment) {
        let Some(slot) = self.environments.get_mut(environment.0) else { return };
        if slot.timer.is_none() {
            let at = now.plus(self.policy.freeze_after);
            slot.timer = Some(at);
            self.timers.set(at, Timer::Idle(environment));
        }
    }

    /// Takes an environment out of the list of the idle ones of its version.
    fn unlink(&mut self, environment: EnvironmentId) {
        let Some(slot) = self.environments.get_mut(environment.0) else { return };
        let (newer, older) = (slot.newer.take(), slot.older.take());
        let Some(entry) = self.versions.get_mut(slot.version.0) else { return };
        entry.idle -= 1;
        if slot.provisioned {
            // Nearly always the last one.
            if let Some(at) = entry.standing.iter().rposition(|standing| *standing == environment) {
                entry.standing.remove(at);
            }
            return;
        }
        match newer {
            None => entry.newest = older,
            Some(newer) => link(&mut self.environments, newer, |slot| slot.older = older),
        }
        match older {
            None => entry.oldest = newer,
            Some(older) => link(&mut self.environments, older, |slot| slot.newer = newer),
        }
    }

    /// Forgets an environment, idle or busy, and says whose it was.
    fn remove(&mut self, environment: EnvironmentId, now: Moment) -> Option<VersionId> {
        let slot = self.environments.get(environment.0)?;
        if slot.idle {
            let (held, provisioned) = (slot.reserved, slot.provisioned);
            self.unlink(environment);
            if !provisioned {
                self.memory.work(held, held);
            }
        }
        let slot = self.environments.remove(environment.0)?;
        self.memory.release(slot.reserved);
        if let Some(rank) = slot.entered {
            self.memory.leave(rank, Holder::Environment(environment));
        }
        if let Some(at) = slot.timer {
            self.timers.cancel(at, Timer::Idle(environment));
        }
        let entry = self.versions.get_mut(slot.version.0)?;
        entry.living -= 1;
        if slot.provisioned {
            entry.provisioning.living -= 1;
        }
        if !slot.idle {
            entry.leave_level(now);
        }
        Some(slot.version)
    }
}

fn link(environments: &mut Slab<Slot>, neighbour: EnvironmentId, change: impl FnOnce(&mut Slot)) {
    if let Some(slot) = environments.get_mut(neighbour.0) {
        change(slot);
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
