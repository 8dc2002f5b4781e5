//! Packages on this machine: the zip files as blobs, and one unpacked read-only folder for each. Where a function has several
//! layers there is a folder for all of them together, which has no zip file.
//!
//! A package goes through these steps, each durable before the next: a key `packages/DIGEST` that says it may be
//! there, the blob, a record of a function that refers to it, the folder. Removal goes the other way: the folder, the
//! blob, the key. So whatever a crash leaves behind is found by its key, and a folder that exists is complete:
//! unpacking happens beside it, in a folder whose name begins with a dot, and ends with a rename.
//!
//! Who puts a package to use holds a [`Pin`] until a record refers to it, and what is pinned is never removed.

use crate::package::{self, PackageError, UnpackError};
use crate::parts::{Opt, Parts};
use bytes::Bytes;
use martlet_model::{Code, limits};
use martlet_store::{Digest, DigestError, Expect, Store, StoreError};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// Packages that are checked or unpacked at the same time; the work is bound by the CPU and the disk.
const AT_ONCE: usize = 2;
const KEYS: &str = "packages/";
const KEYS_AT_ONCE: usize = 500;

/// Why a package could not be taken in, unpacked or removed.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// The zip file was refused; its sender is to blame.
    #[error(transparent)]
    Refused(#[from] PackageError),
    /// The disk failed while unpacking.
    #[error(transparent)]
    Unpack(UnpackError),
    /// The disk failed.
    #[error("cannot {step} {path:?}")]
    Disk {
        /// What was tried.
        step: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store failed.
    #[error("the store failed while working on a package")]
    Store(#[from] StoreError),
    /// A record refers to a package whose zip file is gone.
    #[error("the zip file of package {0} is missing from the store; upload it again")]
    Missing(Digest),
    /// A record names a package by something that is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The thread that worked on the package died.
    #[error("the work on a package was cut short")]
    Cut,
}

/// What is being done with a package at this moment.
enum Use {
    Pinned(usize),
    Removing,
}

pub(crate) struct Packages {
    store: Store,
    folder: PathBuf,
    workers: Semaphore,
    uses: Mutex<HashMap<Digest, Use>>,
    /// Notified when a removal ends.
    removed: Notify,
    temporary: AtomicU64,
    /// Tells temporary folders of this run from those of earlier ones.
    run: u64,
}

/// Keeps a package from being removed.
pub(crate) struct Pin {
    packages: Arc<Packages>,
    digest: Digest,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut uses = self.packages.uses();
        if let Entry::Occupied(mut entry) = uses.entry(self.digest) {
            match entry.get_mut() {
                Use::Pinned(count) if *count > 1 => *count -= 1,
                Use::Pinned(_) => drop(entry.remove()),
                Use::Removing => {}
            }
        }
    }
}

/// Marks a package as being removed; whoever wants it waits until this is gone.
struct Removal {
    packages: Arc<Packages>,
    digest: Digest,
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.packages.uses().remove(&self.digest);
        self.packages.removed.notify_waiters();
    }
}

/// What became of a package that might be garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collected {
    Gone,
    /// It is in use; try again when it may no longer be.
    Kept,
}

