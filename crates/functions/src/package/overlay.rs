//! Laying unpacked packages over each other.

use super::error::UnpackError;
use super::unpack::set_time;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Fills `target`, an empty folder that nobody else writes to, with what `folders` show when each is laid over those before
/// it: folders are joined; of anything else that several have under one name, the last one's is there.
///
/// Files are linked, not copied, so they take no room again. When it returns `Ok`, everything is on stable storage; when it fails,
/// `target` holds a part, which the caller removes. No link is followed. Blocks; belongs on a thread that may.
///
/// # Errors
/// The disk failed.
pub fn lay_over(folders: impl DoubleEndedIterator<Item = PathBuf>, target: &Path) -> Result<(), UnpackError> {
    // From the top down, so that whatever has its place already stays.
    for folder in folders.rev() {
        lay_under(&folder, target)?;
    }
    let folder = File::open(target).map_err(UnpackError::disk("open", target))?;
    rustix::fs::syncfs(&folder).map_err(|e| UnpackError::disk("sync the disk of", target)(e.into()))
}

fn lay_under(source: &Path, target: &Path) -> Result<(), UnpackError> {
    let failed = |step| UnpackError::disk(step, source);
    for entry in fs::read_dir(source).map_err(failed("list"))? {
        let entry = entry.map_err(failed("list"))?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let is_folder = entry.file_type().map_err(failed("list"))?.is_dir();
        match (is_folder, lies_at(&to)?) {
            (true, None) => {
                DirBuilder::new()
                    .mode(0o755)
                    .create(&to)
                    .map_err(UnpackError::disk("create the folder", &to))?;
                lay_under(&from, &to)?;
            }
            (true, Some(there)) if there.is_dir() => lay_under(&from, &to)?,
            (_, Some(_)) => {}
            (false, None) => link(&from, &to)?,
        }
    }
    // Set, not given at creation, where the process's umask would take bits away.
    fs::set_permissions(target, Permissions::from_mode(0o755))
        .map_err(UnpackError::disk("set the mode of", target))?;
    set_time(target)
}

fn lies_at(path: &Path) -> Result<Option<Metadata>, UnpackError> {
    match fs::symlink_metadata(path) {
        Ok(there) => Ok(Some(there)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(UnpackError::disk("look at", path)(error)),
    }
}

/// Gives a file or a symbolic link a second name. A file that has as many as its file system allows is copied.
fn link(from: &Path, to: &Path) -> Result<(), UnpackError> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::TooManyLinks => {
            fs::copy(from, to).map_err(UnpackError::disk("copy to", to))?;
            set_time(to)
        }
        linked => linked.map_err(UnpackError::disk("link to", to)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    fn folder(root: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = root.join(name);
        fs::create_dir(&folder).unwrap();
        for (path, content) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    #[test]
    fn the_last_one_has_its_way_and_folders_are_joined() {
        let root = tempfile::tempdir().unwrap();
        let (low, high) = (
            folder(
                root.path(),
                "low",
                &[("both", "low"), ("d/low", "1"), ("file/inner", "x"), ("folder", "x")],
            ),
            folder(
                root.path(),
                "high",
                &[("both", "high"), ("d/high", "2"), ("file", "f"), ("folder/inner", "i")],
            ),
        );
        symlink("both", low.join("link")).unwrap();
        let target = folder(root.path(), "target", &[]);
        lay_over([low.clone(), high].into_iter(), &target).unwrap();

        let read = |path: &str| fs::read_to_string(target.join(path)).unwrap();
        assert_eq!((read("both"), read("d/low"), read("d/high")), ("high".into(), "1".into(), "2".into()));
        assert_eq!(
            (read("file"), read("folder/inner")),
            ("f".into(), "i".into()),
            "other kinds are not joined"
        );
        assert_eq!(fs::read_link(target.join("link")).unwrap(), Path::new("both"));
        let number = |path: PathBuf| fs::metadata(path).unwrap().ino();
        assert_eq!(number(target.join("d/low")), number(low.join("d/low")), "it takes no room again");
        let mode = fs::metadata(target.join("d")).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o755);
    }

    #[test]
    fn a_link_is_never_gone_through() {
        let root = tempfile::tempdir().unwrap();
        let outside = folder(root.path(), "outside", &[]);
        let low = folder(root.path(), "low", &[("d/file", "1")]);
        let high = folder(root.path(), "high", &[]);
        symlink(&outside, high.join("d")).unwrap();
        let target = folder(root.path(), "target", &[]);
        lay_over([low, high].into_iter(), &target).unwrap();
        assert!(fs::symlink_metadata(target.join("d")).unwrap().is_symlink());
        assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
    }
}
