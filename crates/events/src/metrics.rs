//! What is counted of each function's events, by the names that CloudWatch has for it.

use martlet_model::{FunctionArn, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Counts of one function since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FunctionMetrics {
    /// Events accepted.
    pub async_events_received: u64,
    /// How old events were when they were given to the function, each attempt for itself.
    pub async_event_age: Age,
    /// Events given up without a successful run.
    pub async_events_dropped: u64,
    /// Of these, those whose function had run too often in their chain of requests.
    pub recursive_invocations_dropped: u64,
    /// Dead letters that could not be delivered.
    pub dead_letter_errors: u64,
    /// Records that could not be delivered.
    pub destination_delivery_failures: u64,
}

/// Ages in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Age {
    /// How many there were.
    pub sample_count: u64,
    /// All together.
    pub sum: u64,
    /// The highest.
    pub maximum: u64,
}

#[derive(Default)]
pub(crate) struct Metrics(Mutex<BTreeMap<FunctionArn, FunctionMetrics>>);

impl Metrics {
    /// Counts something of `function`.
    pub(crate) fn count(&self, function: &FunctionArn, count: impl FnOnce(&mut FunctionMetrics)) {
        let mut functions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match functions.get_mut(function) {
            Some(metrics) => count(metrics),
            None => count(functions.entry(function.clone()).or_default()),
        }
    }

    pub(crate) fn all(&self) -> BTreeMap<FunctionArn, FunctionMetrics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Age {
    pub(crate) fn sample(&mut self, accepted: Timestamp, now: Timestamp) {
        let age = now.millis_since(accepted);
        self.sample_count += 1;
        self.sum += age;
        self.maximum = self.maximum.max(age);
    }
}
