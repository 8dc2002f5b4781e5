//! What starts environments.

use crate::bootstraps::Compiled;
use crate::environment::Environment;
use crate::process::{LaunchFailure, Plan, Process, Program};
use crate::runtimes::{MissingRuntime, Runtimes};
use crate::{Deployment, log};
use martlet_model::{RuntimeFamily, Timestamp};
use martlet_sandbox::{LaunchError, Launcher};
use martlet_telemetry::{Clock, Telemetry};
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

/// What all environments of a host have in common.
#[derive(Clone)]
pub struct HostOptions {
    /// The time of day, for log lines and deadlines.
    pub clock: Clock,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self { clock: martlet_telemetry::system_clock() }
    }
}

/// Starts environments on this machine. Shared as an `Arc` by everything that needs one.
pub struct Host {
    launcher: Launcher,
    runtimes: Runtimes,
    telemetry: Telemetry,
    clock: Clock,
    compiled: Compiled,
}

/// Why the platform could not start an environment. A function whose init code fails is no such error.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No interpreter of this machine serves the function's runtime.
    #[error(transparent)]
    Runtime(MissingRuntime),
    /// The sandbox could not be made.
    #[error("could not make a sandbox for the function")]
    Sandbox(#[source] LaunchError),
    /// The pipes and sockets to the sandbox could not be made.
    #[error("could not make the pipes and sockets to the function's sandbox")]
    Descriptors(#[source] io::Error),
    /// The operating system gave no random bytes.
    #[error("could not make up an id for the environment: {0}")]
    Random(getrandom::Error),
}

impl Host {
    /// A host that starts environments through `launcher` and logs to `telemetry`.
    #[must_use]
    pub fn new(
        launcher: Launcher,
        runtimes: Runtimes,
        telemetry: Telemetry,
        options: HostOptions,
    ) -> Arc<Self> {
        Arc::new(Self { launcher, runtimes, telemetry, clock: options.clock, compiled: Compiled::default() })
    }

    /// The runtimes that its environments can use.
    #[must_use]
    pub fn runtimes(&self) -> &Runtimes {
        &self.runtimes
    }

    /// Starts an environment and returns when its init phase is over, 10 s at most. A failed init phase is no error: the
    /// environment then runs it again inside its first invocation.
    ///
    /// # Errors
    /// [`StartError`] when the platform could not make the sandbox. Nothing of it is left.
    pub async fn start(self: &Arc<Self>, deployment: Arc<Deployment>) -> Result<Environment, StartError> {
        let version = &deployment.version;
        let runtime = &version.configuration.runtime;
        self.runtimes.check(runtime).map_err(StartError::Runtime)?;
        let program = match self.runtimes.find(runtime) {
            Some(interpreter) => {
                let compiled = matches!(runtime.family(), Some(RuntimeFamily::Python { .. }))
                    .then(|| self.compiled.for_interpreter(&self.launcher, interpreter))
                    .flatten();
                Program::Managed { interpreter: interpreter.clone(), compiled }
            }
            None => Program::Provided,
        };
        let now = (self.clock)();
        let id = environment_id()?;
        let stream = stream_name(&deployment, now, &id);
        let plan = Plan {
            program,
            version_text: version.version.to_string(),
            log_group: version.log_group(),
            log_stream: stream.into(),
            deployment,
        };
        let mut environment = Environment::new(Arc::clone(self), id.into(), Arc::new(plan));
        environment.initialize().await?;
        Ok(environment)
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    pub(crate) fn launch(
        &self,
        plan: &Arc<Plan>,
    ) -> impl Future<Output = Result<Process, LaunchFailure>> + Send + 'static {
        Process::launch(self.launcher.clone(), Arc::clone(plan))
    }

    /// What the runtime is called in log lines: `python:3.12.1`, `provided:al2023`.
    pub(crate) fn runtime_version(&self, plan: &Plan) -> String {
        match (&plan.program, plan.deployment.version.configuration.runtime.family()) {
            (Program::Managed { interpreter, .. }, Some(RuntimeFamily::Node { .. })) => {
                format!("nodejs:{}", interpreter.version)
            }
            (Program::Managed { interpreter, .. }, _) => format!("python:{}", interpreter.version),
            (Program::Provided, _) => {
                plan.deployment.version.configuration.runtime.as_str().replacen('.', ":", 1)
            }
        }
    }
}

/// 32 hexadecimal digits.
fn environment_id() -> Result<String, StartError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(StartError::Random)?;
    let mut id = String::with_capacity(32);
    for byte in random {
        let _ = write!(id, "{byte:02x}");
    }
    Ok(id)
}

/// `2026/01/01/[$LATEST]0123...`; with the function's name where the log group is not the function's own.
fn stream_name(deployment: &Deployment, now: Timestamp, id: &str) -> String {
    let version = &deployment.version;
    let name = match version.configuration.logging.group {
        Some(_) => version.function.name.as_str(),
        None => "",
    };
    format!("{}/{name}[{}]{id}", log::day(now), version.version)
}
