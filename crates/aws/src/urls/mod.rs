//! Function URLs: HTTP endpoints of functions, by host name (`<id>.lambda-url.<region>.<anything>`) or, where names cannot
//! be had, by path (`/_martlet/url/<id>/`).

mod answer;
mod body;
mod cors;
mod event;
mod index;

pub use index::{Endpoint, UrlIndex};

use crate::lambda::{
    Invocations, Step, Streaming, UrlCall, rejected, stepped, tenant, trace_of, url_may_invoke,
};
use crate::pipeline::Randomness;
use crate::protocol::{ApiError, ERROR_TYPE, REQUEST_ID};
use answer::{NoResponse, Prelude, WITH_PRELUDE};
use body::Body as Streamed;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use martlet_engine::{Ran, Rejected, Wanted};
use martlet_environment::Piece;
use martlet_functions::{Functions, Unresolved};
use martlet_gateway::{Body, Head, Response};
use martlet_identity::Caller;
use martlet_model::{Invocation, RequestId, Timestamp, Trigger};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The path form of every function URL begins so.
pub const URL_PREFIX: &str = "/_martlet/url/";
/// The label that follows the id in a host name.
const LABEL: &str = "lambda-url.";
const TRACE: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// What answers requests to function URLs.
pub struct Urls {
    /// Which there are.
    pub index: Arc<UrlIndex>,
    /// What they lead to.
    pub functions: Functions,
    /// What runs it.
    pub invocations: Arc<dyn Invocations>,
    /// How long a function that streams its answer may be silent between two pieces of it. The whole of it has the time
    /// that the function has.
    pub stream_idle: Duration,
    /// The start that every invocation is given.
    pub wanted: Wanted,
}

/// A request that is for a function URL, whether or not there is that one.
pub(crate) struct Found {
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// Bytes of the path that name the URL and are no part of it.
    prefix: usize,
}

/// What the pipeline knows of a request.
pub(crate) struct Call<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) prefix: usize,
    pub(crate) head: &'a Head,
    pub(crate) body: Bytes,
    pub(crate) peer: SocketAddr,
    pub(crate) caller: Option<&'a Caller>,
    pub(crate) request_id: &'a RequestId,
    pub(crate) received: Timestamp,
    pub(crate) randomness: &'a Randomness,
}

impl Found {
    pub(crate) fn prefix(&self) -> usize {
        self.prefix
    }
}

impl Urls {
    /// The function URL that a request is for; `None` when it is for none, which most are.
    pub(crate) fn find(&self, head: &Head) -> Option<Found> {
        if let Some((id, region)) = host(head).and_then(named) {
            let endpoint = self.index.find(id);
            // Region names have no dots.
            let endpoint = endpoint.filter(|endpoint| endpoint.function.region.as_str() == region);
            return Some(Found { endpoint, prefix: 0 });
        }
        let id = head.uri.path().strip_prefix(URL_PREFIX)?.split('/').next()?;
        Some(Found { endpoint: self.index.find(id), prefix: URL_PREFIX.len() + id.len() })
    }

