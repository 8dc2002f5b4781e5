//! UpdateFunctionConfiguration.

use super::configuration::FunctionConfiguration;
use super::errors::{function_not_found, refused};
use super::named::Named;
use super::request::{FunctionRequest, check_whole};
use super::{Lambda, event_invoke};
use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Input, Output};
use std::sync::Arc;

pub(super) async fn update_function_configuration(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let mut request: FunctionRequest = input.parse()?;
    let function = Named::unqualified(&ctx, "UpdateFunctionConfiguration", &request.function_name)?;
    let found = lambda.functions.get(&function).ok_or_else(|| function_not_found(&function))?;
    event_invoke::check_dead_letter(&lambda, &ctx, request.dead_letter_config.as_ref())?;
    let now = &found.latest().version.configuration;
    let edit = request.check(&lambda, &ctx, Some(now))?;
    check_whole(&edit.after(now), &lambda.granted)?;
    let updated = lambda
        .functions
        .update_settings(&function, request.revision_id.take(), |settings| edit.apply(settings))
        .await
        .map_err(refused)?;
    Output::json(&FunctionConfiguration::new(&lambda, &updated, None))
}
