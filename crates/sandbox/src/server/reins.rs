//! The server's hold on the processes of a sandbox with companions.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::LaunchError;
use crate::server::sandbox::ExitStatus;
use crate::wire::{self, Rein, Who, Word};

/// Starts the main program of a sandbox with companions, signals its processes, hears of their ends, and connects to what
/// listens inside. What is asked for when the sandbox is gone comes to nothing; [`Reins::poll`] then says so.
#[derive(Debug)]
pub struct Reins {
    socket: AsyncFd<OwnedFd>,
}

/// What is heard of a sandbox with companions.
#[derive(Debug)]
pub enum Told {
    /// The main program runs.
    Started,
    /// It could not be executed.
    NotStarted(LaunchError),
    /// A process ended. What others it has left may still run.
    Ended(Who, ExitStatus),
    /// The answer to [`Reins::connect`]: a socket that does not block and may still be connecting.
    Connecting(u64, io::Result<TcpStream>),
}

impl Reins {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: crate::sys::watch(socket, Interest::READABLE)? })
    }

    /// Has the main program started; once.
    pub fn start(&self) {
        self.say(&Rein::Start);
    }

    /// Sends a signal to a process and all of its group, if it has not ended.
    pub fn signal(&self, to: Who, signal: i32) {
        self.say(&Rein::Signal { to, signal });
    }

    /// Connects to a port of the sandbox's loopback; `id` comes back with the answer.
    pub fn connect(&self, id: u64, port: u16) {
        self.say(&Rein::Connect { id, port });
    }

    /// The next that happens.
    ///
    /// # Errors
    /// When the sandbox is gone.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<Told>> {
        loop {
            let mut readable = ready!(self.socket.poll_read_ready(context))?;
            match wire::receive::<Word>(self.socket.get_ref(), RecvFlags::DONTWAIT) {
                Ok(Some((word, fds))) => return Poll::Ready(Ok(told(word, fds))),
                Ok(None) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn say(&self, rein: &Rein) {
        // It is short, and pid 1 reads at once: a full socket, too, means that nobody is there.
        let _ = wire::send(self.socket.get_ref(), rein, &[]);
    }
}

fn told(word: Word, fds: Vec<OwnedFd>) -> Told {
    match word {
        Word::Started => Told::Started,
        Word::NotStarted(fault) => Told::NotStarted(fault.into()),
        Word::Ended { who, status } => Told::Ended(who, ExitStatus::from_wire(status)),
        Word::Connecting { id, errno } => {
            let missing = || io::Error::from_raw_os_error(if errno == 0 { libc::EBADF } else { errno });
            Told::Connecting(id, fds.into_iter().next().map(TcpStream::from).ok_or_else(missing))
        }
    }
}
