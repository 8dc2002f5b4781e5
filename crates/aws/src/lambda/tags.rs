//! TagResource, UntagResource and ListTags: the tags of functions.

use super::Lambda;
use super::errors::{function_not_found, invalid, refused};
use super::named::Named;
use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Input, Output};
use martlet_model::{FunctionArn, limits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    resource: String,
    tags: Option<BTreeMap<String, String>>,
    tag_keys: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed<'a> {
    tags: &'a BTreeMap<String, String>,
}

pub(super) async fn tag_resource(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let function = resource(&ctx, "TagResource", &request.resource)?;
    let tags = request.tags.unwrap_or_default();
    if tags.is_empty() {
        return Err(invalid("An error occurred and the request cannot be processed."));
    }
    check_new_tags(&tags)?;
    lambda.functions.tag(&function, tags).await.map_err(refused)?;
    Ok(Output::empty())
}

pub(super) async fn untag_resource(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let function = resource(&ctx, "UntagResource", &request.resource)?;
    lambda.functions.untag(&function, request.tag_keys.unwrap_or_default()).await.map_err(refused)?;
    Ok(Output::empty())
}

pub(super) async fn list_tags(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let arn = resource(&ctx, "ListTags", &request.resource)?;
    let function = lambda.functions.get(&arn).ok_or_else(|| function_not_found(&arn))?;
    Output::json(&Listed { tags: function.tags() })
}

/// Checks what the service model does not say of tags.
pub(super) fn check_new_tags(tags: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if tags.len() > limits::TAGS {
        return Err(invalid("Number of tags exceeds resource tag limit."));
    }
    if tags.keys().any(|key| key.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:"))) {
        return Err(invalid("aws: prefixed tag key names are not allowed for external use."));
    }
    Ok(())
}

/// The function that an ARN names; other resources cannot exist here yet.
fn resource(ctx: &Ctx, action: &str, arn: &str) -> Result<FunctionArn, ApiError> {
    if !arn.contains(":function:") {
        return Err(invalid(format!(
            "{arn} is not the ARN of a function; tags of other resources are not implemented in this version of \
             Martlet"
        )));
    }
    let named = Named::read(ctx, action, arn, None)?;
    if named.qualifier.is_some() {
        return Err(invalid(
            "Tags on function aliases and versions are not supported. Please specify a function ARN.",
        ));
    }
    Ok(named.function)
}
