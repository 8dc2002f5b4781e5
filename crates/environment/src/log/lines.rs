//! The platform's own log lines, as text and as JSON records.

use crate::InitType;
use crate::extensions::{Api, Standing, Subscription};
use martlet_model::Timestamp;
use martlet_model::function::{LogFormat, Logging};
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;

/// How an invocation ended, as its report tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status<'a> {
    /// The handler returned.
    Success,
    /// The handler failed and its runtime lives on; the error's type.
    Failure(&'a str),
    /// The runtime or the environment broke; the error's type.
    Error(&'a str),
    /// The deadline passed.
    Timeout,
}

/// When an init phase ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InitPhase {
    /// Before the first event.
    Init,
    /// Again, inside an invocation, because it had failed the first time.
    Invoke,
}

/// How an init phase failed. One that succeeds is not reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InitStatus<'a> {
    /// It took too long.
    Timeout,
    /// It failed with this error type.
    Error(&'a str),
}

/// The figures of one invocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) duration: Duration,
    pub(crate) billed_ms: u64,
    pub(crate) memory_mb: u32,
    pub(crate) max_memory_mb: u64,
    /// Set on the first invocation of an environment whose init phase succeeded.
    pub(crate) init: Option<Duration>,
    pub(crate) status: Status<'a>,
}

/// Writes the platform's lines in the format that a function asked for, without a final newline. An empty result means
/// that the function's system log level leaves the line out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    json: bool,
    level: Level,
    init: InitType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Debug,
    Info,
    Warn,
}

impl Lines {
    pub(crate) fn new(logging: &Logging, init: InitType) -> Self {
        let level = match logging.system_level.as_deref() {
            Some("DEBUG") => Level::Debug,
            Some("WARN") => Level::Warn,
            _ => Level::Info,
        };
        Self { json: logging.format == LogFormat::Json, level, init }
    }

    /// The first line of an environment.
    pub(crate) fn init_start(self, now: Timestamp, runtime: &str, function: &str, version: &str) -> String {
        if !self.json {
            return format!("INIT_START Runtime Version: {runtime}");
        }
        self.record(
            Level::Info,
            now,
            "platform.initStart",
            &InitStartRecord {
                initialization_type: self.init.as_str(),
                phase: "init",
                runtime_version: runtime,
                function_name: function,
                function_version: version,
            },
        )
    }

    /// Says that the function's environments have init phases of their own, and why. Lambda has no such line.
    pub(crate) fn ordinary_start(self, now: Timestamp, reason: &str) -> String {
        if !self.json {
            return format!("START_MODE Ordinary, not by fork: {reason}");
        }
        self.record(Level::Warn, now, "martlet.startMode", &StartModeRecord { mode: "ordinary", reason })
    }

    /// How an extension stands when the init phase is over.
    pub(crate) fn extension(self, now: Timestamp, standing: &Standing) -> String {
        let Standing { name, state, events, error_type } = standing;
        if !self.json {
            let events: Vec<_> = events.iter().map(|event| event.name()).collect();
            let mut line = format!("EXTENSION\tName: {name}\tState: {state}\tEvents: [{}]", events.join(","));
            if let Some(error_type) = error_type {
                let _ = write!(line, "\tError Type: {error_type}");
            }
            return line;
        }
        self.record(Level::Info, now, "platform.extension", standing)
    }

    /// An extension that subscribed to telemetry.
    pub(crate) fn subscription(self, now: Timestamp, subscription: &Subscription) -> String {
        let Subscription { name, api, types } = subscription;
        let (word, kind) = match api {
            Api::Logs => ("LOGS", "platform.logsSubscription"),
            Api::Telemetry => ("TELEMETRY", "platform.telemetrySubscription"),
        };
        if !self.json {
            let capital = |kind: &&str| format!("{}{}", kind[..1].to_ascii_uppercase(), &kind[1..]);
            let types: Vec<_> = types.iter().map(capital).collect();
            return format!("{word}\tName: {name}\tState: Subscribed\tTypes: [{}]", types.join(", "));
        }
        self.record(Level::Info, now, kind, &SubscriptionRecord { name, state: "Subscribed", types })
    }

    /// A failed init phase.
    pub(crate) fn init_report(
        self,
        now: Timestamp,
        took: Duration,
        phase: InitPhase,
        status: InitStatus<'_>,
    ) -> String {
        let phase = match phase {
            InitPhase::Init => "init",
            InitPhase::Invoke => "invoke",
        };
        let (word, error_type) = match status {
            InitStatus::Timeout => ("timeout", None),
            InitStatus::Error(error_type) => ("error", Some(error_type)),
        };
        if !self.json {
            let mut line =
                format!("INIT_REPORT Init Duration: {:.2} ms\tPhase: {phase}\tStatus: {word}", millis(took));
            if let Some(error_type) = error_type {
                let _ = write!(line, "\tError Type: {error_type}");
            }
            return line;
        }
        self.record(
            Level::Warn,
            now,
            "platform.initReport",
            &InitReportRecord {
                initialization_type: self.init.as_str(),
                phase,
                status: word,
                error_type,
                metrics: InitMetrics { duration_ms: rounded(took) },
            },
        )
    }

