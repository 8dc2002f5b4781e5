//! Work on large bodies: hashing, parsing and decoding 70 MB takes a good part of a second, in which no other request
//! should have to wait for this thread.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Bodies from this size on are worth moving the thread's other tasks elsewhere.
const LARGE: usize = 1024 * 1024;

/// Runs `work` on a body of `bytes`.
pub(super) fn run<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let elsewhere = bytes >= LARGE
        && Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if elsewhere { tokio::task::block_in_place(work) } else { work() }
}
