//! Every decision about execution environments, as a state machine without I/O or clock.
//!
//! Events come in as method calls with the time; what to do about them comes out as [`Action`]s, which the caller
//! carries out in order. The rules:
//!
//! - An arrival takes the idle environment of its version that was used last, so that the others can age and go.
//! - Without one it waits in its version's line. Whichever environment of the version is free next serves the head
//!   of the line, be it a new one or one that just finished: nobody waits for "his" start.
//! - A version has at most as many starts under way as callers in line, and the machine at most
//!   [`Limits::concurrent_starts`], so that a burst of first calls is no stampede.
//! - A start needs room in the memory budget. Idle environments make room, longest idle first; when all are busy, the
//!   start waits its turn, in the order in which versions asked.
//! - More than [`Limits::concurrency`] callers (running and waiting) are refused at the door.

use martlet_model::Timestamp;
use std::collections::{HashMap, VecDeque};

/// Bounds that hold over all versions together.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most callers at once, running and waiting: the account's concurrency.
    pub concurrency: usize,
    /// Most environments that may be starting at once.
    pub concurrent_starts: usize,
    /// Memory that environments may hold together, in bytes: a busy or starting one counts with all that it may
    /// use, an idle one with what it was measured to use. Only starts are held back by it: an idle environment may
    /// always go to work again.
    pub memory_bytes: u64,
    /// How long an environment may stay idle before it is stopped, in milliseconds.
    pub idle_millis: u64,
    /// How long an idle environment keeps running before it is frozen, in milliseconds. Short enough that background
    /// work of a finished invocation gets nowhere, long enough that a busy function is never frozen between events.
    pub freeze_millis: u64,
}

/// One version of one function, in the scheduler's own numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId(pub u64);

/// One execution environment, in the scheduler's own numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvironmentId(pub u64);

/// One caller in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What becomes of a caller that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Run on this environment, now.
    Run(EnvironmentId),
    /// Stand in line; an [`Action::Hand`] or [`Action::Refuse`] with this ticket follows.
    Wait(Ticket),
    /// Too many callers already.
    Throttled,
    /// The version may use more memory than the whole budget, so no start can ever have room.
    TooLarge,
    /// The engine is draining.
    Closing,
}

/// What the caller of the scheduler has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give the environment to the caller in line. A caller that is gone counts as one that has [`Scheduler::finished`].
    Hand(Ticket, EnvironmentId),
    /// Tell the caller in line that its version cannot be started.
    Refuse(Ticket),
    /// Start an environment; report by [`Scheduler::started`] or [`Scheduler::start_failed`].
    Start(VersionId),
    /// Stop an idle environment; the scheduler has forgotten it.
    Stop(EnvironmentId),
    /// Freeze an idle environment.
    Freeze(EnvironmentId),
}

#[derive(Debug)]
enum Phase {
    Busy,
    Idle { since: Timestamp, frozen: bool },
}

#[derive(Debug)]
struct Slot {
    version: VersionId,
    phase: Phase,
    reserved: u64,
}

#[derive(Debug)]
struct Version {
    memory_bytes: u64,
    /// Idle environments, the one used last on top.
    idle: Vec<EnvironmentId>,
    line: VecDeque<Ticket>,
    starting: usize,
    /// Environments that exist, idle and busy.
    living: usize,
    /// Replaced or deleted: serves who is in line, keeps nothing.
    retired: bool,
}

/// Counts of one version, for people to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Environments that run an invocation.
    pub busy: usize,
    /// Environments that wait for one.
    pub idle: usize,
    /// Starts under way.
    pub starting: usize,
    /// Callers in line.
    pub waiting: usize,
}

/// The state of all versions and environments. See the module's text for the rules.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    versions: HashMap<VersionId, Version>,
    environments: HashMap<EnvironmentId, Slot>,
    /// Versions that want one more start than they have, in the order in which they asked; one entry a start.
    wanting: VecDeque<VersionId>,
    starting: usize,
    callers: usize,
    reserved: u64,
    next_version: u64,
    next_environment: u64,
    next_ticket: u64,
    closing: bool,
}

