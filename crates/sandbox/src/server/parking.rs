//! Copies of a parked process: a forkable sandbox whose main process waits in the park library (`park/park.c`), shells made
//! for its copies, and the request that brings the two together.
//!
//! The process behind the park socket has run code that nobody trusts. It may answer anything, or nothing; what it makes of
//! a shell concerns the shells of this one template only.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::child::Rights;
use crate::server::sandbox::{Entrance, Sandbox};
use crate::spec::SandboxSpec;

/// An empty sandbox below a template, ready for one copy of it. Dropping it frees everything that it holds.
#[derive(Debug)]
pub struct Shell {
    sandbox: Sandbox,
    entrance: Entrance,
    rights: Rights,
}

impl Shell {
    pub(super) fn new(sandbox: Sandbox, entrance: Entrance, landlock_abi: u32) -> Self {
        Self { sandbox, entrance, rights: Rights::under(landlock_abi) }
    }
}

/// The server's end of a template's park socket.
#[derive(Debug)]
pub struct Parking {
    socket: AsyncFd<OwnedFd>,
    /// An answer was not waited for, so that the next one could be mistaken.
    out_of_step: bool,
}

/// Why there is no copy. The shell that was meant for it is gone.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The template has ended, has closed its socket, or has been given up.
    #[error("the template has ended")]
    Gone,
    /// The template said that a step failed; it can be asked again.
    #[error("the template could not {step}")]
    Refused {
        /// What failed.
        step: ForkStep,
        /// What the kernel answered.
        #[source]
        errno: io::Error,
    },
    /// The template answered something that is no answer. It is not asked again.
    #[error("the template answered something that is no answer")]
    Garbage,
    /// The template did not answer within five seconds. It is not asked again.
    #[error("the template did not answer in time")]
    Timeout,
    /// The request could not be sent.
    #[error("could not send the request to the template")]
    Send(#[source] io::Error),
}

/// What a template does on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkStep {
    /// Read the request.
    Request,
    /// Join the shell's namespaces.
    Join,
    /// Fork.
    Fork,
    /// Enter the shell's cgroups.
    Cgroup,
    /// Drop what joining gave.
    Privileges,
    /// Apply Landlock.
    Landlock,
    /// Put descriptors in their places.
    Descriptors,
}

impl std::fmt::Display for ForkStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Request => "read the request",
            Self::Join => "join the shell's namespaces",
            Self::Fork => "fork",
            Self::Cgroup => "enter the shell's cgroups",
            Self::Privileges => "drop its privileges",
            Self::Landlock => "apply Landlock",
            Self::Descriptors => "put descriptors in their places",
        })
    }
}

/// How long a template may take. A copy of a gigabyte takes some tens of milliseconds; the rest is for a machine that has
/// far more to do than it can.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Of the request's layout, see `park/park.c`.
const VERSION: u8 = 1;
/// Namespaces, doors and descriptors in one request; the kernel allows 253.
const MAX_DESCRIPTORS: usize = 64;
const REPLY_BYTES: usize = 8;

