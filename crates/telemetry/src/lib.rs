//! What functions print and what they use: log events by group and stream, and one metering record an invocation, in
//! a SQLite file of their own (`telemetry.db`).
//!
//! **Writing never waits.** [`Telemetry::log`] and [`Telemetry::meter`] put their argument into a queue in memory and
//! return; one thread writes what has gathered, one transaction every [`TelemetryOptions::commit_every`] at most.
//! The queue is bounded by bytes. When it is full, the newest events are dropped, counted ([`Stats`]), and a line in
//! their stream says how many; metering records still find room then.
//!
//! **What is durable.** A commit survives the end of this process, also by `kill -9`; so such an end loses at most what
//! was logged in the last `commit_every`. A loss of power may lose more: everything since the last checkpoint, which
//! is some megabytes, but the file stays sound. [`Telemetry::flush`] makes everything logged before durable.
//!
//! **Reading sees what was logged before**: every read first has the writer commit what is queued.

mod error;
mod id;
mod pattern;
mod queue;
mod read;
mod record;
mod retention;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

pub use error::TelemetryError;
pub use pattern::{Pattern, PatternError};
pub use queue::Stats;
pub use read::{
    Cursor, CursorError, EventPage, EventQuery, FilterPage, FilterQuery, GroupInfo, GroupQuery, MeteringPage,
    MeteringQuery, PageStart, StoredEvent, StreamInfo, StreamOrder, StreamQuery,
};
pub use record::{LogEvent, MeteringRecord, Status, log_group_arn};

use martlet_model::Timestamp;
use martlet_sqlite::Readers;
use queue::{Queue, Request};
use retention::Retention;
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use writer::{Names, Writer};

/// Connections for reads that are kept while they idle, and what each may cache. People read logs, now and then.
const READERS_KEPT: usize = 1;
const READER_CACHE_KIB: u32 = 512;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The clock of this machine.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    })
}

/// How telemetry is kept.
#[derive(Clone)]
pub struct TelemetryOptions {
    /// How many days the events of groups without a setting of their own are kept; 0 is for ever. Default 30.
    pub retention_days: u32,
    /// How many days metering records are kept; 0 is for ever. Default 400, so that a year can be compared with the
    /// one before.
    pub metering_days: u32,
    /// Most bytes of events that wait to be written. Default 16 MiB.
    pub queue_bytes: usize,
    /// Shortest time between two commits that nobody waits for. Default 200 ms.
    pub commit_every: Duration,
    /// Where ingestion times and the time to let go of old events come from.
    pub clock: Clock,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self {
            retention_days: 30,
            metering_days: 400,
            queue_bytes: 16 * 1024 * 1024,
            commit_every: Duration::from_millis(200),
            clock: system_clock(),
        }
    }
}

/// The handle. Cheap to clone; when the last clone is dropped, what is queued is written durably and the thread ends.
#[derive(Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    clock: Clock,
    retention_days: u32,
    thread: Option<thread::JoinHandle<()>>,
}

