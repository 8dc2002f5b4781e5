//! What the engine needs of the world: something that starts environments, and environments that run events.
//!
//! [`martlet_environment::Host`] is the real one; tests play it.

use martlet_environment::{Completion, Deployment};
use martlet_model::Invocation;
use std::future::Future;
use std::sync::Arc;

/// Starts execution environments.
pub trait Host: Send + Sync + 'static {
    /// What it starts.
    type Environment: ExecutionEnvironment;
    /// Why the platform could not start one. A function whose init code fails is no such error: its environment
    /// starts, and says so when it is used.
    type StartError: std::error::Error + Send + Sync + 'static;

    /// Starts an environment and resolves when its init phase is over.
    fn start(
        &self,
        deployment: Arc<Deployment>,
    ) -> impl Future<Output = Result<Self::Environment, Self::StartError>> + Send;
}

/// One environment. It is owned by whoever uses it, and takes one event at a time.
pub trait ExecutionEnvironment: Send + 'static {
    /// Hands an event over; thaws the environment first when it is frozen.
    fn begin(&mut self, invocation: Invocation);

    /// Resolves when the event that [`begin`](Self::begin) handed over is dealt with. A future that is dropped loses
    /// nothing: calling again goes on where it stood.
    fn complete(&mut self) -> impl Future<Output = Completion> + Send;

    /// Stops the clock of an idle environment.
    fn freeze(&mut self);

    /// Memory it held when it was last measured, in bytes.
    fn memory_bytes(&self) -> u64;

    /// Resolves when the environment's processes are gone, for whatever reason. An invocation may bring new processes.
    fn exited(&self) -> impl Future<Output = ()> + Send + 'static;

    /// The shutdown phase; resolves when nothing of it is left.
    fn stop(self) -> impl Future<Output = ()> + Send;
}

impl Host for Arc<martlet_environment::Host> {
    type Environment = martlet_environment::Environment;
    type StartError = martlet_environment::StartError;

    fn start(
        &self,
        deployment: Arc<Deployment>,
    ) -> impl Future<Output = Result<Self::Environment, Self::StartError>> + Send {
        martlet_environment::Host::start(self, deployment)
    }
}

impl ExecutionEnvironment for martlet_environment::Environment {
    fn begin(&mut self, invocation: Invocation) {
        self.begin(invocation);
    }

    fn complete(&mut self) -> impl Future<Output = Completion> + Send {
        self.complete()
    }

    fn freeze(&mut self) {
        self.freeze();
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
