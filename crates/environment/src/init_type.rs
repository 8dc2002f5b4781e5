//! On whose behalf an environment is initialised, which functions are told.

use martlet_model::limits;
use std::time::Duration;

/// Why an environment is initialised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitType {
    /// Somebody calls, or is about to.
    #[default]
    OnDemand,
    /// It is to be kept, ahead of any call.
    Provisioned,
}

impl InitType {
    /// The value of `AWS_LAMBDA_INITIALIZATION_TYPE`, and how log records spell it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Provisioned => "provisioned-concurrency",
        }
    }

    /// How long the init phase may take: where nobody waits, long enough for large models and caches.
    pub(crate) fn limit(self, timeout: Duration) -> Duration {
        match self {
            Self::OnDemand => Duration::from_millis(limits::INIT_MILLIS),
            Self::Provisioned => timeout.max(Duration::from_millis(limits::PROVISIONED_INIT_MILLIS)),
        }
    }
}
