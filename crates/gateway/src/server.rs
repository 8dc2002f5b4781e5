//! Connections: accept, limit, serve, drain.

use crate::body::{self, Patience};
use crate::door::{Admission, Door, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// What a connection over the limit is told.
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// How long accepting pauses when the process has run out of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds on what a client may ask of the transport.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// From the moment the server waits for a request to the end of its head; so also how long an idle connection
    /// is kept.
    pub header_timeout: Duration,
    /// Between two pieces of a body.
    pub body_idle_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// Most bytes of a request's line and headers, at least 8,192; more is answered 431.
    pub max_head_bytes: usize,
    /// Most headers; more is answered 431.
    pub max_headers: usize,
    /// Most connections at once; one more is answered 503 and closed.
    pub max_connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(20),
            body_idle_timeout: Duration::from_secs(20),
            body_timeout: Duration::from_secs(300),
            max_head_bytes: 64 * 1024,
            max_headers: 128,
            max_connections: 4096,
        }
    }
}

/// Serves until `stop` turns true (or its sender goes), then takes no more connections and requests, finishes those that
/// were admitted, and returns when the last is answered. Dropping the future cuts every connection.
pub async fn serve<D: Door>(
    listener: TcpListener,
    door: Arc<D>,
    options: Options,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(options.max_connections));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = asked_to(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        let connection = converse(stream, peer, Arc::clone(&door), options, stop.clone());
                        connections.spawn(async move {
                            connection.await;
                            drop(place);
                        });
                    }
                    Err(_) => {
                        connections.spawn(turn_away(stream));
                    }
                },
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn asked_to(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone has nobody left to stop the server otherwise.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn turn_away(mut stream: TcpStream) {
    // Whoever is turned away and does not listen has nothing to lose.
    let _ = stream.write_all(BUSY).await;
    let _ = stream.shutdown().await;
}

async fn converse<D: Door>(
    stream: TcpStream,
    peer: SocketAddr,
    door: Arc<D>,
    options: Options,
    mut stop: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY could not be set");
    }
    let service = service_fn(move |request| {
        let door = Arc::clone(&door);
        async move { Ok::<_, Infallible>(answer(&*door, request, peer, options).await.map(Full::new)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_buf_size(options.max_head_bytes)
        .max_headers(options.max_headers)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = asked_to(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}

async fn answer<D: Door>(
    door: &D,
    request: http::Request<Incoming>,
    peer: SocketAddr,
    options: Options,
) -> Response {
    let (head, mut body) = request.into_parts();
    let waits_to_be_asked = head.headers.contains_key(header::EXPECT);
    let has_body = !body.is_end_stream();
    let patience = Patience { idle: options.body_idle_timeout, total: options.body_timeout };
    let Admission { body_limit, ticket } = match door.admit(&head) {
        Ok(admission) => admission,
        Err(refusal) if has_body => {
            if !waits_to_be_asked {
                body::discard(&mut body, patience).await;
            }
            return last(refusal);
        }
        Err(refusal) => return refusal,
    };
    let collected =
        if has_body { body::collect(&mut body, body_limit, patience).await } else { Ok(Bytes::new()) };
    match collected {
        Ok(body) => door.handle(head, ticket, body, peer).await,
        Err(fault) => {
            let refusal = door.refuse_body(&head, ticket, fault);
            if !waits_to_be_asked {
                body::discard(&mut body, patience).await;
            }
            last(refusal)
        }
    }
}

/// Marks the response as the connection's last: what follows it on the wire is the rest of a body, not a request.
fn last(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
