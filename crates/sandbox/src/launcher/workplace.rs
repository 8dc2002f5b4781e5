//! What the launcher prepares once: its own namespaces, the place where roots are built, what policies compile to.

use std::io;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{UnshareFlags, set_thread_groups};

use crate::cgroup::{Hierarchy, Layout, Tree, own_group};
use crate::child::Policy;
use crate::error::Refusal;
use crate::launcher::images::Images;
use crate::launcher::midwife::Nursery;
use crate::launcher::scratch::{Scratch, Sources};
use crate::launcher::system::System;
use crate::seccomp::{Filters, Kind};
use crate::spec::{Isolation, LauncherOptions, TmpKind};
use crate::sys;
use crate::wire::InForce;

/// The user as whom everything inside a sandbox runs, as seen from inside.
pub(crate) const INNER_UID: u32 = 993;

pub(super) struct Workplace {
    pub(super) options: LauncherOptions,
    pub(super) in_force: InForce,
    pub(super) system: System,
    pub(super) sources: Sources,
    pub(super) policy: Policy,
    /// None under [`Isolation::NoCgroups`].
    pub(super) cgroups: Option<Tree>,
    /// None with [`TmpKind::Memory`].
    pub(super) images: Option<Images>,
    pub(super) nursery: Nursery,
    /// The last to go.
    pub(super) scratch: Scratch,
}

impl Workplace {
    pub(super) fn prepare(options: LauncherOptions, bind_roots: &[PathBuf]) -> Result<Self, Refusal> {
        let rootless = !rustix::process::geteuid().is_root();
        if rootless {
            enter_user_namespace()?;
        } else {
            enter_mount_namespace()?;
        }
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).map_err(
            |errno| {
                Refusal::new(
                    "own mount namespace",
                    errno,
                    "Run `martlet doctor` to see what this machine allows",
                )
            },
        )?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        raise_open_files();
        let sources = Sources::open(bind_roots)?;
        let scratch = Scratch::make(&options.scratch_dir)?;
        let images = match options.tmp {
            TmpKind::Memory => None,
            TmpKind::Disk if rootless => {
                return Err(Refusal::new(
                    "disk-backed /tmp",
                    "loop devices are for root only",
                    "Start as root, or choose memory-backed /tmp (it counts against a function's memory)",
                ));
            }
            TmpKind::Disk => Some(Images::prepare(&scratch.directory)?),
        };
        let mut in_force = InForce {
            isolation: options.isolation,
            tmp: options.tmp,
            cgroups: None,
            landlock_abi: usable_landlock(sys::landlock_version()),
            rootless,
            leftovers: 0,
        };
        let cgroups = match options.isolation {
            Isolation::NoCgroups => None,
            Isolation::Full => {
                let (hierarchy, tree, leftovers) = make_cgroups(&options.instance, rootless)?;
                in_force.cgroups = Some(hierarchy.to_string());
                in_force.leftovers = leftovers;
                Some(tree)
            }
        };
        let filters = |kind| {
            Filters::compile(kind).map_err(|error| {
                Refusal::new("system call filter", chain(&error), "Use an x86_64 or aarch64 machine")
            })
        };
        let limit_data = cgroups.is_none();
        let policy = Policy {
            plain: filters(Kind::Plain)?,
            forkable: filters(Kind::Forkable)?,
            keeper: filters(Kind::Keeper)?,
            landlock: in_force.landlock_abi,
            copies: in_force.can_fork(),
            limit_data,
        };
        let nursery = Nursery::new().map_err(|error| {
            Refusal::new("room for processes that share memory", error, "Raise the limit of memory")
        })?;
        let system = System::discover();
        Ok(Self { options, system, sources, policy, cgroups, images, nursery, scratch, in_force })
    }

    /// Removes what would outlive this process, when nothing lives any more.
    pub(super) fn leave(&self) {
        if let Some(Err(error)) = self.cgroups.as_ref().map(Tree::clear) {
            eprintln!("martlet launcher: could not remove its cgroups, the next start will: {error}");
        }
    }

    /// The host's uid and gid for the sandbox in `slot`, as this process sees them.
    pub(super) fn owner(&self, slot: u32) -> u32 {
        if self.in_force.rootless { 0 } else { self.options.uid_base + slot }
    }
}

fn enter_mount_namespace() -> Result<(), Refusal> {
    // Groups of whoever started the server must not reach any sandbox.
    let _ = set_thread_groups(&[]);
    // Memory of this process holds what functions were given: nobody may read it.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    sys::unshare(UnshareFlags::NEWNS).map_err(|error| {
        Refusal::new(
            "own mount namespace",
            error,
            "This root lacks CAP_SYS_ADMIN: in a container, start it privileged, or start Martlet as an ordinary user",
        )
    })
}

/// A user without privileges gets them all inside a user namespace of its own, where it is root; everything else is then
/// the same code.
fn enter_user_namespace() -> Result<(), Refusal> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let refusal = |error: io::Error| {
        Refusal::new(
            "unprivileged user namespaces",
            error,
            "Allow them (`martlet doctor` names the setting), or start as root",
        )
    };
    sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(refusal)?;
    std::fs::write("/proc/self/setgroups", "deny").map_err(refusal)?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).map_err(refusal)?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).map_err(refusal)
}

/// Version 1 is of no use here: it cannot allow to rename across directories.
pub(crate) fn usable_landlock(version: u32) -> u32 {
    if version < 2 { 0 } else { version }
}

fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Finds the cgroups of this machine, ends what a predecessor left in ours, and makes ours anew.
fn make_cgroups(instance: &str, rootless: bool) -> Result<(Hierarchy, Tree, usize), Refusal> {
    const REMEDY: &str = "`martlet doctor` names what is missing and how to get it; isolation `no-cgroups` does without \
                          limits for memory, cpu and processes together";
    let refusal = |why: &dyn std::fmt::Display| Refusal::new("cgroups for full isolation", why, REMEDY);
    let read =
        |path: &str| std::fs::read_to_string(path).map_err(|error| refusal(&format!("{path}: {error}")));
    let mut layout = Layout::find(&read("/proc/self/mountinfo")?).map_err(|problem| refusal(&problem))?;
    if rootless && let Some(own) = own_group(&read("/proc/self/cgroup")?) {
        // A user may only work below what was delegated to the session or service that this is part of.
        layout = layout.below(own);
    }
    let server = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    let us: Vec<u32> = server.into_iter().chain([std::process::id()]).collect();
    let (tree, leftovers) = Tree::make(&layout, instance, &us).map_err(|error| refusal(&error))?;
    Ok((layout.hierarchy, tree, leftovers))
}

/// A few descriptors for each living sandbox stay open here.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
