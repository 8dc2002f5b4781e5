//! Log groups and streams.

use super::group_id;
use crate::TelemetryError;
use martlet_model::Timestamp;
use rusqlite::{Connection, Row, params};

/// Which groups to list.
#[derive(Clone, Debug, Default)]
pub struct GroupQuery {
    /// What their names begin with. With ARNs as names this also chooses account and region.
    pub prefix: String,
    /// What their names hold after the prefix.
    pub contains: String,
    /// Begin after the group of this name.
    pub after: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// A log group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name as it was logged to: [`crate::log_group_arn`].
    pub name: String,
    /// When it got its first event.
    pub created: Timestamp,
    /// How many days its events are kept if it has a setting of its own.
    pub retention_days: Option<u32>,
    /// The size of its events as CloudWatch Logs counts it: UTF-8 bytes and 26 for each event.
    pub stored_bytes: u64,
}

/// What streams are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamOrder {
    /// Their names.
    #[default]
    Name,
    /// The timestamp of their last event, then their names.
    LastEvent,
}

/// Which streams to list.
#[derive(Clone, Debug)]
pub struct StreamQuery {
    /// The group.
    pub group: String,
    /// What their names begin with.
    pub prefix: String,
    /// Their order.
    pub order: StreamOrder,
    /// From the end of that order.
    pub descending: bool,
    /// Begin after this stream, by its name and last event as they were listed.
    pub after: Option<(Timestamp, String)>,
    /// At most so many.
    pub limit: usize,
}

/// A log stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name.
    pub name: String,
    /// When it got its first event.
    pub created: Timestamp,
    /// The earliest timestamp of its events, or an earlier one while events expire.
    pub first_event: Timestamp,
    /// The latest timestamp of its events.
    pub last_event: Timestamp,
    /// When it got its last event.
    pub last_ingestion: Timestamp,
    /// The size of its events, counted as for groups.
    pub stored_bytes: u64,
}

pub(crate) fn groups(connection: &Connection, query: &GroupQuery) -> Result<Vec<GroupInfo>, TelemetryError> {
    // The names with one prefix stand together, so the scan ends at the first name without it.
    let run = || {
        let mut statement = connection.prepare_cached(
            "SELECT name, created, retention, bytes FROM groups WHERE ?1 <= name AND ?2 < name ORDER BY name",
        )?;
        let mut rows = statement.query([&query.prefix, query.after.as_deref().unwrap_or_default()])?;
        let mut found = Vec::new();
        while found.len() < query.limit
            && let Some(row) = rows.next()?
        {
            let name: String = row.get(0)?;
            let Some(rest) = name.strip_prefix(&query.prefix) else {
                break;
            };
            if !rest.contains(&query.contains) {
                continue;
            }
            found.push(GroupInfo {
                name,
                created: time(row, 1)?,
                retention_days: row.get(2)?,
                stored_bytes: count(row, 3)?,
            });
        }
        Ok(found)
    };
    run().map_err(TelemetryError::at("list log groups"))
}

pub(crate) fn streams(
    connection: &Connection,
    query: &StreamQuery,
) -> Result<Vec<StreamInfo>, TelemetryError> {
    let group = group_id(connection, &query.group)?;
    let (below, direction) = if query.descending { ("<", "DESC") } else { (">", "ASC") };
    let (after, order) = match query.order {
        StreamOrder::Name => (format!("name {below} ?4"), format!("name {direction}")),
        StreamOrder::LastEvent => {
            (format!("(last, name) {below} (?3, ?4)"), format!("last {direction}, name {direction}"))
        }
    };
    let sql = format!(
        "SELECT name, created, first, last, ingested, bytes FROM streams
         WHERE log_group = ?1 AND substr(name, 1, length(?2)) = ?2 AND (?4 IS NULL OR {after})
         ORDER BY {order} LIMIT ?5"
    );
    let (last, name) = query.after.as_ref().map_or((0, None), |(last, name)| (last.0, Some(name)));
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let run = || {
        let mut statement = connection.prepare_cached(&sql)?;
        let last = i64::try_from(last).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![group, query.prefix, last, name, limit], |row| {
            Ok(StreamInfo {
                name: row.get(0)?,
                created: time(row, 1)?,
                first_event: time(row, 2)?,
                last_event: time(row, 3)?,
                last_ingestion: time(row, 4)?,
                stored_bytes: count(row, 5)?,
            })
        })?;
        rows.collect::<rusqlite::Result<_>>()
    };
    run().map_err(TelemetryError::at("list log streams"))
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    count(row, column).map(Timestamp)
}

pub(super) fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}
