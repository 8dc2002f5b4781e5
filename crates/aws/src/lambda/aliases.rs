//! CreateAlias, GetAlias, UpdateAlias, DeleteAlias and ListAliases.

use super::errors::{conflict, function_not_found, invalid, refused};
use super::named::Named;
use super::{Lambda, paging};
use crate::pipeline::{Ctx, Operation};
use crate::protocol::{ApiError, Input, Output};
use martlet_functions::{Alias, AliasSettings, Canary, FunctionsError, Refused};
use martlet_model::{FunctionArn, Qualifier, Version};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const CREATE: Operation = Operation::new(
    "CreateAlias",
    "lambda:CreateAlias",
    &["FunctionName", "Name", "FunctionVersion", "Description", "RoutingConfig"],
);

pub(super) const GET: Operation = Operation::new("GetAlias", "lambda:GetAlias", &["FunctionName", "Name"]);

pub(super) const UPDATE: Operation = Operation::new(
    "UpdateAlias",
    "lambda:UpdateAlias",
    &["FunctionName", "Name", "FunctionVersion", "Description", "RoutingConfig", "RevisionId"],
);

pub(super) const DELETE: Operation =
    Operation::new("DeleteAlias", "lambda:DeleteAlias", &["FunctionName", "Name"]);

pub(super) const LIST: Operation = Operation::new(
    "ListAliases",
    "lambda:ListAliases",
    &["FunctionName", "FunctionVersion", "Marker", "MaxItems"],
);

/// Every member that one of the operations has; the service model says which it needs.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    function_name: String,
    #[serde(default)]
    name: String,
    function_version: Option<String>,
    description: Option<String>,
    routing_config: Option<Routing>,
    revision_id: Option<String>,
    marker: Option<String>,
    max_items: Option<i64>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Routing {
    additional_version_weights: Option<BTreeMap<String, f64>>,
}

/// An alias as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
    alias_arn: String,
    name: &'a str,
    function_version: String,
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    routing_config: Option<Routing>,
    revision_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    aliases: Vec<Shown<'a>>,
}

pub(super) async fn create_alias(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let function = Named::unqualified(&ctx, "CreateAlias", &request.function_name)?;
    let wanted = request.function_version.as_deref().unwrap_or_default();
    let settings = AliasSettings {
        version: version(&function, wanted)?,
        canary: request.routing_config.map(|routing| routing.canary(&function)).transpose()?.flatten(),
        description: request.description.unwrap_or_default(),
    };
    let name = request.name;
    let created = lambda.functions.create_alias(&function, name.clone(), settings).await;
    let created = created.map_err(|error| match error {
        FunctionsError::NotFound(_) => function_not_found(format!("{function}:{wanted}")),
        FunctionsError::Refused(Refused::AliasExists(_)) => {
            conflict(format!("Alias already exists: {}", arn(&function, &name)))
        }
        other => unaliased(&function, other),
    })?;
    Output::json(&Shown::new(&function, &name, &created))
}

pub(super) async fn get_alias(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let arn = Named::unqualified(&ctx, "GetAlias", &request.function_name)?;
    let function = lambda.functions.get(&arn);
    let alias = function.as_deref().and_then(|function| function.aliases().get(&request.name));
    match alias {
        Some(alias) => Output::json(&Shown::new(&arn, &request.name, alias)),
        None => Err(missing("Cannot find alias arn", &arn, &request.name)),
    }
}

pub(super) async fn update_alias(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let function = Named::unqualified(&ctx, "UpdateAlias", &request.function_name)?;
    let wanted = request.function_version.as_deref().map(|wanted| version(&function, wanted)).transpose()?;
    // Asked for without versions: no second one any more. Not asked for: as it is.
    let canary = request.routing_config.map(|routing| routing.canary(&function)).transpose()?;
    let description = request.description;
    let edit = move |settings: &mut AliasSettings| {
        settings.version = wanted.unwrap_or(settings.version);
        settings.canary = canary.unwrap_or(settings.canary);
        if let Some(description) = description {
            settings.description = description;
        }
    };
    let name = request.name;
    let updated = lambda.functions.update_alias(&function, name.clone(), request.revision_id, edit).await;
    let updated = updated.map_err(|error| match error {
        FunctionsError::NotFound(_) | FunctionsError::Refused(Refused::NoSuchAlias(_)) => {
            missing("Alias not found", &function, &name)
        }
        other => unaliased(&function, other),
    })?;
    Output::json(&Shown::new(&function, &name, &updated))
}

