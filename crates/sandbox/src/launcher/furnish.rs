//! Showing host directories in a sandbox whose program runs already.
//!
//! Nobody in there has kept the capability to mount, so the launcher goes into the sandbox's mount namespace for a moment. It
//! walks to places that it made itself, below a root that is read-only inside, and follows no link on the way.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::process::{chroot, fchdir};

use crate::error::{At, Fault, Step};
use crate::launcher::root::{READ_ONLY, attach_at, detached, noun, outer_first};
use crate::launcher::scratch::Sources;
use crate::spec::Bind;
use crate::sys;

/// Shows `binds` in the mount namespace of `pid_1` (a pidfd), whose root has an empty directory for each.
pub(super) fn show(sources: &Sources, pid_1: &OwnedFd, binds: &[Bind]) -> Result<(), Fault> {
    let mut trees = Vec::with_capacity(binds.len());
    for bind in outer_first(binds) {
        let noun = noun(bind);
        trees.push((bind, detached(sources.find(&bind.source)?, "", READ_ONLY, &noun)?));
    }
    abroad(pid_1, || {
        for (bind, tree) in trees {
            let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let place = openat2(CWD, &bind.target, flags, Mode::empty(), resolve);
            place
                .map_err(std::io::Error::from)
                .and_then(|place| attach_at(tree, place))
                .at(Step::Bind, noun(bind))?;
        }
        Ok(())
    })
}

/// Does something in the mount namespace of another process, and comes back.
fn abroad<T>(process: &OwnedFd, act: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let open = |path| {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::Namespaces, path)
    };
    let (home, root) = (open("/proc/self/ns/mnt")?, open("/")?);
    sys::setns(process, libc::CLONE_NEWNS).at(Step::Namespaces, "the sandbox's mount")?;
    let acted = act();
    if let Err(error) = come_home(&home, &root) {
        // What a launcher that has lost its own view of the host would do next, nobody can tell.
        eprintln!("martlet launcher: cannot return from a sandbox's mount namespace: {error}");
        sys::exit_now(1);
    }
    acted
}

/// The root of the namespace need not be the root that this process had.
fn come_home(home: impl AsFd, root: impl AsFd) -> std::io::Result<()> {
    sys::setns(home, libc::CLONE_NEWNS)?;
    fchdir(root)?;
    chroot(".")?;
    Ok(())
}
