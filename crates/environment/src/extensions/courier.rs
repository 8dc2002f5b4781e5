//! Carries telemetry to who subscribed, over the sandbox's own loopback.
//!
//! Polled with everything else of the environment and by nobody between two events: a frozen subscriber could not read anyway.

use super::Desk;
use super::telemetry::{Batch, Destination};
use martlet_model::Timestamp;
use martlet_sandbox::Reins;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// Longest head of a subscriber's answer, in bytes.
const HEAD_BYTES: usize = 16 * 1024;

type Sending = Pin<Box<dyn Future<Output = io::Result<Option<TcpStream>>> + Send>>;

/// Where one subscriber's batches stand.
enum State {
    Idle,
    Connecting(Batch),
    /// With how many events and bytes are on their way.
    Sending(Sending, (usize, usize)),
}

struct Post {
    state: State,
    /// To be used again.
    connection: Option<TcpStream>,
}

/// The couriers of all subscribers of one environment.
pub(super) struct Couriers {
    posts: Vec<Post>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Couriers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Couriers").field("posts", &self.posts.len()).finish_non_exhaustive()
    }
}

impl Couriers {
    pub(super) fn new() -> Self {
        Self { posts: Vec::new(), timer: None }
    }

    /// A connection that was asked for is there, or could not be made.
    pub(super) fn connected(&mut self, at: u64, stream: io::Result<std::net::TcpStream>, desk: &Desk) {
        let Ok(at) = usize::try_from(at) else { return };
        let Some(post) = self.posts.get_mut(at) else { return };
        let State::Connecting(batch) = std::mem::replace(&mut post.state, State::Idle) else { return };
        let size = (batch.events.len(), batch.bytes());
        let mut desk = desk.lock();
        match stream.and_then(TcpStream::from_std) {
            Ok(stream) => {
                let destination = desk.telemetry.destination(at).clone();
                post.state = State::Sending(Box::pin(send(stream, destination, batch)), size);
            }
            Err(_) => desk.telemetry.lost(at, size.0, size.1),
        }
    }

    /// Sends what is due; everything when it is the `last` time. Ready when nothing is on its way.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        desk: &Desk,
        reins: &Reins,
        now: Timestamp,
        last: bool,
    ) -> Poll<()> {
        loop {
            let mut busy = false;
            let mut wakes: Option<Instant> = None;
            let subscribers = desk.lock().telemetry.subscribers();
            for at in 0..subscribers {
                if self.posts.len() <= at {
                    self.posts.push(Post { state: State::Idle, connection: None });
                }
                self.posts[at].advance(context, at, desk, reins, now, last);
                busy |= !matches!(self.posts[at].state, State::Idle);
                if matches!(self.posts[at].state, State::Idle) {
                    let due = desk.lock().telemetry.due(at);
                    wakes = wakes.into_iter().chain(due).min();
                }
            }
            let Some(wakes) = wakes else { return if busy { Poll::Pending } else { Poll::Ready(()) } };
            let wakes = tokio::time::Instant::from_std(wakes);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(wakes)));
            if timer.deadline() != wakes {
                timer.as_mut().reset(wakes);
            }
            if timer.as_mut().poll(context).is_pending() {
                return if busy || !last { Poll::Pending } else { Poll::Ready(()) };
            }
        }
    }
}

impl Post {
    fn advance(
        &mut self,
        context: &mut Context<'_>,
        at: usize,
        desk: &Desk,
        reins: &Reins,
        now: Timestamp,
        last: bool,
    ) {
        loop {
            match &mut self.state {
                State::Connecting(_) => return,
                State::Sending(sending, size) => {
                    let size = *size;
                    let Poll::Ready(sent) = sending.as_mut().poll(context) else { return };
                    self.state = State::Idle;
                    match sent {
                        Ok(connection) => self.connection = connection,
                        Err(_) => desk.lock().telemetry.lost(at, size.0, size.1),
                    }
                }
                State::Idle => {
                    let mut desk = desk.lock();
                    let Some(batch) = desk.telemetry.take(at, (now, Instant::now()), last) else { return };
                    let destination = desk.telemetry.destination(at).clone();
                    self.state = match self.connection.take() {
                        Some(connection) => {
                            let size = (batch.events.len(), batch.bytes());
                            State::Sending(Box::pin(send(connection, destination, batch)), size)
                        }
                        None => {
                            reins.connect(at as u64, destination.port());
                            State::Connecting(batch)
                        }
                    };
                }
            }
        }
    }
}

/// Sends one batch, and returns the connection if it is of further use.
async fn send(mut stream: TcpStream, to: Destination, batch: Batch) -> io::Result<Option<TcpStream>> {
    match to {
        Destination::Tcp { .. } => {
            let mut lines = batch.events.join("\n");
            lines.push('\n');
            stream.write_all(lines.as_bytes()).await?;
            Ok(Some(stream))
        }
        Destination::Http { put, port, path } => {
            let body = format!("[{}]", batch.events.join(","));
            let head = format!(
                "{} {path} HTTP/1.1\r\nHost: sandbox.localdomain:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                if put { "PUT" } else { "POST" },
                body.len()
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
            let status = status(&mut stream).await?;
            if status < 400 { Ok(None) } else { Err(io::Error::other(format!("status {status}"))) }
        }
    }
}

/// The status of an HTTP answer, once its head is there.
async fn status(stream: &mut TcpStream) -> io::Result<u16> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
