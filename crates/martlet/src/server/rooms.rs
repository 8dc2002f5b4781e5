//! All rooms, opened in the order in which they need each other: the only place that knows every one of them.

use super::data_dir::PACKAGES;
use super::destinations::ToFunctions;
use super::health;
use super::invoker::EngineInvoker;
use crate::config::Config;
use crate::credentials_file::Profile;
use bytes::Bytes;
use http::{Response, StatusCode};
use martlet_aws::lambda::{Downloads, EngineInvocations, Invocations, Lambda, StartShown, Starts, start_of};
use martlet_aws::logs::Logs;
use martlet_aws::pipeline::{Internal, Pipeline, ServiceError};
use martlet_aws::urls::{UrlIndex, Urls};
use martlet_engine::{Engine, EngineOptions, Wanted};
use martlet_environment::{Deployment, Host, HostOptions, Runtimes, StartMode};
use martlet_events::{AsyncInvocations, Destinations, EventsOptions};
use martlet_functions::{Function, Functions, Observer, OpenError};
use martlet_gateway::{GatewayOptions, Head};
use martlet_identity::{Authenticator, Caller, Credentials, Keyring, Mode, RandomError};
use martlet_model::FunctionArn;
use martlet_sandbox::{InForce, Launcher};
use martlet_store::StoreError;
use martlet_telemetry::{Telemetry, TelemetryError, TelemetryOptions, system_clock};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an environment idles before its processes are frozen: longer than a busy client takes between two calls,
/// too short for background work of a finished invocation to get anywhere.
const FREEZE_AFTER: Duration = Duration::from_millis(20);
/// How long writing the last log records may hold up a stop.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// Why a room did not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoomsError {
    #[error("cannot open the store")]
    Store(#[source] StoreError),
    #[error("cannot open the log store")]
    Telemetry(#[source] TelemetryError),
    #[error("cannot open the functions")]
    Functions(#[source] OpenError),
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error("a service does not fit its model")]
    Service(#[from] ServiceError),
}

/// The rooms that the server holds on to while it runs.
pub(super) struct Rooms {
    pub(super) pipeline: Arc<Pipeline>,
    engine: Engine<Arc<Host>>,
    events: AsyncInvocations,
    telemetry: Telemetry,
}

impl Rooms {
    /// Opens everything, floor by floor. Takes up what was under way when the server last stopped.
    ///
    /// # Errors
    /// The room that did not open.
    pub(super) async fn open(
        config: &Config,
        launcher: Launcher,
        profiles: &[Profile],
        runtimes: Runtimes,
        in_force: &InForce,
    ) -> Result<Self, RoomsError> {
        let health = health::document(config, in_force, &runtimes);
        let store = martlet_store::open_embedded(&config.data_dir).map_err(RoomsError::Store)?;
        let telemetry =
            Telemetry::open(&config.data_dir, telemetry_options(config)).map_err(RoomsError::Telemetry)?;

        let obstacle = fork_obstacle(config, in_force);
        let runtime_templates = if obstacle.is_none() { config.runtime_templates } else { 0 };
        let file_systems = config.file_systems.clone();
        let host_options = HostOptions { runtime_templates, file_systems, ..HostOptions::default() };
        let host = Host::new(launcher, runtimes.clone(), telemetry.clone(), host_options);
        let starts = starts(config, obstacle, Arc::clone(&host));
        let options = EngineOptions { fork_start: obstacle.is_none(), ..engine_options(config) };
        let engine = Engine::new(Arc::clone(&host), options);
        let urls = Arc::new(UrlIndex::default());
        let observer =
            Arc::new(Watch { engine: engine.clone(), host: Arc::clone(&host), urls: Arc::clone(&urls) });
        let functions = Functions::open(store.clone(), &config.data_dir.join(PACKAGES), observer)
            .await
            .map_err(RoomsError::Functions)?;
        functions.deployments().iter().for_each(|deployment| host.expect(deployment));
        let invoker = EngineInvoker { functions: functions.clone(), engine: engine.clone() };
        let events = AsyncInvocations::new(store);
        let to_functions = ToFunctions { functions: functions.clone(), events: events.clone() };
        let destinations = Destinations::default().with("lambda", Arc::new(to_functions));
        events.dispatch(Arc::new(invoker), destinations, events_options(config));

        // Links to packages are signed by a key of their own, which nobody ever sees.
        let link_key = Credentials::generate()?;
        let downloads = Arc::new(Downloads::new(functions.clone(), link_key.clone()));
        let invocations: Arc<dyn Invocations> =
            Arc::new(EngineInvocations::new(engine.clone(), events.clone()));
        let urls = Urls {
            index: urls,
            functions: functions.clone(),
            invocations: Arc::clone(&invocations),
            stream_idle: config.stream_idle,
            wanted: starts.always.map_or(Wanted::Any, Wanted::Cold),
        };
        let granted: BTreeSet<String> = config.file_systems.keys().cloned().collect();
        let lambda = Lambda {
            functions,
            runtimes,
            invocations,
            downloads: Arc::clone(&downloads),
            concurrency: config.account_concurrency,
            starts,
            granted: Box::new(move |id| granted.contains(id)),
        };
        let services = vec![lambda.service()?, Logs { telemetry: telemetry.clone() }.service()?];
        let keyring = profiles.iter().fold(Keyring::new(), |keyring, profile| {
            keyring.with(&profile.credentials, config.account_id.clone(), &profile.name)
        });
        let keyring = keyring.with(&link_key, config.account_id.clone(), "package-links");
        let mode = if config.dev { Mode::Dev(config.account_id.clone()) } else { Mode::Enforced };
        let own = Arc::new(OwnRoutes { health, downloads, events: events.clone() });
        let pipeline =
            Pipeline::new(Authenticator::new(keyring, mode), services, own, system_clock()).with_urls(urls);
        let pipeline = Arc::new(pipeline);
        Ok(Self { pipeline, engine, events, telemetry })
    }

    /// Begins no more queued events and waits for those that run. What is not done by `deadline` runs again after the
    /// next start.
    pub(super) async fn drain_events(&self, deadline: Instant) {
        self.events.drain(deadline.saturating_duration_since(Instant::now())).await;
    }

    /// Waits for the last invocations and ends every environment; true when that was done by `deadline`.
    pub(super) async fn drain_engine(&self, deadline: Instant) -> bool {
        self.engine.drain(deadline.saturating_duration_since(Instant::now())).await
    }

    /// Writes down what is buffered.
    pub(super) async fn flush(&self) {
        match tokio::time::timeout(FLUSH_WITHIN, self.telemetry.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the last log records could not be written"),
            Err(_) => tracing::error!("the last log records could not be written in time"),
        }
    }
}

/// The gateway's options, out of the configuration.
pub(super) fn gateway_options(config: &Config) -> GatewayOptions {
    let gateway = &config.gateway;
    GatewayOptions {
        max_connections: gateway.max_connections,
        max_headers: gateway.max_headers,
        max_header_bytes: gateway.max_header_bytes,
        header_timeout: gateway.header_timeout,
        body_idle_timeout: gateway.body_idle_timeout,
        body_timeout: gateway.body_timeout,
        write_timeout: gateway.write_timeout,
        keep_alive_timeout: gateway.keep_alive,
        drain_timeout: config.drain,
    }
}

fn telemetry_options(config: &Config) -> TelemetryOptions {
    TelemetryOptions {
        retention_days: config.log_retention_days,
        metering_days: config.metering_retention_days,
        ..TelemetryOptions::default()
    }
}

fn events_options(config: &Config) -> EventsOptions {
    let defaults = EventsOptions::with_clock(system_clock());
    // More than the account may run at once would only be throttled and wait for its next turn.
    EventsOptions {
        concurrency: defaults.concurrency.min(config.account_concurrency as usize),
        retry: config.async_retry,
        ..defaults
    }
}

fn engine_options(config: &Config) -> EngineOptions {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    EngineOptions {
        concurrency: config.account_concurrency as usize,
        // A start is work for a CPU from beginning to end; more at once only makes each of them slower.
        concurrent_starts: cpus * 2,
        memory_bytes: config.memory_budget_mb * 1024 * 1024,
        idle: config.idle_timeout,
        adaptive_idle: config.keep_by_history,
        freeze_after: FREEZE_AFTER,
        spares: config.spares,
        longest_wait: config.longest_wait,
        calls_per_second: config.calls_per_second,
        account_calls_per_second: config.account_calls_per_second,
        function_starts_per_second: config.function_starts_per_second,
        starts_per_second: config.starts_per_second,
        ..EngineOptions::default()
    }
}

/// Why no environment of this server starts by fork, whatever its function is like.
fn fork_obstacle(config: &Config, in_force: &InForce) -> Option<&'static str> {
    if !config.fork_start {
        return Some("fork_start is off on this server");
    }
    // Sandboxes to fork into are made below the template's user, which takes a launcher that may become that user.
    in_force.rootless.then_some("forks need a server that root has started")
}

/// What developers may ask of starts, and what everybody is told of them.
fn starts(config: &Config, obstacle: Option<&'static str>, host: Arc<Host>) -> Starts {
    let shown = move |deployment: &Deployment| match host.start_mode(deployment) {
        StartMode::Ordinary(reason) => StartShown { start: "ordinary", reason: Some(reason) },
        mode => match (obstacle, mode) {
            (Some(obstacle), _) => StartShown { start: "ordinary", reason: Some(obstacle.to_owned()) },
            (None, StartMode::Fork) => StartShown { start: "fork", reason: None },
            (None, _) => StartShown::UNKNOWN,
        },
    };
    Starts { by_header: config.dev, always: start_of(&config.cold), shown: Arc::new(shown) }
}

/// Ends the environments of what can no longer be invoked, and has an interpreter started for what can be from now on.
struct Watch {
    engine: Engine<Arc<Host>>,
    host: Arc<Host>,
    urls: Arc<UrlIndex>,
}

impl Observer for Watch {
    fn current(&self, function: &FunctionArn, current: &[Arc<Deployment>]) {
        for deployment in current {
            self.host.expect(deployment);
        }
        self.engine.retire(function, |environment| {
            let of =
                |deployment: &Deployment| (deployment.version.version, deployment.version.revision.clone());
            current.iter().any(|deployment| of(deployment) == of(environment))
        });
    }

    fn attached(&self, function: &FunctionArn, picture: Option<&Function>) {
        self.engine.reserve(function, picture.and_then(|picture| picture.attached().reserved_concurrency));
        self.engine.provision(function, &picture.map(Function::provisioned).unwrap_or_default());
        self.urls.attached(function, picture);
    }
}

/// The server's own routes.
struct OwnRoutes {
    health: Bytes,
    downloads: Arc<Downloads>,
    events: AsyncInvocations,
}

impl Internal for OwnRoutes {
    fn is_public(&self, path: &str) -> bool {
        path == health::PATH
    }

    fn handle<'a>(
        &'a self,
        head: &'a Head,
        caller: Option<&'a Caller>,
        _body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + 'a>> {
        Box::pin(async move {
            let path = head.uri.path();
            if path == health::PATH {
                return health::answer(StatusCode::OK, self.health.clone());
            }
            let package = match caller {
                Some(caller) if path == health::EVENTS => {
                    return health::events(&self.events, &caller.principal.account).await;
                }
                Some(caller) => self.downloads.answer(path, caller).await,
                None => None,
            };
            package.unwrap_or_else(|| health::not_found(path))
        })
    }
}
