//! Invoke, and InvokeAsync, its predecessor.

use super::errors::{function_not_found, internal, invalid, unresolved};
use super::named::Named;
use super::{Lambda, access};
use crate::heavy;
use crate::pipeline::{Ctx, Operation, Randomness};
use crate::protocol::{ApiError, Input, Output, well_formed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use martlet_engine::{Limit, Ran, Rejected};
use martlet_environment::Deployment;
use martlet_events::Event;
use martlet_functions::Functions;
use martlet_model::{FunctionArn, Invocation, Timestamp, Trigger, limits, lineage};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

const TRACE_HEADER: &str = "x-amzn-trace-id";
/// Largest event that InvokeAsync takes, in bytes (256 KB).
const INVOKE_ASYNC_BYTES: usize = 256 * 1024;

pub(super) const INVOKE_ASYNC: Operation =
    Operation::new("InvokeAsync", "lambda:InvokeAsync", &["FunctionName", "InvokeArgs"])
        .body_limit(INVOKE_ASYNC_BYTES);

pub(super) async fn invoke(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let name = input.text("FunctionName").unwrap_or_default();
    let named = Named::parse(&ctx, name, input.text("Qualifier"))?;
    // One look at the picture for both, so that policy and version are of one moment.
    let function = lambda.functions.get(&named.function);
    named.permit(
        &ctx,
        "InvokeFunction",
        access::verdict(&ctx, "lambda:InvokeFunction", &named, function.as_deref()),
    )?;
    let function = function.ok_or_else(|| function_not_found(named.arn()))?;
    let deployment = function.resolve(named.qualifier.as_ref()).map_err(unresolved)?;
    let tenant = tenant(&deployment, input.text("TenantId"))?;
    // A payload left out is an empty object to the function.
    let payload = if input.payload.is_empty() { Bytes::from_static(b"{}") } else { input.payload.clone() };
    check(&payload).await?;
    let wanted = lambda.starts.wanted(&ctx)?;
    match input.text("InvocationType") {
        Some("DryRun") => return Ok(Output::empty().status(204)),
        Some("Event") => {
            if payload.len() > limits::ASYNC_REQUEST_BYTES {
                return Err(too_large_for_an_event(payload.len()));
            }
            let event = Event {
                request_id: ctx.request_id.clone(),
                function: named.function,
                qualifier: named.qualifier.map(|qualifier| qualifier.to_string()),
                version: deployment.version.version,
                payload,
                trace_id: trace_id(&ctx),
                tenant,
                accepted: ctx.received,
            };
            lambda.invocations.accept(event).await.map_err(|error| internal(&error))?;
            return Ok(Output::empty().status(202));
        }
        _ => {}
    }
    let invocation = Invocation {
        request_id: ctx.request_id.clone(),
        invoked_arn: named.arn(),
        payload,
        client_context: input.text("ClientContext").map(client_context).transpose()?,
        tenant,
        trace_id: stepped(&lambda.functions, &named.function, &trace_id(&ctx))?,
        accepted: ctx.received,
        trigger: Trigger::Request,
        attempt: 1,
    };
    let Ran { completed, start } =
        lambda.invocations.run(&deployment, invocation, wanted).await.map_err(|error| rejected(&error))?;
    let mut output =
        Output::payload(completed.payload).header("ExecutedVersion", deployment.version.version.to_string());
    if let Some(error) = completed.function_error {
        output = output.header("FunctionError", error.as_str());
    }
    if input.text("LogType") == Some("Tail") {
        output = output.header("LogResult", STANDARD.encode(&completed.log_tail));
    }
    Ok(lambda.starts.tell(output, start))
}

pub(super) async fn invoke_async(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let name = input.text("FunctionName").unwrap_or_default();
    let named = Named::read(&ctx, "InvokeAsync", name, None)?;
    let deployment =
        lambda.functions.resolve(&named.function, named.qualifier.as_ref()).map_err(unresolved)?;
    let tenant = tenant(&deployment, None)?;
    let payload = if input.payload.is_empty() { Bytes::from_static(b"{}") } else { input.payload.clone() };
    check(&payload).await?;
    let event = Event {
        request_id: ctx.request_id.clone(),
        function: named.function,
        qualifier: named.qualifier.map(|qualifier| qualifier.to_string()),
        version: deployment.version.version,
        payload,
        trace_id: trace_id(&ctx),
        tenant,
        accepted: ctx.received,
    };
    lambda.invocations.accept(event).await.map_err(|error| internal(&error))?;
    Ok(Output::empty())
}

/// The tenant that an invocation is for: to be named where tenants have environments of their own, and nowhere else.
pub(crate) fn tenant(deployment: &Deployment, named: Option<&str>) -> Result<Option<Arc<str>>, ApiError> {
    match (deployment.version.configuration.per_tenant, named) {
        (true, None) => Err(invalid(
            "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and \
             try again.",
        )),
        (false, Some(_)) => Err(invalid(
            "The invoked function is not enabled with tenancy configuration. Remove the tenant ID from your request \
             and try again.",
        )),
        (_, named) => Ok(named.map(Into::into)),
    }
}

/// The trace that the function sees: one step further in its lineage.
pub(crate) fn stepped(
    functions: &Functions,
    function: &FunctionArn,
    trace: &str,
) -> Result<String, ApiError> {
    let (trace, judged) = lineage::step(trace, function);
    let allowed = || functions.get(function).is_some_and(|found| found.attached().recursion_allowed);
    if judged.is_err() && !allowed() {
        return Err(ApiError::new(
            "RecursiveInvocationException",
            format!(
                "Lambda has detected your function being invoked in a recursive loop with other Lambda functions or AWS \
                 resources, {} times in the same chain of requests, and has stopped it",
                lineage::MOST_RUNS
            ),
        ));
    }
    Ok(trace)
}

pub(super) async fn check(payload: &Bytes) -> Result<(), ApiError> {
    if !heavy::is_large(payload.len()) {
        return well_formed(payload);
    }
    let payload = payload.clone();
    heavy::elsewhere(move || well_formed(&payload)).await
}

fn too_large_for_an_event(bytes: usize) -> ApiError {
    let text = format!(
        "{bytes} byte payload is too large for the Event invocation type (limit {} bytes)",
        limits::ASYNC_REQUEST_BYTES
    );
    ApiError::new("RequestTooLargeException", text)
}

/// The JSON text in base64 that a mobile SDK sends along.
pub(super) fn client_context(encoded: &str) -> Result<String, ApiError> {
    let refused = |text: &str| ApiError::new("InvalidRequestContentException", text);
    if encoded.len() > limits::CLIENT_CONTEXT_BYTES {
        return Err(refused("Client context must be no more than 3583 bytes when base64-encoded."));
    }
    let decoded = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let object =
        decoded.filter(|text| text.trim_start().starts_with('{') && well_formed(text.as_bytes()).is_ok());
    object.ok_or_else(|| refused("Client context must be a valid Base64-encoded JSON object."))
}

/// The trace that the caller is part of, or the beginning of a new one that nobody samples.
pub(super) fn trace_id(ctx: &Ctx) -> String {
    trace_of(&ctx.headers, ctx.received, &ctx.randomness)
}

/// The same for a request that is no operation's.
pub(crate) fn trace_of(headers: &HeaderMap, received: Timestamp, randomness: &Randomness) -> String {
    let given = headers.get(TRACE_HEADER).and_then(|header| header.to_str().ok()).filter(|header| {
        header.len() <= lineage::LONGEST_TRACE
            && header.contains("Root=")
            && !header.bytes().any(|byte| byte < b' ')
    });
    given.map_or_else(|| new_trace(received, randomness.take()), str::to_owned)
}

fn new_trace(now: Timestamp, random: [u8; 20]) -> String {
    let mut trace = String::with_capacity(80);
    // Writing into memory does not fail.
    let _ = write!(trace, "Root=1-{:08x}-", now.0 / 1000);
    for (at, byte) in random.iter().enumerate() {
        if at == 12 {
            trace.push_str(";Parent=");
        }
        for digit in [byte >> 4, byte & 15] {
            trace.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    trace.push_str(";Sampled=0");
    trace
}

/// `again` is told in whole seconds, as the header has it.
fn throttled(reason: &'static str, again: Duration) -> ApiError {
    let seconds = again.as_millis().div_ceil(1000).max(1);
    ApiError::new("TooManyRequestsException", "Rate Exceeded.")
        .with("Reason", reason)
        .with("retryAfterSeconds", seconds.to_string())
}

pub(crate) fn rejected(rejected: &Rejected) -> ApiError {
    match rejected {
        Rejected::Throttled { limit, again } => throttled(
            match limit {
                Limit::Concurrency | Limit::Growth => "ConcurrentInvocationLimitExceeded",
                Limit::Rate => "FunctionInvocationRateLimitExceeded",
                Limit::Reserved => "ReservedFunctionConcurrentInvocationLimitExceeded",
                Limit::ReservedRate => "ReservedFunctionInvocationRateLimitExceeded",
            },
            *again,
        ),
        Rejected::Overloaded => throttled("FunctionInvocationRateLimitExceeded", Duration::from_secs(1)),
        // The same on every try, so no error that clients retry.
        Rejected::TooLarge { .. } => {
            super::errors::invalid(format!("This machine cannot run it: {rejected}"))
        }
        Rejected::Closing => {
            ApiError::new("ServiceUnavailableException", "The server is shutting down; try again")
                .with_status(503)
        }
        Rejected::StartFailed(_) | Rejected::KeepsDying(_) => internal(rejected),
    }
}
