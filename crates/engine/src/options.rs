//! What can be set about the engine.

use std::time::Duration;

/// Bounds and policy of one engine. Every field has a default, so name those that differ and take the rest from
/// [`EngineOptions::default`].
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Most callers at once, running and waiting: the account's concurrency (configuration: `account_concurrency`).
    pub concurrency: usize,
    /// Most ordinary starts and preparations of templates that are under way at once.
    pub concurrent_starts: usize,
    /// Most forks of templates that are under way at once.
    pub concurrent_forks: usize,
    /// Memory that environments and templates may hold together, in bytes: a busy or starting one counts with all that it may
    /// use, an idle one and a template with what it was measured to use. Only starts are held back by it: an idle
    /// environment may always go to work again (configuration: `memory_budget_mb`).
    pub memory_bytes: u64,
    /// How long an environment may stay idle while nothing is known about when its function is called
    /// (configuration: `idle_timeout`).
    pub idle: Duration,
    /// Whether functions are kept by their own history of calls; with `false`, each is kept for [`idle`](Self::idle)
    /// (configuration: `keep_alive = "history" | "fixed"`).
    pub adaptive_idle: bool,
    /// How long an idle environment or template keeps running before it is frozen. Short enough that background work of a finished
    /// invocation gets nowhere, long enough that a busy function is never frozen between events.
    pub freeze_after: Duration,
    /// Whether functions whose runtime allows it start by a fork of a template (configuration: `fork_start`).
    pub fork_start: bool,
    /// How many environments stand ready beyond those at work, for a function that was called recently. A burst raises it by
    /// itself where they are forked; those that are started ordinarily are made only while they are taken often enough to
    /// pay for the memory (configuration: `spares`).
    pub spares: usize,
    /// Most callers in line for one version; more are refused.
    pub longest_line: usize,
    /// A caller that is expected to stand in line for longer is refused at once; one that nevertheless does, then
    /// (configuration: `longest_wait`).
    pub longest_wait: Duration,
    /// Calls in a second of a function with a reservation, for each unit of that; 0 is no limit (configuration:
    /// `calls_per_second`).
    pub calls_per_second: u32,
    /// The same of all other functions together, for each unit of what they share (configuration:
    /// `account_calls_per_second`).
    pub account_calls_per_second: u32,
    /// Environments that one function may add in a second, on average; ten times as many at once (configuration:
    /// `function_starts_per_second`).
    pub function_starts_per_second: u32,
    /// Starts of all versions in a second, on average; as many at once (configuration: `starts_per_second`).
    pub starts_per_second: u32,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            concurrency: 1000,
            concurrent_starts: 4,
            concurrent_forks: 8,
            memory_bytes: 1 << 30,
            idle: Duration::from_secs(600),
            adaptive_idle: true,
            freeze_after: Duration::from_millis(20),
            fork_start: true,
            spares: 1,
            longest_line: 1000,
            longest_wait: Duration::from_secs(60),
            calls_per_second: 10,
            account_calls_per_second: 0,
            function_starts_per_second: 100,
            starts_per_second: 1000,
        }
    }
}
