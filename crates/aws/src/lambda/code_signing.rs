//! Code signing configurations, and which function has which.

use super::errors::{function_not_found, refused};
use super::named::Named;
use super::tags::check_new_tags;
use super::{Lambda, paging};
use crate::pipeline::{Ctx, Operation};
use crate::protocol::time::lambda_date;
use crate::protocol::{ApiError, Input, Output};
use martlet_functions::{FunctionsError, SigningConfig};
use martlet_model::FunctionArn;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

pub(super) const CREATE: Operation = Operation::new(
    "CreateCodeSigningConfig",
    "lambda:CreateCodeSigningConfig",
    &["Description", "AllowedPublishers", "CodeSigningPolicies", "Tags"],
);

pub(super) const GET: Operation =
    Operation::new("GetCodeSigningConfig", "lambda:GetCodeSigningConfig", &["CodeSigningConfigArn"]);

pub(super) const UPDATE: Operation = Operation::new(
    "UpdateCodeSigningConfig",
    "lambda:UpdateCodeSigningConfig",
    &["CodeSigningConfigArn", "Description", "AllowedPublishers", "CodeSigningPolicies"],
);

pub(super) const DELETE: Operation =
    Operation::new("DeleteCodeSigningConfig", "lambda:DeleteCodeSigningConfig", &["CodeSigningConfigArn"]);

pub(super) const LIST: Operation =
    Operation::new("ListCodeSigningConfigs", "lambda:ListCodeSigningConfigs", &["Marker", "MaxItems"]);

pub(super) const LIST_FUNCTIONS: Operation = Operation::new(
    "ListFunctionsByCodeSigningConfig",
    "lambda:ListFunctionsByCodeSigningConfig",
    &["CodeSigningConfigArn", "Marker", "MaxItems"],
);

pub(super) const PUT_OF_FUNCTION: Operation = Operation::new(
    "PutFunctionCodeSigningConfig",
    "lambda:PutFunctionCodeSigningConfig",
    &["CodeSigningConfigArn", "FunctionName"],
);

pub(super) const GET_OF_FUNCTION: Operation =
    Operation::new("GetFunctionCodeSigningConfig", "lambda:GetFunctionCodeSigningConfig", &["FunctionName"]);

pub(super) const DELETE_OF_FUNCTION: Operation = Operation::new(
    "DeleteFunctionCodeSigningConfig",
    "lambda:DeleteFunctionCodeSigningConfig",
    &["FunctionName"],
);

