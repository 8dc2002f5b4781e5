//! The registry: changes, one at a time for each function, and the picture they leave.

use crate::alias::{Alias, AliasSettings};
use crate::attached::Attached;
use crate::function::Function;
use crate::held::{Held, RuntimeOf};
use crate::layers::{LayerPolicyRefused, Layers};
use crate::machine::{self, Change, Creation, Outcome, Publication, Refused, Settings, Snapshot, Stamp};
use crate::packages::{Packages, PackagesError};
use crate::parts::Parts;
use crate::record::{Reason, VersionRecord};
use crate::signing::Signing;
use crate::world::{Shown, Usage};
use crate::{keep, stored};
use bytes::Bytes;
use martlet_environment::Deployment;
use martlet_model::{AccountId, FunctionArn, FunctionName, FunctionVersion, LayerArn, LayerVersionArn};
use martlet_model::{Qualifier, Region, Timestamp, Version, limits};
use martlet_store::{Digest, Expect, MAX_VALUE_BYTES, Store, StoreError, Write};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::{Mutex, MutexGuard};

/// Functions share this many locks; two of one lock wait for each other's commits, a few milliseconds.
const LOCKS: usize = 64;
/// Published versions whose records are removed together with their function's; the rest follow.
const REMOVED_AT_ONCE: usize = martlet_store::MAX_BATCH - 1;

/// Hears what can be invoked, after every change of that.
pub trait Observer: Send + Sync + 'static {
    /// From now on the invocations of `function` resolve to one of `current`, and to no other deployment; none are
    /// left when the function is gone. Called after the change is durable and shown. Must not block.
    fn current(&self, function: &FunctionArn, current: &[Arc<Deployment>]);

    /// What is attached to `function` may have changed, or the aliases that it is attached to; `None` when the function is gone.
    /// Called as [`Observer::current`] is, after it, and once for each function when they are opened. Must not block.
    fn attached(&self, function: &FunctionArn, picture: Option<&Function>) {
        let _ = (function, picture);
    }
}

/// Why an invocation has nothing to run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// There is no such function, version or alias.
    #[error("{0} does not exist")]
    NotFound(String),
    /// It is there and cannot be invoked yet, or never could; the state's name as the API spells it.
    #[error("the function is in the state {0}")]
    NotActive(&'static str),
    /// It stays with a runtime that this machine does not have any more.
    #[error("the function is kept on the runtime {0}, which this machine does not have")]
    RuntimeGone(String),
}

impl Unresolved {
    /// There is no such function, or it has no such qualifier.
    pub(crate) fn of(function: &FunctionArn, qualifier: Option<&Qualifier>) -> Self {
        Self::NotFound(match qualifier {
            Some(qualifier) => function.qualified(qualifier),
            None => function.to_string(),
        })
    }
}

