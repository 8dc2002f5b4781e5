//! The child: pid 1 of a sandbox. It walks one line of steps, each giving up more than the one before, then creates the
//! main process and stays only to reap.
//!
//! The launcher is single-threaded, so ordinary code may run here after the fork.

mod init;
mod jail;
mod landlock;
mod mounts;
mod program;
mod reins;

pub(crate) use landlock::Rights;
pub(crate) use mounts::HIDDEN_PROC;

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::net::{AddressFamily, RecvFlags, SocketType};
use rustix::process::Signal;
use rustix::thread::{UnshareFlags, set_thread_res_gid, set_thread_res_uid};

use crate::error::{At, Fault, Step};
use crate::launcher::INNER_UID;
use crate::seccomp::Filters;
use crate::spec::SandboxSpec;
use crate::sys;
use crate::wire::{self, Order, Report};
use program::Main;
use reins::Reined;

/// What the child needs to know; all of it was copied with the launcher's memory.
pub(crate) struct Plan<'a> {
    pub(crate) policy: &'a Policy,
    /// None for a sandbox that is made ahead: it is told later.
    pub(crate) task: Option<Task>,
    /// Of a shell: its `/tmp`, detached. Others have it in their root already.
    pub(crate) tmp: Option<OwnedFd>,
    /// Of the cgroups to enter.
    pub(crate) doors: Vec<OwnedFd>,
    /// To the launcher.
    pub(crate) talk: OwnedFd,
    /// Where the end of the main process is written to.
    pub(crate) ending: OwnedFd,
}

/// What a sandbox is for.
pub(crate) struct Task {
    pub(crate) role: Role,
    pub(crate) spec: SandboxSpec,
    /// With their numbers in the main process.
    pub(crate) fds: Vec<(OwnedFd, RawFd)>,
}

/// What becomes of a sandbox once it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A program runs in it.
    Plain,
    /// A program runs in it whose process may be copied into shells.
    Forkable,
    /// It waits for such a copy.
    Shell,
}

/// What is the same for every sandbox of a launcher.
pub(crate) struct Policy {
    pub(crate) plain: Filters,
    pub(crate) forkable: Filters,
    pub(crate) keeper: Filters,
    /// Version of Landlock to apply; 0 for none.
    pub(crate) landlock: u32,
    /// Sandboxes may be forkable.
    pub(crate) copies: bool,
    /// No cgroup limits memory: a limit of each process' data has to do.
    pub(crate) limit_data: bool,
}

/// Never returns: the calling process is the child of a fork and has nothing to return to.
pub(crate) fn become_init(mut plan: Plan<'_>) -> ! {
    let started = start(&mut plan);
    let Plan { talk, ending, .. } = plan;
    match started {
        Ok(started) => init::stay(&talk, ending, started),
        Err(fault) => {
            // A launcher that is gone needs no report.
            let _ = wire::send(&talk, &Report::Failed(fault), &[]);
            sys::exit_now(1)
        }
    }
}

struct Started {
    /// None where it waits for the server's word.
    main: Option<Main>,
    role: Role,
    listener: Option<TcpListener>,
    reined: Option<Reined>,
}

