//! The one front door: every request, whatever its protocol, passes the same steps in the same order.
//!
//! accept, limits, authenticate, route, decode, authorise, handle, encode, record. [`Pipeline`] is these steps as the
//! gateway's [`Door`]; a service adds operations, never a second door.

mod applied;
mod internal;
mod randomness;
mod record;
mod route;
mod service;

pub use internal::{INTERNAL_PREFIX, INTERNAL_SERVICE, Internal};
pub use randomness::Randomness;
pub use service::{Ctx, DEFAULT_BODY_LIMIT, Operation, Policies, ResourcePolicies};
pub use service::{Service, ServiceBuilder, ServiceError};

use crate::heavy;
use crate::protocol::{self, ApiError, Dialect, Input, Output};
use crate::urls::{self, Call, Endpoint, Found, Urls};
use bytes::Bytes;
use martlet_gateway::{Admission, Body, BodyFault, Door, Head, Response};
use martlet_identity::{AuthError, Authenticator, Caller, Claim, Payload, RequestHead};
use martlet_model::{RequestId, Timestamp, limits};
use record::Record;
use route::Target;
use service::Built;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

/// The service that signatures of requests to function URLs are scoped to.
const URL_SERVICE: &str = "lambda";

/// The time of day, as the pipeline reads it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The steps, with what they need: who may call, and which services there are.
pub struct Pipeline {
    authenticator: Arc<Authenticator>,
    services: Arc<[Service]>,
    internal: Arc<dyn Internal>,
    urls: Option<Urls>,
    clock: Clock,
    randomness: Arc<Randomness>,
}

/// What the first steps know about a request, for the later ones.
pub struct Ticket {
    request_id: RequestId,
    received: Timestamp,
    started: Instant,
    way: Way,
}

enum Way {
    Operation { claim: Claim, target: Target },
    Internal { claim: Option<Claim> },
    Url { endpoint: Arc<Endpoint>, prefix: usize, claim: Option<Claim> },
}

/// An answer on its way out, with what the record wants to know of it.
struct Answer {
    response: Response,
    code: Option<String>,
    caller: Option<Caller>,
}

impl Pipeline {
    /// A pipeline over `services`, in which no two have the same signing name.
    #[must_use]
    pub fn new(
        authenticator: Authenticator,
        services: Vec<Service>,
        internal: Arc<dyn Internal>,
        clock: Clock,
    ) -> Self {
        Self {
            authenticator: Arc::new(authenticator),
            services: services.into(),
            internal,
            urls: None,
            clock,
            randomness: Arc::new(Randomness::new()),
        }
    }

    /// The same with function URLs.
    #[must_use]
    pub fn with_urls(mut self, urls: Urls) -> Self {
        self.urls = Some(urls);
        self
    }

    /// Authenticate, as far as the head allows, for a request to a function URL.
    fn url_way(&self, head: &Head, found: Found, now: Timestamp) -> Result<Way, ApiError> {
        let prefix = found.prefix();
        let endpoint = found.endpoint.ok_or_else(urls::unknown)?;
        if !Urls::wants_signature(&endpoint, head) {
            return Ok(Way::Url { endpoint, prefix, claim: None });
        }
        let claim =
            self.authenticator.precheck(&RequestHead::from(head), now).map_err(|error| match error {
                AuthError::Missing => urls::unknown(),
                error => refused(head, &error),
            })?;
        if claim.service() != URL_SERVICE {
            let text = format!("Credential should be scoped to correct service: '{URL_SERVICE}'.");
            return Err(refused(head, &AuthError::Invalid(text)));
        }
        Ok(Way::Url { endpoint, prefix, claim: Some(claim) })
    }

