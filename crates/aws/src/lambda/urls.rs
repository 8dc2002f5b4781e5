//! The five operations of function URLs: the records. Whoever serves the URLs reads them there.

use super::errors::{invalid, refused};
use super::named::Named;
use super::{Lambda, paging};
use crate::pipeline::{Ctx, Operation};
use crate::protocol::time::lambda_date;
use crate::protocol::{ApiError, Input, Output};
use martlet_functions::{Attached, Cors, Function, Target, Url};
use martlet_model::{FunctionArn, Qualifier, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const CREATE: Operation = Operation::new(
    "CreateFunctionUrlConfig",
    "lambda:CreateFunctionUrlConfig",
    &["FunctionName", "Qualifier", "AuthType", "Cors", "InvokeMode"],
);

pub(super) const GET: Operation =
    Operation::new("GetFunctionUrlConfig", "lambda:GetFunctionUrlConfig", &["FunctionName", "Qualifier"]);

pub(super) const UPDATE: Operation = Operation::new(
    "UpdateFunctionUrlConfig",
    "lambda:UpdateFunctionUrlConfig",
    &["FunctionName", "Qualifier", "AuthType", "Cors", "InvokeMode"],
);

pub(super) const DELETE: Operation = Operation::new(
    "DeleteFunctionUrlConfig",
    "lambda:DeleteFunctionUrlConfig",
    &["FunctionName", "Qualifier"],
);

pub(super) const LIST: Operation = Operation::new(
    "ListFunctionUrlConfigs",
    "lambda:ListFunctionUrlConfigs",
    &["FunctionName", "Marker", "MaxItems"],
);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    function_name: String,
    qualifier: Option<String>,
    auth_type: Option<String>,
    cors: Option<CorsMembers>,
    invoke_mode: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListRequest {
    function_name: String,
    marker: Option<String>,
    max_items: Option<i64>,
}

/// `Cors` of requests and answers alike.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CorsMembers {
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_credentials: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_headers: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_methods: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_origins: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expose_headers: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    function_url: String,
    function_arn: String,
    auth_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cors: Option<CorsMembers>,
    creation_time: String,
    last_modified_time: String,
    invoke_mode: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    function_url_configs: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
}

/// What a request says of a URL; what it leaves out is absent.
struct Edit {
    signed: Option<bool>,
    streams: Option<bool>,
    cors: Option<Cors>,
}

pub(super) async fn create(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let (arn, target) = target(&ctx, "CreateFunctionUrlConfig", &request)?;
    let edit = Edit::read(request)?;
    let (id, now) = (id(&ctx.randomness.take()), ctx.received);
    let of = arn.clone();
    let made = attach(&lambda, &arn, move |attached, function| {
        exists(function, &target)?;
        if attached.urls.contains_key(&target) {
            let text = format!(
                "Failed to create function url config for [functionArn = {}]. Error message:  FunctionUrlConfig \
                 exists for this Lambda function",
                shown_arn(&of, &target)
            );
            return Err(ApiError::new("ResourceConflictException", text));
        }
        let mut url = Url { id, signed: true, streams: false, cors: None, created: now, modified: now };
        edit.apply(&mut url, now);
        attached.urls.insert(target.clone(), url.clone());
        Ok(Shown::new(&ctx, &of, &target, url))
    });
    Output::json(&made.await?)
}

pub(super) async fn get(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let (arn, target) = target(&ctx, "GetFunctionUrlConfig", &input.parse()?)?;
    let function = lambda.functions.get(&arn).ok_or_else(nothing)?;
    let url = function.attached().urls.get(&target).ok_or_else(nothing)?;
    Output::json(&Shown::new(&ctx, &arn, &target, url.clone()))
}

pub(super) async fn update(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let (arn, target) = target(&ctx, "UpdateFunctionUrlConfig", &request)?;
    let edit = Edit::read(request)?;
    let of = arn.clone();
    let updated = attach(&lambda, &arn, move |attached, _| {
        let url = attached.urls.get_mut(&target).ok_or_else(nothing)?;
        edit.apply(url, ctx.received);
        Ok(Shown::new(&ctx, &of, &target, url.clone()))
    });
    Output::json(&updated.await?)
}

pub(super) async fn delete(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let (arn, target) = target(&ctx, "DeleteFunctionUrlConfig", &input.parse()?)?;
    attach(&lambda, &arn, move |attached, _| attached.urls.remove(&target).ok_or_else(nothing)).await?;
    Ok(Output::empty())
}

pub(super) async fn list(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: ListRequest = input.parse()?;
    let arn = Named::unqualified(&ctx, "ListFunctionUrlConfigs", &request.function_name)?;
    let function = lambda.functions.get(&arn).ok_or_else(nothing)?;
    let after = request.marker.as_deref().map(paging::decode).transpose()?;
    // The function's own comes first, for its target is the empty text.
    let name = |target: &Target| target.qualifier().map(|alias| alias.to_string()).unwrap_or_default();
    let urls = function.attached().urls.iter();
    let (page, next) = paging::page(urls, |(target, _)| name(target), after.as_ref(), request.max_items);
    Output::json(&Listed {
        function_url_configs: page
            .into_iter()
            .map(|(target, url)| Shown::new(&ctx, &arn, target, url.clone()))
            .collect(),
        next_marker: next.map(|target| paging::encode(&target)),
    })
}

