//! The Runtime API over HTTP/1.1 on the listener inside a sandbox's network namespace.
//!
//! Every connection is driven by the task that runs the environment's init phase or its invocation, and by nobody between
//! two events: a frozen function cannot speak anyway. What it sends late waits in the socket for the next event. The
//! function may open any number of connections and send anything; only so many are taken, and their buffers are bounded.

use super::machine::{AnswerKind, Event, Machine, Refusal, error_type};
use crate::extensions::{self, Desk};
use crate::frame::PAYLOAD_BYTES;
use crate::life::Input;
use crate::outcome::Failure;
use crate::stream::{Part, content_type};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use martlet_model::{Invocation, Timestamp};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::sockopt::socket_error;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Connections served at once; further ones wait to be accepted.
const CONNECTIONS: usize = 32;
/// Most bytes of a request's head: the X-Ray error cause alone may have 1 MiB.
const HEAD_BYTES: usize = 1024 * 1024 + 64 * 1024;
const HEADERS: usize = 64;

const ERROR_TYPE: HeaderName = HeaderName::from_static("lambda-runtime-function-error-type");
const ERROR_BODY: HeaderName = HeaderName::from_static("lambda-runtime-function-error-body");
const INVOCATION_ID: HeaderName = HeaderName::from_static("lambda-runtime-invocation-id");
const RESPONSE_MODE: HeaderName = HeaderName::from_static("lambda-runtime-function-response-mode");
const WITH_CAUSE: &str = "application/vnd.aws.lambda.error.cause+json";

/// One connection, and a way to ask its socket itself: news of it may come too late.
struct Connection {
    socket: Arc<Socket>,
    served: Pin<Box<dyn Future<Output = ()> + Send>>,
}

struct Socket {
    number: u64,
    descriptor: OwnedFd,
}

impl Socket {
    /// True when the other side has closed it.
    fn is_closed(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(&self.descriptor, &mut [0u8; 1], flags) {
            Ok((_, 0)) => true,
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => true,
        }
    }

    /// True when something that was sent has met a closed socket, or was in it, unread, when it was closed: the kernel has
    /// answered with a reset, and nobody has been told yet.
    fn is_reset(&self) -> bool {
        matches!(socket_error(&self.descriptor), Ok(Err(Errno::CONNRESET | Errno::PIPE)))
    }
}

/// The API of one environment.
pub(crate) struct RuntimeApi {
    listener: TcpListener,
    connections: Vec<Connection>,
    machine: Shared,
    /// Events put up so far.
    sequence: u64,
    /// Connections accepted so far.
    accepted: u64,
}

impl fmt::Debug for RuntimeApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeApi").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}

/// Why the API is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeApiError {
    /// The listener is broken.
    #[error("the Runtime API can accept no more connections")]
    Accept(#[source] io::Error),
}

