//! Making one sandbox: everything that the launcher does for it, in order, until its child goes on by itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::cgroup::{Group, Limits};
use crate::child::{self, Plan, Role, Task};
use crate::error::{At, Fault, Step};
use crate::launcher::images::Used;
use crate::launcher::midwife::Delivery;
use crate::launcher::root::{self, NewRoot};
use crate::launcher::workplace::{INNER_UID, Workplace};
use crate::spec::SandboxSpec;
use crate::sys::{self, Side};
use crate::wire::{self, Order};

/// A child, and what connects it to the launcher.
pub(super) struct Born {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    /// Reports arrive here; orders go out. Closing it ends a child that has not been told to go on.
    pub(super) talk: OwnedFd,
    /// Read side of the ending pipe, for the server.
    pub(super) ending: OwnedFd,
    /// What its `/tmp` is kept in, where that is on disk.
    pub(super) image: Option<Used>,
}

/// A cgroup namespace is entered later, by the child, from inside its own cgroup.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

pub(super) const NAMED: &str = "user, mount, pid, net, ipc, uts";

/// Where the kernel looks first when the whole machine is short of memory: at functions, before their server.
const OOM_SCORE: &str = "500";

/// Builds the root and creates the child in its namespaces: those of the launcher, or of `template`, the pid 1 below which a
/// shell is made. The child then waits for [`release`].
pub(super) fn conceive(
    workplace: &mut Workplace,
    slot: u32,
    spec: SandboxSpec,
    fds: Vec<(OwnedFd, RawFd)>,
    group: Option<&Group>,
    template: Option<&OwnedFd>,
) -> Result<Born, Fault> {
    let owner = workplace.owner(slot);
    let (tmp, image) = tmp(workplace, owner, &spec)?;
    own_pipes(&fds, owner)?;
    let role = match template {
        Some(_) => Role::Shell,
        None if spec.forkable => Role::Forkable,
        None => Role::Plain,
    };
    // A shell gets a copy of its template's root, in which it mounts its own `/tmp` itself.
    let (_root, tmp) = match template {
        Some(_) => (None, Some(tmp)),
        None => (Some(root::build(workplace, &spec, tmp)?), None),
    };
    let born = bear(workplace, Some(Task { role, spec, fds }), tmp, group, template)?;
    Ok(Born { image, ..born })
}

/// The same for a sandbox that is told later what it is for, by [`assign`]; also returns its root.
pub(super) fn conceive_ahead(
    workplace: &mut Workplace,
    group: Option<&Group>,
) -> Result<(Born, NewRoot), Fault> {
    let mut root = root::build_ahead(workplace)?;
    let born = bear(workplace, None, None, group, None)?;
    root.leave_bench();
    Ok((born, root))
}

/// Tells a sandbox that stands what it is for, and gives it what it needs for that. Returns what its `/tmp` is kept in.
pub(super) fn assign(
    workplace: &mut Workplace,
    slot: u32,
    root: &NewRoot,
    talk: &OwnedFd,
    spec: &SandboxSpec,
    fds: Vec<(OwnedFd, RawFd)>,
) -> Result<Option<Used>, Fault> {
    let owner = workplace.owner(slot);
    let (tmp, image) = tmp(workplace, owner, spec)?;
    own_pipes(&fds, owner)?;
    let mut trees = vec![(PathBuf::from("/tmp"), tmp)];
    trees.extend(root.show_later(&workplace.sources, spec)?);
    let (targets, trees): (Vec<_>, Vec<_>) = trees.into_iter().unzip();
    let (fds, numbers): (Vec<_>, Vec<_>) = fds.into_iter().unzip();
    let text = wire::write_spec(spec).at(Step::Request, "specification")?;
    let all: Vec<_> = std::iter::once(&text).chain(&trees).chain(&fds).map(AsFd::as_fd).collect();
    let order = Order::Serve { forkable: spec.forkable, targets, numbers };
    wire::send(talk, &order, &all).at(Step::Request, "specification")?;
    Ok(image)
}

/// Whether a sandbox that was made ahead will do: nothing of what is asked for lies where the launcher cannot make a place
/// for it any more, and all of it fits one message.
pub(super) fn may_be_assigned(workplace: &Workplace, spec: &SandboxSpec, fds: usize) -> bool {
    let targets: Vec<&Path> = spec.binds.iter().map(|bind| bind.target.as_path()).collect();
    let within = |path: &Path| {
        workplace.system.holds(path)
            || targets.iter().any(|target| path != *target && path.starts_with(target))
    };
    fds + spec.binds.len() + 2 <= SandboxSpec::MAX_DESCRIPTORS
        && !targets.iter().any(|target| within(target))
        && !spec.files.iter().any(|(path, _)| within(Path::new(path)))
}

