//! TagResource, UntagResource and ListTags: the tags of functions and of code signing configurations.

use super::errors::{function_not_found, invalid, refused};
use super::named::Named;
use super::{Lambda, code_signing};
use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Input, Output};
use martlet_functions::SigningConfig;
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
    let resource = Resource::read(&lambda, &ctx, "TagResource", &request.resource)?;
    let tags = request.tags.unwrap_or_default();
    if tags.is_empty() {
        return Err(invalid("An error occurred and the request cannot be processed."));
    }
    check_new_tags(&tags)?;
    match resource {
        Resource::Function(function) => lambda.functions.tag(&function, tags).await.map_err(refused)?,
        Resource::Signing(config) => {
            let tagged = lambda.functions.update_signing_config(&config.arn, move |config| {
                let mut all = config.tags.clone();
                all.extend(tags);
                check_new_tags(&all)?;
                config.tags = all;
                Ok(())
            });
            tagged.await.map_err(refused)??;
        }
    }
    Ok(Output::empty())
}

pub(super) async fn untag_resource(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let keys = request.tag_keys.unwrap_or_default();
    match Resource::read(&lambda, &ctx, "UntagResource", &request.resource)? {
        Resource::Function(function) => lambda.functions.untag(&function, keys).await.map_err(refused)?,
        Resource::Signing(config) => {
            let untagged = lambda.functions.update_signing_config(&config.arn, move |config| {
                config.tags.retain(|key, _| !keys.contains(key));
                Ok::<_, ApiError>(())
            });
            untagged.await.map_err(refused)??;
        }
    }
    Ok(Output::empty())
}

pub(super) async fn list_tags(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    match Resource::read(&lambda, &ctx, "ListTags", &request.resource)? {
        Resource::Function(arn) => {
            let function = lambda.functions.get(&arn).ok_or_else(|| function_not_found(&arn))?;
            Output::json(&Listed { tags: function.tags() })
        }
        Resource::Signing(config) => Output::json(&Listed { tags: &config.tags }),
    }
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

/// What has tags.
enum Resource {
    Function(FunctionArn),
    Signing(Arc<SigningConfig>),
}

impl Resource {
    fn read(lambda: &Lambda, ctx: &Ctx, action: &str, arn: &str) -> Result<Self, ApiError> {
        if arn.contains(code_signing::RESOURCE) {
            return code_signing::find(lambda, ctx, arn).map(Self::Signing);
        }
        if !arn.contains(":function:") {
            return Err(invalid(format!(
                "{arn} is the ARN of no function and of no code signing configuration; tags of other resources are not \
                 implemented in this version of Martlet"
            )));
        }
        let named = Named::read(ctx, action, arn, None)?;
        if named.qualifier.is_some() {
            return Err(invalid(
                "Tags on function aliases and versions are not supported. Please specify a function ARN.",
            ));
        }
        Ok(Self::Function(named.function))
    }
}
