//! The response of an invocation, while the function still makes it.
//!
//! Between whoever drives the environment and whoever reads stands a bounded queue: a reader that does not read stops the
//! writer, and through its socket the function.

use bytes::{Bytes, BytesMut};
use martlet_model::limits::{RESPONSE_SLACK_BYTES, STREAMED_RESPONSE_BYTES, SYNC_RESPONSE_BYTES};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::outcome::Failure;

/// From so many bytes on that nobody has read, the function is not listened to.
const ROOM_BYTES: usize = 256 * 1024;
/// The content type of a response that was not streamed.
const PLAIN: &str = "application/json";
/// The content type of a streamed one that says none.
const STREAMED: &str = "application/octet-stream";

/// A piece of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The function has begun to answer, with this content type. Comes first, and once.
    Begun(String),
    /// Bytes of the response, at least one.
    Data(Bytes),
}

/// Both ends of a response that is read while it is made.
#[must_use]
pub fn response_stream() -> (ResponseSink, ResponseStream) {
    let shared = Arc::new(Shared(Mutex::new(Queue { sinks: 1, ..Queue::default() })));
    (ResponseSink(Arc::clone(&shared)), ResponseStream(shared))
}

/// The writing end, for an environment. The stream ends when its last clone is dropped.
#[derive(Debug)]
pub struct ResponseSink(Arc<Shared>);

/// The reading end. Dropped, it takes everything from then on: the function does not notice.
#[derive(Debug)]
pub struct ResponseStream(Arc<Shared>);

#[derive(Debug)]
struct Shared(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    bytes: usize,
    sinks: usize,
    unread: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Clone for ResponseSink {
    fn clone(&self) -> Self {
        self.0.lock().sinks += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for ResponseSink {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.sinks -= 1;
        if queue.sinks == 0 {
            wake(&mut queue.reader);
        }
    }
}

impl ResponseSink {
    /// Adds a piece; [`ResponseSink::poll_room`] says when that is welcome.
    pub fn push(&self, piece: Piece) {
        let mut queue = self.0.lock();
        if queue.unread {
            return;
        }
        if let Piece::Data(data) = &piece {
            if data.is_empty() {
                return;
            }
            queue.bytes += data.len();
        }
        queue.pieces.push_back(piece);
        wake(&mut queue.reader);
    }

    /// Ready when there is room for more, or nobody left to read it.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.0.lock();
        if queue.unread || queue.bytes < ROOM_BYTES {
            return Poll::Ready(());
        }
        queue.writer = Some(context.waker().clone());
        Poll::Pending
    }
}

impl ResponseStream {
    /// The next piece; `None` when there will be none.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        let mut queue = self.0.lock();
        let Some(piece) = queue.pieces.pop_front() else {
            if queue.sinks == 0 {
                return Poll::Ready(None);
            }
            queue.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        if let Piece::Data(data) = &piece {
            queue.bytes -= data.len();
            if queue.bytes < ROOM_BYTES {
                wake(&mut queue.writer);
            }
        }
        Poll::Ready(Some(piece))
    }

    /// The same as a future; dropped, it loses nothing.
    pub async fn next(&mut self) -> Option<Piece> {
        poll_fn(|context| self.poll_next(context)).await
    }
}

impl Drop for ResponseStream {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.unread = true;
        queue.pieces.clear();
        queue.bytes = 0;
        wake(&mut queue.writer);
    }
}

/// The content type of a streamed response, as its runtime gave it or as it is without.
pub(crate) fn content_type(given: Option<&str>) -> String {
    given.filter(|given| (1..=256).contains(&given.len())).unwrap_or(STREAMED).to_owned()
}

/// What a runtime sends of a response that it makes piece by piece.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The beginning: its content type, and the first bytes, if they came along.
    Begun { content_type: String, data: Bytes },
    /// More bytes.
    Data(Bytes),
    /// All of it was sent.
    Ended,
}

/// Where the response to the event at hand goes: to a reader, or into one piece for a caller who wants it whole.
#[derive(Debug, Default)]
pub(crate) struct Response {
    sink: Option<ResponseSink>,
    begun: bool,
    collected: BytesMut,
    bytes: usize,
}

impl Response {
    /// For the next event.
    pub(crate) fn to(sink: ResponseSink) -> Self {
        Self { sink: Some(sink), ..Self::default() }
    }

