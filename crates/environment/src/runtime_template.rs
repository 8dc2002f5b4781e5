//! Runtime templates: interpreters that run already, with their bootstrap loaded, and wait to be told for which function. Each stands
//! in a sandbox of its own, becomes the template of one function and is then replaced, so functions share nothing by it.

use crate::StartError;
use crate::bootstraps::{Compiled, PARK_FD};
use crate::channel::Channel;
use crate::frame::FunctionMeta;
use crate::life::Input;
use crate::log::LogPipe;
use crate::process::{LaunchFailure, Process, output_descriptors};
use crate::program::{Plan, Program, furnishing, runtime_specification};
use crate::runtimes::Interpreter;
use crate::stock::Stock;
use crate::variables::{is_read_at_start, variables};
use martlet_model::{Configuration, RuntimeFamily, RuntimeName, limits};
use martlet_sandbox::{Launcher, Parking, Sandbox};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long an interpreter may take to start.
const PATIENCE: Duration = Duration::from_secs(20);
/// When one that was used is replaced: not while the call that it was used for still wants the processor.
const REST: Duration = Duration::from_millis(20);

/// One that waits.
#[derive(Debug)]
pub(crate) struct RuntimeTemplate {
    sandbox: Sandbox,
    channel: Channel,
    log: LogPipe,
    parking: Parking,
}

/// What two functions must have in common to be able to use the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kind {
    runtime: RuntimeName,
    /// Of interpreters that are told at their start how large their heap may be.
    memory_mb: Option<u32>,
}

/// One for each kind of function that is deployed or called, a few kinds at most.
pub(crate) struct RuntimeTemplates {
    launcher: Launcher,
    compiled: Compiled,
    most: usize,
    /// Where they are waited for, whoever wants them.
    home: Handle,
    /// The kind that was called last comes last.
    kept: Mutex<Vec<(Kind, Stock<RuntimeTemplate>)>>,
}

impl RuntimeTemplates {
    /// None yet, and `most` kinds at most. Must be called inside a tokio runtime.
    pub(crate) fn new(launcher: Launcher, compiled: Compiled, most: usize) -> Self {
        let most = if launcher.in_force().can_fork() { most } else { 0 };
        Self { launcher, compiled, most, home: Handle::current(), kept: Mutex::default() }
    }

    /// Sees to it that one is ready soon for a function that is so configured, if it can use one and there is room for its kind.
    pub(crate) fn expect(&self, configuration: &Configuration, interpreter: &Interpreter) {
        let Some(kind) = kind_of(configuration) else { return };
        let mut kept = self.kept();
        if kept.len() < self.most && !kept.iter().any(|(known, _)| *known == kind) {
            let stock = self.stock_of(configuration.memory_mb, interpreter);
            kept.push((kind, stock));
        }
    }

    /// The same for a function that is being called for the first time: the kind that was not called for longest makes room.
    pub(crate) fn want(&self, configuration: &Configuration, interpreter: &Interpreter) {
        let Some(kind) = kind_of(configuration).filter(|_| self.most > 0) else { return };
        let mut kept = self.kept();
        let known = kept.iter().position(|(known, _)| *known == kind).map(|at| kept.remove(at).1);
        let stock = known.unwrap_or_else(|| self.stock_of(configuration.memory_mb, interpreter));
        if kept.len() == self.most {
            kept.remove(0);
        }
        kept.push((kind, stock));
    }

