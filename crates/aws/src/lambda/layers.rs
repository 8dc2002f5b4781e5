//! Layer versions: PublishLayerVersion, GetLayerVersion, GetLayerVersionByArn, ListLayers, ListLayerVersions,
//! DeleteLayerVersion.

use super::configuration::code_sha256;
use super::errors::{invalid, refused};
use super::{Lambda, PACKAGE_BODY_BYTES, paging};
use crate::pipeline::{Ctx, Operation};
use crate::protocol::time::lambda_date;
use crate::protocol::{ApiError, Blob, Input, Output};
use martlet_functions::{LayerAbout, LayerVersion, NewLayerVersion};
use martlet_model::{Layer, LayerArn, LayerVersionArn, limits};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const PUBLISH_LAYER: Operation = Operation::new(
    "PublishLayerVersion",
    "lambda:PublishLayerVersion",
    &[
        "LayerName",
        "Description",
        "Content.ZipFile",
        "CompatibleArchitectures",
        "CompatibleRuntimes",
        "LicenseInfo",
    ],
)
.body_limit(PACKAGE_BODY_BYTES);

pub(super) const GET_LAYER: Operation =
    Operation::new("GetLayerVersion", "lambda:GetLayerVersion", &["LayerName", "VersionNumber"]);

pub(super) const GET_LAYER_BY_ARN: Operation =
    Operation::new("GetLayerVersionByArn", "lambda:GetLayerVersion", &["Arn"]);

pub(super) const LIST_LAYERS: Operation = Operation::new(
    "ListLayers",
    "lambda:ListLayers",
    &["CompatibleArchitecture", "CompatibleRuntime", "Marker", "MaxItems"],
);

pub(super) const LIST_LAYER_VERSIONS: Operation = Operation::new(
    "ListLayerVersions",
    "lambda:ListLayerVersions",
    &["CompatibleArchitecture", "CompatibleRuntime", "LayerName", "Marker", "MaxItems"],
);

