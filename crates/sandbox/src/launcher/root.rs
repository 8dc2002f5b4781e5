//! Building the root of one sandbox, in the launcher's private mount namespace.
//!
//! It is built here and not in the child because only the launcher may enter every directory of the host. The
//! child gets it by the copy of the mount namespace that its creation makes; since its user namespace is another one, the
//! kernel locks every mount and its read-only flag in that copy: even code that regained privileges inside could not
//! take them off.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid, chmodat, chownat, mkdirat, openat2, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

use crate::child::HIDDEN_PROC;
use crate::error::{At, Fault, Step};
use crate::launcher::scratch::Sources;
use crate::launcher::system::{DEVICES, System, synthetic_files};
use crate::launcher::workplace::Workplace;
use crate::spec::{Bind, SandboxSpec};
use crate::sys;

pub(super) const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
/// Devices work only without `nodev`; a read-only mount does not hinder writing to a device.
const DEVICE: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
/// `/dev/shm`: enough for a semaphore or a queue between processes; bulk data belongs to `/tmp`.
const SHARED_MEMORY_BYTES: u64 = 64 << 20;
/// What a small file takes beyond its content.
const PAGE: usize = 4096;

/// Builds the root for `spec` with `tmp` (detached) as its `/tmp`, and makes it the working directory. The child must be born
/// before what is returned is dropped.
pub(super) fn build(workplace: &Workplace, spec: &SandboxSpec, tmp: OwnedFd) -> Result<NewRoot, Fault> {
    let content: usize = spec.files.iter().map(|(_, bytes)| bytes.len() + PAGE).sum();
    let root = NewRoot::lay(&workplace.scratch.bench, content)?;
    root.furnish(&workplace.system, workplace.policy.copies)?;
    root.attach(tmp, Path::new("/tmp")).at(Step::Tmp, "/tmp")?;
    root.show(&workplace.sources, spec)?;
    root.seal()?;
    root.enter()?;
    Ok(root)
}

/// The same without anything that only some sandboxes are asked to have; not sealed.
pub(super) fn build_ahead(workplace: &Workplace) -> Result<NewRoot, Fault> {
    let root = NewRoot::lay(&workplace.scratch.bench, SandboxSpec::MAX_FILES_BYTES)?;
    root.furnish(&workplace.system, workplace.policy.copies)?;
    root.enter()?;
    Ok(root)
}

/// A `/dev/shm`, detached.
pub(crate) fn shared_memory() -> io::Result<OwnedFd> {
    new_tmpfs(&[("mode", "1777"), ("size", &SHARED_MEMORY_BYTES.to_string())])
}

/// A `/tmp` in memory, detached.
pub(super) fn memory_tmp(bytes: u64) -> Result<OwnedFd, Fault> {
    new_tmpfs(&[("size", &bytes.to_string())]).at(Step::Tmp, "tmpfs")
}

/// Makes a detached `/tmp` the own one of `owner`.
pub(super) fn give(tmp: &OwnedFd, owner: u32) -> Result<(), Fault> {
    let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
    chownat(tmp, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).at(Step::Tmp, "owner of /tmp")?;
    chmodat(tmp, ".", Mode::from_raw_mode(0o700), AtFlags::empty()).at(Step::Tmp, "mode of /tmp")
}

/// A root in the making, mounted on the bench; unmounted from there when dropped, which leaves the child's copy alone.
pub(super) struct NewRoot {
    root: OwnedFd,
    on_bench: bool,
}

