//! The numbers and words in which a scheduler is spoken with.

use crate::Start;

pub(super) const SECOND: u64 = 1_000_000;
pub(super) const MINUTE: u64 = 60 * SECOND;

/// The scheduler's time: microseconds since its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment `micros` microseconds after this one.
    #[must_use]
    pub fn plus(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to this one; 0 when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One function, in the scheduler's own numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId(pub u64);

/// One version of one function, in the scheduler's own numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId(pub u64);

/// One execution environment, in the scheduler's own numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvironmentId(pub u64);

impl EnvironmentId {
    /// A small number that no other living environment has: the place of this one in a table.
    #[must_use]
    pub fn place(self) -> usize {
        self.0 as u32 as usize
    }
}

/// One template, in the scheduler's own numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemplateId(pub u64);

/// One start under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StartId(pub u64);

/// One caller in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What becomes of a caller that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Run on this environment, now; and which start that is.
    Run(EnvironmentId, Start),
    /// Stand in line; an [`Action::Hand`] or [`Action::Refuse`] with this ticket follows.
    Wait(Ticket),
    /// A limit is in the way, for so many microseconds at least.
    Throttled(Limit, u64),
    /// The line is too long to end in time.
    Overloaded,
    /// The version may use more memory than the whole budget, so no start can ever have room.
    TooLarge,
    /// The engine is draining.
    Closing,
}

/// Which limit refuses a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Limit {
    /// All that functions without a reservation share is in use.
    #[error("all concurrency of the account that is not reserved is in use")]
    Concurrency,
    /// These functions are called more often than their share of the account may be.
    #[error("the account's functions are called too often")]
    Rate,
    /// All that is reserved for the function is in use; 0 turns it off.
    #[error("all concurrency that is reserved for the function is in use")]
    Reserved,
    /// The function is called more often than its reservation may be.
    #[error("the function is called more often than its reserved concurrency allows")]
    ReservedRate,
    /// The function grows faster than a function may.
    #[error("the function asks for more environments in a short time than one function may have")]
    Growth,
}

/// Why a caller in line is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A start of its version failed.
    StartFailed,
    /// It has waited for as long as anybody may.
    Overloaded,
    /// The engine is draining.
    Closing,
}

/// What the caller of the scheduler has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give the environment to the caller in line, which has this start. A caller that is gone counts as one that has
    /// [`finished`](super::Scheduler::finished).
    Hand(Ticket, EnvironmentId, Start),
    /// Send the caller in line away.
    Refuse(Ticket, Refusal),
    /// Run a version's init phase in a new environment; report by [`started`](super::Scheduler::started) or
    /// [`start_failed`](super::Scheduler::start_failed).
    Start(StartId, VersionId),
    /// Run a version's init phase and make a template of it; report by [`prepared`](super::Scheduler::prepared),
    /// [`prepared_environment`](super::Scheduler::prepared_environment) or `start_failed`.
    Prepare(StartId, VersionId),
    /// Fork an environment from a template; report by `started`, `start_failed` or
    /// [`template_gone`](super::Scheduler::template_gone).
    Fork(StartId, VersionId, TemplateId),
    /// Stop an idle environment; the scheduler has forgotten it.
    Stop(EnvironmentId),
    /// Freeze an idle environment.
    Freeze(EnvironmentId),
    /// Stop a template; the scheduler has forgotten it. What was forked from it lives on.
    DropTemplate(TemplateId),
    /// Freeze a template; the next fork thaws it.
    FreezeTemplate(TemplateId),
    /// Keep so many shells ready for a template.
    SetStock(TemplateId, usize),
    /// Nothing of the version is left, its number means nothing any more.
    Forget(VersionId),
}

/// The ways in which an environment or a template comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Fork,
    Ordinary,
    Prepare,
}

/// Counts of one version, for people to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Environments that run an invocation.
    pub busy: usize,
    /// Environments that wait for one.
    pub idle: usize,
    /// Starts under way, that of a template included.
    pub starting: usize,
    /// Callers in line.
    pub waiting: usize,
    /// Templates that forks can be made of: one or none.
    pub templates: usize,
}
