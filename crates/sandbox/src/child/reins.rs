//! What pid 1 of a sandbox with companions does for the server, at its word.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrV4, SocketFlags, SocketType, connect, socket_with, socketpair,
};

use crate::child::Task;
use crate::child::program::{self, Main};
use crate::error::{At, Fault, Step};
use crate::sys::{self, Reaped};
use crate::wire::{self, Rein, Who, Word};

pub(super) struct Reined {
    pub(super) socket: OwnedFd,
    /// Until the server has it.
    pub(super) servers_end: Option<OwnedFd>,
    companions: Vec<Option<i32>>,
    /// Until the main program is started.
    task: Option<Task>,
}

impl Reined {
    /// Starts the companions.
    pub(super) fn begin(mut task: Task) -> Result<Self, Fault> {
        let flags = SocketFlags::CLOEXEC;
        let (socket, servers) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).at(Step::Fork, "reins")?;
        let mut companions = Vec::new();
        for companion in task.spec.companions.iter().flatten() {
            companions.push(Some(program::spawn(&task.companion(companion))?.pid));
        }
        // The end of what they write is seen once nobody has it any more.
        let outputs: Vec<_> =
            task.spec.companions.iter().flatten().map(|companion| companion.output).collect();
        task.fds.retain(|(_, number)| !outputs.contains(number));
        Ok(Self { socket, servers_end: Some(servers), companions, task: Some(task) })
    }

    /// Tells the end of a process, if it is one that the server knows of.
    pub(super) fn ended(&mut self, reaped: &Reaped, main: Option<Main>) {
        let companion = self.companions.iter().position(|pid| *pid == Some(reaped.pid));
        let who = match companion {
            Some(at) => {
                self.companions[at] = None;
                Who::Companion(at)
            }
            None if main.is_some_and(|main| main.pid == reaped.pid) => Who::Main,
            None => return,
        };
        self.tell(&Word::Ended { who, status: reaped.status }, None);
    }

    /// Does what the server says next. Returns the main process from then on.
    pub(super) fn obey(&mut self, main: Option<Main>) -> Option<Main> {
        match wire::receive_short(&self.socket, RecvFlags::DONTWAIT) {
            Ok(Some((Rein::Start, _))) => {
                let Some(task) = self.task.take() else { return main };
                match program::spawn(&task.main()) {
                    Ok(started) => {
                        self.tell(&Word::Started, None);
                        return Some(started);
                    }
                    Err(fault) => self.tell(&Word::NotStarted(fault), None),
                }
            }
            Ok(Some((Rein::Signal { to, signal }, _))) => {
                let leader = match to {
                    Who::Main => main.map(|main| main.pid),
                    Who::Companion(at) => self.companions.get(at).copied().flatten(),
                };
                if let Some(leader) = leader {
                    sys::signal_group(leader, signal);
                }
            }
            Ok(Some((Rein::Connect { id, port }, _))) => match connecting(port) {
                Ok(socket) => self.tell(&Word::Connecting { id, errno: 0 }, Some(&socket)),
                Err(errno) => self.tell(&Word::Connecting { id, errno: errno.raw_os_error() }, None),
            },
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // The server has let go of the sandbox.
            Ok(None) | Err(_) => sys::exit_now(1),
        }
        main
    }

    fn tell(&self, word: &Word, fd: Option<&OwnedFd>) {
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
        // A server that is gone is seen at the next word of it.
        let _ = wire::send(&self.socket, word, &fds);
    }
}

/// A socket that is, or is about to be, connected.
fn connecting(port: u16) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    set_tcp_nodelay(&socket, true)?;
    match connect(&socket, &SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port)) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}
