//! `PutRetentionPolicy` and `DeleteRetentionPolicy`.

use super::{Logs, failed, invalid, names};
use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Input, Output};
use serde::Deserialize;
use std::sync::Arc;

/// The lengths that AWS lets one choose from.
const DAYS: [u32; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Put {
    log_group_name: String,
    retention_in_days: i64,
}

pub(super) async fn put_retention_policy(
    logs: Arc<Logs>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let request: Put = input.parse()?;
    let Some(days) = DAYS.into_iter().find(|days| i64::from(*days) == request.retention_in_days) else {
        let valid = DAYS.map(|days| days.to_string()).join(", ");
        let given = request.retention_in_days;
        return Err(invalid(format!("retentionInDays must be one of {valid}, and is {given}.")));
    };
    let group = names::group(&ctx, Some(&request.log_group_name), None)?;
    logs.telemetry.retain(&group, Some(days)).await.map_err(failed)?;
    Ok(Output::empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delete {
    log_group_name: String,
}

/// Without a policy events are kept for ever, on AWS and so here.
pub(super) async fn delete_retention_policy(
    logs: Arc<Logs>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let request: Delete = input.parse()?;
    let group = names::group(&ctx, Some(&request.log_group_name), None)?;
    logs.telemetry.retain(&group, Some(0)).await.map_err(failed)?;
    Ok(Output::empty())
}
