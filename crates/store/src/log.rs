//! The log contract: ordered durable records by topic, with leases for work that must be done at least once.

use crate::{Answer, MAX_VALUE_BYTES, StoreError};
use bytes::Bytes;
use martlet_model::Timestamp;

/// Where a record stands in its topic. The first record of a topic has position 1; each next one has the next
/// number, and no number is used twice, whatever was trimmed or acknowledged.
pub type Position = u64;

/// One record as [`Log::read`] returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub position: Position,
    /// What was appended.
    pub payload: Bytes,
}

/// The right to work on one record. The pair is the fencing token: an older lease of the same record never
/// acknowledges, extends or releases a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The record.
    pub position: Position,
    /// How often it has been leased, this lease included: 1 on the first attempt.
    pub attempt: u32,
}

/// A record that [`Log::lease`] handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// To be given to `acknowledge`, `extend` or `release`.
    pub lease: Lease,
    /// What the last release noted, 0 before one did.
    pub note: u32,
    /// What was appended.
    pub payload: Bytes,
}

/// The end of a lease whose work is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The lease.
    pub lease: Lease,
    /// Until when the record is hidden; `Timestamp(0)`: visible at once.
    pub visible_at: Timestamp,
    /// A number for whoever leases the record next, durable with the delay. What it counts is the holders' affair.
    pub note: u32,
}

/// What a topic holds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// The position that the next append begins at.
    pub next: Position,
    /// How many records are there, leased ones included.
    pub records: u64,
    /// When the next record that is now leased or delayed becomes visible, if nobody acknowledges, extends or
    /// releases it before: the time to call [`Log::lease`] again. `Timestamp(0)` when one is visible already.
    /// `None` when there is nothing to wait for but an append.
    pub next_visible: Option<Timestamp>,
}

/// Ordered durable records by topic.
///
/// A topic comes into being with its first append. It can be read as a stream (`read`, `trim`) and worked on as a
/// queue (`lease`, `acknowledge`, `release`); a leased record still shows in `read`, an acknowledged one is gone.
///
/// **Leases.** A record is *visible* unless a lease or a delay hides it. `lease` takes the visible records with the
/// lowest positions and hides each until a time that the caller chooses. A lease is *current* until the record is
/// leased again, released, acknowledged or trimmed. Passing its time does not by itself end it: a holder that comes
/// late but before anybody else may still acknowledge. The clock is the caller's: providers compare the times they
/// are given and read none.
///
/// **Opening again.** Records, positions, attempt counts, and delays and notes set by `release` survive. A provider whose lease
/// holders die with the process (both in this crate) ends all leases when it is opened: the records are visible at
/// once, and the old leases are no longer current. One whose holders live elsewhere leaves leases to run out.
///
/// Topic names are 1 to 200 ASCII letters, digits and `. _ - /`; others are refused with [`StoreError::Invalid`].
pub trait Log: Send + Sync {
    /// Appends all of `records`, in order and without a gap, or none; answers the position of the first.
    ///
    /// Appends to one topic have the order of their positions. When this resolves, the records are on stable storage
    /// and visible.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] without records; [`StoreError::TooLarge`] for one over [`MAX_VALUE_BYTES`].
    fn append(&self, topic: &str, records: &[Bytes]) -> Answer<Position>;

    /// Up to `max` records from position `from` on, in order, whether leased or not. Fewer than `max` means that
    /// there were no more; positions missing in between were acknowledged.
    fn read(&self, topic: &str, from: Position, max: usize) -> Answer<Vec<Record>>;

    /// Leases up to `max` of the records visible at `now`, lowest positions first, until `until`.
    ///
    /// Every attempt count that this answers is on stable storage before it resolves: whatever happens during the
    /// attempt, the next lease of the record counts one more. An empty answer costs no write.
    fn lease(&self, topic: &str, max: usize, until: Timestamp, now: Timestamp) -> Answer<Vec<Leased>>;

    /// Moves the end of leases that are current to `until`. Answers the leases that were no longer current.
    fn extend(&self, topic: &str, leases: &[Lease], until: Timestamp) -> Answer<Vec<Lease>>;

    /// Removes the records of leases that are current: their work is done for good. Answers the leases that were no
    /// longer current; somebody else has or had those records.
    fn acknowledge(&self, topic: &str, leases: &[Lease]) -> Answer<Vec<Lease>>;

    /// Ends leases that are current, hides each of their records until a time of its own, and notes a number for the next
    /// holder. The attempt stays counted; delay and note are durable. Answers the leases that were no longer current.
    fn release(&self, topic: &str, releases: &[Release]) -> Answer<Vec<Lease>>;

    /// Removes every record before position `before`, leased or not. A position past the end removes all and leaves
    /// the next position as it was.
    fn trim(&self, topic: &str, before: Position) -> Answer<()>;

    /// What the topic holds; a topic that nobody appended to has `next` 1 and no records.
    fn state(&self, topic: &str) -> Answer<TopicState>;
}

/// Checks a topic name against the contract.
pub(crate) fn check_topic(topic: &str) -> Result<(), StoreError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    if (1..=200).contains(&topic.len()) && topic.bytes().all(word) {
        return Ok(());
    }
    Err(StoreError::invalid("topic", topic, "it takes 1 to 200 letters, digits and any of . _ - /"))
}

/// Checks the arguments of an append against the contract.
pub(crate) fn check_append(topic: &str, records: &[Bytes]) -> Result<(), StoreError> {
    check_topic(topic)?;
    if records.is_empty() {
        return Err(StoreError::invalid("records", "[]", "an append takes at least one record"));
    }
    match records.iter().map(Bytes::len).find(|bytes| *bytes > MAX_VALUE_BYTES) {
        Some(bytes) => Err(StoreError::TooLarge { what: "record", bytes, limit: MAX_VALUE_BYTES }),
        None => Ok(()),
    }
}