#[derive(Clone)]
struct Shared {
    machine: Arc<Mutex<Machine>>,
    desk: Desk,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RuntimeApi {
    /// Serves `listener`, and the extensions of `desk` there. Must be called inside a tokio runtime.
    pub(crate) fn new(listener: std::net::TcpListener, desk: Desk) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            connections: Vec::new(),
            machine: Shared { machine: Arc::new(Mutex::new(Machine::new())), desk },
            sequence: 0,
            accepted: 0,
        })
    }

    /// Puts up an event; [`RuntimeApi::poll`] then hands it to the runtime.
    pub(crate) fn deliver(&mut self, invocation: &Invocation, deadline: Timestamp) {
        self.sequence += 1;
        self.machine.lock().offer(Event {
            request_id: invocation.request_id.as_str().to_owned(),
            invocation_id: format!("{}-{}", invocation.request_id, self.sequence),
            deadline_ms: deadline.0,
            arn: invocation.invoked_arn.clone(),
            trace_id: invocation.trace_id.clone(),
            client_context: invocation.client_context.clone(),
            tenant: invocation.tenant.as_deref().map(str::to_owned),
            payload: invocation.payload.clone(),
        });
    }

    /// True while no runtime has come for the event that was put up last.
    pub(crate) fn is_untaken(&self) -> bool {
        self.machine.lock().is_untaken()
    }

    /// Once the runtime has ended: true when it had not read the event that was put up last.
    pub(crate) fn is_unread(&self) -> bool {
        let mut machine = self.machine.lock();
        for connection in &self.connections {
            if connection.socket.is_reset() {
                machine.unread(connection.socket.number);
            }
        }
        machine.is_untaken()
    }

    /// Drives every connection, and returns what the runtime says next.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Input, RuntimeApiError>> {
        loop {
            // All of them, woken or not: one that waits in `next` is not woken when an event is put up.
            self.connections.retain_mut(|connection| {
                let goes_on = connection.served.as_mut().poll(context).is_pending();
                if !goes_on && connection.socket.is_reset() {
                    self.machine.lock().unread(connection.socket.number);
                }
                goes_on
            });
            if let Some(news) = self.machine.lock().take_news() {
                return Poll::Ready(Ok(news));
            }
            if self.connections.len() >= CONNECTIONS {
                return Poll::Pending;
            }
            match self.listener.poll_accept(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok((stream, _))) => {
                    self.accepted += 1;
                    let connection = connection(stream, self.machine.clone(), self.accepted);
                    self.connections.push(connection.map_err(RuntimeApiError::Accept)?);
                }
                // The caller was gone before it was accepted.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(RuntimeApiError::Accept(error))),
            }
        }
    }
}

fn connection(stream: TcpStream, machine: Shared, number: u64) -> io::Result<Connection> {
    // Without it an answer of two writes waits for an acknowledgement.
    stream.set_nodelay(true)?;
    let socket = Arc::new(Socket { number, descriptor: stream.as_fd().try_clone_to_owned()? });
    let (serving, from) = (machine.clone(), Arc::clone(&socket));
    let service = hyper::service::service_fn(move |request| {
        let (machine, from) = (serving.clone(), Arc::clone(&from));
        async move { Ok::<_, Infallible>(serve(&machine, request, &from).await) }
    });
    let stream = Watched { stream, machine, number };
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let served = Box::pin(async move {
        // A broken connection is the function's own affair. What it was in the middle of sending is noticed by
        // `Answering`, what it had not read by `Watched`.
        let _ = served.await;
    });
    Ok(Connection { socket, served })
}

/// A connection that notices a reset, which is what the kernel answers for a process that ended without having read
/// everything.
struct Watched {
    stream: TcpStream,
    machine: Shared,
    number: u64,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &read
            && error.kind() == io::ErrorKind::ConnectionReset
        {
            self.machine.lock().unread(self.number);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

pub(crate) type Answer = Response<Full<Bytes>>;

/// Whoever made a call.
pub(crate) trait Caller: Send + Sync {
    /// It has closed its connection: nobody would read an answer.
    fn is_gone(&self) -> bool;
}

impl Caller for Socket {
    fn is_gone(&self) -> bool {
        self.is_closed()
    }
}

async fn serve(machine: &Shared, request: Request<Incoming>, socket: &Socket) -> Answer {
    let path = request.uri().path().to_owned();
    let mut parts = path.trim_start_matches('/').split('/');
    let version = parts.next().unwrap_or_default();
    let parts: Vec<&str> = parts.collect();
    if matches!(version, "2020-01-01" | "2020-08-15" | "2022-07-01") {
        let desk = machine.desk.clone();
        return extensions::serve(&desk, version, &parts, request, socket).await.unwrap_or_else(not_found);
    }
    if version != "2018-06-01" {
        return not_found();
    }
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["ping"]) => text(StatusCode::OK, "pong"),
        (&Method::GET, ["runtime", "invocation", "next"]) => next(machine, socket).await,
        (&Method::POST, ["runtime", "invocation", id, "response"]) => {
            let id = (*id).to_owned();
            answer(machine, request, AnswerKind::Response, &id).await
        }
        (&Method::POST, ["runtime", "invocation", id, "error"]) => {
            let id = (*id).to_owned();
            answer(machine, request, AnswerKind::Error, &id).await
        }
        (&Method::POST, ["runtime", "init", "error"]) => init_error(machine, request).await,
        (
            _,
            ["ping"]
            | ["runtime", "invocation", "next"]
            | ["runtime", "invocation", _, "response" | "error"]
            | ["runtime", "init", "error"],
        ) => text(StatusCode::METHOD_NOT_ALLOWED, ""),
        _ => not_found(),
    }
}

