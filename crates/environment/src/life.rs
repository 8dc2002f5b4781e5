//! The life of one environment, as a plain state machine: phases, deadlines and what is billed. It does no I/O and has no
//! clock; whoever drives it says what happened and when, and carries out what it returns.
//!
//! ```text
//!            ready                     begin                answer
//! Starting ---------> Idle ------------------> Running -------------------> Idle
//!    |  failed                                    ^  |  crash, deadline
//!    v        begin            ready              |  v
//! Broken ------------> Restarting ----------------+  Over
//!                          |  failed, deadline       ^
//!                          +-------------------------+
//! ```
//! An environment whose init phase failed is Broken: its process is gone, and the init phase runs again inside its
//! first invocation ("suppressed init"), under the function's own timeout, and is billed with it.
//!
//! A template's life ends where an environment's begins, unless its process turns out not to be one that can be forked;
//! a forked environment has its template's init phase behind it already:
//! ```text
//!              parked                               ready
//! Preparing ----+-----> Parked          Restoring ----+----> Idle
//!               | unforkable                          | failed
//!               +-----> Idle                          +----> Broken
//!               | failed
//!               +-----> Broken
//! ```

use crate::extensions::Failed;
use crate::outcome::{Exit, Failure};
use crate::stream::Part;
use bytes::Bytes;
use martlet_model::limits::INIT_MILLIS;
use std::time::{Duration, Instant};

/// How long a forked process may take until it is ready, its after-restore hooks included.
const RESTORE_MILLIS: u64 = 10_000;

/// What happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// The runtime has loaded the function and waits for events.
    Ready,
    /// The runtime has loaded the function and waits to be forked.
    Parked,
    /// The runtime was to become a template, has loaded the function, cannot be forked, and waits for events.
    Unforkable(String),
    /// The runtime says that it could not.
    InitError(Failure),
    /// The handler's result.
    Response(Bytes),
    /// The handler's failure; `fatal` when the process ends with it.
    Error { failure: Failure, fatal: bool },
    /// The process ended.
    Exited(Exit),
    /// A part of a response that the handler makes piece by piece. Whoever drives the machine deals with these, and tells
    /// it [`Input::Response`] at their end.
    Stream(Part),
    /// The process was gone before the event reached it.
    Lost,
    /// The runtime spoke out of turn or not the protocol: nothing that it says counts any more.
    Violation,
    /// There is nothing to start: the package lacks a usable entry point.
    NoEntrypoint(String),
    /// An extension failed, and everything with it.
    Extension(Failed),
}

/// What is to be done about it.
#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    /// Nothing.
    Wait,
    /// The init phase is over and went well.
    Initialized,
    /// The init phase of what was to become a template is over, and it is an environment, for this reason.
    Unforkable(String),
    /// The init phase of a template is over and went well.
    Parked { took: Duration },
    /// The init phase is over and failed: report it and end the process.
    InitFailed { took: Duration, why: InitFailure },
    /// Start a process in place of the one that failed.
    Restart,
    /// Give the event to the runtime.
    Deliver,
    /// Answer the caller.
    Finish(Finish),
    /// Give the event back.
    Undelivered,
}

/// Why an init phase failed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum InitFailure {
    TimedOut,
    Failed(Failure),
    Exited(Exit),
    NoEntrypoint(String),
    Extension(Failed),
}

/// The end of an invocation.
#[derive(Debug, PartialEq)]
pub(crate) struct Finish {
    pub(crate) verdict: Verdict,
    /// From the hand-over to the answer; with a suppressed init in it, if there was one.
    pub(crate) duration: Duration,
    /// The init phase before the environment's first event, if it went well; it is billed with this invocation.
    pub(crate) init: Option<Duration>,
    pub(crate) billed_ms: u64,
    /// The suppressed init of this invocation, if it failed: how long it took.
    pub(crate) failed_init: Option<Duration>,
    pub(crate) reusable: bool,
}

/// How an invocation ended.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Response(Bytes),
    Error(Failure),
    Exited(Exit),
    TimedOut,
    NoEntrypoint(String),
    Extension(Failed),
}

