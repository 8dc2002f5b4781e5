//! The server's end of a managed runtime's control socket.

use crate::bootstraps::CONTROL_FD;
use crate::frame::{self, Decoded, Frame, FrameError, FunctionMeta, InvokeMeta, Kind, RestoreMeta};
use crate::life::Input;
use crate::outcome::Failure;
use crate::stream::Part;
use bytes::{Buf, Bytes};
use martlet_model::{Invocation, Timestamp};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime;

/// Most bytes that the receive buffer grows by at once: what a frame announces is not room that it has earned.
const GROWTH: usize = 256 * 1024;
const FIRST_READ: usize = 4 * 1024;

/// One event is under way at a time; the task that waits for its answer does the reading and the writing.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Registered for reading alone: news that the runtime has read an event, and the socket is writable again, would wake
    /// a thread for nothing.
    socket: AsyncFd<OwnedFd>,
    /// The same socket, registered for writing, while an event is too long for it.
    full: Option<AsyncFd<OwnedFd>>,
    /// The tokio runtime that hears from the socket.
    home: Option<runtime::Id>,
    /// What is left to write of the event: its head and its payload.
    outgoing: [Bytes; 2],
    incoming: Vec<u8>,
    /// The number of the last event; 0 before the first.
    sequence: u32,
    awaiting: Awaiting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaiting {
    Ready,
    /// The end of an init phase that may also end in waiting to be forked.
    Parked,
    Nothing,
    Answer,
    /// The rest of a streamed response.
    Rest,
}

/// Why the socket is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// The other side is gone and has not read all of the event.
    #[error("the runtime ended before it had read the event")]
    Unread,
    /// The other side is gone.
    #[error("the runtime closed its control socket")]
    Closed,
    /// What it wrote is no frame.
    #[error("the runtime wrote something that is no frame")]
    Frame(#[source] FrameError),
    /// It wrote a frame that nobody waits for.
    #[error("the runtime sent {0:?} out of turn")]
    OutOfTurn(Kind),
}

