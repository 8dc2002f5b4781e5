//! Raw bytes against the server: what a well-behaved client never sends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use bytes::Bytes;
use martlet_gateway::{Admission, BodyFault, Door, GatewayOptions, Head, Response, Served, Shutdown, serve};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Echoes bodies up to 1,000 bytes; refuses `/refused`; holds `/slow` until told.
#[derive(Default)]
struct Echo {
    admitted: AtomicUsize,
    handled: AtomicUsize,
    go: Notify,
}

fn text(status: u16, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    response
}

impl Door for Echo {
    type Ticket = ();

    fn admit(&self, head: &Head) -> Result<Admission<()>, Response> {
        self.admitted.fetch_add(1, Ordering::SeqCst);
        match head.uri.path() {
            "/refused" => Err(text(403, "refused")),
            _ => Ok(Admission { body_limit: 1000, ticket: () }),
        }
    }

    fn refuse_body(&self, _: &Head, (): (), fault: BodyFault) -> Response {
        match fault {
            BodyFault::TooLarge => text(413, "too large"),
            BodyFault::TimedOut => text(408, "too slow"),
            BodyFault::Malformed => text(400, "malformed"),
        }
    }

    async fn handle(&self, head: Head, (): (), body: Bytes, _: SocketAddr) -> Response {
        if head.uri.path() == "/slow" {
            self.go.notified().await;
        }
        self.handled.fetch_add(1, Ordering::SeqCst);
        text(200, body)
    }
}

struct Server {
    address: SocketAddr,
    door: Arc<Echo>,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<Served>,
}

async fn server(options: GatewayOptions) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = Arc::new(Echo::default());
    let (shutdown, stages) = Shutdown::new();
    let task = tokio::spawn(serve(listener, Arc::clone(&door), options, stages));
    Server { address, door, shutdown, task }
}

fn impatient() -> GatewayOptions {
    let brief = Duration::from_millis(150);
    GatewayOptions {
        header_timeout: brief,
        body_idle_timeout: brief,
        body_timeout: brief * 4,
        ..GatewayOptions::default()
    }
}

impl Server {
    async fn open(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends the bytes and returns all that comes back until the server closes.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.open().await;
        stream.write_all(bytes).await.unwrap();
        all(&mut stream).await
    }
}

async fn all(stream: &mut TcpStream) -> String {
    let mut answer = vec![];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the server closes the connection within ten seconds");
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("nothing")
}

#[tokio::test]
async fn bodies_arrive_whole_by_length_and_in_chunks() {
    let server = server(GatewayOptions::default()).await;
    let answer = server
        .exchange(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc")
        .await;
    assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    let chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    let answer = server.exchange(chunked).await;
    assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    let pipelined =
        b"GET /a HTTP/1.1\r\nhost: x\r\n\r\nGET /b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert_eq!(server.exchange(pipelined).await.matches("HTTP/1.1 200").count(), 2);
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_by_word_and_by_deed() {
    let server = server(GatewayOptions::default()).await;
    let mut announced = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n".to_vec();
    announced.extend(vec![b'a'; 100_000]);
    let answer = server.exchange(&announced).await;
    assert_eq!(status(&answer), "413", "{answer}");
    let mut creeping = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..20 {
        creeping.extend(b"64\r\n");
        creeping.extend(vec![b'a'; 100]);
        creeping.extend(b"\r\n");
    }
    creeping.extend(b"0\r\n\r\n");
    assert_eq!(status(&server.exchange(&creeping).await), "413");
    assert_eq!(server.door.handled.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_refused_client_that_waits_to_be_asked_is_not_asked() {
    let server = server(GatewayOptions::default()).await;
    let head = b"POST /refused HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    let answer = server.exchange(head).await;
    assert_eq!(status(&answer), "403", "{answer}");
    let too_large = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5000\r\n\r\n";
    assert_eq!(status(&server.exchange(too_large).await), "413");

    let mut stream = server.open().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 5\r\n\r\n").await.unwrap();
    let mut first = [0; 25];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    assert!(all(&mut stream).await.ends_with("hello"));
}

#[tokio::test]
async fn slow_and_broken_clients_are_told_and_cut() {
    let server = server(impatient()).await;
    assert_eq!(status(&server.exchange(b"POST / HTT").await), "408", "a head that never ends is cut");
    assert_eq!(server.exchange(b"").await, "", "a client that says nothing is told nothing");
    let stalled = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc";
    assert_eq!(status(&server.exchange(stalled).await), "408");
    let nonsense = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(status(&server.exchange(nonsense).await), "400");
    assert_eq!(status(&server.exchange(b"\x00\x01\x02 what\r\n\r\n").await), "400");
    let mut stream = server.open().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_ne!(status(&all(&mut stream).await), "200");
    assert_eq!(server.door.handled.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn absurd_heads_are_refused() {
    let server =
        server(GatewayOptions { max_header_bytes: 8192, max_headers: 10, ..GatewayOptions::default() }).await;
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "b".repeat(20_000));
    assert_eq!(status(&server.exchange(long.as_bytes()).await), "431");
    let many: String = (0..20).map(|n| format!("h{n}: v\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\n{many}\r\n");
    assert_eq!(status(&server.exchange(many.as_bytes()).await), "431");
    let both = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd";
    assert_eq!(status(&server.exchange(both).await), "400");
}

#[tokio::test]
async fn connections_over_the_limit_are_turned_away() {
    let server = server(GatewayOptions { max_connections: 1, ..GatewayOptions::default() }).await;
    let mut first = server.open().await;
    first.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut byte = [0; 1];
    first.read_exact(&mut byte).await.unwrap();
    assert_eq!(status(&all(&mut server.open().await).await), "503");
}

#[tokio::test]
async fn draining_finishes_what_was_admitted_and_takes_nothing_new() {
    let server = server(GatewayOptions::default()).await;
    let mut idle = server.open().await;
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut byte = [0; 1];
    idle.read_exact(&mut byte).await.unwrap();
    let mut slow = server.open().await;
    slow.write_all(b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let both_admitted = async {
        while server.door.admitted.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), both_admitted).await.expect("both requests are read");
    server.shutdown.drain();
    all(&mut idle).await;
    server.door.go.notify_one();
    assert!(all(&mut slow).await.ends_with("ok"));
    let served = tokio::time::timeout(Duration::from_secs(10), server.task).await.expect("drained").unwrap();
    assert_eq!(served, Served { aborted: 0 });
    assert!(TcpStream::connect(server.address).await.is_err());
}
