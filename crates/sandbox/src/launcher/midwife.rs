//! Creating a child below the namespaces of a template, owned by the template's own user: the kernel lets a process without
//! any capability join a user namespace that its uid owns (user_namespaces(7)), and that is how a copy of the template
//! gets in without a privilege ever being given to code that nobody trusts.
//!
//! The launcher cannot come back from a user namespace, so a short-lived process goes there in its place, the midwife. It
//! keeps the launcher's uid, which is nobody inside, but may write the map of the new namespace; its own child becomes the
//! template's user and creates the namespaces. Neither runs a line of anybody else's code, and neither can be read or
//! traced by the template: their memory is the launcher's and not dumpable.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use crate::error::{At, Fault, Step};
use crate::launcher::birth::NAMED;
use crate::launcher::workplace::INNER_UID;
use crate::sys::{self, Side};
use crate::wire;

/// Of the birth, from the midwife and her child; a pidfd comes with a birth.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum News {
    Born,
    Failed(Fault),
}

/// As [`sys::clone3`], below the user and pid namespaces of `template` (a pidfd of its pid 1). The child's user is mapped
/// when this returns; its parent is the template's pid 1, which will reap it.
pub(super) fn clone_below(
    template: &OwnedFd,
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Side, Fault> {
    match by_a_child("midwife", || attend(template, flags, cgroup))? {
        Some(pidfd) => Ok(Side::Parent { pid: pid_of(&proc_in_sight()?, &pidfd)?, pidfd }),
        None => Ok(Side::Child),
    }
}

/// What the midwife does.
fn attend(template: &OwnedFd, flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side, Fault> {
    // What is in sight now numbers processes as the launcher does.
    let proc = proc_in_sight()?;
    sys::setns(template, libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS)
        .at(Step::Namespaces, "the template's")?;
    let Some(pidfd) = by_a_child("mother", || give_birth(flags, cgroup))? else { return Ok(Side::Child) };
    let pid = pid_of(&proc, &pidfd)?;
    map_user(&proc, pid).at(Step::UserMap, format!("{INNER_UID} of the template"))?;
    Ok(Side::Parent { pid, pidfd })
}

/// Has a child of this process, called `name`, `create` another one, and waits for its end. Returns a pidfd of what was created;
/// `None` in that process itself.
fn by_a_child(name: &str, create: impl FnOnce() -> Result<Side, Fault>) -> Result<Option<OwnedFd>, Fault> {
    let (news, tell) = line()?;
    let Some(child) = sys::fork().at(Step::Namespaces, name)? else {
        drop(news);
        let told = match create() {
            Ok(Side::Child) => return Ok(None),
            Ok(Side::Parent { pidfd, .. }) => wire::send(&tell, &News::Born, &[pidfd.as_fd()]),
            Err(fault) => wire::send(&tell, &News::Failed(fault), &[]),
        };
        sys::exit_now(i32::from(told.is_err()));
    };
    drop(tell);
    let heard = hear(&news);
    sys::wait_for(child).at(Step::Namespaces, name)?;
    heard.map(Some)
}

fn proc_in_sight() -> Result<OwnedFd, Fault> {
    openat(CWD, "/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .at(Step::Namespaces, "/proc")
}

/// Who creates a user namespace owns it: it must be the template's user who does.
fn give_birth(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side, Fault> {
    let (uid, gid) = (Uid::from_raw(INNER_UID), Gid::from_raw(INNER_UID));
    set_thread_res_gid(gid, gid, gid).at(Step::BecomeUser, "the template's group")?;
    set_thread_res_uid(uid, uid, uid).at(Step::BecomeUser, "the template's user")?;
    sys::clone3(flags, cgroup).at(Step::Namespaces, NAMED)
}

fn line() -> Result<(OwnedFd, OwnedFd), Fault> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .at(Step::Namespaces, "socket")
}

fn hear(news: &OwnedFd) -> Result<OwnedFd, Fault> {
    let lost = || Fault::step(Step::Namespaces, "midwife", &io::ErrorKind::UnexpectedEof.into());
    match wire::receive_short(news, RecvFlags::empty()).at(Step::Namespaces, "midwife")? {
        Some((News::Born, pidfd)) => pidfd.into_iter().next().ok_or_else(lost),
        Some((News::Failed(fault), _)) => Err(fault),
        None => Err(lost()),
    }
}

/// The template's user, as it is called there, is the only one inside.
fn map_user(proc: &OwnedFd, pid: i32) -> io::Result<()> {
    for file in ["uid_map", "gid_map"] {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let fd = openat(proc, format!("{pid}/{file}"), flags, Mode::empty())?;
        rustix::io::write(fd, format!("{INNER_UID} {INNER_UID} 1").as_bytes())?;
    }
    Ok(())
}

/// The process behind a pidfd, as `proc` numbers it.
fn pid_of(proc: &OwnedFd, pidfd: &OwnedFd) -> Result<i32, Fault> {
    let path = format!("self/fdinfo/{}", pidfd.as_raw_fd());
    let mut info = String::new();
    let fd = openat(proc, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    fd.map_err(io::Error::from)
        .and_then(|fd| std::fs::File::from(fd).read_to_string(&mut info))
        .at(Step::Namespaces, path)?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|pid| *pid > 0)
        .ok_or_else(|| Fault::step(Step::Namespaces, "pidfd", &io::ErrorKind::NotFound.into()))
}