async fn next(machine: &Shared, socket: &Socket) -> Answer {
    if let Err(refusal) = machine.lock().next() {
        return refused(&refusal);
    }
    let event = poll_fn(|_| {
        let mut machine = machine.lock();
        // What was read may be the last that a killed process has sent; an event is not given to nobody. Not woken by the
        // event: whoever puts one up polls every connection right after.
        if !machine.has_event() || socket.is_closed() {
            return Poll::Pending;
        }
        machine.event(socket.number).map_or(Poll::Pending, Poll::Ready)
    })
    .await;
    let mut response = Response::new(Full::new(event.payload));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("lambda-runtime-deadline-ms", HeaderValue::from(event.deadline_ms));
    let texts = [
        ("lambda-runtime-aws-request-id", event.request_id),
        ("lambda-runtime-invocation-id", event.invocation_id),
        ("lambda-runtime-invoked-function-arn", event.arn),
        ("lambda-runtime-trace-id", event.trace_id),
        ("lambda-runtime-client-context", event.client_context.unwrap_or_default()),
        ("lambda-runtime-aws-tenant-id", event.tenant.unwrap_or_default()),
    ];
    for (name, value) in texts {
        if let Some(value) = header_value(value).filter(|value| !value.is_empty()) {
            headers.insert(name, value);
        }
    }
    response
}

/// A line break is white space in JSON text, and cannot be part of a header.
fn header_value(text: String) -> Option<HeaderValue> {
    let text = if text.contains(|c: char| c.is_ascii_control()) {
        text.replace(|c: char| c.is_ascii_control(), " ")
    } else {
        text
    };
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

/// An answer whose body is being read. Dropped before it is finished, it tells that the body was cut short.
struct Answering<'m> {
    machine: &'m Shared,
    finished: bool,
}

impl Answering<'_> {
    fn finish(mut self, input: Input) {
        self.finished = true;
        self.machine.lock().answer(input);
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.machine.lock().answer(error(Failure::truncated()));
        }
    }
}

fn error(failure: Failure) -> Input {
    Input::Error { failure, fatal: false }
}

async fn answer(machine: &Shared, request: Request<Incoming>, kind: AnswerKind, id: &str) -> Answer {
    let (head, body) = request.into_parts();
    let invocation_id = text_header(&head.headers, &INVOCATION_ID);
    let begun = machine.lock().begin_answer(kind, id, invocation_id);
    if let Err(refusal) = begun {
        discard(body).await;
        return refused(&refusal);
    }
    let answering = Answering { machine, finished: false };
    let mode = text_header(&head.headers, &RESPONSE_MODE).unwrap_or_default();
    match mode {
        _ if kind == AnswerKind::Error => {}
        "" => {}
        "streaming" => return stream(answering, &head.headers, body).await,
        _ => {
            discard(body).await;
            answering.finish(error(Failure::response_mode()));
            return refused(&Refusal::response_mode());
        }
    }
    let body = match collect(body).await {
        Ok(body) => body,
        Err(CollectError::TooLarge) => {
            answering.finish(error(Failure::too_large()));
            return refused(&Refusal::too_large(PAYLOAD_BYTES));
        }
        Err(CollectError::Truncated) => {
            drop(answering);
            return refused(&Refusal::truncated());
        }
    };
    answering.finish(match kind {
        AnswerKind::Response => Input::Response(body),
        AnswerKind::Error => error(posted_failure(&head.headers, body)),
    });
    accepted()
}

