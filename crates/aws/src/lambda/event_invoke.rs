//! How accepted events are treated: the five operations of FunctionEventInvokeConfig, and what a destination may be.

use super::errors::{invalid, refused};
use super::named::Named;
use super::request::DeadLetterConfig;
use super::{Lambda, paging};
use crate::pipeline::{Ctx, Operation};
use crate::protocol::time::EpochSeconds;
use crate::protocol::{ApiError, Input, Output};
use martlet_functions::{EventInvoke, Function, FunctionsError, Target, Unresolved};
use martlet_model::{FunctionArn, FunctionRef, Qualifier};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const MEMBERS: &[&str] =
    &["FunctionName", "Qualifier", "MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig"];

pub(super) const PUT: Operation =
    Operation::new("PutFunctionEventInvokeConfig", "lambda:PutFunctionEventInvokeConfig", MEMBERS);

pub(super) const UPDATE: Operation =
    Operation::new("UpdateFunctionEventInvokeConfig", "lambda:UpdateFunctionEventInvokeConfig", MEMBERS);

pub(super) const GET: Operation = Operation::new(
    "GetFunctionEventInvokeConfig",
    "lambda:GetFunctionEventInvokeConfig",
    &["FunctionName", "Qualifier"],
);

pub(super) const DELETE: Operation = Operation::new(
    "DeleteFunctionEventInvokeConfig",
    "lambda:DeleteFunctionEventInvokeConfig",
    &["FunctionName", "Qualifier"],
);

