//! The operations of provisioned concurrency: environments of a version or alias that are kept started.

use super::concurrency::fits;
use super::errors::{function_not_found, invalid, refused};
use super::named::Named;
use super::{Lambda, paging};
use crate::pipeline::{Ctx, Operation};
use crate::protocol::time::lambda_date;
use crate::protocol::{ApiError, Input, Output};
use bytes::Bytes;
use martlet_engine::Unprovided;
use martlet_functions::{Function, Provisioned, Target};
use martlet_model::{Qualifier, Version};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const PUT: Operation = Operation::new(
    "PutProvisionedConcurrencyConfig",
    "lambda:PutProvisionedConcurrencyConfig",
    &["FunctionName", "Qualifier", "ProvisionedConcurrentExecutions"],
);

pub(super) const GET: Operation = Operation::new(
    "GetProvisionedConcurrencyConfig",
    "lambda:GetProvisionedConcurrencyConfig",
    &["FunctionName", "Qualifier"],
);

pub(super) const DELETE: Operation = Operation::new(
    "DeleteProvisionedConcurrencyConfig",
    "lambda:DeleteProvisionedConcurrencyConfig",
    &["FunctionName", "Qualifier"],
);

pub(super) const LIST: Operation = Operation::new(
    "ListProvisionedConcurrencyConfigs",
    "lambda:ListProvisionedConcurrencyConfigs",
    &["FunctionName", "Marker", "MaxItems"],
);

const ACCEPTED: u16 = 202;
const NO_CONTENT: u16 = 204;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRequest {
    function_name: String,
    qualifier: String,
    provisioned_concurrent_executions: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListRequest {
    function_name: String,
    marker: Option<String>,
    max_items: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    function_arn: Option<String>,
    requested_provisioned_concurrent_executions: u32,
    available_provisioned_concurrent_executions: u32,
    allocated_provisioned_concurrent_executions: u32,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<&'static str>,
    last_modified: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    provisioned_concurrency_configs: Vec<Config>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
}

impl Config {
    /// How far it is with what was asked for.
    fn new(lambda: &Lambda, function: &Function, target: &Target, provisioned: Provisioned) -> Self {
        let (mut allocated, mut failure) = (0, None);
        for (version, share) in function.provisioned_versions(target, provisioned.wanted) {
            let Some(deployment) = function.deployment(version) else { continue };
            let now = lambda.invocations.provisioned(&deployment);
            allocated += share.min(u32::try_from(now.allocated).unwrap_or(u32::MAX));
            failure = failure.or(now.failure);
        }
        let status = match failure {
            _ if allocated >= provisioned.wanted => "READY",
            Some(_) => "FAILED",
            None => "IN_PROGRESS",
        };
        Self {
            function_arn: None,
            requested_provisioned_concurrent_executions: provisioned.wanted,
            available_provisioned_concurrent_executions: allocated,
            allocated_provisioned_concurrent_executions: allocated,
            status,
            status_reason: failure.filter(|_| status == "FAILED").map(reason),
            last_modified: lambda_date(provisioned.modified),
        }
    }
}

fn reason(failure: Unprovided) -> &'static str {
    match failure {
        Unprovided::InitFailed => "FUNCTION_ERROR_INIT_FAILURE",
        Unprovided::StartFailed => {
            "Environments could not be started or ended by themselves; the server's log tells more. It is tried again."
        }
        Unprovided::Memory => {
            "The environments do not fit the server's memory_budget_mb. It is tried again as memory becomes free."
        }
    }
}

fn not_found() -> ApiError {
    ApiError::new(
        "ProvisionedConcurrencyConfigNotFoundException",
        "No Provisioned Concurrency Config found for this function",
    )
}

/// The target that a request names.
fn read(ctx: &Ctx, action: &str, name: &str, qualifier: &str) -> Result<(Named, Target), ApiError> {
    let named = Named::read(ctx, action, name, Some(qualifier))?;
    if matches!(named.qualifier, None | Some(Qualifier::Latest)) {
        return Err(invalid(
            "Provisioned Concurrency Configs cannot be applied to unpublished function versions.",
        ));
    }
    let target = Target::of(named.qualifier.as_ref());
    Ok((named, target))
}

/// The versions that a target means now; none when there is no such version or alias.
fn versions(function: &Function, target: &Target) -> Vec<Version> {
    let versions = function.provisioned_versions(target, 1).into_iter().map(|(version, _)| version);
    versions.filter(|version| function.version(*version).is_some()).collect()
}

