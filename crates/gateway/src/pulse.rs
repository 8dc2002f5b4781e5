//! One connection's clock: what the client is being waited for, and since when.
//!
//! hyper can time heads by itself, but allots a timer for every request and does not tell an idle connection from
//! a slow head. Here the transport and the service leave notes, and the connection's single timer reads them.

use crate::options::GatewayOptions;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use tokio::time::{Duration, Instant};

/// Notes of one connection. Only its own task reads and writes them; atomics merely let the task move.
pub(crate) struct Pulse {
    opened: Instant,
    phase: AtomicU8,
    /// Milliseconds from `opened` to the start of the phase.
    since: AtomicU64,
    /// The same for a write that waits for the client; 0 when none does.
    stalled: AtomicU64,
    unread: AtomicBool,
}

const FRESH: u8 = 0;
const IDLE: u8 = 1;
const HEAD: u8 = 2;
const BUSY: u8 = 3;

/// Why a connection ends before its client closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// No request came.
    Idle,
    /// A head was begun and not finished.
    Head,
    /// An answer was not read.
    Write,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            opened: now,
            phase: AtomicU8::new(FRESH),
            since: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            unread: AtomicBool::new(false),
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.opened).as_millis()).unwrap_or(u64::MAX)
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Relaxed);
        self.since.store(self.millis(Instant::now()), Relaxed);
    }

    /// Bytes came in.
    pub(crate) fn received(&self) {
        if matches!(self.phase.load(Relaxed), FRESH | IDLE) {
            self.enter(HEAD);
        }
    }

    /// A head is whole.
    pub(crate) fn request(&self) {
        self.phase.store(BUSY, Relaxed);
    }

    /// A request is answered; `unread` when some of its body never was.
    pub(crate) fn answered(&self, unread: bool) {
        if unread {
            self.unread.store(true, Relaxed);
        }
        self.enter(IDLE);
    }

    /// A write could not go on (`true`) or went on.
    pub(crate) fn write_waits(&self, waits: bool) {
        if !waits {
            if self.stalled.load(Relaxed) != 0 {
                self.stalled.store(0, Relaxed);
            }
        } else if self.stalled.load(Relaxed) == 0 {
            self.stalled.store(self.millis(Instant::now()).max(1), Relaxed);
        }
    }

    /// Whether bytes of the client may lie unread when the connection ends: closing at once would then reset it,
    /// and the client could lose the answer.
    pub(crate) fn has_unread(&self) -> bool {
        self.unread.load(Relaxed) || self.phase.load(Relaxed) == HEAD
    }

    /// What has taken too long, or when to look again. A phase that begins right after this look cannot end before
    /// the shortest time-out has passed, so looking that seldom still finds each one in time.
    pub(crate) fn check(&self, options: &GatewayOptions, now: Instant) -> Result<Instant, Expired> {
        let at = |millis: u64| self.opened + Duration::from_millis(millis);
        let since = at(self.since.load(Relaxed));
        let limits = [options.header_timeout, options.keep_alive_timeout, options.write_timeout];
        let mut next = now + limits.into_iter().min().unwrap_or(options.header_timeout);
        let stalled = self.stalled.load(Relaxed);
        let phase = self.phase.load(Relaxed);
        let waits = [
            (stalled != 0).then(|| (at(stalled) + options.write_timeout, Expired::Write)),
            (phase == FRESH).then(|| (since + options.header_timeout, Expired::Idle)),
            (phase == HEAD).then(|| (since + options.header_timeout, Expired::Head)),
            (phase == IDLE).then(|| (since + options.keep_alive_timeout, Expired::Idle)),
        ];
        for (deadline, expired) in waits.into_iter().flatten() {
            if deadline <= now {
                return Err(expired);
            }
            next = next.min(deadline);
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> GatewayOptions {
        GatewayOptions {
            header_timeout: Duration::from_secs(2),
            keep_alive_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(5),
            ..GatewayOptions::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_limit() {
        let (options, opened) = (options(), Instant::now());
        let pulse = Pulse::new(opened);
        let check = |pulse: &Pulse| pulse.check(&options, Instant::now());
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));

        assert_eq!(check(&pulse), Ok(opened + options.header_timeout));
        pass(1).await;
        pulse.received();
        pass(1).await;
        assert!(check(&pulse).is_ok(), "the head began a second ago");
        pulse.request();
        pass(100).await;
        assert!(check(&pulse).is_ok(), "a handler may take as long as it likes");
        pulse.answered(false);
        pass(9).await;
        assert_eq!(check(&pulse), Ok(Instant::now() + Duration::from_secs(1)));
        assert!(!pulse.has_unread());
        pass(1).await;
        assert_eq!(check(&pulse), Err(Expired::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_heads_and_unread_answers_expire() {
        let options = options();
        let pulse = Pulse::new(Instant::now());
        pulse.received();
        tokio::time::advance(options.header_timeout).await;
        assert_eq!(pulse.check(&options, Instant::now()), Err(Expired::Head));
        assert!(pulse.has_unread());

        pulse.request();
        pulse.write_waits(true);
        tokio::time::advance(options.write_timeout / 2).await;
        pulse.write_waits(false);
        pulse.write_waits(true);
        tokio::time::advance(options.write_timeout / 2).await;
        assert!(pulse.check(&options, Instant::now()).is_ok(), "it had moved in between");
        tokio::time::advance(options.write_timeout / 2).await;
        assert_eq!(pulse.check(&options, Instant::now()), Err(Expired::Write));
    }
}
