//! What the platform tells subscribers of the life of an environment.

use super::Desk;
use super::telemetry::Category;
use crate::life::Input;
use crate::log::{Record, Report, Status, iso};
use martlet_model::Timestamp;
use martlet_telemetry::Clock;
use serde_json::{Map, Value, json};
use std::fmt;
use std::time::{Duration, Instant};

/// The start of an environment.
pub(crate) struct Start {
    pub(crate) clock: Clock,
    /// `init`, or `invoke` where it starts again inside an invocation.
    pub(crate) phase: &'static str,
    pub(crate) runtime_version: String,
    pub(crate) function: String,
    pub(crate) version: String,
    pub(crate) begun: Instant,
}

/// Tells what happens, in the order in which it does.
pub(crate) struct News {
    desk: Desk,
    start: Option<Start>,
    invocation: Option<Running>,
}

struct Running {
    request_id: String,
    tracing: Option<Value>,
    begun: Instant,
    begun_at: Timestamp,
    done: bool,
}

impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("News").finish_non_exhaustive()
    }
}

impl News {
    pub(super) fn new(desk: Desk) -> Self {
        Self { desk, start: None, invocation: None }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.start.as_ref().map_or(Timestamp(0), |start| (start.clock)())
    }

    /// The processes are there.
    pub(crate) fn begin(&mut self, start: Start) {
        let record = json!({
            "initializationType": "on-demand",
            "phase": start.phase,
            "runtimeVersion": start.runtime_version,
            "functionName": start.function,
            "functionVersion": start.version,
        });
        self.start = Some(start);
        self.tell(None, Some(("initStart", record)));
    }

    pub(super) fn runtime_ready(&mut self) {
        let phase = self.phase();
        let record = json!({ "initializationType": "on-demand", "phase": phase, "status": "success" });
        self.tell(None, Some(("initRuntimeDone", record)));
    }

    /// The init phase is over, and with it the time to subscribe.
    pub(super) fn initialized(&mut self) {
        let took = self.start.as_ref().map(|start| start.begun.elapsed()).unwrap_or_default();
        let record = json!({
            "initializationType": "on-demand",
            "phase": self.phase(),
            "status": "success",
            "metrics": { "durationMs": millis(took) },
        });
        self.tell(None, Some(("initReport", record)));
        let standings = self.desk.lock().registry.standings();
        for standing in standings {
            let record = serde_json::to_value(&standing).unwrap_or_default();
            self.tell_both("extension", record);
        }
        self.desk.lock().telemetry.close();
    }

    /// The runtime is given an event.
    pub(super) fn started(&mut self, request_id: &str, trace: &str) {
        let tracing = (!trace.is_empty()).then(|| json!({ "type": "X-Amzn-Trace-Id", "value": trace }));
        let version = self.start.as_ref().map(|start| start.version.clone()).unwrap_or_default();
        let logs = json!({ "requestId": request_id, "version": version });
        let mut telemetry = logs.clone();
        if let Some(tracing) = &tracing {
            telemetry["tracing"] = tracing.clone();
        }
        self.invocation = Some(Running {
            request_id: request_id.to_owned(),
            tracing,
            begun: Instant::now(),
            begun_at: self.now(),
            done: false,
        });
        self.tell(Some(("start", logs)), Some(("start", telemetry)));
    }

    /// The runtime has answered in this way.
    pub(super) fn runtime_done(&mut self, input: &Input) {
        match input {
            Input::Response(payload) => self.done("success", None, payload.len()),
            Input::Error { failure, .. } => {
                self.done("error", Some(&failure.error_type), failure.document.len());
            }
            _ => self.done("success", None, 0),
        }
    }

    fn done(&mut self, status: &str, error_type: Option<&str>, bytes: usize) {
        let Some(running) = self.invocation.as_mut().filter(|running| !running.done) else { return };
        running.done = true;
        let took = millis(running.begun.elapsed());
        let logs = json!({ "requestId": running.request_id, "status": status });
        let mut telemetry = json!({
            "requestId": running.request_id,
            "status": status,
            "metrics": { "durationMs": took, "producedBytes": bytes },
            "spans": [
                { "name": "responseLatency", "start": iso(running.begun_at), "durationMs": took },
                { "name": "responseDuration", "start": iso(running.begun_at), "durationMs": 0.0 },
                { "name": "runtimeOverhead", "start": iso(running.begun_at), "durationMs": 0.0 },
            ],
        });
        if let Some(error_type) = error_type {
            telemetry["errorType"] = error_type.into();
        }
        if let Some(tracing) = &running.tracing {
            telemetry["tracing"] = tracing.clone();
        }
        self.tell(Some(("runtimeDone", logs)), Some(("runtimeDone", telemetry)));
    }

    /// The invocation is over, with these figures.
    pub(crate) fn report(&mut self, report: &Report<'_>) {
        let (status, error_type) = match report.status {
            Status::Success => ("success", None),
            Status::Failure(error_type) => ("error", Some(error_type)),
            Status::Error(error_type) => ("failure", Some(error_type)),
            Status::Timeout => ("timeout", None),
        };
        self.done(status, error_type, 0);
        let mut metrics = Map::new();
        metrics.insert("durationMs".to_owned(), millis(report.duration).into());
        metrics.insert("billedDurationMs".to_owned(), report.billed_ms.into());
        metrics.insert("memorySizeMB".to_owned(), report.memory_mb.into());
        metrics.insert("maxMemoryUsedMB".to_owned(), report.max_memory_mb.into());
        if let Some(init) = report.init {
            metrics.insert("initDurationMs".to_owned(), millis(init).into());
        }
        let logs = json!({ "requestId": report.request_id, "metrics": metrics });
        let mut telemetry = json!({ "requestId": report.request_id, "status": status, "metrics": metrics });
        if let Some(error_type) = error_type {
            telemetry["errorType"] = error_type.into();
        }
        if let Some(tracing) = self.invocation.take().and_then(|running| running.tracing) {
            telemetry["tracing"] = tracing;
        }
        self.tell(Some(("end", json!({ "requestId": report.request_id }))), None);
        self.tell(Some(("report", logs)), Some(("report", telemetry)));
    }

    pub(super) fn printed(&mut self, category: Category, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        let (now, instant) = (self.now(), Instant::now());
        let mut desk = self.desk.lock();
        for record in records {
            let written = record.written.map_or(now, Timestamp).min(now);
            desk.telemetry.printed(category, written, &record.text, instant);
        }
    }

    fn phase(&self) -> &'static str {
        self.start.as_ref().map_or("init", |start| start.phase)
    }

    fn tell_both(&self, name: &str, record: Value) {
        self.tell(Some((name, record.clone())), Some((name, record)));
    }

    fn tell(&self, logs: Option<(&str, Value)>, telemetry: Option<(&str, Value)>) {
        let mut desk = self.desk.lock();
        if desk.telemetry.is_wanted() {
            desk.telemetry.platform((self.now(), Instant::now()), logs, telemetry);
        }
    }
}

/// Milliseconds with three decimals.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1000.0
}
