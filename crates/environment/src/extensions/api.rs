//! The Extensions API over HTTP, on the listener that the Runtime API is on.

use super::Desk;
use super::registry::Refusal;
use super::telemetry::{Api, Refused};
use crate::runtime_api::{Answer, Caller};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Instant;

const NAME: &str = "lambda-extension-name";
const IDENTIFIER: &str = "lambda-extension-identifier";
const EVENT_IDENTIFIER: &str = "lambda-extension-event-identifier";
const FEATURES: &str = "lambda-extension-accept-feature";
const ERROR_TYPE: &str = "lambda-extension-function-error-type";
/// Longest body of a call, in bytes.
const BODY_BYTES: usize = 256 * 1024;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Registration {
    events: Vec<String>,
    configuration_keys: Vec<String>,
}

/// Answers a call below `/2020-01-01/`; `None` when there is no such call.
pub(super) async fn serve(
    desk: &Desk,
    path: &[&str],
    request: Request<Incoming>,
    caller: &dyn Caller,
) -> Option<Answer> {
    let method = match path {
        ["extension", "event", "next"] => Method::GET,
        ["extension", "register"] | ["extension", "init" | "exit", "error"] => Method::POST,
        _ => return None,
    };
    if request.method() != method {
        return Some(answer(StatusCode::METHOD_NOT_ALLOWED, Bytes::new()));
    }
    let done = match path[1] {
        "register" => register(desk, request).await,
        "event" => next(desk, request.headers(), caller).await,
        phase => {
            let init = phase == "init";
            let headers = request.headers().clone();
            discard(request.into_body()).await;
            failed(desk, &headers, init)
        }
    };
    Some(done.unwrap_or_else(|refusal| refused(&refusal)))
}

async fn register(desk: &Desk, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES).collect().await;
    let invalid = |message: String| Refusal { error_type: "InvalidRequestFormat", message };
    let body = body.map_err(|error| invalid(error.to_string()))?.to_bytes();
    let name = header(&head.headers, NAME);
    if name.is_empty() {
        return Err(Refusal {
            error_type: "Extension.InvalidExtensionName",
            message: "Empty extension name".into(),
        });
    }
    let registration: Registration =
        serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?;
    if !registration.configuration_keys.is_empty() {
        let message = "configurationKeys are deprecated; use environment variables instead";
        return Err(invalid(message.to_owned()));
    }
    let id = super::uuid();
    let mut desk = desk.lock();
    desk.registry.register(name, &registration.events, &id)?;
    let mut shown = desk.registry.function().clone();
    if !header(&head.headers, FEATURES).split(',').any(|feature| feature.trim() == "accountId") {
        shown.account_id = None;
    }
    let mut registered = answer(StatusCode::OK, serde_json::to_vec(&shown).unwrap_or_default().into());
    if let Ok(id) = HeaderValue::from_str(&id) {
        registered.headers_mut().insert(IDENTIFIER, id);
    }
    Ok(registered)
}

async fn next(desk: &Desk, headers: &HeaderMap, caller: &dyn Caller) -> Result<Answer, Refusal> {
    let id = identifier(headers)?;
    desk.lock().registry.next(id)?;
    let event = poll_fn(|_| {
        let mut desk = desk.lock();
        // Not woken by the event: whoever puts one up polls every connection right after. An event is not given to nobody.
        if !desk.registry.has_event(id) || caller.is_gone() {
            return Poll::Pending;
        }
        desk.registry.event(id).map_or(Poll::Pending, Poll::Ready)
    })
    .await;
    let mut told = answer(StatusCode::OK, event.into());
    if let Ok(id) = HeaderValue::from_str(&super::uuid()) {
        told.headers_mut().insert(EVENT_IDENTIFIER, id);
    }
    Ok(told)
}

fn failed(desk: &Desk, headers: &HeaderMap, init: bool) -> Result<Answer, Refusal> {
    let id = identifier(headers)?;
    let error_type = header(headers, ERROR_TYPE);
    if error_type.is_empty() {
        let message = "Lambda-Extension-Function-Error-Type not found".to_owned();
        return Err(Refusal { error_type: "Extension.MissingHeader", message });
    }
    let mut desk = desk.lock();
    match init {
        true => desk.registry.init_error(id, error_type)?,
        false => desk.registry.exit_error(id, error_type)?,
    }
    Ok(answer(StatusCode::ACCEPTED, Bytes::from_static(b"{\"status\":\"OK\"}\n")))
}

/// Answers a subscription.
pub(super) async fn subscribe(desk: &Desk, api: Api, request: Request<Incoming>) -> Answer {
    if request.method() != Method::PUT {
        return answer(StatusCode::METHOD_NOT_ALLOWED, Bytes::new());
    }
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES).collect().await.map(http_body_util::Collected::to_bytes);
    let mut desk = desk.lock();
    let name = match identifier(&head.headers).and_then(|id| desk.registry.name(id).map(str::to_owned)) {
        Ok(name) => name,
        Err(refusal) => return refused(&refusal),
    };
    let now = (martlet_telemetry::system_clock()(), Instant::now());
    let subscribed = match body {
        // As where there is no such API: extensions know that and go on.
        Ok(_) if !desk.deliverable => {
            let message = "telemetry is for functions that have an extension with a process of its own";
            Err(Refused(202, "Telemetry.NotSupported".to_owned(), message.to_owned()))
        }
        Ok(body) => desk.telemetry.subscribe(&name, api, &body, now),
        Err(error) => Err(Refused(400, "ValidationError".to_owned(), error.to_string())),
    };
    match subscribed {
        Ok(standing) => {
            desk.subscribed.extend(standing);
            answer(StatusCode::OK, Bytes::from_static(b"\"OK\""))
        }
        Err(Refused(status, error_type, message)) => {
            let document = serde_json::json!({ "errorMessage": message, "errorType": error_type });
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            answer(status, format!("{document}\n").into())
        }
    }
}

/// What the caller got when it registered.
pub(super) fn identifier(headers: &HeaderMap) -> Result<&str, Refusal> {
    let id = header(headers, IDENTIFIER);
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    match id {
        "" => Err(Refusal {
            error_type: "Extension.MissingExtensionIdentifier",
            message: "Missing Lambda-Extension-Identifier header".into(),
        }),
        id if id.len() == 36 && hex(id) => Ok(id),
        _ => Err(Refusal {
            error_type: "Extension.InvalidExtensionIdentifier",
            message: "Invalid Lambda-Extension-Identifier".into(),
        }),
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Reads a body that nobody wants: a caller that is still writing does not see what it is answered.
async fn discard(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

pub(super) fn refused(refusal: &Refusal) -> Answer {
    let document = serde_json::json!({ "errorMessage": refusal.message, "errorType": refusal.error_type });
    answer(StatusCode::FORBIDDEN, format!("{document}\n").into())
}

pub(super) fn answer(status: StatusCode, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