impl Scheduler {
    /// An empty machine.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            versions: HashMap::new(),
            environments: HashMap::new(),
            wanting: VecDeque::new(),
            starting: 0,
            callers: 0,
            reserved: 0,
            next_version: 0,
            next_environment: 0,
            next_ticket: 0,
            closing: false,
        }
    }

    /// Makes a version known; its environments may use `memory_bytes` each.
    pub fn add_version(&mut self, memory_bytes: u64) -> VersionId {
        let id = VersionId(self.next_version);
        self.next_version += 1;
        let version = Version {
            memory_bytes,
            idle: vec![],
            line: VecDeque::new(),
            starting: 0,
            living: 0,
            retired: false,
        };
        self.versions.insert(id, version);
        id
    }

    /// A caller wants to run `version`, which must be known.
    pub fn arrive(&mut self, version: VersionId, actions: &mut Vec<Action>) -> Arrival {
        if self.closing {
            return Arrival::Closing;
        }
        if self.callers >= self.limits.concurrency {
            return Arrival::Throttled;
        }
        let Some(entry) = self.versions.get_mut(&version) else { return Arrival::Closing };
        if let Some(environment) = entry.idle.pop() {
            self.callers += 1;
            self.occupy(environment);
            return Arrival::Run(environment);
        }
        if entry.memory_bytes > self.limits.memory_bytes {
            return Arrival::TooLarge;
        }
        self.callers += 1;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        entry.line.push_back(ticket);
        self.want_starts(version);
        self.start_what_fits(actions);
        Arrival::Wait(ticket)
    }

    /// A caller in line went away. Does nothing when it had already been served or refused.
    pub fn gave_up(&mut self, version: VersionId, ticket: Ticket) {
        let Some(entry) = self.versions.get_mut(&version) else { return };
        if let Some(position) = entry.line.iter().position(|waiting| *waiting == ticket) {
            entry.line.remove(position);
            self.callers -= 1;
            self.forget_if_done(version);
        }
    }

    /// A start asked for by [`Action::Start`] is done; the new environment gets its number.
    pub fn started(
        &mut self,
        version: VersionId,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> EnvironmentId {
        let environment = EnvironmentId(self.next_environment);
        self.next_environment += 1;
        self.starting -= 1;
        let reserved = match self.versions.get_mut(&version) {
            Some(entry) => {
                entry.starting -= 1;
                entry.living += 1;
                entry.memory_bytes
            }
            None => 0,
        };
        self.environments.insert(environment, Slot { version, phase: Phase::Busy, reserved });
        self.offer(environment, reserved, now, actions);
        self.start_what_fits(actions);
        environment
    }

    /// A start asked for by [`Action::Start`] came to nothing. The head of the line hears of it: one refusal a failed
    /// start, so that a version that cannot start ends its line instead of trying for ever.
    pub fn start_failed(&mut self, version: VersionId, actions: &mut Vec<Action>) {
        self.starting -= 1;
        if let Some(entry) = self.versions.get_mut(&version) {
            entry.starting -= 1;
            self.reserved -= entry.memory_bytes;
            if let Some(ticket) = entry.line.pop_front() {
                self.callers -= 1;
                actions.push(Action::Refuse(ticket));
            }
        }
        self.want_starts(version);
        self.start_what_fits(actions);
        self.forget_if_done(version);
    }

    /// An invocation is over and the environment can take another; it was measured to hold `memory_bytes`.
    pub fn finished(
        &mut self,
        environment: EnvironmentId,
        memory_bytes: u64,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        self.callers -= 1;
        self.offer(environment, memory_bytes, now, actions);
        self.start_what_fits(actions);
    }

    /// An invocation is over and its environment with it (crash, time-out, out of memory).
    pub fn broke(&mut self, environment: EnvironmentId, actions: &mut Vec<Action>) {
        self.callers -= 1;
        self.remove(environment);
        self.start_what_fits(actions);
    }

    /// A caller was handed a dead environment and stands at the head of the line again.
    pub fn broke_before_use(
        &mut self,
        environment: EnvironmentId,
        actions: &mut Vec<Action>,
    ) -> (VersionId, Ticket) {
        let version = self.environments[&environment].version;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        if let Some(entry) = self.versions.get_mut(&version) {
            entry.line.push_front(ticket);
        }
        self.remove(environment);
        self.start_what_fits(actions);
        (version, ticket)
    }

    /// An environment ended by itself. True when it was idle, so that the caller should drop what it holds of it; a
    /// busy one is reported by whoever runs it.
    pub fn died(&mut self, environment: EnvironmentId, actions: &mut Vec<Action>) -> bool {
        let Some(Slot { version, phase: Phase::Idle { .. }, .. }) = self.environments.get(&environment)
        else {
            return false;
        };
        let version = *version;
        if let Some(entry) = self.versions.get_mut(&version) {
            entry.idle.retain(|idle| *idle != environment);
        }
        self.remove(environment);
        self.start_what_fits(actions);
        true
    }

    /// The version was replaced or deleted: its idle environments stop, busy ones stop when they are done, callers in
    /// line are still served.
    pub fn retire(&mut self, version: VersionId, actions: &mut Vec<Action>) {
        let Some(entry) = self.versions.get_mut(&version) else { return };
        entry.retired = true;
        for environment in std::mem::take(&mut entry.idle) {
            self.remove(environment);
            actions.push(Action::Stop(environment));
        }
        self.start_what_fits(actions);
        self.forget_if_done(version);
    }

    /// Stops what was idle too long and freezes what was idle long enough. Returns when to call again, `None` when
    /// nothing is idle.
    pub fn tick(&mut self, now: Timestamp, actions: &mut Vec<Action>) -> Option<Timestamp> {
        let mut next: Option<Timestamp> = None;
        let mut expired = vec![];
        for (id, slot) in &mut self.environments {
            let Phase::Idle { since, frozen } = &mut slot.phase else { continue };
            let expires = since.plus_millis(self.limits.idle_millis);
            if expires <= now {
                expired.push(*id);
                continue;
            }
            let freezes = since.plus_millis(self.limits.freeze_millis);
            if !*frozen && freezes <= now {
                *frozen = true;
                actions.push(Action::Freeze(*id));
            }
            let due = if *frozen { expires } else { freezes };
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        expired.sort_unstable();
        for environment in expired {
            self.evict(environment, actions);
        }
        next
    }

    /// The machine is short of memory: stops idle environments, longest idle first, until `bytes` are freed.
    pub fn relieve(&mut self, bytes: u64, actions: &mut Vec<Action>) {
        let mut freed = 0;
        while freed < bytes
            && let Some(environment) = self.longest_idle()
        {
            freed += self.environments.get(&environment).map_or(0, |slot| slot.reserved);
            self.evict(environment, actions);
        }
    }

    /// Takes nobody in any more and stops all that is idle; what runs may finish, who waits is refused.
    pub fn close(&mut self, actions: &mut Vec<Action>) {
        self.closing = true;
        self.wanting.clear();
        while let Some(environment) = self.longest_idle() {
            self.evict(environment, actions);
        }
        for entry in self.versions.values_mut() {
            entry.retired = true;
            self.callers -= entry.line.len();
            actions.extend(entry.line.drain(..).map(Action::Refuse));
        }
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

    /// Environments living and starting.
    #[must_use]
    pub fn environments(&self) -> usize {
        self.environments.len() + self.starting
    }

    /// Whether the version is still known; one that was retired is forgotten when its last environment is gone.
    #[must_use]
    pub fn knows(&self, version: VersionId) -> bool {
        self.versions.contains_key(&version)
    }

    /// What one version has at this moment.
    #[must_use]
    pub fn counts(&self, version: VersionId) -> Counts {
        let Some(entry) = self.versions.get(&version) else { return Counts::default() };
        let idle = entry.idle.len();
        Counts { busy: entry.living - idle, idle, starting: entry.starting, waiting: entry.line.len() }
    }

    fn offer(
        &mut self,
        environment: EnvironmentId,
        memory_bytes: u64,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let Some(slot) = self.environments.get_mut(&environment) else { return };
        let version = slot.version;
        let Some(entry) = self.versions.get_mut(&version) else {
            self.remove(environment);
            actions.push(Action::Stop(environment));
            return;
        };
        if let Some(ticket) = entry.line.pop_front() {
            actions.push(Action::Hand(ticket, environment));
            return;
        }
        if entry.retired {
            self.remove(environment);
            actions.push(Action::Stop(environment));
            self.forget_if_done(version);
            return;
        }
        self.reserved = self.reserved - slot.reserved + memory_bytes;
        slot.reserved = memory_bytes;
        slot.phase = Phase::Idle { since: now, frozen: false };
        entry.idle.push(environment);
    }

    fn occupy(&mut self, environment: EnvironmentId) {
        if let Some(slot) = self.environments.get_mut(&environment) {
            let full = self.versions.get(&slot.version).map_or(slot.reserved, |entry| entry.memory_bytes);
            self.reserved = self.reserved - slot.reserved + full;
            slot.reserved = full;
            slot.phase = Phase::Busy;
        }
    }

    fn want_starts(&mut self, version: VersionId) {
        let Some(entry) = self.versions.get(&version) else { return };
        let asked = self.wanting.iter().filter(|wanting| **wanting == version).count();
        for _ in entry.starting + asked..entry.line.len() {
            self.wanting.push_back(version);
        }
    }

    fn start_what_fits(&mut self, actions: &mut Vec<Action>) {
        while self.starting < self.limits.concurrent_starts {
            let Some(&version) = self.wanting.front() else { return };
            let Some(entry) = self.versions.get(&version) else {
                self.wanting.pop_front();
                continue;
            };
            if entry.starting >= entry.line.len() {
                self.wanting.pop_front();
                continue;
            }
            let needed = entry.memory_bytes;
            while self.reserved + needed > self.limits.memory_bytes {
                let Some(environment) = self.longest_idle() else { return };
                self.evict(environment, actions);
            }
            self.wanting.pop_front();
            self.reserved += needed;
            self.starting += 1;
            if let Some(entry) = self.versions.get_mut(&version) {
                entry.starting += 1;
            }
            actions.push(Action::Start(version));
        }
    }

    fn longest_idle(&self) -> Option<EnvironmentId> {
        let idle = self.environments.iter().filter_map(|(id, slot)| match slot.phase {
            Phase::Idle { since, .. } => Some((since, *id)),
            Phase::Busy => None,
        });
        idle.min().map(|(_, id)| id)
    }

    fn evict(&mut self, environment: EnvironmentId, actions: &mut Vec<Action>) {
        let Some(version) = self.environments.get(&environment).map(|slot| slot.version) else { return };
        if let Some(entry) = self.versions.get_mut(&version) {
            entry.idle.retain(|idle| *idle != environment);
        }
        self.remove(environment);
        actions.push(Action::Stop(environment));
    }

    fn remove(&mut self, environment: EnvironmentId) {
        let Some(slot) = self.environments.remove(&environment) else { return };
        self.reserved -= slot.reserved;
        if let Some(entry) = self.versions.get_mut(&slot.version) {
            entry.living -= 1;
        }
        self.want_starts(slot.version);
        self.forget_if_done(slot.version);
    }

    fn forget_if_done(&mut self, version: VersionId) {
        let done = self
            .versions
            .get(&version)
            .is_some_and(|v| v.retired && v.living == 0 && v.starting == 0 && v.line.is_empty());
        if done {
            self.versions.remove(&version);
        }
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