    /// Takes one for the function of `plan`, be it one that is still starting: that is there sooner than one that starts now.
    /// `None` where there is none that waits. [`Self::replace`] makes up for it.
    pub(crate) fn take(
        &self,
        plan: &Plan,
    ) -> impl Future<Output = Option<RuntimeTemplate>> + Send + 'static + use<> {
        let kind = kind_of(&plan.deployment.version.configuration);
        let next = kind.and_then(|kind| {
            let kept = self.kept();
            kept.iter().find(|(known, _)| *known == kind).map(|(_, stock)| stock.take_next())
        });
        async move {
            let taken = next?.await;
            taken.filter(|taken| taken.sandbox.exit().status().is_none())
        }
    }

    /// Makes up for one that was taken, a little later.
    pub(crate) fn replace(&self, configuration: &Configuration) {
        let Some(kind) = kind_of(configuration) else { return };
        let _home = self.home.enter();
        if let Some((_, stock)) = self.kept().iter().find(|(known, _)| *known == kind) {
            stock.refill_in(REST);
        }
    }

    /// How many wait.
    pub(crate) fn ready(&self) -> usize {
        self.kept().iter().map(|(_, stock)| stock.ready()).sum()
    }

    fn stock_of(&self, memory_mb: u32, interpreter: &Interpreter) -> Stock<RuntimeTemplate> {
        let (launcher, compiled, interpreter) =
            (self.launcher.clone(), self.compiled.clone(), interpreter.clone());
        let _home = self.home.enter();
        Stock::new(move || {
            let program = Program::managed(&launcher, &compiled, &interpreter);
            RuntimeTemplate::start(launcher.clone(), program, memory_mb)
        })
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(Kind, Stock<RuntimeTemplate>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None` for a function whose interpreter must be started for it: something that it is configured with cannot be applied later.
fn kind_of(configuration: &Configuration) -> Option<Kind> {
    let memory_mb = match configuration.runtime.family()? {
        RuntimeFamily::Python { .. } => None,
        RuntimeFamily::Node { .. } => Some(configuration.memory_mb),
        RuntimeFamily::Provided => return None,
    };
    let usable = configuration.ephemeral_mb == limits::MIN_EPHEMERAL_MB
        && !configuration.environment.keys().any(|name| is_read_at_start(name));
    usable.then(|| Kind { runtime: configuration.runtime.clone(), memory_mb })
}

impl RuntimeTemplate {
    /// Starts one, and returns when it waits.
    async fn start(launcher: Launcher, program: Program, memory_mb: u32) -> Result<Self, StartError> {
        let (log, writer) = LogPipe::pair().map_err(StartError::Descriptors)?;
        let mut descriptors = output_descriptors(writer).map_err(StartError::Descriptors)?;
        let (mut channel, theirs) = Channel::pair().map_err(StartError::Descriptors)?;
        descriptors.push(theirs);
        let (parking, theirs) = Parking::pair().map_err(StartError::Descriptors)?;
        descriptors.push((theirs, PARK_FD));
        let spec = runtime_specification(&program, memory_mb);
        let sandbox = launcher.launch(spec, descriptors).await.map_err(StartError::Sandbox)?;
        let ready = tokio::time::timeout(PATIENCE, poll_fn(|context| channel.poll(context))).await;
        match ready {
            Ok(Ok(Input::Ready)) => Ok(Self { sandbox, channel, log, parking }),
            other => {
                tracing::warn!(sandbox = sandbox.id(), ?other, "an interpreter could not be started ahead");
                Err(StartError::TemplateGone)
            }
        }
    }

    /// Makes it the process of a template to be, which logs to `log_stream`.
    pub(crate) async fn settle(
        mut self,
        launcher: Launcher,
        plan: &Plan,
        log_stream: &str,
    ) -> Result<Process, LaunchFailure> {
        let version = &plan.deployment.version;
        launcher.furnish(&self.sandbox, furnishing(plan)).await.map_err(StartError::Sandbox)?;
        let env: BTreeMap<_, _> =
            variables(version, &plan.log_group, log_stream, plan.init).into_iter().collect();
        self.channel.tell_function(&FunctionMeta { env: &env });
        Ok(Process::of_template(launcher, Arc::new(self.sandbox), self.channel, self.log, self.parking))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(runtime: &str, change: impl FnOnce(&mut Configuration)) -> Configuration {
        let mut configuration = crate::variables::tests::version(runtime).configuration;
        change(&mut configuration);
        configuration
    }

    #[test]
    fn functions_share_a_kind_where_a_start_would_be_the_same() {
        let kind = |runtime, memory_mb| kind_of(&configuration(runtime, |c| c.memory_mb = memory_mb));
        assert_eq!(kind("python3.12", 128), kind("python3.12", 512));
        assert_ne!(kind("python3.12", 128), kind("python3.11", 128));
        assert_ne!(kind("nodejs20.x", 128), kind("nodejs20.x", 256), "the size of the heap is an option");
        assert_eq!(kind("provided.al2023", 128), None);
    }

    #[test]
    fn what_cannot_be_applied_later_has_no_kind() {
        let kind = |change: fn(&mut Configuration)| kind_of(&configuration("python3.12", change));
        assert_eq!(kind(|c| c.ephemeral_mb = 1024), None);
        assert_eq!(kind(|c| drop(c.environment.insert("PYTHONPATH".into(), "x".into()))), None);
        assert!(kind(|c| drop(c.environment.insert("TABLE".into(), "x".into()))).is_some());
    }
}
