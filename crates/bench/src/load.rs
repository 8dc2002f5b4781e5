//! A closed loop: each connection sends its next request when the last one was answered; or, with a rate, at times of its own.

use crate::sign::{Credentials, invocation, read_credentials};
use clap::Args;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// What to send, how much and how long.
#[derive(Args)]
pub(crate) struct Options {
    /// The server's address
    #[arg(long)]
    address: SocketAddr,
    /// Invoke this function with signed requests; without it, GET /
    #[arg(long)]
    invoke: Option<String>,
    /// Where the credentials are that sign
    #[arg(long, requires = "invoke")]
    credentials: Option<PathBuf>,
    /// The region that the signature names
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// Size of the payload in bytes: a JSON text of so many
    #[arg(long, default_value_t = 2)]
    payload: usize,
    /// Ask for the response as a stream, and measure until its first byte
    #[arg(long, requires = "invoke")]
    stream: bool,
    /// A header to send along, unsigned: NAME:VALUE
    #[arg(long)]
    header: Vec<String>,
    /// A header that every answer must have: NAME:VALUE; `others` counts those without it
    #[arg(long)]
    expect: Option<String>,
    /// Connections
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// Requests a second of all connections together, sent when they are due whatever became of the others; a latency then begins
    /// when the request was due
    #[arg(long)]
    rate: Option<f64>,
    /// How long to measure
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How long to send before measuring
    #[arg(long, default_value_t = 0.5)]
    warmup: f64,
    /// Stop after so many requests a connection, whatever the time
    #[arg(long)]
    count: Option<usize>,
    /// Write every latency, in nanoseconds, one a line, to this file
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// What went wrong with a load.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("{0} has no default profile with a key and a secret")]
    Credentials(PathBuf),
    #[error("the answer is no HTTP: {0:?}")]
    NoHttp(String),
    #[error("the server answered {0}")]
    Refused(String),
    #[error("a connection's thread ended early")]
    Thread,
}

/// Runs the load and prints percentiles in microseconds and requests a second.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let request = request(options)?;
    let start = Barrier::new(options.concurrency);
    let results: Vec<Result<Seen, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.concurrency)
            .map(|index| {
                let (request, start) = (&request, &start);
                scope.spawn(move || {
                    connection(options, index, request, start).map_err(|error| error.to_string())
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(LoadError::Thread.to_string())))
            .collect()
    });
    let errors: Vec<&String> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    let good = || results.iter().filter_map(|result| result.as_ref().ok());
    let mut latencies: Vec<u64> = good().flat_map(|seen| &seen.latencies).copied().collect();
    let others: usize = good().map(|seen| seen.others).sum();
    if let Some(path) = &options.raw {
        std::fs::write(path, latencies.iter().map(|latency| format!("{latency}\n")).collect::<String>())?;
    }
    latencies.sort_unstable();
    let at = |part: f64| {
        let index = ((latencies.len() as f64) * part) as usize;
        latencies.get(index.min(latencies.len().saturating_sub(1))).map(|latency| *latency as f64 / 1000.0)
    };
    let total: u64 = latencies.iter().sum();
    let per_second = if total == 0 {
        0.0
    } else {
        latencies.len() as f64 * options.concurrency as f64 / (total as f64 / 1e9)
    };
    println!(
        "{}",
        serde_json::json!({
            "requests": latencies.len(), "errors": errors.len(), "first_error": errors.first(), "others": others,
            "p50_us": at(0.50), "p90_us": at(0.90), "p99_us": at(0.99), "max_us": at(1.0), "per_second": per_second,
        })
    );
    Ok(())
}

/// What one connection saw.
struct Seen {
    /// In nanoseconds, one an answer.
    latencies: Vec<u64>,
    /// Answers without the header that was expected.
    others: usize,
}

