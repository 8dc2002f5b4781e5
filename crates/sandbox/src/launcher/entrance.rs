//! What a copy of a template needs to enter a shell.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::cgroup::Group;
use crate::error::{At, Fault, Step};
use crate::wire::Part;

/// Descriptors of the shell's namespaces and cgroups. Descriptors and not the process: to go by its pidfd the template would
/// have to be allowed to trace the shell's pid 1, which holds the launcher's memory.
#[derive(Default)]
pub(super) struct Entrance {
    namespaces: Vec<OwnedFd>,
    doors: Vec<OwnedFd>,
}

/// In the order in which they must be joined: the user namespace gives the right to all others.
const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

impl Entrance {
    /// Of the shell with this pid 1.
    pub(super) fn open(pid: i32, group: Option<&Group>) -> Result<Self, Fault> {
        let open = |name: &str| {
            let path = format!("/proc/{pid}/ns/{name}");
            openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::Namespaces, path)
        };
        let namespaces = NAMESPACES.into_iter().map(open).collect::<Result<_, _>>()?;
        let doors = group.map(Group::doors_for_copy).transpose()?.unwrap_or_default();
        Ok(Self { namespaces, doors })
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = (Part, &OwnedFd)> {
        let namespaces = self.namespaces.iter().map(|fd| (Part::Namespace, fd));
        namespaces.chain(self.doors.iter().map(|fd| (Part::Door, fd)))
    }
}
