//! Which service and which of its operations a request is for.

use super::service::Service;
use crate::protocol::{ApiError, Labels, Protocol};
use martlet_gateway::Head;

/// An operation, by its place in the services and in its model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) service: usize,
    pub(super) operation: usize,
    pub(super) labels: Labels,
}

/// The service is the one that the signature is scoped to; the operation is named by path or `X-Amz-Target`, as the
/// service's protocol has it.
pub(super) fn find(services: &[Service], scope: &str, head: &Head) -> Result<Target, ApiError> {
    let Some(at) = services.iter().position(|service| service.model.signing_name == scope) else {
        let served: Vec<_> = services.iter().map(|service| service.model.signing_name).collect();
        return Err(ApiError::new(
            "NotImplementedException",
            format!("The service '{scope}' is not served here; these are: {}", served.join(", ")),
        )
        .with_status(501));
    };
    let service = &services[at];
    let found = match service.model.protocol {
        Protocol::RestJson => {
            service.router.find(&head.method, head.uri.path(), head.uri.query().unwrap_or_default())
        }
        Protocol::AwsJson { .. } => target(head)
            .and_then(|target| target.strip_prefix(service.model.target_prefix)?.strip_prefix('.'))
            .and_then(|name| service.model.operation(name))
            .map(|operation| (operation, Labels::default())),
    };
    match found {
        Some((operation, labels)) => Ok(Target { service: at, operation, labels }),
        None => {
            let status = if service.model.protocol == Protocol::RestJson { 404 } else { 400 };
            Err(ApiError::unknown_operation(unknown(service, head)).with_status(status))
        }
    }
}

fn target(head: &Head) -> Option<&str> {
    head.headers.get("x-amz-target")?.to_str().ok()
}

fn unknown(service: &Service, head: &Head) -> String {
    let name = service.model.service_id;
    let text = match service.model.protocol {
        Protocol::RestJson => format!("{name} has no operation {} {}", head.method, head.uri.path()),
        Protocol::AwsJson { .. } => match target(head) {
            Some(target) => format!("{name} has no operation {target}"),
            None => format!("{name} needs the name of an operation in X-Amz-Target"),
        },
    };
    text.chars().take(300).collect()
}