/// The machine. See the picture above.
#[derive(Debug)]
pub(crate) struct Life {
    phase: Phase,
    timeout: Duration,
    init_within: Duration,
    /// A successful init phase that no invocation has been billed for.
    init: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Starting { since: Instant },
    Preparing { since: Instant },
    Parked,
    Restoring { since: Instant },
    Broken,
    Idle,
    Restarting { begun: Instant, since: Instant },
    Running { begun: Instant },
    Over,
}

impl Life {
    fn begun(phase: Phase, timeout: Duration, init: Option<Duration>) -> Self {
        Self { phase, timeout, init_within: Duration::from_millis(INIT_MILLIS), init }
    }

    /// An environment whose process starts now; `timeout` is the function's.
    pub(crate) fn new(now: Instant, timeout: Duration) -> Self {
        Self::begun(Phase::Starting { since: now }, timeout, None)
    }

    /// A process that is to become a template.
    pub(crate) fn template(now: Instant, timeout: Duration) -> Self {
        Self::begun(Phase::Preparing { since: now }, timeout, None)
    }

    /// An environment that is forked now. `init` is the template's init phase, if this environment is the one that is
    /// billed for it.
    pub(crate) fn forked(now: Instant, timeout: Duration, init: Option<Duration>) -> Self {
        Self::begun(Phase::Restoring { since: now }, timeout, init)
    }

    /// The same with another limit of the first init phase.
    pub(crate) fn init_within(self, limit: Duration) -> Self {
        Self { init_within: limit, ..self }
    }