pub(super) async fn put_provisioned_concurrency_config(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let request: PutRequest = input.parse()?;
    let (named, target) =
        read(&ctx, "PutProvisionedConcurrencyConfig", &request.function_name, &request.qualifier)?;
    let provisioned =
        Provisioned { wanted: request.provisioned_concurrent_executions, modified: ctx.received };
    let (concurrency, arn, edited) = (lambda.concurrency, named.arn(), target.clone());
    let put = lambda.functions.attach_share(&named.function, move |attached, function, others| {
        let versions = versions(function, &edited);
        if versions.is_empty() || versions.contains(&Version::Latest) {
            return Err(function_not_found(arn));
        }
        if function.latest().version.configuration.per_tenant {
            return Err(invalid(
                "Provisioned Concurrency is not supported for functions with tenancy configuration: nobody knows their \
                 tenants ahead.",
            ));
        }
        if let Some((other, _)) = attached.provisioned.iter().find(|(other, _)| {
            **other != edited
                && function.provisioned_versions(other, 1).iter().any(|(version, _)| versions.contains(version))
        }) {
            let already = match other.qualifier() {
                Some(Qualifier::Alias(_)) => "alias",
                _ => "version",
            };
            let this = if matches!(edited.qualifier(), Some(Qualifier::Alias(_))) { "Alias" } else { "Version" };
            return Err(invalid(format!(
                "{this} can't be used for Provisioned Concurrency configuration on an already Provisioned {already}"
            )));
        }
        attached.provisioned.insert(edited, provisioned);
        let all = attached.provisioned_sum();
        match attached.reserved_concurrency {
            Some(reserved) if u64::from(reserved) < all => Err(invalid(
                "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for \
                 function",
            )),
            Some(_) => Ok(()),
            None => fits(concurrency, all, others).map_err(|(most, _)| {
                invalid(format!(
                    "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency \
                     [{most}]."
                ))
            }),
        }
    });
    put.await.map_err(refused)??;
    let function = lambda.functions.get(&named.function).ok_or_else(|| function_not_found(named.arn()))?;
    Ok(Output::json(&Config::new(&lambda, &function, &target, provisioned))?.status(ACCEPTED))
}

pub(super) async fn get_provisioned_concurrency_config(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let (name, qualifier) = (input.text("FunctionName"), input.text("Qualifier"));
    let action = "GetProvisionedConcurrencyConfig";
    let (named, target) = read(&ctx, action, name.unwrap_or_default(), qualifier.unwrap_or_default())?;
    let function = lambda.functions.get(&named.function).ok_or_else(|| function_not_found(named.arn()))?;
    if versions(&function, &target).is_empty() {
        return Err(function_not_found(named.arn()));
    }
    let provisioned = function.attached().provisioned.get(&target).copied().ok_or_else(not_found)?;
    Output::json(&Config::new(&lambda, &function, &target, provisioned))
}

pub(super) async fn delete_provisioned_concurrency_config(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let (name, qualifier) = (input.text("FunctionName"), input.text("Qualifier"));
    let action = "DeleteProvisionedConcurrencyConfig";
    let (named, target) = read(&ctx, action, name.unwrap_or_default(), qualifier.unwrap_or_default())?;
    let arn = named.arn();
    let deleted = lambda.functions.attach_share(&named.function, move |attached, function, _| {
        if versions(function, &target).is_empty() {
            return Err(function_not_found(arn));
        }
        attached.provisioned.remove(&target);
        Ok(())
    });
    deleted.await.map_err(refused)??;
    Ok(Output::payload(Bytes::new()).status(NO_CONTENT))
}

pub(super) async fn list_provisioned_concurrency_configs(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let request: ListRequest = input.parse()?;
    let arn = Named::unqualified(&ctx, "ListProvisionedConcurrencyConfigs", &request.function_name)?;
    let function = lambda.functions.get(&arn).ok_or_else(|| function_not_found(&arn))?;
    let after = request.marker.as_deref().map(read_marker).transpose()?;
    let configs = function.attached().provisioned.iter();
    let (page, next) =
        paging::page(configs, |(target, _)| (*target).clone(), after.as_ref(), request.max_items);
    let shown = |(target, provisioned): (&Target, &Provisioned)| Config {
        function_arn: target.qualifier().map(|qualifier| arn.qualified(&qualifier)),
        ..Config::new(&lambda, &function, target, *provisioned)
    };
    Output::json(&Listed {
        provisioned_concurrency_configs: page.into_iter().map(shown).collect(),
        next_marker: next.and_then(|target| Some(paging::encode(&target.qualifier()?.to_string()))),
    })
}

fn read_marker(marker: &str) -> Result<Target, ApiError> {
    let qualifier = Qualifier::parse(&paging::decode(marker)?).map_err(|_| paging::unknown())?;
    Ok(Target::of(Some(&qualifier)))
}
