//! `DescribeLogGroups`.

use super::{Logs, failed, invalid, names, token};
use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Input, Output};
use martlet_model::Timestamp;
use martlet_telemetry::{GroupInfo, GroupQuery};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    log_group_name_prefix: Option<String>,
    log_group_name_pattern: Option<String>,
    next_token: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    log_groups: Vec<Group>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    log_group_name: String,
    creation_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention_in_days: Option<u32>,
    metric_filter_count: u32,
    arn: String,
    stored_bytes: u64,
    log_group_class: &'static str,
    log_group_arn: String,
}

pub(super) async fn describe_log_groups(logs: Arc<Logs>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    if request.log_group_name_prefix.is_some() && request.log_group_name_pattern.is_some() {
        return Err(invalid(
            "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.",
        ));
    }
    let scope = names::scope(&ctx);
    let limit = request.limit.unwrap_or(50);
    let after = request.next_token.as_deref().map(token::open).transpose()?;
    let query = GroupQuery {
        prefix: scope.clone() + request.log_group_name_prefix.as_deref().unwrap_or_default(),
        contains: request.log_group_name_pattern.unwrap_or_default(),
        after: after.map(|name| scope.clone() + &name),
        // One more tells whether there is another page.
        limit: limit + 1,
    };
    let mut groups = logs.telemetry.groups(query).await.map_err(failed)?;
    let more = limit < groups.len();
    groups.truncate(limit);
    let default = logs.telemetry.default_retention_days();
    let log_groups: Vec<Group> = groups.into_iter().map(|group| describe(group, &scope, default)).collect();
    let next_token = log_groups.last().filter(|_| more).map(|last| token::seal(&last.log_group_name));
    Output::json(&Response { log_groups, next_token })
}

/// The retention told is the one in force, whether set for the group or for all; none means for ever.
fn describe(group: GroupInfo, scope: &str, default_days: u32) -> Group {
    let days = group.retention_days.unwrap_or(default_days);
    Group {
        log_group_name: group.name.strip_prefix(scope).unwrap_or_default().to_owned(),
        creation_time: group.created,
        retention_in_days: (days != 0).then_some(days),
        metric_filter_count: 0,
        arn: format!("{}:*", group.name),
        stored_bytes: group.stored_bytes,
        log_group_class: "STANDARD",
        log_group_arn: group.name,
    }
}