/// A new `/tmp`, the own one of `owner`.
fn tmp(workplace: &mut Workplace, owner: u32, spec: &SandboxSpec) -> Result<(OwnedFd, Option<Used>), Fault> {
    match &mut workplace.images {
        Some(images) => {
            let image = images.take(spec.tmp_bytes)?;
            root::give(&image.mount, owner)?;
            let (tmp, used) = image.hand_out()?;
            Ok((tmp, Some(used)))
        }
        None => {
            let tmp = root::memory_tmp(spec.tmp_bytes)?;
            root::give(&tmp, owner)?;
            Ok((tmp, None))
        }
    }
}

/// Creates the child; its root, if it has one of its own, is the working directory.
fn bear(
    workplace: &mut Workplace,
    task: Option<Task>,
    tmp: Option<OwnedFd>,
    group: Option<&Group>,
    template: Option<&OwnedFd>,
) -> Result<Born, Fault> {
    let flags = SocketFlags::CLOEXEC;
    let (talk, childs_talk) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).at(Step::Namespaces, "socket")?;
    let (ending, childs_ending) = pipe_with(PipeFlags::CLOEXEC).at(Step::Namespaces, "pipe")?;
    rustix::io::ioctl_fionbio(&ending, true).at(Step::Namespaces, "pipe")?;
    let cradle = group.and_then(Group::cradle);
    let doors = group.map(Group::doors).transpose()?.unwrap_or_default();
    let mut plan =
        Some(Plan { policy: &workplace.policy, task, tmp, doors, talk: childs_talk, ending: childs_ending });
    let mut child = || {
        if let Some(plan) = plan.take() {
            child::become_init(plan)
        }
    };
    let flags = NAMESPACES as u64;
    let (pid, pidfd) = match template {
        Some(template) => workplace.nursery.deliver(&Delivery { template, flags, cgroup: cradle }, child)?,
        None => match sys::clone3(flags, cradle).at(Step::Namespaces, NAMED)? {
            Side::Child => {
                child();
                sys::exit_now(1)
            }
            Side::Parent { pid, pidfd } => (pid, pidfd),
        },
    };
    Ok(Born { pid, pidfd, talk, ending, image: None })
}

fn own_pipes(fds: &[(OwnedFd, RawFd)], owner: u32) -> Result<(), Fault> {
    fds.iter().try_for_each(|(fd, number)| own_pipe(fd, owner).at(Step::Descriptors, number.to_string()))
}

/// A pipe belongs to who made it, and to open `/dev/stdout` again is to open the pipe: it is given to the sandbox's user.
fn own_pipe(fd: &OwnedFd, owner: u32) -> rustix::io::Result<()> {
    // Of the kernel's own pipe file system: a pipe that somebody has put into a directory is left alone.
    const PIPEFS_MAGIC: i64 = 0x5049_5045;
    if rustix::fs::fstatfs(fd)?.f_type != PIPEFS_MAGIC || rustix::fs::fstat(fd)?.st_uid == owner {
        return Ok(());
    }
    rustix::fs::fchown(fd, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))
}

/// Gives the child its user, unless it has one already, its limits and the word to go on.
pub(super) fn release(
    born: &Born,
    owner: Option<u32>,
    group: Option<(&Group, &Limits)>,
) -> Result<(), Fault> {
    if let Some(owner) = owner {
        map_user(born.pid, owner).at(Step::UserMap, format!("{INNER_UID} to {owner}"))?;
    }
    if let Some((group, limits)) = group {
        group.limit(limits)?;
    }
    std::fs::write(format!("/proc/{}/oom_score_adj", born.pid), OOM_SCORE)
        .at(Step::Attach, "oom_score_adj")?;
    wire::send(&born.talk, &Order::Go, &[]).at(Step::Attach, "the word to go on")
}

/// One uid and one gid exist inside; every other of the host appears as nobody.
fn map_user(pid: i32, owner: u32) -> io::Result<()> {
    let map = format!("{INNER_UID} {owner} 1");
    std::fs::write(format!("/proc/{pid}/uid_map"), &map)?;
    std::fs::write(format!("/proc/{pid}/gid_map"), &map)
}
