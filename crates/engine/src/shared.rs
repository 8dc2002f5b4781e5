//! What the scheduler decides, carried out: the only place that changes its state, and the tasks of starts and stops.

use crate::host::{ExecutionEnvironment, Host, Prepared, Template};
use crate::scheduler::{
    Action, EnvironmentId, FunctionId, Moment, Refusal, Scheduler, StartId, TemplateId, Ticket, VersionId,
};
use crate::warm::{Busy, Handed};
use crate::{EngineOptions, Rejected};
use martlet_environment::{Deployment, InitType};
use martlet_model::FunctionArn;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, oneshot};

pub(crate) struct Shared<H: Host> {
    pub(crate) host: H,
    pub(crate) options: EngineOptions,
    epoch: Instant,
    state: Mutex<State<H>>,
    /// Wakes the keeper when there is something to look at earlier than planned.
    pub(crate) earlier: Notify,
    /// Wakes whoever waits for the end of the last environment.
    pub(crate) ended: Notify,
}

pub(crate) struct State<H: Host> {
    pub(crate) scheduler: Scheduler,
    /// Functions that have versions here, or a share of the account.
    pub(crate) functions: HashMap<FunctionArn, FunctionId>,
    pub(crate) known: HashMap<Key, VersionId>,
    pub(crate) keys: HashMap<VersionId, Key>,
    /// Environments that nobody uses, by their place.
    parked: Vec<Parked<H>>,
    templates: HashMap<TemplateId, Arc<H::Template>>,
    pub(crate) line: HashMap<Ticket, oneshot::Sender<Handed<H>>>,
    /// Environments and templates whose shutdown phase is under way.
    stopping: usize,
    /// When the keeper looks again by itself.
    pub(crate) keeper_wakes: Option<Moment>,
    /// Room for the scheduler's answers, kept for the next time.
    pub(crate) actions: Vec<Action>,
}

/// One place for an environment.
struct Parked<H: Host> {
    environment: Option<H::Environment>,
    /// The environment of this place whose end a task waits for.
    watched: Option<EnvironmentId>,
}

/// One revision of one function version, for one of its tenants if it tells them apart. A new revision is another key, so it
/// never meets a stale environment; so is another tenant, so it never meets an environment of somebody else.
#[derive(Clone)]
pub(crate) struct Key(pub(crate) Arc<Deployment>, pub(crate) Option<Arc<str>>);

impl Key {
    pub(crate) fn new(deployment: &Arc<Deployment>, tenant: Option<&Arc<str>>) -> Self {
        Self(Arc::clone(deployment), tenant.cloned())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0.version, &other.0.version);
        (Arc::ptr_eq(&self.0, &other.0)
            || (a.revision == b.revision && a.version == b.version && a.function == b.function))
            && self.1 == other.1
    }
}

impl Eq for Key {}

impl std::hash::Hash for Key {
    fn hash<S: std::hash::Hasher>(&self, state: &mut S) {
        self.0.version.function.name.hash(state);
        self.0.version.revision.hash(state);
        if let Some(tenant) = &self.1 {
            tenant.hash(state);
        }
    }
}

impl<H: Host> State<H> {
    pub(crate) fn is_empty(&self) -> bool {
        self.scheduler.environments() == 0 && self.templates.is_empty() && self.stopping == 0
    }

    /// The scheduler's number of a function.
    pub(crate) fn function(&mut self, function: &FunctionArn, now: Moment) -> FunctionId {
        let known = self.functions.get(function).copied();
        match known.filter(|id| self.scheduler.knows_function(*id)) {
            Some(id) => id,
            None => {
                let id = self.scheduler.add_function(now);
                self.functions.insert(function.clone(), id);
                id
            }
        }
    }

    fn init_type(&self, start: StartId) -> InitType {
        if self.scheduler.is_provisioned(start) { InitType::Provisioned } else { InitType::OnDemand }
    }

