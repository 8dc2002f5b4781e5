//! CloudWatch Logs: reading what functions wrote, and how long it is kept.
//!
//! Groups and streams come into being when a function logs; the operations that make, write or delete them answer
//! that they are not implemented.

mod events;
mod groups;
mod names;
mod retention;
mod streams;
#[cfg(test)]
mod tests;
mod token;

use crate::models;
use crate::pipeline::{Operation, Service, ServiceError};
use crate::protocol::ApiError;
use martlet_telemetry::{Telemetry, TelemetryError};
use std::sync::Arc;

/// What the handlers of CloudWatch Logs' operations work with.
pub struct Logs {
    /// Where the events are.
    pub telemetry: Telemetry,
}

impl Logs {
    /// The front end of CloudWatch Logs.
    ///
    /// # Errors
    /// The table below does not fit the service model: a mistake in this file.
    pub fn service(self) -> Result<Service, ServiceError> {
        Service::builder(models::LOGS, Arc::new(self))?
            .codes(INVALID, INVALID)
            .on(DESCRIBE_GROUPS, groups::describe_log_groups)?
            .on(DESCRIBE_STREAMS, streams::describe_log_streams)?
            .on(GET, events::get_log_events)?
            .on(FILTER, events::filter_log_events)?
            .on(PUT_RETENTION, retention::put_retention_policy)?
            .on(DELETE_RETENTION, retention::delete_retention_policy)
            .map(|builder| builder.build())
    }
}

const DESCRIBE_GROUPS: Operation = Operation::new(
    "DescribeLogGroups",
    "logs:DescribeLogGroups",
    &["logGroupNamePrefix", "logGroupNamePattern", "nextToken", "limit"],
)
.harmless(&[("logGroupClass", "STANDARD")]);

const DESCRIBE_STREAMS: Operation = Operation::new(
    "DescribeLogStreams",
    "logs:DescribeLogStreams",
    &[
        "logGroupName",
        "logGroupIdentifier",
        "logStreamNamePrefix",
        "orderBy",
        "descending",
        "nextToken",
        "limit",
    ],
);

const GET: Operation = Operation::new(
    "GetLogEvents",
    "logs:GetLogEvents",
    &[
        "logGroupName",
        "logGroupIdentifier",
        "logStreamName",
        "startTime",
        "endTime",
        "nextToken",
        "limit",
        "startFromHead",
    ],
);

// `interleaved` has had no effect since 2019: answers always are.
const FILTER: Operation = Operation::new(
    "FilterLogEvents",
    "logs:FilterLogEvents",
    &[
        "logGroupName",
        "logGroupIdentifier",
        "logStreamNames",
        "logStreamNamePrefix",
        "startTime",
        "endTime",
        "filterPattern",
        "nextToken",
        "limit",
        "startFromHead",
        "interleaved",
    ],
);

const PUT_RETENTION: Operation =
    Operation::new("PutRetentionPolicy", "logs:PutRetentionPolicy", &["logGroupName", "retentionInDays"]);

const DELETE_RETENTION: Operation =
    Operation::new("DeleteRetentionPolicy", "logs:DeleteRetentionPolicy", &["logGroupName"]);

const INVALID: &str = "InvalidParameterException";

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(INVALID, message)
}

fn not_found(message: &'static str) -> ApiError {
    ApiError::new("ResourceNotFoundException", message)
}

fn failed(error: TelemetryError) -> ApiError {
    match error {
        TelemetryError::NoSuchGroup(_) => not_found("The specified log group does not exist."),
        TelemetryError::NoSuchStream(_) => not_found("The specified log stream does not exist."),
        error @ (TelemetryError::Engine { .. } | TelemetryError::Newer { .. } | TelemetryError::Closed) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(%error, cause, "log events could not be read");
            ApiError::new("ServiceUnavailableException", "The logs cannot be read now. Try again later.")
        }
    }
}
