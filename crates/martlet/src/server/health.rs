//! What the server serves of its own: `/_martlet/health` and `/_martlet/events`.

use crate::config::Config;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use martlet_environment::Runtimes;
use martlet_events::AsyncInvocations;
use martlet_model::AccountId;
use martlet_sandbox::InForce;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The path of the health document.
pub(super) const PATH: &str = "/_martlet/health";

/// The path of what is known of asynchronous invocations.
pub(super) const EVENTS: &str = "/_martlet/events";

/// What is known of the account's asynchronous invocations: counts of each function since the start, by CloudWatch's names, and how
/// many events of all accounts wait or run.
pub(super) async fn events(events: &AsyncInvocations, account: &AccountId) -> Response<Bytes> {
    let backlog = match events.backlog().await {
        Ok(backlog) => backlog,
        Err(error) => {
            tracing::error!(%error, "the number of accepted events cannot be read");
            return answer(
                StatusCode::INTERNAL_SERVER_ERROR,
                json!({ "message": error.to_string() }).to_string().into(),
            );
        }
    };
    let metrics = events.metrics().into_iter().filter(|(function, _)| function.account == *account);
    let functions: BTreeMap<String, _> =
        metrics.map(|(function, metrics)| (function.to_string(), metrics)).collect();
    let document = json!({ "Backlog": backlog, "Running": events.stats().running, "Functions": functions });
    answer(StatusCode::OK, document.to_string().into())
}

/// The health document. It does not change while the server runs, so it is made once.
pub(super) fn document(config: &Config, in_force: &InForce, runtimes: &Runtimes) -> Bytes {
    // Anybody may read this, so it has no path of this machine.
    let found = runtimes.names().into_iter().map(|name| {
        let version = runtimes.find(&name).map(|interpreter| interpreter.version.as_str());
        json!({ "runtime": name, "version": version })
    });
    let user = if in_force.rootless { "user namespace" } else { "own uid" };
    let document = json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "account_id": config.account_id,
        "region": config.region,
        "dev": config.dev,
        "isolation": {
            "level": config.isolation.as_str(),
            "namespaces": ["user", "mount", "pid", "net", "ipc", "uts", "cgroup"],
            "user": user,
            "seccomp": true,
            "landlock": in_force.landlock_abi,
            "cgroups": in_force.cgroups,
            "tmp": config.tmp.as_str(),
        },
        "runtimes": found.collect::<Vec<_>>(),
    });
    document.to_string().into()
}

/// A JSON answer.
pub(super) fn answer(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// The answer to a path of ours that there is not.
pub(super) fn not_found(path: &str) -> Response<Bytes> {
    let message = format!("there is nothing at {path}; {PATH} tells how the server is");
    answer(StatusCode::NOT_FOUND, json!({ "message": Value::from(message) }).to_string().into())
}
