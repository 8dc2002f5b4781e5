//! The data directory: made private, owned by the user that the server runs as, used by one server at a time.

use crate::config::Origin;
use rustix::fs::{FlockOperation, Mode};
use rustix::process::{Gid, Uid};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The user and group that the server runs as when root starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Used when the configured user is left at its default and this machine has no user of that name. Lies between the
/// ranges that distributions, systemd and subordinate ids take from.
const FALLBACK_OWNER: Owner = Owner { uid: 61_000, gid: 61_000 };

/// Where unpacked packages lie, in the data directory.
pub(crate) const PACKAGES: &str = "packages";

/// What may lie in a directory of root's that is still taken for a new data directory.
const BEFORE_FIRST_START: &[&str] = &["lock", "martlet.toml"];

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("cannot create the data directory {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot look at the data directory {}", path.display())]
    Inspect { path: PathBuf, source: io::Error },
    #[error("{} is not a directory", path.display())]
    NotADirectory { path: PathBuf },
    #[error(
        "{0} belongs to root and has files in it that Martlet did not make; the server does not run as root. Give it \
         a directory of its own, or give this one to the user that it shall run as: chown -R USER {0}",
        path.display()
    )]
    Roots { path: PathBuf },
    #[error("{} belongs to user {owner}, and this is user {user}; start Martlet as its owner or name another with --data-dir DIR", path.display())]
    Foreign { path: PathBuf, owner: u32, user: u32 },
    #[error("cannot set the mode of the data directory {}", path.display())]
    Protect { path: PathBuf, source: io::Error },
    #[error("cannot give {} to user {}", path.display(), owner.uid)]
    Give { path: PathBuf, owner: Owner, source: io::Error },
    #[error("cannot give {} to user {user}", path.display())]
    GiveFile { path: PathBuf, user: u32, source: io::Error },
    #[error("cannot open the lock file {}", path.display())]
    OpenLock { path: PathBuf, source: io::Error },
    #[error("{} is not a plain file of its own; remove it and start again", path.display())]
    OddLock { path: PathBuf },
    #[error("cannot lock {}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("{} is in use by martlet {holder}; stop that server, or name another directory with --data-dir DIR", path.display())]
    InUse { path: PathBuf, holder: String },
    #[error("this machine has no user {name:?} ({origin}); create it, or set `user` to one that exists")]
    UnknownUser { name: String, origin: Origin },
    #[error("the server does not run as root ({origin} says user = {name:?}); name an unprivileged user")]
    RootUser { name: String, origin: Origin },
}

/// The lock on a data directory; gone when it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct DataDirLock {
    _file: File,
}

/// Makes `path` ready: it exists, is absolute without links, is private and, when root asks, belongs to an
/// unprivileged user, who is returned. A new one goes to `user`; an existing one says by its owner who the server
/// runs as.
///
/// # Errors
/// The step that failed.
pub(crate) fn prepare(
    path: &mut PathBuf,
    user: &str,
    user_origin: &Origin,
) -> Result<Option<Owner>, DataDirError> {
    create(path)?;
    *path = path.canonicalize().map_err(|source| DataDirError::Inspect { path: path.clone(), source })?;
    let path = path.as_path();
    let metadata =
        std::fs::metadata(path).map_err(|source| DataDirError::Inspect { path: path.to_owned(), source })?;
    if !metadata.is_dir() {
        return Err(DataDirError::NotADirectory { path: path.to_owned() });
    }
    let me = rustix::process::geteuid().as_raw();
    let owner = if me != 0 {
        if metadata.uid() != me {
            return Err(DataDirError::Foreign { path: path.to_owned(), owner: metadata.uid(), user: me });
        }
        None
    } else if metadata.uid() != 0 {
        Some(Owner { uid: metadata.uid(), gid: metadata.gid() })
    } else {
        let owner = find_user(user, user_origin)?;
        adopt(path, owner)?;
        Some(owner)
    };
    // Passing through (0711) shows nobody anything; see `let_through`.
    if metadata.permissions().mode() & 0o066 != 0 {
        set_mode(path, 0o700)?;
    }
    Ok(owner)
}

