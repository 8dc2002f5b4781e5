//! All rooms, opened in the order in which they need each other: the only place that knows every one of them.

use super::health;
use crate::config::Config;
use bytes::Bytes;
use http::{Response, StatusCode};
use martlet_aws::pipeline::{Internal, Pipeline};
use martlet_environment::Runtimes;
use martlet_gateway::{GatewayOptions, Head};
use martlet_identity::{Authenticator, Caller, Credentials, Keyring, Mode};
use martlet_sandbox::{InForce, Launcher};
use martlet_store::{Store, StoreError};
use martlet_telemetry::{Telemetry, TelemetryError, TelemetryOptions, system_clock};
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::Instant;

/// Why a room did not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoomsError {
    #[error("cannot open the store")]
    Store(#[source] StoreError),
    #[error("cannot open the log store")]
    Telemetry(#[source] TelemetryError),
}

/// The rooms that the server holds on to while it runs.
pub(super) struct Rooms {
    pub(super) pipeline: Arc<Pipeline>,
    telemetry: Telemetry,
    _store: Store,
}

impl Rooms {
    /// Opens everything. Takes up what was under way when the server last stopped.
    pub(super) async fn open(
        config: &Config,
        launcher: Launcher,
        credentials: &Credentials,
        runtimes: Runtimes,
        in_force: &InForce,
    ) -> Result<Self, RoomsError> {
        let _ = launcher;
        let store = martlet_store::open_embedded(&config.data_dir).map_err(RoomsError::Store)?;
        let options = TelemetryOptions {
            retention_days: config.log_retention_days,
            metering_days: config.metering_retention_days,
            ..TelemetryOptions::default()
        };
        let telemetry = Telemetry::open(&config.data_dir, options).map_err(RoomsError::Telemetry)?;

        let keyring = Keyring::new().with(credentials, config.account_id.clone(), "default");
        let mode = if config.dev { Mode::Dev(config.account_id.clone()) } else { Mode::Enforced };
        let own = OwnRoutes { health: health::document(config, in_force, &runtimes) };
        let pipeline =
            Pipeline::new(Authenticator::new(keyring, mode), vec![], Arc::new(own), system_clock());
        Ok(Self { pipeline: Arc::new(pipeline), telemetry, _store: store })
    }

    /// Ends everything in the opposite order; true when nothing had to be cut short.
    pub(super) async fn drain(&self, deadline: Instant) -> bool {
        let _ = deadline;
        if let Err(error) = self.telemetry.flush().await {
            tracing::error!(%error, "the last log records could not be written");
        }
        true
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

/// The server's own routes.
struct OwnRoutes {
    health: Bytes,
}

impl Internal for OwnRoutes {
    fn is_public(&self, path: &str) -> bool {
        path == health::PATH
    }

    fn handle<'a>(
        &'a self,
        head: &'a Head,
        _caller: Option<&'a Caller>,
        _body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + 'a>> {
        Box::pin(async move {
            match head.uri.path() {
                health::PATH => health::answer(StatusCode::OK, self.health.clone()),
                path => health::not_found(path),
            }
        })
    }
}
