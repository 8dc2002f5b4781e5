//! Creating a child below the namespaces of a template, owned by the template's own user: the kernel lets a process without
//! any capability join a user namespace that its uid owns (user_namespaces(7)), and that is how a copy of the template
//! gets in without a privilege ever being given to code that nobody trusts.
//!
//! The launcher cannot come back from a user namespace, so a short-lived process goes there in its place, the midwife. She
//! keeps the launcher's uid, which is nobody inside, but may write the map of the new namespace; her own child, the mother,
//! acts as the template's user and creates the namespaces. Neither runs a line of anybody else's code. Both share the
//! launcher's memory, which is not dumpable, so the template can neither read nor trace them; and only the effective user
//! of the mother is the template's, so it cannot signal her either.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{DumpableBehavior, Gid, Uid, set_dumpable_behavior};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use crate::error::{At, Fault, Step};
use crate::launcher::birth::NAMED;
use crate::launcher::workplace::INNER_UID;
use crate::sys::{self, Side, Stack};

/// Where midwife and mother work.
pub(super) struct Nursery {
    midwife: Stack,
    mother: Stack,
}

/// What is created below a template.
pub(super) struct Delivery<'a> {
    /// A pidfd of the template's pid 1.
    pub(super) template: &'a OwnedFd,
    pub(super) flags: u64,
    pub(super) cgroup: Option<BorrowedFd<'a>>,
}

impl Nursery {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { midwife: Stack::new()?, mother: Stack::new()? })
    }

    /// As [`sys::clone3`], below the user and pid namespaces of a template; the child runs `child`. Its user is mapped when
    /// this returns; its parent is the template's pid 1, which will reap it.
    pub(super) fn deliver(
        &mut self,
        delivery: &Delivery<'_>,
        child: impl FnMut(),
    ) -> Result<(i32, OwnedFd), Fault> {
        // Numbers processes as the launcher does; out of sight where the midwife goes.
        let proc = openat(CWD, "/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at(Step::Namespaces, "/proc")?;
        let Self { midwife, mother } = self;
        let delivered = sys::call_apart(midwife, || attend(&proc, mother, delivery, child));
        keep_to_ourselves()?;
        heard("midwife", delivered)
    }
}

/// What the midwife does.
fn attend(
    proc: &OwnedFd,
    mother: &mut Stack,
    delivery: &Delivery<'_>,
    child: impl FnMut(),
) -> Result<(i32, OwnedFd), Fault> {
    sys::setns(delivery.template, libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS)
        .at(Step::Namespaces, "the template's")?;
    keep_to_ourselves()?;
    let pidfd = heard("mother", sys::call_apart(mother, || give_birth(delivery, child)))?;
    let pid = pid_of(proc, &pidfd)?;
    map_user(proc, pid).at(Step::UserMap, format!("{INNER_UID} of the template"))?;
    Ok((pid, pidfd))
}

/// Who creates a user namespace owns it: the effective user does, who must be the template's. The real one stays the launcher's.
fn give_birth(delivery: &Delivery<'_>, mut child: impl FnMut()) -> Result<OwnedFd, Fault> {
    let (uid, gid) = (Uid::from_raw(INNER_UID), Gid::from_raw(INNER_UID));
    set_thread_res_gid(None, gid, None).at(Step::BecomeUser, "the template's group")?;
    set_thread_res_uid(None, uid, None).at(Step::BecomeUser, "the template's user")?;
    keep_to_ourselves()?;
    match sys::clone3(delivery.flags, delivery.cgroup).at(Step::Namespaces, NAMED)? {
        Side::Child => {
            child();
            sys::exit_now(1)
        }
        Side::Parent { pidfd, .. } => Ok(pidfd),
    }
}

/// A change of user or capabilities makes memory dumpable again where `fs.suid_dumpable` says so.
fn keep_to_ourselves() -> Result<(), Fault> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Namespaces, "dumpable")
}

/// What somebody who worked apart has done.
fn heard<T>(name: &str, done: io::Result<Option<Result<T, Fault>>>) -> Result<T, Fault> {
    let killed = || Fault::step(Step::Namespaces, name, &io::ErrorKind::UnexpectedEof.into());
    done.at(Step::Namespaces, name)?.ok_or_else(killed)?
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
