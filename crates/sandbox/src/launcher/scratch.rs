//! The launcher's own directory, and the host paths it may show: both held open, so that whoever may rename what lies
//! above them (as the server may, whose data directory it is) cannot lead a privileged launcher elsewhere.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, ResolveFlags, flock, fstat, lstat, mkdirat, openat, openat2,
    unlinkat,
};
use rustix::io::Errno;

use crate::error::{At, Fault, Refusal, Step};
use crate::spec::Invalid;

/// The scratch directory, which no other launcher may use at the same time. Removed when dropped.
pub(super) struct Scratch {
    /// Only to be removed by at the end, which fails for anything but an empty directory.
    path: PathBuf,
    /// Of this user alone. Carries the lock.
    pub(super) directory: OwnedFd,
    /// Mount point for roots in the making. What is mounted there is seen by this process only.
    pub(super) bench: OwnedFd,
}

/// A predecessor whose server has just died may still be cleaning up.
const PREDECESSOR_WITHIN: Duration = Duration::from_secs(5);
const BENCH: &str = "bench";
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Scratch {
    pub(super) fn make(path: &Path) -> Result<Self, Refusal> {
        let refusal = |why: &dyn std::fmt::Display, remedy: &str| {
            Refusal::new(format!("scratch directory {}", path.display()), why, remedy)
        };
        let unusable = |error: io::Error| {
            refusal(&error, "Choose a data directory that the user who starts Martlet may write to")
        };
        let Some(directory) = Self::lock(path).map_err(unusable)? else {
            return Err(refusal(
                &"another launcher is working there",
                "Stop the server that uses this data directory, or choose another directory",
            ));
        };
        let stat = fstat(&directory).map_err(|errno| unusable(errno.into()))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
            return Err(refusal(
                &"it belongs to another user, or others may write to it",
                "Remove it: it holds nothing that a stopped server still needs",
            ));
        }
        let bench = Self::bench(&directory).map_err(|errno| unusable(errno.into()))?;
        Ok(Self { path: path.to_owned(), directory, bench })
    }

    fn bench(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
        match mkdirat(directory, BENCH, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => openat(directory, BENCH, OFlags::PATH | DIRECTORY, Mode::empty()),
            Err(errno) => Err(errno),
        }
    }

    /// Makes the directory where missing and waits for its lock with a bound; `None` when another keeps it.
    fn lock(path: &Path) -> io::Result<Option<OwnedFd>> {
        let deadline = Instant::now() + PREDECESSOR_WITHIN;
        loop {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            let directory = openat(CWD, path, OFlags::RDONLY | DIRECTORY, Mode::empty())?;
            let locked = flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok();
            let ours = fstat(&directory)?;
            match lstat(path) {
                // A predecessor removes the directory when it leaves: what was locked must still be what is there.
                Ok(there) if locked && (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) => {
                    return Ok(Some(directory));
                }
                _ if Instant::now() >= deadline => return Ok(None),
                // Only ever at a start right after a crash.
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = unlinkat(&self.directory, BENCH, AtFlags::REMOVEDIR);
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// The host paths below which sources of binds must lie.
pub(super) struct Sources {
    roots: Vec<(PathBuf, OwnedFd)>,
}

impl Sources {
    pub(super) fn open(roots: &[PathBuf]) -> Result<Self, Refusal> {
        let open = |path: &PathBuf| {
            let opened = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            opened.map(|fd| (path.clone(), fd)).map_err(|errno| {
                let remedy = "Make it, or take it off the list of what functions may be shown";
                Refusal::new(format!("shared path {}", path.display()), errno, remedy)
            })
        };
        let mut roots = roots.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        // The innermost first: it is the strictest.
        roots.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        Ok(Self { roots })
    }

    /// Opens a source, following links only as long as they stay below the root that holds it.
    pub(super) fn find(&self, source: &Path) -> Result<OwnedFd, Fault> {
        let outside = || {
            let problem = format!("{} lies outside of what this launcher may show", source.display());
            Fault::Invalid(Invalid::new("binds.source", problem))
        };
        let Some((path, root)) = self.roots.iter().find(|(path, _)| source.starts_with(path)) else {
            return Err(outside());
        };
        let rest = source.strip_prefix(path).unwrap_or(source);
        if rest.as_os_str().is_empty() {
            return root.try_clone().at(Step::Bind, source.to_string_lossy());
        }
        // Below the host's own root, every link stays below.
        let stay = if path == Path::new("/") { ResolveFlags::IN_ROOT } else { ResolveFlags::BENEATH };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match openat2(root, rest, flags, Mode::empty(), stay | ResolveFlags::NO_MAGICLINKS) {
            Err(Errno::XDEV) => Err(outside()),
            other => other.at(Step::Bind, source.to_string_lossy()),
        }
    }
}
