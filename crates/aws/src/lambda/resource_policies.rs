//! PutResourcePolicy, GetResourcePolicy and DeleteResourcePolicy: resource policies as whole documents. They are the same policies that
//! AddPermission adds statements to.

use super::Lambda;
use super::errors::{function_not_found, invalid};
use super::named::Named;
use super::permissions::{NO_POLICY, check_size, edited, not_found, refuse_latest, shown};
use crate::pipeline::{Ctx, Operation};
use crate::protocol::{ApiError, Input, Output};
use martlet_functions::Policy;
use martlet_identity as identity;
use serde::Deserialize;
use std::sync::Arc;

pub(super) const PUT: Operation =
    Operation::new("PutResourcePolicy", "lambda:PutResourcePolicy", &["ResourceArn", "Policy", "RevisionId"]);

pub(super) const GET: Operation =
    Operation::new("GetResourcePolicy", "lambda:GetResourcePolicy", &["ResourceArn"]);

pub(super) const DELETE: Operation =
    Operation::new("DeleteResourcePolicy", "lambda:DeleteResourcePolicy", &["ResourceArn", "RevisionId"]);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    resource_arn: String,
    #[serde(default)]
    policy: String,
    revision_id: Option<String>,
}

pub(super) async fn put_resource_policy(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let named = resource(&ctx, "PutResourcePolicy", &request.resource_arn)?;
    refuse_latest(&named)?;
    let (policy, document) =
        identity::Policy::parse(&request.policy).map_err(|error| invalid(error.to_string()))?;
    policy.check_scope("lambda", &named.arn()).map_err(|error| invalid(error.to_string()))?;
    let policy = Policy { id: document.id, statements: document.statements };
    check_size(&policy)?;
    edited(&lambda, &named, request.revision_id, move |now| {
        *now = Some(policy);
        Ok(())
    })
    .await?;
    shown(&lambda, &named)
}

pub(super) async fn get_resource_policy(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let named = resource(&ctx, "GetResourcePolicy", &request.resource_arn)?;
    shown(&lambda, &named)
}

pub(super) async fn delete_resource_policy(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let named = resource(&ctx, "DeleteResourcePolicy", &request.resource_arn)?;
    if lambda.functions.get(&named.function).is_none() {
        return Err(function_not_found(named.arn()));
    }
    edited(&lambda, &named, request.revision_id, |now| match now.take() {
        Some(_) => Ok(()),
        None => Err(not_found(NO_POLICY)),
    })
    .await?;
    Ok(Output::empty())
}

/// The function, version or alias that an ARN names; runtimes of one's own, which have policies as well on AWS, are not built.
fn resource(ctx: &Ctx, action: &str, arn: &str) -> Result<Named, ApiError> {
    if !arn.contains(":function:") {
        return Err(invalid(format!(
            "ResourceArn {arn} is not the ARN of a function, a version or an alias; policies of other resources are not \
             implemented in this version of Martlet"
        )));
    }
    Named::read(ctx, action, arn, None)
}