/// What stands between an ARN's account and its id.
pub(super) const RESOURCE: &str = ":code-signing-config:";

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Request {
    code_signing_config_arn: String,
    function_name: String,
    description: Option<String>,
    allowed_publishers: Option<Publishers>,
    code_signing_policies: Option<Policies>,
    tags: Option<BTreeMap<String, String>>,
    marker: Option<String>,
    max_items: Option<i64>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Publishers {
    signing_profile_version_arns: Vec<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Policies {
    untrusted_artifact_on_deployment: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    code_signing_config: Shown,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    code_signing_config_id: String,
    code_signing_config_arn: String,
    description: String,
    allowed_publishers: Publishers,
    code_signing_policies: Policies,
    last_modified: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    code_signing_configs: Vec<Shown>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListedFunctions {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    function_arns: Vec<String>,
}

/// Empty where the function has none, as AWS answers.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct OfFunction {
    #[serde(skip_serializing_if = "Option::is_none")]
    code_signing_config_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_name: Option<String>,
}

pub(super) async fn create(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let tags = request.tags.clone().unwrap_or_default();
    check_new_tags(&tags)?;
    let id = id(&ctx.randomness.take());
    let arn = format!("arn:aws:lambda:{}:{}{RESOURCE}{id}", ctx.region, ctx.account());
    let mut config = SigningConfig::new(arn, vec![], ctx.received);
    config.tags = tags;
    request.apply(&mut config);
    lambda.functions.create_signing_config(config.clone()).await.map_err(refused)?;
    Output::json(&Answer { code_signing_config: Shown::of(&config) })
}

pub(super) async fn get(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let config = find(&lambda, &ctx, &request.code_signing_config_arn)?;
    Output::json(&Answer { code_signing_config: Shown::of(&config) })
}

pub(super) async fn update(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let arn = find(&lambda, &ctx, &request.code_signing_config_arn)?.arn.clone();
    let updated = lambda.functions.update_signing_config(&arn, move |config| {
        request.apply(config);
        config.modified = ctx.received;
        Ok::<_, Infallible>(())
    });
    let Ok(config) = updated.await.map_err(or_not_found)?;
    Output::json(&Answer { code_signing_config: Shown::of(&config) })
}

pub(super) async fn delete(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let arn = &find(&lambda, &ctx, &request.code_signing_config_arn)?.arn;
    lambda.functions.delete_signing_config(arn).await.map_err(or_not_found)?;
    Ok(Output::empty())
}

pub(super) async fn list(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let after = request.marker.as_deref().map(paging::decode).transpose()?;
    let configs = lambda.functions.signing_configs(ctx.account(), &ctx.region);
    let (page, next) =
        paging::page(configs.iter(), |config| config.arn.clone(), after.as_ref(), request.max_items);
    Output::json(&Listed {
        next_marker: next.map(|arn| paging::encode(&arn)),
        code_signing_configs: page.into_iter().map(|config| Shown::of(config)).collect(),
    })
}

pub(super) async fn list_functions(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let config = find(&lambda, &ctx, &request.code_signing_config_arn)?;
    let after = request.marker.as_deref().map(paging::decode).transpose()?;
    let arns = lambda.functions.signed_by(&config.arn).into_iter().map(|arn| arn.to_string());
    let (function_arns, next) = paging::page(arns, String::clone, after.as_ref(), request.max_items);
    Output::json(&ListedFunctions { next_marker: next.map(|arn| paging::encode(&arn)), function_arns })
}

pub(super) async fn put_of_function(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let function = function(&lambda, &ctx, "PutFunctionCodeSigningConfig", &request)?;
    let config = request.code_signing_config_arn;
    lambda.functions.sign(&function, Some(config.clone())).await.map_err(refused)?;
    let function_name = Some(function.name.to_string());
    Output::json(&OfFunction { code_signing_config_arn: Some(config), function_name })
}

pub(super) async fn get_of_function(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let arn = function(&lambda, &ctx, "GetFunctionCodeSigningConfig", &input.parse()?)?;
    let found = lambda.functions.get(&arn).ok_or_else(|| function_not_found(&arn))?;
    let config = found.attached().code_signing.clone();
    let function_name = config.as_ref().map(|_| arn.name.to_string());
    Output::json(&OfFunction { code_signing_config_arn: config, function_name })
}

pub(super) async fn delete_of_function(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let function = function(&lambda, &ctx, "DeleteFunctionCodeSigningConfig", &input.parse()?)?;
    lambda.functions.sign(&function, None).await.map_err(refused)?;
    Ok(Output::empty())
}

fn function(lambda: &Lambda, ctx: &Ctx, action: &str, request: &Request) -> Result<FunctionArn, ApiError> {
    let arn = Named::unqualified(ctx, action, &request.function_name)?;
    match lambda.functions.get(&arn) {
        Some(_) => Ok(arn),
        None => Err(function_not_found(arn)),
    }
}

/// A configuration of the caller's account and region.
pub(super) fn find(lambda: &Lambda, ctx: &Ctx, arn: &str) -> Result<Arc<SigningConfig>, ApiError> {
    let own = format!("arn:aws:lambda:{}:{}{RESOURCE}", ctx.region, ctx.account());
    let found = lambda.functions.signing_config(arn).filter(|_| arn.starts_with(&own));
    found.ok_or_else(|| not_found(arn))
}

fn not_found(arn: &str) -> ApiError {
    let text = format!("The Lambda code signing configuration {arn} can not be found.");
    ApiError::new("ResourceNotFoundException", text)
}

/// For the operations on configurations themselves, which have another code for one that is gone.
fn or_not_found(error: FunctionsError) -> ApiError {
    match error {
        FunctionsError::NoSigningConfig(arn) => not_found(&arn),
        other => refused(other),
    }
}

/// As AWS's are: 17 lower-case letters and digits.
fn id(random: &[u8; 17]) -> String {
    let letter = |byte: &u8| char::from(b"abcdefghijklmnopqrstuvwxyz012345"[usize::from(byte & 31)]);
    format!("csc-{}", random.iter().map(letter).collect::<String>())
}

impl Request {
    /// Sets what was asked for and leaves the rest.
    fn apply(self, config: &mut SigningConfig) {
        if let Some(description) = self.description {
            config.description = description;
        }
        if let Some(publishers) = self.allowed_publishers {
            config.publishers = publishers.signing_profile_version_arns;
        }
        if let Some(policy) = self.code_signing_policies.and_then(|p| p.untrusted_artifact_on_deployment) {
            config.enforce = policy == "Enforce";
        }
    }
}

impl Shown {
    fn of(config: &SigningConfig) -> Self {
        let policy = if config.enforce { "Enforce" } else { "Warn" };
        Self {
            code_signing_config_id: config.arn.rsplit(':').next().unwrap_or_default().to_owned(),
            code_signing_config_arn: config.arn.clone(),
            description: config.description.clone(),
            allowed_publishers: Publishers { signing_profile_version_arns: config.publishers.clone() },
            code_signing_policies: Policies { untrusted_artifact_on_deployment: Some(policy.to_owned()) },
            last_modified: lambda_date(config.modified),
        }
    }
}
