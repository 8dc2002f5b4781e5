//! The thread that owns the only write handle: takes what the queue gathered, writes it in one transaction, and lets
//! go of what is past its retention.

use crate::id;
use crate::queue::{Batch, EVENT_OVERHEAD, Item, Queue, Request};
use crate::record::{LogEvent, MeteringRecord, Numbered};
use crate::retention::{self, Retention};
use crate::{Clock, TelemetryError};
use martlet_model::{FunctionArn, RequestId, Timestamp, Version};
use rusqlite::{Connection, OptionalExtension, Params, TransactionBehavior, params};
use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

/// How long a failed batch rests before it is tried again; the queue goes on filling meanwhile.
const RETRY: Duration = Duration::from_secs(1);
/// How often expired events are looked for.
const SWEEP_EVERY_MILLIS: u64 = 60 * 60 * 1000;
/// Streams whose row ids are remembered; beyond that all are forgotten and looked up anew.
const REMEMBERED_STREAMS: usize = 4_096;

pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) queue: Arc<Queue>,
    pub(crate) clock: Clock,
    pub(crate) commit_every: Duration,
    pub(crate) retention: Retention,
    pub(crate) names: Names,
    /// The last commit would not survive a loss of power.
    pub(crate) unsynced: bool,
}

/// Row ids of names that were written lately.
#[derive(Default)]
pub(crate) struct Names {
    groups: HashMap<Arc<str>, i64>,
    streams: HashMap<(i64, Arc<str>), i64>,
    functions: HashMap<FunctionArn, i64>,
}

/// What a batch adds to one stream's row.
struct Growth {
    group: i64,
    first: Timestamp,
    last: Timestamp,
    ingested: Timestamp,
    bytes: i64,
}

/// How safe a commit is before it is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Safety {
    /// Survives the end of this process, however violent, but not a loss of power.
    Process,
    /// Survives a loss of power.
    Power,
}

impl Writer {
    /// Runs until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let mut next_sweep = (self.clock)();
        let mut sweeping = false;
        loop {
            let patience = match (sweeping, next_sweep.millis_since((self.clock)())) {
                (true, _) => Duration::ZERO,
                (false, millis) => Duration::from_millis(millis),
            };
            let mut batch = self.queue.take(self.commit_every, patience);
            self.write(&mut batch);
            for waiter in std::mem::take(&mut batch.waiters) {
                let result = match waiter.request {
                    Request::Visible | Request::Durable => Ok(()),
                    Request::Sweep => self.sweep_all(),
                    Request::Retain { group, days } => self.retain(&group, days),
                };
                // A waiter that went away does not want to know.
                waiter.done.send(result).ok();
            }
            if batch.last {
                return;
            }
            let now = (self.clock)();
            if sweeping || next_sweep <= now {
                // One bounded step between batches, so that logs keep flowing while much expires.
                sweeping = self.sweep_step(now).unwrap_or_else(|error| {
                    tracing::error!(%error, "expired telemetry could not be removed; trying again in an hour");
                    false
                });
                next_sweep = now.plus_millis(SWEEP_EVERY_MILLIS);
            }
        }
    }

    /// Writes the batch, again and again until it works or nobody is left to add more. Who waits for it is not made
    /// to wait for a full disk: they get the first error.
    fn write(&mut self, batch: &mut Batch) {
        let durable = batch.waiters.iter().any(|waiter| matches!(waiter.request, Request::Durable));
        let mut safety = if durable || batch.last { Safety::Power } else { Safety::Process };
        let mut failing = false;
        while let Err(error) = self.try_write(batch, safety) {
            self.names = Names::default();
            for waiter in batch.waiters.drain(..) {
                waiter.done.send(Err(error.clone())).ok();
            }
            if batch.last {
                break;
            }
            if !failing {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                tracing::error!(%error, cause, "log events wait to be written; when too many do, new ones are dropped");
            }
            failing = true;
            batch.last = self.queue.rest(RETRY);
            safety = if batch.last { Safety::Power } else { safety };
        }
        self.queue.written(&batch.items);
    }

    fn try_write(&mut self, batch: &Batch, safety: Safety) -> Result<(), TelemetryError> {
        let Self { connection, names, clock, unsynced, .. } = self;
        let nothing = batch.items.is_empty() && batch.dropped.is_empty();
        if nothing && (safety == Safety::Process || !*unsynced) {
            return Ok(());
        }
        commit_safely(connection, safety)?;
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(TelemetryError::at("begin a write"))?;
        let mut work = Work { connection: &transaction, names, grown: HashMap::new(), seq: 0, packed: None };
        work.begin()?;
        for item in &batch.items {
            match item {
                Item::Logs { group, stream, ingested, events } => {
                    work.logs(group, stream, *ingested, events)?;
                }
                Item::Meter(record) => work.meter(record)?,
            }
        }
        let now = clock();
        for ((group, stream), count) in &batch.dropped {
            let message = format!(
                "MARTLET dropped {count} log events of this stream: they came faster than they could be stored"
            );
            work.logs(group, stream, now, &[LogEvent { timestamp: now, message, request_id: None }])?;
        }
        work.finish()?;
        transaction.commit().map_err(TelemetryError::at("commit"))?;
        *unsynced = safety == Safety::Process;
        Ok(())
    }

    fn sweep_step(&mut self, now: Timestamp) -> Result<bool, TelemetryError> {
        let swept = retention::step(&mut self.connection, &self.retention, now)?;
        self.unsynced |= swept.any;
        // A stream whose row went must not be written by its old id.
        if swept.streams_removed {
            self.names.streams.clear();
        }
        Ok(swept.more)
    }

    fn sweep_all(&mut self) -> Result<(), TelemetryError> {
        let now = (self.clock)();
        while self.sweep_step(now)? {}
        Ok(())
    }

    /// A setting, so it is durable when this returns.
    fn retain(&mut self, group: &str, days: Option<u32>) -> Result<(), TelemetryError> {
        commit_safely(&self.connection, Safety::Power)?;
        let sql = "UPDATE groups SET retention = ?2 WHERE name = ?1";
        match self.connection.execute(sql, params![group, days]) {
            Ok(0) => Err(TelemetryError::NoSuchGroup(group.to_owned())),
            Ok(_) => Ok(()),
            Err(error) => Err(TelemetryError::at("set a retention")(error)),
        }
    }
}

