//! The log contract over the tables `topics`, `records` and `leases`.

use super::Database;
use super::committer::Writer;
use crate::log::{Lease, Leased, Log, Position, Record, Release, TopicState, check_append, check_topic};
use crate::{Answer, StoreError};
use bytes::Bytes;
use martlet_model::Timestamp;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

/// Positions and times fit 63 bits; what does not is a caller's "for ever".
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// SQLite takes a negative limit for "none".
fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

/// Runs a cached statement.
fn execute(
    connection: &Connection,
    step: &'static str,
    sql: &str,
    params: impl Params,
) -> Result<(), StoreError> {
    let run = || connection.prepare_cached(sql)?.execute(params).map(drop);
    run().map_err(|e| StoreError::engine(step, e))
}

/// Runs a cached query for all its rows.
fn rows<T>(
    connection: &Connection,
    step: &'static str,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let run = || connection.prepare_cached(sql)?.query_map(params, read)?.collect::<rusqlite::Result<_>>();
    run().map_err(|e| StoreError::engine(step, e))
}

/// A row of `topics`.
struct Topic {
    id: i64,
    next: i64,
    cursor: i64,
}

fn find_topic(connection: &Connection, name: &str) -> Result<Option<Topic>, StoreError> {
    let run = || {
        connection
            .prepare_cached("SELECT id, next, cursor FROM topics WHERE name = ?1")?
            .query_row([name], |row| Ok(Topic { id: row.get(0)?, next: row.get(1)?, cursor: row.get(2)? }))
            .optional()
    };
    run().map_err(|e| StoreError::engine("find a topic", e))
}

fn payload(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::from(row.get::<_, Vec<u8>>(column)?))
}

