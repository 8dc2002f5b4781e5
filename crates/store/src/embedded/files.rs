//! The blob contract over files: `blobs/ab/abcd...` holds the bytes whose digest begins with `ab`.

use super::blocking;
use crate::blobs::{Blobs, Digest};
use crate::{Answer, StoreError};
use bytes::Bytes;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the blobs are; `temporary` holds those that are being written.
#[derive(Clone)]
pub(super) struct Files {
    root: Arc<PathBuf>,
    temporary: Arc<PathBuf>,
    /// Numbers the temporary names of this run.
    writes: Arc<AtomicU64>,
}

impl Files {
    /// Makes the directories and clears away what a crash left half-written.
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        let temporary = root.join("tmp");
        match fs::remove_dir_all(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::file("clear", &temporary, e));
            }
            _ => {}
        }
        fs::create_dir_all(&temporary).map_err(|e| StoreError::file("create directory", &temporary, e))?;
        Ok(Self { root: Arc::new(root.to_owned()), temporary: Arc::new(temporary), writes: Arc::default() })
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.root.join(&name[..2]).join(name)
    }

    fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let place = self.place(&digest);
        let shard = place.parent().unwrap_or(&self.root);
        if exists(&place)? {
            // Another writer may have renamed it a moment ago and not have synced the directory yet.
            sync_directory(shard)?;
            return Ok(digest);
        }
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let temporary = self.temporary.join(format!("{number}-{}", &digest.to_string()[..8]));
        let written = self.write(bytes, &temporary, shard, &place);
        if written.is_err() {
            // A leftover is cleared at the next start at the latest.
            fs::remove_file(&temporary).ok();
        }
        written.map(|()| digest)
    }

    fn write(&self, bytes: &[u8], temporary: &Path, shard: &Path, place: &Path) -> Result<(), StoreError> {
        let fail = |step, path: &Path| {
            let path = path.to_owned();
            move |e| StoreError::file(step, &path, e)
        };
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)
            .map_err(fail("create", temporary))?;
        file.write_all(bytes).map_err(fail("write", temporary))?;
        file.sync_all().map_err(fail("sync", temporary))?;
        match fs::create_dir(shard) {
            Ok(()) => sync_directory(&self.root)?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(StoreError::file("create directory", shard, e)),
        }
        fs::rename(temporary, place).map_err(fail("move a blob to", place))?;
        sync_directory(shard)
    }

    fn list(&self, after: Option<&Digest>, max: usize) -> Result<Vec<Digest>, StoreError> {
        let first = after.map_or(0, |digest| digest.as_bytes()[0]);
        let mut found = Vec::new();
        for shard in first..=u8::MAX {
            let directory = self.root.join(format!("{shard:02x}"));
            let entries = match fs::read_dir(&directory) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|e| StoreError::file("list", &directory, e))?,
            };
            let mut here = Vec::new();
            for entry in entries {
                let name = entry.map_err(|e| StoreError::file("list", &directory, e))?.file_name();
                // What is not named by a digest is not ours.
                here.extend(name.to_str().and_then(|name| name.parse::<Digest>().ok()));
            }
            here.retain(|digest| after < Some(digest));
            here.sort_unstable();
            found.extend(here);
            if max <= found.len() {
                found.truncate(max);
                break;
            }
        }
        Ok(found)
    }
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|e| StoreError::file("look for", path, e))
}

/// Makes renames and removals in `directory` durable.
fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|e| StoreError::file("sync directory", directory, e))
}

impl Blobs for Files {
    fn put(&self, bytes: Bytes) -> Answer<Digest> {
        let files = self.clone();
        Box::pin(blocking(move || files.put(&bytes)))
    }

    fn get(&self, digest: &Digest) -> Answer<Option<Bytes>> {
        let (place, digest) = (self.place(digest), *digest);
        Box::pin(blocking(move || match fs::read(&place) {
            Ok(bytes) if Digest::of(&bytes) == digest => Ok(Some(Bytes::from(bytes))),
            Ok(_) => Err(StoreError::Damaged { digest }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::file("read", &place, e)),
        }))
    }

    fn path(&self, digest: &Digest) -> Answer<Option<PathBuf>> {
        let place = self.place(digest);
        Box::pin(blocking(move || Ok(exists(&place)?.then_some(place))))
    }

    fn list(&self, after: Option<&Digest>, max: usize) -> Answer<Vec<Digest>> {
        let (files, after) = (self.clone(), after.copied());
        Box::pin(blocking(move || files.list(after.as_ref(), max)))
    }

    fn delete(&self, digest: &Digest) -> Answer<bool> {
        let (place, root) = (self.place(digest), self.root.clone());
        Box::pin(blocking(move || match fs::remove_file(&place) {
            Ok(()) => {
                sync_directory(place.parent().unwrap_or(&root))?;
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(StoreError::file("delete", &place, e)),
        }))
    }
}