/// Chooses what the next commit survives. One under FULL syncs the WAL, and with it every commit before.
fn commit_safely(connection: &Connection, safety: Safety) -> Result<(), TelemetryError> {
    let level = if safety == Safety::Power { "FULL" } else { "NORMAL" };
    let choose = TelemetryError::at("choose how safely to commit");
    connection.pragma_update(None, "synchronous", level).map_err(choose)
}

/// One transaction under way.
struct Work<'a> {
    connection: &'a Connection,
    names: &'a mut Names,
    grown: HashMap<i64, Growth>,
    /// The number of the last event. Events of one millisecond are told apart, and kept in order, by it.
    seq: i64,
    /// The last request id that was written, and how: what an invocation leaves behind stands together.
    packed: Option<(RequestId, Vec<u8>)>,
}

impl Work<'_> {
    fn execute(&self, step: &'static str, sql: &str, params: impl Params) -> Result<(), TelemetryError> {
        let run = || self.connection.prepare_cached(sql)?.execute(params).map(drop);
        run().map_err(TelemetryError::at(step))
    }

    fn number(
        &self,
        step: &'static str,
        sql: &str,
        params: impl Params,
    ) -> Result<Option<i64>, TelemetryError> {
        let run = || self.connection.prepare_cached(sql)?.query_row(params, |row| row.get(0)).optional();
        run().map_err(TelemetryError::at(step))
    }

    fn begin(&mut self) -> Result<(), TelemetryError> {
        let sql = "SELECT value FROM counters WHERE name = 'seq'";
        self.seq = self.number("read the event counter", sql, [])?.unwrap_or(0);
        Ok(())
    }

    fn logs(
        &mut self,
        group: &Arc<str>,
        stream: &Arc<str>,
        ingested: Timestamp,
        events: &[LogEvent],
    ) -> Result<(), TelemetryError> {
        let group = self.group(group, ingested)?;
        let stream = self.stream(group, stream, ingested, events)?;
        for event in events {
            self.seq += 1;
            if let Some(id) = &event.request_id {
                self.pack(id);
            }
            let packed = self.packed.as_ref().filter(|_| event.request_id.is_some());
            let request = packed.map(|(_, bytes)| bytes.as_slice());
            let lag = stored(ingested) - stored(event.timestamp);
            let sql = "INSERT INTO events (log_group, timestamp, seq, stream, lag, request, message)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let params =
                params![group, stored(event.timestamp), self.seq, stream, lag, request, event.message];
            self.execute("write a log event", sql, params)?;
            let bytes = i64::try_from(event.message.len() + EVENT_OVERHEAD).unwrap_or(i64::MAX);
            let at = event.timestamp;
            let grown = self.grown.entry(stream);
            let growth = grown.or_insert(Growth { group, first: at, last: at, ingested, bytes: 0 });
            growth.first = growth.first.min(at);
            growth.last = growth.last.max(at);
            growth.ingested = growth.ingested.max(ingested);
            growth.bytes += bytes;
        }
        Ok(())
    }

    fn pack(&mut self, id: &RequestId) {
        if self.packed.as_ref().is_none_or(|(packed, _)| packed != id) {
            self.packed = Some((id.clone(), id::to_bytes(id)));
        }
    }

    fn group(&mut self, name: &Arc<str>, now: Timestamp) -> Result<i64, TelemetryError> {
        if let Some(id) = self.names.groups.get(name) {
            return Ok(*id);
        }
        let sql = "INSERT INTO groups (name, created) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        self.execute("make a log group", sql, params![name, stored(now)])?;
        let found = self.number("find a log group", "SELECT id FROM groups WHERE name = ?1", [name])?;
        let id = found.ok_or_else(|| TelemetryError::NoSuchGroup(name.to_string()))?;
        self.names.groups.insert(name.clone(), id);
        Ok(id)
    }

    fn stream(
        &mut self,
        group: i64,
        name: &Arc<str>,
        now: Timestamp,
        events: &[LogEvent],
    ) -> Result<i64, TelemetryError> {
        let key = (group, name.clone());
        if let Some(id) = self.names.streams.get(&key) {
            return Ok(*id);
        }
        let first = events.iter().map(|event| event.timestamp).min().unwrap_or(now);
        let last = events.iter().map(|event| event.timestamp).max().unwrap_or(now);
        let sql = "INSERT INTO streams (log_group, name, created, first, last, ingested)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?3) ON CONFLICT DO NOTHING";
        self.execute(
            "make a log stream",
            sql,
            params![group, name, stored(now), stored(first), stored(last)],
        )?;
        let sql = "SELECT id FROM streams WHERE log_group = ?1 AND name = ?2";
        let found = self.number("find a log stream", sql, params![group, name])?;
        let id = found.ok_or_else(|| TelemetryError::NoSuchStream(name.to_string()))?;
        if REMEMBERED_STREAMS <= self.names.streams.len() {
            self.names.streams.clear();
        }
        self.names.streams.insert(key, id);
        Ok(id)
    }

    fn meter(&mut self, record: &MeteringRecord) -> Result<(), TelemetryError> {
        let function = match self.names.functions.get(&record.function) {
            Some(id) => *id,
            None => {
                let arn = record.function.to_string();
                let sql = "INSERT INTO functions (arn) VALUES (?1) ON CONFLICT DO NOTHING";
                self.execute("name a function", sql, [&arn])?;
                let sql = "SELECT id FROM functions WHERE arn = ?1";
                let id = self.number("find a function", sql, [&arn])?.unwrap_or_default();
                self.names.functions.insert(record.function.clone(), id);
                id
            }
        };
        self.pack(&record.request_id);
        let request = self.packed.as_ref().map(|(_, bytes)| bytes.as_slice());
        let version = match record.version {
            Version::Latest => 0,
            Version::Published(number) => signed(number),
        };
        let sql = "INSERT INTO metering (function, version, request, attempt, trigger, architecture, memory_mb,
                       environment, started, cold_start, init_micros, duration_micros, billed_millis, cpu_micros,
                       max_memory_bytes, bytes_in, bytes_out, status)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";
        let params = params![
            function,
            version,
            request,
            record.attempt,
            record.trigger.number(),
            record.architecture,
            record.memory_mb,
            record.environment,
            stored(record.started),
            record.cold_start,
            signed(record.init_micros),
            signed(record.duration_micros),
            signed(record.billed_millis),
            signed(record.cpu_micros),
            signed(record.max_memory_bytes),
            signed(record.bytes_in),
            signed(record.bytes_out),
            record.status.number(),
        ];
        self.execute("write a metering record", sql, params)
    }

    fn finish(&mut self) -> Result<(), TelemetryError> {
        let mut groups: HashMap<i64, i64> = HashMap::new();
        for (stream, growth) in &self.grown {
            let sql = "UPDATE streams SET first = min(first, ?2), last = max(last, ?3),
                           ingested = max(ingested, ?4), bytes = bytes + ?5 WHERE id = ?1";
            self.execute(
                "update a log stream",
                sql,
                params![
                    stream,
                    stored(growth.first),
                    stored(growth.last),
                    stored(growth.ingested),
                    growth.bytes,
                ],
            )?;
            *groups.entry(growth.group).or_default() += growth.bytes;
        }
        for (group, bytes) in groups {
            let sql = "UPDATE groups SET bytes = bytes + ?2 WHERE id = ?1";
            self.execute("update a log group", sql, params![group, bytes])?;
        }
        // Written even when nothing else is: a commit without a change would sync nothing.
        self.execute("count the events", "UPDATE counters SET value = ?1 WHERE name = 'seq'", [self.seq])?;
        let sql = "UPDATE counters SET value = value + 1 WHERE name = 'flushes'";
        self.execute("count the commits", sql, [])
    }
}

/// A time as the database keeps it.
pub(crate) fn stored(at: Timestamp) -> i64 {
    signed(at.0)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
