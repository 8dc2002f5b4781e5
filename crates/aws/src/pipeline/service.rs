//! A service: its model, and a table of the operations that are built.

use super::applied::{Applied, UnknownMember};
use super::randomness::Randomness;
use crate::protocol::{ApiError, Binding, Input, Model, ModelError, Output, Router, Shaper};
use http::HeaderMap;
use martlet_identity::{Principal, Verdict};
use martlet_model::{AccountId, Region, RequestId, Timestamp};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

pub(super) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Handler = Box<dyn Fn(Ctx, Input) -> BoxFuture<'static, Result<Output, ApiError>> + Send + Sync>;

/// Who asks, from where, and when. A handler's first parameter after its service.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// Who signed the request.
    pub principal: Arc<Principal>,
    /// The region that the request was signed for: the one it acts in.
    pub region: Region,
    /// The request's id, which the answer tells.
    pub request_id: RequestId,
    /// When the request was accepted.
    pub received: Timestamp,
    /// Who is at the other end of the connection.
    pub peer: SocketAddr,
    /// Random bytes for ids.
    pub randomness: Arc<Randomness>,
    /// What the resources of the service say of who may reach them.
    pub policies: Policies,
    /// All headers of the request, for what is no member of any operation (`X-Amzn-Trace-Id`).
    pub headers: HeaderMap,
}

impl Ctx {
    /// The account that the request acts in.
    #[must_use]
    pub fn account(&self) -> &AccountId {
        &self.principal.account
    }

    /// The `Host` header as the caller sent it, for links back to this server; empty when it is no text.
    #[must_use]
    pub fn host(&self) -> &str {
        self.header("host").unwrap_or_default()
    }

    /// A header's value, when it is there and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What the policies of a service's resources say of a request.
pub trait ResourcePolicies: Send + Sync + 'static {
    /// What the policy of `resource`, an ARN, says of `action` (`lambda:GetFunction`) by who sent the request. Silent where there is
    /// no policy, and where there is no such resource.
    fn judge(&self, ctx: &Ctx, action: &str, resource: &str) -> Verdict;
}

/// The policies of one service.
#[derive(Clone)]
pub struct Policies(Arc<dyn ResourcePolicies>);

impl Policies {
    /// See [`ResourcePolicies::judge`].
    #[must_use]
    pub fn judge(&self, ctx: &Ctx, action: &str, resource: &str) -> Verdict {
        self.0.judge(ctx, action, resource)
    }
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Policies")
    }
}

/// A service whose resources have no policies.
struct NoPolicies;

impl ResourcePolicies for NoPolicies {
    fn judge(&self, _ctx: &Ctx, _action: &str, _resource: &str) -> Verdict {
        Verdict::Silent
    }
}

/// What a body may weigh unless the operation says otherwise, in bytes (1 MB).
pub const DEFAULT_BODY_LIMIT: usize = 1024 * 1024;

/// One row of a service's table.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// The operation's name in the model.
    pub name: &'static str,
    /// The action that a policy must allow, as in `lambda:InvokeFunction`. The part after the colon is also how
    /// messages about size name the operation.
    pub iam_action: &'static str,
    /// Members that the handler applies, by name or path (`Environment.Variables`); naming a structure means all
    /// of it. A request with any other member is refused by that member's name.
    pub applied: &'static [&'static str],
    /// Members that are not applied but may have this one value, which means "off": `("TracingConfig.Mode",
    /// "PassThrough")`. Empty text, lists, maps and `false` always may.
    pub harmless: &'static [(&'static str, &'static str)],
    /// Most bytes that the body may have.
    pub body_limit: usize,
}

impl Operation {
    /// A row with the default body limit and no harmless values.
    #[must_use]
    pub const fn new(name: &'static str, iam_action: &'static str, applied: &'static [&'static str]) -> Self {
        Self { name, iam_action, applied, harmless: &[], body_limit: DEFAULT_BODY_LIMIT }
    }

    /// The same with values that ask for nothing.
    #[must_use]
    pub const fn harmless(mut self, harmless: &'static [(&'static str, &'static str)]) -> Self {
        self.harmless = harmless;
        self
    }

    /// The same with another body limit, in bytes.
    #[must_use]
    pub const fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    pub(super) fn action_name(&self) -> &'static str {
        self.iam_action.split_once(':').map_or(self.iam_action, |(_, action)| action)
    }
}