/// Why a change did not happen. None of them leaves anything behind that shows.
#[derive(Debug, thiserror::Error)]
pub enum FunctionsError {
    /// There is no such function.
    #[error("{0} does not exist")]
    NotFound(FunctionArn),
    /// There is one of this name already.
    #[error("the function {0} exists already")]
    Exists(FunctionName),
    /// The function's state or the caller's precondition is against it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// All zip files of the account together would be over [`limits::CODE_STORAGE_BYTES`].
    #[error("the code of all functions would be over the account's {limit} bytes", limit = limits::CODE_STORAGE_BYTES)]
    CodeStorage,
    /// The package was refused, or could not be stored.
    #[error(transparent)]
    Package(#[from] PackagesError),
    /// The store failed; unless it says that it is closed, nothing was changed.
    #[error("the store failed while working on a function")]
    Store(#[from] StoreError),
    /// A record could not be written as JSON or is larger than the store takes.
    #[error("the record of {0} is too large")]
    TooLarge(FunctionArn),
    /// There is no such code signing configuration.
    #[error("the code signing configuration {0} does not exist")]
    NoSigningConfig(String),
    /// Functions refer to the code signing configuration.
    #[error("functions refer to the code signing configuration {0}")]
    SigningConfigInUse(String),
    /// The record of the code signing configuration is larger than the store takes.
    #[error("the record of {0} is too large")]
    SigningConfigTooLarge(String),
    /// Only signed packages may come in, and this one is not.
    #[error("the package for {0} has no signature, and its code signing configuration enforces one")]
    Unsigned(FunctionArn),
    /// There is no such version of a layer.
    #[error("layer version {0} does not exist")]
    NoSuchLayer(LayerVersionArn),
    /// The policy of a layer version does not change.
    #[error(transparent)]
    LayerPolicy(#[from] LayerPolicyRefused),
    /// The record of a version of this layer is larger than the store takes.
    #[error("the record of {0} is too large")]
    LayerTooLarge(LayerArn),
    /// The function's code and its layers together would be over [`limits::UNPACKED_BYTES`]: they are so large.
    #[error("the function's code and its layers are {0} bytes, the most is {limit}", limit = limits::UNPACKED_BYTES)]
    Oversized(u64),
    /// The system gave no randomness for an id.
    #[error("the system gives no random numbers: {0}")]
    Randomness(getrandom::Error),
    /// The task that worked on it died.
    #[error("the work on a function was cut short")]
    Cut,
}

/// A function to create.
#[derive(Clone, Debug)]
pub struct NewFunction {
    /// Its identity.
    pub function: FunctionArn,
    /// How it runs.
    pub settings: Settings,
    /// Its package.
    pub zip: Bytes,
    /// Its tags; the caller has checked their number and form.
    pub tags: BTreeMap<String, String>,
    /// Whether to publish version 1 as well.
    pub publish: bool,
    /// The code signing configuration that its packages are checked by.
    pub code_signing: Option<String>,
}

/// New code for a function.
#[derive(Clone, Debug)]
pub struct CodeUpdate {
    /// Its package.
    pub zip: Bytes,
    /// Another architecture, if it changes.
    pub architecture: Option<String>,
    /// Whether to publish a version as well.
    pub publish: bool,
    /// Only to check everything, and change nothing.
    pub dry_run: bool,
    /// The revision id that `$LATEST` must have.
    pub expected_revision: Option<String>,
}

/// A version to publish.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    /// A description other than that of `$LATEST`.
    pub description: Option<String>,
    /// The digest that the code of `$LATEST` must have.
    pub expected_digest: Option<String>,
    /// The revision id that `$LATEST` must have.
    pub expected_revision: Option<String>,
}

/// All functions of this server. Cheap to clone. Needs a tokio runtime with its timer.
///
/// Every method that changes something works in a task of its own: dropping its future does not stop it half-way.
/// When one resolves to `Ok`, the change is on stable storage and shown.
#[derive(Clone)]
pub struct Functions {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) packages: Arc<Packages>,
    pub(crate) shown: Shown,
    pub(crate) layers: Layers,
    pub(crate) garbage: keep::Garbage,
    pub(crate) held: Held,
    pub(crate) signing: Signing,
    observer: Arc<dyn Observer>,
    locks: Vec<Mutex<()>>,
    /// Held while a function's share of the account's concurrency changes.
    shares: Mutex<()>,
}

impl Functions {
    /// Reads all records and takes up what was under way when the server last stopped. Packages lie unpacked in the
    /// folder `packages`, which nobody else may write to.
    ///
    /// # Errors
    /// The store or the folder cannot be read, or has records that this version does not know.
    pub async fn open(
        store: Store,
        packages: &Path,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, stored::OpenError> {
        let packages = Packages::open(store.clone(), packages)?;
        let inner = Inner {
            store,
            packages,
            shown: Shown::default(),
            layers: Layers::default(),
            garbage: keep::Garbage::default(),
            held: Held::default(),
            signing: Signing::default(),
            observer,
            shares: Mutex::default(),
            locks: (0..LOCKS).map(|_| Mutex::default()).collect(),
        };
        let functions = Self { inner: Arc::new(inner) };
        functions.load_signing().await?;
        functions.load().await?;
        for function in functions.inner.shown.all() {
            functions.inner.observer.attached(function.arn(), Some(&function));
        }
        functions.keep();
        Ok(functions)
    }

    /// What an invocation runs: from memory, without waiting.
    ///
    /// # Errors
    /// There is nothing to run.
    pub fn resolve(
        &self,
        function: &FunctionArn,
        qualifier: Option<&Qualifier>,
    ) -> Result<Arc<Deployment>, Unresolved> {
        let found = self.inner.shown.get(function).ok_or_else(|| Unresolved::of(function, qualifier))?;
        found.resolve(qualifier)
    }

    /// From now on versions that stay with a runtime resolve only while that is the one they would run on. Called once.
    pub fn hold_runtimes(&self, runtime_of: Box<RuntimeOf>) {
        self.inner.held.set(runtime_of);
    }

    /// One function.
    #[must_use]
    pub fn get(&self, function: &FunctionArn) -> Option<Arc<Function>> {
        self.inner.shown.get(function)
    }

    /// The functions of an account in a region, by name.
    #[must_use]
    pub fn list(&self, account: &AccountId, region: &Region) -> Vec<Arc<Function>> {
        self.inner.shown.list(account, region)
    }

    /// Everything of every account that can be invoked at this moment.
    #[must_use]
    pub fn deployments(&self) -> Vec<Arc<Deployment>> {
        let functions = self.inner.shown.all();
        functions.iter().flat_map(|function| function.deployments.values().cloned()).collect()
    }

    /// What an account has in a region.
    #[must_use]
    pub fn usage(&self, account: &AccountId, region: &Region) -> Usage {
        let usage = self.inner.shown.usage(account, region);
        Usage { code_bytes: usage.code_bytes + self.inner.layers.code_bytes(account, region), ..usage }
    }

    /// The zip file with this digest; `None` when no function has it.
    ///
    /// # Errors
    /// The store failed.
    pub async fn zip(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if !self.refers_to(digest) {
            return Ok(None);
        }
        self.inner.store.blobs.get(digest).await
    }

    /// Creates a function, and returns what it is: pending, with its package checked and stored, and unpacked soon.
    /// With `publish`, what is returned is version 1.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn create(&self, new: NewFunction) -> Result<VersionRecord, FunctionsError> {
        self.detached(|functions| async move {
            let arn = new.function.clone();
            functions.refuse_existing(&arn)?;
            let _signing = functions.signing_turn(new.code_signing.as_deref()).await?;
            functions.check_signature(&arn, new.code_signing.as_deref())?;
            functions.refuse_overfull(&arn.account, &arn.region, new.zip.len() as u64)?;
            let zip = new.zip.clone();
            let (code, pin) = functions.inner.packages.accept(new.zip).await?;
            let digest = code.digest.parse().ok();
            let publish = new.publish;
            let layers = new.settings.configuration.layers.clone();
            let _turn = functions.turn(&arn).await;
            let creation = Creation {
                function: new.function,
                settings: new.settings,
                code,
                tags: new.tags,
                publish,
                code_signing: new.code_signing,
            };
            let created = async {
                functions.refuse_existing(&arn)?;
                functions.refuse_oversized(&zip, &layers)?;
                let _pins = functions.hold_layers(&layers).await?;
                functions.commit(&arn, None, machine::create(creation, &stamp()?)).await
            };
            let created = created.await;
            drop(pin);
            if created.is_err() {
                functions.suspect(digest);
            }
            let created = created?;
            functions.settle_soon(arn);
            Ok(newest(&created, publish))
        })
        .await
    }

