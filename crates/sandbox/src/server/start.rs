//! Starting the launcher, before the server has any thread.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair, sockopt};

use crate::error::StartError;
use crate::server::connection::Launcher;
use crate::spec::LauncherOptions;
use crate::wire::{self, InForce, Reply, Request};

/// A launcher that is ready, not yet tied to an asynchronous runtime. Dropping it ends the launcher.
#[derive(Debug)]
pub struct LauncherProcess {
    pub(super) socket: OwnedFd,
    pub(super) child: Child,
    pub(super) in_force: InForce,
}

/// How long a launcher may take to become ready; most of it is for ending a killed predecessor's sandboxes.
const READY_WITHIN: Duration = Duration::from_secs(30);

impl Launcher {
    /// Starts the launcher: this very program again with [`crate::LAUNCHER_COMMAND`] as its argument and an empty
    /// environment. Call it before any thread exists and before privileges are dropped; it blocks until the
    /// launcher is ready or has refused.
    pub fn start(options: LauncherOptions) -> Result<LauncherProcess, StartError> {
        options.validate().map_err(StartError::Invalid)?;
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|errno| StartError::Socket(errno.into()))?;
        let program = "/proc/self/exe";
        let mut command = Command::new(program);
        command.arg(crate::LAUNCHER_COMMAND).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let mut child = crate::sys::spawn_with_fd_3(&mut command, theirs)
            .map_err(|source| StartError::Spawn { program: program.into(), source })?;
        match handshake(&ours, options) {
            Ok(in_force) => Ok(LauncherProcess { socket: ours, child, in_force }),
            Err(error) => {
                // It has ended by itself, or ends when it sees the socket closed; either way it is ours to reap.
                drop(ours);
                if child.wait().is_err() {
                    return Err(StartError::Silent(io::ErrorKind::NotFound.into()));
                }
                Err(error)
            }
        }
    }
}

fn handshake(socket: &OwnedFd, options: LauncherOptions) -> Result<InForce, StartError> {
    sockopt::set_socket_timeout(socket, sockopt::Timeout::Recv, Some(READY_WITHIN))
        .map_err(|errno| StartError::Socket(errno.into()))?;
    wire::send(socket, &Request::Start(options), &[]).map_err(StartError::Silent)?;
    match wire::receive(socket, RecvFlags::empty()).map_err(StartError::Silent)? {
        Some((Reply::Ready(in_force), _)) => Ok(in_force),
        Some((Reply::Invalid(invalid), _)) => Err(StartError::Invalid(invalid)),
        Some((Reply::Refused(refusal), _)) => Err(StartError::Refused(refusal)),
        Some(_) => Err(StartError::Silent(io::ErrorKind::InvalidData.into())),
        None => Err(StartError::Silent(io::ErrorKind::UnexpectedEof.into())),
    }
}

impl LauncherProcess {
    /// What this launcher enforces.
    pub fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// The launcher's process id, for tests and diagnostics.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}
