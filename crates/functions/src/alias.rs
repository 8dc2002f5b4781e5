//! Aliases: names for versions, which an owner can move.

use martlet_model::Version;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alias {
    /// The version that it means.
    pub version: Version,
    /// Another one, which gets a share of the calls.
    pub canary: Option<Canary>,
    /// Free text.
    pub description: String,
    /// The id for preconditions; another one after each change.
    pub revision_id: String,
}

/// The second version of an alias.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// Its number.
    pub version: u64,
    /// Its share of the calls, 0 to 1.
    pub weight: f64,
}

/// What of an alias its owner says.
#[derive(Clone, Debug, PartialEq)]
pub struct AliasSettings {
    /// See [`Alias::version`].
    pub version: Version,
    /// See [`Alias::canary`].
    pub canary: Option<Canary>,
    /// See [`Alias::description`].
    pub description: String,
}

impl Alias {
    /// The versions that calls of it may run.
    pub fn versions(&self) -> impl Iterator<Item = Version> {
        std::iter::once(self.version).chain(self.canary.map(|canary| Version::Published(canary.version)))
    }
}

/// Deals the calls of an alias to its two versions. The n-th call goes by the fractional part of n times the golden ratio, which
/// fills the unit interval as evenly as any sequence does: the split is exact within a few calls over any stretch of them, with no
/// draw from a generator.
#[derive(Debug, Default)]
pub(crate) struct Dealer(AtomicU64);

impl Dealer {
    /// 2^64 divided by the golden ratio.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The version for one more call.
    pub(crate) fn deal(&self, alias: &Alias) -> Version {
        let Some(canary) = alias.canary else { return alias.version };
        let turn = self.0.fetch_add(Self::STEP, Ordering::Relaxed).wrapping_add(Self::STEP);
        // The 53 upper bits, as a number from 0 to 1.
        let drawn = (turn >> 11) as f64 / (1_u64 << 53) as f64;
        if drawn < canary.weight { Version::Published(canary.version) } else { alias.version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_dealt_by_weight() {
        for weight in [0.0, 0.01, 0.1, 0.25, 0.5, 0.9, 1.0] {
            let alias = Alias {
                version: Version::Published(1),
                canary: Some(Canary { version: 2, weight }),
                description: String::new(),
                revision_id: String::new(),
            };
            let dealer = Dealer::default();
            for calls in [100, 1000, 10_000] {
                let canaries = (0..calls).filter(|_| dealer.deal(&alias) == Version::Published(2)).count();
                let wanted = weight * f64::from(calls);
                assert!((canaries as f64 - wanted).abs() <= 3.0, "{canaries} of {calls} at {weight}");
            }
        }
    }
}
