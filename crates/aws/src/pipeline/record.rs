//! The last step: one line for every request, with what is known of it by then.

use http::{Method, StatusCode};
use martlet_model::RequestId;
use std::net::SocketAddr;
use std::time::Duration;

/// What the access log tells of one request.
pub(super) struct Record<'a> {
    pub(super) request_id: &'a RequestId,
    pub(super) peer: SocketAddr,
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) operation: &'a str,
    pub(super) account: &'a str,
    pub(super) status: StatusCode,
    pub(super) code: Option<&'a str>,
    pub(super) bytes_in: usize,
    pub(super) bytes_out: usize,
    pub(super) took: Duration,
}

/// What went well is told at debug level, so that a busy server's log is about what did not.
macro_rules! line {
    ($level:ident, $record:expr) => {
        tracing::$level!(
            target: "martlet::access",
            request_id = $record.request_id.as_str(),
            peer = %$record.peer,
            method = cut($record.method.as_str()),
            path = cut($record.path),
            operation = $record.operation,
            account = $record.account,
            status = $record.status.as_u16(),
            code = $record.code,
            bytes_in = $record.bytes_in,
            bytes_out = $record.bytes_out,
            micros = u64::try_from($record.took.as_micros()).unwrap_or(u64::MAX),
        )
    };
}

/// Anybody may send a path of 60 KB; nobody needs it in the log.
fn cut(text: &str) -> &str {
    let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= 200);
    end.map_or(text, |end| &text[..end])
}

pub(super) fn write(record: &Record<'_>) {
    match record.status.as_u16() {
        500.. => line!(warn, record),
        400.. => line!(info, record),
        _ => line!(debug, record),
    }
}
