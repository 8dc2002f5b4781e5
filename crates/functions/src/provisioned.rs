//! Which versions the environments that are to be kept are of.

use crate::attached::Target;
use crate::function::Function;
use martlet_environment::Deployment;
use martlet_model::{Qualifier, Version};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Function {
    /// What is to be kept of each version, all targets together, and can be run.
    #[must_use]
    pub fn provisioned(&self) -> Vec<(Arc<Deployment>, u32)> {
        let mut wanted: BTreeMap<Version, u32> = BTreeMap::new();
        for (target, provisioned) in &self.attached().provisioned {
            for (version, share) in self.provisioned_versions(target, provisioned.wanted) {
                *wanted.entry(version).or_default() += share;
            }
        }
        let runnable = |(version, wanted)| Some((self.deployment(version)?, wanted));
        wanted.into_iter().filter_map(runnable).collect()
    }

    /// How `wanted` environments of a target are divided among the versions that its calls run: by weight, where an alias has two.
    #[must_use]
    pub fn provisioned_versions(&self, target: &Target, wanted: u32) -> Vec<(Version, u32)> {
        match target.qualifier() {
            None | Some(Qualifier::Latest) => vec![],
            Some(Qualifier::Version(number)) => vec![(Version::Published(number), wanted)],
            Some(Qualifier::Alias(name)) => {
                let Some(alias) = self.aliases().get(&name) else { return vec![] };
                let canary = alias.canary.map(|canary| {
                    let share = (f64::from(wanted) * canary.weight).round().clamp(0.0, f64::from(wanted));
                    (Version::Published(canary.version), share as u32)
                });
                let rest = wanted - canary.map_or(0, |(_, share)| share);
                std::iter::once((alias.version, rest)).chain(canary).collect()
            }
        }
    }

    /// What an invocation of exactly this version runs; `None` while it cannot be run.
    #[must_use]
    pub fn deployment(&self, version: Version) -> Option<Arc<Deployment>> {
        self.deployments.get(&version).cloned()
    }
}
