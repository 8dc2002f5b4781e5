//! The SQLite file: its tables and settings.

use crate::TelemetryError;
use rusqlite::{Connection, OpenFlags};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The format number in `PRAGMA user_version`. A change of tables raises it and brings a migration.
const FORMAT: u32 = 1;

// Events stand in one B-tree in the order in which groups are read. A stream is read by walking its group between
// the stream's first and last event: a second index would cost every write what few reads gain.
// `lag` is the ingestion time less the timestamp, and a request id is its 16 bytes, so an event of a hundred
// characters takes some hundred and thirty bytes.
const TABLES: &str = "
    CREATE TABLE groups (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created INTEGER NOT NULL,
        retention INTEGER,
        bytes INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE streams (
        id INTEGER PRIMARY KEY,
        log_group INTEGER NOT NULL,
        name TEXT NOT NULL,
        created INTEGER NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        ingested INTEGER NOT NULL,
        bytes INTEGER NOT NULL DEFAULT 0,
        UNIQUE (log_group, name)
    );
    CREATE INDEX streams_last ON streams (log_group, last, name);
    CREATE TABLE events (
        log_group INTEGER NOT NULL,
        timestamp INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        stream INTEGER NOT NULL,
        lag INTEGER NOT NULL,
        request BLOB,
        message TEXT NOT NULL,
        PRIMARY KEY (log_group, timestamp, seq)
    ) WITHOUT ROWID;
    CREATE TABLE functions (id INTEGER PRIMARY KEY, arn TEXT NOT NULL UNIQUE);
    CREATE TABLE metering (
        id INTEGER PRIMARY KEY,
        function INTEGER NOT NULL,
        version INTEGER NOT NULL,
        request BLOB NOT NULL,
        attempt INTEGER NOT NULL,
        trigger INTEGER NOT NULL,
        architecture TEXT NOT NULL,
        memory_mb INTEGER NOT NULL,
        environment TEXT NOT NULL,
        started INTEGER NOT NULL,
        cold_start INTEGER NOT NULL,
        init_micros INTEGER NOT NULL,
        duration_micros INTEGER NOT NULL,
        billed_millis INTEGER NOT NULL,
        cpu_micros INTEGER NOT NULL,
        max_memory_bytes INTEGER NOT NULL,
        bytes_in INTEGER NOT NULL,
        bytes_out INTEGER NOT NULL,
        status INTEGER NOT NULL
    );
    CREATE INDEX metering_started ON metering (started);
    CREATE TABLE counters (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO counters VALUES ('seq', 0), ('flushes', 0);
";

/// Opens the file for the writer thread.
pub(crate) fn open(path: &Path) -> Result<Connection, TelemetryError> {
    // Functions may print secrets. SQLite gives the files beside this one its mode.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| TelemetryError::Engine { step: "create telemetry.db", source: Arc::new(source) })?;
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(TelemetryError::at("open telemetry.db"))?;
    connection.busy_timeout(Duration::from_secs(1)).map_err(TelemetryError::at("set the busy timeout"))?;
    let format = format(&connection)?;
    if format == 0 {
        // Gives the room of expired events back to the system; must be chosen before there is anything in the file.
        connection
            .execute_batch("PRAGMA auto_vacuum = INCREMENTAL")
            .map_err(TelemetryError::at("set up telemetry.db"))?;
    }
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -2048; PRAGMA journal_size_limit = 8388608; PRAGMA temp_store = MEMORY;",
        )
        .map_err(TelemetryError::at("set up telemetry.db"))?;
    connection.set_prepared_statement_cache_capacity(32);
    migrate(&connection, path, format)?;
    Ok(connection)
}

/// The format of the tables; 0 when there are none yet.
fn format(connection: &Connection) -> Result<u32, TelemetryError> {
    let read = connection.query_row("PRAGMA user_version", [], |row| row.get(0));
    read.map_err(TelemetryError::at("read the format of telemetry.db"))
}

fn migrate(connection: &Connection, path: &Path, found: u32) -> Result<(), TelemetryError> {
    match found {
        FORMAT => Ok(()),
        0 => connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {FORMAT}; COMMIT;"))
            .map_err(TelemetryError::at("create the tables of telemetry.db")),
        found => Err(TelemetryError::Newer { path: path.to_owned(), found, known: FORMAT }),
    }
}