fn position(row: &Row<'_>, column: usize) -> rusqlite::Result<Position> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}

fn append(connection: &Connection, topic: &str, records: &[Bytes]) -> Result<Position, StoreError> {
    let found = match find_topic(connection, topic)? {
        Some(found) => found,
        None => {
            let sql = "INSERT INTO topics (name, next, cursor) VALUES (?1, 1, 1)";
            execute(connection, "make a topic", sql, [topic])?;
            Topic { id: connection.last_insert_rowid(), next: 1, cursor: 1 }
        }
    };
    let mut position = found.next;
    for record in records {
        let sql = "INSERT INTO records (topic, position, payload) VALUES (?1, ?2, ?3)";
        execute(connection, "append a record", sql, params![found.id, position, &record[..]])?;
        position += 1;
    }
    let sql = "UPDATE topics SET next = ?2 WHERE id = ?1";
    execute(connection, "move the end of a topic", sql, [found.id, position])?;
    Ok(found.next.unsigned_abs())
}

fn lease(
    connection: &Connection,
    topic: &Topic,
    max: usize,
    until: Timestamp,
    now: Timestamp,
) -> Result<Vec<Leased>, StoreError> {
    let sql = "UPDATE leases SET due = 0 WHERE topic = ?1 AND 0 < due AND due <= ?2";
    execute(connection, "make delayed records visible", sql, [topic.id, stored(now.0)])?;

    // Every record that was leased before stands below the cursor, and every fresh one at or above it.
    let sql =
        "SELECT leases.position, attempt, payload, note FROM leases JOIN records USING (topic, position)
               WHERE leases.topic = ?1 AND due = 0 ORDER BY leases.position LIMIT ?2";
    let again = rows(connection, "find visible records", sql, [topic.id, limit(max)], |row| {
        let attempt = row.get::<_, u32>(1)?.saturating_add(1);
        let lease = Lease { position: position(row, 0)?, attempt };
        Ok(Leased { lease, note: row.get(3)?, payload: payload(row, 2)? })
    })?;
    for Leased { lease, .. } in &again {
        let sql = "UPDATE leases SET attempt = ?3, due = ?4, held = 1 WHERE topic = ?1 AND position = ?2";
        let params = params![topic.id, stored(lease.position), lease.attempt, stored(until.0)];
        execute(connection, "lease a record again", sql, params)?;
    }

    let sql = "SELECT position, payload FROM records WHERE topic = ?1 AND ?2 <= position
               ORDER BY position LIMIT ?3";
    let params = [topic.id, topic.cursor, limit(max - again.len())];
    let fresh = rows(connection, "find fresh records", sql, params, |row| {
        Ok(Leased {
            lease: Lease { position: position(row, 0)?, attempt: 1 },
            note: 0,
            payload: payload(row, 1)?,
        })
    })?;
    for Leased { lease, .. } in &fresh {
        let sql = "INSERT INTO leases (topic, position, attempt, due, held) VALUES (?1, ?2, 1, ?3, 1)";
        let params = [topic.id, stored(lease.position), stored(until.0)];
        execute(connection, "lease a fresh record", sql, params)?;
    }
    if let Some(last) = fresh.last() {
        let sql = "UPDATE topics SET cursor = ?2 WHERE id = ?1";
        execute(connection, "move the cursor", sql, [topic.id, stored(last.lease.position) + 1])?;
    }
    Ok(again.into_iter().chain(fresh).collect())
}

/// Runs `act` on those of `items` whose leases are current and answers the leases of the others.
fn on_current<T>(
    connection: &Connection,
    topic: &str,
    items: &[T],
    lease: impl Fn(&T) -> &Lease,
    act: impl Fn(i64, &T) -> Result<(), StoreError>,
) -> Result<Vec<Lease>, StoreError> {
    check_topic(topic)?;
    let Some(topic) = find_topic(connection, topic)? else {
        return Ok(items.iter().map(|item| *lease(item)).collect());
    };
    let mut lost = Vec::new();
    for item in items {
        let lease = lease(item);
        let sql = "SELECT 1 FROM leases WHERE topic = ?1 AND position = ?2 AND attempt = ?3 AND held = 1";
        let params = params![topic.id, stored(lease.position), lease.attempt];
        let current = rows(connection, "check a lease", sql, params, |_| Ok(()))?;
        if current.is_empty() {
            lost.push(*lease);
        } else {
            act(topic.id, item)?;
        }
    }
    Ok(lost)
}

fn trim(connection: &Connection, topic: &str, before: Position) -> Result<(), StoreError> {
    let Some(topic) = find_topic(connection, topic)? else {
        return Ok(());
    };
    let before = stored(before).min(topic.next);
    for sql in [
        "DELETE FROM leases WHERE topic = ?1 AND position < ?2",
        "DELETE FROM records WHERE topic = ?1 AND position < ?2",
        "UPDATE topics SET cursor = max(cursor, ?2) WHERE id = ?1",
    ] {
        execute(connection, "trim a topic", sql, [topic.id, before])?;
    }
    Ok(())
}

fn state(connection: &Connection, topic: &str) -> Result<TopicState, StoreError> {
    let Some(topic) = find_topic(connection, topic)? else {
        return Ok(TopicState { next: 1, records: 0, next_visible: None });
    };
    let sql = "SELECT (SELECT count(*) FROM records WHERE topic = ?1),
                      EXISTS (SELECT 1 FROM records WHERE topic = ?1 AND ?2 <= position),
                      (SELECT min(due) FROM leases WHERE topic = ?1)";
    let read = |row: &Row<'_>| {
        let due = row.get::<_, Option<i64>>(2)?.map(|due| Timestamp(due.unsigned_abs()));
        let fresh = row.get::<_, bool>(1)?.then_some(Timestamp(0));
        Ok(TopicState {
            next: topic.next.unsigned_abs(),
            records: position(row, 0)?,
            next_visible: fresh.into_iter().chain(due).min(),
        })
    };
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row([topic.id, topic.cursor], read))
        .map_err(|e| StoreError::engine("read the state of a topic", e))
}

