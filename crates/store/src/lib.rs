//! Durable state behind three contracts: an ordered [`Log`], a [`KeyValue`] space and [`Blobs`] by digest.
//!
//! The contracts are object-safe traits, and their doc comments say what a provider owes: order, what is on stable
//! storage when a future resolves, what becomes of leases when the store is opened again, and which error means
//! what. One suite (`conformance`, behind the feature of that name) holds every provider to them.
//!
//! Two providers live here. [`open_embedded`] keeps logs and keys in one SQLite file, written by a single committer
//! thread that turns whatever requests are ready into one transaction, and blobs as files named by their digest.
//! `Memory` (feature `memory`) keeps everything in memory, for tests.
//!
//! Rules that hold for every method of every contract:
//! - Nothing happens before the returned future is polled. Dropping a future that was polled leaves it open whether
//!   its write happens; it never happens in part.
//! - When the future of a write resolves to `Ok`, the write survives a loss of power.
//! - When it resolves to an error other than [`StoreError::Closed`], the write did not happen.
//! - A read that begins after a write's future resolved sees that write.
//! - A provider answers full disks and I/O errors with errors and goes on serving what it still can.

mod blobs;
mod embedded;
mod error;
mod kv;
mod log;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(any(test, feature = "memory"))]
mod memory;

pub use blobs::{Blobs, Digest, DigestError};
pub use embedded::open_embedded;
pub use error::StoreError;
pub use kv::{Change, Entry, Expect, KeyValue, MAX_BATCH, Revision, Watch, WatchEvent, Write};
pub use log::{Lease, Leased, Log, Position, Record, Release, TopicState};
#[cfg(any(test, feature = "memory"))]
pub use memory::Memory;

use std::pin::Pin;
use std::sync::Arc;

/// What every method of the contracts returns: a boxed future, so that the contracts stay object-safe.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'static>>;

/// Largest payload of one log record and largest value of one key, in bytes (512 KiB). What is bigger goes to
/// [`Blobs`] and leaves its digest here.
pub const MAX_VALUE_BYTES: usize = 512 * 1024;

/// The three contracts of one provider, over the same durable state. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    /// Ordered records by topic.
    pub log: Arc<dyn Log>,
    /// Values by key, with compare-and-set.
    pub kv: Arc<dyn KeyValue>,
    /// Big immutable values by their digest.
    pub blobs: Arc<dyn Blobs>,
}
