//! Random bytes for ids, fetched for many at a time: one system call for each id would be a tenth of what the door costs.

use martlet_model::RequestId;
use std::fmt;
use std::sync::{Mutex, PoisonError};

const POOL: usize = 4096;

/// Bytes that are unlikely to be guessed and are given out once. For ids, not for keys: what is fetched ahead stays in memory.
pub struct Randomness(Mutex<Pool>);

struct Pool {
    bytes: [u8; POOL],
    used: usize,
}

impl Randomness {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Pool { bytes: [0; POOL], used: POOL }))
    }

    /// The next bytes, at most 4 KB.
    pub fn take<const N: usize>(&self) -> [u8; N] {
        const { assert!(N <= POOL) };
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if POOL - pool.used < N {
            // Without randomness ids repeat, which is bad for logs and for nothing else; no request is refused for it.
            let _ = getrandom::fill(&mut pool.bytes);
            pool.used = 0;
        }
        let start = pool.used;
        pool.used += N;
        let mut taken = [0; N];
        taken.copy_from_slice(&pool.bytes[start..start + N]);
        taken
    }

    pub(super) fn request_id(&self) -> RequestId {
        RequestId::from_random(self.take())
    }
}

impl fmt::Debug for Randomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Randomness(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_never_repeat() {
        let randomness = Randomness::new();
        let seen: HashSet<_> = (0..1000).map(|_| randomness.request_id()).collect();
        assert_eq!(seen.len(), 1000);
        let odd: HashSet<_> = (0..1000).map(|_| randomness.take::<20>()).collect();
        assert_eq!(odd.len(), 1000);
    }
}
