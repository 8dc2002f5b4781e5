//! Making a package out of a directory, or taking a zip file as it is.

use super::guess::{Source, main_of};
use martlet_functions::package;
use martlet_model::limits;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Directories that belong to tools and not to the function.
const SKIPPED: &[&str] = &[".git", "__pycache__"];
/// Sources longer than this are not searched for a handler; bundles that are longer name their handler by flag.
const SEARCHED_BYTES: u64 = 32 * 1024 * 1024;

/// A function's code, ready to be sent.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) zip: Vec<u8>,
    /// Files in it; `None` for a zip file that was taken as it is.
    pub(crate) files: Option<usize>,
    /// The directory's or the zip file's name without extension.
    pub(crate) stem: String,
    /// What lies at its top and may hold a handler.
    pub(crate) sources: Vec<Source>,
}

/// Why there is no package.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is neither a directory nor a zip file", path.display())]
    Kind { path: PathBuf },
    #[error("{} has no files, and so no handler", path.display())]
    Empty { path: PathBuf },
    #[error("the name of {} is not Unicode, which a zip file cannot carry", path.display())]
    Name { path: PathBuf },
    #[error("{} is neither a file nor a directory nor a link", path.display())]
    Special { path: PathBuf },
    #[error("cannot pack {}", path.display())]
    Write { path: PathBuf, source: package::WriteError },
    #[error("the package has {bytes} bytes; a call can carry {} (50 MB)", limits::ZIP_BYTES)]
    TooLarge { bytes: usize },
    #[error("{} cannot be unpacked", path.display())]
    Unpack { path: PathBuf, source: package::UnpackError },
    #[error("cannot make a temporary directory")]
    Temporary(#[source] io::Error),
}

impl Package {
    /// Packs the directory, or reads the zip file, at `path`.
    ///
    /// # Errors
    /// The step that failed, with the file it failed on.
    pub(crate) fn from_path(path: &Path) -> Result<Self, PackError> {
        let read = |source| PackError::Read { path: path.to_owned(), source };
        // The real name of `.` or of a link is what the function is called after.
        let real = path.canonicalize().map_err(read)?;
        let stem = real.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let package = if real.is_dir() {
            let mut writer = package::Writer::new();
            let files = add_directory(&mut writer, &real, "")?;
            if files == 0 {
                return Err(PackError::Empty { path: path.to_owned() });
            }
            let failed = |source| PackError::Write { path: path.to_owned(), source };
            let zip = writer.finish().map_err(failed)?;
            let stem = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Self { zip, files: Some(files), stem, sources: sources(&real)? }
        } else {
            let zip = std::fs::read(&real).map_err(read)?;
            if !zip.starts_with(b"PK") {
                return Err(PackError::Kind { path: path.to_owned() });
            }
            let unpacked = Unpacked::of(path, &zip)?;
            Self { sources: sources(&unpacked.0)?, files: None, stem, zip }
        };
        if package.zip.len() > limits::ZIP_BYTES {
            return Err(PackError::TooLarge { bytes: package.zip.len() });
        }
        Ok(package)
    }
}

/// Adds everything below `directory` in the order of names, so that the same files make the same bytes.
fn add_directory(writer: &mut package::Writer, directory: &Path, prefix: &str) -> Result<usize, PackError> {
    let read = |source| PackError::Read { path: directory.to_owned(), source };
    let entries: Result<Vec<_>, _> = std::fs::read_dir(directory).map_err(read)?.collect();
    let mut entries = entries.map_err(read)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut files = 0;
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| PackError::Name { path: path.clone() })?;
        if SKIPPED.contains(&name) {
            continue;
        }
        let inside = format!("{prefix}{name}");
        let read = |source| PackError::Read { path: path.clone(), source };
        let wrote = |source| PackError::Write { path: path.clone(), source };
        let metadata = entry.metadata().map_err(read)?;
        if metadata.is_dir() {
            files += add_directory(writer, &path, &format!("{inside}/"))?;
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(&path).map_err(read)?;
            let target = target.to_str().ok_or_else(|| PackError::Name { path: path.clone() })?;
            writer.link(&inside, target).map_err(wrote)?;
            files += 1;
        } else if metadata.is_file() {
            let content = std::fs::read(&path).map_err(read)?;
            let executable = metadata.permissions().mode() & 0o111 != 0;
            writer.file(&inside, executable, &content).map_err(wrote)?;
            files += 1;
        } else {
            return Err(PackError::Special { path });
        }
    }
    Ok(files)
}

