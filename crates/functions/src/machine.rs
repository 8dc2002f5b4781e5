//! What may happen to a function, and what it is afterwards: decisions only, no I/O and no clock.
//!
//! Every decision takes the function as it is and returns a [`Change`], which the registry commits as one batch and
//! then shows. Ids and times come in as a [`Stamp`].

use crate::alias::{Alias, AliasSettings};
use crate::attached::{Attached, Policy, Target};
use crate::parts::Parts;
use crate::record::{FunctionRecord, Published, Reason, SCHEMA, State, Update, VersionRecord};
use martlet_model::{
    Code, Configuration, FunctionArn, FunctionVersion, Qualifier, RequestId, Timestamp, Version, limits,
};
use martlet_store::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A function with its published versions at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) record: FunctionRecord,
    pub(crate) versions: BTreeMap<u64, Arc<VersionRecord>>,
}

/// What a decision writes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) record: FunctionRecord,
    /// Published versions that are new or have another state.
    pub(crate) put: BTreeMap<u64, VersionRecord>,
    /// A published version that is gone.
    pub(crate) removed: Option<u64>,
}

/// The time of one decision, and the randomness from which it makes its ids.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    pub(crate) now: Timestamp,
    pub(crate) seed: [u8; 16],
}

impl Stamp {
    /// A UUID; another one for each version that the decision is about.
    pub(crate) fn id(&self, of: Version) -> String {
        let salt = match of {
            Version::Latest => 0,
            Version::Published(number) => number,
        };
        let mut seed = [0; 24];
        seed[..16].copy_from_slice(&self.seed);
        seed[16..].copy_from_slice(&salt.to_le_bytes());
        let mut random = [0; 16];
        random.copy_from_slice(&Digest::of(&seed).as_bytes()[..16]);
        RequestId::from_random(random).as_str().to_owned()
    }
}

/// Why a function does not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is still being created, or its creation failed.
    #[error("the function is in the state {0}")]
    NotActive(&'static str),
    /// An update is under way.
    #[error("an update of {0} is in progress")]
    UpdateInProgress(FunctionArn),
    /// The revision id that the caller expects is not the present one.
    #[error("the revision id is another one")]
    Revision,
    /// The digest of the code that the caller expects is not the present one, which this holds.
    #[error("the code has the digest {0}")]
    CodeDigest(String),
    /// There is no such published version.
    #[error("version {0} does not exist")]
    NoSuchVersion(u64),
    /// Aliases mean this version.
    #[error("version {0} is referenced by the aliases {1:?}")]
    Referenced(u64, Vec<String>),
    /// There is no such alias.
    #[error("the alias {0} does not exist")]
    NoSuchAlias(String),
    /// There is one of this name already.
    #[error("the alias {0} exists already")]
    AliasExists(String),
    /// An alias means one version twice.
    #[error("version {0} is already included in the alias")]
    SameVersionTwice(u64),
    /// An alias with two versions cannot have `$LATEST`.
    #[error("$LATEST is not supported for an alias with two versions")]
    LatestWithCanary,
    /// The two versions of an alias differ in what has to be the same for both: execution roles or dead-letter targets.
    #[error("versions {0} and {1} have different {2}")]
    Unlike(u64, u64, &'static str),
    /// More aliases than a function may have.
    #[error("the function would have more than {limit} aliases", limit = limits::ALIASES)]
    TooManyAliases,
    /// More tags than a function may have.
    #[error("the function would have more than {limit} tags", limit = limits::TAGS)]
    TooManyTags,
}

/// A function to be.
#[derive(Clone, Debug)]
pub(crate) struct Creation {
    pub(crate) function: FunctionArn,
    pub(crate) settings: Settings,
    pub(crate) code: Code,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) publish: bool,
    pub(crate) code_signing: Option<String>,
}

/// The part of a version that its owner configures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How it runs.
    pub configuration: Configuration,
    /// See [`VersionRecord::environment_given`].
    pub environment_given: bool,
}