    /// The line before the handler's first.
    pub(crate) fn start(self, now: Timestamp, request_id: &str, version: &str) -> String {
        if !self.json {
            return format!("START RequestId: {request_id} Version: {version}");
        }
        self.record(Level::Info, now, "platform.start", &StartRecord { request_id, version })
    }

    /// The line after the handler's last, and the figures.
    pub(crate) fn end(self, now: Timestamp, report: &Report<'_>) -> [String; 2] {
        if self.json { self.end_json(now, report) } else { end_text(report) }
    }

    fn end_json(self, now: Timestamp, report: &Report<'_>) -> [String; 2] {
        let (status, error_type) = match report.status {
            Status::Success => ("success", None),
            Status::Failure(error_type) | Status::Error(error_type) => ("error", Some(error_type)),
            Status::Timeout => ("timeout", None),
        };
        let failed = report.status != Status::Success;
        let done = self.record(
            if failed { Level::Warn } else { Level::Debug },
            now,
            "platform.runtimeDone",
            &DoneRecord { request_id: report.request_id, status, error_type },
        );
        let figures = self.record(
            if failed { Level::Warn } else { Level::Info },
            now,
            "platform.report",
            &ReportRecord {
                request_id: report.request_id,
                metrics: ReportMetrics {
                    duration_ms: rounded(report.duration),
                    billed_duration_ms: report.billed_ms,
                    memory_size_mb: report.memory_mb,
                    max_memory_used_mb: report.max_memory_mb,
                    init_duration_ms: report.init.map(rounded),
                },
                status,
                error_type,
            },
        );
        [done, figures]
    }

    fn record(self, level: Level, now: Timestamp, kind: &str, record: &impl Serialize) -> String {
        if level < self.level {
            return String::new();
        }
        // Strings and finite numbers always serialize.
        serde_json::to_string(&Envelope { time: &iso(now), kind, record }).unwrap_or_default()
    }
}

fn end_text(report: &Report<'_>) -> [String; 2] {
    let mut line = String::with_capacity(192);
    let _ = write!(
        line,
        "REPORT RequestId: {}\tDuration: {:.2} ms\tBilled Duration: {} ms\tMemory Size: {} MB\tMax Memory Used: {} MB\t",
        report.request_id,
        millis(report.duration),
        report.billed_ms,
        report.memory_mb,
        report.max_memory_mb,
    );
    if let Some(init) = report.init {
        let _ = write!(line, "Init Duration: {:.2} ms\t", millis(init));
    }
    match report.status {
        Status::Success | Status::Failure(_) => {}
        Status::Error(error_type) => {
            let _ = write!(line, "Status: error\tError Type: {error_type}");
        }
        Status::Timeout => line.push_str("Status: timeout"),
    }
    [format!("END RequestId: {}", report.request_id), line]
}

/// `2026-01-01T00:00:00.123Z`
pub(crate) fn iso(at: Timestamp) -> String {
    formatted(at, "%Y-%m-%dT%H:%M:%S%.3fZ")
}

/// `2026/01/01`
pub(crate) fn day(at: Timestamp) -> String {
    formatted(at, "%Y/%m/%d")
}

fn formatted(at: Timestamp, format: &str) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX).strftime(format).to_string()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Milliseconds with three decimals, as AWS's JSON records have them.
fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1000.0
}

#[derive(Serialize)]
struct Envelope<'a, R> {
    time: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    record: &'a R,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InitStartRecord<'a> {
    initialization_type: &'a str,
    phase: &'a str,
    runtime_version: &'a str,
    function_name: &'a str,
    function_version: &'a str,
}