/// The files at the top that may hold a handler, and the one that `package.json` calls main.
fn sources(directory: &Path) -> Result<Vec<Source>, PackError> {
    let read = |path: &Path, source| PackError::Read { path: path.to_owned(), source };
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|source| read(directory, source))? {
        let path = entry.map_err(|source| read(directory, source))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
        let searched =
            matches!(extension, Some("py" | "mjs" | "js" | "cjs" | "ts")) || name == "package.json";
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_file() && name == "bootstrap" {
            sources.push(Source { name: name.to_owned(), text: String::new() });
        } else if metadata.is_file() && searched && metadata.len() <= SEARCHED_BYTES {
            let text = std::fs::read(&path).map_err(|source| read(&path, source))?;
            sources.push(Source { name: name.to_owned(), text: String::from_utf8_lossy(&text).into_owned() });
        }
    }
    if let Some(main) = main_of(&sources).filter(|main| main.contains('/') && !main.contains(".."))
        && let Ok(text) = std::fs::read_to_string(directory.join(&main))
    {
        sources.push(Source { name: main, text });
    }
    Ok(sources)
}

/// A zip file unpacked to where only this user can look, for as long as this lives.
struct Unpacked(PathBuf);

impl Unpacked {
    fn of(path: &Path, zip: &[u8]) -> Result<Self, PackError> {
        use std::os::unix::fs::DirBuilderExt;
        // Creating it fails when somebody else was there first, so the name need not be hard to guess.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("martlet-deploy-{}-{}", std::process::id(), now.as_nanos());
        let directory = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&directory).map_err(PackError::Temporary)?;
        let unpacked = Self(directory);
        package::unpack(zip, &unpacked.0)
            .map_err(|source| PackError::Unpack { path: path.to_owned(), source })?;
        Ok(unpacked)
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;
    use std::fs;

    #[test]
    fn a_directory_makes_the_same_bytes_every_time() {
        let dir = TempDir::new();
        let function = dir.path().join("my-function.v2");
        fs::create_dir_all(function.join("lib")).unwrap();
        fs::create_dir_all(function.join("__pycache__")).unwrap();
        fs::write(function.join("app.py"), "def handler(e, c): ...").unwrap();
        fs::write(function.join("lib/x.py"), "").unwrap();
        fs::write(function.join("__pycache__/x.pyc"), "junk").unwrap();
        let first = Package::from_path(&function).unwrap();
        assert_eq!((first.files, first.stem.as_str()), (Some(2), "my-function.v2"));
        assert_eq!(first.sources.len(), 1);
        assert_eq!(Package::from_path(&function).unwrap().zip, first.zip);

        let zip = dir.path().join("packed.zip");
        fs::write(&zip, &first.zip).unwrap();
        let same = Package::from_path(&zip).unwrap();
        assert_eq!((same.files, same.stem.as_str(), same.sources.len()), (None, "packed", 1));
        assert_eq!(same.zip, first.zip);
    }

    #[test]
    fn what_cannot_be_packed_is_refused() {
        let dir = TempDir::new();
        assert!(matches!(Package::from_path(dir.path()), Err(PackError::Empty { .. })));
        let text = dir.path().join("notes.txt");
        fs::write(&text, "hello").unwrap();
        assert!(matches!(Package::from_path(&text), Err(PackError::Kind { .. })));
        fs::write(&text, "PK and no more").unwrap();
        assert!(matches!(Package::from_path(&text), Err(PackError::Unpack { .. })));
        assert!(matches!(Package::from_path(&dir.path().join("none")), Err(PackError::Read { .. })));
    }
}
