//! AddPermission, RemovePermission and GetPolicy: resource policies by the statement.

use super::Lambda;
use super::errors::{conflict, function_not_found, invalid, refused};
use super::named::Named;
use crate::pipeline::{Ctx, Operation};
use crate::protocol::{ApiError, Input, Output};
use martlet_functions::{FunctionsError, Policy, Refused};
use martlet_identity::{self as identity, PolicyError};
use martlet_model::{Qualifier, limits};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub(super) const ADD: Operation = Operation::new(
    "AddPermission",
    "lambda:AddPermission",
    &[
        "FunctionName",
        "StatementId",
        "Action",
        "Principal",
        "SourceArn",
        "SourceAccount",
        "FunctionUrlAuthType",
        "InvokedViaFunctionUrl",
        "EventSourceToken",
        "Qualifier",
        "RevisionId",
    ],
);

pub(super) const REMOVE: Operation = Operation::new(
    "RemovePermission",
    "lambda:RemovePermission",
    &["FunctionName", "StatementId", "Qualifier", "RevisionId"],
);

pub(super) const GET_POLICY: Operation =
    Operation::new("GetPolicy", "lambda:GetPolicy", &["FunctionName", "Qualifier"]);

/// What GetPolicy and its kind say where there is none.
pub(super) const NO_POLICY: &str = "The resource you requested does not exist.";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    function_name: String,
    qualifier: Option<String>,
    #[serde(default)]
    statement_id: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    principal: String,
    source_arn: Option<String>,
    source_account: Option<String>,
    function_url_auth_type: Option<String>,
    invoked_via_function_url: Option<bool>,
    event_source_token: Option<String>,
    revision_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Added {
    statement: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
    policy: String,
    revision_id: &'a str,
}

pub(super) async fn add_permission(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let mut request: Request = input.parse()?;
    let named = attached_to(&ctx, "AddPermission", &request)?;
    let statement = request.statement(&named.arn())?;
    let shown = document::statement(&statement);
    let (id, revision) = (std::mem::take(&mut request.statement_id), request.revision_id.take());
    let edit = move |policy: &mut Option<Policy>| {
        let policy = policy.get_or_insert_with(Policy::default);
        if policy.statements.iter().any(|statement| statement["Sid"] == *id) {
            return Err(conflict(format!(
                "The statement id ({id}) provided already exists. Please provide a new statement id, or remove the \
                 existing statement."
            )));
        }
        policy.statements.push(statement);
        check_size(policy)
    };
    edited(&lambda, &named, revision, edit).await?;
    Output::json(&Added { statement: shown })
}

pub(super) async fn remove_permission(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let qualifier = request.qualifier.as_deref();
    let named = Named::read(&ctx, "RemovePermission", &request.function_name, qualifier)?;
    if lambda.functions.get(&named.function).is_none() {
        return Err(not_found(format!("No policy found for: {}", named.arn())));
    }
    let id = request.statement_id;
    let edit = move |policy: &mut Option<Policy>| {
        let statements = match policy {
            Some(policy) => &mut policy.statements,
            None => return Err(not_found("No policy is associated with the given resource.")),
        };
        let before = statements.len();
        statements.retain(|statement| statement["Sid"] != *id);
        if statements.len() == before {
            return Err(not_found(format!("Statement {id} is not found in resource policy.")));
        }
        if statements.is_empty() {
            *policy = None;
        }
        Ok(())
    };
    edited(&lambda, &named, request.revision_id, edit).await?;
    Ok(Output::empty())
}

pub(super) async fn get_policy(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let qualifier = request.qualifier.as_deref();
    let named = Named::read(&ctx, "GetPolicy", &request.function_name, qualifier)?;
    shown(&lambda, &named)
}

/// The policy with its revision.
pub(super) fn shown(lambda: &Lambda, named: &Named) -> Result<Output, ApiError> {
    let function = lambda.functions.get(&named.function);
    let function = function.ok_or_else(|| function_not_found(&named.function))?;
    let target = martlet_functions::Target::of(named.qualifier.as_ref());
    let policy = function.attached().policies.get(&target);
    let revision_id = function.revision_id(named.qualifier.as_ref());
    let (Some(policy), Some(revision_id)) = (policy, revision_id) else { return Err(not_found(NO_POLICY)) };
    Output::json(&Shown { policy: document::policy(policy), revision_id })
}

/// Edits the policy of what `named` names.
pub(super) async fn edited(
    lambda: &Lambda,
    named: &Named,
    expected_revision: Option<String>,
    edit: impl FnOnce(&mut Option<Policy>) -> Result<(), ApiError> + Send + 'static,
) -> Result<(), ApiError> {
    let qualifier = named.qualifier.as_ref();
    let edited = lambda.functions.edit_policy(&named.function, qualifier, expected_revision, edit).await;
    let edited = edited.map_err(|error| match error {
        FunctionsError::Refused(Refused::NoSuchVersion(_)) => function_not_found(named.arn()),
        FunctionsError::Refused(Refused::NoSuchAlias(_)) => {
            not_found(format!("Cannot find alias arn: {}", named.arn()))
        }
        // All policies of a function are kept in one record.
        FunctionsError::TooLarge(_) => ApiError::new(
            "PolicyLengthExceededException",
            "The policies of the function and of its versions and aliases together are too large.",
        ),
        other => refused(other),
    })?;
    edited.map(|_| ())
}

