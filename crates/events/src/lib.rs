//! Work that is accepted now and done later. So far: asynchronous invocations (`InvocationType` `Event`).
//!
//! [`AsyncInvocations::accept`] answers once the event is on stable storage; from then on it runs at least once,
//! whatever happens to this process. A dispatcher leases events from the log in batches (the attempt is counted
//! durably before it is made), gives them to an [`Invoker`], and acknowledges those that ran. Events that found no
//! capacity wait 1 s, then 2 s, 4 s, up to 5 minutes, for as long as it takes; others overtake them.
//!
//! Not built yet: retries after a function error, a maximum age, destinations and dead-letter queues. One completed
//! run, successful or not, ends an event.

mod dispatcher;
mod machine;
mod record;
#[cfg(test)]
mod tests;

pub use dispatcher::{AcceptError, AsyncInvocations, EventsOptions, Stats};

use bytes::Bytes;
use martlet_model::{FunctionArn, RequestId, Timestamp, Version};
use std::time::Duration;

/// An event to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The id that the caller got; the same on every attempt.
    pub request_id: RequestId,
    /// The function.
    pub function: FunctionArn,
    /// The qualifier as the caller gave it, `None` when there was none.
    pub qualifier: Option<String>,
    /// The version that the qualifier meant when the event was accepted. For [`Version::Latest`] the code and the
    /// settings are those of the time of the run.
    pub version: Version,
    /// The event's JSON text. Its size is checked by who accepts it.
    pub payload: Bytes,
    /// The X-Ray trace header, empty when there is none.
    pub trace_id: String,
    /// When the request came in.
    pub accepted: Timestamp,
}

/// An accepted event whose turn has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The event.
    pub event: Event,
    /// How often it was handed out, this time included: 1 at first. Attempts that found no capacity count.
    pub number: u32,
}

/// What came of an [`Attempt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The function ran, and returned or failed: the event is done.
    Completed,
    /// There was no capacity for it: try again, after this time at the earliest.
    Throttled {
        /// What the throttling side asks for.
        retry_after: Option<Duration>,
    },
    /// The platform could not run it now: try again.
    Unavailable,
    /// The function or the version no longer exists: the event is given up.
    FunctionGone,
}

/// What runs events: the engine, behind the few words that this crate needs.
pub trait Invoker: Send + Sync + 'static {
    /// Runs one attempt to its end. Called concurrently, at most [`EventsOptions::concurrency`] at once. The future
    /// is dropped when the server stops before it is done; the event then runs again after the next start.
    fn invoke(&self, attempt: Attempt) -> impl Future<Output = Outcome> + Send;
}
