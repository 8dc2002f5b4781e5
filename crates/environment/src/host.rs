//! What starts environments.

use crate::bootstraps::Compiled;
use crate::environment::{Birth, Environment, Initialized};
use crate::extensions::external;
use crate::modes::{StartMode, StartModes};
use crate::process::{LaunchFailure, Process};
use crate::program::{Plan, Program, Role};
use crate::runtime_template::RuntimeTemplates;
use crate::runtimes::{MissingRuntime, Runtimes};
use crate::template::Template;
use crate::variables::{FORK_VARIABLE, WRAPPER_VARIABLE};
use crate::{Deployment, InitType, log};
use martlet_model::{RuntimeFamily, Timestamp};
use martlet_sandbox::{Bind, LaunchError, Launcher};
use martlet_telemetry::{Clock, Telemetry, log_group_arn};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// What all environments of a host have in common.
#[derive(Clone)]
pub struct HostOptions {
    /// The time of day, for log lines and deadlines.
    pub clock: Clock,
    /// How many kinds of interpreters are kept started ahead, one of each, for functions that are called for the first time
    /// (configuration: `runtime_templates`).
    pub runtime_templates: usize,
    /// What stands behind access points of file systems, by their ids (configuration: `file_systems`).
    pub file_systems: BTreeMap<String, Grant>,
}

/// A directory of this machine that functions may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which.
    pub directory: PathBuf,
    /// Whether they may write to it, as far as its permissions let others.
    pub writable: bool,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self { clock: martlet_telemetry::system_clock(), runtime_templates: 4, file_systems: BTreeMap::new() }
    }
}

/// Starts environments on this machine. Shared as an `Arc` by everything that needs one.
pub struct Host {
    launcher: Launcher,
    runtimes: Runtimes,
    telemetry: Telemetry,
    clock: Clock,
    compiled: Compiled,
    runtime_templates: RuntimeTemplates,
    modes: StartModes,
    file_systems: BTreeMap<String, Grant>,
}

/// What came of [`Host::prepare`].
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it at a time, and it is taken apart at once")]
pub enum Prepared {
    /// A template to fork environments from.
    Template(Template),
    /// An environment, because there is no template.
    Environment {
        /// It has the init phase behind it, or has failed at it.
        environment: Environment,
        /// Why there will be no template of this deployment; `None` when another try may well make one.
        unforkable: Option<String>,
    },
}