pub(super) const LIST: Operation = Operation::new(
    "ListFunctionEventInvokeConfigs",
    "lambda:ListFunctionEventInvokeConfigs",
    &["FunctionName", "Marker", "MaxItems"],
);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    function_name: String,
    qualifier: Option<String>,
    maximum_retry_attempts: Option<u32>,
    maximum_event_age_in_seconds: Option<u32>,
    destination_config: Option<DestinationConfig>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DestinationConfig {
    #[serde(default)]
    on_success: Option<OnEnd>,
    #[serde(default)]
    on_failure: Option<OnEnd>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct OnEnd {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
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
struct Shown {
    last_modified: EpochSeconds,
    function_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum_retry_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum_event_age_in_seconds: Option<u32>,
    destination_config: DestinationConfig,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    function_event_invoke_configs: Vec<Shown>,
}

pub(super) async fn put(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    set(&lambda, &ctx, input, "PutFunctionEventInvokeConfig", |_| Some(EventInvoke::default())).await
}

pub(super) async fn update(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    set(&lambda, &ctx, input, "UpdateFunctionEventInvokeConfig", |now| now.cloned()).await
}

/// Sets what was asked for on top of what `base` makes of what there is.
async fn set(
    lambda: &Lambda,
    ctx: &Ctx,
    input: Input,
    action: &str,
    base: impl FnOnce(Option<&EventInvoke>) -> Option<EventInvoke> + Send + 'static,
) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let named = Named::read(ctx, action, &request.function_name, request.qualifier.as_deref())?;
    if request.maximum_retry_attempts.is_none()
        && request.maximum_event_age_in_seconds.is_none()
        && request.destination_config.is_none()
    {
        return Err(invalid("You must specify at least one of error handling or destination setting."));
    }
    let destinations = request.destination_config.unwrap_or_default();
    let asked = |end: Option<OnEnd>| end.map(|end| end.destination.filter(|arn| !arn.is_empty()));
    let on_success = asked(destinations.on_success);
    let on_failure = asked(destinations.on_failure);
    for arn in [&on_success, &on_failure].into_iter().flatten().flatten() {
        if check_target(lambda, ctx, arn, "destination")? == named.function {
            return Err(invalid("You can't specify the function as a destination for itself."));
        }
    }
    let (target, qualifier) = (Target::of(named.qualifier.as_ref()), named.qualifier.clone());
    let (retries, age_seconds) = (request.maximum_retry_attempts, request.maximum_event_age_in_seconds);
    let modified = ctx.received;
    let missing = none_there(&named.function, named.qualifier.as_ref());
    let edited = lambda.functions.attach(&named.function, move |attached, function| {
        if !exists(function, qualifier.as_ref()) {
            return Err(no_function());
        }
        let base = base(attached.event_invoke.get(&target)).ok_or(missing)?;
        let edited = EventInvoke {
            retries: retries.or(base.retries),
            age_seconds: age_seconds.or(base.age_seconds),
            on_success: on_success.unwrap_or(base.on_success),
            on_failure: on_failure.unwrap_or(base.on_failure),
            modified,
        };
        attached.event_invoke.insert(target, edited.clone());
        Ok(edited)
    });
    let edited = edited.await.map_err(gone)??;
    Output::json(&shown(&named.function, named.qualifier.as_ref(), &edited))
}

pub(super) async fn get(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let named = named(&ctx, "GetFunctionEventInvokeConfig", &input)?;
    let function = lambda.functions.get(&named.function).ok_or_else(no_function)?;
    let found = function.attached().event_invoke.get(&Target::of(named.qualifier.as_ref()));
    let found = found.ok_or_else(|| none_there(&named.function, named.qualifier.as_ref()))?;
    Output::json(&shown(&named.function, named.qualifier.as_ref(), found))
}

pub(super) async fn delete(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let named = named(&ctx, "DeleteFunctionEventInvokeConfig", &input)?;
    let target = Target::of(named.qualifier.as_ref());
    let removed = lambda
        .functions
        .attach(&named.function, move |attached, _| Ok::<_, ApiError>(attached.event_invoke.remove(&target)));
    match removed.await.map_err(gone)?? {
        Some(_) => Ok(Output::empty()),
        None => Err(none_there(&named.function, named.qualifier.as_ref())),
    }
}

pub(super) async fn list(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: ListRequest = input.parse()?;
    let arn = Named::unqualified(&ctx, "ListFunctionEventInvokeConfigs", &request.function_name)?;
    let function = lambda.functions.get(&arn).ok_or_else(no_function)?;
    let after = request.marker.as_deref().map(read_marker).transpose()?;
    let all = function.attached().event_invoke.iter();
    let (page, next) = paging::page(all, |(target, _)| (*target).clone(), after.as_ref(), request.max_items);
    let marker = |target: Target| target.qualifier().unwrap_or(Qualifier::Latest).to_string();
    Output::json(&Listed {
        next_marker: next.map(|target| paging::encode(&marker(target))),
        function_event_invoke_configs: page
            .into_iter()
            .map(|(target, found)| shown(&arn, target.qualifier().as_ref(), found))
            .collect(),
    })
}

fn read_marker(marker: &str) -> Result<Target, ApiError> {
    let qualifier = Qualifier::parse(&paging::decode(marker)?).map_err(|_| paging::unknown())?;
    Ok(Target::of(Some(&qualifier)))
}

fn named(ctx: &Ctx, action: &str, input: &Input) -> Result<Named, ApiError> {
    Named::read(ctx, action, input.text("FunctionName").unwrap_or_default(), input.text("Qualifier"))
}

fn exists(function: &Function, qualifier: Option<&Qualifier>) -> bool {
    match qualifier {
        None | Some(Qualifier::Latest) => true,
        Some(Qualifier::Version(number)) => {
            function.version(martlet_model::Version::Published(*number)).is_some()
        }
        Some(Qualifier::Alias(name)) => function.aliases().contains_key(name),
    }
}

fn no_function() -> ApiError {
    ApiError::new("ResourceNotFoundException", "The function doesn't exist.")
}

/// What the registry says, in the words of these operations.
fn gone(error: FunctionsError) -> ApiError {
    match error {
        FunctionsError::NotFound(_) => no_function(),
        other => refused(other),
    }
}

fn none_there(function: &FunctionArn, qualifier: Option<&Qualifier>) -> ApiError {
    let arn = function.qualified(qualifier.unwrap_or(&Qualifier::Latest));
    ApiError::new(
        "ResourceNotFoundException",
        format!("The function {arn} doesn't have an EventInvokeConfig"),
    )
}

fn shown(function: &FunctionArn, qualifier: Option<&Qualifier>, found: &EventInvoke) -> Shown {
    let end = |arn: &Option<String>| Some(OnEnd { destination: arn.clone() });
    Shown {
        last_modified: EpochSeconds(found.modified),
        function_arn: function.qualified(qualifier.unwrap_or(&Qualifier::Latest)),
        maximum_retry_attempts: found.retries,
        maximum_event_age_in_seconds: found.age_seconds,
        destination_config: DestinationConfig {
            on_success: end(&found.on_success),
            on_failure: end(&found.on_failure),
        },
    }
}

/// Checks where a function's dead letters are to go.
pub(super) fn check_dead_letter(
    lambda: &Lambda,
    ctx: &Ctx,
    asked: Option<&DeadLetterConfig>,
) -> Result<(), ApiError> {
    match asked.and_then(|asked| asked.target_arn.as_deref()).filter(|arn| !arn.is_empty()) {
        Some(arn) => check_target(lambda, ctx, arn, "DeadLetterConfig target").map(drop),
        None => Ok(()),
    }
}

/// The function that a target's ARN names. Targets of services that are not built are refused by the service's name: they would
/// be kept and never told anything.
fn check_target(lambda: &Lambda, ctx: &Ctx, arn: &str, what: &str) -> Result<FunctionArn, ApiError> {
    let wrong = || invalid(format!("The {what} ARN {arn} is invalid."));
    let service = match arn.split(':').nth(2) {
        Some("lambda") => None,
        _ if arn.starts_with("kafka://") => Some("Apache Kafka"),
        Some("sqs") => Some("Amazon SQS"),
        Some("sns") => Some("Amazon SNS"),
        Some("events") => Some("Amazon EventBridge"),
        Some("s3") => Some("Amazon S3"),
        _ => return Err(wrong()),
    };
    if let Some(service) = service {
        return Err(invalid(format!(
            "{arn} is a target in {service}, which is not implemented in this version of Martlet; a {what} may be a function"
        )));
    }
    let found = FunctionRef::parse(arn).map_err(|_| wrong())?;
    let (Some(region), Some(account)) = (found.region, found.account) else { return Err(wrong()) };
    if region != ctx.region || account != *ctx.account() {
        return Err(invalid(format!(
            "The {what} {arn} is in another account or region than the function, which is not implemented in this version of \
             Martlet"
        )));
    }
    let function = FunctionArn { region, account, name: found.name };
    match lambda.functions.resolve(&function, found.qualifier.as_ref()) {
        Err(Unresolved::NotFound(_)) => Err(wrong()),
        Ok(_) | Err(Unresolved::NotActive(_) | Unresolved::RuntimeGone(_)) => Ok(function),
    }
}
