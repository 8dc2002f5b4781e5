//! The memory that all bodies of a server share, so that many large ones at a time are refused instead of taking the
//! machine's.

use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most bytes of large bodies at a time: some eighty invocations with the largest payload, or seven packages.
const ROOM_BYTES: usize = 512 * 1024 * 1024;
/// What is counted. The first unit of a body is free, so that small requests are served whatever large ones do.
const UNIT_BYTES: usize = 64 * 1024;

/// The room that is left. Clones share it.
#[derive(Clone)]
pub(crate) struct Room(Arc<Semaphore>);

/// What one body has taken; given back when the last reference to the body goes.
#[derive(Default)]
pub(crate) struct Share(Option<OwnedSemaphorePermit>);

struct Held {
    bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Room {
    pub(crate) fn new() -> Self {
        Self::of(ROOM_BYTES)
    }

    pub(crate) fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT_BYTES)))
    }

    /// Lets `share` grow to a body of `bytes`; false when there is no room for it.
    pub(crate) fn grow(&self, share: &mut Share, bytes: usize) -> bool {
        let held = share.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = (bytes / UNIT_BYTES).saturating_sub(held);
        if wanted == 0 {
            return true;
        }
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&self.0).try_acquire_many_owned(wanted) else { return false };
        match &mut share.0 {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        true
    }
}

impl Share {
    /// The finished body, which carries its share with it.
    pub(crate) fn attach(self, bytes: Vec<u8>) -> Bytes {
        match self.0 {
            Some(share) => Bytes::from_owner(Held { bytes, _share: share }),
            None => Bytes::from(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_by_large_bodies_and_given_back() {
        let room = Room::of(4 * UNIT_BYTES);
        let (mut one, mut other) = (Share::default(), Share::default());
        assert!(
            room.grow(&mut one, 10)
                && room.grow(&mut one, 2 * UNIT_BYTES)
                && room.grow(&mut one, 3 * UNIT_BYTES)
        );
        assert!(!room.grow(&mut other, 2 * UNIT_BYTES), "one unit is left");
        assert!(room.grow(&mut other, UNIT_BYTES - 1), "small bodies take none");
        let body = one.attach(vec![7; 3 * UNIT_BYTES]);
        let part = body.slice(1..2);
        drop(body);
        assert!(!room.grow(&mut other, 2 * UNIT_BYTES), "a part of the body still holds all of it");
        drop(part);
        assert!(room.grow(&mut other, 4 * UNIT_BYTES));
    }
}