impl NewRoot {
    /// Mounts an empty root on the bench.
    fn lay(bench: &OwnedFd, content: usize) -> Result<Self, Fault> {
        // Room for directories, mount points and our own small files; each takes a page at most.
        let size = (content + (4 << 20)).to_string();
        let root = new_tmpfs(&[("mode", "755"), ("size", &size)]).at(Step::Root, "tmpfs")?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&root, "", bench, "", flags).at(Step::Root, "bench")?;
        Ok(Self { root, on_bench: true })
    }

    /// Clears the bench for the next one. Files can still be put into this one, which its child sees at once.
    pub(super) fn leave_bench(&mut self) {
        if std::mem::take(&mut self.on_bench) {
            let _ = rustix::process::fchdir(&self.root).and_then(|()| unmount(".", UnmountFlags::DETACH));
            let _ = rustix::process::chdir("/");
        }
    }

    /// What every sandbox has, but `/tmp` and what only the sandbox itself can mount (`/proc`).
    fn furnish(&self, system: &System, copies: bool) -> Result<(), Fault> {
        for directory in ["/dev/shm", "/etc", "/opt", "/proc", "/tmp", "/var"] {
            self.directory(Path::new(directory)).at(Step::Root, directory)?;
        }
        for (path, target) in &system.links {
            symlinkat(target, &self.root, relative(path)).at(Step::Root, path.to_string_lossy())?;
        }
        for path in &system.binds {
            match self.bind(path, READ_ONLY) {
                Err(Fault::Step { errno: libc::ENOENT, .. }) => {}
                other => other?,
            }
        }
        if copies {
            self.hide_place_for_proc().at(Step::Root, HIDDEN_PROC)?;
        }
        self.devices()
    }

    /// What this sandbox was asked to have.
    fn show(&self, sources: &Sources, spec: &SandboxSpec) -> Result<(), Fault> {
        for bind in outer_first(&spec.binds) {
            let noun = noun(bind);
            let tree = detached(sources.find(&bind.source)?, "", attributes(bind), &noun)?;
            self.mount(tree, &bind.target, &noun)?;
        }
        self.write(spec)
    }

    /// The same for a child that stands already: what it has to mount itself, with the places made for it.
    pub(super) fn show_later(
        &self,
        sources: &Sources,
        spec: &SandboxSpec,
    ) -> Result<Vec<(PathBuf, OwnedFd)>, Fault> {
        let mut trees = Vec::with_capacity(spec.binds.len());
        for bind in outer_first(&spec.binds) {
            let noun = noun(bind);
            let tree = detached(sources.find(&bind.source)?, "", attributes(bind), &noun)?;
            self.place_for(&tree, &bind.target).at(Step::Bind, &noun)?;
            trees.push((bind.target.clone(), tree));
        }
        self.write(spec)?;
        Ok(trees)
    }

    fn write(&self, spec: &SandboxSpec) -> Result<(), Fault> {
        for place in &spec.places {
            self.directory(place).at(Step::Root, place.to_string_lossy())?;
        }
        for (path, content) in synthetic_files(&spec.hostname) {
            if !spec.files.iter().any(|(asked, _)| asked == path) {
                self.file(Path::new(path), content.as_bytes()).at(Step::File, path)?;
            }
        }
        for (path, content) in &spec.files {
            self.file(Path::new(path), content).at(Step::File, path)?;
        }
        Ok(())
    }

    /// Below a directory that nobody inside may enter: it belongs to a user who does not exist there.
    fn hide_place_for_proc(&self) -> io::Result<()> {
        let place = Path::new(HIDDEN_PROC);
        let (closed, _) = split(place)?;
        let (parent, name) = split(closed)?;
        mkdirat(self.directory(parent)?, name, Mode::RWXU)?;
        self.directory(place).map(drop)
    }

    fn devices(&self) -> Result<(), Fault> {
        for name in DEVICES {
            let path = Path::new("/dev").join(name);
            self.bind(&path, DEVICE)?;
        }
        for (name, target) in [
            ("dev/fd", "/proc/self/fd"),
            ("dev/stdin", "/proc/self/fd/0"),
            ("dev/stdout", "/proc/self/fd/1"),
            ("dev/stderr", "/proc/self/fd/2"),
        ] {
            symlinkat(target, &self.root, name).at(Step::Root, name)?;
        }
        let shm = shared_memory().at(Step::Root, "/dev/shm")?;
        self.attach(shm, Path::new("/dev/shm")).at(Step::Root, "/dev/shm")
    }

    /// From here on nothing can be added: the root itself becomes read-only.
    fn seal(&self) -> Result<(), Fault> {
        sys::set_mount_attributes(&self.root, READ_ONLY, false).at(Step::Root, "read-only root")
    }

    /// Makes it the working directory. A child born now has its own copy of the root as its working directory, and so
    /// finds it without walking a path that its user may not walk.
    fn enter(&self) -> Result<(), Fault> {
        rustix::process::fchdir(&self.root).at(Step::Root, "enter the root")
    }

    /// Shows `path` of the host at the same place.
    fn bind(&self, path: &Path, attributes: u64) -> Result<(), Fault> {
        let noun = path.to_string_lossy();
        self.mount(detached(CWD, path, attributes, &noun)?, path, &noun)
    }

    fn mount(&self, tree: OwnedFd, target: &Path, noun: &str) -> Result<(), Fault> {
        let place = self.place_for(&tree, target).at(Step::Bind, noun)?;
        attach_at(tree, place).at(Step::Bind, noun)
    }

    fn place_for(&self, tree: &OwnedFd, target: &Path) -> io::Result<OwnedFd> {
        if is_directory(tree)? { self.directory(target) } else { self.empty_file(target) }
    }

    fn attach(&self, tree: OwnedFd, target: &Path) -> io::Result<()> {
        attach_at(tree, self.directory(target)?)
    }

    /// Opens a directory of the new root, making what is missing. Never leaves the new root, whatever links lie there.
    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        let (parent, name) = split(path)?;
        match mkdirat(self.directory(parent)?, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(self.open(path, OFlags::PATH | OFlags::DIRECTORY)?),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a file as a place to mount on, making an empty one where missing.
    fn empty_file(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => self.file(path, &[])?,
            other => return Ok(other?),
        }
        Ok(self.open(path, OFlags::PATH)?)
    }

    fn file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let (parent, name) = split(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.directory(parent)?, name, flags, Mode::from_raw_mode(0o644))?;
        io::Write::write_all(&mut std::fs::File::from(fd), content)
    }

    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }
}

