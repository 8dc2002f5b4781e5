//! Metering records.

use super::groups::{count, time};
use crate::record::{MeteringRecord, Numbered, Status};
use crate::writer::stored;
use crate::{TelemetryError, id};
use martlet_model::Trigger;
use martlet_model::{FunctionArn, FunctionRef, Timestamp, Version};
use rusqlite::{Connection, Row, params};

/// Which metering records to read.
#[derive(Clone, Debug, Default)]
pub struct MeteringQuery {
    /// Only of this function.
    pub function: Option<FunctionArn>,
    /// Invocations that began at or after this.
    pub start: Timestamp,
    /// Invocations that began before this; `None`: no bound.
    pub end: Option<Timestamp>,
    /// Go on after this record.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// A page of metering records, in the order in which they were recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeteringPage {
    /// The records.
    pub records: Vec<MeteringRecord>,
    /// Where to go on; `None` when there are no more.
    pub next: Option<u64>,
}

const SQL: &str = "SELECT metering.id, arn, version, request, attempt, trigger, architecture, memory_mb, environment,
        started, cold_start, init_micros, duration_micros, billed_millis, cpu_micros, max_memory_bytes, bytes_in,
        bytes_out, status
    FROM metering JOIN functions ON functions.id = function
    WHERE ?1 <= started AND started < ?2 AND ?3 < metering.id AND (?4 IS NULL OR arn = ?4)
    ORDER BY metering.id LIMIT ?5";

pub(crate) fn metering(
    connection: &Connection,
    query: &MeteringQuery,
) -> Result<MeteringPage, TelemetryError> {
    let end = query.end.map_or(i64::MAX, stored);
    let after = query.after.map_or(0, |after| i64::try_from(after).unwrap_or(i64::MAX));
    let arn = query.function.as_ref().map(ToString::to_string);
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let run = || {
        let mut statement = connection.prepare_cached(SQL)?;
        let rows = statement
            .query_map(params![stored(query.start), end, after, arn, limit], |row| {
                Ok((count(row, 0)?, record(row)?))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let full = rows.len() == query.limit;
        let next = rows.last().map(|(id, _)| *id).filter(|_| full);
        // A record that cannot be read was not written by us; it is left out.
        Ok(MeteringPage { records: rows.into_iter().filter_map(|(_, record)| record).collect(), next })
    };
    run().map_err(TelemetryError::at("read metering records"))
}

fn record(row: &Row<'_>) -> rusqlite::Result<Option<MeteringRecord>> {
    let arn: String = row.get(1)?;
    let function = FunctionRef::parse(&arn).ok().and_then(|parsed| {
        Some(FunctionArn { region: parsed.region?, account: parsed.account?, name: parsed.name })
    });
    let request_id = id::from_bytes(row.get_ref(3)?.as_blob()?);
    let (trigger, status) = (Trigger::from_number(row.get(5)?), Status::from_number(row.get(18)?));
    let (Some(function), Some(request_id), Some(trigger), Some(status)) =
        (function, request_id, trigger, status)
    else {
        return Ok(None);
    };
    Ok(Some(MeteringRecord {
        function,
        version: match count(row, 2)? {
            0 => Version::Latest,
            number => Version::Published(number),
        },
        request_id,
        attempt: row.get(4)?,
        trigger,
        architecture: row.get::<_, String>(6)?.into(),
        memory_mb: row.get(7)?,
        environment: row.get::<_, String>(8)?.into(),
        started: time(row, 9)?,
        cold_start: row.get(10)?,
        init_micros: count(row, 11)?,
        duration_micros: count(row, 12)?,
        billed_millis: count(row, 13)?,
        cpu_micros: count(row, 14)?,
        max_memory_bytes: count(row, 15)?,
        bytes_in: count(row, 16)?,
        bytes_out: count(row, 17)?,
        status,
    }))
}
