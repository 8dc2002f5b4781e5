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
    /// Handlers whose future is gone, answered or not.
    gone: AtomicUsize,
    go: Notify,
}

/// What no socket buffer holds.
const HUGE: usize = 64 * 1024 * 1024;

/// Counts a handler's end, however it ends.
struct Leaving<'a>(&'a Echo);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.gone.fetch_add(1, Ordering::SeqCst);
    }
}

fn text(status: u16, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    response
}

impl Door for Echo {
    type Ticket = ();

    fn admit(&self, head: &Head, _: SocketAddr) -> Result<Admission<()>, Response> {
        self.admitted.fetch_add(1, Ordering::SeqCst);
        match head.uri.path() {
            "/refused" => Err(text(403, "refused")),
            _ => Ok(Admission { body_limit: 1000, ticket: () }),
        }
    }

    fn refuse_body(&self, _: &Head, (): (), fault: BodyFault, _: SocketAddr) -> Response {
        match fault {
            BodyFault::TooLarge => text(413, "too large"),
            BodyFault::TimedOut => text(408, "too slow"),
            BodyFault::Malformed => text(400, "malformed"),
            BodyFault::NoRoom => text(503, "no room"),
        }
    }

    async fn handle(&self, head: Head, (): (), body: Bytes, _: SocketAddr) -> Response {
        let _leaving = Leaving(self);
        if head.uri.path() == "/huge" {
            return text(200, vec![b'a'; HUGE]);
        }
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
    async fn admitted(&self, count: usize) {
        reaches(&self.door.admitted, count).await;
    }

    async fn gone(&self, count: usize) {
        reaches(&self.door.gone, count).await;
    }

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

async fn reaches(counter: &AtomicUsize, count: usize) {
    let reached = async {
        while counter.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("it happens within ten seconds");
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
    server.admitted(2).await;
    server.shutdown.drain();
    all(&mut idle).await;
    server.door.go.notify_one();
    assert!(all(&mut slow).await.ends_with("ok"));
    let served = tokio::time::timeout(Duration::from_secs(10), server.task).await.expect("drained").unwrap();
    assert_eq!(served, Served { aborted: 0 });
    assert!(TcpStream::connect(server.address).await.is_err());
}

/// Sends all, only then reads: what many clients do, and what makes a careless server reset its own answer away.
#[tokio::test]
async fn refusals_arrive_at_clients_that_only_write_at_first() {
    let server = server(GatewayOptions::default()).await;
    for path in ["/refused", "/"] {
        let mut request =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 20000000\r\n\r\n").into_bytes();
        request.resize(request.len() + 20_000_000, b'a');
        let answer = server.exchange(&request).await;
        assert_eq!(status(&answer), if path == "/refused" { "403" } else { "413" });
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn a_refused_request_with_a_small_body_costs_no_connection() {
    let server = server(GatewayOptions::default()).await;
    let both = b"POST /refused HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = server.exchange(both).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn drops_of_a_body_run_out_of_time() {
    let server = server(impatient()).await;
    let mut stream = server.open().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n").await.unwrap();
    let (mut read, mut write) = stream.split();
    let drip = async {
        // Each byte comes within the idle time-out; all of them would take a minute.
        while write.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut answer = vec![];
    tokio::select! {
        () = drip => {}
        end = tokio::time::timeout(Duration::from_secs(10), read.read_to_end(&mut answer)) => drop(end),
    }
    assert_eq!(status(&String::from_utf8_lossy(&answer)), "408");
}

#[tokio::test]
async fn idle_connections_end_quietly() {
    let keep_alive_timeout = Duration::from_millis(150);
    let server = server(GatewayOptions { keep_alive_timeout, ..GatewayOptions::default() }).await;
    let answer = server.exchange(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "one answer and no word at the end: {answer}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let write_timeout = Duration::from_millis(150);
    let server = server(GatewayOptions { write_timeout, ..GatewayOptions::default() }).await;
    let mut stream = server.open().await;
    stream.write_all(b"GET /huge HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.gone(1).await;
    // To do nothing for longer than the time-out is the behaviour under test.
    tokio::time::sleep(write_timeout * 4).await;
    let mut answer = vec![];
    let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    assert!(end.expect("the connection has ended").is_err() || answer.len() < HUGE, "it was cut, not served");
}

#[tokio::test]
async fn what_the_grammar_forbids_is_refused() {
    let server = server(GatewayOptions::default()).await;
    let post = |headers: &str| format!("POST / HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\nabc");
    for headers in [
        "content-length: -1",
        "content-length: +3",
        "content-length: 3, 4",
        "content-length: three",
        "content-length: 99999999999999999999999999",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, identity",
        "na me: x",
        "name : x",
        ": x",
        "name: a\0b",
        "name",
    ] {
        let answer = server.exchange(post(headers).as_bytes()).await;
        assert!(matches!(status(&answer), "400" | "501"), "{headers}: {answer:?}");
    }
    for line in [
        "GET",
        "GET /",
        "GET / HTTP/9.9",
        "GET / HTTP/1.1 x",
        "G@T / HTTP/1.1 ",
        "\u{7f} / HTTP/1.1",
        "PRI * HTTP/2.0",
    ] {
        let answer = server.exchange(format!("{line}\r\nhost: x\r\n\r\n").as_bytes()).await;
        assert!(matches!(status(&answer), "400" | "505"), "{line}: {answer:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000));
    assert!(matches!(status(&server.exchange(long.as_bytes()).await), "414" | "431"));
    assert_eq!(server.door.handled.load(Ordering::SeqCst), 0);
}

/// A request within a request: where a proxy and a server read lengths differently, the second one would be believed.
#[tokio::test]
async fn two_lengths_are_never_two_requests() {
    let server = server(GatewayOptions::default()).await;
    let smuggled = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut stream = server.open().await;
    stream.write_all(smuggled).await.unwrap();
    let answer = all(&mut stream).await;
    assert!(answer.matches("HTTP/1.1 200").count() <= 1, "{answer}");
}

#[tokio::test]
async fn older_clients_are_served_and_let_go() {
    let server = server(GatewayOptions::default()).await;
    let answer = server.exchange(b"GET / HTTP/1.0\r\nhost: x\r\n\r\n").await;
    assert_eq!(status(&answer), "200");
}

#[tokio::test]
async fn the_drain_has_an_end() {
    let drain_timeout = Duration::from_millis(150);
    let server = server(GatewayOptions { drain_timeout, ..GatewayOptions::default() }).await;
    let mut slow = server.open().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.admitted(1).await;
    server.shutdown.drain();
    assert_eq!(all(&mut slow).await, "");
    let served = tokio::time::timeout(Duration::from_secs(10), server.task).await.expect("drained").unwrap();
    assert_eq!(served, Served { aborted: 1 });
}

#[tokio::test]
async fn an_order_to_stop_waits_for_nothing() {
    let server = server(GatewayOptions::default()).await;
    let mut slow = server.open().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.admitted(1).await;
    server.shutdown.drain();
    server.shutdown.stop();
    let served = tokio::time::timeout(Duration::from_secs(10), server.task).await.expect("stopped").unwrap();
    assert_eq!(served, Served { aborted: 1 });
    assert_eq!(all(&mut slow).await, "");
}

/// The handler's future is dropped, so what it holds is given back.
#[tokio::test]
async fn a_client_that_goes_away_is_not_worked_for() {
    let server = server(GatewayOptions::default()).await;
    let mut stream = server.open().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.admitted(1).await;
    drop(stream);
    server.gone(1).await;
    assert_eq!(server.door.handled.load(Ordering::SeqCst), 0);
}
