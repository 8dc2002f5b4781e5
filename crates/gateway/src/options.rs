//! How long and how much the transport lets others take.

use std::time::Duration;

/// Limits of one listener. The defaults suit clients on any network; everything is a bound, none a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayOptions {
    /// Most connections at a time; further ones are answered with 503 and closed.
    pub max_connections: usize,
    /// Most headers of a request; more are answered with 431.
    pub max_headers: usize,
    /// Most bytes of a request's head, at least 8,192; more are answered with 431.
    pub max_header_bytes: usize,
    /// From the first byte of a head (or from accepting the connection) to its last; later is answered with 408.
    pub header_timeout: Duration,
    /// Longest pause within a body.
    pub body_idle_timeout: Duration,
    /// Longest time for a whole body.
    pub body_timeout: Duration,
    /// Longest time that a client may leave an answer unread.
    pub write_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub keep_alive_timeout: Duration,
    /// How long requests in flight may take once the server is draining.
    pub drain_timeout: Duration,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_headers: 100,
            max_header_bytes: 64 * 1024,
            header_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(20),
            body_timeout: Duration::from_secs(300),
            write_timeout: Duration::from_secs(60),
            keep_alive_timeout: Duration::from_secs(75),
            drain_timeout: Duration::from_secs(30),
        }
    }
}