fn start(plan: &mut Plan<'_>) -> Result<Started, Fault> {
    close_what_is_not_ours(plan)?;

    // The launcher now writes the user map and the limits.
    let Ok(Some((Order::Go, _))) = wire::receive_short::<Order>(&plan.talk, RecvFlags::empty()) else {
        sys::exit_now(1);
    };

    for door in &plan.doors {
        rustix::io::write(door, b"0").at(Step::Attach, "its cgroups")?;
    }

    sys::unshare(UnshareFlags::NEWCGROUP).at(Step::Namespaces, "cgroup namespace")?;
    match plan.tmp.take() {
        Some(tmp) => mounts::cover_root(&tmp)?,
        None => mounts::enter_root(plan.policy.copies)?,
    }

    // Only the owner may walk to where the unmasked /proc was put. From here on no uid of the host's users is held. The capabilities stay: they are of the new user namespace.
    let (uid, gid) = (rustix::process::Uid::from_raw(INNER_UID), rustix::process::Gid::from_raw(INNER_UID));
    set_thread_res_gid(gid, gid, gid).at(Step::BecomeUser, "group")?;
    set_thread_res_uid(uid, uid, uid).at(Step::BecomeUser, "user")?;

    // Set after the change of user, which clears it. A launcher that died in between has closed its socket.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .at(Step::BecomeUser, "death signal")?;
    if launcher_is_gone(plan) {
        sys::exit_now(1);
    }

    loopback()?;
    let task = match plan.task.take() {
        Some(task) => task,
        None => await_task(&plan.talk)?,
    };
    let Task { role, spec, .. } = &task;
    rustix::system::sethostname(spec.hostname.as_bytes()).at(Step::Hostname, &spec.hostname)?;
    let listener = listen(spec.listen)?;
    jail::resource_limits(spec, plan.policy.limit_data)?;
    jail::privileges()?;
    // The filter is the last: every step above needs a call that it takes away.
    let filters = match role {
        Role::Plain => {
            landlock::restrict(plan.policy.landlock)?;
            &plan.policy.plain
        }
        Role::Forkable => {
            landlock::restrict_scope(plan.policy.landlock)?;
            &plan.policy.forkable
        }
        // The copy brings its own rules; what stays here can open nothing anyhow.
        Role::Shell => &plan.policy.keeper,
    };
    filters.apply().at(Step::Seccomp, "filters")?;
    let role = *role;
    if task.spec.companions.is_some() {
        return Ok(Started { main: None, role, listener, reined: Some(Reined::begin(task)?) });
    }
    let main = if role == Role::Shell { Main::FIRST_COPY } else { program::spawn(&task.main())? };
    Ok(Started { main: Some(main), role, listener, reined: None })
}

/// Waits, in a sandbox that stands, to be told what it is for; then shows what was asked for in it.
fn await_task(talk: &OwnedFd) -> Result<Task, Fault> {
    wire::send(talk, &Report::Stands, &[]).at(Step::Request, "stands")?;
    let (forkable, targets, numbers, fds) = loop {
        match wire::receive::<Order>(talk, RecvFlags::empty()) {
            Ok(Some((Order::Serve { forkable, targets, numbers }, fds))) => {
                break (forkable, targets, numbers, fds);
            }
            Ok(Some(_)) => {}
            // It was never needed.
            Ok(None) | Err(_) => sys::exit_now(0),
        }
    };
    let mut fds = fds.into_iter();
    let unreadable = |error: &std::io::Error| Fault::step(Step::Request, "specification", error);
    let spec = fds.next().ok_or_else(|| unreadable(&std::io::ErrorKind::InvalidData.into()))?;
    let spec = wire::read_spec(spec).map_err(|error| unreadable(&error))?;
    mounts::show(fds.by_ref().take(targets.len()).zip(&targets))?;
    let role = if forkable { Role::Forkable } else { Role::Plain };
    Ok(Task { role, spec, fds: fds.zip(numbers).collect() })
}

/// The copy of the launcher's descriptors: sockets, handles of other sandboxes. A server's socket left open here would also
/// hide the launcher's end from the server.
fn close_what_is_not_ours(plan: &Plan<'_>) -> Result<(), Fault> {
    let given = plan.task.iter().flat_map(|task| &task.fds);
    let mut ours: Vec<u32> = given.map(|(fd, _)| fd.as_raw_fd() as u32).collect();
    ours.extend(plan.tmp.iter().map(|tmp| tmp.as_raw_fd() as u32));
    ours.extend(plan.doors.iter().map(|door| door.as_raw_fd() as u32));
    ours.extend([plan.talk.as_raw_fd() as u32, plan.ending.as_raw_fd() as u32]);
    ours.sort_unstable();
    let mut first = 0;
    for number in ours {
        if first < number {
            sys::close_range(first, number - 1, false).at(Step::Descriptors, "close")?;
        }
        first = number + 1;
    }
    sys::close_range(first, u32::MAX, false).at(Step::Descriptors, "close")
}

fn launcher_is_gone(plan: &Plan<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(&plan.talk, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// Brings up the loopback interface.
fn loopback() -> Result<(), Fault> {
    let socket =
        rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).at(Step::Loopback, "socket")?;
    sys::loopback_up(&socket).at(Step::Loopback, "lo")
}

/// Binds the asked port, whose listener then works from outside of the namespace too.
fn listen(port: Option<u16>) -> Result<Option<TcpListener>, Fault> {
    let Some(port) = port else { return Ok(None) };
    TcpListener::bind(("127.0.0.1", port)).map(Some).at(Step::Listen, format!("127.0.0.1:{port}"))
}
