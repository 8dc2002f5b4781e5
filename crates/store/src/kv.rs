//! The key-value contract: small values with compare-and-set, atomic batches and change notices.

use crate::{Answer, MAX_VALUE_BYTES, StoreError};
use bytes::Bytes;
use std::fmt;
use tokio::sync::broadcast;

/// Counts the writes of one space. Every write gets a revision above all earlier ones, so a key that was deleted
/// and written again never shows an old revision.
pub type Revision = u64;

/// Most writes that one batch may hold.
pub const MAX_BATCH: usize = 1_000;

/// One key's value and the revision that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// The write that put it there; give it to [`Expect::Revision`] to write only if nobody else did.
    pub revision: Revision,
}

/// What a writer expects of a key before its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// That the key does not exist.
    Absent,
    /// That the key exists and was last written by this revision.
    Revision(Revision),
}

impl Expect {
    /// Whether a key in state `found` meets the expectation.
    pub(crate) fn met_by(self, found: Option<Revision>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => found.is_none(),
            Self::Revision(wanted) => found == Some(wanted),
        }
    }

    /// The state of a key in words.
    pub(crate) fn found(found: Option<Revision>) -> String {
        found.map_or_else(|| "no such key".to_owned(), |revision| format!("revision {revision}"))
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any state"),
            Self::Absent => f.write_str("no such key"),
            Self::Revision(revision) => write!(f, "revision {revision}"),
        }
    }
}

/// One step of a [`KeyValue::batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Writes a value.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Bytes,
        /// What must hold before.
        expect: Expect,
    },
    /// Removes a key; removing an absent one is no error unless `expect` says so.
    Delete {
        /// The key.
        key: String,
        /// What must hold before.
        expect: Expect,
    },
    /// Writes nothing and fails the batch unless the key is as expected.
    Check {
        /// The key.
        key: String,
        /// What must hold.
        expect: Expect,
    },
}

impl Write {
    /// The key that the step is about.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } | Self::Check { key, .. } => key,
        }
    }

    /// What the step expects.
    pub(crate) fn expect(&self) -> Expect {
        match self {
            Self::Put { expect, .. } | Self::Delete { expect, .. } | Self::Check { expect, .. } => *expect,
        }
    }
}

/// Notice that a key was written or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// The write.
    pub revision: Revision,
    /// Whether the write removed the key.
    pub deleted: bool,
}

/// What a [`Watch`] yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// A key under the prefix changed.
    Changed(Change),
    /// The watcher was too slow and notices were lost: list the prefix again.
    Missed,
}

/// A stream of changes under one prefix.
pub struct Watch {
    prefix: String,
    changes: broadcast::Receiver<Change>,
}

/// How many changes a slow watcher may fall behind before it sees [`WatchEvent::Missed`].
pub(crate) const WATCH_BACKLOG: usize = 1_024;

impl Watch {
    pub(crate) fn new(prefix: &str, changes: broadcast::Receiver<Change>) -> Self {
        Self { prefix: prefix.to_owned(), changes }
    }

    /// The next change, in the order of revisions; `None` once the store is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            match self.changes.recv().await {
                Ok(change) if change.key.starts_with(&self.prefix) => {
                    return Some(WatchEvent::Changed(change));
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return Some(WatchEvent::Missed),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Small values by key, ordered by the bytes of the key.
///
/// Keys are 1 to 1,024 bytes of UTF-8 without NUL, values at most [`MAX_VALUE_BYTES`]; what breaks this is refused
/// with [`StoreError::Invalid`] or [`StoreError::TooLarge`].
pub trait KeyValue: Send + Sync {
    /// The value of `key`, `None` when there is none.
    fn get(&self, key: &str) -> Answer<Option<Entry>>;

    /// Up to `max` entries whose key begins with `prefix`, in order, beginning after the key `after`. One call sees
    /// one moment; two calls may see two.
    fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Answer<Vec<(String, Entry)>>;

    /// Writes `value` if the key is as expected; answers the revision of the write.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the key is not as expected.
    fn put(&self, key: &str, value: Bytes, expect: Expect) -> Answer<Revision>;

    /// Removes `key` if it is as expected; answers whether it was there.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the key is not as expected.
    fn delete(&self, key: &str, expect: Expect) -> Answer<bool>;

    /// Does all the steps or none, and answers one revision for each: that of the write, or for a check and for the
    /// deletion of an absent key the highest revision given out so far. At most [`MAX_BATCH`] steps, on distinct keys.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for the first key that is not as expected.
    fn batch(&self, writes: Vec<Write>) -> Answer<Vec<Revision>>;

    /// Notices of every change under `prefix` that becomes durable after this call, in order. A caller that watches
    /// first and lists then misses nothing. Notices are not durable and carry no values.
    fn watch(&self, prefix: &str) -> Watch;
}

/// Checks a key against the contract.
pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    if (1..=1_024).contains(&key.len()) && !key.contains('\0') {
        return Ok(());
    }
    Err(StoreError::invalid("key", key, "it takes 1 to 1024 bytes without NUL"))
}

/// Checks the steps of a batch against the contract.
pub(crate) fn check_batch(writes: &[Write]) -> Result<(), StoreError> {
    if writes.len() > MAX_BATCH {
        return Err(StoreError::TooLarge { what: "batch", bytes: writes.len(), limit: MAX_BATCH });
    }
    let mut keys: Vec<&str> = writes.iter().map(Write::key).collect();
    keys.sort_unstable();
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(StoreError::invalid("batch key", pair[0], "a batch names each key once"));
    }
    for write in writes {
        check_key(write.key())?;
        match write {
            Write::Put { value, .. } if value.len() > MAX_VALUE_BYTES => {
                return Err(StoreError::TooLarge {
                    what: "value",
                    bytes: value.len(),
                    limit: MAX_VALUE_BYTES,
                });
            }
            _ => {}
        }
    }
    Ok(())
}
