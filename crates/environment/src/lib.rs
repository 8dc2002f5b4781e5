//! Execution environments: what starts a function version, hands it one event after another, and ends it.
//!
//! A [`Host`] starts an [`Environment`] from a [`Deployment`]: a sandbox with the function's process in it, its init phase
//! behind it. Whoever owns the environment calls [`Environment::begin`] with an event and awaits
//! [`Environment::complete`]. An environment has no task of its own: frames, log pipe, exit and deadline are all polled by
//! the task that waits for the answer, so a warm invocation wakes nobody else, and an idle environment costs nothing.
//!
//! Where the runtime allows it, the init phase runs once for all environments of a deployment: [`Host::prepare`] makes a
//! [`Template`], a process that is initialised and parked, and [`Host::fork`] forks environments from it, each in a sandbox,
//! with sockets and with a log stream of its own. A function that does not survive a fork has environments that start
//! ordinarily; [`Host::start_mode`] knows which and why.
//!
//! - **Managed runtimes** (`python3.*`, `nodejs*`) are interpreters of this machine ([`Runtimes`]) that run a bootstrap of
//!   ours, carried in this crate. It speaks with the server over a Unix socket; `runtimes/PROTOCOL.md` says how.
//! - **Provided runtimes** are executables of the package. They get the Lambda Runtime API on the sandbox's own loopback.
//!
//! What happens when is decided by a state machine without I/O (`life`); how it is told, by plain functions (`ending`,
//! `log::lines`). The function's process is trusted with nothing: frames, HTTP, log bytes and sizes are bounded and checked,
//! and whatever it does wrong ends its own environment only.
//!
//! What runs beside a runtime, or registers from inside of it, is in `extensions`.
//!
//! Functions have no identity yet, so no credentials are among their environment variables.

mod bootstraps;
mod channel;
mod ending;
mod environment;
mod extensions;
mod frame;
mod host;
mod init_type;
mod life;
mod log;
mod modes;
mod outcome;
mod process;
mod program;
mod runtime_api;
mod runtime_template;
mod runtimes;
mod stock;
mod stream;
mod template;
mod variables;

pub use environment::Environment;
pub use host::{Grant, Host, HostOptions, Prepared, StartError};
pub use init_type::InitType;
pub use modes::StartMode;
pub use outcome::{Completed, Completion, FunctionError};
pub use runtimes::{Interpreter, MissingRuntime, Places, Runtimes};
pub use stream::{Piece, ResponseSink, ResponseStream, response_stream};
pub use template::Template;
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
    /// Its layers, laid over each other; the function sees them read-only at `/opt`. `None` when it has none.
    pub opt_dir: Option<PathBuf>,
}
