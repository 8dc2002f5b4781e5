//! PutRuntimeManagementConfig and GetRuntimeManagementConfig.
//!
//! A machine has one version of each runtime. `Auto` goes with it; `Manual` stays with one, so that a version does not run
//! once the machine has another. `FunctionUpdate` would need the old interpreter beside the new one, and is refused.

use super::Lambda;
use super::configuration::runtime_version_arn;
use super::errors::{function_not_found, invalid, refused};
use super::named::Named;
use crate::pipeline::{Ctx, Operation};
use crate::protocol::{ApiError, Input, Output};
use martlet_functions::{Function, RuntimeManagement, Target, VersionRecord};
use martlet_model::{Qualifier, Version};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const PUT: Operation = Operation::new(
    "PutRuntimeManagementConfig",
    "lambda:PutRuntimeManagementConfig",
    &["FunctionName", "Qualifier", "UpdateRuntimeOn", "RuntimeVersionArn"],
);

pub(super) const GET: Operation = Operation::new(
    "GetRuntimeManagementConfig",
    "lambda:GetRuntimeManagementConfig",
    &["FunctionName", "Qualifier"],
);

const AUTO: &str = "Auto";
const MANUAL: &str = "Manual";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    function_name: String,
    qualifier: Option<String>,
    update_runtime_on: Option<String>,
    runtime_version_arn: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    update_runtime_on: &'a str,
    function_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime_version_arn: Option<&'a str>,
}

pub(super) async fn put(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let named = read(&ctx, "PutRuntimeManagementConfig", &request)?;
    let update_on = request.update_runtime_on.unwrap_or_default();
    let runtime_arn = request.runtime_version_arn;
    let (target, missing, runtimes) =
        (Target::of(named.qualifier.as_ref()), named.arn(), lambda.runtimes.clone());
    let (asked, arn) = ((update_on.clone(), runtime_arn.clone()), named.function.clone());
    let put = lambda.functions.attach(&arn, move |attached, function| {
        let record = version(function, named.qualifier.as_ref()).ok_or_else(|| function_not_found(missing))?;
        match (update_on.as_str(), &runtime_arn) {
            (AUTO, None) => {
                attached.runtime_management.remove(&target);
                return Ok(named.arn());
            }
            (MANUAL, Some(wanted)) => {
                let here = runtime_version_arn(&runtimes, &record.version);
                if *wanted != here {
                    return Err(invalid(format!(
                        "RuntimeVersionArn {wanted} is not a runtime of this machine; the function's is {here}"
                    )));
                }
            }
            (MANUAL, None) => {
                return Err(invalid("RuntimeVersionArn is required when UpdateRuntimeOn is Manual"));
            }
            (AUTO, Some(_)) => {
                return Err(invalid("RuntimeVersionArn can only be given when UpdateRuntimeOn is Manual"));
            }
            (other, _) => {
                return Err(invalid(format!(
                    "UpdateRuntimeOn {other} is not supported by this version of Martlet: a machine has one version of \
                     each runtime, so take Auto or Manual"
                )));
            }
        }
        attached.runtime_management.insert(target, RuntimeManagement { update_on, runtime_arn });
        Ok(named.arn())
    });
    let function_arn = put.await.map_err(refused)??;
    let (update_runtime_on, runtime_version_arn) = (&asked.0, asked.1.as_deref());
    Output::json(&Answer { update_runtime_on, function_arn, runtime_version_arn })
}

pub(super) async fn get(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let named = read(&ctx, "GetRuntimeManagementConfig", &input.parse()?)?;
    let function = lambda.functions.get(&named.function).ok_or_else(|| function_not_found(named.arn()))?;
    version(&function, named.qualifier.as_ref()).ok_or_else(|| function_not_found(named.arn()))?;
    let set = function.attached().runtime_management.get(&Target::of(named.qualifier.as_ref()));
    Output::json(&Answer {
        update_runtime_on: set.map_or(AUTO, |set| &set.update_on),
        function_arn: named.arn(),
        runtime_version_arn: set.and_then(|set| set.runtime_arn.as_deref()),
    })
}

fn read(ctx: &Ctx, action: &str, request: &Request) -> Result<Named, ApiError> {
    let named = Named::read(ctx, action, &request.function_name, request.qualifier.as_deref())?;
    match named.qualifier {
        Some(Qualifier::Alias(_)) => {
            Err(invalid("This operation is permitted on functions and their versions, not on aliases"))
        }
        _ => Ok(named),
    }
}

fn version<'f>(function: &'f Function, qualifier: Option<&Qualifier>) -> Option<&'f VersionRecord> {
    match qualifier {
        Some(Qualifier::Version(number)) => function.version(Version::Published(*number)),
        _ => Some(function.latest()),
    }
}
