//! The promises of telemetry, on real files.

mod queue;
mod reads;
mod retention;

use crate::*;
use martlet_model::{AccountId, FunctionArn, FunctionName, Region, RequestId, Version};
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

/// A telemetry over a temporary directory, with a clock that the test moves.
struct Bench {
    directory: TempDir,
    now: Arc<AtomicU64>,
    telemetry: Telemetry,
}

const GROUP: &str = "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/hello";

impl Bench {
    fn new() -> Self {
        Self::with(|options| options)
    }

    fn with(change: impl FnOnce(TelemetryOptions) -> TelemetryOptions) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let now = Arc::new(AtomicU64::new(1_000_000));
        let clock: Clock = {
            let now = now.clone();
            Arc::new(move || Timestamp(now.load(Ordering::Relaxed)))
        };
        let options = change(TelemetryOptions { clock, ..TelemetryOptions::default() });
        let telemetry = Telemetry::open(directory.path(), options).expect("open");
        Self { directory, now, telemetry }
    }

    /// Logs one event a `(timestamp, message)`.
    fn log(&self, stream: &str, events: &[(u64, &str)]) {
        self.log_to(GROUP, stream, events);
    }

    fn log_to(&self, group: &str, stream: &str, events: &[(u64, &str)]) {
        let events = events.iter().map(|(at, message)| LogEvent {
            timestamp: Timestamp(*at),
            message: (*message).to_owned(),
            request_id: None,
        });
        self.telemetry.log(&group.into(), &stream.into(), events.collect());
    }

    async fn page(&self, stream: &str, from: PageStart, limit: usize) -> EventPage {
        let query = EventQuery {
            group: GROUP.to_owned(),
            stream: stream.to_owned(),
            start: None,
            end: None,
            from,
            limit,
        };
        self.telemetry.events(query).await.expect("events")
    }

    async fn filter(&self, change: impl FnOnce(&mut FilterQuery)) -> FilterPage {
        let mut query = FilterQuery {
            group: GROUP.to_owned(),
            streams: Vec::new(),
            stream_prefix: String::new(),
            start: None,
            end: None,
            pattern: Pattern::default(),
            request_id: None,
            from: PageStart::Head,
            limit: 10_000,
        };
        change(&mut query);
        self.telemetry.filter(query).await.expect("filter")
    }

    async fn stream_infos(&self) -> Vec<StreamInfo> {
        let query = StreamQuery {
            group: GROUP.to_owned(),
            prefix: String::new(),
            order: StreamOrder::Name,
            descending: false,
            after: None,
            limit: 50,
        };
        self.telemetry.streams(query).await.expect("streams")
    }
}

fn messages(events: &[StoredEvent]) -> Vec<&str> {
    events.iter().map(|event| event.message.as_str()).collect()
}

fn record(number: u8) -> MeteringRecord {
    MeteringRecord {
        function: FunctionArn {
            region: Region::new("us-east-1").expect("a region"),
            account: AccountId::new("000000000000").expect("an account"),
            name: FunctionName::new(format!("f{}", number % 2)).expect("a name"),
        },
        version: if number == 0 { Version::Latest } else { Version::Published(u64::from(number)) },
        request_id: RequestId::from_random([number; 16]),
        attempt: 1,
        trigger: if number == 1 { martlet_model::Trigger::Event } else { martlet_model::Trigger::Request },
        architecture: "x86_64".into(),
        memory_mb: 128,
        environment: "2026/11/23/[$LATEST]abc".into(),
        started: Timestamp(1_000 * u64::from(number)),
        cold_start: number == 0,
        init_micros: 80_000,
        duration_micros: 1_234,
        billed_millis: 2,
        cpu_micros: 999,
        max_memory_bytes: 40 << 20,
        bytes_in: 2,
        bytes_out: 20_000_000_000,
        status: Status::OutOfMemory,
    }
}