pub(super) const DELETE_LAYER: Operation =
    Operation::new("DeleteLayerVersion", "lambda:DeleteLayerVersion", &["LayerName", "VersionNumber"]);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PublishRequest {
    layer_name: String,
    content: Content,
    description: Option<String>,
    compatible_architectures: Option<Vec<String>>,
    compatible_runtimes: Option<Vec<String>>,
    license_info: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content {
    zip_file: Option<Blob>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListRequest {
    layer_name: Option<String>,
    compatible_architecture: Option<String>,
    compatible_runtime: Option<String>,
    marker: Option<String>,
    max_items: Option<i64>,
}

/// A version as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
    content: Location,
    layer_arn: String,
    #[serde(flatten)]
    listed: Listed<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Location {
    location: String,
    code_sha256: String,
    code_size: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed<'a> {
    layer_version_arn: String,
    version: u64,
    description: &'a str,
    created_date: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    compatible_architectures: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compatible_runtimes: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    license_info: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LayersAnswer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    layers: Vec<LayerListed<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LayerListed<'a> {
    layer_name: &'a str,
    layer_arn: String,
    latest_matching_version: Listed<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct VersionsAnswer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    layer_versions: Vec<Listed<'a>>,
}

impl<'a> Listed<'a> {
    fn new(version: &'a LayerVersion) -> Self {
        let about = &version.about;
        Self {
            layer_version_arn: version.arn.to_string(),
            version: version.arn.version,
            description: &about.description,
            created_date: lambda_date(version.created),
            compatible_architectures: about.architectures.as_deref(),
            compatible_runtimes: about.runtimes.as_deref(),
            license_info: about.license.as_deref(),
        }
    }
}

pub(super) async fn publish_layer_version(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let request: PublishRequest = input.parse()?;
    let layer = own_layer(&ctx, "PublishLayerVersion", &request.layer_name)?;
    let zip = match request.content.zip_file {
        Some(zip) if zip.0.is_empty() => return Err(invalid("Uploaded file must be a non-empty zip")),
        Some(zip) => zip.0,
        None => return Err(invalid("Please provide a source for the layer's content: ZipFile")),
    };
    let about = LayerAbout {
        description: request.description.unwrap_or_default(),
        license: request.license_info,
        runtimes: request.compatible_runtimes,
        architectures: request.compatible_architectures,
    };
    let new = NewLayerVersion { layer, zip, about };
    let published = lambda.functions.publish_layer(new).await.map_err(refused)?;
    show(&lambda, &ctx, &published)
}

pub(super) async fn get_layer_version(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let arn = versioned(&ctx, &input)?;
    get(&lambda, &ctx, &arn)
}

pub(super) async fn get_layer_version_by_arn(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let arn = input.text("Arn").unwrap_or_default();
    let arn = LayerVersionArn::parse(arn).map_err(|error| invalid(error.to_string()))?;
    get(&lambda, &ctx, &arn)
}

fn get(lambda: &Lambda, ctx: &Ctx, arn: &LayerVersionArn) -> Result<Output, ApiError> {
    let version = usable(lambda, ctx, arn)?;
    let version = version.filter(|_| arn.layer.region == ctx.region);
    let version = version.ok_or_else(|| not_found("The resource you requested does not exist."))?;
    show(lambda, ctx, &version)
}

fn show(lambda: &Lambda, ctx: &Ctx, version: &LayerVersion) -> Result<Output, ApiError> {
    Output::json(&Shown {
        content: Location {
            location: lambda.downloads.link(ctx, &version.code)?,
            code_sha256: code_sha256(&version.code.digest),
            code_size: version.code.bytes,
        },
        layer_arn: version.arn.layer.to_string(),
        listed: Listed::new(version),
    })
}

/// Layers by name, each with its latest version that was said to be for what is asked.
pub(super) async fn list_layers(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: ListRequest = input.parse()?;
    let after = request.marker.as_deref().map(paging::decode).transpose()?;
    let layers = lambda.functions.layers(ctx.account(), &ctx.region);
    let latest = layers.iter().filter_map(|versions| versions.iter().rfind(|version| request.takes(version)));
    let name = |version: &&Arc<LayerVersion>| version.arn.layer.name().to_owned();
    let (page, next) = paging::page(latest, name, after.as_ref(), request.max_items);
    let layers = page.into_iter().map(|version| LayerListed {
        layer_name: version.arn.layer.name(),
        layer_arn: version.arn.layer.to_string(),
        latest_matching_version: Listed::new(version),
    });
    Output::json(&LayersAnswer { next_marker: next.as_deref().map(paging::encode), layers: layers.collect() })
}

/// Versions of one layer, the latest first; a layer that there is not has none.
pub(super) async fn list_layer_versions(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let request: ListRequest = input.parse()?;
    let layer = own_layer(&ctx, "ListLayerVersions", request.layer_name.as_deref().unwrap_or_default())?;
    let number = |marker: String| marker.parse().map(Reverse).map_err(|_| paging::unknown());
    let after = request.marker.as_deref().map(paging::decode).transpose()?.map(number).transpose()?;
    let versions = lambda.functions.layer_versions(&layer);
    let latest_first = versions.iter().rev().filter(|version| request.takes(version));
    let key = |version: &&Arc<LayerVersion>| Reverse(version.arn.version);
    let (page, next) = paging::page(latest_first, key, after.as_ref(), request.max_items);
    Output::json(&VersionsAnswer {
        next_marker: next.map(|Reverse(number): Reverse<u64>| paging::encode(&number.to_string())),
        layer_versions: page.into_iter().map(|version| Listed::new(version)).collect(),
    })
}

pub(super) async fn delete_layer_version(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let arn = versioned(&ctx, &input)?;
    refuse_foreign(&ctx, "DeleteLayerVersion", &arn.layer, &arn)?;
    lambda.functions.delete_layer_version(&arn).await.map_err(refused)?;
    Ok(Output::empty())
}

impl ListRequest {
    fn takes(&self, version: &LayerVersion) -> bool {
        version.is_for(self.compatible_runtime.as_deref(), self.compatible_architecture.as_deref())
    }
}

/// The layers of a function that asks for these ARNs, the lowest first.
pub(super) fn layers_of(lambda: &Lambda, ctx: &Ctx, arns: &[String]) -> Result<Vec<Layer>, ApiError> {
    if arns.len() > limits::LAYERS {
        return Err(invalid(format!("Cannot reference more than {} layers.", limits::LAYERS)));
    }
    let mut layers = Vec::with_capacity(arns.len());
    let mut seen: BTreeMap<LayerArn, LayerVersionArn> = BTreeMap::new();
    for text in arns {
        let arn = LayerVersionArn::parse(text).map_err(|error| invalid(error.to_string()))?;
        if arn.layer.region != ctx.region {
            return Err(invalid(format!(
                "Layers are not in the same region as the function. Layers are expected to be in region {}.",
                ctx.region
            )));
        }
        let version = usable(lambda, ctx, &arn)?;
        let version = version.ok_or_else(|| invalid(format!("Layer version {arn} does not exist.")))?;
        layers.push(version.layer());
        if let Some(other) = seen.insert(arn.layer.clone(), arn.clone()) {
            return Err(invalid(format!(
                "Two different versions of the same layer are not allowed to be referenced in the same function. \
                 {other} and {arn} are versions of the same layer."
            )));
        }
    }
    Ok(layers)
}

/// A version that the caller may get; those of other accounts need a policy that lets the caller's account.
fn usable(lambda: &Lambda, ctx: &Ctx, arn: &LayerVersionArn) -> Result<Option<Arc<LayerVersion>>, ApiError> {
    let version = lambda.functions.layer_version(arn);
    if version.as_ref().is_some_and(|version| version.policy.allows(ctx.account())) {
        return Ok(version);
    }
    refuse_foreign(ctx, "GetLayerVersion", &arn.layer, arn)?;
    Ok(version)
}

/// The layer that `LayerName` names: a name or an ARN, in the caller's account and region.
pub(super) fn own_layer(ctx: &Ctx, action: &str, name: &str) -> Result<LayerArn, ApiError> {
    let layer = read_layer(ctx, name)?;
    refuse_foreign(ctx, action, &layer, &layer)?;
    if layer.region != ctx.region {
        return Err(invalid(format!(
            "Layers from '{}' are not reachable in this region ('{}')",
            layer.region, ctx.region
        )));
    }
    Ok(layer)
}

/// `LayerName` and `VersionNumber`.
pub(super) fn versioned(ctx: &Ctx, input: &Input) -> Result<LayerVersionArn, ApiError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Request {
        layer_name: String,
        version_number: i64,
    }
    let request: Request = input.clone().parse()?;
    let layer = read_layer(ctx, &request.layer_name)?;
    match u64::try_from(request.version_number) {
        Ok(number) if number > 0 => Ok(layer.version(number)),
        _ => Err(invalid("Layer Version Cannot be less than 1")),
    }
}

fn read_layer(ctx: &Ctx, name: &str) -> Result<LayerArn, ApiError> {
    let read = if name.starts_with("arn:") {
        LayerArn::parse(name)
    } else {
        LayerArn::new(ctx.region.clone(), ctx.account().clone(), name)
    };
    read.map_err(|error| invalid(error.to_string()))
}

pub(super) fn refuse_foreign(
    ctx: &Ctx,
    action: &str,
    layer: &LayerArn,
    resource: &dyn std::fmt::Display,
) -> Result<(), ApiError> {
    if layer.account == *ctx.account() {
        return Ok(());
    }
    let text = format!(
        "User: {} is not authorized to perform: lambda:{action} on resource: {resource} because no resource-based \
         policy allows the lambda:{action} action",
        ctx.principal.arn
    );
    Err(ApiError::new("AccessDeniedException", text).with_status(403))
}

pub(super) fn not_found(text: impl Into<String>) -> ApiError {
    ApiError::new("ResourceNotFoundException", text)
}
