//! Reading a request's body into one piece of memory, within its limits.

use crate::door::BodyFault;
use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Most bytes of a refused body that are read and thrown away, so that a client which only reads after it has written
/// everything gets to see the refusal. Above it the connection is cut.
const DISCARD_BYTES: usize = 128 * 1024 * 1024;

/// How patient the reading is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Between two pieces.
    pub(crate) idle: Duration,
    /// From the first to the last.
    pub(crate) total: Duration,
}

/// Reads the whole body. One that arrives in one piece is not copied.
pub(crate) async fn collect<B>(body: &mut B, limit: usize, patience: Patience) -> Result<Bytes, BodyFault>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = body.size_hint();
    if announced.lower() > limit as u64 {
        return Err(BodyFault::TooLarge);
    }
    let deadline = Instant::now() + patience.total;
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    loop {
        let piece = match next(body, patience.idle, deadline).await? {
            Some(piece) => piece,
            None if whole.is_empty() => return Ok(first),
            None => return Ok(whole.freeze()),
        };
        if first.len().max(whole.len()) + piece.len() > limit {
            return Err(BodyFault::TooLarge);
        }
        if first.is_empty() {
            first = piece;
        } else {
            if whole.is_empty() {
                // What is announced was checked against the limit above.
                whole.reserve((announced.lower() as usize).max(first.len() + piece.len()));
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&piece);
        }
    }
}

/// Reads the rest of a body and throws it away, as far as limits and patience go.
pub(crate) async fn discard<B>(body: &mut B, patience: Patience)
where
    B: Body<Data = Bytes> + Unpin,
{
    let deadline = Instant::now() + patience.total;
    let mut seen = 0;
    while let Ok(Some(piece)) = next(body, patience.idle, deadline).await {
        seen += piece.len();
        if seen > DISCARD_BYTES {
            return;
        }
    }
}

async fn next<B>(body: &mut B, idle: Duration, deadline: Instant) -> Result<Option<Bytes>, BodyFault>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        let frame = match timeout_at(deadline, timeout(idle, body.frame())).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(_)) | Err(_) => return Err(BodyFault::TimedOut),
        };
        match frame {
            None => return Ok(None),
            Some(Err(_)) => return Err(BodyFault::Malformed),
            // Trailers carry nothing that any protocol of ours reads.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(_) => {}
            },
        }
    }
}
