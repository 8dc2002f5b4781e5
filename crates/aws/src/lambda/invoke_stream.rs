//! InvokeWithResponseStream.

use super::errors::{function_not_found, unresolved};
use super::invoke::{check, client_context, rejected, stepped, tenant, trace_id};
use super::named::Named;
use super::streaming::{Step, Streaming};
use super::{Lambda, access};
use crate::pipeline::{Ctx, Operation};
use crate::protocol::{ApiError, EVENT_STREAM, Input, Output, event};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use martlet_engine::{Ran, Rejected};
use martlet_environment::Piece;
use martlet_gateway::{Broken, Source};
use martlet_model::{Invocation, Trigger, limits};
use serde::Serialize;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

pub(super) const INVOKE_STREAM: Operation = Operation::new(
    "InvokeWithResponseStream",
    "lambda:InvokeFunction",
    &["FunctionName", "InvocationType", "LogType", "ClientContext", "Payload", "Qualifier", "TenantId"],
)
.body_limit(limits::SYNC_REQUEST_BYTES);

pub(super) async fn invoke_with_response_stream(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let name = input.text("FunctionName").unwrap_or_default();
    let named = Named::parse(&ctx, name, input.text("Qualifier"))?;
    let function = lambda.functions.get(&named.function);
    let verdict = access::verdict(&ctx, "lambda:InvokeFunction", &named, function.as_deref());
    named.permit(&ctx, "InvokeFunction", verdict)?;
    let function = function.ok_or_else(|| function_not_found(named.arn()))?;
    let deployment = function.resolve(named.qualifier.as_ref()).map_err(unresolved)?;
    let tenant = tenant(&deployment, input.text("TenantId"))?;
    let payload = if input.payload.is_empty() { Bytes::from_static(b"{}") } else { input.payload.clone() };
    check(&payload).await?;
    let wanted = lambda.starts.wanted(&ctx)?;
    if input.text("InvocationType") == Some("DryRun") {
        return Ok(Output::empty().status(204));
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
    let version = deployment.version.version.to_string();
    let mut streaming = lambda.invocations.stream(deployment, invocation, wanted);
    // Until the function answers, what goes wrong is told by the status.
    let first = match streaming.next().await {
        Step::Piece(Piece::Begun(_)) => None,
        Step::Piece(Piece::Data(data)) => Some(chunk(&data)),
        Step::End(Ok(ran)) => {
            let events = complete(&ran, input.text("LogType") == Some("Tail"));
            return Ok(Output::stream(EVENT_STREAM, Over(Some(events))).header("ExecutedVersion", version));
        }
        Step::End(Err(error)) => return Err(rejected(&error)),
    };
    let tail = input.text("LogType") == Some("Tail");
    let events = Events { streaming: Some(streaming), first, tail };
    Ok(Output::stream(EVENT_STREAM, events).header("ExecutedVersion", version))
}

/// The response as events: its chunks, and how it ended.
struct Events {
    streaming: Option<Streaming>,
    first: Option<Bytes>,
    tail: bool,
}

impl Source for Events {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            let Some(streaming) = &mut self.streaming else { return Poll::Ready(None) };
            let event = match ready!(streaming.poll_next(context)) {
                Step::Piece(Piece::Begun(_)) => continue,
                Step::Piece(Piece::Data(data)) => chunk(&data),
                Step::End(ended) => {
                    self.streaming = None;
                    match ended {
                        Ok(ran) => complete(&ran, self.tail),
                        Err(error) => failed(&error),
                    }
                }
            };
            return Poll::Ready(Some(Ok(event)));
        }
    }
}

/// A stream of one event.
struct Over(Option<Bytes>);

impl Source for Over {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        Poll::Ready(self.0.take().map(Ok))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Complete<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_details: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_result: Option<String>,
}

fn chunk(data: &[u8]) -> Bytes {
    event("PayloadChunk", "application/octet-stream", data)
}

fn complete(ran: &Ran, tail: bool) -> Bytes {
    let completed = &ran.completed;
    let details = String::from_utf8_lossy(&completed.payload);
    let error = completed.function_error;
    invoke_complete(&Complete {
        error_code: error.map(|error| error.as_str()),
        error_details: error.map(|_| &*details),
        log_result: tail.then(|| STANDARD.encode(&completed.log_tail)),
    })
}

fn failed(error: &Rejected) -> Bytes {
    let error = rejected(error);
    invoke_complete(&Complete {
        error_code: Some(&error.code),
        error_details: Some(&error.message),
        log_result: None,
    })
}

fn invoke_complete(complete: &Complete<'_>) -> Bytes {
    event("InvokeComplete", "application/json", &serde_json::to_vec(complete).unwrap_or_default())
}
