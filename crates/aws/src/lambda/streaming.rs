//! An invocation whose response is read while the function makes it.

use martlet_engine::{Ran, Rejected};
use martlet_environment::{Piece, ResponseStream};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// What happens next to such an invocation.
#[derive(Debug)]
pub enum Step {
    /// A piece of the response.
    Piece(Piece),
    /// The end: what became of the invocation, or why there was none. Nothing comes after it.
    End(Result<Ran, Rejected>),
}

/// The reader's end. Dropped, the invocation goes on and what it answers is thrown away.
#[derive(Debug)]
pub struct Streaming {
    response: ResponseStream,
    running: JoinHandle<Result<Ran, Rejected>>,
}

impl Streaming {
    /// Reads `response` of what `running` runs.
    #[must_use]
    pub fn new(response: ResponseStream, running: JoinHandle<Result<Ran, Rejected>>) -> Self {
        Self { response, running }
    }

    /// The next step. Not to be called after the end.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if let Some(piece) = ready!(self.response.poll_next(context)) {
            return Poll::Ready(Step::Piece(piece));
        }
        let ended = ready!(Pin::new(&mut self.running).poll(context));
        // It has panicked, or the server ends.
        Poll::Ready(Step::End(ended.unwrap_or_else(|error| {
            Err(if error.is_panic() {
                Rejected::StartFailed(Arc::from("it panicked"))
            } else {
                Rejected::Closing
            })
        })))
    }

    /// The same as a future; dropped, it loses nothing.
    pub async fn next(&mut self) -> Step {
        poll_fn(|context| self.poll_next(context)).await
    }
}
