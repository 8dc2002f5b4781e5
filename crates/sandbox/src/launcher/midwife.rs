//! Creating a child below the namespaces of a template, owned by the template's own user: the kernel lets a process without
//! any capability join a user namespace that its uid owns (user_namespaces(7)), and that is how a copy of the template
//! gets in without a privilege ever being given to code that nobody trusts.
//!
//! The launcher cannot come back from a user namespace, so a short-lived process goes there in its place, the midwife. It
//! keeps the launcher's uid, which is nobody inside, but may write the map of the new namespace; its own child becomes the
//! template's user and creates the namespaces. Neither runs a line of anybody else's code, and neither can be read or
//! traced by the template: their memory is the launcher's and not dumpable.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use crate::error::{At, Fault, Step};
use crate::launcher::birth::{self, NAMED};
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
    let (news, tell) = line()?;
    let Some(midwife) = sys::fork().at(Step::Namespaces, "midwife")? else {
        drop(news);
        let told = match attend(template, flags, cgroup) {
            Ok(Attended::Child) => return Ok(Side::Child),
            Ok(Attended::Birth(pidfd)) => wire::send(&tell, &News::Born, &[pidfd.as_fd()]),
            Err(fault) => wire::send(&tell, &News::Failed(fault), &[]),
        };
        sys::exit_now(i32::from(told.is_err()));
    };
    drop(tell);
    let heard = hear(&news);
    sys::wait_for(midwife).at(Step::Namespaces, "midwife")?;
    let pidfd = heard?;
    Ok(Side::Parent { pid: pid_of(&pidfd)?, pidfd })
}

enum Attended {
    /// This is the child.
    Child,
    /// It was born.
    Birth(OwnedFd),
}

fn attend(template: &OwnedFd, flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Attended, Fault> {
    sys::setns(template, libc::CLONE_NEWUSER | libc::CLONE_NEWPID).at(Step::Namespaces, "the template's")?;
    let (news, tell) = line()?;
    let Some(mother) = sys::fork().at(Step::Namespaces, "mother")? else {
        drop(news);
        let told = match give_birth(flags, cgroup) {
            Ok(Side::Child) => return Ok(Attended::Child),
            Ok(Side::Parent { pidfd, .. }) => wire::send(&tell, &News::Born, &[pidfd.as_fd()]),
            Err(fault) => wire::send(&tell, &News::Failed(fault), &[]),
        };
        sys::exit_now(i32::from(told.is_err()));
    };
    drop(tell);
    let heard = hear(&news);
    sys::wait_for(mother).at(Step::Namespaces, "mother")?;
    let pidfd = heard?;
    birth::map_user(pid_of(&pidfd)?, INNER_UID).at(Step::UserMap, format!("{INNER_UID} of the template"))?;
    Ok(Attended::Birth(pidfd))
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
    let lost = || Fault::step(Step::Namespaces, "midwife", &std::io::ErrorKind::UnexpectedEof.into());
    match wire::receive(news, RecvFlags::empty()).at(Step::Namespaces, "midwife")? {
        Some((News::Born, pidfd)) => pidfd.into_iter().next().ok_or_else(lost),
        Some((News::Failed(fault), _)) => Err(fault),
        None => Err(lost()),
    }
}

/// The process behind a pidfd, as the `/proc` in sight numbers it.
fn pid_of(pidfd: &OwnedFd) -> Result<i32, Fault> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))
        .at(Step::Namespaces, "fdinfo")?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|pid| *pid > 0)
        .ok_or_else(|| Fault::step(Step::Namespaces, "pidfd", &std::io::ErrorKind::NotFound.into()))
}
