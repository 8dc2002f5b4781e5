//! The handle of the queue: what accepts events, starts and stops their dispatcher, and tells numbers.

use crate::destination::Destinations;
use crate::dispatcher::Dispatcher;
use crate::metrics::{FunctionMetrics, Metrics};
use crate::record::{self, INLINE_BYTES, Payload};
use crate::{Event, Invoker};
use bytes::BytesMut;
use martlet_model::{FunctionArn, Timestamp};
use martlet_store::{Store, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The topic of all asynchronous invocations.
pub(crate) const TOPIC: &str = "events/async";

/// How events are dispatched.
#[derive(Clone)]
pub struct EventsOptions {
    /// Most events that run at once. Default 100.
    pub concurrency: usize,
    /// How long an event waits after its first failure; twice as long after the second. Default one minute, as Lambda has it.
    pub retry: Duration,
    /// Tells the time; a parameter so that tests can make it.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl EventsOptions {
    /// The defaults, with this clock.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Fn() -> Timestamp + Send + Sync>) -> Self {
        Self { concurrency: 100, retry: Duration::from_secs(60), clock }
    }
}

/// Why an event was not accepted.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the event could not be made durable")]
pub struct AcceptError(#[from] StoreError);

/// Numbers for health, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events accepted.
    pub accepted: u64,
    /// Events that ran well.
    pub succeeded: u64,
    /// Attempts that failed and are tried again.
    pub retried: u64,
    /// Turns that found no capacity or no platform.
    pub postponed: u64,
    /// Events given up, for whatever reason.
    pub given_up: u64,
    /// Events that run now.
    pub running: usize,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) succeeded: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) postponed: AtomicU64,
    pub(crate) given_up: AtomicU64,
    pub(crate) running: AtomicUsize,
    pub(crate) metrics: Metrics,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The handle of the queue of asynchronous invocations. Cheap to clone. The dispatcher goes on when the last handle
/// is gone; [`AsyncInvocations::drain`] or the end of the runtime stops it.
#[derive(Clone)]
pub struct AsyncInvocations {
    store: Store,
    appended: Arc<Notify>,
    counters: Arc<Counters>,
    draining: Arc<watch::Sender<bool>>,
    /// Whether a dispatcher is at work.
    working: Arc<watch::Sender<bool>>,
}

impl AsyncInvocations {
    /// The queue, which accepts events from now on and has nobody yet who runs them.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            appended: Arc::default(),
            counters: Arc::default(),
            draining: Arc::new(watch::Sender::new(false)),
            working: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Starts the dispatcher as a task of the current tokio runtime: once. It begins with what an earlier run left.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn dispatch<I: Invoker>(&self, invoker: Arc<I>, destinations: Destinations, options: EventsOptions) {
        self.working.send_replace(true);
        let dispatcher =
            Dispatcher::new(self.store.clone(), invoker, destinations, options, Arc::clone(&self.counters));
        let (appended, drain) = (Arc::clone(&self.appended), self.draining.subscribe());
        let working = Arc::clone(&self.working);
        tokio::spawn(async move {
            dispatcher.run(&appended, drain).await;
            working.send_replace(false);
        });
    }

    /// Takes responsibility for `event`: when this resolves to `Ok` it is on stable storage and will run at least
    /// once. Works while draining, too; the event then runs after the next start.
    ///
    /// # Errors
    /// [`AcceptError`] when it could not be stored; it will not run then.
    pub async fn accept(&self, event: Event) -> Result<(), AcceptError> {
        let payload = if event.payload.len() <= INLINE_BYTES {
            Payload::Here(event.payload.clone())
        } else {
            let head = record::blob_head(&event.request_id);
            let mut blob = BytesMut::with_capacity(head.len() + event.payload.len());
            blob.extend_from_slice(head.as_bytes());
            blob.extend_from_slice(&event.payload);
            Payload::Blob(self.store.blobs.put(blob.freeze()).await?)
        };
        let record = record::encode(&event, &payload);
        if let Err(error) = self.store.log.append(TOPIC, &[record]).await {
            if let Payload::Blob(digest) = payload {
                // Best effort: nothing names it, so what is left costs room only.
                self.store.blobs.delete(&digest).await.ok();
            }
            return Err(error.into());
        }
        Counters::count(&self.counters.accepted);
        self.counters.metrics.count(&event.function, |metrics| metrics.async_events_received += 1);
        self.appended.notify_one();
        Ok(())
    }

    /// Begins no more events and resolves when those that run are done and settled, or after `patience`. What the end
    /// of the process cuts off then runs again after the next start.
    pub async fn drain(&self, patience: Duration) {
        self.draining.send_replace(true);
        let mut working = self.working.subscribe();
        // The sender lives in this very handle.
        tokio::time::timeout(patience, working.wait_for(|working| !*working)).await.ok();
    }

    /// How many events are accepted and not done.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn backlog(&self) -> Result<u64, StoreError> {
        Ok(self.store.log.state(TOPIC).await?.records)
    }

    /// Numbers for health.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            accepted: count(&self.counters.accepted),
            succeeded: count(&self.counters.succeeded),
            retried: count(&self.counters.retried),
            postponed: count(&self.counters.postponed),
            given_up: count(&self.counters.given_up),
            running: self.counters.running.load(Ordering::Relaxed),
        }
    }

    /// Counts of each function whose events were seen since the start.
    #[must_use]
    pub fn metrics(&self) -> BTreeMap<FunctionArn, FunctionMetrics> {
        self.counters.metrics.all()
    }
}