impl Telemetry {
    /// Opens `telemetry.db` in `dir`, making both when they are not there, and starts the writer thread. Blocks for a
    /// few file operations; needs no runtime. Reads and [`Telemetry::flush`] must be polled inside a tokio runtime.
    ///
    /// # Errors
    /// [`TelemetryError::Engine`], and [`TelemetryError::Newer`] for data of a newer format.
    pub fn open(dir: &Path, options: TelemetryOptions) -> Result<Self, TelemetryError> {
        let failed =
            |step| move |source: std::io::Error| TelemetryError::Engine { step, source: Arc::new(source) };
        std::fs::create_dir_all(dir).map_err(failed("create the data directory"))?;
        let path = dir.join("telemetry.db");
        let connection = schema::open(&path)?;
        let queue = Arc::new(Queue::new(options.queue_bytes));
        let writer = Writer {
            connection,
            queue: queue.clone(),
            clock: options.clock.clone(),
            commit_every: options.commit_every,
            retention: Retention { log_days: options.retention_days, metering_days: options.metering_days },
            names: Names::default(),
            unsynced: false,
        };
        let thread = thread::Builder::new()
            .name("telemetry".to_owned())
            .stack_size(512 * 1024)
            .spawn(move || writer.run())
            .map_err(failed("start the telemetry thread"))?;
        let readers = Arc::new(Readers::new(&path, READERS_KEPT, READER_CACHE_KIB));
        let TelemetryOptions { clock, retention_days, .. } = options;
        let inner = Inner { queue, readers, clock, retention_days, thread: Some(thread) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Adds events to a stream; group and stream come into being with their first event. `group` is what
    /// [`log_group_arn`] makes.
    ///
    /// Never blocks: the cost is one short lock. Events of one stream keep their order among equal timestamps. When
    /// the queue is full the events are dropped and counted.
    pub fn log(&self, group: &Arc<str>, stream: &Arc<str>, events: Vec<LogEvent>) {
        if !events.is_empty() {
            self.inner.queue.log(group, stream, (self.inner.clock)(), events);
        }
    }

    /// Adds the metering record of one invocation; never blocks.
    pub fn meter(&self, record: MeteringRecord) {
        self.inner.queue.meter(record);
    }

    /// Resolves when everything added before is on stable storage.
    ///
    /// # Errors
    /// [`TelemetryError::Engine`] when it could not be written now; it stays queued and is tried again.
    pub async fn flush(&self) -> Result<(), TelemetryError> {
        self.request(Request::Durable).await
    }

    /// Removes everything that is past its retention now. Happens by itself at the start and every hour.
    ///
    /// # Errors
    /// [`TelemetryError::Engine`].
    pub async fn sweep(&self) -> Result<(), TelemetryError> {
        self.request(Request::Sweep).await
    }

    /// Sets how many days the events of `group` are kept; 0 is for ever, `None` the default.
    ///
    /// # Errors
    /// [`TelemetryError::NoSuchGroup`], [`TelemetryError::Engine`].
    pub async fn retain(&self, group: &str, days: Option<u32>) -> Result<(), TelemetryError> {
        self.request(Request::Retain { group: group.into(), days }).await
    }

    /// How many days the events of groups without a setting of their own are kept; 0 is for ever.
    #[must_use]
    pub fn default_retention_days(&self) -> u32 {
        self.inner.retention_days
    }

    /// Numbers for health and metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.queue.stats()
    }

    /// Log groups in the order of their names.
    ///
    /// # Errors
    /// [`TelemetryError::Engine`].
    pub async fn groups(&self, query: GroupQuery) -> Result<Vec<GroupInfo>, TelemetryError> {
        self.read(move |connection| read::groups(connection, &query)).await
    }

    /// The streams of a group.
    ///
    /// # Errors
    /// [`TelemetryError::NoSuchGroup`], [`TelemetryError::Engine`].
    pub async fn streams(&self, query: StreamQuery) -> Result<Vec<StreamInfo>, TelemetryError> {
        self.read(move |connection| read::streams(connection, &query)).await
    }

    /// A page of one stream.
    ///
    /// # Errors
    /// [`TelemetryError::NoSuchGroup`], [`TelemetryError::NoSuchStream`], [`TelemetryError::Engine`].
    pub async fn events(&self, query: EventQuery) -> Result<EventPage, TelemetryError> {
        self.read(move |connection| read::events(connection, &query)).await
    }

    /// A page of a search through a group.
    ///
    /// # Errors
    /// [`TelemetryError::NoSuchGroup`], [`TelemetryError::NoSuchStream`] for a stream asked for by name,
    /// [`TelemetryError::Engine`].
    pub async fn filter(&self, query: FilterQuery) -> Result<FilterPage, TelemetryError> {
        self.read(move |connection| read::filter(connection, &query)).await
    }

    /// A page of metering records.
    ///
    /// # Errors
    /// [`TelemetryError::Engine`].
    pub async fn metering(&self, query: MeteringQuery) -> Result<MeteringPage, TelemetryError> {
        self.read(move |connection| read::metering(connection, &query)).await
    }

    async fn request(&self, request: Request) -> Result<(), TelemetryError> {
        match self.inner.queue.request(request) {
            Some(done) => done.await.unwrap_or(Err(TelemetryError::Closed)),
            None => Ok(()),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        action: impl FnOnce(&Connection) -> Result<T, TelemetryError> + Send + 'static,
    ) -> Result<T, TelemetryError> {
        // What could not be written does not keep anybody from reading what was.
        self.request(Request::Visible).await.ok();
        self.inner.readers.read(action).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // The thread has no handle of its own, and its last commit takes milliseconds. A panic was reported.
            thread.join().ok();
        }
    }
}