fn request(options: &Options) -> Result<Vec<u8>, Box<dyn Error>> {
    let Some(function) = &options.invoke else {
        return Ok(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", options.address).into_bytes());
    };
    let credentials = match &options.credentials {
        Some(path) => read_credentials(&std::fs::read_to_string(path)?)
            .ok_or_else(|| LoadError::Credentials(path.clone()))?,
        None => Credentials { key: "test".into(), secret: "test".into() },
    };
    let payload = match options.payload {
        0..=2 => b"{}".to_vec(),
        size => format!("\"{}\"", "x".repeat(size - 2)).into_bytes(),
    };
    let host = options.address.to_string();
    Ok(invocation(
        &credentials,
        &options.region,
        &host,
        (function, options.stream),
        &options.header,
        &payload,
    ))
}

fn connection(
    options: &Options,
    index: usize,
    request: &[u8],
    start: &Barrier,
) -> Result<Seen, Box<dyn Error>> {
    let opened = TcpStream::connect(options.address).and_then(|stream| {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(stream)
    });
    // Whoever cannot connect must not leave the others waiting.
    start.wait();
    let mut stream = opened?;
    let mut buffer = Vec::with_capacity(1 << 16);
    let began = Instant::now();
    let warm = began + Duration::from_secs_f64(if options.count.is_some() { 0.0 } else { options.warmup });
    let end = warm + Duration::from_secs_f64(options.seconds);
    let mut latencies = Vec::with_capacity(1 << 16);
    let mut others = 0;
    let expected = options.expect.as_ref().and_then(|header| header.split_once(':'));
    // Each connection has its turns, and these lie evenly between those of the others.
    let turn = options.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
    let every = turn.map(|turn| turn * options.concurrency as u32);
    let mut due = began + turn.unwrap_or_default() * index as u32;
    loop {
        let mut sent = Instant::now();
        if let Some(every) = every {
            if let Some(early) = due.checked_duration_since(sent) {
                std::thread::sleep(early);
                sent = Instant::now();
            } else {
                sent = due;
            }
            due += every;
        }
        if sent >= end || options.count.is_some_and(|count| latencies.len() >= count) {
            return Ok(Seen { latencies, others });
        }
        stream.write_all(request)?;
        let first = if options.stream {
            Some(receive_stream(&mut stream, &mut buffer)?)
        } else {
            receive(&mut stream, &mut buffer)?;
            None
        };
        others += usize::from(expected.is_some_and(|(name, value)| !has_header(&buffer, name, value)));
        if sent >= warm {
            let took = first.unwrap_or_else(Instant::now).saturating_duration_since(sent);
            latencies.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

/// Reads one whole answer that comes in chunks, and tells when its first one was there.
fn receive_stream(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Instant, Box<dyn Error>> {
    buffer.clear();
    let mut chunk = [0; 1 << 16];
    let mut first = None;
    loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        buffer.extend_from_slice(&chunk[..read]);
        let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        if !buffer.starts_with(b"HTTP/1.1 200") {
            return Err(LoadError::Refused(String::from_utf8_lossy(buffer).into_owned()).into());
        }
        let body = &buffer[head + 4..];
        if first.is_none() && !body.is_empty() {
            first = Some(Instant::now());
        }
        if body.ends_with(b"\r\n0\r\n\r\n") {
            return Ok(first.unwrap_or_else(Instant::now));
        }
    }
}

/// Reads one whole answer and checks that it is a good one.
fn receive(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    buffer.clear();
    let mut chunk = [0; 1 << 16];
    let (head, length) = loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        buffer.extend_from_slice(&chunk[..read]);
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let header =
                |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let length = header("content-length").and_then(|text| text.trim().parse::<usize>().ok());
            let Some(length) = length else { return Err(LoadError::NoHttp(head).into()) };
            let accepted = ["http/1.1 200", "http/1.1 202"].iter().any(|status| head.starts_with(status));
            let good = accepted && header("x-amz-function-error").is_none();
            break (if good { None } else { Some(head) }, end + 4 + length);
        }
    };
    while buffer.len() < length {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        buffer.extend_from_slice(&chunk[..read]);
    }
    match head {
        None => Ok(()),
        Some(head) => {
            Err(LoadError::Refused(format!("{head} {}", String::from_utf8_lossy(&buffer[..]))).into())
        }
    }
}

fn has_header(answer: &[u8], name: &str, value: &str) -> bool {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_default();
    String::from_utf8_lossy(&answer[..end]).lines().any(|line| {
        line.split_once(':').is_some_and(|(found, text)| {
            found.eq_ignore_ascii_case(name) && text.trim().eq_ignore_ascii_case(value)
        })
    })
}
