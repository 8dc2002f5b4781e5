//! Where what came of events is told: one interface, and an implementation for each service that can be told.

use crate::notice::DeadLetter;
use bytes::Bytes;
use martlet_model::Timestamp;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

/// Something to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The qualified ARN of the function whose event it is about.
    pub source: String,
    /// The trace header that goes along, so that loops through destinations are noticed.
    pub trace_id: String,
    /// When the event's fate was decided.
    pub at: Timestamp,
    /// What is told.
    pub message: Message,
}

/// What is told, in the two shapes that Lambda has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The invocation record, a JSON document.
    Record(Bytes),
    /// The event itself, with what was wrong beside it.
    DeadLetter(DeadLetter),
}

/// Why something was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// It never will be: the target is gone, or does not take it.
    #[error("{0}")]
    Refused(String),
    /// It may be in a while.
    #[error("{0}")]
    NotNow(String),
}

/// One kind of target.
pub trait Destination: Send + Sync + 'static {
    /// Hands `delivery` to the target with the ARN `target`. When this resolves to `Ok`, it is the target's: a crash does not
    /// lose it. It may be handed over twice.
    fn deliver<'a>(
        &'a self,
        target: &'a str,
        delivery: Delivery,
    ) -> Pin<Box<dyn Future<Output = Result<(), Undelivered>> + Send + 'a>>;
}

/// The kinds of targets that this server has, by the service that ARNs name.
#[derive(Clone, Default)]
pub struct Destinations(BTreeMap<&'static str, Arc<dyn Destination>>);

impl Destinations {
    /// Adds those of one service, as in `lambda`.
    #[must_use]
    pub fn with(mut self, service: &'static str, destination: Arc<dyn Destination>) -> Self {
        self.0.insert(service, destination);
        self
    }

    pub(crate) fn of(&self, target: &str) -> Result<&Arc<dyn Destination>, Undelivered> {
        let service = target.split(':').nth(2).unwrap_or_default();
        let missing = || Undelivered::Refused(format!("this server has no targets like {target}"));
        self.0.get(service).ok_or_else(missing)
    }
}
