//! What can go wrong in a store, one variant for each kind of failure that a caller may want to tell apart.

use crate::blobs::Digest;
use crate::kv::{Expect, Revision};
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a request to the store failed. Cheap to clone: one failed commit answers many waiters.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or the quota on it, is exhausted. Reads go on; writes succeed again once there is room.
    #[error("no room left for {step}: free space on the disk that holds the data directory")]
    Full {
        /// What was being done.
        step: &'static str,
        /// What the engine or the system said.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The database refused or failed.
    #[error("the store failed to {step}")]
    Engine {
        /// What was being done.
        step: &'static str,
        /// What the engine said.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A file operation failed.
    #[error("could not {step} {}", path.display())]
    File {
        /// What was being done, as a verb that the path follows.
        step: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The data was written by a newer Martlet whose format this one does not know.
    #[error("{} has format {found}, this version knows up to {known}: start it with the newer martlet", path.display())]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The format number in the file.
        found: u32,
        /// The newest format number known here.
        known: u32,
    },
    /// Compare-and-set found another state than the writer expected. Nothing of the batch was written.
    #[error("key {key:?} is not as expected: wanted {expected}, found {}", Expect::found(*found))]
    Conflict {
        /// The key whose state differs.
        key: String,
        /// What the writer expected.
        expected: Expect,
        /// The revision found, `None` when the key is absent.
        found: Option<Revision>,
    },
    /// A name or an argument breaks the contract's rules.
    #[error("{what} {value:?} is not valid: {rule}")]
    Invalid {
        /// Which argument.
        what: &'static str,
        /// What was given, shortened.
        value: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A payload or value is over [`crate::MAX_VALUE_BYTES`].
    #[error("{what} of {bytes} bytes is too large: the limit is {limit}")]
    TooLarge {
        /// Which argument.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A blob's bytes no longer have the digest that they are stored under.
    #[error("blob {digest} is damaged: restore it from a backup, or delete it and store it again")]
    Damaged {
        /// The digest it should have.
        digest: Digest,
    },
    /// The store was closed while the request was under way; whether a write happened is unknown.
    #[error("the store is closed")]
    Closed,
}

impl From<martlet_sqlite::ReadError> for StoreError {
    fn from(error: martlet_sqlite::ReadError) -> Self {
        match error {
            martlet_sqlite::ReadError::Engine { step, source } => Self::engine(step, source),
            martlet_sqlite::ReadError::Closed => Self::Closed,
        }
    }
}

impl StoreError {
    /// Wraps an engine error, telling a full disk from the rest.
    pub(crate) fn engine(step: &'static str, source: rusqlite::Error) -> Self {
        let full = source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        let source = Arc::new(source);
        if full { Self::Full { step, source } } else { Self::Engine { step, source } }
    }

    /// Wraps a file error, telling a full disk from the rest.
    pub(crate) fn file(step: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { step, source: Arc::new(source) }
            }
            _ => Self::File { step, path: path.to_owned(), source: Arc::new(source) },
        }
    }

    /// Refuses an argument; long values are cut for the message.
    pub(crate) fn invalid(what: &'static str, value: &str, rule: &'static str) -> Self {
        Self::Invalid { what, value: value.chars().take(80).collect(), rule }
    }
}