impl Parking {
    /// The server's end, and the one to be given to the template's main process.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let socket = crate::sys::watch(ours, Interest::READABLE)?;
        Ok((Self { socket, out_of_step: false }, theirs))
    }

    /// Has the template copy itself into `shell`, with `fds` at the given numbers, and all its other descriptors but the
    /// park socket. Resolves when the copy is in its cgroups and has dropped its privileges; what it does then is up to
    /// the code that called the park library.
    ///
    /// One at a time. A call that is dropped before it resolves leaves the parking of no more use.
    pub async fn fork(&mut self, shell: Shell, fds: Vec<(OwnedFd, RawFd)>) -> Result<Sandbox, ForkError> {
        if self.out_of_step {
            return Err(ForkError::Gone);
        }
        let Shell { sandbox, entrance, rights } = shell;
        self.out_of_step = true;
        self.request(&entrance, &rights, &fds)?;
        drop((entrance, fds));
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.answer()).await;
        let result = answer.unwrap_or(Err(ForkError::Timeout));
        self.out_of_step = !matches!(result, Ok(()) | Err(ForkError::Refused { .. }));
        result.map(|()| sandbox)
    }

    fn request(
        &self,
        entrance: &Entrance,
        rights: &Rights,
        fds: &[(OwnedFd, RawFd)],
    ) -> Result<(), ForkError> {
        let counts = [entrance.namespaces.len(), entrance.doors.len(), fds.len()];
        if counts.iter().sum::<usize>() > MAX_DESCRIPTORS {
            return Err(ForkError::Send(io::ErrorKind::InvalidInput.into()));
        }
        let mut bytes = vec![VERSION];
        bytes.extend(counts.map(|count| count as u8));
        bytes.extend(0u32.to_le_bytes());
        for word in [rights.handled, rights.scoped, rights.read, rights.everything, rights.in_place] {
            bytes.extend(word.to_le_bytes());
        }
        for (_, number) in fds {
            bytes.extend(number.to_le_bytes());
        }
        let fds: Vec<_> = entrance
            .namespaces
            .iter()
            .chain(&entrance.doors)
            .chain(fds.iter().map(|(fd, _)| fd))
            .map(AsFd::as_fd)
            .collect();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let message = [io::IoSlice::new(&bytes)];
        // One request at a time always fits the socket, unless the template has filled it: then it is of no use.
        match sendmsg(self.socket.get_ref(), &message, &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(ForkError::Gone),
            Err(errno) => Err(ForkError::Send(errno.into())),
        }
    }

    /// Descriptors that a template sends along are not taken, and so closed by the kernel.
    async fn answer(&self) -> Result<(), ForkError> {
        let mut bytes = [0; REPLY_BYTES + 1];
        let received = self.socket.async_io(Interest::READABLE, |socket| {
            let mut none = rustix::net::RecvAncillaryBuffer::new(&mut []);
            let message = &mut [io::IoSliceMut::new(&mut bytes)];
            let received = recvmsg(socket, message, &mut none, RecvFlags::CMSG_CLOEXEC)?;
            Ok((received.bytes, received.flags))
        });
        let (length, flags) = received.await.map_err(|_| ForkError::Gone)?;
        if length == 0 && flags.is_empty() {
            return Err(ForkError::Gone);
        }
        if length != REPLY_BYTES || flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(ForkError::Garbage);
        }
        read_reply(std::array::from_fn(|i| bytes[i]))
    }
}

/// Status (0, or an error's number, negative) and the step that failed.
fn read_reply(bytes: [u8; REPLY_BYTES]) -> Result<(), ForkError> {
    let word = |at: usize| i32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let step = match (word(0), word(4)) {
        (0, 0) => return Ok(()),
        (0 | 1.., _) => return Err(ForkError::Garbage),
        (_, 1) => ForkStep::Request,
        (_, 2) => ForkStep::Join,
        (_, 3) => ForkStep::Fork,
        (_, 4) => ForkStep::Cgroup,
        (_, 5) => ForkStep::Privileges,
        (_, 6) => ForkStep::Landlock,
        (_, 7) => ForkStep::Descriptors,
        _ => return Err(ForkError::Garbage),
    };
    Err(ForkError::Refused { step, errno: io::Error::from_raw_os_error(word(0).saturating_neg()) })
}

// Requests and descriptors travel by the same socket as those of one launch, which may hold more.
const _: () = assert!(MAX_DESCRIPTORS <= SandboxSpec::MAX_DESCRIPTORS);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply(status: i32, step: u32) -> [u8; REPLY_BYTES] {
        let mut bytes = [0; REPLY_BYTES];
        bytes[..4].copy_from_slice(&status.to_le_bytes());
        bytes[4..].copy_from_slice(&step.to_le_bytes());
        bytes
    }

    #[test]
    fn a_reply_is_a_status_and_the_step_that_failed() {
        assert!(read_reply(reply(0, 0)).is_ok());
        let refused = read_reply(reply(-libc::EAGAIN, 3));
        assert!(matches!(&refused, Err(ForkError::Refused { step: ForkStep::Fork, errno })
            if errno.raw_os_error() == Some(libc::EAGAIN)));
        for (status, step) in [(0, 1), (1, 0), (-1, 0), (-1, 8)] {
            assert!(matches!(read_reply(reply(status, step)), Err(ForkError::Garbage)), "{status} {step}");
        }
    }

    proptest! {
        #[test]
        fn no_reply_makes_it_panic(bytes in any::<[u8; REPLY_BYTES]>()) {
            let _ = read_reply(bytes);
        }
    }
}