impl Drop for NewRoot {
    fn drop(&mut self) {
        self.leave_bench();
    }
}

/// Outer before inner, so that a bind never covers another one that was asked for too.
pub(super) fn outer_first(binds: &[Bind]) -> Vec<&Bind> {
    let mut binds: Vec<_> = binds.iter().collect();
    binds.sort_by_key(|bind| bind.target.components().count());
    binds
}

fn attributes(bind: &Bind) -> u64 {
    if bind.writable { READ_ONLY & !libc::MOUNT_ATTR_RDONLY } else { READ_ONLY }
}

pub(super) fn noun(bind: &Bind) -> String {
    format!("{} as {}", bind.source.display(), bind.target.display())
}

/// A detached copy of what lies at `path`, as seen from the directory `from`; an empty `path` is `from` itself.
pub(super) fn detached(
    from: impl AsFd,
    path: impl rustix::path::Arg,
    attributes: u64,
    noun: &str,
) -> Result<OwnedFd, Fault> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(from, path, flags).at(Step::Bind, noun)?;
    sys::set_mount_attributes(&tree, attributes, true).at(Step::Bind, noun)?;
    Ok(tree)
}

/// A detached tmpfs with the given options, `nosuid` and `nodev`.
fn new_tmpfs(options: &[(&str, &str)]) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    finish_mount(&context)
}

/// Creates the file system of a configured context, detached, `nosuid` and `nodev`.
pub(super) fn finish_mount(context: impl AsFd) -> io::Result<OwnedFd> {
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

pub(super) fn attach_at(tree: OwnedFd, place: OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, "", place, "", flags)?)
}

fn is_directory(fd: impl AsFd) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

/// Parent and name of an absolute path; the root itself has neither.
fn split(path: &Path) -> io::Result<(&Path, &Path)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, Path::new(name))),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn relative(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}