/// Lets everybody pass through the directory, not look at it, so that `reader` can open the one file that is theirs.
///
/// # Errors
/// The step that failed.
pub(crate) fn let_through(path: &Path, file: &str, reader: u32) -> Result<(), DataDirError> {
    let file = path.join(file);
    std::os::unix::fs::lchown(&file, Some(reader), None).map_err(|source| DataDirError::GiveFile {
        path: file,
        user: reader,
        source,
    })?;
    set_mode(path, 0o711)
}

/// The directory of unpacked packages, made if it is missing: the launcher holds on to it before anybody else needs it.
///
/// # Errors
/// The step that failed.
pub(crate) fn packages(path: &Path, owner: Option<Owner>) -> Result<PathBuf, DataDirError> {
    let packages = path.join(PACKAGES);
    match std::fs::DirBuilder::new().mode(0o700).create(&packages) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(packages),
        Err(source) => return Err(DataDirError::Create { path: packages, source }),
    }
    if let Some(owner) = owner {
        std::os::unix::fs::lchown(&packages, Some(owner.uid), Some(owner.gid))
            .map_err(|source| DataDirError::Give { path: packages.clone(), owner, source })?;
    }
    Ok(packages)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), DataDirError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|source| DataDirError::Protect { path: path.to_owned(), source })
}

/// Takes the directory's lock, or tells who has it.
///
/// # Errors
/// [`DataDirError::InUse`] when another server has it.
pub(crate) fn lock(path: &Path, owner: Option<Owner>) -> Result<DataDirLock, DataDirError> {
    let lock_path = path.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(&lock_path)
        .map_err(|source| DataDirError::OpenLock { path: lock_path.clone(), source })?;
    // Root is about to write to it and to give it away, in a directory that is not root's.
    let plain = file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1);
    if !plain {
        return Err(DataDirError::OddLock { path: lock_path });
    }
    let failed = |source: io::Error| DataDirError::Lock { path: lock_path.clone(), source };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let holder =
                if pid.trim().is_empty() { "(pid unknown)".into() } else { format!("pid {}", pid.trim()) };
            return Err(DataDirError::InUse { path: path.to_owned(), holder });
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    if let Some(owner) = owner {
        std::os::unix::fs::fchown(&file, Some(owner.uid), Some(owner.gid))
            .map_err(|source| DataDirError::Give { path: lock_path.clone(), owner, source })?;
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(DataDirLock { _file: file })
}

/// Whether a server has the directory, and which.
pub(crate) fn holder(path: &Path) -> Option<String> {
    let file = File::open(path.join("lock")).ok()?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = io::read_to_string(file).unwrap_or_default();
            Some(pid.trim().to_owned())
        }
        _ => None,
    }
}

fn create(path: &Path) -> Result<(), DataDirError> {
    let failed = |source| DataDirError::Create { path: path.to_owned(), source };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Gives a directory of root's that no server has used yet to `owner`.
fn adopt(path: &Path, owner: Owner) -> Result<(), DataDirError> {
    let inspect = |source| DataDirError::Inspect { path: path.to_owned(), source };
    for entry in std::fs::read_dir(path).map_err(inspect)? {
        let name = entry.map_err(inspect)?.file_name();
        if !BEFORE_FIRST_START.iter().any(|expected| name.to_str() == Some(expected)) {
            return Err(DataDirError::Roots { path: path.to_owned() });
        }
    }
    give(path, owner)
}

/// Gives a file or directory to `owner`.
///
/// # Errors
/// [`DataDirError::Give`].
pub(crate) fn give(path: &Path, owner: Owner) -> Result<(), DataDirError> {
    std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid)).map_err(|source| DataDirError::Give {
        path: path.to_owned(),
        owner,
        source,
    })
}

fn find_user(user: &str, origin: &Origin) -> Result<Owner, DataDirError> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    match look_up(user, &passwd) {
        Some(Owner { uid: 0, .. }) => {
            Err(DataDirError::RootUser { name: user.to_owned(), origin: origin.clone() })
        }
        Some(owner) => Ok(owner),
        None if *origin == Origin::Default => Ok(FALLBACK_OWNER),
        None => Err(DataDirError::UnknownUser { name: user.to_owned(), origin: origin.clone() }),
    }
}

/// The ids of a user given by name or number. A number that `passwd` does not list is its own group.
fn look_up(user: &str, passwd: &str) -> Option<Owner> {
    let number: Option<u32> = user.parse().ok();
    let listed = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (name == user || Some(uid) == number).then_some(Owner { uid, gid })
    });
    listed.or_else(|| number.map(|number| Owner { uid: number, gid: number }))
}

