//! The key-value contract over the table `entries`.

use super::Database;
use super::committer::Writer;
use crate::kv::{Change, Entry, Expect, KeyValue, Revision, Watch, Write, check_batch, check_key};
use crate::{Answer, StoreError};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        value: Bytes::from(row.get::<_, Vec<u8>>(0)?),
        revision: row.get::<_, i64>(1)?.unsigned_abs(),
    })
}

fn get(connection: &Connection, key: &str) -> Result<Option<Entry>, StoreError> {
    let run = || {
        connection
            .prepare_cached("SELECT value, revision FROM entries WHERE key = ?1")?
            .query_row([key], entry)
            .optional()
    };
    run().map_err(|e| StoreError::engine("read a key", e))
}

fn list(
    connection: &Connection,
    prefix: &str,
    after: &str,
    max: usize,
) -> Result<Vec<(String, Entry)>, StoreError> {
    // The keys with one prefix stand together, so the scan ends at the first key without it.
    let run = || {
        let mut statement = connection.prepare_cached(
            "SELECT value, revision, key FROM entries WHERE ?1 <= key AND ?2 < key ORDER BY key",
        )?;
        let mut rows = statement.query([prefix, after])?;
        let mut found = Vec::new();
        while found.len() < max
            && let Some(row) = rows.next()?
        {
            let key: String = row.get(2)?;
            if !key.starts_with(prefix) {
                break;
            }
            found.push((key, entry(row)?));
        }
        Ok(found)
    };
    run().map_err(|e| StoreError::engine("list keys", e))
}

fn revision_of(connection: &Connection, key: &str) -> Result<Option<Revision>, StoreError> {
    let run = || {
        connection
            .prepare_cached("SELECT revision FROM entries WHERE key = ?1")?
            .query_row([key], |row| row.get::<_, i64>(0))
            .optional()
    };
    let found = run().map_err(|e| StoreError::engine("read the revision of a key", e))?;
    Ok(found.map(i64::unsigned_abs))
}

/// Does the steps inside the caller's savepoint, which undoes them all when this fails.
fn batch(writer: &mut Writer<'_>, writes: &[Write]) -> Result<Vec<Revision>, StoreError> {
    check_batch(writes)?;
    let connection = writer.connection;
    let engine = |e| StoreError::engine("write a key", e);
    let mut revision: i64 = connection
        .prepare_cached("SELECT value FROM counters WHERE name = 'revision'")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(engine)?;
    let mut revisions = Vec::with_capacity(writes.len());
    let mut changes = Vec::new();
    for write in writes {
        let found = revision_of(connection, write.key())?;
        if !write.expect().met_by(found) {
            let (key, expected) = (write.key().to_owned(), write.expect());
            return Err(StoreError::Conflict { key, expected, found });
        }
        let mut changed = |deleted| {
            revision += 1;
            let key = write.key().to_owned();
            changes.push(Change { key, revision: revision.unsigned_abs(), deleted });
            revision
        };
        match write {
            Write::Put { key, value, .. } => {
                let sql = "INSERT INTO entries (key, value, revision) VALUES (?1, ?2, ?3)
                           ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision";
                let revision = changed(false);
                connection
                    .prepare_cached(sql)
                    .and_then(|mut statement| statement.execute(params![key, &value[..], revision]))
                    .map_err(engine)?;
            }
            Write::Delete { key, .. } if found.is_some() => {
                changed(true);
                connection
                    .prepare_cached("DELETE FROM entries WHERE key = ?1")
                    .and_then(|mut statement| statement.execute([key]))
                    .map_err(engine)?;
            }
            Write::Delete { .. } | Write::Check { .. } => {}
        }
        revisions.push(revision.unsigned_abs());
    }
    if !changes.is_empty() {
        connection
            .prepare_cached("UPDATE counters SET value = ?1 WHERE name = 'revision'")
            .and_then(|mut statement| statement.execute([revision]))
            .map_err(engine)?;
        writer.changes.append(&mut changes);
    }
    Ok(revisions)
}

impl KeyValue for Database {
    fn get(&self, key: &str) -> Answer<Option<Entry>> {
        let key = key.to_owned();
        self.read(move |connection| {
            check_key(&key)?;
            get(connection, &key)
        })
    }

    fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Answer<Vec<(String, Entry)>> {
        // No key is empty, so the empty text stands before all of them.
        let (prefix, after) = (prefix.to_owned(), after.unwrap_or_default().to_owned());
        self.read(move |connection| list(connection, &prefix, &after, max))
    }

    fn put(&self, key: &str, value: Bytes, expect: Expect) -> Answer<Revision> {
        let writes = [Write::Put { key: key.to_owned(), value, expect }];
        self.write(move |writer| Ok(batch(writer, &writes)?[0]))
    }

    fn delete(&self, key: &str, expect: Expect) -> Answer<bool> {
        let writes = [Write::Delete { key: key.to_owned(), expect }];
        self.write(move |writer| {
            let there = revision_of(writer.connection, writes[0].key())?.is_some();
            batch(writer, &writes)?;
            Ok(there)
        })
    }

    fn batch(&self, writes: Vec<Write>) -> Answer<Vec<Revision>> {
        self.write(move |writer| batch(writer, &writes))
    }

    fn watch(&self, prefix: &str) -> Watch {
        Watch::new(prefix, self.changes.subscribe())
    }
}
