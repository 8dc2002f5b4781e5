//! The body of an answer: whole, or made while it is sent.

use crate::pulse::Pulse;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// An answer's body.
pub enum Body {
    /// All of it; it leaves in one write with the head.
    Whole(Bytes),
    /// What its source brings, piece by piece, each sent as soon as it is there. The source is asked for the next piece
    /// when the client has taken the last ones, and dropped when the client is gone.
    Stream(Box<dyn Source>),
}

/// Where a streamed body comes from.
pub trait Source: Send {
    /// The next piece, never an empty one; `None` at the end. After [`Broken`] the connection is ended without the mark that the
    /// body is whole.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>>;
}

/// A streamed body will not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer broke off")
    }
}

impl std::error::Error for Broken {}

impl Body {
    /// A streamed body.
    #[must_use]
    pub fn stream(source: impl Source + 'static) -> Self {
        Self::Stream(Box::new(source))
    }

    /// How many bytes it has, where that is known.
    #[must_use]
    pub fn length(&self) -> Option<usize> {
        match self {
            Self::Whole(bytes) => Some(bytes.len()),
            Self::Stream(_) => None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => f.debug_tuple("Whole").field(&bytes.len()).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// The same as hyper takes it.
pub(crate) struct Outgoing {
    body: Body,
    /// Told when a streamed answer is over: until then the client is not being waited for.
    _over: Option<Over>,
}

struct Over {
    pulse: Arc<Pulse>,
    unread: bool,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.pulse.answered(self.unread);
    }
}

impl Outgoing {
    /// Takes an answer; `unread` when some of the request's body never was read.
    pub(crate) fn new(body: Body, pulse: &Arc<Pulse>, unread: bool) -> Self {
        let over = match &body {
            Body::Whole(_) => {
                pulse.answered(unread);
                None
            }
            Body::Stream(_) => Some(Over { pulse: Arc::clone(pulse), unread }),
        };
        Self { body, _over: over }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.body {
            Body::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Body::Stream(source) => {
                source.poll_next(context).map(|next| next.map(|next| next.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.length() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.length().map_or_else(SizeHint::default, |length| SizeHint::with_exact(length as u64))
    }
}
