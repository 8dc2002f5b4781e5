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

use crate::{TelemetryError, schema};
use rusqlite::{Connection, OptionalExtension};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How many idle connections are kept; more are opened while more reads run at once.
const KEPT: usize = 1;

/// The connections that only read. WAL lets them read while the writer writes.
pub(crate) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), idle: Mutex::default() }
    }

    /// Runs `action` in one read transaction on a thread for blocking work.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        action: impl FnOnce(&Connection) -> Result<T, TelemetryError> + Send + 'static,
    ) -> Result<T, TelemetryError> {
        let readers = self.clone();
        let work = move || {
            let taken = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match taken {
                Some(connection) => connection,
                None => schema::open_reader(&readers.path)?,
            };
            let transaction =
                connection.unchecked_transaction().map_err(TelemetryError::at("begin a read"))?;
            let result = action(&transaction);
            drop(transaction);
            let mut idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push(connection);
            }
            result
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(stopped) if stopped.is_panic() => std::panic::resume_unwind(stopped.into_panic()),
            Err(_) => Err(TelemetryError::Closed),
        }
    }
}

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
