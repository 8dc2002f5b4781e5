//! AddLayerVersionPermission, RemoveLayerVersionPermission, GetLayerVersionPolicy.

use super::Lambda;
use super::errors::refused;
use super::layers::{not_found, refuse_foreign, versioned};
use crate::pipeline::{Ctx, Operation};
use crate::protocol::{ApiError, Input, Output};
use martlet_functions::{FunctionsError, LayerPolicyRefused, LayerStatement};
use martlet_model::LayerVersionArn;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const PERMIT_LAYER: Operation = Operation::new(
    "AddLayerVersionPermission",
    "lambda:AddLayerVersionPermission",
    &["LayerName", "VersionNumber", "StatementId", "Action", "Principal", "RevisionId"],
);

pub(super) const FORBID_LAYER: Operation = Operation::new(
    "RemoveLayerVersionPermission",
    "lambda:RemoveLayerVersionPermission",
    &["LayerName", "VersionNumber", "StatementId", "RevisionId"],
);

pub(super) const GET_LAYER_POLICY: Operation =
    Operation::new("GetLayerVersionPolicy", "lambda:GetLayerVersionPolicy", &["LayerName", "VersionNumber"]);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    statement_id: String,
    principal: Option<String>,
    revision_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Added<'a> {
    statement: String,
    revision_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    policy: String,
    revision_id: &'a str,
}

/// The document, in the order in which AWS writes its members.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document<'a> {
    version: &'static str,
    id: &'static str,
    statement: Vec<Statement<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement<'a> {
    sid: &'a str,
    effect: &'static str,
    principal: Principal,
    action: &'static str,
    resource: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Principal {
    Everybody(&'static str),
    Account {
        #[serde(rename = "AWS")]
        root: String,
    },
}

impl<'a> Statement<'a> {
    fn new(statement: &'a LayerStatement, resource: &LayerVersionArn) -> Self {
        let principal = match statement.principal.as_str() {
            "*" => Principal::Everybody("*"),
            arn if arn.starts_with("arn:") => Principal::Account { root: arn.to_owned() },
            account => Principal::Account { root: format!("arn:aws:iam::{account}:root") },
        };
        Self {
            sid: &statement.id,
            effect: "Allow",
            principal,
            action: "lambda:GetLayerVersion",
            resource: resource.to_string(),
        }
    }
}

pub(super) async fn add_layer_version_permission(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let arn = versioned(&ctx, &input)?;
    refuse_foreign(&ctx, "AddLayerVersionPermission", &arn.layer, &arn)?;
    let request: Request = input.parse()?;
    let statement =
        LayerStatement { id: request.statement_id, principal: request.principal.unwrap_or_default() };
    let added = lambda.functions.permit_layer(&arn, statement.clone(), request.revision_id).await;
    let added = added.map_err(|error| policy_refused(&arn, error))?;
    Output::json(&Added {
        statement: json(&Statement::new(&statement, &arn))?,
        revision_id: &added.policy.revision_id,
    })
}

pub(super) async fn remove_layer_version_permission(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let arn = versioned(&ctx, &input)?;
    refuse_foreign(&ctx, "RemoveLayerVersionPermission", &arn.layer, &arn)?;
    let request: Request = input.parse()?;
    let removed = lambda.functions.forbid_layer(&arn, request.statement_id, request.revision_id).await;
    removed.map_err(|error| policy_refused(&arn, error))?;
    Ok(Output::empty())
}

pub(super) async fn get_layer_version_policy(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let arn = versioned(&ctx, &input)?;
    refuse_foreign(&ctx, "GetLayerVersionPolicy", &arn.layer, &arn)?;
    let version = lambda.functions.layer_version(&arn);
    let version = version.ok_or_else(|| no_such_version(&arn))?;
    let policy = &version.policy;
    if policy.statements.is_empty() {
        return Err(not_found("No policy is associated with the given resource."));
    }
    let document = Document {
        version: "2012-10-17",
        id: "default",
        statement: policy.statements.iter().map(|statement| Statement::new(statement, &arn)).collect(),
    };
    Output::json(&Answer { policy: json(&document)?, revision_id: &policy.revision_id })
}

fn policy_refused(arn: &LayerVersionArn, error: FunctionsError) -> ApiError {
    match error {
        FunctionsError::NoSuchLayer(_) => no_such_version(arn),
        FunctionsError::LayerPolicy(refused) => match refused {
            LayerPolicyRefused::Revision => ApiError::new(
                "PreconditionFailedException",
                "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to \
                 retrieve the latest Revision Id",
            ),
            LayerPolicyRefused::Exists(id) => ApiError::new(
                "ResourceConflictException",
                format!(
                    "The statement id ({id}) provided already exists. Please provide a new statement id, or remove \
                     the existing statement."
                ),
            ),
            LayerPolicyRefused::NoSuchStatement(id) => {
                not_found(format!("Statement {id} is not found in resource policy."))
            }
            LayerPolicyRefused::TooLong => {
                ApiError::new("PolicyLengthExceededException", "The resource policy is too long.")
            }
        },
        other => refused(other),
    }
}

fn no_such_version(arn: &LayerVersionArn) -> ApiError {
    not_found(format!("Layer version {arn} does not exist."))
}

fn json(value: &impl Serialize) -> Result<String, ApiError> {
    serde_json::to_string(value)
        .map_err(|error| ApiError::internal(format!("a policy could not be written: {error}")))
}
