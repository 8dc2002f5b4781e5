//! One connection, from its first byte to its orderly end.

use crate::answer::Outgoing;
use crate::body::collect;
use crate::door::{Door, Head, Response};
use crate::options::GatewayOptions;
use crate::pulse::{Expired, Pulse};
use crate::room::Room;
use crate::serve::Stage;
use crate::transport::Transport;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until, timeout};

/// A refused body of at most this many bytes is read and thrown away, so that the connection can go on.
const SMALL_BODY: u64 = 64 * 1024;
/// How much is read from a client that still sends after its last answer, and for how long. Many clients read the
/// answer only after they have written all of a body, so this has to be more than any body that a door refuses.
const LINGER_BYTES: usize = 128 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(30);
const LINGER_DRAINING: Duration = Duration::from_secs(1);

/// Serves one connection until the client, a limit or `stages` ends it.
pub(crate) async fn run<D: Door>(
    stream: TcpStream,
    peer: SocketAddr,
    door: Arc<D>,
    options: Arc<GatewayOptions>,
    room: Room,
    mut stages: watch::Receiver<Stage>,
) {
    let pulse = Arc::new(Pulse::new(Instant::now()));
    let service = service_fn(|request: http::Request<Incoming>| {
        let (door, options, pulse) = (Arc::clone(&door), Arc::clone(&options), Arc::clone(&pulse));
        let room = room.clone();
        async move {
            pulse.request();
            let (head, body) = request.into_parts();
            let (response, unread) = respond(&*door, head, body, peer, &room, &options).await;
            Ok::<_, Infallible>(response.map(|body| Outgoing::new(body, &pulse, unread)))
        }
    });
    let mut builder = http1::Builder::new();
    builder.max_buf_size(options.max_header_bytes.max(8 * 1024));
    // hyper keeps 100 headers on its stack and allots for any other number.
    if options.max_headers != 100 {
        builder.max_headers(options.max_headers);
    }
    let mut connection = builder.serve_connection(Transport::new(stream, Arc::clone(&pulse)), service);
    let opened = Instant::now();
    let mut timer = pin!(sleep_until(pulse.check(&options, opened).unwrap_or(opened)));
    let mut expired = None;
    let broken = loop {
        tokio::select! {
            biased;
            end = &mut connection => break end.is_err(),
            changed = stages.changed() => match (changed, *stages.borrow_and_update()) {
                (Ok(()), Stage::Serving) => {}
                (Ok(()), Stage::Draining) => std::pin::Pin::new(&mut connection).graceful_shutdown(),
                (Ok(()), Stage::Stopped) | (Err(_), _) => return,
            },
            () = timer.as_mut() => match pulse.check(&options, Instant::now()) {
                Ok(next) => timer.as_mut().reset(next),
                Err(reason) => {
                    expired = Some(reason);
                    break false;
                }
            },
        }
    };
    let stream = connection.into_parts().io.into_stream();
    // Nobody is left to hear of an error here.
    let _ = tokio::select! {
        ended = timeout(LINGER, finish(stream, expired, broken || pulse.has_unread())) => ended.is_ok(),
        () = enough(&mut stages) => false,
    };
}

/// A draining server waits a moment longer for clients that still send, a stopped one not at all.
async fn enough(stages: &mut watch::Receiver<Stage>) {
    let _ = stages.wait_for(|stage| *stage >= Stage::Draining).await;
    let _ = timeout(LINGER_DRAINING, stages.wait_for(|stage| *stage >= Stage::Stopped)).await;
}

/// Admits, collects, handles. Tells with the answer whether some of the body is left unread.
async fn respond<D: Door>(
    door: &D,
    head: Head,
    body: Incoming,
    peer: SocketAddr,
    room: &Room,
    options: &GatewayOptions,
) -> (Response, bool) {
    let admission = match door.admit(&head, peer) {
        Ok(admission) => admission,
        Err(refusal) => {
            let read = discard(&head, body, room, options).await;
            return if read { (refusal, false) } else { (last(refusal), true) };
        }
    };
    match collect(body, admission.body_limit, room, options).await {
        Ok(body) => (door.handle(head, admission.ticket, body, peer).await, false),
        Err(fault) => (last(door.refuse_body(&head, admission.ticket, fault, peer)), true),
    }
}

/// Marks an answer as the connection's last: what follows the request on the wire is the rest of a body.
fn last(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Reads a small body of a refused request to its end. A client that waits for `100 Continue` is not made to send
/// it, and a large one is not worth its bytes.
async fn discard(head: &Head, body: Incoming, room: &Room, options: &GatewayOptions) -> bool {
    if body.is_end_stream() {
        return true;
    }
    let small = body.size_hint().exact().is_some_and(|length| length <= SMALL_BODY);
    small
        && !head.headers.contains_key(header::EXPECT)
        && collect(body, SMALL_BODY as usize, room, options).await.is_ok()
}

async fn finish(mut stream: TcpStream, expired: Option<Expired>, unread: bool) -> std::io::Result<()> {
    match expired {
        Some(Expired::Head) => {
            stream
                .write_all(&plain(StatusCode::REQUEST_TIMEOUT, "The request's head did not arrive in time."))
                .await?;
        }
        // Closing with data unsent resets the connection, which is what frees its memory now.
        Some(Expired::Write) => return Ok(()),
        Some(Expired::Idle) | None => {}
    }
    stream.shutdown().await?;
    if unread {
        linger(&mut stream).await?;
    }
    Ok(())
}

/// Reads on for a while after the last byte of the answer. To close a socket that has unread bytes resets the
/// connection, and a reset may overtake the answer.
async fn linger(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut waste = [0_u8; 4096];
    let mut total = 0;
    while total < LINGER_BYTES {
        match stream.read(&mut waste).await? {
            0 => break,
            count => total += count,
        }
    }
    Ok(())
}

/// Answers a connection that is not served at all.
pub(crate) async fn turn_away(mut stream: TcpStream, max_connections: usize) {
    let message = format!("All {max_connections} connections of this server are in use; try again later.");
    let answer = async {
        stream.write_all(&plain(StatusCode::SERVICE_UNAVAILABLE, &message)).await?;
        stream.shutdown().await?;
        linger(&mut stream).await
    };
    let _ = timeout(LINGER, answer).await;
}

/// An answer in one piece, for where hyper is not in charge.
fn plain(status: StatusCode, message: &str) -> Bytes {
    let body = format!("{{\"message\":\"{message}\"}}");
    let text = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    Bytes::from(text)
}