    /// Authenticate, as far as the head allows, and route.
    fn way(&self, head: &Head, now: Timestamp) -> Result<Way, ApiError> {
        let path = head.uri.path();
        if path.starts_with(INTERNAL_PREFIX) {
            if self.internal.is_public(path) {
                return Ok(Way::Internal { claim: None });
            }
            let claim = self
                .authenticator
                .precheck(&RequestHead::from(head), now)
                .map_err(|error| refused(head, &error))?;
            if claim.service() != INTERNAL_SERVICE {
                let text = format!("Credential should be scoped to correct service: '{INTERNAL_SERVICE}'.");
                return Err(refused(head, &AuthError::Invalid(text)));
            }
            return Ok(Way::Internal { claim: Some(claim) });
        }
        let claim = self
            .authenticator
            .precheck(&RequestHead::from(head), now)
            .map_err(|error| refused(head, &error))?;
        let target = route::find(&self.services, claim.service(), head)?;
        let service = &self.services[target.service];
        if service.slots[target.operation].built.is_none() {
            let operation = service.model.operations[target.operation].name;
            return Err(ApiError::not_implemented(service.model.service_id, operation));
        }
        Ok(Way::Operation { claim, target })
    }

    fn body_limit(&self, way: &Way) -> usize {
        match way {
            Way::Operation { target, .. } => self.built(target).map_or(0, |built| built.operation.body_limit),
            Way::Internal { .. } => DEFAULT_BODY_LIMIT,
            Way::Url { .. } => limits::SYNC_REQUEST_BYTES,
        }
    }

    fn built(&self, target: &Target) -> Option<&Built> {
        self.services[target.service].slots[target.operation].built.as_ref()
    }

    async fn answer(&self, head: &mut Head, ticket: &Ticket, body: Bytes, peer: SocketAddr) -> Answer {
        match &ticket.way {
            Way::Operation { claim, target } => {
                self.operation(head, ticket, claim, *target, body, peer).await
            }
            Way::Internal { claim } => {
                let verified = match claim {
                    Some(claim) => self.verify(claim, head, &body).await.map(Some),
                    None => Ok(None),
                };
                match verified {
                    Ok(caller) => {
                        let response = self.internal.handle(head, caller.as_ref(), body).await;
                        Answer { response: response.map(Body::from), code: None, caller }
                    }
                    Err(error) => self.refusal(head, None, error, &ticket.request_id),
                }
            }
            Way::Url { endpoint, prefix, claim } => {
                let verified = match claim {
                    Some(claim) => self.verify(claim, head, &body).await.map(Some),
                    None => Ok(None),
                };
                let (Some(urls), Ok(caller)) = (&self.urls, &verified) else {
                    let error = verified.err().unwrap_or_else(urls::unknown);
                    return url_refusal(error, &ticket.request_id);
                };
                let call = Call {
                    endpoint,
                    prefix: *prefix,
                    head,
                    body,
                    peer,
                    caller: caller.as_ref(),
                    request_id: &ticket.request_id,
                    received: ticket.received,
                    randomness: &self.randomness,
                };
                let response = urls.answer(call).await;
                Answer { response, code: None, caller: verified.ok().flatten() }
            }
        }
    }

    /// Authenticate, decode, authorise, handle, encode.
    async fn operation(
        &self,
        head: &mut Head,
        ticket: &Ticket,
        claim: &Claim,
        target: Target,
        body: Bytes,
        peer: SocketAddr,
    ) -> Answer {
        let service = &self.services[target.service];
        let slot = &service.slots[target.operation];
        let Some(built) = &slot.built else {
            let error = ApiError::not_implemented(service.model.service_id, "This operation");
            return self.refusal(head, Some(service), error, &ticket.request_id);
        };
        let caller = match self.verify(claim, head, &body).await {
            Ok(caller) => caller,
            Err(error) => return self.refusal(head, Some(service), error, &ticket.request_id),
        };
        let input = self.decode(target, head, body).await;
        let input = input.and_then(|input| authorise(&caller, built).map(|()| input));
        let output = match input {
            Ok(input) => {
                let ctx = Ctx {
                    principal: Arc::clone(&caller.principal),
                    region: caller.region.clone(),
                    request_id: ticket.request_id.clone(),
                    received: ticket.received,
                    peer,
                    randomness: Arc::clone(&self.randomness),
                    policies: service.policies.clone(),
                    headers: std::mem::take(&mut head.headers),
                };
                survive((built.handler)(ctx, input), built.operation.name).await
            }
            Err(error) => Err(error),
        };
        match output {
            Ok(output) => {
                let response = slot.shaper.encode(output, &ticket.request_id);
                Answer { response, code: None, caller: Some(caller) }
            }
            Err(error) => {
                let answer = self.refusal(head, Some(service), error, &ticket.request_id);
                Answer { caller: Some(caller), ..answer }
            }
        }
    }