    /// Gives `$LATEST` other code; what served before goes on until the new package is unpacked. With `publish`, what
    /// is returned is the new version; with `dry_run`, what is there already but for the code.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn update_code(
        &self,
        function: &FunctionArn,
        update: CodeUpdate,
    ) -> Result<VersionRecord, FunctionsError> {
        let arn = function.clone();
        self.detached(|functions| async move {
            let found = functions.find(&arn)?;
            machine::check_revision(&found.snapshot, update.expected_revision.as_deref())?;
            functions.check_signature(&arn, found.attached().code_signing.as_deref())?;
            functions.refuse_overfull(&arn.account, &arn.region, update.zip.len() as u64)?;
            let zip = update.zip.clone();
            let (code, pin) = functions.inner.packages.accept(update.zip).await?;
            let digest: Option<Digest> = code.digest.parse().ok();
            let _turn = functions.turn(&arn).await;
            let updated = async {
                let now = functions.find(&arn)?;
                let expected = update.expected_revision.as_deref();
                let change = machine::update_code(
                    &now.snapshot,
                    code,
                    update.architecture,
                    update.publish,
                    expected,
                    &stamp()?,
                )?;
                functions.refuse_oversized(&zip, &now.latest().version.configuration.layers)?;
                if update.dry_run {
                    let (latest, code) = (now.latest().clone(), change.record.latest.version.code);
                    let version = FunctionVersion { code, ..latest.version };
                    return Ok(VersionRecord { version, ..latest });
                }
                let updated = functions.commit(&arn, Some(&now), change).await?;
                Ok(newest(&updated, update.publish))
            };
            let updated = updated.await;
            drop(pin);
            // Nothing may refer to the package after a failure or a dry run.
            functions.suspect(digest);
            if !update.dry_run {
                functions.settle_soon(arn);
            }
            updated
        })
        .await
    }

