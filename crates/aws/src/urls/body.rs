//! The body of a streamed answer.

use crate::lambda::{Step, Streaming};
use bytes::Bytes;
use martlet_environment::Piece;
use martlet_gateway::{Broken, Source};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// What the function goes on to say, until it ends, fails or falls silent.
pub(super) struct Body {
    first: Bytes,
    streaming: Option<Streaming>,
    idle: Duration,
    /// Exists only while the function is waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Body {
    /// `first`, and then what `streaming` brings; at most `idle` may pass between two pieces.
    pub(super) fn new(first: Bytes, streaming: Streaming, idle: Duration) -> Self {
        Self { first, streaming: Some(streaming), idle, timer: None }
    }

    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let idle = self.idle;
        self.timer.get_or_insert_with(|| Box::pin(sleep(idle))).as_mut().poll(context)
    }
}

impl Source for Body {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.first))));
        }
        loop {
            let Some(streaming) = &mut self.streaming else { return Poll::Ready(None) };
            match streaming.poll_next(context) {
                Poll::Ready(Step::Piece(Piece::Begun(_))) => {}
                Poll::Ready(Step::Piece(Piece::Data(data))) => {
                    if let Some(timer) = &mut self.timer {
                        timer.as_mut().reset(Instant::now() + self.idle);
                    }
                    return Poll::Ready(Some(Ok(data)));
                }
                Poll::Ready(Step::End(ended)) => {
                    self.streaming = None;
                    let whole = ended.is_ok_and(|ran| ran.completed.function_error.is_none());
                    return Poll::Ready(if whole { None } else { Some(Err(Broken)) });
                }
                Poll::Pending => {
                    std::task::ready!(self.poll_silence(context));
                    tracing::info!(
                        seconds = self.idle.as_secs(),
                        "a streamed answer fell silent and was broken off"
                    );
                    self.streaming = None;
                    return Poll::Ready(Some(Err(Broken)));
                }
            }
        }
    }
}