/// Why a service's table does not fit its model: a mistake of the table's author, found at start and by tests.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The model itself is broken.
    #[error("the model of the service is broken")]
    Model(#[from] ModelError),
    /// The table has an operation that the model has not.
    #[error("the table has the operation {0}, which the service's model does not have")]
    UnknownOperation(&'static str),
    /// The table has a member that the operation's input has not.
    #[error("the table of {operation} names the member {member}, which its input does not have")]
    UnknownMember {
        /// The operation.
        operation: &'static str,
        /// The path as the table has it.
        member: &'static str,
    },
}

/// One service front end. Handlers are `async fn(Arc<S>, Ctx, Input) -> Result<Output, ApiError>`.
pub struct Service {
    pub(super) model: Model,
    pub(super) router: Router,
    pub(super) slots: Vec<Slot>,
    pub(super) policies: Policies,
    /// The code that answers a member outside of the model's limits.
    pub(super) validation_code: &'static str,
    /// The code that answers a member that is not applied.
    pub(super) unsupported_code: &'static str,
}

/// An operation of the model, built or not.
pub(super) struct Slot {
    pub(super) binding: Binding,
    pub(super) shaper: Shaper,
    pub(super) built: Option<Built>,
}

pub(super) struct Built {
    pub(super) operation: Operation,
    pub(super) applied: Applied,
    pub(super) handler: Handler,
}

/// Puts a [`Service`] together around what its handlers share.
pub struct ServiceBuilder<S> {
    service: Service,
    shared: Arc<S>,
}

impl Service {
    /// A service without operations. `model` is one of the checked-in models, `shared` is what every handler gets
    /// as its first parameter.
    ///
    /// # Errors
    /// [`ServiceError::Model`] when the model cannot be read.
    pub fn builder<S: Send + Sync + 'static>(
        model: &'static str,
        shared: Arc<S>,
    ) -> Result<ServiceBuilder<S>, ServiceError> {
        let model = Model::read(model)?;
        let mut slots = Vec::with_capacity(model.operations.len());
        for operation in &model.operations {
            let binding = Binding::new(&model, operation)?;
            slots.push(Slot { binding, shaper: Shaper::new(&model, operation), built: None });
        }
        let service = Self {
            router: Router::new(&model),
            model,
            slots,
            policies: Policies(Arc::new(NoPolicies)),
            validation_code: "ValidationException",
            unsupported_code: "InvalidParameterValueException",
        };
        Ok(ServiceBuilder { service, shared })
    }

    /// The name that signatures for this service are scoped to.
    #[must_use]
    pub fn signing_name(&self) -> &'static str {
        self.model.signing_name
    }
}

impl<S: Send + Sync + 'static> ServiceBuilder<S> {
    /// The codes that answer a member outside of the model's limits (`ValidationException` unless said otherwise)
    /// and a member that is not applied (`InvalidParameterValueException`).
    #[must_use]
    pub fn codes(mut self, validation: &'static str, unsupported: &'static str) -> Self {
        self.service.validation_code = validation;
        self.service.unsupported_code = unsupported;
        self
    }

    /// What says who beyond their account may reach the service's resources, and who may not; handlers ask it by [`Ctx::policies`].
    #[must_use]
    pub fn policies(mut self, policies: Arc<dyn ResourcePolicies>) -> Self {
        self.service.policies = Policies(policies);
        self
    }

    /// Adds one operation with its handler.
    ///
    /// # Errors
    /// [`ServiceError`] when the row names an operation or a member that the model does not have.
    pub fn on<F, Fut>(mut self, operation: Operation, handler: F) -> Result<Self, ServiceError>
    where
        F: Fn(Arc<S>, Ctx, Input) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Output, ApiError>> + Send + 'static,
    {
        let model = &self.service.model;
        let at = model.operation(operation.name).ok_or(ServiceError::UnknownOperation(operation.name))?;
        let applied =
            Applied::new(model, model.operations[at].input, operation.applied, operation.harmless).map_err(
                |UnknownMember(member)| ServiceError::UnknownMember { operation: operation.name, member },
            )?;
        let shared = Arc::clone(&self.shared);
        let handler: Handler = Box::new(move |ctx, input| Box::pin(handler(Arc::clone(&shared), ctx, input)));
        self.service.slots[at].built = Some(Built { operation, applied, handler });
        Ok(self)
    }

    /// The finished service.
    #[must_use]
    pub fn build(self) -> Service {
        self.service
    }
}