#[derive(Serialize)]
struct SubscriptionRecord<'a> {
    name: &'a str,
    state: &'a str,
    types: &'a [&'static str],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartModeRecord<'a> {
    mode: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InitReportRecord<'a> {
    initialization_type: &'a str,
    phase: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'a str>,
    metrics: InitMetrics,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InitMetrics {
    duration_ms: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartRecord<'a> {
    request_id: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DoneRecord<'a> {
    request_id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportRecord<'a> {
    request_id: &'a str,
    metrics: ReportMetrics,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportMetrics {
    duration_ms: f64,
    billed_duration_ms: u64,
    #[serde(rename = "memorySizeMB")]
    memory_size_mb: u32,
    #[serde(rename = "maxMemoryUsedMB")]
    max_memory_used_mb: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    init_duration_ms: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_767_225_600_123);

    fn lines(format: LogFormat, level: Option<&str>) -> Lines {
        let logging = Logging { format, system_level: level.map(str::to_owned), ..Logging::default() };
        Lines::new(&logging, InitType::OnDemand)
    }

    fn report(status: Status<'_>, init: Option<Duration>) -> Report<'_> {
        Report {
            request_id: "r-1",
            duration: Duration::from_micros(12_345),
            billed_ms: 13,
            memory_mb: 128,
            max_memory_mb: 70,
            init,
            status,
        }
    }

    #[test]
    fn text_lines_read_as_lambda_prints_them() {
        let text = lines(LogFormat::Text, Some("WARN"));
        assert_eq!(text.start(NOW, "r-1", "$LATEST"), "START RequestId: r-1 Version: $LATEST");
        let [end, plain] = text.end(NOW, &report(Status::Success, None));
        assert_eq!(end, "END RequestId: r-1");
        assert_eq!(
            plain,
            "REPORT RequestId: r-1\tDuration: 12.35 ms\tBilled Duration: 13 ms\tMemory Size: 128 MB\tMax Memory Used: 70 MB\t"
        );
        let [_, cold] =
            text.end(NOW, &report(Status::Failure("ValueError"), Some(Duration::from_millis(200))));
        assert!(cold.ends_with("Max Memory Used: 70 MB\tInit Duration: 200.00 ms\t"), "{cold}");
        let [_, broken] = text.end(NOW, &report(Status::Error("Runtime.OutOfMemory"), None));
        assert!(broken.ends_with("70 MB\tStatus: error\tError Type: Runtime.OutOfMemory"), "{broken}");
        let [_, late] = text.end(NOW, &report(Status::Timeout, None));
        assert!(late.ends_with("70 MB\tStatus: timeout"), "{late}");
        assert_eq!(
            text.init_report(NOW, Duration::from_millis(10_000), InitPhase::Init, InitStatus::Timeout),
            "INIT_REPORT Init Duration: 10000.00 ms\tPhase: init\tStatus: timeout"
        );
        assert_eq!(
            text.init_report(
                NOW,
                Duration::from_micros(5_360),
                InitPhase::Invoke,
                InitStatus::Error("Runtime.ExitError")
            ),
            "INIT_REPORT Init Duration: 5.36 ms\tPhase: invoke\tStatus: error\tError Type: Runtime.ExitError"
        );
    }

    #[test]
    fn json_records_name_the_same_facts() {
        let json = lines(LogFormat::Json, None);
        assert_eq!(
            json.start(NOW, "r-1", "7"),
            "{\"time\":\"2026-01-01T00:00:00.123Z\",\"type\":\"platform.start\",\"record\":{\"requestId\":\"r-1\",\"version\":\"7\"}}"
        );
        let [done, figures] = json.end(NOW, &report(Status::Success, Some(Duration::from_millis(3))));
        assert_eq!(done, "", "a successful runtimeDone is a debug record");
        assert_eq!(
            figures,
            concat!(
                "{\"time\":\"2026-01-01T00:00:00.123Z\",\"type\":\"platform.report\",\"record\":{\"requestId\":\"r-1\",\"metrics\":",
                "{\"durationMs\":12.345,\"billedDurationMs\":13,\"memorySizeMB\":128,\"maxMemoryUsedMB\":70,\"initDurationMs\":3.0},",
                "\"status\":\"success\"}}"
            )
        );
        let [done, figures] = json.end(NOW, &report(Status::Error("Runtime.ExitError"), None));
        for line in [done, figures] {
            assert!(line.contains("\"status\":\"error\",\"errorType\":\"Runtime.ExitError\""), "{line}");
        }
    }

    #[test]
    fn an_ordinary_start_is_explained() {
        let text = lines(LogFormat::Text, None).ordinary_start(NOW, "a thread is alive");
        assert_eq!(text, "START_MODE Ordinary, not by fork: a thread is alive");
        let json = lines(LogFormat::Json, Some("WARN")).ordinary_start(NOW, "x");
        assert!(
            json.ends_with(r#""type":"martlet.startMode","record":{"mode":"ordinary","reason":"x"}}"#),
            "{json}"
        );
    }

    #[test]
    fn the_system_level_leaves_lines_out() {
        let warn = lines(LogFormat::Json, Some("WARN"));
        assert_eq!(warn.start(NOW, "r", "1"), "");
        assert_eq!(warn.init_start(NOW, "python:3.12.1", "f", "1"), "");
        assert_eq!(warn.end(NOW, &report(Status::Success, None)), ["", ""]);
        assert!(warn.end(NOW, &report(Status::Timeout, None))[1].contains("\"status\":\"timeout\""));
        let debug = lines(LogFormat::Json, Some("DEBUG"));
        assert!(debug.end(NOW, &report(Status::Success, None))[0].contains("platform.runtimeDone"));
    }

    #[test]
    fn times_print_in_utc() {
        assert_eq!(iso(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(day(NOW), "2026/01/01");
        assert!(!iso(Timestamp(u64::MAX)).is_empty());
    }
}