/// How unpacking a version's package went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ready,
    Failed(Reason),
}

/// What asking for a version came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Publication {
    /// Nothing changed since this version, which still exists.
    Unchanged(u64),
    Published(u64, Box<Change>),
}

pub(crate) fn create(creation: Creation, stamp: &Stamp) -> Change {
    let id = stamp.id(Version::Latest);
    let latest = VersionRecord {
        version: FunctionVersion {
            function: creation.function,
            version: Version::Latest,
            configuration: creation.settings.configuration,
            code: creation.code,
            revision: id.clone(),
        },
        revision_id: id,
        modified: stamp.now,
        state: State::Pending,
        update: None,
        environment_given: creation.settings.environment_given,
    };
    let record = FunctionRecord {
        schema: SCHEMA,
        incarnation: latest.revision_id.clone(),
        latest,
        serving: None,
        next_version: 1,
        last_published: None,
        tags: creation.tags,
        aliases: BTreeMap::new(),
        attached: Attached { code_signing: creation.code_signing, ..Attached::default() },
    };
    let change = Change { record, put: BTreeMap::new(), removed: None };
    if creation.publish { publish_into(change, None, stamp).1 } else { change }
}

pub(crate) fn update_code(
    now: &Snapshot,
    code: Code,
    architecture: Option<String>,
    publish: bool,
    expected: Option<&str>,
    stamp: &Stamp,
) -> Result<Change, Refused> {
    let mut change = begin_update(now, expected, stamp)?;
    change.record.latest.version.code = code;
    if let Some(architecture) = architecture {
        change.record.latest.version.configuration.architecture = architecture;
    }
    Ok(if publish { publish_into(change, None, stamp).1 } else { change })
}

pub(crate) fn update_settings(
    now: &Snapshot,
    edit: impl FnOnce(&mut Settings),
    expected: Option<&str>,
    stamp: &Stamp,
) -> Result<Change, Refused> {
    let mut change = begin_update(now, expected, stamp)?;
    let latest = &mut change.record.latest;
    let mut settings = Settings {
        configuration: latest.version.configuration.clone(),
        environment_given: latest.environment_given,
    };
    edit(&mut settings);
    latest.version.configuration = settings.configuration;
    latest.environment_given = settings.environment_given;
    Ok(change)
}

/// Checks that an update may begin, and marks it as begun. What served before goes on serving.
fn begin_update(now: &Snapshot, expected: Option<&str>, stamp: &Stamp) -> Result<Change, Refused> {
    check_idle(now)?;
    check_revision(now, expected)?;
    let mut record = now.record.clone();
    // After an update that failed, the one before it still serves and goes on to.
    if record.serving.is_none() && record.latest.state == State::Active {
        record.serving = Some(record.latest.version.clone());
    }
    let id = stamp.id(Version::Latest);
    record.latest.version.revision.clone_from(&id);
    record.latest.revision_id = id;
    record.latest.modified = stamp.now;
    record.latest.update = Some(Update::InProgress);
    Ok(Change { record, put: BTreeMap::new(), removed: None })
}

/// Nothing is being created or updated.
fn check_idle(now: &Snapshot) -> Result<(), Refused> {
    let latest = &now.record.latest;
    if latest.state == State::Pending {
        return Err(Refused::NotActive("Pending"));
    }
    if latest.update == Some(Update::InProgress) {
        return Err(Refused::UpdateInProgress(latest.version.function.clone()));
    }
    Ok(())
}

pub(crate) fn check_revision(now: &Snapshot, expected: Option<&str>) -> Result<(), Refused> {
    match expected {
        Some(expected) if expected != now.record.latest.revision_id => Err(Refused::Revision),
        _ => Ok(()),
    }
}