    /// Whether a request has to be signed. What browsers ask before they may sign is not.
    pub(crate) fn wants_signature(endpoint: &Endpoint, head: &Head) -> bool {
        endpoint.url.signed
            && !(endpoint.url.cors.is_some() && cors::is_preflight(&head.method, &head.headers))
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, call: Call<'_>) -> Response {
        let rules = call.endpoint.url.cors.as_ref();
        let trace_id = trace_of(&call.head.headers, call.received, call.randomness);
        let mut response = match rules {
            Some(rules) if cors::is_preflight(&call.head.method, &call.head.headers) => {
                cors::preflight(rules, &call.head.headers)
            }
            _ => {
                let mut response = self.invoke(&call, trace_id.clone()).await;
                if let Some(rules) = rules {
                    cors::mark(rules, &call.head.headers, response.headers_mut());
                }
                response
            }
        };
        let headers = response.headers_mut();
        for (name, value) in [(REQUEST_ID, call.request_id.as_str()), (TRACE, &trace_id)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        response
    }

    async fn invoke(&self, call: &Call<'_>, trace_id: String) -> Response {
        let endpoint = call.endpoint;
        let Some(function) = self.functions.get(&endpoint.function) else { return forbidden() };
        let qualifier = endpoint.qualifier.as_ref();
        let signer = call.caller.map(|caller| &*caller.principal);
        let asked = UrlCall { signer, source_ip: call.peer.ip(), now: call.received };
        if !url_may_invoke(&function, qualifier, &asked) {
            return forbidden();
        }
        let deployment = match function.resolve(qualifier) {
            Ok(deployment) => deployment,
            Err(Unresolved::NotFound(_)) => return forbidden(),
            Err(error @ (Unresolved::NotActive(_) | Unresolved::RuntimeGone(_))) => {
                return message(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "ServiceUnavailableException",
                    &error.to_string(),
                );
            }
        };
        if let Err(error) = tenant(&deployment, None) {
            return message(StatusCode::BAD_REQUEST, &error.code, &error.message);
        }
        let payload = event::event(&request(call, &trace_id));
        let trace_id = match stepped(&self.functions, &endpoint.function, &trace_id) {
            Ok(trace_id) => trace_id,
            Err(error) => return message(StatusCode::TOO_MANY_REQUESTS, &error.code, &error.message),
        };
        let invocation = Invocation {
            request_id: call.request_id.clone(),
            invoked_arn: match &endpoint.qualifier {
                Some(qualifier) => endpoint.function.qualified(qualifier),
                None => endpoint.function.to_string(),
            },
            payload,
            client_context: None,
            tenant: None,
            trace_id,
            accepted: call.received,
            trigger: Trigger::Request,
            attempt: 1,
        };
        if endpoint.url.streams {
            return self.streamed(self.invocations.stream(deployment, invocation, self.wanted)).await;
        }
        match self.invocations.run(&deployment, invocation, self.wanted).await {
            Ok(Ran { completed, .. }) if completed.function_error.is_some() => failed(),
            Ok(Ran { completed, .. }) => match answer::whole(&completed.payload) {
                Ok(response) => response.map(Body::from),
                Err(wrong) => no_response(&wrong),
            },
            Err(error) => refused(&error),
        }
    }

    async fn streamed(&self, mut streaming: Streaming) -> Response {
        let content_type = match streaming.next().await {
            Step::Piece(Piece::Begun(content_type)) => content_type,
            Step::Piece(Piece::Data(first)) => return self.going_on(Response::default(), first, streaming),
            Step::End(ended) => return ended_early(ended),
        };
        if content_type != WITH_PRELUDE {
            let mut response = Response::default();
            if let Ok(value) = HeaderValue::try_from(content_type) {
                response.headers_mut().insert(header::CONTENT_TYPE, value);
            }
            return self.going_on(response, Bytes::new(), streaming);
        }
        let mut prelude = Prelude::default();
        loop {
            match streaming.next().await {
                Step::Piece(Piece::Begun(_)) => {}
                Step::Piece(Piece::Data(data)) => match prelude.take(&data) {
                    Ok(None) => {}
                    Ok(Some((response, rest))) => {
                        return self.going_on(response.map(|()| Body::default()), rest, streaming);
                    }
                    Err(wrong) => return no_response(&wrong),
                },
                Step::End(Ok(ran)) if ran.completed.function_error.is_none() => {
                    return no_response(&NoResponse("its prelude does not end"));
                }
                Step::End(ended) => return ended_early(ended),
            }
        }
    }

    fn going_on(&self, response: Response, first: Bytes, streaming: Streaming) -> Response {
        response.map(|_| Body::stream(Streamed::new(first, streaming, self.stream_idle)))
    }
}

fn request<'a>(call: &'a Call<'_>, trace_id: &'a str) -> event::Request<'a> {
    let path = &call.head.uri.path()[call.prefix..];
    let host = host(call.head).unwrap_or_default();
    event::Request {
        method: call.head.method.as_str(),
        path: if path.is_empty() { "/" } else { path },
        query: call.head.uri.query().unwrap_or_default(),
        protocol: if call.head.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" },
        headers: &call.head.headers,
        body: &call.body,
        source: call.peer.ip(),
        caller: call.caller,
        id: &call.endpoint.url.id,
        domain: host.split(':').next().unwrap_or_default(),
        request_id: call.request_id,
        received: call.received,
        trace_id,
    }
}

