//! How long and how much the transport lets others take.

use std::time::Duration;

/// How long a connection may wait for its next request. Clients keep theirs for about a minute; to close earlier than
/// they do makes them send requests into closed connections.
pub const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Bounds on what a client may ask of the transport. Every one is a limit, none a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// From the first byte of a request's head, or from accepting the connection, to the head's last; later is answered
    /// 408. Between requests [`KEEP_ALIVE`] counts, or this where it is longer.
    pub header_timeout: Duration,
    /// Longest pause within a body, in either direction: one that comes in too slowly is answered 408, a client that
    /// leaves an answer unread is cut.
    pub body_idle_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// Most bytes of a request's line and headers, at least 8,192; more is answered 431.
    pub max_head_bytes: usize,
    /// Most headers; more is answered 431.
    pub max_headers: usize,
    /// Most connections at once; one more is answered 503 and closed.
    pub max_connections: usize,
}

impl Options {
    pub(crate) fn keep_alive(&self) -> Duration {
        self.header_timeout.max(KEEP_ALIVE)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(20),
            body_idle_timeout: Duration::from_secs(20),
            body_timeout: Duration::from_secs(300),
            max_head_bytes: 64 * 1024,
            max_headers: 100,
            max_connections: 4096,
        }
    }
}
