//! How requests name log groups, and how telemetry and answers do.

use super::{invalid, not_found};
use crate::pipeline::Ctx;
use crate::protocol::ApiError;
use martlet_telemetry::log_group_arn;

/// What the ARNs of all groups that the caller may see begin with.
pub(super) fn scope(ctx: &Ctx) -> String {
    log_group_arn(ctx.account(), &ctx.region, "").to_string()
}

/// The ARN of the group that a request names by its name or by an identifier, which is a name or an ARN.
pub(super) fn group(ctx: &Ctx, name: Option<&str>, identifier: Option<&str>) -> Result<String, ApiError> {
    let scope = scope(ctx);
    match (name, identifier) {
        (Some(name), None) => Ok(scope + name),
        (None, Some(arn)) if arn.starts_with("arn:") => match arn.starts_with(&scope) {
            true => Ok(arn.to_owned()),
            false => Err(not_found("The specified log group does not exist.")),
        },
        (None, Some(name)) => Ok(scope + name),
        (Some(_), Some(_)) => {
            Err(invalid("LogGroupName and LogGroupIdentifier are mutually exclusive parameters."))
        }
        (None, None) => Err(invalid("Either LogGroupName or LogGroupIdentifier must be given.")),
    }
}
