//! The provider of a single machine: logs and keys in one SQLite file, blobs as files.

mod committer;
mod files;
mod kv;
mod log;
mod schema;
#[cfg(test)]
mod tests;

use crate::kv::{Change, WATCH_BACKLOG};
use crate::{Answer, Store, StoreError};
use committer::{Committer, Writer};
use files::Files;
use martlet_sqlite::Readers;
use rusqlite::Connection;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Opens the store in `dir`, making it when it is not there: `store.db` (with its `-wal` and `-shm` beside it while
/// it is open) and `blobs/`.
///
/// Blocks for the time of a few file operations; needs no runtime. The answers must be polled inside a tokio
/// runtime. One thread is started; once the last clone of the store is dropped it writes what it accepted and ends.
///
/// Ends all leases (their holders were part of the process that had the store open before). Keeping a second process
/// out of `dir` is the caller's business.
///
/// # Errors
/// [`StoreError::File`], [`StoreError::Engine`], [`StoreError::Full`], and [`StoreError::Newer`] for data of a newer
/// format.
pub fn open_embedded(dir: &Path) -> Result<Store, StoreError> {
    fs::create_dir_all(dir).map_err(|e| StoreError::file("create directory", dir, e))?;
    let blobs = Files::open(&dir.join("blobs"))?;
    let path = dir.join("store.db");
    let connection = schema::open(&path)?;
    let database = Arc::new(Database::start(connection, readers(&path))?);
    Ok(Store { log: database.clone(), kv: database, blobs: Arc::new(blobs) })
}

/// Two idle ones are kept; small, since hot reads are served from snapshots above.
fn readers(path: &Path) -> Readers {
    Readers::new(path, 2, 256)
}

/// Logs and keys: one committer thread for writes, a few connections for reads.
struct Database {
    committer: Committer,
    readers: Arc<Readers>,
    changes: broadcast::Sender<Change>,
}

impl Database {
    fn start(connection: Connection, readers: Readers) -> Result<Self, StoreError> {
        let changes = broadcast::Sender::new(WATCH_BACKLOG);
        let committer = Committer::start(connection, changes.clone())?;
        Ok(Self { committer, readers: Arc::new(readers), changes })
    }

    /// An answer that `action` gives inside the committer's transaction.
    fn write<T: Send + 'static>(
        &self,
        action: impl Fn(&mut Writer<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<T> {
        self.committer.submit(action)
    }

    /// An answer that `action` gives on a connection that only reads, seeing one moment.
    fn read<T: Send + 'static>(
        &self,
        action: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<T> {
        let readers = self.readers.clone();
        Box::pin(async move { readers.read(action).await })
    }
}

/// Runs blocking file work off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) if stopped.is_panic() => std::panic::resume_unwind(stopped.into_panic()),
        Err(_) => Err(StoreError::Closed),
    }
}