/// Refuses a policy that is larger than policies may be.
pub(super) fn check_size(policy: &Policy) -> Result<(), ApiError> {
    let (size, limit) = (document::policy(policy).len(), limits::POLICY_BYTES);
    if size <= limit {
        return Ok(());
    }
    let text = format!("The final policy size ({size}) is bigger than the limit ({limit}).");
    Err(ApiError::new("PolicyLengthExceededException", text))
}

/// What a policy is to be attached to; `$LATEST` by that name has none.
fn attached_to(ctx: &Ctx, action: &str, request: &Request) -> Result<Named, ApiError> {
    let named = Named::read(ctx, action, &request.function_name, request.qualifier.as_deref())?;
    refuse_latest(&named)?;
    Ok(named)
}

pub(super) fn refuse_latest(named: &Named) -> Result<(), ApiError> {
    match named.qualifier {
        Some(Qualifier::Latest) => Err(invalid("We currently do not support adding policies for $LATEST.")),
        _ => Ok(()),
    }
}

pub(super) fn not_found(text: impl Into<String>) -> ApiError {
    ApiError::new("ResourceNotFoundException", text)
}

impl Request {
    /// The statement that is asked for, which the policy language takes.
    fn statement(&self, resource: &str) -> Result<Value, ApiError> {
        let only_with = |member: &str, action: &str| {
            invalid(format!("{member} is only supported for the {action} action"))
        };
        if self.function_url_auth_type.is_some() && self.action != "lambda:InvokeFunctionUrl" {
            return Err(only_with("FunctionUrlAuthType", "lambda:InvokeFunctionUrl"));
        }
        if self.invoked_via_function_url.is_some() && self.action != "lambda:InvokeFunction" {
            return Err(only_with("InvokedViaFunctionUrl", "lambda:InvokeFunction"));
        }
        let mut statement = json!({
            "Sid": self.statement_id,
            "Effect": "Allow",
            "Principal": self.principal(),
            "Action": self.action,
            "Resource": resource,
        });
        let condition = self.condition();
        if !condition.is_empty() {
            statement["Condition"] = condition.into();
        }
        match identity::Policy::of(std::slice::from_ref(&statement)) {
            Ok(_) => Ok(statement),
            Err(PolicyError::Principal(_)) => {
                Err(invalid("The provided principal was invalid. Please check the principal and try again."))
            }
            Err(error) => Err(invalid(error.to_string())),
        }
    }

    fn principal(&self) -> Value {
        let principal = self.principal.as_str();
        if principal == "*" {
            json!("*")
        } else if principal.len() == 12 && principal.bytes().all(|byte| byte.is_ascii_digit()) {
            json!({"AWS": format!("arn:aws:iam::{principal}:root")})
        } else if principal.starts_with("arn:") {
            json!({"AWS": principal})
        } else {
            json!({"Service": principal})
        }
    }

    fn condition(&self) -> Map<String, Value> {
        let equal = [
            ("lambda:FunctionUrlAuthType", &self.function_url_auth_type),
            ("AWS:SourceAccount", &self.source_account),
            ("lambda:EventSourceToken", &self.event_source_token),
        ];
        let equal: Map<String, Value> = equal
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?.into())))
            .collect();
        let mut condition = Map::new();
        if !equal.is_empty() {
            condition.insert("StringEquals".to_owned(), equal.into());
        }
        if let Some(arn) = &self.source_arn {
            condition.insert("ArnLike".to_owned(), json!({"AWS:SourceArn": arn}));
        }
        if let Some(via) = self.invoked_via_function_url {
            condition.insert("Bool".to_owned(), json!({"lambda:InvokedViaFunctionUrl": via.to_string()}));
        }
        condition
    }
}

/// Policies as text, their members in the order in which AWS has them.
mod document {
    use super::Policy;
    use serde::Serialize;
    use serde_json::Value;

    const STATEMENT: [&str; 8] =
        ["Sid", "Effect", "Principal", "Action", "NotAction", "Resource", "NotResource", "Condition"];

    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Whole<'a> {
        version: &'a str,
        id: &'a str,
        statement: Vec<Members<'a>>,
    }

    struct Members<'a>(&'a Value);

    impl Serialize for Members<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(STATEMENT.iter().filter_map(|name| Some((name, self.0.get(name)?))))
        }
    }

    pub(super) fn statement(statement: &Value) -> String {
        // JSON values serialise.
        serde_json::to_string(&Members(statement)).unwrap_or_default()
    }

    pub(super) fn policy(policy: &Policy) -> String {
        let whole = Whole {
            version: "2012-10-17",
            id: policy.id.as_deref().unwrap_or("default"),
            statement: policy.statements.iter().map(Members).collect(),
        };
        serde_json::to_string(&whole).unwrap_or_default()
    }
}