/// Why the platform could not start an environment. A function whose init code fails is no such error.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No interpreter of this machine serves the function's runtime.
    #[error(transparent)]
    Runtime(MissingRuntime),
    /// The server was granted no directory for the access point, or is so no longer.
    #[error("the server's configuration names no directory for the file system {0}")]
    FileSystem(String),
    /// The sandbox could not be made.
    #[error("could not make a sandbox for the function")]
    Sandbox(#[source] LaunchError),
    /// The pipes and sockets to the sandbox could not be made.
    #[error("could not make the pipes and sockets to the function's sandbox")]
    Descriptors(#[source] io::Error),
    /// The template has ended, or could not be forked and was ended for it. Another one can be prepared.
    #[error("the function's template has ended")]
    TemplateGone,
    /// The operating system gave no random bytes.
    #[error("could not make up an id for the environment: {0}")]
    Random(getrandom::Error),
}

impl Host {
    /// A host that starts environments through `launcher` and logs to `telemetry`. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(
        launcher: Launcher,
        runtimes: Runtimes,
        telemetry: Telemetry,
        options: HostOptions,
    ) -> Arc<Self> {
        let compiled = Compiled::default();
        Arc::new(Self {
            runtime_templates: RuntimeTemplates::new(
                launcher.clone(),
                compiled.clone(),
                options.runtime_templates,
            ),
            launcher,
            runtimes,
            telemetry,
            clock: options.clock,
            compiled,
            modes: StartModes::default(),
            file_systems: options.file_systems,
        })
    }

    /// The runtimes that its environments can use.
    #[must_use]
    pub fn runtimes(&self) -> &Runtimes {
        &self.runtimes
    }

    /// Sees to it that the first call of the deployment finds an interpreter started, if it can use one and there is room for
    /// its kind. Returns at once.
    pub fn expect(&self, deployment: &Deployment) {
        let configuration = &deployment.version.configuration;
        if let Some(interpreter) = self.runtimes.find(&configuration.runtime)
            && self.can_fork(deployment).is_ok()
        {
            self.runtime_templates.expect(configuration, interpreter);
        }
    }

    /// How many interpreters wait for a function to be called for the first time.
    #[must_use]
    pub fn interpreters_ahead(&self) -> usize {
        self.runtime_templates.ready()
    }

    /// Starts an environment and returns when its init phase is over, 10 s at most, or 130 s and more where it is
    /// provisioned. A failed init phase is no error: the environment then runs it again inside its first invocation.
    ///
    /// # Errors
    /// [`StartError`] when the platform could not make the sandbox. Nothing of it is left.
    pub async fn start(self: &Arc<Self>, deployment: Arc<Deployment>) -> Result<Environment, StartError> {
        self.start_as(deployment, InitType::OnDemand).await
    }

    /// [`Host::start`], for what the function is told.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub async fn start_as(
        self: &Arc<Self>,
        deployment: Arc<Deployment>,
        init: InitType,
    ) -> Result<Environment, StartError> {
        let plan = self.plan(deployment, init)?;
        let mut environment = Environment::new(Arc::clone(self), plan, Birth::Ordinary)?;
        environment.initialize().await?;
        self.say_mode(&mut environment);
        Ok(environment)
    }

    /// Runs the init phase once, 10 s at most, for all environments that are then made by [`Host::fork`]. Where that is not
    /// to be, what has been started is an environment, as [`Host::start`] would have made it.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub async fn prepare(self: &Arc<Self>, deployment: Arc<Deployment>) -> Result<Prepared, StartError> {
        self.prepare_as(deployment, InitType::OnDemand).await
    }

    /// [`Host::prepare`], for what the function's init code is told.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub async fn prepare_as(
        self: &Arc<Self>,
        deployment: Arc<Deployment>,
        init: InitType,
    ) -> Result<Prepared, StartError> {
        if let Err(reason) = self.can_fork(&deployment) {
            let environment = self.start_as(deployment, init).await?;
            return Ok(Prepared::Environment { environment, unforkable: Some(reason) });
        }
        let plan = self.plan(Arc::clone(&deployment), init)?;
        let configuration = &deployment.version.configuration;
        if let Some(interpreter) = self.runtimes.find(&configuration.runtime) {
            self.runtime_templates.want(configuration, interpreter);
        }
        let mut environment = Environment::new(Arc::clone(self), plan, Birth::Template)?;
        let initialized = environment.initialize().await;
        self.runtime_templates.replace(configuration);
        match initialized? {
            Initialized::Parked(init) => {
                let template = environment.into_template(init).ok_or(StartError::TemplateGone)?;
                self.modes.parked(&deployment);
                Ok(Prepared::Template(template))
            }
            Initialized::Unforkable(reason) => {
                self.modes.unforkable(&deployment, &reason);
                self.say_mode(&mut environment);
                Ok(Prepared::Environment { environment, unforkable: Some(reason) })
            }
            Initialized::Ready | Initialized::Failed => {
                Ok(Prepared::Environment { environment, unforkable: None })
            }
        }
    }

    /// Forks an environment from a template and returns when it is ready, its after-restore hooks included, 10 s at most.
    /// Where it does not get ready, that is no error: the environment then starts anew, ordinarily, inside its first
    /// invocation. The forks of a template take turns, but for the time until the forked processes are ready.
    ///
    /// A call that is dropped while its turn lasts leaves the template of no more use: the next one finds it gone.
    ///
    /// # Errors
    /// [`StartError::TemplateGone`] when the template has ended, and otherwise when the platform could not make the sandbox.
    /// Nothing of it is left.
    pub async fn fork(self: &Arc<Self>, template: &Arc<Template>) -> Result<Environment, StartError> {
        self.fork_as(template, InitType::OnDemand).await
    }

    /// [`Host::fork`], for what the forked process is told.
    ///
    /// # Errors
    /// As [`Host::fork`].
    pub async fn fork_as(
        self: &Arc<Self>,
        template: &Arc<Template>,
        init: InitType,
    ) -> Result<Environment, StartError> {
        let deployment = template.deployment();
        let init = init.of(&deployment.version);
        let plan = match template.plan() {
            plan if plan.init == init => Arc::clone(plan),
            plan => Arc::new(Plan { init, ..Plan::clone(plan) }),
        };
        let init = template.take_init();
        let birth = Birth::Fork { template: Arc::clone(template), init };
        let mut environment = Environment::new(Arc::clone(self), plan, birth)?;
        let initialized = environment.initialize().await;
        template.refill();
        match initialized {
            Ok(Initialized::Failed) => {
                self.modes.failed(deployment, "environments forked from its template did not get ready");
                Ok(environment)
            }
            Ok(_) => {
                self.modes.forked(deployment);
                Ok(environment)
            }
            Err(error) => {
                template.return_init(init);
                if matches!(error, StartError::TemplateGone) {
                    template.blame();
                }
                Err(error)
            }
        }
    }

    /// Tells whether a template can be tried for the deployment.
    ///
    /// # Errors
    /// Why not: a sentence without its full stop.
    pub fn can_fork(&self, deployment: &Deployment) -> Result<(), String> {
        let configuration = &deployment.version.configuration;
        if matches!(configuration.runtime.family(), Some(RuntimeFamily::Provided) | None) {
            return Err(format!("programs for {} are not forked", configuration.runtime));
        }
        let set = |name| configuration.environment.get(name).filter(|value| !value.is_empty());
        if set(FORK_VARIABLE).is_some_and(|value| value.eq_ignore_ascii_case("off")) {
            return Err(format!("its variable {FORK_VARIABLE} is off"));
        }
        if !configuration.file_systems.is_empty() {
            return Err("it has a file system of its own mounted".to_owned());
        }
        if set(WRAPPER_VARIABLE).is_some() {
            return Err(format!("its interpreter is started by a program of its own ({WRAPPER_VARIABLE})"));
        }
        if let Some(name) = external(deployment.opt_dir.as_deref()).first() {
            return Err(format!("it has an extension with a process of its own ({name})"));
        }
        match self.modes.of(deployment) {
            StartMode::Ordinary(reason) => Err(reason),
            StartMode::Unknown | StartMode::Fork => Ok(()),
        }
    }

    /// How further environments of the deployment start, as far as that is known.
    #[must_use]
    pub fn start_mode(&self, deployment: &Deployment) -> StartMode {
        match self.can_fork(deployment) {
            Ok(()) => self.modes.of(deployment),
            Err(reason) => StartMode::Ordinary(reason),
        }
    }

    /// A template has ended by itself, or had to be ended.
    pub(crate) fn template_ended(&self, deployment: &Arc<Deployment>) {
        self.modes.failed(deployment, "its template ended");
    }

    /// Writes into the environment's log that the deployment does not start by fork, if nobody has yet.
    fn say_mode(&self, environment: &mut Environment) {
        if let Some(reason) = self.modes.to_say(environment.deployment()) {
            environment.say_ordinary(&reason);
        }
    }

    fn plan(&self, deployment: Arc<Deployment>, init: InitType) -> Result<Arc<Plan>, StartError> {
        let version = &deployment.version;
        let init = init.of(version);
        let runtime = &version.configuration.runtime;
        self.runtimes.check(runtime).map_err(StartError::Runtime)?;
        let program = match self.runtimes.find(runtime) {
            Some(interpreter) => Program::managed(&self.launcher, &self.compiled, interpreter),
            None => Program::provided(&deployment),
        };
        let log_group = version.log_group();
        let file_systems = version.configuration.file_systems.iter().map(|file_system| {
            let grant = self.file_systems.get(file_system.access_point());
            let grant = grant.ok_or_else(|| StartError::FileSystem(file_system.arn.clone()))?;
            let bind = Bind::new(&grant.directory, &file_system.mount);
            Ok(Bind { writable: grant.writable, ..bind })
        });
        let file_systems = file_systems.collect::<Result<_, StartError>>()?;
        Ok(Arc::new(Plan {
            program,
            version_text: version.version.to_string(),
            log_group_arn: log_group_arn(&version.function.account, &version.function.region, &log_group),
            log_group,
            architecture: version.configuration.architecture.as_str().into(),
            file_systems,
            deployment,
            init,
        }))
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    pub(crate) fn launch(
        &self,
        plan: &Arc<Plan>,
        log_stream: &Arc<str>,
        role: Role,
    ) -> impl Future<Output = Result<Process, LaunchFailure>> + Send + 'static {
        let (launcher, plan, log_stream) = (self.launcher.clone(), Arc::clone(plan), Arc::clone(log_stream));
        let ready = (role == Role::Template).then(|| self.runtime_templates.take(&plan));
        async move {
            if let Some(ready) = ready
                && let Some(ready) = ready.await
            {
                match ready.settle(launcher.clone(), &plan, &log_stream).await {
                    Ok(process) => return Ok(process),
                    Err(error) => {
                        tracing::warn!(?error, "an interpreter that was started ahead is of no use");
                    }
                }
            }
            Process::launch(launcher, plan, log_stream, role).await
        }
    }

    /// What the runtime is called in log lines: `python:3.12.1`, `provided:al2023`.
    pub(crate) fn runtime_version(&self, plan: &Plan) -> String {
        match (&plan.program, plan.deployment.version.configuration.runtime.family()) {
            (Program::Managed { interpreter, .. }, Some(RuntimeFamily::Node { .. })) => {
                format!("nodejs:{}", interpreter.version)
            }
            (Program::Managed { interpreter, .. }, _) => format!("python:{}", interpreter.version),
            (Program::Provided { .. }, _) => {
                plan.deployment.version.configuration.runtime.as_str().replacen('.', ":", 1)
            }
        }
    }
}

/// 32 hexadecimal digits.
pub(crate) fn environment_id() -> Result<String, StartError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(StartError::Random)?;
    let mut id = String::with_capacity(32);
    for byte in random {
        let _ = write!(id, "{byte:02x}");
    }
    Ok(id)
}

/// `2026/01/01/[$LATEST]0123...`; with the function's name where the log group is not the function's own.
pub(crate) fn stream_name(deployment: &Deployment, now: Timestamp, id: &str) -> String {
    let version = &deployment.version;
    let name = match version.configuration.logging.group {
        Some(_) => version.function.name.as_str(),
        None => "",
    };
    format!("{}/{name}[{}]{id}", log::day(now), version.version)
}
