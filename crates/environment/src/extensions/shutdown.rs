//! The end of an environment that has extensions, as a plain state machine.
//!
//! The runtime is asked to end and has a share of the time; then the extensions that asked for it are told and have the rest;
//! whoever is left is killed.

use std::time::{Duration, Instant};

/// How long an end may take with internal extensions only, and with external ones.
const INTERNAL: Duration = Duration::from_millis(500);
const EXTERNAL: Duration = Duration::from_millis(2000);
/// The runtime's part of it, in tenths, where extensions end after it.
const RUNTIME_TENTHS: u32 = 3;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait for ends, until [`Shutdown::wake_at`] at most.
    Wait,
    /// Kill the runtime, which did not end in time or has, and tell the extensions.
    TellExtensions,
    /// Kill what is left.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Runtime,
    Extensions,
}

/// One end. It begins with asking the runtime.
#[derive(Debug)]
pub(crate) struct Shutdown {
    phase: Phase,
    external: bool,
    runtime_until: Instant,
    until: Instant,
}

impl Shutdown {
    /// An end that begins now.
    pub(crate) fn new(now: Instant, external: bool) -> Self {
        let whole = if external { EXTERNAL } else { INTERNAL };
        // Without extensions that end after it, all of the time is the runtime's.
        let runtime = if external { whole * RUNTIME_TENTHS / 10 } else { whole };
        Self { phase: Phase::Runtime, external, runtime_until: now + runtime, until: now + whole }
    }

    /// How long all of it may take.
    pub(crate) fn budget(external: bool) -> Duration {
        if external { EXTERNAL } else { INTERNAL }
    }

    /// When to call [`Shutdown::step`], if nothing ends before.
    pub(crate) fn wake_at(&self) -> Instant {
        match self.phase {
            Phase::Runtime => self.runtime_until,
            Phase::Extensions => self.until,
        }
    }

    /// What follows from who still runs: the runtime, and how many of the external extensions that may end by themselves.
    pub(crate) fn step(&mut self, now: Instant, runtime_runs: bool, extensions_left: usize) -> Step {
        if self.phase == Phase::Runtime {
            if runtime_runs && now < self.runtime_until {
                return Step::Wait;
            }
            if !self.external {
                return Step::Over;
            }
            self.phase = Phase::Extensions;
            return Step::TellExtensions;
        }
        if extensions_left > 0 && now < self.until { Step::Wait } else { Step::Over }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn the_runtime_has_three_tenths_and_the_extensions_the_rest() {
        let start = Instant::now();
        let mut end = Shutdown::new(start, true);
        assert_eq!(end.wake_at(), after(start, 600));
        assert_eq!(end.step(after(start, 599), true, 2), Step::Wait);
        assert_eq!(end.step(after(start, 600), true, 2), Step::TellExtensions);
        assert_eq!(end.wake_at(), after(start, 2000));
        assert_eq!(end.step(after(start, 1999), false, 1), Step::Wait);
        assert_eq!(end.step(after(start, 2000), false, 1), Step::Over);
    }

    #[test]
    fn nobody_waits_for_what_has_ended() {
        let start = Instant::now();
        let mut end = Shutdown::new(start, true);
        assert_eq!(end.step(after(start, 1), false, 1), Step::TellExtensions);
        assert_eq!(end.step(after(start, 2), false, 0), Step::Over);
    }

    #[test]
    fn a_runtime_with_internal_extensions_has_half_a_second() {
        let start = Instant::now();
        let mut end = Shutdown::new(start, false);
        assert_eq!(end.step(after(start, 499), true, 0), Step::Wait);
        assert_eq!(end.step(after(start, 500), true, 0), Step::Over);
        assert_eq!(Shutdown::new(start, false).step(start, false, 0), Step::Over);
    }
}
