//! Layers: packages that functions are given beside their own, in versions that never change.
//!
//! A layer is known by its latest number, which only grows, and by the versions that are left. A function that uses a version
//! has all that it needs of it in its own configuration, so the version can be deleted meanwhile.

mod policy;
mod registry;

pub use policy::{LayerPolicy, LayerPolicyRefused, LayerStatement};
pub use registry::NewLayerVersion;

use martlet_model::{AccountId, Code, Layer, LayerArn, LayerVersionArn, Region, Timestamp};
use martlet_store::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

/// One version of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerVersion {
    /// Its identity.
    pub arn: LayerVersionArn,
    /// Its zip file.
    pub code: Code,
    /// Size of its files together, in bytes.
    pub unpacked_bytes: u64,
    /// When it was published.
    pub created: Timestamp,
    /// What its publisher says about it.
    #[serde(flatten)]
    pub about: LayerAbout,
    /// Who else may use it.
    #[serde(default)]
    pub policy: LayerPolicy,
}

/// What its publisher says about a version; lists can be filtered by runtime and architecture, running asks for neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerAbout {
    /// Free text.
    pub description: String,
    /// Its licence, if that was said.
    pub license: Option<String>,
    /// Runtimes that it is for, if that was said.
    pub runtimes: Option<Vec<String>>,
    /// Architectures that it is for, if that was said.
    pub architectures: Option<Vec<String>>,
}

impl LayerVersion {
    /// It, as a function refers to it.
    #[must_use]
    pub fn layer(&self) -> Layer {
        Layer { arn: self.arn.clone(), code: self.code.clone(), unpacked_bytes: self.unpacked_bytes }
    }

    /// Whether it was said to be for both; for anything where nothing was said of it, it is not.
    #[must_use]
    pub fn is_for(&self, runtime: Option<&str>, architecture: Option<&str>) -> bool {
        let said = |asked: Option<&str>, all: &Option<Vec<String>>| {
            asked.is_none_or(|asked| all.as_ref().is_some_and(|all| all.iter().any(|one| one == asked)))
        };
        said(runtime, &self.about.runtimes) && said(architecture, &self.about.architectures)
    }
}

/// What is kept of a layer beside its versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbers {
    /// The number that was given out last.
    pub(crate) last: u64,
}

#[derive(Clone, Debug, Default)]
struct Known {
    numbers: Numbers,
    versions: BTreeMap<u64, Arc<LayerVersion>>,
}

/// All layers at this moment.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    known: RwLock<BTreeMap<LayerArn, Known>>,
}

impl Layers {
    fn version(&self, arn: &LayerVersionArn) -> Option<Arc<LayerVersion>> {
        self.read(|known| known.get(&arn.layer)?.versions.get(&arn.version).cloned())
    }

    /// The versions of a layer, by number.
    fn versions(&self, layer: &LayerArn) -> Vec<Arc<LayerVersion>> {
        self.read(|known| known.get(layer).map(|known| known.versions.values().cloned().collect()))
            .unwrap_or_default()
    }

    fn last(&self, layer: &LayerArn) -> u64 {
        self.read(|known| known.get(layer).map_or(0, |known| known.numbers.last))
    }

    /// The layers of an account in a region that have versions, by name.
    fn list(&self, account: &AccountId, region: &Region) -> Vec<Vec<Arc<LayerVersion>>> {
        let versions = |known: &Known| known.versions.values().cloned().collect::<Vec<_>>();
        self.read(|known| {
            let own = known.iter().filter(|(arn, _)| arn.account == *account && arn.region == *region);
            own.map(|(_, known)| versions(known)).filter(|versions| !versions.is_empty()).collect()
        })
    }

    /// Bytes of the zip files of an account in a region.
    pub(crate) fn code_bytes(&self, account: &AccountId, region: &Region) -> u64 {
        self.list(account, region).iter().flatten().map(|version| version.code.bytes).sum()
    }

    pub(crate) fn refer_to(&self, digest: &Digest) -> bool {
        let digest = digest.to_string();
        self.read(|known| {
            known.values().flat_map(|known| known.versions.values()).any(|v| v.code.digest == digest)
        })
    }

    pub(crate) fn digests(&self) -> BTreeSet<Digest> {
        self.read(|known| {
            let versions = known.values().flat_map(|known| known.versions.values());
            versions.filter_map(|version| version.code.digest.parse().ok()).collect()
        })
    }

    fn set_numbers(&self, layer: &LayerArn, numbers: Numbers) {
        self.write(|known| known.entry(layer.clone()).or_default().numbers = numbers);
    }

    fn set(&self, version: Arc<LayerVersion>) {
        let (layer, number) = (version.arn.layer.clone(), version.arn.version);
        self.write(|known| drop(known.entry(layer).or_default().versions.insert(number, version)));
    }

    fn remove(&self, arn: &LayerVersionArn) {
        self.write(|known| known.get_mut(&arn.layer).and_then(|known| known.versions.remove(&arn.version)));
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<LayerArn, Known>) -> T) -> T {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut BTreeMap<LayerArn, Known>) -> T) -> T {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner))
    }
}
