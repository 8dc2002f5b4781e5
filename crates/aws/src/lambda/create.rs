//! CreateFunction.

use super::code::images_are_not_built;
use super::configuration::FunctionConfiguration;
use super::errors::{invalid, refused};
use super::named::Named;
use super::request::{FunctionRequest, check_whole};
use super::tags::check_new_tags;
use super::{Lambda, event_invoke};
use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Input, Output};
use martlet_functions::NewFunction;
use std::sync::Arc;

/// Longest name, where the service model's limit also has room for an ARN.
const LONGEST_NAME: usize = 64;

pub(super) async fn create_function(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let mut request: FunctionRequest = input.parse()?;
    if request.package_type.as_deref() == Some("Image") {
        return Err(images_are_not_built());
    }
    event_invoke::check_dead_letter(&lambda, &ctx, request.dead_letter_config.as_ref())?;
    let architecture = FunctionRequest::architecture(request.architectures.as_deref())?;
    let edit = request.check(&lambda, &ctx, None)?;
    let settings = edit.into_settings(architecture)?;
    check_whole(&settings.configuration, &lambda.granted)?;
    let name = request.function_name.as_str();
    if !name.contains(':') && name.len() > LONGEST_NAME {
        return Err(invalid(format!(
            "1 validation error detected: Value '{name}' at 'functionName' failed to satisfy constraint: Member must \
             have length less than or equal to {LONGEST_NAME}"
        )));
    }
    let named = Named::read(&ctx, "CreateFunction", name, None)?;
    if let Some(qualifier) = named.qualifier {
        return Err(invalid(format!(
            "A new function has no versions or aliases; leave the qualifier {qualifier} out of FunctionName"
        )));
    }
    let tags = request.tags.take().unwrap_or_default();
    check_new_tags(&tags)?;
    let zip = request.code.take().unwrap_or_default().into_zip()?;
    let new = NewFunction {
        function: named.function,
        settings,
        zip,
        tags,
        publish: request.publish.unwrap_or_default(),
        code_signing: request.code_signing_config_arn.take(),
    };
    let created = lambda.functions.create(new).await.map_err(refused)?;
    Output::json(&FunctionConfiguration::new(&lambda, &created, None))
}
