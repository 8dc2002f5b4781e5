//! One function as the picture in memory shows it.

use crate::alias::{Alias, Dealer};
use crate::attached::{self, Attached, Target};
use crate::held::Held;
use crate::machine::{self, Snapshot};
use crate::record::VersionRecord;
use crate::registry::Unresolved;
use martlet_environment::Deployment;
use martlet_identity::Policy;
use martlet_model::{FunctionArn, FunctionVersion, Qualifier, Version};
use martlet_store::Revision;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A function at one moment: immutable, and replaced whole when something changes.
#[derive(Debug)]
pub struct Function {
    pub(crate) snapshot: Snapshot,
    /// The revision of its record in the store.
    pub(crate) stored: Revision,
    /// What can be invoked, by version.
    pub(crate) deployments: BTreeMap<Version, Arc<Deployment>>,
    /// Who deals the calls of each alias; the same for as long as the alias exists.
    dealers: BTreeMap<String, Arc<Dealer>>,
    /// The policies, ready to be asked.
    policies: BTreeMap<Target, Arc<Policy>>,
    held: Held,
}

impl Function {
    /// Makes the picture of `snapshot`. A deployment that `before` has stays the same one, by address.
    pub(crate) fn new(
        snapshot: Snapshot,
        stored: Revision,
        before: Option<&Self>,
        held: &Held,
        deploy: impl Fn(&FunctionVersion) -> Option<Arc<Deployment>>,
    ) -> Self {
        let active = snapshot.versions.values().filter(|v| v.state == crate::State::Active);
        let runnable = active.map(|v| (v.version.version, &v.version));
        let latest = snapshot.serving().map(|version| (Version::Latest, version));
        let mut deployments = BTreeMap::new();
        for (key, version) in runnable.chain(latest) {
            let same = before
                .and_then(|before| before.deployments.get(&key))
                .filter(|deployment| deployment.version == *version);
            if let Some(deployment) = same.map(Arc::clone).or_else(|| deploy(version)) {
                deployments.insert(key, deployment);
            }
        }
        let dealer = |name: &String| {
            let same = before.and_then(|before| before.dealers.get(name));
            (name.clone(), same.cloned().unwrap_or_default())
        };
        let dealers = snapshot.record.aliases.keys().map(dealer).collect();
        let policies = snapshot.record.attached.policies.iter();
        let policies =
            policies.map(|(target, kept)| (target.clone(), Arc::new(read(&snapshot, kept)))).collect();
        Self { snapshot, stored, deployments, dealers, policies, held: held.clone() }
    }

    /// Its identity.
    #[must_use]
    pub fn arn(&self) -> &FunctionArn {
        &self.latest().version.function
    }

    /// `$LATEST` as it was last configured, whether or not that serves already.
    #[must_use]
    pub fn latest(&self) -> &VersionRecord {
        &self.snapshot.record.latest
    }

    /// One version, if it exists.
    #[must_use]
    pub fn version(&self, version: Version) -> Option<&VersionRecord> {
        match version {
            Version::Latest => Some(self.latest()),
            Version::Published(number) => self.snapshot.versions.get(&number).map(AsRef::as_ref),
        }
    }

    /// `$LATEST` and the published versions, in the order of their numbers.
    pub fn versions(&self) -> impl Iterator<Item = &VersionRecord> {
        std::iter::once(self.latest()).chain(self.snapshot.versions.values().map(AsRef::as_ref))
    }

    /// Its aliases, by name.
    #[must_use]
    pub fn aliases(&self) -> &BTreeMap<String, Alias> {
        &self.snapshot.record.aliases
    }

    /// What is attached to it and to its qualifiers.
    #[must_use]
    pub fn attached(&self) -> &Attached {
        &self.snapshot.record.attached
    }

    /// What runs a call of it: see [`crate::Functions::resolve`].
    ///
    /// # Errors
    /// There is nothing to run.
    pub fn resolve(&self, qualifier: Option<&Qualifier>) -> Result<Arc<Deployment>, Unresolved> {
        let not_found = || Unresolved::of(self.arn(), qualifier);
        let version = match qualifier {
            None | Some(Qualifier::Latest) => Version::Latest,
            Some(Qualifier::Version(number)) => Version::Published(*number),
            Some(Qualifier::Alias(name)) => self.deal(name).ok_or_else(not_found)?,
        };
        if let Some(deployment) = self.deployments.get(&version) {
            self.held.check(self.attached(), &deployment.version)?;
            return Ok(Arc::clone(deployment));
        }
        match &self.version(version).ok_or_else(not_found)?.state {
            crate::State::Failed(_) => Err(Unresolved::NotActive("Failed")),
            // Active without a deployment: its folder is being made again.
            crate::State::Pending | crate::State::Active => Err(Unresolved::NotActive("Pending")),
        }
    }

    /// The policy for calls by this qualifier; that of the function counts for none of its versions and aliases.
    #[must_use]
    pub fn policy(&self, qualifier: Option<&Qualifier>) -> Option<&Policy> {
        if self.policies.is_empty() {
            return None;
        }
        self.policies.get(&Target::of(qualifier)).map(AsRef::as_ref)
    }

    /// The id for preconditions of the function (which is that of `$LATEST`), a version or an alias; `None` when there is none
    /// such.
    #[must_use]
    pub fn revision_id(&self, qualifier: Option<&Qualifier>) -> Option<&str> {
        machine::revision_of(&self.snapshot, &Target::of(qualifier))
    }

    /// The version that one call of the alias runs; by turns where it has two. `None` when there is no such alias.
    #[must_use]
    pub fn deal(&self, alias: &str) -> Option<Version> {
        Some(self.dealers.get(alias)?.deal(self.aliases().get(alias)?))
    }

    /// The version that a call runs which was dealt one a while ago: that one, unless it called an alias that has moved away from it
    /// since. `None` when there is no such alias any more.
    #[must_use]
    pub fn standing(&self, qualifier: Option<&Qualifier>, dealt: Version) -> Option<Version> {
        let Some(Qualifier::Alias(name)) = qualifier else { return Some(dealt) };
        let alias = self.aliases().get(name)?;
        Some(if alias.versions().any(|version| version == dealt) { dealt } else { alias.version })
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> &BTreeMap<String, String> {
        &self.snapshot.record.tags
    }
}

/// A policy was understood before it was kept; one that is not any more lets nobody in.
fn read(snapshot: &Snapshot, kept: &attached::Policy) -> Policy {
    Policy::of(&kept.statements).unwrap_or_else(|error| {
        let function = &snapshot.record.latest.version.function;
        tracing::error!(%function, %error, "a resource policy cannot be read; it denies everything");
        Policy::denying()
    })
}
