//! Work on large bodies: hashing, parsing and decoding 70 MB takes a good part of a second, in which no other request
//! should have to wait for this thread.

use std::future::pending;
use std::panic::resume_unwind;

/// Bodies from this size on are worth the way to another thread.
const LARGE: usize = 1024 * 1024;

/// Whether work on a body of `bytes` is for [`elsewhere`].
pub(crate) fn is_large(bytes: usize) -> bool {
    bytes >= LARGE
}

/// Runs `work` on a thread that may take its time. A panic in it is passed on.
pub(crate) async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is being shut down, and this task with it.
            Err(_) => pending().await,
        },
    }
}
