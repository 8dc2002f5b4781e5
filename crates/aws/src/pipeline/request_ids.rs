//! Request ids, out of randomness that is fetched for many at a time: one system call for each would be a tenth of
//! what the door costs.

use martlet_model::RequestId;
use std::sync::{Mutex, PoisonError};

const BYTES: usize = 16;
const AT_A_TIME: usize = 128;

/// Makes version 4 UUIDs that are unlikely to be guessed and never repeat.
pub(super) struct RequestIds(Mutex<Pool>);

struct Pool {
    bytes: [u8; BYTES * AT_A_TIME],
    used: usize,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Pool { bytes: [0; BYTES * AT_A_TIME], used: AT_A_TIME }))
    }

    pub(super) fn next(&self) -> RequestId {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.used == AT_A_TIME {
            // Without randomness ids repeat, which is bad for logs and for nothing else; no request is refused for it.
            let _ = getrandom::fill(&mut pool.bytes);
            pool.used = 0;
        }
        let start = pool.used * BYTES;
        pool.used += 1;
        let mut random = [0; BYTES];
        random.copy_from_slice(&pool.bytes[start..start + BYTES]);
        RequestId::from_random(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_never_repeat() {
        let ids = RequestIds::new();
        let seen: HashSet<_> = (0..1000).map(|_| ids.next()).collect();
        assert_eq!(seen.len(), 1000);
    }
}
