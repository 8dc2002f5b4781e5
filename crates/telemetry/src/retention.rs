//! Letting go of what is past its time, a bounded step at a time.

use crate::TelemetryError;
use crate::queue::EVENT_OVERHEAD;
use crate::writer::stored;
use martlet_model::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::collections::HashMap;

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// Most rows that one step removes: some milliseconds of work.
const STEP_ROWS: u32 = 5_000;

/// How long things are kept, in days; 0 is for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// Of groups that have no retention of their own.
    pub(crate) log_days: u32,
    pub(crate) metering_days: u32,
}

/// What a step did.
pub(crate) struct Swept {
    /// Something was removed.
    pub(crate) any: bool,
    /// There may be more to remove.
    pub(crate) more: bool,
    /// Rows of streams are gone, and with them their ids.
    pub(crate) streams_removed: bool,
}

/// The time before which everything is to go; `None`: nothing.
fn cutoff(now: Timestamp, days: u32) -> Option<Timestamp> {
    (days != 0).then(|| Timestamp(now.0.saturating_sub(u64::from(days) * DAY_MILLIS)))
}

/// Removes up to [`STEP_ROWS`] of what is expired at `now`.
pub(crate) fn step(
    connection: &mut Connection,
    retention: &Retention,
    now: Timestamp,
) -> Result<Swept, TelemetryError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(TelemetryError::at("begin to remove what is expired"))?;
    let removed = remove(&transaction, retention, now).map_err(TelemetryError::at("find what is expired"))?;
    transaction.commit().map_err(TelemetryError::at("commit the removal of what is expired"))?;
    if removed.rows != 0 {
        // Pages that became free go back to the system, some at a time.
        connection
            .prepare_cached("PRAGMA incremental_vacuum(512)")
            .and_then(|mut statement| {
                let mut rows = statement.query([])?;
                while rows.next()?.is_some() {}
                Ok(())
            })
            .map_err(TelemetryError::at("give free pages back"))?;
    }
    Ok(Swept {
        any: removed.rows != 0 || removed.streams != 0,
        more: removed.rows == STEP_ROWS,
        streams_removed: removed.streams != 0,
    })
}

struct Removed {
    rows: u32,
    streams: usize,
}

fn remove(transaction: &Transaction<'_>, retention: &Retention, now: Timestamp) -> rusqlite::Result<Removed> {
    let mut groups = transaction.prepare_cached("SELECT id, retention FROM groups")?;
    let groups: Vec<(i64, Option<u32>)> =
        groups.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let mut removed = Removed { rows: 0, streams: 0 };
    for (group, days) in groups {
        let Some(cutoff) = cutoff(now, days.unwrap_or(retention.log_days)) else {
            continue;
        };
        let room = STEP_ROWS - removed.rows;
        let rows = remove_events(transaction, group, cutoff, room)?;
        removed.rows += rows;
        if rows == room {
            return Ok(removed);
        }
        let sql = "DELETE FROM streams WHERE log_group = ?1 AND last < ?2";
        removed.streams += transaction.prepare_cached(sql)?.execute(params![group, stored(cutoff)])?;
    }
    if let Some(cutoff) = cutoff(now, retention.metering_days) {
        let sql = "DELETE FROM metering WHERE id IN
                   (SELECT id FROM metering WHERE started < ?1 ORDER BY started LIMIT ?2)";
        let room = STEP_ROWS - removed.rows;
        let rows = transaction.prepare_cached(sql)?.execute(params![stored(cutoff), room])?;
        removed.rows += u32::try_from(rows).unwrap_or(room);
    }
    Ok(removed)
}

/// Removes the oldest events of a group before `cutoff`, up to `max`; answers how many.
fn remove_events(
    transaction: &Transaction<'_>,
    group: i64,
    cutoff: Timestamp,
    max: u32,
) -> rusqlite::Result<u32> {
    let mut expired = transaction.prepare_cached(
        "SELECT timestamp, seq, stream, length(CAST(message AS BLOB)) FROM events
         WHERE log_group = ?1 AND timestamp < ?2 ORDER BY timestamp, seq LIMIT ?3",
    )?;
    let mut rows = expired.query(params![group, stored(cutoff), max])?;
    let (mut count, mut total, mut end) = (0, 0, (0_i64, 0_i64));
    let mut streams: HashMap<i64, i64> = HashMap::new();
    while let Some(row) = rows.next()? {
        end = (row.get(0)?, row.get(1)?);
        let bytes = row.get::<_, i64>(3)? + EVENT_OVERHEAD as i64;
        *streams.entry(row.get(2)?).or_default() += bytes;
        total += bytes;
        count += 1;
    }
    if count == 0 {
        return Ok(0);
    }
    transaction
        .prepare_cached("DELETE FROM events WHERE log_group = ?1 AND (timestamp, seq) <= (?2, ?3)")?
        .execute(params![group, end.0, end.1])?;
    let mut oldest = transaction.prepare_cached("SELECT min(timestamp) FROM events WHERE log_group = ?1")?;
    let oldest = oldest.query_row([group], |row| row.get::<_, Option<i64>>(0)).optional()?.flatten();
    for (stream, bytes) in streams {
        // Exact for the stream that the oldest event is of, never too late for the others.
        transaction
            .prepare_cached("UPDATE streams SET bytes = bytes - ?2, first = max(first, ?3) WHERE id = ?1")?
            .execute(params![stream, bytes, oldest.unwrap_or(end.0)])?;
    }
    transaction
        .prepare_cached("UPDATE groups SET bytes = bytes - ?2 WHERE id = ?1")?
        .execute(params![group, total])?;
    Ok(count)
}
