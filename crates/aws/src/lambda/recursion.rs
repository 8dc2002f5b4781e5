//! PutFunctionRecursionConfig and GetFunctionRecursionConfig.

use super::Lambda;
use super::errors::{function_not_found, refused};
use super::named::Named;
use crate::pipeline::{Ctx, Operation};
use crate::protocol::{ApiError, Input, Output};
use serde::Serialize;
use std::sync::Arc;

pub(super) const PUT: Operation = Operation::new(
    "PutFunctionRecursionConfig",
    "lambda:PutFunctionRecursionConfig",
    &["FunctionName", "RecursiveLoop"],
);

pub(super) const GET: Operation =
    Operation::new("GetFunctionRecursionConfig", "lambda:GetFunctionRecursionConfig", &["FunctionName"]);

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    recursive_loop: &'static str,
}

fn answer(allowed: bool) -> Result<Output, ApiError> {
    Output::json(&Answer { recursive_loop: if allowed { "Allow" } else { "Terminate" } })
}

pub(super) async fn put(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let name = input.text("FunctionName").unwrap_or_default();
    let function = Named::unqualified(&ctx, "PutFunctionRecursionConfig", name)?;
    let allowed = input.text("RecursiveLoop") == Some("Allow");
    let edited = lambda.functions.attach(&function, move |attached, _| {
        attached.recursion_allowed = allowed;
        Ok::<_, ApiError>(())
    });
    edited.await.map_err(refused)??;
    answer(allowed)
}

pub(super) async fn get(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let name = input.text("FunctionName").unwrap_or_default();
    let arn = Named::unqualified(&ctx, "GetFunctionRecursionConfig", name)?;
    let function = lambda.functions.get(&arn).ok_or_else(|| function_not_found(&arn))?;
    answer(function.attached().recursion_allowed)
}