fn host(head: &Head) -> Option<&str> {
    head.headers.get(header::HOST)?.to_str().ok()
}

/// The id and the region in a host name, if it is one of a function URL.
fn named(host: &str) -> Option<(&str, &str)> {
    let (id, rest) = host.split_once('.')?;
    let region = rest.strip_prefix(LABEL)?.split(['.', ':']).next()?;
    Some((id, region))
}

fn ended_early(ended: Result<Ran, Rejected>) -> Response {
    match ended {
        Ok(ran) if ran.completed.function_error.is_some() => failed(),
        Ok(_) => Response::default(),
        Err(error) => refused(&error),
    }
}

/// The function has failed; why is in its log, and nobody else's business.
fn failed() -> Response {
    let mut response = Response::new(Bytes::from_static(b"Internal Server Error").into());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn no_response(wrong: &NoResponse) -> Response {
    tracing::info!(reason = wrong.0, "what a function returned to its URL cannot be sent");
    failed()
}

fn refused(error: &Rejected) -> Response {
    let error = rejected(error);
    match &*error.code {
        "TooManyRequestsException" => {
            let mut response = message(StatusCode::TOO_MANY_REQUESTS, &error.code, &error.message);
            let again = error.extra.iter().find(|(member, _)| *member == "retryAfterSeconds");
            if let Some(again) = again.and_then(|(_, again)| HeaderValue::from_str(again).ok()) {
                response.headers_mut().insert(header::RETRY_AFTER, again);
            }
            response
        }
        _ => {
            let status = StatusCode::from_u16(error.status).ok().filter(StatusCode::is_server_error);
            message(status.unwrap_or(StatusCode::BAD_GATEWAY), &error.code, &error.message)
        }
    }
}

/// A refusal by a step before the function, in the words that function URLs use.
pub(crate) fn refusal(error: &ApiError, request_id: &RequestId) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::FORBIDDEN);
    let mut response = message(status, &error.code, &error.message);
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// There is no such URL, or it may not be used.
pub(crate) fn unknown() -> ApiError {
    ApiError::new("AccessDeniedException", "Forbidden").with_status(403)
}

fn forbidden() -> Response {
    message(StatusCode::FORBIDDEN, "AccessDeniedException", "Forbidden")
}

fn message(status: StatusCode, code: &str, text: &str) -> Response {
    let body = serde_json::json!({ "Message": text }).to_string();
    let mut response = Response::new(Bytes::from(body).into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(code) = HeaderValue::from_str(code) {
        headers.insert(ERROR_TYPE, code);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_of_function_urls_are_told_from_others() {
        for (host, expected) in [
            ("abc.lambda-url.us-east-1.localhost:4566", Some(("abc", "us-east-1"))),
            ("abc.lambda-url.us-east-1.on.aws", Some(("abc", "us-east-1"))),
            ("abc.lambda-url.eu-west-3", Some(("abc", "eu-west-3"))),
            ("localhost:4566", None),
            ("127.0.0.1:4566", None),
            ("lambda-url.us-east-1.localhost", None),
            ("abc.lambda.us-east-1.localhost", None),
        ] {
            assert_eq!(named(host), expected, "{host}");
        }
    }
}
