//! Extensions: programs beside the runtime, or parts of it, that are told of invocations and of the end, and are waited for.
//!
//! [`registry`] knows who waits for what and which call is refused; [`api`] carries it over HTTP, beside the Runtime API;
//! [`telemetry`] buffers what extensions subscribed to by the Telemetry API or the Logs API, and [`courier`] brings it to them;
//! [`shutdown`] decides how an environment with extensions ends; [`gate`] holds what the runtime says until its extensions
//! have done their part.

mod api;
mod companions;
mod courier;
mod found;
mod gate;
mod news;
mod registry;
mod shutdown;
mod telemetry;

pub(crate) use companions::Companions;
pub(crate) use found::external;
pub(crate) use gate::Extensions;
pub(crate) use news::Start;
pub(crate) use registry::{Failed, Reason, Standing};
pub(crate) use telemetry::{Api, Standing as Subscription};

use crate::runtime_api::{Answer, Caller};
use http::Request;
use hyper::body::Incoming;
use registry::Registry;
use telemetry::Telemetry;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Answers a call of one of the APIs of `version` for extensions; `None` when there is no such call.
pub(crate) async fn serve(
    desk: &Desk,
    version: &str,
    path: &[&str],
    request: Request<Incoming>,
    caller: &dyn Caller,
) -> Option<Answer> {
    match version {
        "2020-01-01" => api::serve(desk, path, request, caller).await,
        "2020-08-15" if path == ["logs"] => Some(api::subscribe(desk, Api::Logs, request).await),
        // Written with a slash at its end as well.
        "2022-07-01" if matches!(path, ["telemetry"] | ["telemetry", ""]) => {
            Some(api::subscribe(desk, Api::Telemetry, request).await)
        }
        _ => None,
    }
}

/// Where the external extensions of a function lie.
pub(crate) const EXTENSIONS_DIR: &str = "/opt/extensions";

/// What the connections of an environment's extensions share with it.
#[derive(Clone, Debug)]
pub(crate) struct Desk(Arc<Mutex<Shared>>);

/// See [`Desk`].
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) registry: Registry,
    pub(crate) telemetry: Telemetry,
    /// Whether there is a way to bring telemetry to who subscribes.
    pub(crate) deliverable: bool,
    /// The subscriptions that have not been told to the log.
    pub(crate) subscribed: Vec<Subscription>,
}

impl Desk {
    pub(crate) fn new(registry: Registry, deliverable: bool) -> Self {
        let telemetry = Telemetry::new();
        Self(Arc::new(Mutex::new(Shared { registry, telemetry, deliverable, subscribed: Vec::new() })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A random UUID, version 4. Without random bytes, which no running system lacks, it is one of zeroes, which is nobody's.
fn uuid() -> String {
    let mut bytes = [0u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        bytes = [0; 16];
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Of an environment without external extensions.
    pub(crate) fn desk() -> Desk {
        let function = registry::FunctionShown {
            function_name: "f".into(),
            function_version: "1".into(),
            handler: "app.handler".into(),
            account_id: Some("0".into()),
        };
        Desk::new(Registry::new(function, &[]), false)
    }

    #[test]
    fn identifiers_are_random_uuids() {
        let (one, other) = (uuid(), uuid());
        assert_ne!(one, other);
        assert_eq!((one.len(), one.as_bytes()[14], one.matches('-').count()), (36, b'4', 4));
    }
}