    /// Whether its init phase is over and went well.
    pub(crate) fn is_initialized(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Running { .. })
    }

    /// When [`Life::expire`] wants to be called, if nothing else happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Starting { since } | Phase::Preparing { since } => Some(since + self.init_within),
            Phase::Restoring { since } => Some(since + Duration::from_millis(RESTORE_MILLIS)),
            Phase::Restarting { begun, .. } | Phase::Running { begun } => Some(begun + self.timeout),
            Phase::Parked | Phase::Broken | Phase::Idle | Phase::Over => None,
        }
    }

    /// True while an invocation is under way.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Restarting { .. } | Phase::Running { .. })
    }

    /// The process that the phase began with runs now: an init phase is measured from here. Making the sandbox is no part
    /// of it, and is not billed.
    pub(crate) fn launched(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Starting { since }
            | Phase::Preparing { since }
            | Phase::Restoring { since }
            | Phase::Restarting { since, .. } => *since = now,
            Phase::Parked | Phase::Broken | Phase::Idle | Phase::Running { .. } | Phase::Over => {}
        }
    }

    /// The platform cannot go on with it.
    pub(crate) fn give_up(&mut self) {
        self.phase = Phase::Over;
    }

    /// An event is handed over. Ignored while another one is under way.
    pub(crate) fn begin(&mut self, now: Instant) -> Output {
        match self.phase {
            Phase::Idle => {
                self.phase = Phase::Running { begun: now };
                Output::Deliver
            }
            Phase::Broken => {
                self.phase = Phase::Restarting { begun: now, since: now };
                Output::Restart
            }
            Phase::Over | Phase::Parked => Output::Undelivered,
            Phase::Starting { .. }
            | Phase::Preparing { .. }
            | Phase::Restoring { .. }
            | Phase::Restarting { .. }
            | Phase::Running { .. } => Output::Wait,
        }
    }

    /// The deadline has come.
    pub(crate) fn expire(&mut self, now: Instant) -> Output {
        match self.phase {
            Phase::Starting { since } | Phase::Preparing { since } | Phase::Restoring { since } => {
                self.init_failed(now - since, InitFailure::TimedOut)
            }
            Phase::Restarting { begun, since } => {
                let failed_init = Some(now - since);
                // What is shown and billed is the timeout, not when the timer got to it.
                self.finish(begun, begun + self.timeout, Verdict::TimedOut, failed_init, false)
            }
            Phase::Running { begun } => {
                self.finish(begun, begun + self.timeout, Verdict::TimedOut, None, false)
            }
            Phase::Parked | Phase::Broken | Phase::Idle | Phase::Over => Output::Wait,
        }
    }

    /// Something happened.
    pub(crate) fn input(&mut self, now: Instant, input: Input) -> Output {
        match self.phase {
            Phase::Starting { since } | Phase::Restoring { since } => self.starting(now, since, input),
            Phase::Preparing { since } => self.preparing(now, since, input),
            Phase::Restarting { begun, since } => self.restarting(now, begun, since, input),
            Phase::Running { begun } => self.running(now, begun, input),
            Phase::Idle => {
                // Between two events a runtime has nothing to say; one that says something is not to be trusted with
                // the next event.
                if !matches!(input, Input::Ready) {
                    self.phase = Phase::Over;
                }
                Output::Wait
            }
            Phase::Parked | Phase::Broken | Phase::Over => Output::Wait,
        }
    }

    fn starting(&mut self, now: Instant, since: Instant, input: Input) -> Output {
        let took = now - since;
        match init_input(input) {
            None => {
                self.phase = Phase::Idle;
                self.init = Some(self.init.unwrap_or_default() + took);
                Output::Initialized
            }
            Some(why) => self.init_failed(took, why),
        }
    }

    fn preparing(&mut self, now: Instant, since: Instant, input: Input) -> Output {
        match input {
            Input::Parked => {
                self.phase = Phase::Parked;
                Output::Parked { took: now - since }
            }
            Input::Unforkable(why) => {
                self.phase = Phase::Idle;
                self.init = Some(now - since);
                Output::Unforkable(why)
            }
            other => self.starting(now, since, other),
        }
    }

    fn init_failed(&mut self, took: Duration, why: InitFailure) -> Output {
        self.phase = Phase::Broken;
        Output::InitFailed { took, why }
    }

    fn restarting(&mut self, now: Instant, begun: Instant, since: Instant, input: Input) -> Output {
        let verdict = match init_input(input) {
            None => {
                self.phase = Phase::Running { begun };
                return Output::Deliver;
            }
            Some(InitFailure::TimedOut) => Verdict::TimedOut,
            Some(InitFailure::Failed(failure)) => Verdict::Error(failure),
            Some(InitFailure::Exited(exit)) => Verdict::Exited(exit),
            Some(InitFailure::NoEntrypoint(reason)) => Verdict::NoEntrypoint(reason),
            Some(InitFailure::Extension(failed)) => Verdict::Extension(failed),
        };
        self.finish(begun, now, verdict, Some(now - since), false)
    }

    fn running(&mut self, now: Instant, begun: Instant, input: Input) -> Output {
        let (verdict, reusable) = match input {
            Input::Response(payload) => (Verdict::Response(payload), true),
            Input::Error { failure, fatal } => (Verdict::Error(failure), !fatal),
            Input::Exited(exit) => (Verdict::Exited(exit), false),
            Input::Extension(failed) => (Verdict::Extension(failed), false),
            Input::Lost => {
                self.phase = Phase::Over;
                return Output::Undelivered;
            }
            Input::Ready
            | Input::Parked
            | Input::Unforkable(_)
            | Input::InitError(_)
            | Input::Stream(_)
            | Input::Violation
            | Input::NoEntrypoint(_) => (Verdict::Exited(Exit::KILLED), false),
        };
        self.finish(begun, now, verdict, None, reusable)
    }

    fn finish(
        &mut self,
        begun: Instant,
        now: Instant,
        verdict: Verdict,
        failed_init: Option<Duration>,
        reusable: bool,
    ) -> Output {
        self.phase = if reusable { Phase::Idle } else { Phase::Over };
        let duration = now - begun;
        let init = self.init.take();
        let billed_ms = (duration + init.unwrap_or_default()).as_nanos().div_ceil(1_000_000).max(1);
        Output::Finish(Finish {
            verdict,
            duration,
            init,
            billed_ms: u64::try_from(billed_ms).unwrap_or(u64::MAX),
            failed_init,
            reusable,
        })
    }
}

/// What an input means for an init phase that is under way: `None` when it has succeeded.
fn init_input(input: Input) -> Option<InitFailure> {
    match input {
        Input::Ready => None,
        Input::InitError(failure) | Input::Error { failure, .. } => Some(InitFailure::Failed(failure)),
        Input::Exited(exit) => Some(InitFailure::Exited(exit)),
        Input::NoEntrypoint(reason) => Some(InitFailure::NoEntrypoint(reason)),
        Input::Extension(failed) => Some(InitFailure::Extension(failed)),
        Input::Response(_)
        | Input::Stream(_)
        | Input::Lost
        | Input::Violation
        | Input::Parked
        | Input::Unforkable(_) => Some(InitFailure::Exited(Exit::KILLED)),
    }
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