impl Packages {
    /// Makes the folder if need be. Half-done work of an earlier run is removed in the background.
    pub(crate) fn open(store: Store, folder: &Path) -> Result<Arc<Self>, PackagesError> {
        // Whoever shows the folders to functions may work in another directory.
        let folder = std::path::absolute(folder).map_err(disk("find", folder))?;
        let failed = |step| disk(step, &folder);
        DirBuilder::new().recursive(true).mode(0o755).create(&folder).map_err(failed("create"))?;
        let mut leftovers = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed("list"))? {
            let entry = entry.map_err(failed("list"))?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                leftovers.push(entry.path());
            }
        }
        if !leftovers.is_empty() {
            tokio::task::spawn_blocking(move || {
                for path in leftovers {
                    if let Err(error) = fs::remove_dir_all(&path) {
                        tracing::warn!(?path, %error, "cannot remove a half-unpacked package");
                    }
                }
            });
        }
        let run = getrandom::u64()
            .map_err(|error| failed("name a folder in")(io::Error::other(error.to_string())))?;
        Ok(Arc::new(Self {
            store,
            folder,
            workers: Semaphore::new(AT_ONCE),
            uses: Mutex::default(),
            removed: Notify::new(),
            temporary: AtomicU64::new(0),
            run,
        }))
    }

    /// The folder of a package, whether or not it exists.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    /// Whether the package is unpacked.
    pub(crate) fn is_ready(&self, digest: &Digest) -> bool {
        self.path(digest).is_dir()
    }

    /// Checks a zip file to its last byte and stores it. It stays at least as long as the pin; when this resolves
    /// it is on stable storage.
    pub(crate) async fn accept(self: &Arc<Self>, zip: Bytes) -> Result<(Code, Pin), PackagesError> {
        if zip.len() > limits::ZIP_BYTES {
            let (bytes, limit) = (zip.len() as u64, limits::ZIP_BYTES as u64);
            return Err(PackageError::ZipTooLarge { bytes, limit }.into());
        }
        let bytes = zip.clone();
        let digest = self.work(move || Ok(Digest::of(&bytes))).await?;
        let pin = self.pin(digest).await;
        if !self.is_ready(&digest) {
            let bytes = zip.clone();
            self.work(move || package::check(&bytes).map(drop).map_err(Into::into)).await?;
        }
        let code = Code { digest: digest.to_string(), bytes: zip.len() as u64 };
        self.store.kv.put(&key(&digest), Bytes::new(), Expect::Any).await?;
        self.store.blobs.put(zip).await?;
        Ok((code, pin))
    }

    /// Unpacks the package unless it is unpacked already.
    pub(crate) async fn unpack(self: &Arc<Self>, digest: Digest) -> Result<(), PackagesError> {
        let _pin = self.pin(digest).await;
        if self.is_ready(&digest) {
            return Ok(());
        }
        let zip = self.store.blobs.get(&digest).await?.ok_or(PackagesError::Missing(digest))?;
        let packages = Arc::clone(self);
        self.work(move || packages.unpack_now(&digest, &zip)).await
    }

    fn unpack_now(&self, digest: &Digest, zip: &[u8]) -> Result<(), PackagesError> {
        self.make_folder(digest, |half| match package::unpack(zip, half) {
            Ok(_) => Ok(()),
            Err(UnpackError::Refused(refused)) => Err(PackagesError::Refused(refused)),
            Err(broken @ UnpackError::Disk { .. }) => Err(PackagesError::Unpack(broken)),
        })
    }

    /// Makes a folder beside its place, has it filled, and moves it there.
    fn make_folder(
        &self,
        digest: &Digest,
        fill: impl FnOnce(&Path) -> Result<(), PackagesError>,
    ) -> Result<(), PackagesError> {
        let half = self.temporary(digest);
        DirBuilder::new().mode(0o755).create(&half).map_err(disk("create", &half))?;
        let done = fill(&half).and_then(|()| {
            match fs::rename(&half, self.path(digest)) {
                Ok(()) => {}
                // Somebody else was faster, with the same content.
                Err(_) if self.is_ready(digest) => {}
                Err(error) => return Err(disk("move into place", &half)(error)),
            }
            File::open(&self.folder).and_then(|f| f.sync_all()).map_err(disk("sync", &self.folder))
        });
        if half.exists() {
            let _ = fs::remove_dir_all(&half);
        }
        done
    }

    /// Unpacks what is not, and lays several layers over each other.
    pub(crate) async fn assemble(self: &Arc<Self>, parts: &Parts) -> Result<(), PackagesError> {
        self.unpack(parts.code.parse()?).await?;
        match parts.opt()? {
            Opt::Empty => Ok(()),
            Opt::One(layer) => self.unpack(layer).await,
            Opt::Merged { digest, layers } => self.merge(digest, layers).await,
        }
    }

    /// Makes the folder `digest` of the packages of `layers`, unless it is there already. Its files are the layers' own, by
    /// another name.
    async fn merge(self: &Arc<Self>, digest: Digest, layers: Vec<Digest>) -> Result<(), PackagesError> {
        let _pin = self.pin(digest).await;
        if self.is_ready(&digest) {
            return Ok(());
        }
        let mut pins = Vec::with_capacity(layers.len());
        for layer in &layers {
            pins.push(self.pin(*layer).await);
            self.unpack(*layer).await?;
        }
        let packages = Arc::clone(self);
        self.work(move || {
            packages.make_folder(&digest, |half| {
                let folders = layers.iter().map(|layer| packages.path(layer));
                package::lay_over(folders, half).map_err(PackagesError::Unpack)
            })
        })
        .await
    }

    /// Every package that may be there: those with a key, and those with a folder.
    pub(crate) async fn known(&self) -> Result<BTreeSet<Digest>, PackagesError> {
        let mut known = BTreeSet::new();
        for entry in fs::read_dir(&self.folder).map_err(disk("list", &self.folder))? {
            let entry = entry.map_err(disk("list", &self.folder))?;
            known.extend(entry.file_name().to_str().and_then(|name| name.parse::<Digest>().ok()));
        }
        let mut after: Option<String> = None;
        loop {
            let page = self.store.kv.list(KEYS, after.as_deref(), KEYS_AT_ONCE).await?;
            let Some((last, _)) = page.last() else { return Ok(known) };
            after = Some(last.clone());
            known.extend(page.iter().filter_map(|(key, _)| key[KEYS.len()..].parse::<Digest>().ok()));
        }
    }

    /// Removes the package unless it is pinned or `wanted`, which is asked when nobody can begin to use it any more.
    pub(crate) async fn collect(
        self: &Arc<Self>,
        digest: Digest,
        wanted: impl FnOnce() -> bool,
    ) -> Result<Collected, PackagesError> {
        match self.uses().entry(digest) {
            Entry::Occupied(_) => return Ok(Collected::Kept),
            Entry::Vacant(free) => drop(free.insert(Use::Removing)),
        }
        let _removal = Removal { packages: Arc::clone(self), digest };
        if wanted() {
            return Ok(Collected::Kept);
        }
        self.remove(digest).await?;
        Ok(Collected::Gone)
    }

    async fn remove(self: &Arc<Self>, digest: Digest) -> Result<(), PackagesError> {
        let packages = Arc::clone(self);
        self.work(move || {
            let (folder, half) = (packages.path(&digest), packages.temporary(&digest));
            match fs::rename(&folder, &half) {
                Ok(()) => fs::remove_dir_all(&half).map_err(disk("remove", &half)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(disk("move away", &folder)(error)),
            }
        })
        .await?;
        self.store.blobs.delete(&digest).await?;
        self.store.kv.delete(&key(&digest), Expect::Any).await?;
        Ok(())
    }

    pub(crate) async fn pin(self: &Arc<Self>, digest: Digest) -> Pin {
        loop {
            let mut removed = pin!(self.removed.notified());
            removed.as_mut().enable();
            match self.uses().entry(digest).or_insert(Use::Pinned(0)) {
                Use::Pinned(count) => {
                    *count += 1;
                    return Pin { packages: Arc::clone(self), digest };
                }
                Use::Removing => {}
            }
            removed.await;
        }
    }

    /// Does blocking work on a thread that may block, not too much of it at once.
    async fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, PackagesError> + Send + 'static,
    ) -> Result<T, PackagesError> {
        let _permit = self.workers.acquire().await.map_err(|_| PackagesError::Cut)?;
        tokio::task::spawn_blocking(job).await.map_err(|_| PackagesError::Cut)?
    }

    /// A name beside the packages that nobody used since the server started.
    fn temporary(&self, digest: &Digest) -> PathBuf {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!(".{digest}.{:x}.{number}", self.run))
    }

    fn uses(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Use>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(digest: &Digest) -> String {
    format!("{KEYS}{digest}")
}

fn disk(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PackagesError + use<> {
    let path = path.to_owned();
    move |source| PackagesError::Disk { step, path, source }
}
