//! Work that is accepted now and done later. So far: asynchronous invocations (`InvocationType` `Event`).
//!
//! [`AsyncInvocations::accept`] answers once the event is on stable storage; from then on it runs at least once,
//! whatever happens to this process. A dispatcher leases events from the log in batches (the attempt is counted
//! durably before it is made), gives them to an [`Invoker`], and acknowledges those whose fate is decided.
//!
//! An event whose function fails is tried again after 1 and 2 minutes, as often as its [`Treatment`] says. One that found no
//! capacity waits 1 s, then 2 s, 4 s, up to 5 minutes, and that is no attempt; others overtake it. What comes of an event, good
//! or bad, is told to the [`Destination`]s that its function names; an event that is given up goes to its dead-letter target
//! as well. Only then is it acknowledged: a crash before that tells it twice.

mod attempt;
mod destination;
mod dispatcher;
mod fate;
mod machine;
mod metrics;
mod notice;
mod queue;
mod record;
#[cfg(test)]
mod tests;

pub use destination::{Delivery, Destination, Destinations, Message, Undelivered};
pub use fate::Condition;
pub use metrics::{Age, FunctionMetrics};
pub use notice::DeadLetter;
pub use queue::{AcceptError, AsyncInvocations, EventsOptions, Stats};

use bytes::Bytes;
use martlet_model::{FunctionArn, Qualifier, RequestId, Timestamp, Version};
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
    /// The X-Ray trace header as the event brought it, empty when there is none. The function sees it with one more step of its
    /// lineage.
    pub trace_id: String,
    /// The tenant that it is for, if the function tells them apart.
    pub tenant: Option<std::sync::Arc<str>>,
    /// When the request came in.
    pub accepted: Timestamp,
}

impl Event {
    /// The qualifier that settings are looked up by.
    #[must_use]
    pub fn target(&self) -> Option<Qualifier> {
        self.qualifier.as_deref().and_then(|qualifier| Qualifier::parse(qualifier).ok())
    }

    /// The function's ARN as records name it: qualified, whether or not the caller did.
    #[must_use]
    pub fn qualified_arn(&self) -> String {
        self.function.qualified(&self.target().unwrap_or(Qualifier::Latest))
    }
}

/// An accepted event whose turn has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The event.
    pub event: Event,
    /// Which attempt this is, counted from 1. One that found no capacity does not count, one that the end of the process cut
    /// off does.
    pub number: u32,
}

/// How the owner of a function wants its events to be treated, at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Treatment {
    /// Further attempts after a function error.
    pub retries: u32,
    /// How old an event may become before it is given up.
    pub age: Duration,
    /// Where records of events that ran well go: an ARN.
    pub on_success: Option<String>,
    /// Where records of events that were given up go: an ARN.
    pub on_failure: Option<String>,
    /// Where events that were given up go themselves: an ARN.
    pub dead_letter: Option<String>,
    /// The function's reserved concurrency is 0: its events are given up at once.
    pub turned_off: bool,
    /// The function may lead to itself without end.
    pub recursion_allowed: bool,
}

impl Default for Treatment {
    /// Lambda's defaults: two retries, six hours.
    fn default() -> Self {
        Self {
            retries: 2,
            age: Duration::from_secs(6 * 60 * 60),
            on_success: None,
            on_failure: None,
            dead_letter: None,
            turned_off: false,
            recursion_allowed: false,
        }
    }
}

/// What came of an [`Attempt`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The function ran, and returned or failed.
    Completed(Answer),
    /// There was no capacity for it.
    Throttled,
    /// The platform could not run it now.
    Unavailable,
    /// The function or the version no longer exists.
    FunctionGone,
}

/// What a function made of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The version that ran: not always the one that the event was accepted for, since its alias may have moved.
    pub version: Version,
    /// What it returned, or the document that describes its failure.
    pub payload: Bytes,
    /// The kind of the failure as the API spells it; `None` when it did not fail.
    pub function_error: Option<String>,
}

/// What runs events: the engine, behind the few words that this crate needs.
pub trait Invoker: Send + Sync + 'static {
    /// How the event is to be treated; `None` when its function no longer exists.
    fn treatment(&self, event: &Event) -> Option<Treatment>;

    /// Runs one attempt to its end. Called concurrently, at most [`EventsOptions::concurrency`] at once. The future
    /// is dropped when the server stops before it is done; the event then runs again after the next start.
    fn invoke(&self, attempt: Attempt) -> impl Future<Output = Outcome> + Send;
}