pub(crate) fn publish(
    now: &Snapshot,
    description: Option<String>,
    expected_digest: Option<&str>,
    expected_revision: Option<&str>,
    stamp: &Stamp,
) -> Result<Publication, Refused> {
    check_idle(now)?;
    if let State::Failed(_) = now.record.latest.state {
        return Err(Refused::NotActive("Failed"));
    }
    check_revision(now, expected_revision)?;
    let latest = &now.record.latest;
    if expected_digest.is_some_and(|digest| digest != latest.version.code.digest) {
        return Err(Refused::CodeDigest(latest.version.code.digest.clone()));
    }
    if let Some(last) = &now.record.last_published
        && last.fingerprint == fingerprint(&latest.version)
        && now.versions.contains_key(&last.number)
    {
        return Ok(Publication::Unchanged(last.number));
    }
    let mut change = Change { record: now.record.clone(), put: BTreeMap::new(), removed: None };
    // Publishing shows on $LATEST as a new revision id, though nothing that runs has changed.
    change.record.latest.revision_id = stamp.id(Version::Latest);
    let (number, change) = publish_into(change, description, stamp);
    Ok(Publication::Published(number, Box::new(change)))
}

/// Adds a version with the content of `$LATEST`, in the state of `$LATEST`'s package.
fn publish_into(mut change: Change, description: Option<String>, stamp: &Stamp) -> (u64, Change) {
    let record = &mut change.record;
    let number = record.next_version;
    record.next_version += 1;
    record.last_published = Some(Published { number, fingerprint: fingerprint(&record.latest.version) });
    let ready = is_ready(&record.latest);
    let mut version = record.latest.clone();
    version.version.version = Version::Published(number);
    version.version.revision = stamp.id(version.version.version);
    version.revision_id.clone_from(&version.version.revision);
    if let Some(description) = description {
        version.version.configuration.description = description;
    }
    version.state = if ready { State::Active } else { State::Pending };
    version.update = ready.then_some(Update::Successful);
    change.put.insert(number, version);
    (number, change)
}

/// Ends what is pending, be it a creation, an update or a published version. `None` when nothing is.
///
/// `parts` is what `outcome` is about: versions that are made of others are left as they are.
pub(crate) fn settle(now: &Snapshot, parts: &Parts, outcome: &Outcome, stamp: &Stamp) -> Option<Change> {
    let mut change = Change { record: now.record.clone(), put: BTreeMap::new(), removed: None };
    let mut changed = false;
    let latest = &mut change.record.latest;
    if is_pending(latest) && Parts::of(&latest.version) == *parts {
        changed = true;
        latest.revision_id = stamp.id(Version::Latest);
        match (outcome, latest.state == State::Pending) {
            (Outcome::Ready, _) => {
                latest.state = State::Active;
                latest.update = Some(Update::Successful);
                change.record.serving = None;
            }
            (Outcome::Failed(reason), true) => {
                latest.state = State::Failed(reason.clone());
                latest.update = Some(Update::Failed(reason.clone()));
            }
            (Outcome::Failed(reason), false) => latest.update = Some(Update::Failed(reason.clone())),
        }
    }
    for (number, version) in &now.versions {
        if version.state == State::Pending && Parts::of(&version.version) == *parts {
            changed = true;
            let mut version = VersionRecord::clone(version);
            version.revision_id = stamp.id(Version::Published(*number));
            (version.state, version.update) = match outcome {
                Outcome::Ready => (State::Active, Some(Update::Successful)),
                Outcome::Failed(reason) => {
                    (State::Failed(reason.clone()), Some(Update::Failed(reason.clone())))
                }
            };
            change.put.insert(*number, version);
        }
    }
    changed.then_some(change)
}

/// What something is waiting for.
pub(crate) fn pending(now: &Snapshot) -> Vec<Parts> {
    let versions = now.versions.values().map(AsRef::as_ref).filter(|v| v.state == State::Pending);
    let latest = Some(&now.record.latest).filter(|latest| is_pending(latest));
    let mut parts: Vec<Parts> = versions.chain(latest).map(|v| Parts::of(&v.version)).collect();
    parts.sort();
    parts.dedup();
    parts
}