/// The function and which of its aliases, if any; the service model's pattern lets nothing else through.
fn target(ctx: &Ctx, action: &str, request: &Request) -> Result<(FunctionArn, Target), ApiError> {
    let named = Named::read(ctx, action, &request.function_name, request.qualifier.as_deref())?;
    match named.qualifier {
        Some(Qualifier::Version(_)) => {
            Err(invalid("A function URL belongs to a function or to an alias, not to a version"))
        }
        qualifier => Ok((named.function, Target::of(qualifier.as_ref()))),
    }
}

async fn attach<T: Send + 'static>(
    lambda: &Lambda,
    arn: &FunctionArn,
    edit: impl FnOnce(&mut Attached, &Function) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if lambda.functions.get(arn).is_none() {
        return Err(nothing());
    }
    lambda.functions.attach(arn, edit).await.map_err(refused)?
}

fn exists(function: &Function, target: &Target) -> Result<(), ApiError> {
    match target.qualifier() {
        Some(Qualifier::Alias(name)) if !function.aliases().contains_key(&name) => Err(nothing()),
        _ => Ok(()),
    }
}

fn nothing() -> ApiError {
    ApiError::new("ResourceNotFoundException", "The resource you requested does not exist.")
}

fn shown_arn(arn: &FunctionArn, target: &Target) -> String {
    target.qualifier().map_or_else(|| arn.to_string(), |alias| arn.qualified(&alias))
}

/// 32 lower-case letters and digits, as AWS's have.
fn id(random: &[u8; 32]) -> String {
    random
        .iter()
        .map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(byte & 31)]))
        .collect()
}

impl Edit {
    fn read(request: Request) -> Result<Self, ApiError> {
        let cors = request.cors.map(CorsMembers::check).transpose()?;
        Ok(Self {
            signed: request.auth_type.map(|auth| auth == "AWS_IAM"),
            streams: request.invoke_mode.map(|mode| mode == "RESPONSE_STREAM"),
            cors,
        })
    }

    fn apply(self, url: &mut Url, now: Timestamp) {
        url.signed = self.signed.unwrap_or(url.signed);
        url.streams = self.streams.unwrap_or(url.streams);
        if let Some(cors) = self.cors {
            // Given whole or not at all; one without a rule takes the rules away.
            url.cors = (cors != Cors::default()).then_some(cors);
        }
        url.modified = now;
    }
}

impl CorsMembers {
    /// Checks what the service model does not say.
    fn check(self) -> Result<Cors, ApiError> {
        const METHODS: [&str; 7] = ["*", "GET", "PUT", "HEAD", "POST", "PATCH", "DELETE"];
        let methods = self.allow_methods.iter().flatten();
        if let Some(wrong) = methods.into_iter().find(|method| !METHODS.contains(&method.as_str())) {
            return Err(invalid(format!(
                "The value {wrong} of Cors.AllowMethods is none of [{}]",
                METHODS.join(", ")
            )));
        }
        let origin = |origin: &str| {
            origin == "*"
                || !origin.contains('*') && (origin.starts_with("http://") || origin.starts_with("https://"))
        };
        let origins = self.allow_origins.iter().flatten();
        if let Some(wrong) = origins.into_iter().find(|given| !origin(given)) {
            return Err(invalid(format!(
                "The value {wrong} of Cors.AllowOrigins is no origin: give `*`, or origins such as https://example.com \
                 without wildcards"
            )));
        }
        Ok(Cors {
            credentials: self.allow_credentials,
            headers: self.allow_headers,
            methods: self.allow_methods,
            origins: self.allow_origins,
            exposed: self.expose_headers,
            max_age: self.max_age,
        })
    }
}

impl Shown {
    fn new(ctx: &Ctx, arn: &FunctionArn, target: &Target, url: Url) -> Self {
        let port = ctx.host().rsplit_once(':').map_or("", |(_, port)| port);
        let colon = if port.is_empty() { "" } else { ":" };
        Self {
            function_url: format!("http://{}.lambda-url.{}.localhost{colon}{port}/", url.id, arn.region),
            function_arn: shown_arn(arn, target),
            auth_type: if url.signed { "AWS_IAM" } else { "NONE" },
            cors: url.cors.map(|cors| CorsMembers {
                allow_credentials: cors.credentials,
                allow_headers: cors.headers,
                allow_methods: cors.methods,
                allow_origins: cors.origins,
                expose_headers: cors.exposed,
                max_age: cors.max_age,
            }),
            creation_time: lambda_date(url.created),
            last_modified_time: lambda_date(url.modified),
            invoke_mode: if url.streams { "RESPONSE_STREAM" } else { "BUFFERED" },
        }
    }
}
