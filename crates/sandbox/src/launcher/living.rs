//! The sandboxes that live, and the events that move them on: asked for, starting, running, dead, gone.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::RecvFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::cgroup::{Group, Limits};
use crate::error::{At, Fault, Step};
use crate::launcher::birth::{self, Born};
use crate::launcher::entrance::Entrance;
use crate::launcher::furnish;
use crate::launcher::images::{Images, Used};
use crate::launcher::root::NewRoot;
use crate::launcher::workplace::Workplace;
use crate::spec::{Furnishing, Invalid, SandboxSpec};
use crate::wire::{self, Order, Part, Reply, Report, Request};

pub(super) struct House {
    server: OwnedFd,
    events: OwnedFd,
    workplace: Workplace,
    living: HashMap<u64, Living>,
    /// Places (uids) that nobody holds.
    free: Vec<u32>,
    leaving: Vec<Leaving>,
    /// Sandboxes that are made ahead, standing or not yet.
    made_ahead: u32,
    /// Set by each launch, cleared when making one ahead fails.
    ahead_wanted: bool,
    next_ahead: u64,
    /// Until the next try to remove what is leaving.
    patience: Duration,
    open: bool,
}

struct Living {
    /// The place that it holds; that of its template for a shell.
    slot: u32,
    role: Role,
    pid: i32,
    pidfd: OwnedFd,
    talk: OwnedFd,
    group: Option<Group>,
    image: Option<Used>,
    /// Until the server has it: the sandbox is still starting.
    ending: Option<OwnedFd>,
    /// Pid 1 is reaped, so nothing of it runs any more.
    dead: bool,
    /// The server has no handle any more, so nothing of it is read any more.
    released: bool,
}

/// What a sandbox is to others.
enum Role {
    Plain,
    /// Shells are made below it, each by what of its specification concerns them. Its pid 1 lives as long as any of them.
    Template {
        spec: Box<SandboxSpec>,
        /// What may still be shown in it, once.
        places: Vec<PathBuf>,
        shells: usize,
        main_ended: bool,
    },
    Shell {
        template: u64,
    },
    /// Made ahead, for nothing yet; it `stands` once it waits to be told.
    Ahead {
        root: NewRoot,
        stands: bool,
    },
}

impl Role {
    fn of(spec: &SandboxSpec) -> Self {
        if spec.forkable {
            let places = spec.places.clone();
            Self::Template { spec: Box::new(spec.of_shells()), places, shells: 0, main_ended: false }
        } else {
            Self::Plain
        }
    }
}

impl Living {
    /// The pidfd that the server watches: none of a template, whose pid 1 may outlive its program.
    fn watched(&self) -> Option<&OwnedFd> {
        (!matches!(self.role, Role::Template { .. })).then_some(&self.pidfd)
    }
}

/// A sandbox of which only the cgroup may be left, for a moment after its last process.
struct Leaving {
    /// To be given back; a shell has none of its own.
    slot: Option<u32>,
    group: Option<Group>,
}

/// What an event is about, packed beside the id into epoll's number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Server,
    Talk(u64),
    End(u64),
}

impl About {
    fn pack(self) -> EventData {
        EventData::new_u64(match self {
            Self::Server => 0,
            Self::Talk(id) => id << 2 | 1,
            Self::End(id) => id << 2 | 2,
        })
    }

    fn unpack(data: EventData) -> Self {
        let word = data.u64();
        match word & 3 {
            1 => Self::Talk(word >> 2),
            2 => Self::End(word >> 2),
            _ => Self::Server,
        }
    }
}

/// Sandboxes that are made ahead have numbers from here on, which the server does not use.
const FIRST_AHEAD: u64 = 1 << 60;

/// Between two tries to remove a busy cgroup: at first, and at most.
const FIRST_PATIENCE: Duration = Duration::from_millis(1);
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// How long the end of everything may take before what is left is left to the next start.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