/// Hands on a response while it is made. No more of it is read before the environment has taken what was.
async fn stream(answering: Answering<'_>, headers: &HeaderMap, mut body: Incoming) -> Answer {
    let machine = answering.machine;
    let content_type = content_type(text_header(headers, &CONTENT_TYPE));
    machine.lock().part(Part::Begun { content_type, data: Bytes::new() });
    let mut trailers = HeaderMap::new();
    loop {
        // Not woken by the environment: whoever takes a part polls every connection after it.
        poll_fn(|_| if machine.lock().is_heard() { Poll::Ready(()) } else { Poll::Pending }).await;
        match body.frame().await.map(|frame| frame.map(http_body::Frame::into_data)) {
            None => break,
            Some(Err(_)) => {
                drop(answering);
                return refused(&Refusal::truncated());
            }
            Some(Ok(Ok(data))) => machine.lock().part(Part::Data(data)),
            Some(Ok(Err(other))) => trailers = other.into_trailers().unwrap_or_default(),
        }
    }
    answering.finish(stream_end(&trailers));
    accepted()
}

/// The end of a streamed response, or the failure that it tells there.
fn stream_end(trailers: &HeaderMap) -> Input {
    let Some(given) = text_header(trailers, &ERROR_TYPE).filter(|given| !given.is_empty()) else {
        return Input::Stream(Part::Ended);
    };
    let told = trailers.get(&ERROR_BODY).and_then(|value| STANDARD.decode(value).ok()).unwrap_or_default();
    error(Failure { error_type: error_type(given), document: told.into() })
}

async fn init_error(machine: &Shared, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let body = match collect(body).await {
        Ok(body) => body,
        Err(CollectError::TooLarge) => return refused(&Refusal::too_large(PAYLOAD_BYTES)),
        Err(CollectError::Truncated) => return refused(&Refusal::truncated()),
    };
    match machine.lock().init_error(posted_failure(&head.headers, body)) {
        Ok(()) => accepted(),
        Err(refusal) => refused(&refusal),
    }
}

fn posted_failure(headers: &HeaderMap, body: Bytes) -> Failure {
    let error_type = error_type(text_header(headers, &ERROR_TYPE).unwrap_or_default());
    let with_cause = text_header(headers, &CONTENT_TYPE) == Some(WITH_CAUSE);
    Failure { error_type, document: if with_cause { without_cause(&body) } else { body } }
}

/// The error document without the X-Ray cause that some runtimes wrap it with.
fn without_cause(body: &[u8]) -> Bytes {
    #[derive(serde::Deserialize, serde::Serialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Shown {
        error_message: String,
        error_type: String,
        stack_trace: Vec<String>,
    }
    let shown = serde_json::from_slice(body).and_then(|shown: Shown| serde_json::to_vec(&shown));
    shown.map_or(Bytes::from_static(b"\"Invalid error body\""), Bytes::from)
}

fn text_header<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

enum CollectError {
    TooLarge,
    Truncated,
}

/// Reads a whole body. One over the limit is read to its end and thrown away, so that the runtime gets to see the answer.
async fn collect(mut body: Incoming) -> Result<Bytes, CollectError> {
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    let mut length = 0usize;
    while let Some(frame) = body.frame().await {
        // Trailers belong to responses in streaming mode.
        let Ok(data) = frame.map_err(|_| CollectError::Truncated)?.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length > PAYLOAD_BYTES {
            (first, joined) = (None, BytesMut::new());
        } else if let Some(first) = first.take() {
            joined.extend_from_slice(&first);
            joined.extend_from_slice(&data);
        } else if joined.is_empty() {
            // A body of one piece, the usual case, is not copied.
            first = Some(data);
        } else {
            joined.extend_from_slice(&data);
        }
    }
    if length > PAYLOAD_BYTES {
        return Err(CollectError::TooLarge);
    }
    Ok(first.unwrap_or_else(|| joined.freeze()))
}

/// Reads a body that nobody wants: a caller that is still writing does not see what it is answered.
async fn discard(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

fn accepted() -> Answer {
    json(StatusCode::ACCEPTED, "{\"status\":\"OK\"}\n".to_owned())
}

fn refused(refusal: &Refusal) -> Answer {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    document(status, refusal.error_type, &refusal.message)
}

fn document(status: StatusCode, error_type: &str, message: &str) -> Answer {
    let document = serde_json::json!({ "errorMessage": message, "errorType": error_type });
    json(status, format!("{document}\n"))
}

fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn text(status: StatusCode, text: &'static str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

fn json(status: StatusCode, text: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
