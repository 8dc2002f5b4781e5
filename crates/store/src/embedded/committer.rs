//! The one thread that writes. It drains whatever requests are ready, applies all of them in one transaction,
//! commits once and then answers every waiter, so the price of an fsync is shared by everybody who waits for one.
//!
//! There is no timer: a lone request commits at once, and while its fsync runs the next batch gathers by itself.

use crate::kv::Change;
use crate::{Answer, StoreError};
use rusqlite::Connection;
use std::io;
use std::sync::Arc;
use std::thread;
use tokio::sync::{broadcast, mpsc, oneshot};

/// How many requests may wait; further callers wait for room.
const QUEUE: usize = 512;
/// Most requests in one transaction, so that the first of them does not wait for an endless stream.
const BATCH: usize = 512;

/// What a request writes with: the open transaction, and the change notices that go out once it is committed.
pub(super) struct Writer<'a> {
    pub(super) connection: &'a Connection,
    pub(super) changes: &'a mut Vec<Change>,
}

/// A request on its way through the committer.
trait Job: Send {
    /// Runs inside a transaction; answers whether it succeeded. Runs again if the transaction was lost.
    fn apply(&mut self, writer: &mut Writer<'_>) -> bool;
    /// Tells the waiter, after the commit or its failure.
    fn answer(self: Box<Self>, commit: Result<(), StoreError>);
}

struct Request<T, F> {
    action: F,
    result: Option<Result<T, StoreError>>,
    waiter: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, F> Job for Request<T, F>
where
    F: Fn(&mut Writer<'_>) -> Result<T, StoreError> + Send,
{
    fn apply(&mut self, writer: &mut Writer<'_>) -> bool {
        self.result.insert((self.action)(writer)).is_ok()
    }

    fn answer(self: Box<Self>, commit: Result<(), StoreError>) {
        let result = match (self.result, commit) {
            (Some(Ok(value)), Ok(())) => Ok(value),
            (Some(Err(refused)), _) => Err(refused),
            (_, Err(failed)) => Err(failed),
            (None, Ok(())) => Err(StoreError::Closed),
        };
        // A waiter that went away does not want to know.
        self.waiter.send(result).ok();
    }
}

/// The handle: what it is given is written in the order of arrival. The thread ends once the handle is dropped and
/// everything that was accepted is written. Nobody waits for that: a wait could block the very runtime thread that
/// has to give its place in the queue back.
pub(super) struct Committer {
    queue: mpsc::Sender<Box<dyn Job>>,
}

impl Committer {
    pub(super) fn start(
        connection: Connection,
        changes: broadcast::Sender<Change>,
    ) -> Result<Self, StoreError> {
        let (queue, requests) = mpsc::channel(QUEUE);
        thread::Builder::new()
            .name("store-committer".to_owned())
            .stack_size(512 * 1024)
            .spawn(move || run(&connection, requests, &changes))
            .map_err(|source: io::Error| StoreError::Engine {
                step: "start the committer thread",
                source: Arc::new(source),
            })?;
        Ok(Self { queue })
    }

    /// An answer that `action` gives inside a transaction, once that transaction is on stable storage. `action` may
    /// run twice, so it changes nothing but the database.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        action: impl Fn(&mut Writer<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<T> {
        // A weak sender, so that an answer that nobody polls keeps no store open.
        let queue = self.queue.downgrade();
        Box::pin(async move {
            let queue = queue.upgrade().ok_or(StoreError::Closed)?;
            let (waiter, answer) = oneshot::channel();
            let request = Request { action, result: None, waiter };
            queue.send(Box::new(request)).await.map_err(|_| StoreError::Closed)?;
            drop(queue);
            answer.await.unwrap_or(Err(StoreError::Closed))
        })
    }
}

fn run(
    connection: &Connection,
    mut requests: mpsc::Receiver<Box<dyn Job>>,
    notices: &broadcast::Sender<Change>,
) {
    let mut batch: Vec<Box<dyn Job>> = Vec::new();
    while let Some(first) = requests.blocking_recv() {
        batch.push(first);
        while batch.len() < BATCH
            && let Ok(next) = requests.try_recv()
        {
            batch.push(next);
        }
        commit(connection, &mut batch, notices);
    }
}

/// Commits the whole batch at once, or, when the engine gave the transaction up, each request by itself, so that the
/// one that cannot be written takes no neighbour with it.
fn commit(connection: &Connection, batch: &mut Vec<Box<dyn Job>>, notices: &broadcast::Sender<Change>) {
    let together = transact(connection, batch, notices);
    if together.is_ok() || batch.len() == 1 {
        batch.drain(..).for_each(|job| job.answer(together.clone()));
        return;
    }
    for mut job in batch.drain(..) {
        let alone = transact(connection, std::slice::from_mut(&mut job), notices);
        job.answer(alone);
    }
}

/// One transaction. An error means that nothing was written.
fn transact(
    connection: &Connection,
    jobs: &mut [Box<dyn Job>],
    notices: &broadcast::Sender<Change>,
) -> Result<(), StoreError> {
    let mut changes = Vec::new();
    let result = apply_all(connection, jobs, &mut changes);
    if result.is_ok() {
        for change in changes {
            // Nobody watching is no error.
            notices.send(change).ok();
        }
    } else if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "the store could not roll a transaction back");
    }
    result
}

fn apply_all(
    connection: &Connection,
    jobs: &mut [Box<dyn Job>],
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    let run = |step, sql| {
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
            .map_err(|e| StoreError::engine(step, e))
    };
    run("begin a write", "BEGIN IMMEDIATE")?;
    for job in jobs {
        let mark = changes.len();
        run("begin a request", "SAVEPOINT request")?;
        let applied = job.apply(&mut Writer { connection, changes });
        // Some failures (a full disk, an I/O error) make SQLite give up the whole transaction, neighbours included.
        if connection.is_autocommit() {
            return Err(StoreError::Engine {
                step: "keep a transaction open",
                source: Arc::new(io::Error::other("the database gave the transaction up")),
            });
        }
        if !applied {
            changes.truncate(mark);
            run("undo a request", "ROLLBACK TO request")?;
        }
        run("end a request", "RELEASE request")?;
    }
    run("commit", "COMMIT")?;
    Ok(())
}