/// Why privileges could not be dropped, or why the directory is out of reach without them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivilegeError {
    #[error("cannot become user {} (step {step})", owner.uid)]
    Drop { owner: Owner, step: &'static str, source: io::Error },
    #[error(
        "user {uid}, which the server runs as, cannot reach {0}; let it pass through the directories above ({1}), or \
         keep the data elsewhere with --data-dir DIR",
        path.display(), remedy(path)
    )]
    OutOfReach { path: PathBuf, uid: u32, source: io::Error },
}

fn remedy(path: &Path) -> String {
    format!("chmod o+x {}", path.parent().unwrap_or(path).display())
}

/// Turns this process into `owner` for good: no supplementary groups, real, effective and saved ids alike, and with
/// them every capability goes. Call it while the process has one thread, since the kernel keeps ids per thread.
///
/// # Errors
/// The step that failed; the process must not go on then.
pub(crate) fn drop_privileges(owner: Owner, path: &Path) -> Result<(), PrivilegeError> {
    let at =
        |step| move |errno: rustix::io::Errno| PrivilegeError::Drop { owner, step, source: errno.into() };
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::thread::set_thread_groups(&[]).map_err(at("setgroups"))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(at("setresgid"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(at("setresuid"))?;
    // No program that this process may run, set-user-id or not, brings them back.
    rustix::thread::set_no_new_privs(true).map_err(at("no_new_privs"))?;
    std::fs::read_dir(path).map_err(|source| PrivilegeError::OutOfReach {
        path: path.to_owned(),
        uid: owner.uid,
        source,
    })?;
    Ok(())
}

/// Files that are created from now on are readable by the server's user alone.
pub(crate) fn create_files_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\nada:x:1000:1001:Ada:/home/ada:/bin/sh\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(look_up("ada", PASSWD), Some(Owner { uid: 1000, gid: 1001 }));
        assert_eq!(look_up("1000", PASSWD), Some(Owner { uid: 1000, gid: 1001 }));
        assert_eq!(look_up("4711", PASSWD), Some(Owner { uid: 4711, gid: 4711 }));
        assert_eq!(look_up("bob", PASSWD), None);
        assert!(matches!(find_user("root", &Origin::Default), Err(DataDirError::RootUser { .. })));
        assert!(matches!(find_user("0", &Origin::Default), Err(DataDirError::RootUser { .. })));
    }

    #[test]
    fn the_second_lock_is_refused_and_names_the_first() {
        let dir = crate::testing::TempDir::new();
        let first = lock(dir.path(), None).unwrap();
        let refused = lock(dir.path(), None).unwrap_err().to_string();
        assert!(refused.contains(&format!("in use by martlet pid {};", std::process::id())), "{refused}");
        assert_eq!(holder(dir.path()), Some(std::process::id().to_string()));
        drop(first);
        assert_eq!(holder(dir.path()), None);
        lock(dir.path(), None).unwrap();
    }

    #[test]
    fn a_lock_that_is_another_file_too_is_refused() {
        let dir = crate::testing::TempDir::new();
        let precious = dir.path().join("precious");
        std::fs::write(&precious, "data").unwrap();
        std::fs::hard_link(&precious, dir.path().join("lock")).unwrap();
        assert!(matches!(lock(dir.path(), None), Err(DataDirError::OddLock { .. })));
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "data");
    }

    #[test]
    fn a_data_directory_is_private() {
        let dir = crate::testing::TempDir::new();
        let mut path = dir.path().join("deep/data");
        prepare(&mut path, "4711", &Origin::Flag("user".into())).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        prepare(&mut path, "4711", &Origin::Flag("user".into())).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);

        std::fs::write(path.join("credentials"), "").unwrap();
        let me = rustix::process::getuid().as_raw();
        let_through(&path, "credentials", me).unwrap();
        prepare(&mut path, "4711", &Origin::Flag("user".into())).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o711);
    }

    #[test]
    fn a_directory_of_roots_with_foreign_files_is_left_alone() {
        let dir = crate::testing::TempDir::new();
        std::fs::write(dir.path().join("martlet.toml"), "").unwrap();
        let owner =
            Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
        adopt(dir.path(), owner).unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "").unwrap();
        assert!(matches!(adopt(dir.path(), owner), Err(DataDirError::Roots { .. })));
    }
}
