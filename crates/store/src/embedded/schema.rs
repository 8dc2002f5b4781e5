//! The SQLite file: its tables, its settings, and what opening it does.

use crate::StoreError;
use rusqlite::{Connection, OpenFlags};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// The format number in `PRAGMA user_version`. A change of tables raises it and brings a migration.
const FORMAT: u32 = 2;

// `topics.cursor` is the lowest position never leased. A record at or above it has no row in `leases`, so an append
// writes one row and the common path of a queue never searches. `leases.due` 0 means visible; its index yields both
// "visible again, lowest position first" and "whose time has come".
const TABLES: &str = "
    CREATE TABLE topics (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        next INTEGER NOT NULL,
        cursor INTEGER NOT NULL
    );
    CREATE TABLE records (
        topic INTEGER NOT NULL,
        position INTEGER NOT NULL,
        payload BLOB NOT NULL,
        PRIMARY KEY (topic, position)
    ) WITHOUT ROWID;
    CREATE TABLE leases (
        topic INTEGER NOT NULL,
        position INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        due INTEGER NOT NULL,
        held INTEGER NOT NULL,
        note INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (topic, position)
    ) WITHOUT ROWID;
    CREATE INDEX leases_due ON leases (topic, due, position);
    CREATE TABLE entries (
        key TEXT NOT NULL PRIMARY KEY,
        value BLOB NOT NULL,
        revision INTEGER NOT NULL
    );
    CREATE TABLE counters (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO counters VALUES ('revision', 0);
";

/// From format 1 to 2: what releases note.
const NOTES: &str = "ALTER TABLE leases ADD COLUMN note INTEGER NOT NULL DEFAULT 0;";

/// Opens the file for the committer: the only connection that writes.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let engine = |step| move |e| StoreError::engine(step, e);
    // Functions' settings hold secrets. SQLite gives the files beside this one its mode.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| StoreError::file("create", path, e))?;
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(engine("open store.db"))?;
    // A backup tool may hold the file for a moment.
    connection.busy_timeout(Duration::from_secs(5)).map_err(engine("set the busy timeout"))?;
    // FULL: a commit is an fsync of the WAL. The cache is small because hot reads are served from snapshots above.
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -1024;
             PRAGMA journal_size_limit = 8388608; PRAGMA temp_store = MEMORY;",
        )
        .map_err(engine("set up store.db"))?;
    connection.set_prepared_statement_cache_capacity(48);
    migrate(&connection, path)?;
    end_leases(&connection).map_err(engine("end the leases of the last run"))?;
    Ok(connection)
}

fn migrate(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let engine = |e| StoreError::engine("create the tables of store.db", e);
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(engine)?;
    match found {
        FORMAT => Ok(()),
        0 => connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {FORMAT}; COMMIT;"))
            .map_err(engine),
        1 => connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {NOTES} PRAGMA user_version = {FORMAT}; COMMIT;"))
            .map_err(|e| StoreError::engine("bring store.db to this version's format", e)),
        found => Err(StoreError::Newer { path: path.to_owned(), found, known: FORMAT }),
    }
}

fn end_leases(connection: &Connection) -> rusqlite::Result<()> {
    // Asked first, because even an update of no rows would take the write lock.
    let any: bool =
        connection.query_row("SELECT EXISTS (SELECT 1 FROM leases WHERE held = 1)", [], |row| row.get(0))?;
    if any {
        connection.execute("UPDATE leases SET due = 0, held = 0 WHERE held = 1", [])?;
    }
    Ok(())
}
