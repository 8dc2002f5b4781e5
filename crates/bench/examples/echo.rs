//! The function that `bench/run` measures custom runtimes with: answers each event with itself, over the Runtime API.
//!
//! Sockets of the standard library and nothing else, so that what is measured is the server's way with a custom runtime and
//! not a client's. Deployed as an executable named `bootstrap`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

const API: &str = "/2018-06-01/runtime/invocation";

fn main() -> io::Result<()> {
    let host = std::env::var("AWS_LAMBDA_RUNTIME_API").map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(&host)?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(1 << 16);
    let next = format!("GET {API}/next HTTP/1.1\r\nHost: {host}\r\n\r\n");
    loop {
        stream.write_all(next.as_bytes())?;
        let event = receive(&mut stream, &mut buffer)?;
        let id = header(&buffer[..event.head], "lambda-runtime-aws-request-id")
            .ok_or_else(|| unexpected("an event has no request id"))?;
        let mut answer = format!(
            "POST {API}/{id}/response HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n",
            buffer.len() - event.body
        )
        .into_bytes();
        answer.extend_from_slice(&buffer[event.body..]);
        stream.write_all(&answer)?;
        receive(&mut stream, &mut buffer)?;
    }
}

/// Where the parts of a message are.
struct Parts {
    /// The end of its head.
    head: usize,
    /// The beginning of its body, which goes on to the end.
    body: usize,
}

/// Reads one whole good answer into `buffer`.
fn receive(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Parts> {
    buffer.clear();
    let head = loop {
        read_more(stream, buffer)?;
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
    };
    if !buffer.starts_with(b"HTTP/1.1 20") {
        return Err(unexpected("the Runtime API refuses"));
    }
    let length: usize = header(&buffer[..head], "content-length")
        .and_then(|length| length.parse().ok())
        .ok_or_else(|| unexpected("an answer does not say how long it is"))?;
    let body = head + 4;
    buffer.reserve((body + length).saturating_sub(buffer.len()));
    while buffer.len() < body + length {
        read_more(stream, buffer)?;
    }
    Ok(Parts { head, body })
}

fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 1 << 16];
    match stream.read(&mut chunk)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        read => {
            buffer.extend_from_slice(&chunk[..read]);
            Ok(())
        }
    }
}

fn header(head: &[u8], name: &str) -> Option<String> {
    String::from_utf8_lossy(head).lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

fn unexpected(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
