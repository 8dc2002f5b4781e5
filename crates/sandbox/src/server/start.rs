//! Starting the launcher, before the server has any thread.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
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
    /// [`Launcher::start_within`] without a limit to what may be shown: for a server that could read every host path itself.
    pub fn start(options: LauncherOptions) -> Result<LauncherProcess, StartError> {
        Self::start_within(options, vec!["/".into()])
    }

    /// Starts the launcher: this very program again with [`crate::LAUNCHER_COMMAND`] as its argument and an empty
    /// environment. Call it before any thread exists and before privileges are dropped; it blocks until the
    /// launcher is ready or has refused.
    ///
    /// Only paths below `bind_roots` may later be shown in sandboxes. They must exist, are held open from now on, and links in
    /// them are followed only as long as they stay below: a server that drops its privileges and is then taken over
    /// cannot have the launcher show it the rest of the host.
    pub fn start_within(
        options: LauncherOptions,
        bind_roots: Vec<PathBuf>,
    ) -> Result<LauncherProcess, StartError> {
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
        match handshake(&ours, &Request::Start { options, bind_roots }) {
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

fn handshake(socket: &OwnedFd, start: &Request) -> Result<InForce, StartError> {
    sockopt::set_socket_timeout(socket, sockopt::Timeout::Recv, Some(READY_WITHIN))
        .map_err(|errno| StartError::Socket(errno.into()))?;
    wire::send(socket, start, &[]).map_err(StartError::Silent)?;
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
