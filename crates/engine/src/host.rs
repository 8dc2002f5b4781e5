//! What the engine needs of the world: something that starts environments, and environments that run events.
//!
//! [`martlet_environment::Host`] is the real one; tests play it.

use martlet_environment::{Completion, Deployment, InitType, ResponseSink};
use martlet_model::Invocation;
use std::future::Future;
use std::sync::Arc;

/// Starts execution environments.
pub trait Host: Send + Sync + 'static {
    /// What it starts.
    type Environment: ExecutionEnvironment;
    /// What it forks environments from.
    type Template: Template;
    /// Why the platform could not start one. A function whose init code fails is no such error: its environment
    /// starts, and says so when it is used.
    type StartError: std::error::Error + Send + Sync + 'static;

    /// Whether it makes sense to ask for a template at all. May be wrong: [`prepare`](Self::prepare) knows better.
    fn can_fork(&self, deployment: &Deployment) -> bool;

    /// Starts an environment and resolves when its init phase is over.
    fn start(
        &self,
        deployment: Arc<Deployment>,
        init: InitType,
    ) -> impl Future<Output = Result<Self::Environment, Self::StartError>> + Send;

    /// Runs the init phase once, and makes a template of what comes of it if that can be.
    fn prepare(
        &self,
        deployment: Arc<Deployment>,
        init: InitType,
    ) -> impl Future<Output = Result<Prepared<Self::Template, Self::Environment>, Self::StartError>> + Send;

    /// Starts an environment by a fork of a template.
    fn fork(
        &self,
        template: Arc<Self::Template>,
        init: InitType,
    ) -> impl Future<Output = Result<Self::Environment, Self::StartError>> + Send;

    /// Whether a fork failed because its template has ended: another template may do.
    fn is_template_gone(error: &Self::StartError) -> bool;
}

/// What became of an init phase that was to make a template.
#[derive(Debug)]
pub enum Prepared<T, E> {
    /// A template.
    Template(T),
    /// An ordinary environment.
    Environment {
        /// The environment, ready to be used.
        environment: E,
        /// The function cannot be forked. Otherwise it did not come to that: the next try may succeed.
        unforkable: bool,
    },
}

/// A process that has run a function's init code, from which environments are forked.
pub trait Template: Send + Sync + 'static {
    /// Memory it held when it was last measured, in bytes.
    fn memory_bytes(&self) -> u64;

    /// Stops its clock; the next fork starts it again.
    fn freeze(&self);

    /// Keeps so many shells ready to be forked into.
    fn set_stock(&self, shells: usize);

    /// Resolves when its process is gone, for whatever reason.
    fn exited(&self) -> impl Future<Output = ()> + Send + 'static;

    /// Ends it; what was forked from it lives on. Resolves when nothing else of it is left.
    fn stop(self: Arc<Self>) -> impl Future<Output = ()> + Send;
}

/// One environment. It is owned by whoever uses it, and takes one event at a time.
pub trait ExecutionEnvironment: Send + 'static {
    /// Has the response to the next event go to `sink` while it is made.
    fn stream_to(&mut self, sink: ResponseSink);

    /// Hands an event over; thaws the environment first when it is frozen.
    fn begin(&mut self, invocation: Invocation);

    /// Resolves when the event that [`begin`](Self::begin) handed over is dealt with. A future that is dropped loses
    /// nothing: calling again goes on where it stood.
    fn complete(&mut self) -> impl Future<Output = Completion> + Send;

    /// Stops the clock of an idle environment.
    fn freeze(&mut self);

    /// Whether its init phase went well. Otherwise that runs again with its first event.
    fn is_initialized(&self) -> bool;

    /// Memory it held when it was last measured, in bytes.
    fn memory_bytes(&self) -> u64;

    /// Resolves when the environment's processes are gone, for whatever reason. An invocation may bring new processes.
    fn exited(&self) -> impl Future<Output = ()> + Send + 'static;

    /// The shutdown phase; resolves when nothing of it is left.
    fn stop(self) -> impl Future<Output = ()> + Send;
}

impl Host for Arc<martlet_environment::Host> {
    type Environment = martlet_environment::Environment;
    type Template = martlet_environment::Template;
    type StartError = martlet_environment::StartError;

    fn can_fork(&self, deployment: &Deployment) -> bool {
        martlet_environment::Host::can_fork(self, deployment).is_ok()
    }

    fn start(
        &self,
        deployment: Arc<Deployment>,
        init: InitType,
    ) -> impl Future<Output = Result<Self::Environment, Self::StartError>> + Send {
        martlet_environment::Host::start_as(self, deployment, init)
    }

    async fn prepare(
        &self,
        deployment: Arc<Deployment>,
        init: InitType,
    ) -> Result<Prepared<Self::Template, Self::Environment>, Self::StartError> {
        Ok(match martlet_environment::Host::prepare_as(self, deployment, init).await? {
            martlet_environment::Prepared::Template(template) => Prepared::Template(template),
            martlet_environment::Prepared::Environment { environment, unforkable } => {
                Prepared::Environment { environment, unforkable: unforkable.is_some() }
            }
        })
    }

    async fn fork(
        &self,
        template: Arc<Self::Template>,
        init: InitType,
    ) -> Result<Self::Environment, Self::StartError> {
        martlet_environment::Host::fork_as(self, &template, init).await
    }

    fn is_template_gone(error: &Self::StartError) -> bool {
        matches!(error, martlet_environment::StartError::TemplateGone)
    }
}

impl Template for martlet_environment::Template {
    fn memory_bytes(&self) -> u64 {
        self.memory_bytes()
    }

    fn freeze(&self) {
        self.freeze();
    }

    fn set_stock(&self, shells: usize) {
        self.set_stock(shells);
    }

    fn exited(&self) -> impl Future<Output = ()> + Send + 'static {
        self.exited()
    }

    async fn stop(self: Arc<Self>) {
        martlet_environment::Template::stop(&self).await;
    }
}

impl ExecutionEnvironment for martlet_environment::Environment {
    fn stream_to(&mut self, sink: ResponseSink) {
        self.stream_to(sink);
    }

    fn begin(&mut self, invocation: Invocation) {
        self.begin(invocation);
    }

    fn complete(&mut self) -> impl Future<Output = Completion> + Send {
        self.complete()
    }

    fn freeze(&mut self) {
        self.freeze();
    }

    fn is_initialized(&self) -> bool {
        self.is_initialized()
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes()
    }

    fn exited(&self) -> impl Future<Output = ()> + Send + 'static {
        self.exited()
    }

    fn stop(self) -> impl Future<Output = ()> + Send {
        self.stop()
    }
}