fn is_pending(latest: &VersionRecord) -> bool {
    latest.state == State::Pending || latest.update == Some(Update::InProgress)
}

/// The package of `$LATEST` as it is now is unpacked.
fn is_ready(latest: &VersionRecord) -> bool {
    latest.state == State::Active && latest.update == Some(Update::Successful)
}

pub(crate) fn remove_version(now: &Snapshot, number: u64) -> Result<Change, Refused> {
    if !now.versions.contains_key(&number) {
        return Err(Refused::NoSuchVersion(number));
    }
    let means = |alias: &Alias| alias.versions().any(|version| version == Version::Published(number));
    let aliases: Vec<String> =
        now.record.aliases.iter().filter(|(_, alias)| means(alias)).map(|(name, _)| name.clone()).collect();
    if !aliases.is_empty() {
        return Err(Refused::Referenced(number, aliases));
    }
    let mut record = now.record.clone();
    record.attached.forget(&Target::of(Some(&Qualifier::Version(number))));
    Ok(Change { record, put: BTreeMap::new(), removed: Some(number) })
}

pub(crate) fn create_alias(
    now: &Snapshot,
    name: &str,
    settings: AliasSettings,
    stamp: &Stamp,
) -> Result<Change, Refused> {
    if now.record.aliases.contains_key(name) {
        return Err(Refused::AliasExists(name.to_owned()));
    }
    if now.record.aliases.len() >= limits::ALIASES {
        return Err(Refused::TooManyAliases);
    }
    put_alias(now, name, settings, stamp)
}

/// Changes an alias; from the commit on every call of it goes by what it is then.
pub(crate) fn update_alias(
    now: &Snapshot,
    name: &str,
    edit: impl FnOnce(&mut AliasSettings),
    expected: Option<&str>,
    stamp: &Stamp,
) -> Result<Change, Refused> {
    let alias = now.record.aliases.get(name).ok_or_else(|| Refused::NoSuchAlias(name.to_owned()))?;
    if expected.is_some_and(|expected| expected != alias.revision_id) {
        return Err(Refused::Revision);
    }
    let mut settings = AliasSettings {
        version: alias.version,
        canary: alias.canary,
        description: alias.description.clone(),
    };
    edit(&mut settings);
    put_alias(now, name, settings, stamp)
}

/// What is attached to it goes with it. One that is not there is removed already.
pub(crate) fn remove_alias(now: &Snapshot, name: &str) -> Change {
    let mut record = now.record.clone();
    record.aliases.remove(name);
    record.attached.forget(&Target::of(Some(&Qualifier::Alias(name.to_owned()))));
    Change { record, put: BTreeMap::new(), removed: None }
}

fn put_alias(now: &Snapshot, name: &str, settings: AliasSettings, stamp: &Stamp) -> Result<Change, Refused> {
    let AliasSettings { version, canary, description } = settings;
    let alias = Alias { version, canary, description, revision_id: stamp.id(Version::Latest) };
    let published = |number| now.versions.get(&number).ok_or(Refused::NoSuchVersion(number));
    let main = match version {
        Version::Latest => None,
        Version::Published(number) => Some((number, published(number)?)),
    };
    if let Some(canary) = canary {
        let Some((number, main)) = main else { return Err(Refused::LatestWithCanary) };
        if number == canary.version {
            return Err(Refused::SameVersionTwice(number));
        }
        let (one, other) = (&main.version.configuration, &published(canary.version)?.version.configuration);
        if one.role != other.role {
            return Err(Refused::Unlike(number, canary.version, "execution roles"));
        }
        if one.dead_letter != other.dead_letter {
            return Err(Refused::Unlike(number, canary.version, "dead-letter targets"));
        }
    }
    let mut record = now.record.clone();
    record.aliases.insert(name.to_owned(), alias);
    Ok(Change { record, put: BTreeMap::new(), removed: None })
}