impl Channel {
    /// A channel and the socket to hand to the sandbox as descriptor [`CONTROL_FD`].
    pub(crate) fn pair() -> io::Result<(Self, (OwnedFd, i32))> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Self::new(ours.into(), Awaiting::Ready)?, (theirs.into(), CONTROL_FD)))
    }

    /// The same for a process that is to become a template.
    pub(crate) fn pair_of_template() -> io::Result<(Self, (OwnedFd, i32))> {
        let (mut channel, theirs) = Self::pair()?;
        channel.awaiting = Awaiting::Parked;
        Ok((channel, theirs))
    }

    fn new(socket: OwnedFd, awaiting: Awaiting) -> io::Result<Self> {
        Ok(Self {
            socket: register(socket, Interest::READABLE)?,
            full: None,
            home: here(),
            outgoing: [Bytes::new(), Bytes::new()],
            incoming: Vec::with_capacity(FIRST_READ),
            sequence: 0,
            awaiting,
        })
    }

    /// Tells a process that is forked, or about to be, what differs from its template. It is little, and the socket is
    /// empty: it never has to wait.
    pub(crate) fn restore(&mut self, meta: &RestoreMeta<'_>) {
        self.outgoing = [frame::restore(meta), Bytes::new()];
        // A failure shows again when the answer is waited for.
        let _ = self.write();
    }

    /// Tells a runtime template, which has said that it is ready, its function. It then becomes a template as any other.
    pub(crate) fn tell_function(&mut self, meta: &FunctionMeta<'_>) {
        self.outgoing = [frame::function(meta), Bytes::new()];
        self.awaiting = Awaiting::Parked;
        // A failure shows again when the answer is waited for.
        let _ = self.write();
    }

    /// Begins to send an event. As much as the socket takes at once is written here, which is all of a usual event.
    pub(crate) fn deliver(&mut self, invocation: &Invocation, deadline: Timestamp) {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let meta = InvokeMeta {
            id: invocation.request_id.as_str(),
            deadline: deadline.0,
            arn: &invocation.invoked_arn,
            trace: &invocation.trace_id,
            client: invocation.client_context.as_deref(),
            tenant: invocation.tenant.as_deref(),
        };
        let payload = invocation.payload.clone();
        self.outgoing = [frame::invoke_head(self.sequence, &meta, payload.len()), payload];
        self.awaiting = Awaiting::Answer;
        // A failure shows again when the answer is waited for.
        let _ = self.write();
    }

    /// Whether it is the calling task's tokio runtime that hears from the socket.
    pub(crate) fn is_here(&self) -> bool {
        self.home == here()
    }

    /// Makes it so. Not during an event.
    pub(crate) fn move_here(&mut self) -> io::Result<()> {
        let again = self.socket.get_ref().try_clone()?;
        self.socket = register(again, Interest::READABLE)?;
        self.home = here();
        Ok(())
    }

    /// What the runtime says next.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Input, ChannelError>> {
        if !self.is_written()
            && let Poll::Ready(written) = self.poll_write(context)
        {
            written?;
        }
        loop {
            if let Some(input) = self.take()? {
                return Poll::Ready(Ok(input));
            }
            let mut news = ready!(self.socket.poll_read_ready(context)).map_err(|error| gone(&error))?;
            let room = self.incoming.capacity() - self.incoming.len();
            match rustix::io::read(news.get_inner(), spare_capacity(&mut self.incoming)) {
                Ok(0) => return Poll::Ready(Err(ChannelError::Closed)),
                // A read that did not fill the room has emptied the socket.
                Ok(count) if count < room => news.clear_ready(),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => news.clear_ready(),
                Err(error) => return Poll::Ready(Err(gone(&error.into()))),
            }
        }
    }

    /// What the runtime said before it ended. Asks the socket itself, because the news of what is readable may come later
    /// than the news of the end.
    pub(crate) fn last_words(&mut self) -> Result<Input, ChannelError> {
        loop {
            if let Some(input) = self.take()? {
                return Ok(input);
            }
            match rustix::io::read(self.socket.get_ref(), spare_capacity(&mut self.incoming)) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(gone(&error.into())),
            }
        }
    }

    /// The first whole frame that has arrived, checked against what is waited for.
    fn take(&mut self) -> Result<Option<Input>, ChannelError> {
        match frame::decode(&mut self.incoming).map_err(ChannelError::Frame)? {
            Decoded::Frame(frame) => self.interpret(frame).map(Some),
            Decoded::Missing(missing) => {
                let wanted = if self.incoming.is_empty() { FIRST_READ } else { missing.min(GROWTH) };
                self.incoming.reserve(wanted);
                Ok(None)
            }
        }
    }

    fn interpret(&mut self, frame: Frame) -> Result<Input, ChannelError> {
        let expected = match self.awaiting {
            Awaiting::Ready => matches!(frame.kind, Kind::Ready | Kind::InitError) && frame.sequence == 0,
            Awaiting::Parked => {
                matches!(frame.kind, Kind::Parked | Kind::Ready | Kind::InitError) && frame.sequence == 0
            }
            Awaiting::Answer => {
                matches!(frame.kind, Kind::Response | Kind::Error | Kind::TooLarge | Kind::StreamBegin)
                    && frame.sequence == self.sequence
                    && self.is_written()
            }
            Awaiting::Rest => {
                matches!(frame.kind, Kind::StreamData | Kind::StreamEnd | Kind::Error)
                    && frame.sequence == self.sequence
            }
            Awaiting::Nothing => false,
        };
        if !expected {
            return Err(ChannelError::OutOfTurn(frame.kind));
        }
        let next = match frame.kind {
            Kind::StreamBegin | Kind::StreamData => Awaiting::Rest,
            _ => Awaiting::Nothing,
        };
        let awaited = std::mem::replace(&mut self.awaiting, next);
        Ok(match frame.kind {
            Kind::Ready if awaited == Awaiting::Parked => Input::Unforkable(frame::unforkable(&frame.meta)),
            Kind::Ready => Input::Ready,
            Kind::Parked => Input::Parked,
            Kind::Response => Input::Response(frame.payload),
            Kind::StreamBegin => {
                let content_type = frame::content_type(&frame.meta);
                Input::Stream(Part::Begun { content_type, data: frame.payload })
            }
            Kind::StreamData => Input::Stream(Part::Data(frame.payload)),
            Kind::StreamEnd => Input::Stream(Part::Ended),
            Kind::TooLarge => Input::Error { failure: Failure::too_large(), fatal: false },
            Kind::InitError | Kind::Error | Kind::Invoke | Kind::Restore | Kind::Function => {
                let meta = frame::error_meta(&frame.meta);
                let failure = Failure {
                    error_type: meta.error_type.unwrap_or_else(|| "Runtime.Unknown".to_owned()),
                    document: frame.payload,
                };
                match frame.kind {
                    Kind::InitError => Input::InitError(failure),
                    _ => Input::Error { failure, fatal: meta.fatal },
                }
            }
        })
    }

    fn is_written(&self) -> bool {
        self.outgoing.iter().all(Bytes::is_empty)
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        loop {
            if let Some(full) = &self.full {
                ready!(full.poll_write_ready(context)).map_err(|error| gone(&error))?.clear_ready();
            }
            match self.write() {
                Ok(()) => {
                    self.full = None;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(gone(&error)));
                }
                Err(_) if self.full.is_some() => {}
                Err(_) => {
                    let again = self.socket.get_ref().try_clone();
                    let full = again.and_then(|socket| register(socket, Interest::WRITABLE));
                    self.full = Some(full.map_err(|error| gone(&error))?);
                }
            }
        }
    }

    /// Writes until nothing is left or the socket is full.
    fn write(&mut self) -> io::Result<()> {
        while !self.is_written() {
            let [head, payload] = &mut self.outgoing;
            let pieces = [IoSlice::new(head), IoSlice::new(payload)];
            let count = match rustix::io::writev(self.socket.get_ref(), &pieces) {
                Err(Errno::INTR) => continue,
                written => written?,
            };
            let of_head = count.min(head.len());
            head.advance(of_head);
            payload.advance(count - of_head);
        }
        // The payload is not held longer than it takes to send it.
        self.outgoing = [Bytes::new(), Bytes::new()];
        Ok(())
    }
}

