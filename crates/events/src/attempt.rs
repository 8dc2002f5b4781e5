//! One turn of one event: what is read, run and told until its fate is settled.

use crate::destination::{Delivery, Destinations, Message, Undelivered};
use crate::fate::{Conclusion, Fate, Standing};
use crate::machine::Settlement;
use crate::queue::Counters;
use crate::record::{self, Payload};
use crate::{Attempt, Event, Invoker, Treatment, notice};
use martlet_model::{Timestamp, lineage};
use martlet_store::{Leased, Store, StoreError};
use std::sync::Arc;
use std::time::Duration;

/// The first wait of something that a target does not take now; it doubles up to a minute.
const DELIVERY_REST: Duration = Duration::from_secs(1);
const LONGEST_DELIVERY_REST: Duration = Duration::from_secs(60);

/// What every turn works with.
pub(crate) struct Desk<I> {
    pub(crate) store: Store,
    pub(crate) invoker: Arc<I>,
    pub(crate) destinations: Destinations,
    pub(crate) retry: Duration,
    pub(crate) clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    pub(crate) counters: Arc<Counters>,
}

/// What stands in the way of a turn.
enum Unreadable {
    /// It never will be read.
    Broken,
    /// Its end was under way when the process died.
    Done,
    /// The store fails.
    NotNow,
}

impl<I: Invoker> Desk<I> {
    /// Takes one turn of a leased event.
    pub(crate) async fn turn(&self, leased: &Leased) -> Settlement {
        let Leased { lease, note: postponed, .. } = *leased;
        let event = match self.read(leased).await {
            Ok(event) => event,
            Err(Unreadable::Done) => return Settlement::Done(lease),
            Err(Unreadable::Broken) => {
                Counters::count(&self.counters.given_up);
                return Settlement::Done(lease);
            }
            Err(Unreadable::NotNow) => return self.later(leased, (self.clock)().plus_millis(1_000)),
        };
        let Some(treatment) = self.invoker.treatment(&event) else {
            tracing::warn!(request_id = %event.request_id, function = %event.function,
                "an event's function no longer exists; the event is given up");
            Counters::count(&self.counters.given_up);
            self.counters.metrics.count(&event.function, |metrics| metrics.async_events_dropped += 1);
            return Settlement::Done(lease);
        };
        let standing = Standing {
            // A note can only count leases that were made.
            attempt: lease.attempt.saturating_sub(postponed).max(1),
            postponed,
            accepted: event.accepted,
            retry: self.retry,
        };
        let (trace_id, judged) = lineage::step(&event.trace_id, &event.function);
        let now = (self.clock)();
        let fate = match standing.before(&treatment, judged.is_err(), now) {
            Some(fate) => fate,
            None => {
                self.counters
                    .metrics
                    .count(&event.function, |metrics| metrics.async_event_age.sample(event.accepted, now));
                let event = Event { trace_id: trace_id.clone(), ..event.clone() };
                let outcome = self.invoker.invoke(Attempt { event, number: standing.attempt }).await;
                standing.after(outcome, &treatment, (self.clock)())
            }
        };
        match fate {
            Fate::Retry(at) => {
                Counters::count(&self.counters.retried);
                Settlement::Later { lease, at, note: postponed }
            }
            Fate::Postpone(at) => self.later(leased, at),
            Fate::Concluded(end) => {
                self.conclude(&event, &end, treatment, trace_id).await;
                Settlement::Done(lease)
            }
        }
    }

    /// Another turn for an event that was not tried: the note says that this one did not count.
    fn later(&self, leased: &Leased, at: Timestamp) -> Settlement {
        Counters::count(&self.counters.postponed);
        Settlement::Later { lease: leased.lease, at, note: leased.note + 1 }
    }

    async fn read(&self, leased: &Leased) -> Result<Event, Unreadable> {
        let position = leased.lease.position;
        let (mut event, payload) = record::decode(&leased.payload).map_err(|error| {
            tracing::error!(%error, position, "an accepted event cannot be read and is given up");
            Unreadable::Broken
        })?;
        event.payload = match payload {
            Payload::Here(bytes) => bytes,
            Payload::Blob(digest) => match self.store.blobs.get(&digest).await {
                Ok(Some(blob)) => blob.slice(record::blob_head(&event.request_id).len().min(blob.len())..),
                Ok(None) => {
                    tracing::info!(request_id = %event.request_id, "the event was done before the last stop");
                    return Err(Unreadable::Done);
                }
                Err(StoreError::Damaged { .. }) => {
                    tracing::error!(request_id = %event.request_id, "the event's payload is damaged; it is given up");
                    return Err(Unreadable::Broken);
                }
                Err(error) => {
                    tracing::error!(%error, request_id = %event.request_id, "the event's payload cannot be read now");
                    return Err(Unreadable::NotNow);
                }
            },
        };
        Ok(event)
    }

    /// Tells whoever is to be told of the end, and counts it.
    async fn conclude(&self, event: &Event, end: &Conclusion, treatment: Treatment, trace_id: String) {
        let at = (self.clock)();
        let source = event.qualified_arn();
        let delivery = |message| Delivery { source: source.clone(), trace_id: trace_id.clone(), at, message };
        let target = if end.is_success() { treatment.on_success } else { treatment.on_failure };
        if let Some(target) = target {
            let record = Message::Record(notice::record(event, end, at));
            if !self.deliver(&target, delivery(record)).await {
                self.counters
                    .metrics
                    .count(&event.function, |metrics| metrics.destination_delivery_failures += 1);
            }
        }
        if end.is_success() {
            Counters::count(&self.counters.succeeded);
            return;
        }
        if let Some(target) = treatment.dead_letter {
            let letter = Message::DeadLetter(notice::dead_letter(event, end));
            if !self.deliver(&target, delivery(letter)).await {
                self.counters.metrics.count(&event.function, |metrics| metrics.dead_letter_errors += 1);
            }
        }
        tracing::debug!(request_id = %event.request_id, function = %source, condition = end.condition.as_str(),
            attempts = end.invokes, "an event is given up");
        Counters::count(&self.counters.given_up);
        self.counters.metrics.count(&event.function, |metrics| {
            metrics.async_events_dropped += 1;
            metrics.recursive_invocations_dropped +=
                u64::from(end.condition == crate::Condition::RecursiveInvocation);
        });
    }

    /// Delivers, however often it takes; false when it never will be.
    async fn deliver(&self, target: &str, delivery: Delivery) -> bool {
        let mut rest = DELIVERY_REST;
        loop {
            let delivered = match self.destinations.of(target) {
                Ok(destination) => destination.deliver(target, delivery.clone()).await,
                Err(missing) => Err(missing),
            };
            match delivered {
                Ok(()) => return true,
                Err(Undelivered::Refused(reason)) => {
                    tracing::warn!(source = %delivery.source, target, reason, "what came of an event cannot be delivered");
                    return false;
                }
                Err(Undelivered::NotNow(reason)) => {
                    tracing::warn!(source = %delivery.source, target, reason, "what came of an event is delivered later");
                    tokio::time::sleep(rest).await;
                    rest = (rest * 2).min(LONGEST_DELIVERY_REST);
                }
            }
        }
    }
}