    /// Drops the number of a function that the scheduler has forgotten.
    pub(crate) fn forget_function(&mut self, function: &FunctionArn) {
        if self.functions.get(function).is_some_and(|id| !self.scheduler.knows_function(*id)) {
            self.functions.remove(function);
        }
    }

    pub(crate) fn take_parked(&mut self, id: EnvironmentId) -> Option<H::Environment> {
        self.parked.get_mut(id.place())?.environment.take()
    }

    pub(crate) fn park(&mut self, id: EnvironmentId, environment: H::Environment) {
        self.place(id).environment = Some(environment);
    }

    fn place(&mut self, id: EnvironmentId) -> &mut Parked<H> {
        if self.parked.len() <= id.place() {
            self.parked.resize_with(id.place() + 1, || Parked { environment: None, watched: None });
        }
        &mut self.parked[id.place()]
    }
}

impl<H: Host> Shared<H> {
    pub(crate) fn new(host: H, options: EngineOptions) -> Self {
        Self {
            host,
            options,
            epoch: Instant::now(),
            state: Mutex::new(State {
                scheduler: Scheduler::new(options),
                functions: HashMap::new(),
                known: HashMap::new(),
                keys: HashMap::new(),
                parked: vec![],
                templates: HashMap::new(),
                line: HashMap::new(),
                stopping: 0,
                keeper_wakes: None,
                actions: vec![],
            }),
            earlier: Notify::new(),
            ended: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<H>> {
        // A panic elsewhere must not end every other invocation with it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The scheduler's time: monotonic, counted from the engine's start.
    pub(crate) fn now(&self) -> Moment {
        Moment(self.epoch.elapsed().as_micros() as u64)
    }

    /// A version is called for the first time.
    pub(crate) fn meet(&self, state: &mut State<H>, key: &Key, now: Moment) -> VersionId {
        let deployment = &key.0;
        let memory_bytes = u64::from(deployment.version.configuration.memory_mb) << 20;
        let function = state.function(&deployment.version.function, now);
        let can_fork = self.host.can_fork(deployment);
        let version = state.scheduler.add_version(function, memory_bytes, can_fork, now);
        if key.1.is_some() {
            state.scheduler.forget_soon(version);
        }
        state.known.insert(key.clone(), version);
        state.keys.insert(version, key.clone());
        version
    }

    /// Changes the state, by asking the scheduler, and carries out what it wants done about that.
    pub(crate) fn decide<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut State<H>, Moment, &mut Vec<Action>) -> T,
    ) -> T {
        self.decide_or(&Rejected::Closing, change)
    }

    /// The same; callers whose start has failed are told `failure`.
    fn decide_or<T>(
        self: &Arc<Self>,
        failure: &Rejected,
        change: impl FnOnce(&mut State<H>, Moment, &mut Vec<Action>) -> T,
    ) -> T {
        let now = self.now();
        let mut state = self.lock();
        let state = &mut *state;
        let mut actions = std::mem::take(&mut state.actions);
        let outcome = change(state, now, &mut actions);
        self.carry_out_or(state, actions, failure);
        outcome
    }

    /// Carries out what the scheduler wants, and what it wants when it hears what came of that.
    pub(crate) fn carry_out(self: &Arc<Self>, state: &mut State<H>, actions: Vec<Action>) {
        self.carry_out_or(state, actions, &Rejected::Closing);
    }

    /// The same; callers whose start has failed are told `failure`.
    fn carry_out_or(self: &Arc<Self>, state: &mut State<H>, mut actions: Vec<Action>, failure: &Rejected) {
        let mut done = 0;
        while let Some(action) = actions.get(done).copied() {
            done += 1;
            match action {
                Action::Hand(ticket, id, start) => {
                    let Some(environment) = state.take_parked(id) else { continue };
                    let busy = Busy::new(self, id, Some(environment));
                    let handed = match state.line.remove(&ticket) {
                        Some(caller) => caller.send(Ok((busy, start))),
                        None => Err(Ok((busy, start))),
                    };
                    if let Err(Ok((mut busy, _))) = handed
                        && let Some(environment) = busy.environment.take()
                    {
                        let memory_bytes = environment.memory_bytes();
                        state.park(id, environment);
                        state.scheduler.finished(id, memory_bytes, self.now(), &mut actions);
                    }
                }
                Action::Refuse(ticket, why) => {
                    if let Some(caller) = state.line.remove(&ticket) {
                        let why = match why {
                            Refusal::StartFailed => failure.clone(),
                            Refusal::Overloaded => Rejected::Overloaded,
                            Refusal::Closing => Rejected::Closing,
                        };
                        // A caller that has gone needs no answer.
                        let _ = caller.send(Err(why));
                    }
                }
                Action::Start(start, version) => self.start(state, start, version),
                Action::Prepare(start, version) => self.prepare(state, start, version),
                Action::Fork(start, version, template) => self.fork(state, start, version, template),
                Action::Stop(id) => {
                    if let Some(environment) = state.take_parked(id) {
                        self.stop(state, environment);
                    }
                }
                Action::Freeze(id) => {
                    if let Some(environment) = state.place(id).environment.as_mut() {
                        environment.freeze();
                    }
                }
                Action::DropTemplate(id) => {
                    if let Some(template) = state.templates.remove(&id) {
                        self.stop_template(state, template);
                    }
                }
                Action::FreezeTemplate(id) => {
                    if let Some(template) = state.templates.get(&id) {
                        template.freeze();
                    }
                }
                Action::SetStock(id, shells) => {
                    if let Some(template) = state.templates.get(&id) {
                        template.set_stock(shells);
                    }
                }
                Action::Forget(version) => {
                    if let Some(key) = state.keys.remove(&version) {
                        state.forget_function(&key.0.version.function);
                        // A new revision of the same may be known under another number by now.
                        if state.known.get(&key) == Some(&version) {
                            state.known.remove(&key);
                        }
                    }
                }
            }
        }
        actions.clear();
        state.actions = actions;
        if let Some(due) = state.scheduler.next_tick()
            && state.keeper_wakes.is_none_or(|wakes| due < wakes)
        {
            state.keeper_wakes = Some(due);
            self.earlier.notify_one();
        }
    }

    fn start(self: &Arc<Self>, state: &State<H>, start: StartId, version: VersionId) {
        let init = state.init_type(start);
        self.run_init(state, start, version, move |shared, deployment| async move {
            shared.started(start, shared.host.start(deployment, init).await?);
            Ok(())
        });
    }

    fn prepare(self: &Arc<Self>, state: &State<H>, start: StartId, version: VersionId) {
        let init = state.init_type(start);
        self.run_init(state, start, version, move |shared, deployment| async move {
            match shared.host.prepare(deployment, init).await? {
                Prepared::Template(template) => shared.prepared(start, Arc::new(template)),
                Prepared::Environment { environment, unforkable } => {
                    let memory_bytes = environment.memory_bytes();
                    shared.admit(start, environment, |scheduler, now, actions| {
                        scheduler.prepared_environment(start, unforkable, memory_bytes, now, actions)
                    });
                }
            }
            Ok(())
        });
    }

    fn run_init<F>(
        self: &Arc<Self>,
        state: &State<H>,
        start: StartId,
        version: VersionId,
        init: impl FnOnce(Arc<Self>, Arc<Deployment>) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), H::StartError>> + Send,
    {
        let deployment = state.keys.get(&version).map(|key| Arc::clone(&key.0));
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let Some(deployment) = deployment else {
                return shared.start_failed(start, None, "the version is gone".into());
            };
            if let Err(error) = init(Arc::clone(&shared), Arc::clone(&deployment)).await {
                shared.start_failed(start, Some(&deployment), describe(&error));
            }
        });
    }

    fn fork(self: &Arc<Self>, state: &State<H>, start: StartId, version: VersionId, template: TemplateId) {
        let deployment = state.keys.get(&version).map(|key| Arc::clone(&key.0));
        let source = state.templates.get(&template).cloned();
        let init = state.init_type(start);
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let Some(source) = source else { return shared.template_gone(start, template) };
            match shared.host.fork(source, init).await {
                Ok(environment) => shared.started(start, environment),
                Err(error) if H::is_template_gone(&error) => shared.template_gone(start, template),
                Err(error) => shared.start_failed(start, deployment.as_deref(), describe(&error)),
            }
        });
    }

    fn started(self: &Arc<Self>, start: StartId, environment: H::Environment) {
        let memory_bytes = environment.memory_bytes();
        self.admit(start, environment, |scheduler, now, actions| {
            scheduler.started(start, memory_bytes, now, actions)
        });
    }

    /// Takes a new environment in, which `number` gives its number. One that is to be kept has to be of use.
    fn admit(
        self: &Arc<Self>,
        start: StartId,
        environment: H::Environment,
        number: impl FnOnce(&mut Scheduler, Moment, &mut Vec<Action>) -> EnvironmentId,
    ) {
        self.decide(|state, now, actions| {
            if state.scheduler.keeps(start) && !environment.is_initialized() {
                state.scheduler.init_failed(start, now, actions);
                return self.stop(state, environment);
            }
            let id = number(&mut state.scheduler, now, actions);
            self.watch(state, id, &environment);
            state.park(id, environment);
        });
    }

    fn prepared(self: &Arc<Self>, start: StartId, template: Arc<H::Template>) {
        let memory_bytes = template.memory_bytes();
        let exited = template.exited();
        self.decide(|state, now, actions| {
            let id = state.scheduler.prepared(start, memory_bytes, now, actions);
            state.templates.insert(id, template);
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                exited.await;
                shared.decide(|state, now, actions| state.scheduler.template_died(id, now, actions));
            });
        });
    }

    fn start_failed(self: &Arc<Self>, start: StartId, deployment: Option<&Deployment>, reason: String) {
        let function = deployment.map(|deployment| deployment.version.function.to_string());
        tracing::error!(function, %reason, "an execution environment could not be started");
        let failure = Rejected::StartFailed(reason.into());
        self.decide_or(&failure, |state, now, actions| state.scheduler.start_failed(start, now, actions));
        self.ended.notify_waiters();
    }

    fn template_gone(self: &Arc<Self>, start: StartId, template: TemplateId) {
        self.decide(|state, now, actions| state.scheduler.template_gone(start, template, now, actions));
        self.ended.notify_waiters();
    }

    /// Sees to it that an environment that ends while it is idle is forgotten. One that ends at work is its runner's to
    /// report, and may have new processes when it is free again.
    pub(crate) fn watch(
        self: &Arc<Self>,
        state: &mut State<H>,
        id: EnvironmentId,
        environment: &H::Environment,
    ) {
        let place = state.place(id);
        if place.watched == Some(id) {
            return;
        }
        place.watched = Some(id);
        let exited = environment.exited();
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            exited.await;
            shared.decide(|state, now, actions| {
                if state.place(id).watched == Some(id) {
                    state.place(id).watched = None;
                }
                if state.scheduler.died(id, now, actions)
                    && let Some(environment) = state.take_parked(id)
                {
                    shared.stop(state, environment);
                }
            });
        });
    }

    pub(crate) fn stop(self: &Arc<Self>, state: &mut State<H>, environment: H::Environment) {
        self.finish(state, environment.stop());
    }

    fn stop_template(self: &Arc<Self>, state: &mut State<H>, template: Arc<H::Template>) {
        self.finish(state, template.stop());
    }

    fn finish(self: &Arc<Self>, state: &mut State<H>, stop: impl Future<Output = ()> + Send + 'static) {
        state.stopping += 1;
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            stop.await;
            shared.lock().stopping -= 1;
            shared.ended.notify_waiters();
        });
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
