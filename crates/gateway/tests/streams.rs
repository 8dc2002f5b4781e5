//! Answers that are made while they are sent.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use bytes::Bytes;
use martlet_gateway::{
    Admission, Body, BodyFault, Broken, Door, GatewayOptions, Head, Response, Shutdown, Source, serve,
};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

type Piece = Result<Bytes, Broken>;

/// Answers each request with what comes out of the next channel.
struct Streams(Mutex<Vec<mpsc::Receiver<Piece>>>);

struct Channel(mpsc::Receiver<Piece>);

impl Source for Channel {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        self.0.poll_recv(context)
    }
}

impl Door for Streams {
    type Ticket = ();

    fn admit(&self, _: &Head, _: SocketAddr) -> Result<Admission<()>, Response> {
        Ok(Admission { body_limit: 1000, ticket: () })
    }

    fn refuse_body(&self, _: &Head, (): (), _: BodyFault, _: SocketAddr) -> Response {
        Response::default()
    }

    async fn handle(&self, _: Head, (): (), _: Bytes, _: SocketAddr) -> Response {
        let next = self.0.lock().unwrap().pop();
        Response::new(next.map_or_else(Body::default, |next| Body::stream(Channel(next))))
    }
}

/// A connection that has asked, and the sender of its answer.
async fn asked(options: GatewayOptions) -> (TcpStream, mpsc::Sender<Piece>, Shutdown) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel(1);
    let (shutdown, stages) = Shutdown::new();
    tokio::spawn(serve(listener, Arc::new(Streams(Mutex::new(vec![receiver]))), options, stages));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    (stream, sender, shutdown)
}

async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = String::new();
    while !read.ends_with(end) {
        let mut byte = [0];
        let count = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut byte));
        match count.await.expect("it comes within ten seconds").unwrap() {
            0 => break,
            _ => read.push(char::from(byte[0])),
        }
    }
    read
}

#[tokio::test]
async fn each_piece_leaves_when_it_is_there_and_the_connection_goes_on() {
    let (mut stream, sender, _shutdown) = asked(GatewayOptions::default()).await;
    sender.send(Ok("one".into())).await.unwrap();
    let head = until(&mut stream, "3\r\none\r\n").await;
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    sender.send(Ok("two".into())).await.unwrap();
    assert_eq!(until(&mut stream, "two\r\n").await, "3\r\ntwo\r\n");
    drop(sender);
    assert_eq!(until(&mut stream, "0\r\n\r\n").await, "0\r\n\r\n");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let (mut stream, sender, _shutdown) = asked(GatewayOptions::default()).await;
    sender.send(Ok("one".into())).await.unwrap();
    sender.send(Err(Broken)).await.unwrap();
    let answer = until(&mut stream, "nothing ends so").await;
    assert!(answer.ends_with("3\r\none\r\n"), "{answer}");
}

/// A connection with an answer under way is not idle, however long the next piece takes.
#[tokio::test]
async fn the_wait_for_a_piece_is_no_idle_time() {
    let brief = Duration::from_millis(50);
    let options =
        GatewayOptions { header_timeout: brief, keep_alive_timeout: brief, ..GatewayOptions::default() };
    let (mut stream, sender, _shutdown) = asked(options).await;
    sender.send(Ok("one".into())).await.unwrap();
    until(&mut stream, "one\r\n").await;
    let closed = tokio::time::timeout(brief * 6, stream.read_u8()).await;
    assert!(closed.is_err(), "it stays open: {closed:?}");
    sender.send(Ok("two".into())).await.unwrap();
    drop(sender);
    assert_eq!(until(&mut stream, "0\r\n\r\n").await, "3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(until(&mut stream, "never").await, "", "idle from here on, and closed for it");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_source_and_one_that_leaves_ends_it() {
    let (stream, sender, _shutdown) = asked(GatewayOptions::default()).await;
    let piece = Bytes::from(vec![b'a'; 256 * 1024]);
    let mut sent = 0;
    // Sockets have buffers, but not endless ones.
    while tokio::time::timeout(Duration::from_millis(500), sender.send(Ok(piece.clone()))).await.is_ok() {
        sent += 1;
        assert!(sent < 400, "100 MB went to a client that reads nothing");
    }
    drop(stream);
    tokio::time::timeout(Duration::from_secs(10), sender.closed()).await.expect("the source is dropped");
}
