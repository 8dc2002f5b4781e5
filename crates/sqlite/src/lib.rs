//! The connections that only read a SQLite file. WAL lets them read while whoever owns the file writes.

use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a reader waits for a lock: a backup tool may hold the file for a moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a read did not take place.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// SQLite refused or failed.
    #[error("failed to {step}")]
    Engine {
        /// What was being done.
        step: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The runtime is shutting down.
    #[error("the runtime takes no more work")]
    Closed,
}

impl ReadError {
    fn at(step: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Engine { step, source }
    }
}

/// Readers of one file.
#[derive(Debug)]
pub struct Readers {
    path: PathBuf,
    kept: usize,
    cache_kib: u32,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    /// Readers of the file at `path`, which somebody has created in WAL mode before the first read. `kept` connections are
    /// kept while they idle, each with `cache_kib` KiB of pages; more are opened while more reads run at once.
    #[must_use]
    pub fn new(path: &Path, kept: usize, cache_kib: u32) -> Self {
        Self { path: path.to_owned(), kept, cache_kib, idle: Mutex::default() }
    }

    /// Runs `action` in one read transaction on a thread for blocking work. It sees everything that was committed before the
    /// call. A panic in it goes on in the caller.
    ///
    /// # Errors
    /// What `action` returns, or a [`ReadError`] made one of its errors.
    pub async fn read<T, E>(
        self: &Arc<Self>,
        action: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<ReadError> + Send + 'static,
    {
        let readers = Arc::clone(self);
        let work = move || {
            let taken = readers.lock().pop();
            let connection = match taken {
                Some(connection) => connection,
                None => readers.open()?,
            };
            let transaction = connection.unchecked_transaction().map_err(ReadError::at("begin a read"))?;
            let result = action(&transaction);
            drop(transaction);
            let mut idle = readers.lock();
            if idle.len() < readers.kept {
                idle.push(connection);
            }
            result
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(stopped) if stopped.is_panic() => std::panic::resume_unwind(stopped.into_panic()),
            Err(_) => Err(ReadError::Closed.into()),
        }
    }

    fn open(&self) -> Result<Connection, ReadError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)
            .map_err(ReadError::at("open the database for reading"))?;
        connection.busy_timeout(PATIENCE).map_err(ReadError::at("set the busy timeout"))?;
        connection
            .execute_batch(&format!("PRAGMA cache_size = -{}; PRAGMA temp_store = MEMORY;", self.cache_kib))
            .map_err(ReadError::at("set up a reader"))?;
        Ok(connection)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, Connection, Arc<Readers>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let writer = Connection::open(&path).unwrap();
        writer
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n); INSERT INTO t VALUES (1);")
            .unwrap();
        (folder, writer, Arc::new(Readers::new(&path, 1, 64)))
    }

    async fn sum(readers: &Arc<Readers>) -> Result<i64, ReadError> {
        let query = |reader: &Connection| {
            reader.query_row("SELECT sum(n) FROM t", [], |row| row.get(0)).map_err(ReadError::at("sum"))
        };
        readers.read(query).await
    }

    #[tokio::test]
    async fn what_was_committed_is_read_and_one_connection_is_kept() {
        let (_folder, writer, readers) = file();
        assert_eq!(sum(&readers).await.unwrap(), 1);
        writer.execute("INSERT INTO t VALUES (2)", []).unwrap();
        let (one, other) = tokio::join!(sum(&readers), sum(&readers));
        assert_eq!((one.unwrap(), other.unwrap()), (3, 3));
        assert_eq!(readers.lock().len(), 1);
    }

    #[tokio::test]
    async fn nothing_is_written_and_a_missing_file_is_told() {
        let (folder, _writer, readers) = file();
        let write = |reader: &Connection| {
            reader.execute("DELETE FROM t", []).map(|_| ()).map_err(ReadError::at("write"))
        };
        assert!(matches!(readers.read(write).await, Err(ReadError::Engine { step: "write", .. })));
        let nowhere = Arc::new(Readers::new(&folder.path().join("none.db"), 1, 64));
        assert!(matches!(
            sum(&nowhere).await,
            Err(ReadError::Engine { step: "open the database for reading", .. })
        ));
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller_and_harms_no_later_read() {
        let (_folder, _writer, readers) = file();
        let task = {
            let readers = Arc::clone(&readers);
            tokio::spawn(
                async move { readers.read(|_| -> Result<(), ReadError> { panic!("on purpose") }).await },
            )
        };
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(sum(&readers).await.unwrap(), 1);
    }
}
