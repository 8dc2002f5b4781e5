//! Writing a package's tree into a folder.

use super::Summary;
use super::archive::{self, Entry};
use super::error::UnpackError;
use super::tree::{Kind, Tree};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::Path;

/// The time on everything: 1980-01-01, the first that a zip file can express, so that a package is the same on
/// every machine.
const MODIFIED_SECONDS: i64 = 315_532_800;

/// Unpacks `zip` into `target`, a folder that exists and is empty and that nobody else writes to.
///
/// When it returns `Ok`, every byte is on stable storage. When it fails, `target` holds a part; the caller removes
/// it. Folders and files come first and symbolic links last, so nothing is ever written through a link.
/// Blocks; belongs on a thread that may.
///
/// # Errors
/// The archive was refused, as by [`super::check`], or the disk failed.
pub fn unpack(zip: &[u8], target: &Path) -> Result<Summary, UnpackError> {
    let entries = archive::read(zip)?;
    let tree = Tree::build(&entries)?;
    let mut summary = Summary { files: 0, unpacked_bytes: 0 };

    for (id, node) in tree.nodes.iter().enumerate().skip(1) {
        let path = target.join(tree.path(id));
        match &node.kind {
            Kind::Folder => fs::create_dir(&path).map_err(UnpackError::disk("create the folder", &path))?,
            Kind::File { entry, executable } => {
                summary.unpacked_bytes += write_file(entry, *executable, &path)?;
                summary.files += 1;
            }
            Kind::Link { .. } => {}
        }
    }
    for (id, node) in tree.nodes.iter().enumerate() {
        if let Kind::Link { target: to, .. } = &node.kind {
            let path = target.join(tree.path(id));
            symlink(to, &path).map_err(UnpackError::disk("create the link", &path))?;
            summary.files += 1;
        }
    }
    // Children before parents, since writing a child changes its folder's time.
    for (id, node) in tree.nodes.iter().enumerate().rev() {
        let path = target.join(tree.path(id));
        if matches!(node.kind, Kind::Folder) {
            fs::set_permissions(&path, Permissions::from_mode(0o755))
                .map_err(UnpackError::disk("set the mode of", &path))?;
        }
        set_time(&path)?;
    }
    // One call for all files: a sync for each would take seconds for a package of thousands.
    let folder = File::open(target).map_err(UnpackError::disk("open", target))?;
    rustix::fs::syncfs(&folder).map_err(|e| UnpackError::disk("sync the disk of", target)(e.into()))?;
    Ok(summary)
}

fn write_file(entry: &Entry<'_>, executable: bool, path: &Path) -> Result<u64, UnpackError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(UnpackError::disk("create the file", path))?;
    let mut written = 0;
    entry.inflate(|chunk| {
        written += chunk.len() as u64;
        file.write_all(chunk).map_err(UnpackError::disk("write", path))
    })?;
    // Set, not given at creation, where the process's umask would take bits away.
    file.set_permissions(Permissions::from_mode(if executable { 0o755 } else { 0o644 }))
        .map_err(UnpackError::disk("set the mode of", path))?;
    Ok(written)
}

pub(super) fn set_time(path: &Path) -> Result<(), UnpackError> {
    let time = Timespec { tv_sec: MODIFIED_SECONDS, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| UnpackError::disk("set the time of", path)(e.into()))
}
