//! What there is to know about this machine, as read from the kernel.

use std::fs;
use std::path::Path;

use rustix::fs::{Access, access};

use crate::cgroup::{Controller, Hierarchy, Layout, own_group};
use crate::launcher::find_mkfs;
use crate::sys::{self, Trial};

/// The whole of it; public to the judge and its tests.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) architecture: &'static str,
    /// Major and minor.
    pub(super) kernel: (u32, u32),
    pub(super) root: bool,
    /// Whether this process could make mount namespaces and the like by itself; root in a container often cannot.
    pub(super) administrator: bool,
    pub(super) namespaces: Trial,
    /// `kernel.unprivileged_userns_clone` and its kin; `None` where the kernel has no such setting.
    pub(super) userns_clone: Option<u64>,
    pub(super) apparmor_restricts: Option<u64>,
    pub(super) max_user_namespaces: Option<u64>,
    pub(super) max_net_namespaces: Option<u64>,
    pub(super) cgroups: Option<Cgroups>,
    pub(super) swap: bool,
    pub(super) seccomp: bool,
    pub(super) landlock: u32,
    pub(super) mkfs: bool,
    pub(super) loop_control: Result<(), i32>,
}

#[derive(Clone, Debug)]
pub(super) struct Cgroups {
    pub(super) hierarchy: Hierarchy,
    /// The group below which this process would work, in the version 2 tree.
    pub(super) own: String,
    pub(super) controllers: Vec<(Controller, bool)>,
    pub(super) can_freeze: bool,
    pub(super) can_kill: bool,
    pub(super) counts_swap: bool,
}

impl Facts {
    pub(super) fn gather() -> Self {
        let root = rustix::process::geteuid().is_root();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
        let loop_control = rustix::fs::open(
            "/dev/loop-control",
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        Self {
            architecture: std::env::consts::ARCH,
            kernel: version(&release),
            root,
            administrator: rustix::thread::capabilities(None)
                .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN)),
            namespaces: sys::try_namespaces(),
            userns_clone: setting("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restricts: setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            max_user_namespaces: setting("/proc/sys/user/max_user_namespaces"),
            max_net_namespaces: setting("/proc/sys/user/max_net_namespaces"),
            cgroups: Cgroups::gather(root),
            swap: fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1),
            seccomp: actions.split_whitespace().any(|action| action == "errno"),
            landlock: sys::landlock_version(),
            mkfs: find_mkfs().is_some(),
            loop_control: loop_control.map(drop).map_err(rustix::io::Errno::raw_os_error),
        }
    }
}

impl Cgroups {
    fn gather(root: bool) -> Option<Self> {
        let layout = Layout::find_any(&fs::read_to_string("/proc/self/mountinfo").ok()?).ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own_group(&own).unwrap_or("/").to_owned();
        let base = if root { layout.clone() } else { layout.below(&own) };
        let offers = |controller: &(Controller, std::path::PathBuf)| {
            let writable = access(&controller.1, Access::WRITE_OK).is_ok();
            // A group further down may offer less than the root of the tree does.
            let listed = fs::read_to_string(controller.1.join("cgroup.controllers"));
            let handed_down =
                listed.map_or(true, |text| text.split_whitespace().any(|c| c == controller.0.name()));
            let usable = writable && (layout.hierarchy != Hierarchy::V2 || handed_down);
            (controller.0, usable)
        };
        let controllers =
            base.places().iter().filter(|(c, _)| *c != Controller::Unified).map(offers).collect();
        let below = own.trim_start_matches('/').to_owned();
        let unified_has = |file: &str| {
            // The root of the tree has neither file, so a group has to be asked.
            let any = |root: &Path| root.join(&below).join(file).exists() || first_child_has(root, file);
            layout.place(Controller::Unified).is_some_and(any)
        };
        let counts_swap = match layout.hierarchy {
            Hierarchy::V2 => true,
            _ => layout
                .place(Controller::Memory)
                .is_some_and(|memory| memory.join("memory.memsw.limit_in_bytes").exists()),
        };
        Some(Self {
            hierarchy: layout.hierarchy,
            own,
            controllers,
            can_freeze: unified_has("cgroup.freeze") || layout.hierarchy != Hierarchy::V2,
            can_kill: unified_has("cgroup.kill"),
            counts_swap,
        })
    }
}

fn first_child_has(directory: &Path, file: &str) -> bool {
    let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.any(|entry| entry.path().join(file).exists())
}

fn setting(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Major and minor of a kernel release text; zeroes where it says neither.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read() {
        assert_eq!(version("6.18.44-fc-v657\n"), (6, 18));
        assert_eq!(version("5.4.0-1024-aws"), (5, 4));
        assert_eq!(version("7.0-rc1"), (7, 0));
        assert_eq!(version(""), (0, 0));
    }

    #[test]
    fn gathering_works_for_whoever_calls_it() {
        let facts = Facts::gather();
        assert!(facts.kernel.0 > 0);
        assert_eq!(facts.root, rustix::process::geteuid().is_root());
    }
}
