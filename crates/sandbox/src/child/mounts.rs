//! The mounts that only the sandbox itself can make: its `/proc`, and the change to its root.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, open, statat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsmount, fsopen, move_mount, open_tree, unmount,
};

use crate::error::{At, Fault, Step};
use crate::launcher::shared_memory;
use crate::sys;

/// Files that tell about the whole machine or speak to its kernel; each becomes `/dev/null`.
const MASKED_FILES: [&str; 15] = [
    "config.gz",
    "kcore",
    "keys",
    "key-users",
    "kmsg",
    "kallsyms",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "sched_debug",
    "slabinfo",
    "sysrq-trigger",
    "timer_list",
    "vmallocinfo",
];
/// Directories of hardware and drivers; each becomes empty.
const MASKED_DIRECTORIES: [&str; 4] = ["acpi", "asound", "driver", "scsi"];
/// Settings that programs read but none here may write.
const READ_ONLY: [&str; 4] = ["sys", "bus", "fs", "irq"];

/// Where a sandbox keeps a second, unmasked view of `/proc`, below a directory that nobody inside may enter: the
/// kernel lets a shell below it mount a `/proc` of its own only where it finds one with nothing over it.
pub(crate) const HIDDEN_PROC: &str = "/dev/.proc/view";

/// The working directory is the new root, as the launcher built it. Mounts `/proc` in it, makes it the root of this mount
/// namespace and lets go of the host's.
pub(super) fn enter_root(forkable: bool) -> Result<(), Fault> {
    // The copy that came with the namespace is locked and cannot be pivoted to; a bind of it can, and keeps the locks
    // on everything below.
    let root = clone_tree(CWD, ".", true).at(Step::Pivot, "new root")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&root, "", CWD, ".", flags).at(Step::Pivot, "new root")?;
    rustix::process::fchdir(&root).at(Step::Pivot, "new root")?;

    // Needs the host's /proc still in sight: the kernel gives no view of it that is wider than the one already there.
    let proc = file_system("proc").at(Step::Proc, "/proc")?;
    move_mount(&proc, "", CWD, "proc", flags).at(Step::Proc, "/proc")?;
    if forkable {
        let unmasked = clone_tree(&proc, "", false).at(Step::Proc, HIDDEN_PROC)?;
        move_mount(&unmasked, "", CWD, &HIDDEN_PROC[1..], flags).at(Step::Proc, HIDDEN_PROC)?;
    }
    mask(&proc)?;

    rustix::process::pivot_root(".", ".").at(Step::Pivot, "pivot_root")?;
    // Old and new root lie on the same place now; the old one is on top.
    unmount(".", UnmountFlags::DETACH).at(Step::Pivot, "leave the host's root")?;
    rustix::process::chdir("/").at(Step::Pivot, "/")
}

/// The root is a copy of the template's. Covers what must not be shared: `/tmp` by `tmp`, `/dev/shm` and `/proc` by new ones.
pub(super) fn cover_root(tmp: &OwnedFd) -> Result<(), Fault> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::process::chdir("/").at(Step::Pivot, "/")?;
    move_mount(tmp, "", CWD, "tmp", flags).at(Step::Tmp, "/tmp")?;
    let shm = shared_memory().at(Step::Root, "/dev/shm")?;
    move_mount(&shm, "", CWD, "dev/shm", flags).at(Step::Root, "/dev/shm")?;
    let proc = file_system("proc").at(Step::Proc, "/proc")?;
    move_mount(&proc, "", CWD, "proc", flags).at(Step::Proc, "/proc")?;
    mask(&proc)?;
    // Into what now covers the rest, were it the working directory of somebody.
    rustix::process::chdir("/").at(Step::Pivot, "/")
}

/// Mounts detached trees at their places, in this order, and makes the root read-only.
pub(super) fn show<'a>(trees: impl Iterator<Item = (OwnedFd, &'a PathBuf)>) -> Result<(), Fault> {
    for (tree, target) in trees {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&tree, "", CWD, target, flags).at(Step::Bind, target.to_string_lossy())?;
    }
    let root = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.at(Step::Root, "read-only root")?;
    let read_only = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    sys::set_mount_attributes(&root, read_only, false).at(Step::Root, "read-only root")
}

fn mask(proc: &OwnedFd) -> Result<(), Fault> {
    for name in MASKED_FILES.into_iter().filter(|name| exists(proc, name)) {
        let null = clone_tree(CWD, "dev/null", false).at(Step::Mask, name)?;
        cover(null, proc, name).at(Step::Mask, name)?;
    }
    let empty = file_system("tmpfs").at(Step::Mask, "empty directory")?;
    sys::set_mount_attributes(&empty, libc::MOUNT_ATTR_RDONLY, false).at(Step::Mask, "empty directory")?;
    for name in MASKED_DIRECTORIES.into_iter().filter(|name| exists(proc, name)) {
        let empty = clone_tree(&empty, "", false).at(Step::Mask, name)?;
        cover(empty, proc, name).at(Step::Mask, name)?;
    }
    for name in READ_ONLY.into_iter().filter(|name| exists(proc, name)) {
        let same = clone_tree(proc, name, false).at(Step::Mask, name)?;
        sys::set_mount_attributes(&same, libc::MOUNT_ATTR_RDONLY, false).at(Step::Mask, name)?;
        cover(same, proc, name).at(Step::Mask, name)?;
    }
    Ok(())
}

fn exists(directory: &OwnedFd, name: &str) -> bool {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn cover(tree: OwnedFd, directory: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    move_mount(tree, "", directory, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn clone_tree(directory: impl AsFd, path: &str, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(directory.as_fd(), path, flags)
}

fn file_system(kind: &str) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