fn here() -> Option<runtime::Id> {
    runtime::Handle::try_current().ok().map(|handle| handle.id())
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe because the descriptor might be closed meanwhile; an OwnedFd cannot"
)]
fn register(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, interest)
}

/// A socket whose other end closed with unread bytes in it reports a reset; one that cannot be written to has lost them
/// as well. Either way no function code has seen the whole event.
fn gone(error: &io::Error) -> ChannelError {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ChannelError::Unread,
        _ => ChannelError::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut as _;
    use martlet_model::RequestId;
    use std::future::poll_fn;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream as Plain;
    use std::time::Duration;

    fn pair() -> (Channel, Plain) {
        let (channel, (theirs, _)) = Channel::pair().unwrap();
        let theirs = Plain::from(theirs);
        theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (channel, theirs)
    }

    fn frame(kind: Kind, sequence: u32, meta: &str, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind as u8, 0, 0, 0];
        bytes.put_u32(sequence);
        bytes.put_u32(meta.len() as u32);
        bytes.put_u32(payload.len() as u32);
        bytes.extend_from_slice(meta.as_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn invocation(payload: &[u8]) -> Invocation {
        Invocation {
            request_id: RequestId::from_random([7; 16]),
            invoked_arn: "arn".into(),
            payload: Bytes::copy_from_slice(payload),
            client_context: None,
            tenant: None,
            trace_id: String::new(),
            accepted: Timestamp(0),
            trigger: martlet_model::Trigger::Request,
            attempt: 1,
        }
    }

    async fn next(channel: &mut Channel) -> Result<Input, ChannelError> {
        poll_fn(|context| channel.poll(context)).await
    }

    async fn ready(channel: &mut Channel, theirs: &mut Plain) {
        theirs.write_all(&frame(Kind::Ready, 0, "", b"")).unwrap();
        assert!(matches!(next(channel).await, Ok(Input::Ready)));
    }

    /// Reads one event and returns its payload.
    fn read_event(theirs: &mut Plain) -> Vec<u8> {
        let mut header = [0; frame::HEADER_BYTES];
        theirs.read_exact(&mut header).unwrap();
        let length = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap()) as usize;
        let mut meta = vec![0; length(8)];
        theirs.read_exact(&mut meta).unwrap();
        let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
        assert_eq!(meta["arn"], "arn");
        let mut payload = vec![0; length(12)];
        theirs.read_exact(&mut payload).unwrap();
        payload
    }

    #[tokio::test]
    async fn an_event_goes_out_and_its_answer_comes_in_whatever_the_size() {
        let (mut channel, mut theirs) = pair();
        ready(&mut channel, &mut theirs).await;
        for size in [0, 10, 5_000_000] {
            let event = vec![b'e'; size];
            channel.deliver(&invocation(&event), Timestamp(1));
            let sequence = channel.sequence;
            let runtime = std::thread::spawn(move || {
                let payload = read_event(&mut theirs);
                theirs.write_all(&frame(Kind::Response, sequence, "", &payload)).unwrap();
                theirs
            });
            match next(&mut channel).await {
                Ok(Input::Response(answer)) => assert_eq!(answer, event),
                other => panic!("{other:?}"),
            }
            theirs = runtime.join().unwrap();
        }
    }

    #[test]
    fn it_is_heard_from_where_it_was_moved() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (one, other) = (runtime(), runtime());
        let (mut channel, mut theirs) = one.block_on(async { pair() });
        other.block_on(async {
            assert!(!channel.is_here());
            channel.move_here().unwrap();
            assert!(channel.is_here());
            // Nobody drives the first runtime any more.
            ready(&mut channel, &mut theirs).await;
        });
    }

    #[tokio::test]
    async fn errors_carry_their_type() {
        let (mut channel, mut theirs) = pair();
        ready(&mut channel, &mut theirs).await;
        channel.deliver(&invocation(b"1"), Timestamp(1));
        theirs.write_all(&frame(Kind::Error, 1, r#"{"errorType":"E","fatal":true}"#, b"{}")).unwrap();
        match next(&mut channel).await {
            Ok(Input::Error { failure, fatal: true }) => assert_eq!(failure.error_type, "E"),
            other => panic!("{other:?}"),
        }
        channel.deliver(&invocation(b"1"), Timestamp(1));
        theirs.write_all(&frame(Kind::TooLarge, 2, "", b"")).unwrap();
        match next(&mut channel).await {
            Ok(Input::Error { failure, fatal: false }) => {
                assert_eq!(failure.error_type, "Function.ResponseSizeTooLarge");
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_response_may_come_in_parts_and_fail_in_the_middle() {
        let (mut channel, mut theirs) = pair();
        ready(&mut channel, &mut theirs).await;
        for (number, end, meta) in [(1, Kind::StreamEnd, ""), (2, Kind::Error, r#"{"errorType":"Late"}"#)] {
            channel.deliver(&invocation(b"1"), Timestamp(1));
            theirs
                .write_all(&frame(Kind::StreamBegin, number, r#"{"contentType":"text/html"}"#, b"a"))
                .unwrap();
            theirs.write_all(&frame(Kind::StreamData, number, "", b"b")).unwrap();
            theirs.write_all(&frame(end, number, meta, b"")).unwrap();
            let begun = Part::Begun { content_type: "text/html".into(), data: "a".into() };
            assert!(matches!(next(&mut channel).await, Ok(Input::Stream(part)) if part == begun));
            let more = Part::Data("b".into());
            assert!(matches!(next(&mut channel).await, Ok(Input::Stream(part)) if part == more));
            match next(&mut channel).await {
                Ok(Input::Stream(Part::Ended)) => assert_eq!(number, 1),
                Ok(Input::Error { failure, .. }) => {
                    assert_eq!((number, failure.error_type.as_str()), (2, "Late"));
                }
                other => panic!("{other:?}"),
            }
        }
        channel.deliver(&invocation(b"1"), Timestamp(1));
        theirs.write_all(&frame(Kind::StreamBegin, 3, "", b"")).unwrap();
        assert!(
            matches!(next(&mut channel).await, Ok(Input::Stream(Part::Begun { content_type, .. })) if content_type == "application/octet-stream")
        );
        theirs.write_all(&frame(Kind::Response, 3, "", b"both")).unwrap();
        assert!(matches!(next(&mut channel).await, Err(ChannelError::OutOfTurn(Kind::Response))));
        let (mut channel, mut theirs) = pair();
        ready(&mut channel, &mut theirs).await;
        channel.deliver(&invocation(b"1"), Timestamp(1));
        theirs.write_all(&frame(Kind::StreamData, 1, "", b"no beginning")).unwrap();
        assert!(matches!(next(&mut channel).await, Err(ChannelError::OutOfTurn(Kind::StreamData))));
    }

    #[tokio::test]
    async fn frames_out_of_turn_are_refused() {
        for (kind, sequence) in [
            (Kind::Response, 0),
            (Kind::Response, 2),
            (Kind::Ready, 1),
            (Kind::InitError, 0),
            (Kind::Error, 7),
        ] {
            let (mut channel, mut theirs) = pair();
            ready(&mut channel, &mut theirs).await;
            channel.deliver(&invocation(b"1"), Timestamp(1));
            theirs.write_all(&frame(kind, sequence, "", b"")).unwrap();
            let refused = next(&mut channel).await;
            assert!(matches!(refused, Err(ChannelError::OutOfTurn(seen)) if seen == kind), "{refused:?}");
        }
        let (mut channel, mut theirs) = pair();
        theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(matches!(next(&mut channel).await, Err(ChannelError::Frame(_))));
    }

    #[tokio::test]
    async fn only_a_template_may_park_and_only_once() {
        let parked = frame(Kind::Parked, 0, "", b"");
        let (mut channel, mut theirs) = pair();
        theirs.write_all(&parked).unwrap();
        assert!(matches!(next(&mut channel).await, Err(ChannelError::OutOfTurn(Kind::Parked))));

        let template = || {
            let (channel, (theirs, _)) = Channel::pair_of_template().unwrap();
            (channel, Plain::from(theirs))
        };
        let (mut channel, mut theirs) = template();
        theirs.write_all(&parked.repeat(2)).unwrap();
        assert!(matches!(next(&mut channel).await, Ok(Input::Parked)));
        assert!(matches!(next(&mut channel).await, Err(ChannelError::OutOfTurn(Kind::Parked))));

        let (mut channel, mut theirs) = template();
        theirs.write_all(&frame(Kind::Ready, 0, r#"{"unforkable":"a thread"}"#, b"")).unwrap();
        assert!(matches!(next(&mut channel).await, Ok(Input::Unforkable(why)) if why == "a thread"));
        channel.deliver(&invocation(b"1"), Timestamp(1));
        assert_eq!(read_event(&mut theirs), b"1");
        theirs.write_all(&frame(Kind::Response, 1, "", b"2")).unwrap();
        assert!(matches!(next(&mut channel).await, Ok(Input::Response(answer)) if answer == "2"));
    }

    #[tokio::test]
    async fn a_restored_process_is_told_before_it_asks() {
        let (mut channel, mut theirs) = pair();
        let env = std::collections::BTreeMap::from([("STREAM", "s")]);
        channel.restore(&RestoreMeta { env: &env });
        let mut told = vec![0; frame::restore(&RestoreMeta { env: &env }).len()];
        theirs.read_exact(&mut told).unwrap();
        assert_eq!((told[0], &told[frame::HEADER_BYTES..]), (2, &br#"{"env":{"STREAM":"s"}}"#[..]));
        ready(&mut channel, &mut theirs).await;
        channel.deliver(&invocation(b"1"), Timestamp(1));
        assert_eq!(read_event(&mut theirs), b"1");
    }

    #[tokio::test]
    async fn an_end_tells_whether_the_event_was_read() {
        let (mut channel, mut theirs) = pair();
        ready(&mut channel, &mut theirs).await;
        channel.deliver(&invocation(b"unread"), Timestamp(1));
        drop(theirs);
        assert!(matches!(next(&mut channel).await, Err(ChannelError::Unread)));

        let (mut channel, mut theirs) = pair();
        ready(&mut channel, &mut theirs).await;
        channel.deliver(&invocation(b"read"), Timestamp(1));
        assert_eq!(read_event(&mut theirs), b"read");
        drop(theirs);
        assert!(matches!(next(&mut channel).await, Err(ChannelError::Closed)));

        let (mut channel, mut theirs) = pair();
        ready(&mut channel, &mut theirs).await;
        drop(theirs);
        channel.deliver(&invocation(b"too late"), Timestamp(1));
        assert!(matches!(next(&mut channel).await, Err(ChannelError::Unread)));
    }

    #[tokio::test]
    async fn last_words_are_heard() {
        let (mut channel, mut theirs) = pair();
        ready(&mut channel, &mut theirs).await;
        channel.deliver(&invocation(b"1"), Timestamp(1));
        read_event(&mut theirs);
        let answer = vec![b'a'; 100_000];
        theirs.write_all(&frame(Kind::Response, 1, "", &answer)).unwrap();
        drop(theirs);
        match channel.last_words() {
            Ok(Input::Response(heard)) => assert_eq!(heard, answer),
            other => panic!("{other:?}"),
        }
        assert!(matches!(channel.last_words(), Err(ChannelError::Closed)));
    }
}
