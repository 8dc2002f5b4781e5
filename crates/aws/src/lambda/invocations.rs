//! What Invoke needs of the rooms that run functions.

use super::streaming::Streaming;
use martlet_engine::{Engine, Host, Provisioned, Ran, Rejected, Wanted};
use martlet_environment::{Deployment, response_stream};
use martlet_events::{AcceptError, AsyncInvocations, Event};
use martlet_model::Invocation;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Runs invocations, now or later.
pub trait Invocations: Send + Sync + 'static {
    /// Runs one now, on an environment that is `wanted`; a failure of the function is an answer, not an error. Once polled it
    /// goes on when the future is dropped.
    fn run<'a>(
        &'a self,
        deployment: &'a Arc<Deployment>,
        invocation: Invocation,
        wanted: Wanted,
    ) -> BoxFuture<'a, Result<Ran, Rejected>>;

    /// What is provisioned of a version at this moment.
    fn provisioned(&self, deployment: &Arc<Deployment>) -> Provisioned;

    /// Runs one now whose response is read while the function makes it. Returns at once; goes on when nobody reads. Must be
    /// called inside a tokio runtime.
    fn stream(&self, deployment: Arc<Deployment>, invocation: Invocation, wanted: Wanted) -> Streaming;

    /// Takes one that may run later. It is on stable storage when this resolves to `Ok`.
    fn accept(&self, event: Event) -> BoxFuture<'_, Result<(), AcceptError>>;
}

/// The engine for now, and the queue of events for later.
pub struct EngineInvocations<H: Host> {
    engine: Engine<H>,
    events: AsyncInvocations,
}

impl<H: Host> EngineInvocations<H> {
    /// Both together.
    #[must_use]
    pub fn new(engine: Engine<H>, events: AsyncInvocations) -> Self {
        Self { engine, events }
    }
}

impl<H: Host> Invocations for EngineInvocations<H> {
    fn run<'a>(
        &'a self,
        deployment: &'a Arc<Deployment>,
        invocation: Invocation,
        wanted: Wanted,
    ) -> BoxFuture<'a, Result<Ran, Rejected>> {
        Box::pin(self.engine.run(deployment, invocation, wanted))
    }

    fn provisioned(&self, deployment: &Arc<Deployment>) -> Provisioned {
        self.engine.provisioned(deployment)
    }

    fn stream(&self, deployment: Arc<Deployment>, invocation: Invocation, wanted: Wanted) -> Streaming {
        let (sink, response) = response_stream();
        let engine = self.engine.clone();
        let running = tokio::spawn(async move { engine.stream(&deployment, invocation, wanted, sink).await });
        Streaming::new(response, running)
    }

    fn accept(&self, event: Event) -> BoxFuture<'_, Result<(), AcceptError>> {
        Box::pin(self.events.accept(event))
    }
}