    /// Edits the settings of `$LATEST`; what served before goes on for a moment. `edit` may be called with the lock of
    /// the function held, so it only edits.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn update_settings(
        &self,
        function: &FunctionArn,
        expected_revision: Option<String>,
        edit: impl FnOnce(&mut Settings) + Send + 'static,
    ) -> Result<VersionRecord, FunctionsError> {
        let arn = function.clone();
        self.detached(|functions| async move {
            let _turn = functions.turn(&arn).await;
            let now = functions.find(&arn)?;
            let change =
                machine::update_settings(&now.snapshot, edit, expected_revision.as_deref(), &stamp()?)?;
            let FunctionVersion { configuration, code, .. } = &change.record.latest.version;
            let before = &now.latest().version.configuration.layers;
            if configuration.layers.iter().any(|layer| !before.contains(layer)) {
                functions.check_signature(&arn, now.attached().code_signing.as_deref())?;
            }
            if configuration.layers != *before {
                functions.refuse_oversized_with(&code.digest, &configuration.layers).await?;
            }
            let _pins = functions.hold_layers(&configuration.layers).await?;
            let updated = functions.commit(&arn, Some(&now), change).await?;
            functions.settle_soon(arn);
            Ok(updated.latest().clone())
        })
        .await
    }

    /// Publishes `$LATEST` as a version that never changes. When nothing changed since the last one, that one is
    /// returned and nothing is published.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn publish(
        &self,
        function: &FunctionArn,
        publish: Publish,
    ) -> Result<VersionRecord, FunctionsError> {
        let arn = function.clone();
        self.detached(|functions| async move {
            let _turn = functions.turn(&arn).await;
            let now = functions.find(&arn)?;
            functions.refuse_overfull(&arn.account, &arn.region, now.latest().version.code.bytes)?;
            let publication = machine::publish(
                &now.snapshot,
                publish.description,
                publish.expected_digest.as_deref(),
                publish.expected_revision.as_deref(),
                &stamp()?,
            )?;
            let (number, published) = match publication {
                Publication::Unchanged(number) => (number, now),
                Publication::Published(number, change) => {
                    let published = functions.commit(&arn, Some(&now), *change).await?;
                    functions.settle_soon(arn);
                    (number, published)
                }
            };
            let version = published.version(Version::Published(number));
            version.cloned().ok_or(FunctionsError::Refused(Refused::NoSuchVersion(number)))
        })
        .await
    }

    /// Adds tags, or replaces the values of those that are there.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn tag(
        &self,
        function: &FunctionArn,
        tags: BTreeMap<String, String>,
    ) -> Result<(), FunctionsError> {
        self.edit(function, move |now| machine::tag(now, tags)).await
    }

    /// Removes tags; those that are not there do not matter.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn untag(&self, function: &FunctionArn, keys: Vec<String>) -> Result<(), FunctionsError> {
        self.edit(function, move |now| Ok(machine::untag(now, &keys))).await
    }

    /// Adds an alias, and returns it.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn create_alias(
        &self,
        function: &FunctionArn,
        name: String,
        settings: AliasSettings,
    ) -> Result<Alias, FunctionsError> {
        self.edit_alias(function, name, |now, name, stamp| machine::create_alias(now, name, settings, stamp))
            .await
    }

    /// Changes an alias, and returns it. When this resolves, all calls go by it; one that was dealt to a version before still
    /// runs there.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn update_alias(
        &self,
        function: &FunctionArn,
        name: String,
        expected_revision: Option<String>,
        edit: impl FnOnce(&mut AliasSettings) + Send + 'static,
    ) -> Result<Alias, FunctionsError> {
        self.edit_alias(function, name, move |now, name, stamp| {
            machine::update_alias(now, name, edit, expected_revision.as_deref(), stamp)
        })
        .await
    }

    /// Removes an alias with what is attached to it; one that is not there is no error.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn delete_alias(&self, function: &FunctionArn, name: String) -> Result<(), FunctionsError> {
        self.edit(function, move |now| Ok(machine::remove_alias(now, &name))).await
    }

    /// Edits what is attached to a function. `edit` sees the function as it is, runs with its lock held, and nothing changes where it
    /// refuses; its answer is passed on.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn attach<T: Send + 'static, E: Send + 'static>(
        &self,
        function: &FunctionArn,
        edit: impl FnOnce(&mut Attached, &Function) -> Result<T, E> + Send + 'static,
    ) -> Result<Result<T, E>, FunctionsError> {
        let arn = function.clone();
        self.detached(|functions| async move {
            let _turn = functions.turn(&arn).await;
            let now = functions.find(&arn)?;
            let mut record = now.snapshot.record.clone();
            let edited = match edit(&mut record.attached, &now) {
                Ok(edited) => edited,
                Err(refused) => return Ok(Err(refused)),
            };
            if record != now.snapshot.record {
                let change = Change { record, put: BTreeMap::new(), removed: None };
                functions.commit(&arn, Some(&now), change).await?;
            }
            Ok(Ok(edited))
        })
        .await
    }

    /// The same for what changes the function's [`Attached::share`]: one at a time, so that `edit` is also told what all other
    /// functions have together, and that stays so until the change is made.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn attach_share<T: Send + 'static, E: Send + 'static>(
        &self,
        function: &FunctionArn,
        edit: impl FnOnce(&mut Attached, &Function, u64) -> Result<T, E> + Send + 'static,
    ) -> Result<Result<T, E>, FunctionsError> {
        let arn = function.clone();
        self.detached(|functions| async move {
            let _turn = functions.inner.shares.lock().await;
            let others = functions.shares(Some(&arn));
            functions.attach(&arn, move |attached, function| edit(attached, function, others)).await
        })
        .await
    }

    /// What all functions of all accounts but one have of the account's concurrency, see [`Attached::share`].
    #[must_use]
    pub fn shares(&self, but: Option<&FunctionArn>) -> u64 {
        let functions = self.inner.shown.all();
        let others = functions.iter().filter(|function| but != Some(function.arn()));
        others.map(|function| function.attached().share()).sum()
    }

    async fn edit_alias(
        &self,
        function: &FunctionArn,
        name: String,
        decide: impl FnOnce(&Snapshot, &str, &Stamp) -> Result<Change, Refused> + Send + 'static,
    ) -> Result<Alias, FunctionsError> {
        let arn = function.clone();
        self.detached(|functions| async move {
            let _turn = functions.turn(&arn).await;
            let now = functions.find(&arn)?;
            let change = decide(&now.snapshot, &name, &stamp()?)?;
            let edited = functions.commit(&arn, Some(&now), change).await?;
            let alias = edited.aliases().get(&name).cloned();
            alias.ok_or(FunctionsError::Refused(Refused::NoSuchAlias(name)))
        })
        .await
    }

    /// Removes one published version that no alias means. Its number is not used again.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn delete_version(&self, function: &FunctionArn, number: u64) -> Result<(), FunctionsError> {
        self.edit(function, move |now| machine::remove_version(now, number)).await
    }

    /// Removes the function and all its versions.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn delete(&self, function: &FunctionArn) -> Result<(), FunctionsError> {
        let arn = function.clone();
        self.detached(|functions| async move {
            let _turn = functions.turn(&arn).await;
            let now = functions.find(&arn)?;
            let expect = Expect::Revision(now.stored);
            let mut batch = vec![Write::Delete { key: stored::function_key(&arn), expect }];
            let mut versions = now.snapshot.versions.keys().map(|number| Write::Delete {
                key: stored::version_key(&now.snapshot.record, *number),
                expect: Expect::Any,
            });
            batch.extend(versions.by_ref().take(REMOVED_AT_ONCE));
            functions.inner.store.kv.batch(batch).await?;
            functions.show(&arn, None);
            // The function is gone. What is left of it, if anything fails now, goes at the next start.
            loop {
                let batch: Vec<Write> = versions.by_ref().take(REMOVED_AT_ONCE).collect();
                if batch.is_empty() {
                    return Ok(());
                }
                if let Err(error) = functions.inner.store.kv.batch(batch).await {
                    tracing::warn!(function = %arn, %error, "cannot remove the versions of a deleted function");
                    return Ok(());
                }
            }
        })
        .await
    }

    async fn edit(
        &self,
        function: &FunctionArn,
        decide: impl FnOnce(&Snapshot) -> Result<Change, Refused> + Send + 'static,
    ) -> Result<(), FunctionsError> {
        let arn = function.clone();
        self.detached(|functions| async move {
            let _turn = functions.turn(&arn).await;
            let now = functions.find(&arn)?;
            let change = decide(&now.snapshot)?;
            functions.commit(&arn, Some(&now), change).await?;
            Ok(())
        })
        .await
    }

    /// Finishes what is pending for the function, in a task of its own.
    pub(crate) fn settle_soon(&self, arn: FunctionArn) {
        let functions = self.clone();
        tokio::spawn(async move {
            if let Err(error) = functions.settle(&arn).await {
                // It stays pending, and is tried again by `maintain` and at the next start.
                tracing::error!(function = %arn, %error, "cannot finish a change of the function");
            }
        });
    }

    pub(crate) async fn settle(&self, arn: &FunctionArn) -> Result<(), FunctionsError> {
        let Some(found) = self.inner.shown.get(arn) else { return Ok(()) };
        for parts in machine::pending(&found.snapshot) {
            let outcome = match self.inner.packages.assemble(&parts).await {
                Ok(()) => Outcome::Ready,
                Err(error) => failed(arn, &error),
            };
            let _turn = self.turn(arn).await;
            let Some(now) = self.inner.shown.get(arn) else { return Ok(()) };
            if let Some(change) = machine::settle(&now.snapshot, &parts, &outcome, &stamp()?) {
                self.commit(arn, Some(&now), change).await?;
            }
        }
        Ok(())
    }

    /// Writes a change as one batch, and shows it.
    pub(crate) async fn commit(
        &self,
        arn: &FunctionArn,
        now: Option<&Function>,
        change: Change,
    ) -> Result<Arc<Function>, FunctionsError> {
        let too_large = |_| FunctionsError::TooLarge(arn.clone());
        let mut writes = vec![Write::Put {
            key: stored::function_key(arn),
            value: stored::encode(&change.record).map_err(too_large)?,
            expect: now.map_or(Expect::Absent, |now| Expect::Revision(now.stored)),
        }];
        for (number, version) in &change.put {
            let key = stored::version_key(&change.record, *number);
            let value = stored::encode_version(&change.record, version).map_err(too_large)?;
            writes.push(Write::Put { key, value, expect: Expect::Any });
        }
        if let Some(number) = change.removed {
            let key = stored::version_key(&change.record, number);
            writes.push(Write::Delete { key, expect: Expect::Any });
        }
        let oversized =
            |write: &Write| matches!(write, Write::Put { value, .. } if value.len() > MAX_VALUE_BYTES);
        if writes.iter().any(oversized) {
            return Err(FunctionsError::TooLarge(arn.clone()));
        }
        let revisions = self.inner.store.kv.batch(writes).await.map_err(|error| match error {
            StoreError::Conflict { .. } if now.is_none() => FunctionsError::Exists(arn.name.clone()),
            other => other.into(),
        })?;
        let stored = revisions.first().copied().unwrap_or_default();
        let snapshot = Snapshot::after(now.map(|now| &now.snapshot), change);
        let function =
            Arc::new(Function::new(snapshot, stored, now, &self.inner.held, |version| self.deploy(version)));
        self.show(arn, Some(&function));
        Ok(function)
    }

    fn show(&self, arn: &FunctionArn, function: Option<&Arc<Function>>) {
        let before = self.inner.shown.get(arn);
        self.inner.shown.set([(arn.clone(), function.cloned())]);
        let current: Vec<Arc<Deployment>> =
            function.iter().flat_map(|function| function.deployments.values()).cloned().collect();
        self.inner.observer.current(arn, &current);
        self.inner.observer.attached(arn, function.map(AsRef::as_ref));
        let kept = function.map(|function| function.snapshot.digests()).unwrap_or_default();
        let had = before.map(|before| before.snapshot.digests()).unwrap_or_default();
        self.suspect(had.difference(&kept).copied());
    }

    /// What runs `version`, if its package is unpacked and its layers are, too.
    pub(crate) fn deploy(&self, version: &FunctionVersion) -> Option<Arc<Deployment>> {
        let packages = &self.inner.packages;
        let code: Digest = version.code.digest.parse().ok()?;
        let opt = Parts::of(version).opt().ok()?.digest();
        if !packages.is_ready(&code) || opt.is_some_and(|opt| !packages.is_ready(&opt)) {
            return None;
        }
        let (code_dir, opt_dir) = (packages.path(&code), opt.map(|opt| packages.path(&opt)));
        let deployment = Arc::new(Deployment { version: version.clone(), code_dir, opt_dir });
        for digest in std::iter::once(code).chain(opt) {
            self.inner.garbage.in_use(digest, &deployment);
        }
        Some(deployment)
    }

    pub(crate) fn find(&self, arn: &FunctionArn) -> Result<Arc<Function>, FunctionsError> {
        self.inner.shown.get(arn).ok_or_else(|| FunctionsError::NotFound(arn.clone()))
    }

    fn refuse_existing(&self, arn: &FunctionArn) -> Result<(), FunctionsError> {
        match self.inner.shown.get(arn) {
            Some(_) => Err(FunctionsError::Exists(arn.name.clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn refuse_overfull(
        &self,
        account: &AccountId,
        region: &Region,
        more: u64,
    ) -> Result<(), FunctionsError> {
        let used = self.usage(account, region).code_bytes;
        if used + more > limits::CODE_STORAGE_BYTES { Err(FunctionsError::CodeStorage) } else { Ok(()) }
    }

    /// Waits for the turn of a function or a layer: changes of one happen one after another.
    pub(crate) async fn turn(&self, arn: &impl Hash) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        arn.hash(&mut hasher);
        self.inner.locks[(hasher.finish() % LOCKS as u64) as usize].lock().await
    }

    pub(crate) async fn detached<T, F>(&self, job: impl FnOnce(Self) -> F) -> Result<T, FunctionsError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, FunctionsError>> + Send + 'static,
    {
        tokio::spawn(job(self.clone())).await.map_err(|_| FunctionsError::Cut)?
    }
}

/// The version that a request to publish made, else `$LATEST`.
fn newest(function: &Function, published: bool) -> VersionRecord {
    let version = if published { function.versions().last() } else { None };
    version.unwrap_or_else(|| function.latest()).clone()
}

fn failed(arn: &FunctionArn, error: &(dyn std::error::Error + 'static)) -> Outcome {
    tracing::warn!(function = %arn, error, "cannot unpack the function's package");
    let refused = error
        .downcast_ref::<PackagesError>()
        .is_some_and(|error| matches!(error, PackagesError::Refused(_) | PackagesError::Missing(_)));
    let code = if refused { "InvalidZipFileException" } else { "InternalError" };
    Outcome::Failed(Reason { code: code.to_owned(), text: error.to_string() })
}

pub(crate) fn stamp() -> Result<Stamp, FunctionsError> {
    let mut seed = [0; 16];
    getrandom::fill(&mut seed).map_err(FunctionsError::Randomness)?;
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(Stamp { now: Timestamp(since_epoch.as_millis() as u64), seed })
}
