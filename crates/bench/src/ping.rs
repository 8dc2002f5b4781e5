//! The floor of every hop between two processes: a few bytes over a Unix socket, there and back.

use std::error::Error;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Sends back whatever comes over standard input, which is a socket here, until the other end closes it.
///
/// # Errors
/// When standard input cannot be used.
pub(crate) fn echo() -> Result<(), Box<dyn Error>> {
    let input = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?;
    let mut stream = UnixStream::from(input);
    let mut buffer = [0; 64];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read])?,
        }
    }
}

/// Plays with a second process of this program for so long, and prints percentiles in microseconds.
///
/// # Errors
/// When the second process cannot be started, or ends.
pub(crate) fn play(seconds: f64) -> Result<(), Box<dyn Error>> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut other = Command::new(std::env::current_exe()?)
        .arg("echo")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let mut rounds = Vec::with_capacity(1 << 18);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut buffer = [0; 64];
    loop {
        let sent = Instant::now();
        if sent >= end {
            break;
        }
        ours.write_all(b"ping")?;
        ours.read_exact(&mut buffer[..4])?;
        rounds.push(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    drop(ours);
    other.wait()?;
    rounds.sort_unstable();
    let at = |part: f64| {
        let index = ((rounds.len() as f64) * part) as usize;
        rounds.get(index.min(rounds.len().saturating_sub(1))).map(|nanos| *nanos as f64 / 1000.0)
    };
    println!(
        "{}",
        serde_json::json!({ "rounds": rounds.len(), "p50_us": at(0.50), "p90_us": at(0.90), "p99_us": at(0.99) })
    );
    Ok(())
}
