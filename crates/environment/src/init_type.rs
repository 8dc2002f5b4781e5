//! On whose behalf an environment is initialised, which functions are told.

use martlet_model::{FunctionVersion, Version, limits};
use std::time::Duration;

/// Why an environment is initialised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitType {
    /// Somebody calls, or is about to.
    #[default]
    OnDemand,
    /// It is to be kept, ahead of any call.
    Provisioned,
    /// Somebody calls, or is about to, and the version starts from a snapshot, which here is a template.
    SnapStart,
}

impl InitType {
    /// The same for an environment of `version`: a published one of a function that asks for it starts from a snapshot.
    pub(crate) fn of(self, version: &FunctionVersion) -> Self {
        match self {
            Self::OnDemand if version.configuration.snap_start && version.version != Version::Latest => {
                Self::SnapStart
            }
            other => other,
        }
    }

    /// The value of `AWS_LAMBDA_INITIALIZATION_TYPE`, and how log records spell it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Provisioned => "provisioned-concurrency",
            Self::SnapStart => "snap-start",
        }
    }

    /// How long the init phase may take: where nobody waits, long enough for large models and caches.
    pub(crate) fn limit(self, timeout: Duration) -> Duration {
        match self {
            Self::OnDemand => Duration::from_millis(limits::INIT_MILLIS),
            Self::Provisioned | Self::SnapStart => {
                timeout.max(Duration::from_millis(limits::PROVISIONED_INIT_MILLIS))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_published_versions_start_from_snapshots() {
        let init = |number, init: InitType| {
            let mut version = crate::variables::tests::version("python3.12");
            version.configuration.snap_start = true;
            version.version = number;
            init.of(&version).as_str()
        };
        assert_eq!(init(Version::Latest, InitType::OnDemand), "on-demand");
        assert_eq!(init(Version::Published(1), InitType::OnDemand), "snap-start");
        assert_eq!(init(Version::Published(1), InitType::Provisioned), "provisioned-concurrency");
    }
}