/// The id for preconditions of what `target` names; `None` when there is no such version or alias.
pub(crate) fn revision_of<'s>(now: &'s Snapshot, target: &Target) -> Option<&'s str> {
    Some(match target.qualifier() {
        None | Some(Qualifier::Latest) => &now.record.latest.revision_id,
        Some(Qualifier::Version(number)) => &now.versions.get(&number)?.revision_id,
        Some(Qualifier::Alias(name)) => &now.record.aliases.get(&name)?.revision_id,
    })
}

/// Gives what `target` names another policy, or none, and with it another revision id: nothing that runs has changed.
pub(crate) fn put_policy(
    now: &Snapshot,
    target: &Target,
    policy: Option<Policy>,
    stamp: &Stamp,
) -> Result<Change, Refused> {
    let mut change = Change { record: now.record.clone(), put: BTreeMap::new(), removed: None };
    let id = stamp.id(Version::Latest);
    match target.qualifier() {
        None | Some(Qualifier::Latest) => change.record.latest.revision_id = id,
        Some(Qualifier::Version(number)) => {
            let version = now.versions.get(&number).ok_or(Refused::NoSuchVersion(number))?;
            change.put.insert(number, VersionRecord { revision_id: id, ..VersionRecord::clone(version) });
        }
        Some(Qualifier::Alias(name)) => match change.record.aliases.get_mut(&name) {
            Some(alias) => alias.revision_id = id,
            None => return Err(Refused::NoSuchAlias(name)),
        },
    }
    match policy {
        Some(policy) => drop(change.record.attached.policies.insert(target.clone(), policy)),
        None => drop(change.record.attached.policies.remove(target)),
    }
    Ok(change)
}

pub(crate) fn tag(now: &Snapshot, tags: BTreeMap<String, String>) -> Result<Change, Refused> {
    let mut record = now.record.clone();
    record.tags.extend(tags);
    if record.tags.len() > limits::TAGS {
        return Err(Refused::TooManyTags);
    }
    Ok(Change { record, put: BTreeMap::new(), removed: None })
}

pub(crate) fn untag(now: &Snapshot, keys: &[String]) -> Change {
    let mut record = now.record.clone();
    record.tags.retain(|key, _| !keys.contains(key));
    Change { record, put: BTreeMap::new(), removed: None }
}

impl Snapshot {
    /// The function after a change.
    pub(crate) fn after(now: Option<&Self>, change: Change) -> Self {
        let mut versions = now.map(|now| now.versions.clone()).unwrap_or_default();
        versions.extend(change.put.into_iter().map(|(number, version)| (number, Arc::new(version))));
        if let Some(number) = change.removed {
            versions.remove(&number);
        }
        Self { record: change.record, versions }
    }

    /// What an invocation of `$LATEST` runs: `None` until the first package is ready.
    pub(crate) fn serving(&self) -> Option<&FunctionVersion> {
        let latest = &self.record.latest;
        self.record.serving.as_ref().or(is_ready(latest).then_some(&latest.version))
    }

    /// What its versions are made of, whether or not they can be invoked.
    pub(crate) fn parts(&self) -> BTreeSet<Parts> {
        let versions = self.versions.values().map(|version| &version.version);
        let latest = [Some(&self.record.latest.version), self.record.serving.as_ref()];
        versions.chain(latest.into_iter().flatten()).map(Parts::of).collect()
    }

    /// Everything on disk that something of the function refers to.
    pub(crate) fn digests(&self) -> BTreeSet<Digest> {
        self.parts().iter().flat_map(Parts::digests).collect()
    }
}

/// Equal for two versions that run the same: the digest of code and configuration. Which number, revision or
/// function they have does not enter.
pub(crate) fn fingerprint(version: &FunctionVersion) -> String {
    // A configuration is plain data, which always serialises.
    let content = serde_json::to_vec(&(&version.code, &version.configuration)).unwrap_or_default();
    Digest::of(&content).to_string()
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
