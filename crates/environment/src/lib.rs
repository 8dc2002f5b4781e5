//! Execution environments: what starts a function version, hands it one event after another, and ends it.

mod bootstraps;
mod channel;
mod ending;
mod environment;
mod frame;
mod host;
mod life;
mod log;
mod outcome;
mod process;
mod runtime_api;
mod runtimes;
mod variables;

pub use environment::Environment;
pub use host::{Host, HostOptions, StartError};
pub use outcome::{Completed, Completion, FunctionError};
pub use runtimes::{Interpreter, MissingRuntime, Places, Runtimes};
pub use variables::is_reserved;

use martlet_model::FunctionVersion;
use std::path::PathBuf;

/// What an environment is started from. Immutable, and shared as an `Arc` by all environments of the version.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// The version to run.
    pub version: FunctionVersion,
    /// The unpacked package; the function sees it read-only at `/var/task`.
    pub code_dir: PathBuf,
}