impl Log for Database {
    fn append(&self, topic: &str, records: &[Bytes]) -> Answer<Position> {
        let (topic, records) = (topic.to_owned(), records.to_vec());
        self.write(move |writer: &mut Writer<'_>| {
            check_append(&topic, &records)?;
            append(writer.connection, &topic, &records)
        })
    }

    fn read(&self, topic: &str, from: Position, max: usize) -> Answer<Vec<Record>> {
        let topic = topic.to_owned();
        Database::read(self, move |connection| {
            check_topic(&topic)?;
            let Some(topic) = find_topic(connection, &topic)? else {
                return Ok(Vec::new());
            };
            let sql = "SELECT position, payload FROM records WHERE topic = ?1 AND ?2 <= position
                       ORDER BY position LIMIT ?3";
            rows(connection, "read records", sql, [topic.id, stored(from), limit(max)], |row| {
                Ok(Record { position: position(row, 0)?, payload: payload(row, 1)? })
            })
        })
    }

    fn lease(&self, topic: &str, max: usize, until: Timestamp, now: Timestamp) -> Answer<Vec<Leased>> {
        let topic = topic.to_owned();
        self.write(move |writer| {
            check_topic(&topic)?;
            match find_topic(writer.connection, &topic)? {
                Some(topic) => lease(writer.connection, &topic, max, until, now),
                None => Ok(Vec::new()),
            }
        })
    }

    fn extend(&self, topic: &str, leases: &[Lease], until: Timestamp) -> Answer<Vec<Lease>> {
        let (topic, leases) = (topic.to_owned(), leases.to_vec());
        self.write(move |writer| {
            on_current(
                writer.connection,
                &topic,
                &leases,
                |lease| lease,
                |topic, lease| {
                    let sql = "UPDATE leases SET due = ?3 WHERE topic = ?1 AND position = ?2";
                    let params = [topic, stored(lease.position), stored(until.0)];
                    execute(writer.connection, "extend a lease", sql, params)
                },
            )
        })
    }

    fn acknowledge(&self, topic: &str, leases: &[Lease]) -> Answer<Vec<Lease>> {
        let (topic, leases) = (topic.to_owned(), leases.to_vec());
        self.write(move |writer| {
            on_current(
                writer.connection,
                &topic,
                &leases,
                |lease| lease,
                |topic, lease| {
                    for sql in [
                        "DELETE FROM leases WHERE topic = ?1 AND position = ?2",
                        "DELETE FROM records WHERE topic = ?1 AND position = ?2",
                    ] {
                        execute(
                            writer.connection,
                            "acknowledge a record",
                            sql,
                            [topic, stored(lease.position)],
                        )?;
                    }
                    Ok(())
                },
            )
        })
    }

    fn release(&self, topic: &str, releases: &[Release]) -> Answer<Vec<Lease>> {
        let (topic, releases) = (topic.to_owned(), releases.to_vec());
        self.write(move |writer| {
            on_current(
                writer.connection,
                &topic,
                &releases,
                |release| &release.lease,
                |topic, release| {
                    let sql =
                        "UPDATE leases SET due = ?3, note = ?4, held = 0 WHERE topic = ?1 AND position = ?2";
                    let due = stored(release.visible_at.0);
                    let params = [topic, stored(release.lease.position), due, i64::from(release.note)];
                    execute(writer.connection, "release a record", sql, params)
                },
            )
        })
    }

    fn trim(&self, topic: &str, before: Position) -> Answer<()> {
        let topic = topic.to_owned();
        self.write(move |writer| {
            check_topic(&topic)?;
            trim(writer.connection, &topic, before)
        })
    }

    fn state(&self, topic: &str) -> Answer<TopicState> {
        let topic = topic.to_owned();
        Database::read(self, move |connection| {
            check_topic(&topic)?;
            state(connection, &topic)
        })
    }
}
