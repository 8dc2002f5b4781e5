//! Making one sandbox: everything that the launcher does for it, in order, until its child goes on by itself.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::child::{self, Plan};
use crate::error::{At, Fault, Step};
use crate::launcher::root::NewRoot;
use crate::launcher::workplace::{INNER_UID, Workplace};
use crate::spec::{SandboxSpec, TmpKind};
use crate::sys::{self, Side};
use crate::wire::{self, Order};

/// A child that has been told to go on.
pub(super) struct Born {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    /// Reports arrive here; orders go out.
    pub(super) talk: OwnedFd,
    /// Read side of the ending pipe, for the server.
    pub(super) ending: OwnedFd,
}

/// A cgroup namespace is entered later, by the child, from inside its own cgroup.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

pub(super) fn give_birth(
    workplace: &Workplace,
    slot: u32,
    spec: SandboxSpec,
    fds: Vec<(OwnedFd, RawFd)>,
) -> Result<Born, Fault> {
    let owner = workplace.owner(slot);
    let root = NewRoot::lay(&workplace.bench, &spec)?;
    root.furnish(&workplace.system, &spec)?;
    match workplace.options.tmp {
        TmpKind::Memory | TmpKind::Disk => root.memory_tmp(spec.tmp_bytes, owner)?,
    }
    root.seal()?;
    root.enter()?;

    let flags = SocketFlags::CLOEXEC;
    let (talk, childs_talk) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).at(Step::Namespaces, "socket")?;
    let (ending, childs_ending) = pipe_with(PipeFlags::CLOEXEC).at(Step::Namespaces, "pipe")?;
    rustix::io::ioctl_fionbio(&ending, true).at(Step::Namespaces, "pipe")?;
    let flags = NAMESPACES as u64;
    match sys::clone3(flags, None).at(Step::Namespaces, "user, mount, pid, net, ipc and uts namespaces")? {
        Side::Child => {
            child::become_init(Plan { spec, fds, talk: childs_talk, ending: childs_ending });
        }
        Side::Parent { pid, pidfd } => {
            let born = Born { pid, pidfd, talk, ending };
            // Dropping what was born unfinished closes its socket, at which it ends.
            map_user(pid, owner).at(Step::UserMap, format!("{INNER_UID} to {owner}"))?;
            wire::send(&born.talk, &Order::Go, &[]).at(Step::Attach, "go")?;
            Ok(born)
        }
    }
}

/// One uid and one gid exist inside; every other of the host appears as nobody.
fn map_user(pid: i32, owner: u32) -> io::Result<()> {
    let map = format!("{INNER_UID} {owner} 1");
    std::fs::write(format!("/proc/{pid}/uid_map"), &map)?;
    std::fs::write(format!("/proc/{pid}/gid_map"), &map)
}
