//! What can go wrong with telemetry.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

/// Why telemetry could not be opened, written or read. Cheap to clone.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The database refused or failed.
    #[error("telemetry failed to {step}")]
    Engine {
        /// What was being done.
        step: &'static str,
        /// What the engine said.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The data was written by a newer Martlet whose format this one does not know.
    #[error("{} has format {found}, this version knows up to {known}: start it with the newer martlet", path.display())]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The format number in the file.
        found: u32,
        /// The newest format number known here.
        known: u32,
    },
    /// There is no such log group.
    #[error("there is no log group {0}")]
    NoSuchGroup(String),
    /// There is no such log stream in the group.
    #[error("there is no log stream {0}")]
    NoSuchStream(String),
    /// The telemetry was closed meanwhile.
    #[error("telemetry is closed")]
    Closed,
}

impl From<martlet_sqlite::ReadError> for TelemetryError {
    fn from(error: martlet_sqlite::ReadError) -> Self {
        match error {
            martlet_sqlite::ReadError::Engine { step, source } => Self::at(step)(source),
            martlet_sqlite::ReadError::Closed => Self::Closed,
        }
    }
}

impl TelemetryError {
    /// Wraps what failed at `step`.
    pub(crate) fn at(step: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Engine { step, source: Arc::new(source) }
    }
}
