//! The way of a warm invocation: one short lock to take an idle environment, one to give it back, nobody woken, nothing
//! allocated, nothing copied.

use crate::host::{ExecutionEnvironment, Host};
use crate::scheduler::{Arrival, EnvironmentId, Ticket, VersionId};
use crate::shared::{Key, Shared, State};
use crate::{Rejected, Start, Wanted};
use martlet_environment::{Completion, Deployment, ResponseSink};
use martlet_model::Invocation;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Where a caller stands.
pub(crate) enum Place<H: Host> {
    /// It has an environment.
    Ready(Busy<H>, Start),
    /// It waits for one.
    Line(Line<H>),
}

/// An environment that belongs to one caller. Dropped, it goes back; dropped in the middle of an invocation, the
/// invocation is finished first, so a caller that hangs up stops nothing.
pub(crate) struct Busy<H: Host> {
    shared: Arc<Shared<H>>,
    id: EnvironmentId,
    pub(crate) environment: Option<H::Environment>,
    running: bool,
}

/// A caller's place in line; dropping it leaves the line.
pub(crate) struct Line<H: Host> {
    shared: Arc<Shared<H>>,
    version: VersionId,
    ticket: Ticket,
    handed: oneshot::Receiver<Handed<H>>,
}

/// What a caller in line is told.
pub(crate) type Handed<H> = Result<(Busy<H>, Start), Rejected>;

impl<H: Host> Shared<H> {
    pub(crate) fn arrive(
        self: &Arc<Self>,
        deployment: &Arc<Deployment>,
        tenant: Option<&Arc<str>>,
        wanted: Wanted,
    ) -> Result<Place<H>, Rejected> {
        self.decide(|state, now, actions| {
            let key = Key::new(deployment, tenant);
            let version = match state.known.get(&key) {
                Some(version) => *version,
                None => self.meet(state, &key, now),
            };
            match state.scheduler.arrive(version, wanted, now, actions) {
                Arrival::Run(id, start) => {
                    let environment = state.take_parked(id);
                    Ok(Place::Ready(Busy::new(self, id, environment), start))
                }
                Arrival::Wait(ticket) => Ok(Place::Line(Line::join(self, state, version, ticket))),
                Arrival::Throttled(limit, again) => {
                    Err(Rejected::Throttled { limit, again: Duration::from_micros(again) })
                }
                Arrival::Overloaded => Err(Rejected::Overloaded),
                Arrival::TooLarge => {
                    let function_mb = u64::from(deployment.version.configuration.memory_mb);
                    Err(Rejected::TooLarge { function_mb, budget_mb: self.options.memory_bytes >> 20 })
                }
                Arrival::Closing => Err(Rejected::Closing),
            }
        })
    }

    /// An environment has done its work and is free, or broken.
    pub(crate) fn release(self: &Arc<Self>, id: EnvironmentId, environment: H::Environment, reusable: bool) {
        let memory_bytes = environment.memory_bytes();
        self.decide(|state, now, actions| {
            if reusable {
                self.watch(state, id, &environment);
                state.park(id, environment);
                state.scheduler.finished(id, memory_bytes, now, actions);
            } else {
                state.scheduler.broke(id, now, actions);
                self.stop(state, environment);
            }
        });
    }
}

impl<H: Host> Busy<H> {
    pub(crate) fn new(
        shared: &Arc<Shared<H>>,
        id: EnvironmentId,
        environment: Option<H::Environment>,
    ) -> Self {
        Self { shared: Arc::clone(shared), id, environment, running: false }
    }

    pub(crate) async fn run(&mut self, invocation: Invocation, sink: Option<&ResponseSink>) -> Completion {
        let Some(environment) = self.environment.as_mut() else { return Completion::Undelivered(invocation) };
        if let Some(sink) = sink {
            environment.stream_to(sink.clone());
        }
        self.running = true;
        environment.begin(invocation);
        let completion = environment.complete().await;
        self.running = false;
        if let Completion::Done(completed) = &completion
            && let Some(environment) = self.environment.take()
        {
            self.shared.release(self.id, environment, completed.reusable);
        }
        completion
    }

    /// Gives a dead environment back for the next one of its version; `None` when the engine knows no more of it.
    pub(crate) fn exchange(mut self) -> Option<Line<H>> {
        let (id, environment) = (self.id, self.environment.take());
        self.shared.decide(|state, now, actions| {
            let place = state.scheduler.broke_before_use(id, now, actions);
            if let Some(environment) = environment {
                self.shared.stop(state, environment);
            }
            place.map(|(version, ticket)| Line::join(&self.shared, state, version, ticket))
        })
    }
}

impl<H: Host> Drop for Busy<H> {
    fn drop(&mut self) {
        let Some(mut environment) = self.environment.take() else { return };
        let (shared, id) = (Arc::clone(&self.shared), self.id);
        if !self.running {
            shared.release(id, environment, true);
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let reusable = match environment.complete().await {
                    Completion::Done(completed) => completed.reusable,
                    Completion::Undelivered(_) => false,
                };
                shared.release(id, environment, reusable);
            });
        }
    }
}

impl<H: Host> Line<H> {
    fn join(shared: &Arc<Shared<H>>, state: &mut State<H>, version: VersionId, ticket: Ticket) -> Self {
        let (sender, handed) = oneshot::channel();
        state.line.insert(ticket, sender);
        Self { shared: Arc::clone(shared), version, ticket, handed }
    }

    pub(crate) async fn wait(mut self) -> Handed<H> {
        (&mut self.handed).await.unwrap_or(Err(Rejected::Closing))
    }
}

impl<H: Host> Drop for Line<H> {
    fn drop(&mut self) {
        self.shared.decide(|state, now, actions| {
            if state.line.remove(&self.ticket).is_some() {
                state.scheduler.gave_up(self.version, self.ticket, now, actions);
            }
        });
    }
}