    async fn verify(&self, claim: &Claim, head: &Head, body: &Bytes) -> Result<Caller, ApiError> {
        if !heavy::is_large(body.len()) {
            return verify(&self.authenticator, claim, head, body);
        }
        let authenticator = Arc::clone(&self.authenticator);
        let (claim, head, body) = (claim.clone(), head.clone(), body.clone());
        heavy::elsewhere(move || verify(&authenticator, &claim, &head, &body)).await
    }

    async fn decode(&self, target: Target, head: &Head, body: Bytes) -> Result<Input, ApiError> {
        if !heavy::is_large(body.len()) {
            return decode(&self.services[target.service], target, head, body);
        }
        let (services, head) = (Arc::clone(&self.services), head.clone());
        heavy::elsewhere(move || decode(&services[target.service], target, &head, body)).await
    }

    fn refusal(
        &self,
        head: &Head,
        service: Option<&Service>,
        error: ApiError,
        request_id: &RequestId,
    ) -> Answer {
        let code = Some(error.code.to_string());
        let model = service.map(|service| &service.model);
        let dialect = model.map_or_else(|| Dialect::guess(&head.headers), |model| model.protocol.into());
        let response = protocol::encode_error(model, dialect, error, request_id);
        Answer { response: response.map(Body::from), code, caller: None }
    }

    fn record(&self, head: &Head, ticket: &Ticket, answer: &Answer, bytes_in: usize, peer: SocketAddr) {
        let operation = match &ticket.way {
            Way::Operation { target, .. } => {
                self.built(target).map_or("", |built| built.operation.iam_action)
            }
            Way::Internal { .. } => "martlet:Internal",
            Way::Url { .. } => "lambda:InvokeFunctionUrl",
        };
        record::write(&Record {
            request_id: &ticket.request_id,
            peer,
            method: &head.method,
            path: head.uri.path(),
            operation,
            account: answer.caller.as_ref().map_or("", |caller| caller.principal.account.as_str()),
            status: answer.response.status(),
            code: answer.code.as_deref(),
            bytes_in,
            bytes_out: answer.response.body().length().unwrap_or_default(),
            took: ticket.started.elapsed(),
        });
    }

    fn service_of(&self, ticket: &Ticket) -> Option<&Service> {
        match &ticket.way {
            Way::Operation { target, .. } => self.services.get(target.service),
            Way::Internal { .. } | Way::Url { .. } => None,
        }
    }
}

impl Door for Pipeline {
    type Ticket = Ticket;

    fn admit(&self, head: &Head, peer: SocketAddr) -> Result<Admission<Ticket>, Response> {
        let (started, received) = (Instant::now(), (self.clock)());
        let request_id = self.randomness.request_id();
        let found = self.urls.as_ref().and_then(|urls| urls.find(head));
        let is_url = found.is_some();
        let way = match found {
            Some(found) => self.url_way(head, found, received),
            None => self.way(head, received),
        };
        match way {
            Ok(way) => {
                let body_limit = self.body_limit(&way);
                Ok(Admission { body_limit, ticket: Ticket { request_id, received, started, way } })
            }
            Err(error) => {
                let answer = if is_url {
                    url_refusal(error, &request_id)
                } else {
                    self.refusal(head, None, error, &request_id)
                };
                let ticket = Ticket { request_id, received, started, way: Way::Internal { claim: None } };
                self.record(head, &ticket, &answer, 0, peer);
                Err(answer.response)
            }
        }
    }

