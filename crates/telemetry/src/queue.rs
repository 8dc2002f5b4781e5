//! What waits to be written: bounded by bytes, never blocking who adds to it.

use crate::TelemetryError;
use crate::record::{LogEvent, MeteringRecord};
use martlet_model::Timestamp;
use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Batches of this size are written without waiting for the next commit's time.
const EAGER_BYTES: usize = 1024 * 1024;
/// What a metering record is counted as.
const METER_BYTES: usize = 512;
/// What an event is counted as beside its message; CloudWatch Logs counts the same.
pub(crate) const EVENT_OVERHEAD: usize = 26;

/// Something to be written.
#[derive(Debug)]
pub(crate) enum Item {
    Logs { group: Arc<str>, stream: Arc<str>, ingested: Timestamp, events: Vec<LogEvent> },
    Meter(Box<MeteringRecord>),
}

/// Something that a caller waits for.
#[derive(Debug)]
pub(crate) enum Request {
    /// Everything added so far can be read.
    Visible,
    /// Everything added so far survives a loss of power.
    Durable,
    /// Everything past its retention is gone.
    Sweep,
    /// The group's retention is this many days; `None`: the default.
    Retain { group: Arc<str>, days: Option<u32> },
}

/// A [`Request`] with the one who waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) request: Request,
    pub(crate) done: oneshot::Sender<Result<(), TelemetryError>>,
}

/// What the writer takes in one go.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) items: Vec<Item>,
    pub(crate) waiters: Vec<Waiter>,
    /// How many events of which group and stream found no room.
    pub(crate) dropped: HashMap<(Arc<str>, Arc<str>), u64>,
    /// Nobody will add anything after this batch.
    pub(crate) last: bool,
}

/// Numbers for health and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Log events that found no room since the start.
    pub dropped_events: u64,
    /// Metering records that found no room since the start.
    pub dropped_records: u64,
    /// Bytes that wait to be written now.
    pub queued_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    batch: Batch,
    /// Bytes added and not yet written, those that the writer has in its hands included.
    bytes: usize,
    stats: Stats,
    writing: bool,
}

/// Shared between the callers and the writer thread.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    limit: usize,
}

impl Queue {
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), limit }
    }

    /// The lock is held for moments only: to push, to swap, to count.
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds events, or counts them as dropped when there is no room for all of them.
    pub(crate) fn log(
        &self,
        group: &Arc<str>,
        stream: &Arc<str>,
        ingested: Timestamp,
        events: Vec<LogEvent>,
    ) {
        let bytes = events.iter().map(|event| event.message.len() + EVENT_OVERHEAD).sum::<usize>();
        let mut state = self.locked();
        if self.limit < state.bytes + bytes {
            let count = events.len() as u64;
            *state.batch.dropped.entry((group.clone(), stream.clone())).or_default() += count;
            state.stats.dropped_events += count;
            return;
        }
        let item = Item::Logs { group: group.clone(), stream: stream.clone(), ingested, events };
        self.add(&mut state, item, bytes);
    }

    /// Adds a metering record. Logs never take the last quarter of the room from the records that bills are made of.
    pub(crate) fn meter(&self, record: MeteringRecord) {
        let mut state = self.locked();
        if self.limit + self.limit / 3 < state.bytes + METER_BYTES {
            state.stats.dropped_records += 1;
            return;
        }
        self.add(&mut state, Item::Meter(Box::new(record)), METER_BYTES);
    }

    fn add(&self, state: &mut State, item: Item, bytes: usize) {
        let before = state.bytes;
        state.bytes += bytes;
        state.batch.items.push(item);
        // The writer sleeps without a limit only while there is nothing; later it wakes by itself.
        if state.batch.items.len() == 1 || (before < EAGER_BYTES && EAGER_BYTES <= state.bytes) {
            self.filled.notify_one();
        }
    }

    /// Puts a request after everything added so far. `None`: it is met already.
    pub(crate) fn request(&self, request: Request) -> Option<oneshot::Receiver<Result<(), TelemetryError>>> {
        let mut state = self.locked();
        let idle = state.batch.items.is_empty() && state.batch.dropped.is_empty() && !state.writing;
        if idle && matches!(request, Request::Visible) {
            return None;
        }
        let (done, receiver) = oneshot::channel();
        state.batch.waiters.push(Waiter { request, done });
        self.filled.notify_one();
        Some(receiver)
    }

    pub(crate) fn close(&self) {
        self.locked().batch.last = true;
        self.filled.notify_one();
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.locked();
        Stats { queued_bytes: state.bytes, ..state.stats }
    }

    /// Waits for something to do, gathers more of it for `gather`, and takes all. Somebody who waits, a big batch and
    /// the end are not made to wait for `gather`. After `patience` without anything it takes an empty batch.
    pub(crate) fn take(&self, gather: Duration, patience: Duration) -> Batch {
        let wait = |state, time, goes_on: fn(&mut State) -> bool| {
            let waited = self.filled.wait_timeout_while(state, time, goes_on);
            waited.unwrap_or_else(PoisonError::into_inner).0
        };
        let state = wait(self.locked(), patience, |state| {
            state.batch.items.is_empty()
                && state.batch.waiters.is_empty()
                && state.batch.dropped.is_empty()
                && !state.batch.last
        });
        let mut state = wait(state, gather, |state| {
            !state.batch.items.is_empty()
                && state.batch.waiters.is_empty()
                && !state.batch.last
                && state.bytes < EAGER_BYTES
        });
        let last = state.batch.last;
        state.writing = true;
        mem::replace(&mut state.batch, Batch { last, ..Batch::default() })
    }

    /// Waits for `time`, or for the end; answers whether the queue is closed.
    pub(crate) fn rest(&self, time: Duration) -> bool {
        let waited = self.filled.wait_timeout_while(self.locked(), time, |state| !state.batch.last);
        waited.unwrap_or_else(PoisonError::into_inner).0.batch.last
    }

    /// The items taken are written, or given up.
    pub(crate) fn written(&self, items: &[Item]) {
        let bytes: usize = items.iter().map(Item::bytes).sum();
        let mut state = self.locked();
        state.bytes -= bytes;
        state.writing = false;
    }
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Logs { events, .. } => {
                events.iter().map(|event| event.message.len() + EVENT_OVERHEAD).sum()
            }
            Self::Meter(_) => METER_BYTES,
        }
    }
}
