//! A day of many functions, played through the scheduler with a simulated clock.
//!
//! The trace is made up, with the shape that "Serverless in the Wild" (Shahrad et al., USENIX ATC 2020) publishes of the
//! functions of Azure: how many calls a day (nearly half one an hour or less, a fifth more than one a minute), execution times
//! log-normal (mu -0.38, sigma 2.36, in seconds), memory a Burr distribution (c 11.652, k 0.221, lambda 107.083 MB). A fifth is
//! called by timers, a fifth by chance, the rest in rows of calls with silences of a heavy tail between them; more by day than
//! by night. Not published, and chosen: most rows are somebody who calls again when the answer is there, and the few
//! hottest are cut off at one call in four seconds (never cold, they would only make every rate look better).
//!
//! Also chosen, because nothing is published about how calls of one function overlap: no function keeps more than a tenth of one
//! environment busy on average. This and the rows one after another favour a policy that learns from the times between calls;
//! a trace whose calls overlapped more left it at about two thirds of the cold starts instead of half.
//!
//! Two days are played and the second one counts, so that every policy knows what it would know. The seed is given:
//! every run is the same.

mod trace;
mod world;

pub(crate) use trace::Trace;
pub(crate) use world::{Figures, Starts, play};

use martlet_engine::EngineOptions;
use std::time::Duration;

/// A machine that is large enough for all, so that only the policy decides what is kept.
pub(crate) fn plenty() -> EngineOptions {
    EngineOptions {
        concurrency: usize::MAX,
        longest_line: usize::MAX,
        memory_bytes: 1 << 50,
        concurrent_starts: 10_000,
        concurrent_forks: 10_000,
        starts_per_second: 1_000_000,
        idle: Duration::from_secs(600),
        fork_start: false,
        ..EngineOptions::default()
    }
}

/// What a fork takes and what it shares, roughly as measured with Python.
pub(crate) const STARTS: Starts = Starts { fork_micros: 2_000, template_share: 0.9, forked_share: 0.1 };
