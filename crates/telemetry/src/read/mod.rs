//! Reads: on connections of their own, off the runtime's threads, after everything logged before can be seen.

mod events;
mod groups;
mod metering;

pub use events::{
    Cursor, CursorError, EventPage, EventQuery, FilterPage, FilterQuery, PageStart, StoredEvent,
};
pub(crate) use events::{events, filter};
pub use groups::{GroupInfo, GroupQuery, StreamInfo, StreamOrder, StreamQuery};
pub(crate) use groups::{groups, streams};
pub(crate) use metering::metering;
pub use metering::{MeteringPage, MeteringQuery};

use crate::TelemetryError;
use rusqlite::{Connection, OptionalExtension};

/// The row id of a group.
fn group_id(connection: &Connection, group: &str) -> Result<i64, TelemetryError> {
    let run = || {
        let mut statement = connection.prepare_cached("SELECT id FROM groups WHERE name = ?1")?;
        statement.query_row([group], |row| row.get(0)).optional()
    };
    run()
        .map_err(TelemetryError::at("find a log group"))?
        .ok_or_else(|| TelemetryError::NoSuchGroup(group.to_owned()))
}