    /// Some of it may have been read: the event must not be given to anybody else.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Bytes that were streamed, the dropped ones too.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the runtime is to be listened to now.
    pub(crate) fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        match &self.sink {
            Some(sink) if self.begun => sink.poll_room(context),
            _ => Poll::Ready(()),
        }
    }

    fn limit(&self) -> usize {
        if self.sink.is_some() { STREAMED_RESPONSE_BYTES } else { SYNC_RESPONSE_BYTES + RESPONSE_SLACK_BYTES }
    }

    /// Takes a part. At the end: the response, or what is wrong with it.
    pub(crate) fn take(&mut self, part: Part) -> Option<Result<Bytes, Failure>> {
        match part {
            Part::Begun { content_type, data } => {
                self.begun = true;
                if let Some(sink) = &self.sink {
                    sink.push(Piece::Begun(content_type));
                }
                self.data(data);
                None
            }
            Part::Data(data) => {
                self.data(data);
                None
            }
            // What is over the limit was read and dropped: the runtime lives on.
            Part::Ended if self.bytes > self.limit() => Some(Err(Failure::longer_than(self.limit()))),
            Part::Ended => Some(Ok(std::mem::take(&mut self.collected).freeze())),
        }
    }

    fn data(&mut self, data: Bytes) {
        self.bytes = self.bytes.saturating_add(data.len());
        if self.bytes > self.limit() {
            self.collected = BytesMut::new();
            return;
        }
        match &self.sink {
            Some(sink) => sink.push(Piece::Data(data)),
            None => self.collected.extend_from_slice(&data),
        }
    }

    /// The function answered all at once.
    pub(crate) fn whole(&self, payload: &Bytes) {
        if let Some(sink) = &self.sink
            && !self.begun
        {
            sink.push(Piece::Begun(PLAIN.to_owned()));
            sink.push(Piece::Data(payload.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn begun() -> Part {
        Part::Begun { content_type: "text/plain".into(), data: Bytes::from_static(b"a") }
    }

    #[tokio::test]
    async fn pieces_come_out_in_order_and_then_the_end() {
        let (sink, mut stream) = response_stream();
        let mut response = Response::to(sink.clone());
        assert_eq!(response.take(begun()), None);
        assert_eq!(response.take(Part::Data("b".into())), None);
        assert_eq!(stream.next().await, Some(Piece::Begun("text/plain".into())));
        assert_eq!(stream.next().await, Some(Piece::Data("a".into())));
        assert_eq!(response.take(Part::Ended), Some(Ok(Bytes::new())), "nothing is kept besides");
        drop(sink);
        assert_eq!(stream.next().await, Some(Piece::Data("b".into())));
        let waiting = tokio::spawn(async move { stream.next().await });
        tokio::task::yield_now().await;
        drop(response);
        assert_eq!(waiting.await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_full_queue_stops_the_writer_until_it_is_read_or_nobody_is_left() {
        let (sink, mut stream) = response_stream();
        let mut response = Response::to(sink);
        response.take(begun());
        response.take(Part::Data(Bytes::from(vec![0; ROOM_BYTES])));
        let full =
            tokio::time::timeout(Duration::from_millis(20), poll_fn(|context| response.poll_room(context)));
        assert!(full.await.is_err());
        let writer = tokio::spawn(async move {
            poll_fn(|context| response.poll_room(context)).await;
            response.take(Part::Data(Bytes::from(vec![0; ROOM_BYTES])));
            poll_fn(|context| response.poll_room(context)).await;
        });
        for _ in 0..3 {
            stream.next().await.unwrap();
        }
        tokio::task::yield_now().await;
        drop(stream);
        tokio::time::timeout(Duration::from_secs(10), writer).await.expect("it goes on").unwrap();
    }

    #[tokio::test]
    async fn what_nobody_reads_piece_by_piece_is_collected_up_to_the_limit() {
        let mut response = Response::default();
        response.take(begun());
        response.take(Part::Data("b".into()));
        assert_eq!(response.take(Part::Ended), Some(Ok("ab".into())));

        let mut response = Response::default();
        response.take(begun());
        for _ in 0..7 {
            response.take(Part::Data(Bytes::from(vec![0; 1024 * 1024])));
        }
        let refused = response.take(Part::Ended).unwrap().unwrap_err();
        assert_eq!(refused.error_type, "Function.ResponseSizeTooLarge");
    }

    #[tokio::test]
    async fn a_response_in_one_piece_is_a_stream_of_one() {
        let (sink, mut stream) = response_stream();
        let response = Response::to(sink);
        response.whole(&"{}".into());
        drop(response);
        assert_eq!(stream.next().await, Some(Piece::Begun("application/json".into())));
        assert_eq!(stream.next().await, Some(Piece::Data("{}".into())));
        assert_eq!(stream.next().await, None);
    }
}