    fn refuse_body(&self, head: &Head, ticket: Ticket, fault: BodyFault, peer: SocketAddr) -> Response {
        let error = match fault {
            BodyFault::TooLarge => self.too_large(&ticket),
            BodyFault::TimedOut => ApiError::new(
                "RequestTimeoutException",
                "The request's body did not arrive in time; send it faster or in fewer bytes",
            )
            .with_status(408),
            BodyFault::NoRoom => ApiError::new(
                "ServiceUnavailableException",
                "The server is reading as many large requests as it has room for; try again",
            )
            .with_status(503),
            BodyFault::Malformed => ApiError::serialization(
                "The request's body is not what its headers say: it is cut short or badly chunked",
            ),
        };
        let answer = match &ticket.way {
            Way::Url { .. } => url_refusal(error, &ticket.request_id),
            _ => self.refusal(head, self.service_of(&ticket), error, &ticket.request_id),
        };
        self.record(head, &ticket, &answer, 0, peer);
        answer.response
    }

    async fn handle(&self, mut head: Head, ticket: Ticket, body: Bytes, peer: SocketAddr) -> Response {
        let bytes_in = body.len();
        let answer = self.answer(&mut head, &ticket, body, peer).await;
        self.record(&head, &ticket, &answer, bytes_in, peer);
        answer.response
    }
}

impl Pipeline {
    /// Lambda's words for a body over the operation's limit.
    fn too_large(&self, ticket: &Ticket) -> ApiError {
        let limit = self.body_limit(&ticket.way);
        let Way::Operation { target, .. } = &ticket.way else {
            let text = format!("Request must be smaller than {limit} bytes");
            return ApiError::new("RequestEntityTooLargeException", text).with_status(413);
        };
        let service = &self.services[target.service];
        let own = "RequestTooLargeException";
        let known = service.model.operations[target.operation].errors.contains(&own);
        let action = self.built(target).map_or("", |built| built.operation.action_name());
        ApiError::new(
            if known { own } else { "RequestEntityTooLargeException" },
            format!("Request must be smaller than {limit} bytes for the {action} operation"),
        )
        .with_status(413)
    }
}

fn url_refusal(error: ApiError, request_id: &RequestId) -> Answer {
    let response = urls::refusal(&error, request_id);
    Answer { response, code: Some(error.code.into_owned()), caller: None }
}

fn verify(
    authenticator: &Authenticator,
    claim: &Claim,
    head: &Head,
    body: &[u8],
) -> Result<Caller, ApiError> {
    authenticator
        .verify(claim, &RequestHead::from(head), body, Payload::Signed)
        .map_err(|error| refused(head, &error))
}

/// Decode; the limits of the model; members that nothing here applies.
fn decode(service: &Service, target: Target, head: &Head, body: Bytes) -> Result<Input, ApiError> {
    let slot = &service.slots[target.operation];
    let input = slot.binding.decode(&service.model, &head.uri, &target.labels, &head.headers, body)?;
    if let Some(shape) = service.model.operations[target.operation].input {
        protocol::check(&service.model, shape, &input.members)
            .map_err(|text| ApiError::new(service.validation_code, text))?;
    }
    match slot.built.as_ref().and_then(|built| built.applied.first_refused(&input.members)) {
        None => Ok(input),
        Some(member) => Err(ApiError::new(
            service.unsupported_code,
            format!("{member} is not supported by this version of Martlet; leave it out of the request"),
        )),
    }
}

/// Every principal is an administrator of its own account until policies of identities exist, so there is nothing to refuse before
/// the resource is known. What policies of resources say, handlers ask once they know which resource it is: see [`Ctx::policies`].
fn authorise(_caller: &Caller, _built: &Built) -> Result<(), ApiError> {
    Ok(())
}

fn refused(head: &Head, error: &AuthError) -> ApiError {
    ApiError::new(error.code(Dialect::guess(&head.headers).spelling()), error.to_string())
        .with_status(error.status())
}

/// A handler that panics fails its own request only.
async fn survive(
    handler: impl Future<Output = Result<Output, ApiError>>,
    operation: &str,
) -> Result<Output, ApiError> {
    let mut handler = pin!(handler);
    poll_fn(|context| {
        std::panic::catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(context))).unwrap_or_else(|_| {
            tracing::error!(operation, "a handler panicked; its request is answered with 500");
            std::task::Poll::Ready(Err(ApiError::internal("An internal error occurred.")))
        })
    })
    .await
}
