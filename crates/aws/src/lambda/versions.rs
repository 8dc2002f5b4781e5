//! PublishVersion and ListVersionsByFunction.

use super::configuration::{FunctionConfiguration, code_sha256, digest_of};
use super::errors::{function_not_found, invalid, refused};
use super::named::Named;
use super::{Lambda, paging};
use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Input, Output};
use martlet_functions::{FunctionsError, Publish, Refused};
use martlet_model::Version;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PublishRequest {
    function_name: String,
    code_sha256: Option<String>,
    description: Option<String>,
    revision_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListRequest {
    function_name: String,
    marker: Option<String>,
    max_items: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    versions: Vec<FunctionConfiguration<'a>>,
}

pub(super) async fn publish_version(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: PublishRequest = input.parse()?;
    let function = Named::unqualified(&ctx, "PublishVersion", &request.function_name)?;
    let publish = Publish {
        description: request.description,
        expected_digest: request.code_sha256.as_deref().map(digest_of).map(Into::into),
        expected_revision: request.revision_id,
    };
    let published = lambda.functions.publish(&function, publish).await.map_err(|error| match error {
        FunctionsError::Refused(Refused::CodeDigest(present)) => invalid(format!(
            "CodeSHA256 ({}) is different from current CodeSHA256 in $LATEST ({}). Please try again with the \
             CodeSHA256 in $LATEST.",
            request.code_sha256.as_deref().unwrap_or_default(),
            code_sha256(&present)
        )),
        other => refused(other),
    })?;
    let qualifier = published.version.version.qualifier();
    Output::json(&FunctionConfiguration::new(&lambda, &published, Some(&qualifier)))
}

pub(super) async fn list_versions_by_function(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let request: ListRequest = input.parse()?;
    let arn = Named::unqualified(&ctx, "ListVersionsByFunction", &request.function_name)?;
    let function = lambda.functions.get(&arn).ok_or_else(|| function_not_found(&arn))?;
    let after = request.marker.as_deref().map(read_marker).transpose()?;
    let (page, next) =
        paging::page(function.versions(), |record| record.version.version, after.as_ref(), request.max_items);
    Output::json(&Listed {
        next_marker: next.map(|version| paging::encode(&version.to_string())),
        versions: page
            .into_iter()
            .map(|record| FunctionConfiguration::listed(record, Some(&record.version.version.qualifier())))
            .collect(),
    })
}

fn read_marker(marker: &str) -> Result<Version, ApiError> {
    match paging::decode(marker)?.as_str() {
        "$LATEST" => Ok(Version::Latest),
        number => number.parse().map(Version::Published).map_err(|_| paging::unknown()),
    }
}