impl House {
    pub(super) fn new(server: OwnedFd, workplace: Workplace) -> io::Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&events, &server, About::Server.pack(), EventFlags::IN)?;
        let free = (0..workplace.options.uid_count).rev().collect();
        Ok(Self {
            server,
            events,
            workplace,
            living: HashMap::new(),
            free,
            leaving: Vec::new(),
            made_ahead: 0,
            ahead_wanted: true,
            next_ahead: FIRST_AHEAD,
            patience: FIRST_PATIENCE,
            open: true,
        })
    }

    /// False once the server is gone or has asked for the end.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Waits for events and handles them.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        let ahead = self.ahead_wanted && self.made_ahead < self.workplace.options.ahead;
        let restock = ahead || self.workplace.images.as_ref().is_some_and(Images::wants_restocking);
        let timeout = match (restock, self.leaving.is_empty()) {
            (true, _) => Some(Duration::ZERO),
            (false, false) => Some(self.patience),
            (false, true) => None,
        };
        let quiet = self.wait(timeout)? == 0;
        self.see_off();
        if quiet && ahead {
            self.make_ahead();
        } else if quiet && let Some(images) = &mut self.workplace.images {
            images.restock();
        }
        Ok(())
    }

    /// Kills everything, and waits until it is gone.
    pub(super) fn close(&mut self) {
        let _ = epoll::delete(&self.events, &self.server);
        let ids: Vec<u64> = self.living.keys().copied().collect();
        for id in ids {
            self.release(id);
        }
        let deadline = Instant::now() + CLOSE_WITHIN;
        while !(self.living.is_empty() && self.leaving.is_empty()) && Instant::now() < deadline {
            if self.wait(Some(self.patience)).is_err() {
                break;
            }
            self.see_off();
        }
        self.workplace.leave();
    }

    /// Returns how many events there were.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let mut events = Vec::with_capacity(64);
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        let waited = epoll::wait(&self.events, rustix::buffer::spare_capacity(&mut events), timeout.as_ref());
        if let Err(errno) = waited
            && errno != rustix::io::Errno::INTR
        {
            return Err(errno.into());
        }
        let count = events.len();
        for event in events {
            match About::unpack(event.data) {
                About::Server => self.hear_server(),
                About::Talk(id) => self.hear_child(id),
                About::End(id) => self.bury(id),
            }
        }
        Ok(count)
    }

    /// One request; epoll tells again when there are more.
    fn hear_server(&mut self) {
        match wire::receive(&self.server, RecvFlags::DONTWAIT) {
            Ok(Some((request, fds))) => self.handle(request, fds),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                eprintln!("martlet launcher: ignored a request that could not be read: {error}");
            }
            Ok(None) | Err(_) => self.open = false,
        }
    }

    fn handle(&mut self, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Launch { id, numbers } => {
                if let Err(fault) = self.launch(id, &numbers, fds) {
                    self.reply(&Reply::Failed { id, fault });
                }
            }
            Request::Shell { id, template } => {
                if let Err(fault) = self.shell(id, template) {
                    self.reply(&Reply::Failed { id, fault });
                }
            }
            Request::Furnish { id, sandbox, furnishing } => {
                let reply = match self.furnish(sandbox, &furnishing) {
                    Ok(()) => Reply::Furnished { id },
                    Err(fault) => Reply::Failed { id, fault },
                };
                self.reply(&reply);
            }
            Request::Kill { id } => self.kill(id),
            Request::Release { id } => self.release(id),
            Request::Stop { id } => self.order(id, &Order::Stop),
            Request::Continue { id } => self.order(id, &Order::Continue),
            Request::Terminate { id } => self.order(id, &Order::Terminate),
            Request::Shutdown => self.open = false,
            Request::Start { .. } => {}
        }
    }

    fn launch(&mut self, id: u64, numbers: &[RawFd], fds: Vec<OwnedFd>) -> Result<(), Fault> {
        let mut fds = fds.into_iter();
        let unreadable = |error: &io::Error| Fault::step(Step::Request, "specification", error);
        let spec = fds.next().ok_or_else(|| unreadable(&io::ErrorKind::InvalidData.into()))?;
        let spec = wire::read_spec(spec).map_err(|error| unreadable(&error))?;
        spec.validate().map_err(Fault::Invalid)?;
        self.ahead_wanted = true;
        if spec.forkable && !self.workplace.in_force.can_fork() {
            return Err(Fault::Invalid(Invalid::new(
                "forkable",
                "needs a launcher that was started as root",
            )));
        }
        let fds: Vec<_> = fds.zip(numbers.iter().copied()).collect();
        if self.living.contains_key(&id) || id >= FIRST_AHEAD {
            return Err(unreadable(&io::ErrorKind::AlreadyExists.into()));
        }
        if birth::may_be_assigned(&self.workplace, &spec, fds.len())
            && let Some(ahead) = self.standing()
        {
            return self.assign(id, ahead, &spec, fds);
        }
        let limit = self.workplace.options.uid_count;
        let slot = self.free.pop().ok_or(Fault::Full { limit })?;
        let (role, limits) = (Role::of(&spec), Limits::of(&spec));
        self.found(id, slot, None, Some(&limits), |workplace, group, _| {
            let born = birth::conceive(workplace, slot, spec, fds, group, None)?;
            Ok((born, role))
        })
    }

    /// One that was made ahead and waits to be told what it is for.
    fn standing(&self) -> Option<u64> {
        let stands =
            |living: &Living| matches!(living.role, Role::Ahead { stands: true, .. }) && !living.dead;
        self.living.iter().find(|(_, living)| stands(living)).map(|(id, _)| *id)
    }

    /// Makes the sandbox `ahead`, which stands, the one that was asked for as `id`.
    fn assign(
        &mut self,
        id: u64,
        ahead: u64,
        spec: &SandboxSpec,
        fds: Vec<(OwnedFd, RawFd)>,
    ) -> Result<(), Fault> {
        let Some(mut living) = self.living.remove(&ahead) else { return Ok(()) };
        let asked = std::mem::replace(&mut living.role, Role::of(spec));
        let Role::Ahead { root, .. } = asked else { return Ok(()) };
        let limited = living.group.as_ref().map_or(Ok(()), |group| group.limit(&Limits::of(spec)));
        let assigned = limited
            .and_then(|()| birth::assign(&mut self.workplace, living.slot, &root, &living.talk, spec, fds));
        let renamed = epoll::modify(&self.events, &living.talk, About::Talk(id).pack(), EventFlags::IN)
            .and_then(|()| epoll::modify(&self.events, &living.pidfd, About::End(id).pack(), EventFlags::IN))
            .at(Step::Namespaces, "watch");
        let image = renamed.and(assigned);
        let fault = match image {
            Ok(image) => {
                living.image = image;
                None
            }
            Err(fault) => Some(fault),
        };
        self.living.insert(id, living);
        self.made_ahead = self.made_ahead.saturating_sub(1);
        if let Some(fault) = fault {
            self.fail(id, fault);
        }
        Ok(())
    }

    /// Makes one ahead, unless there are enough. For moments when nobody waits.
    fn make_ahead(&mut self) {
        // The last places are for those who ask: one that is not standing yet can be given to nobody.
        let spare = self.free.len() > self.workplace.options.ahead as usize;
        let Some(slot) = spare.then(|| self.free.pop()).flatten() else {
            self.ahead_wanted = false;
            return;
        };
        let id = self.next_ahead;
        self.next_ahead += 1;
        self.made_ahead += 1;
        let made = self.found(id, slot, None, None, |workplace, group, _| {
            let (born, root) = birth::conceive_ahead(workplace, group)?;
            Ok((born, Role::Ahead { root, stands: false }))
        });
        if made.is_err() {
            // It fails again, and is then told, for whoever asks.
            self.made_ahead = self.made_ahead.saturating_sub(1);
            self.ahead_wanted = false;
        }
    }

    /// Makes an empty sandbox below a template that lives.
    fn shell(&mut self, id: u64, template: u64) -> Result<(), Fault> {
        let gone = || Fault::step(Step::Request, format!("template {template}"), &from_raw(libc::ESRCH));
        let above = self.living.get_mut(&template).filter(|above| !above.dead && !above.released);
        let Some(Living { slot, role: Role::Template { spec, shells, main_ended: false, .. }, .. }) = above
        else {
            return Err(gone());
        };
        let (slot, spec) = (*slot, SandboxSpec::clone(spec));
        *shells += 1;
        let limits = Limits::of(&spec);
        let made = self.found(id, slot, Some(template), Some(&limits), |workplace, group, template_pid_1| {
            let born = birth::conceive(workplace, slot, spec, Vec::new(), group, template_pid_1)?;
            Ok((born, Role::Shell { template }))
        });
        if made.is_err() && !self.living.contains_key(&id) {
            self.lose_shell(template);
        }
        made
    }

    /// Shows what was asked for in a template that has no shells yet. Its places are gone after this, whatever comes of it.
    fn furnish(&mut self, id: u64, furnishing: &Furnishing) -> Result<(), Fault> {
        let gone = || Fault::step(Step::Request, format!("sandbox {id}"), &from_raw(libc::ESRCH));
        let living = self.living.get_mut(&id).filter(|living| !living.dead && !living.released);
        let Some(Living {
            role: Role::Template { spec, places, shells: 0, main_ended: false },
            pidfd,
            group,
            ..
        }) = living
        else {
            return Err(gone());
        };
        furnishing.validate(&std::mem::take(places)).map_err(Fault::Invalid)?;
        (spec.memory_bytes, spec.cpu_millis) = (furnishing.memory_bytes, furnishing.cpu_millis);
        if let Some(group) = group {
            group.limit(&Limits::of(spec))?;
        }
        furnish::show(&self.workplace.sources, pidfd, &furnishing.binds)
    }

    /// Makes a group and, by `make`, a sandbox in it, below `template` if one is given, whose place it then shares.
    fn found(
        &mut self,
        id: u64,
        slot: u32,
        template: Option<u64>,
        limits: Option<&Limits>,
        make: impl FnOnce(&mut Workplace, Option<&Group>, Option<&OwnedFd>) -> Result<(Born, Role), Fault>,
    ) -> Result<(), Fault> {
        let own_slot = template.is_none().then_some(slot);
        let group = self.workplace.cgroups.as_mut().map(|tree| match template {
            Some(template) => tree.group_below(template, id),
            None => tree.group(id),
        });
        let group = match group.transpose() {
            Ok(group) => group,
            Err(fault) => {
                self.free.extend(own_slot);
                return Err(fault);
            }
        };
        let above = template.and_then(|template| self.living.get(&template)).map(|template| &template.pidfd);
        let (born, role) = match make(&mut self.workplace, group.as_ref(), above) {
            Ok(made) => made,
            Err(fault) => {
                self.leaving.push(Leaving { slot: own_slot, group });
                return Err(fault);
            }
        };
        // From here on there is a process, which is watched and reaped like any other, whatever fails.
        let owner = own_slot.map(|slot| self.workplace.owner(slot));
        let released = birth::release(&born, owner, group.as_ref().zip(limits));
        let Born { pid, pidfd, talk, ending, image } = born;
        let living = Living {
            slot,
            role,
            pid,
            pidfd,
            talk,
            group,
            image,
            ending: Some(ending),
            dead: false,
            released: false,
        };
        let watched = epoll::add(&self.events, &living.talk, About::Talk(id).pack(), EventFlags::IN)
            .and_then(|()| epoll::add(&self.events, &living.pidfd, About::End(id).pack(), EventFlags::IN))
            .at(Step::Namespaces, "watch");
        self.living.insert(id, living);
        if let Err(fault) = released.and(watched) {
            self.fail(id, fault);
        }
        Ok(())
    }

    fn hear_child(&mut self, id: u64) {
        let Some(living) = self.living.get_mut(&id) else { return };
        let starting = living.ending.is_some();
        match wire::receive::<Report>(&living.talk, RecvFlags::DONTWAIT) {
            Ok(Some((Report::Running { parts }, fds))) => self.introduce(id, &parts, &fds),
            Ok(Some((Report::Stands, _))) => {
                if let Role::Ahead { stands, .. } = &mut living.role {
                    *stands = true;
                }
            }
            Ok(Some((Report::Ended, _))) => self.main_ended(id),
            Ok(Some((Report::Failed(fault), _))) => self.fail(id, fault),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) if starting => {
                self.fail(
                    id,
                    Fault::step(Step::Exec, "it was killed while it started", &from_raw(libc::ECHILD)),
                );
            }
            Ok(None) | Err(_) => drop(epoll::delete(&self.events, &living.talk)),
        }
    }

    /// The program runs: hands everything that the server needs over to it.
    fn introduce(&mut self, id: u64, asked: &[Part], given: &[OwnedFd]) {
        let Some(living) = self.living.get_mut(&id) else { return };
        let Some(ending) = living.ending.take() else { return };
        let mut parts = vec![Part::Ending];
        let mut fds = vec![ending.as_fd()];
        if let Some(pidfd) = living.watched() {
            parts.push(Part::Pidfd);
            fds.push(pidfd.as_fd());
        }
        for (part, fd) in asked.iter().zip(given) {
            parts.push(*part);
            fds.push(fd.as_fd());
        }
        let controls = living.group.as_ref().map(Group::controls).unwrap_or_default();
        for (control, fd) in &controls {
            parts.push(Part::Control(*control));
            fds.push(fd.as_fd());
        }
        let entrance = match living.role {
            Role::Shell { .. } => Entrance::open(living.pid, living.group.as_ref()),
            Role::Plain | Role::Template { .. } | Role::Ahead { .. } => Ok(Entrance::default()),
        };
        let entrance = match entrance {
            Ok(entrance) => entrance,
            Err(fault) => return self.fail(id, fault),
        };
        for (part, fd) in entrance.parts() {
            parts.push(part);
            fds.push(fd.as_fd());
        }
        let reply = Reply::Launched { id, pid: living.pid, parts };
        if wire::send(&self.server, &reply, &fds).is_err() {
            self.open = false;
        }
    }

    fn fail(&mut self, id: u64, fault: Fault) {
        let mut ahead = false;
        if let Some(living) = self.living.get_mut(&id) {
            living.ending = None;
            ahead = matches!(living.role, Role::Ahead { .. });
        }
        self.release(id);
        if ahead {
            self.made_ahead = self.made_ahead.saturating_sub(1);
            self.ahead_wanted = false;
        } else {
            self.reply(&Reply::Failed { id, fault });
        }
    }

    fn kill(&mut self, id: u64) {
        if let Some(living) = self.living.get(&id)
            && !living.dead
        {
            if let Role::Template { shells: 1.., .. } = living.role {
                // The end of its pid 1 would be the end of what lives below.
                match &living.group {
                    Some(group) => group.kill_all_but(living.pid),
                    None => drop(wire::send(&living.talk, &Order::End, &[])),
                }
                return;
            }
            if let Some(group) = &living.group {
                group.kill();
            }
            // The end of pid 1 is the end of its whole pid namespace. It fails only for a pid 1 that has ended already.
            let _ = pidfd_send_signal(&living.pidfd, Signal::KILL);
        }
    }

    fn release(&mut self, id: u64) {
        self.kill(id);
        if let Some(living) = self.living.get_mut(&id) {
            living.released = true;
        }
        self.forget(id);
    }

    /// The program of a template has ended: whatever it left goes too, and all of it once nothing lives below.
    fn main_ended(&mut self, id: u64) {
        if let Some(Living { role: Role::Template { main_ended, .. }, .. }) = self.living.get_mut(&id) {
            *main_ended = true;
            self.kill(id);
        }
    }

    /// One shell less below a template, which may have stayed for it alone.
    fn lose_shell(&mut self, template: u64) {
        let Some(living) = self.living.get_mut(&template) else { return };
        let Role::Template { shells, main_ended, .. } = &mut living.role else { return };
        *shells = shells.saturating_sub(1);
        if *shells == 0 && (*main_ended || living.released) {
            self.kill(template);
        }
    }

    /// Reaps pid 1, at which the kernel has already ended everything inside.
    fn bury(&mut self, id: u64) {
        let Some(living) = self.living.get_mut(&id) else { return };
        let template = match living.role {
            // Its parent is the template's pid 1, which reaps it.
            Role::Shell { template } => Some(template),
            Role::Plain | Role::Template { .. } | Role::Ahead { .. } => {
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                if let Err(errno) = waitid(WaitId::PidFd(living.pidfd.as_fd()), options) {
                    eprintln!("martlet launcher: could not reap sandbox {id}: {errno}");
                }
                None
            }
        };
        let _ = epoll::delete(&self.events, &living.pidfd);
        living.dead = true;
        if living.ending.is_some() {
            // Its last report, if any, is still in the socket and tells more than its death.
            self.hear_child(id);
        }
        self.forget(id);
        if let Some(template) = template {
            self.lose_shell(template);
        }
    }

    /// Frees what a sandbox held, once it is dead and nobody asks about it any more: its group tells usage until then.
    fn forget(&mut self, id: u64) {
        if self.living.get(&id).is_some_and(|living| living.dead && living.released)
            && let Some(Living { slot, role, group, image, .. }) = self.living.remove(&id)
        {
            if let (Some(images), Some(image)) = (&mut self.workplace.images, image) {
                images.give_back(image);
            }
            let slot = (!matches!(role, Role::Shell { .. })).then_some(slot);
            let kept = self.workplace.cgroups.as_mut().map(|tree| tree.disband(id)).unwrap_or_default();
            self.leaving.extend(kept.into_iter().map(|group| Leaving { slot: None, group: Some(group) }));
            self.leaving.push(Leaving { slot, group });
            self.patience = FIRST_PATIENCE;
        }
    }

    /// Lets go of the cgroups of what is gone. They may be busy for a moment, so this is tried again, ever more rarely.
    fn see_off(&mut self) {
        let (free, cgroups) = (&mut self.free, &mut self.workplace.cgroups);
        self.leaving.retain_mut(|leaving| {
            let group = leaving.group.take();
            leaving.group = group.zip(cgroups.as_mut()).and_then(|(group, tree)| tree.let_go(group));
            if leaving.group.is_none() {
                free.extend(leaving.slot);
            }
            leaving.group.is_some()
        });
        self.patience = (self.patience * 2).min(LAST_PATIENCE);
    }

    fn order(&mut self, id: u64, order: &Order) {
        if let Some(living) = self.living.get(&id) {
            // One that is just ending needs no order.
            let _ = wire::send(&living.talk, order, &[]);
        }
    }

    fn reply(&mut self, reply: &Reply) {
        if wire::send(&self.server, reply, &[]).is_err() {
            self.open = false;
        }
    }
}

fn from_raw(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