/// What is not there is deleted already.
pub(super) async fn delete_alias(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let function = Named::unqualified(&ctx, "DeleteAlias", &request.function_name)?;
    lambda.functions.delete_alias(&function, request.name).await.map_err(refused)?;
    Ok(Output::empty())
}

pub(super) async fn list_aliases(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let arn = Named::unqualified(&ctx, "ListAliases", &request.function_name)?;
    let function = lambda.functions.get(&arn).ok_or_else(|| function_not_found(&arn))?;
    let wanted = request.function_version.as_deref().map(|wanted| version(&arn, wanted)).transpose()?;
    let after = request.marker.as_deref().map(paging::decode).transpose()?;
    let aliases =
        function.aliases().iter().filter(|(_, alias)| wanted.is_none_or(|wanted| alias.version == wanted));
    let (page, next) = paging::page(aliases, |(name, _)| (*name).clone(), after.as_ref(), request.max_items);
    Output::json(&Listed {
        next_marker: next.map(|name| paging::encode(&name)),
        aliases: page.into_iter().map(|(name, alias)| Shown::new(&arn, name, alias)).collect(),
    })
}

impl<'a> Shown<'a> {
    fn new(function: &FunctionArn, name: &'a str, alias: &'a Alias) -> Self {
        let weights = |canary: Canary| BTreeMap::from([(canary.version.to_string(), canary.weight)]);
        Self {
            alias_arn: arn(function, name),
            name,
            function_version: alias.version.to_string(),
            description: &alias.description,
            routing_config: alias
                .canary
                .map(|canary| Routing { additional_version_weights: Some(weights(canary)) }),
            revision_id: &alias.revision_id,
        }
    }
}

impl Routing {
    /// The second version that is asked for; the service model has checked the weight and that the key is digits.
    fn canary(self, function: &FunctionArn) -> Result<Option<Canary>, ApiError> {
        let mut weights = self.additional_version_weights.unwrap_or_default().into_iter();
        let Some((key, weight)) = weights.next() else { return Ok(None) };
        if weights.next().is_some() {
            return Err(invalid("Number of items in AdditionalVersionWeights cannot be greater than 1"));
        }
        match version(function, &key)? {
            Version::Published(version) => Ok(Some(Canary { version, weight })),
            Version::Latest => {
                Err(invalid("$LATEST is not supported for an alias pointing to more than 1 version"))
            }
        }
    }
}

fn version(function: &FunctionArn, wanted: &str) -> Result<Version, ApiError> {
    match Qualifier::parse(wanted) {
        Ok(Qualifier::Latest) => Ok(Version::Latest),
        Ok(Qualifier::Version(number)) => Ok(Version::Published(number)),
        _ if wanted == "$LATEST.PUBLISHED" => Err(invalid(
            "FunctionVersion $LATEST.PUBLISHED is for functions on managed instances, which are not implemented in this \
             version of Martlet; give $LATEST or a version number",
        )),
        _ => Err(function_not_found(format!("{function}:{wanted}"))),
    }
}

fn arn(function: &FunctionArn, name: &str) -> String {
    function.qualified(&Qualifier::Alias(name.to_owned()))
}

fn missing(what: &str, function: &FunctionArn, name: &str) -> ApiError {
    ApiError::new("ResourceNotFoundException", format!("{what}: {}", arn(function, name)))
}

/// A version that an alias cannot mean is told as one that is not found.
fn unaliased(function: &FunctionArn, error: FunctionsError) -> ApiError {
    match error {
        FunctionsError::Refused(Refused::NoSuchVersion(number)) => {
            function_not_found(function.qualified(&Qualifier::Version(number)))
        }
        FunctionsError::TooLarge(_) => refused(FunctionsError::Refused(Refused::TooManyAliases)),
        other => refused(other),
    }
}
