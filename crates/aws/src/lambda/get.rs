//! GetFunction and GetFunctionConfiguration.

use super::Lambda;
use super::concurrency::Concurrency;
use super::configuration::FunctionConfiguration;
use super::errors::function_not_found;
use super::named::Named;
use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Input, Output};
use martlet_functions::{Function, VersionRecord};
use martlet_model::{Qualifier, Version};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    configuration: FunctionConfiguration<'a>,
    code: Location,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<Concurrency>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Location {
    repository_type: &'static str,
    location: String,
}

pub(super) async fn get_function(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let (function, named) = find(&lambda, &ctx, "GetFunction", &input)?;
    let record = version(&function, &named)?;
    let location = lambda.downloads.link(&ctx, &record.version.code)?;
    Output::json(&Answer {
        configuration: configuration(&lambda, &named, record),
        // What AWS says of packages, wherever they lie.
        code: Location { repository_type: "S3", location },
        tags: function.tags(),
        concurrency: Concurrency::of(&function),
    })
}

pub(super) async fn get_function_configuration(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let (function, named) = find(&lambda, &ctx, "GetFunctionConfiguration", &input)?;
    let record = version(&function, &named)?;
    Output::json(&configuration(&lambda, &named, record))
}

/// With how its environments start, which whoever asks for one function wants to see.
fn configuration<'r>(lambda: &Lambda, named: &Named, record: &'r VersionRecord) -> FunctionConfiguration<'r> {
    let configuration = FunctionConfiguration::new(lambda, record, named.qualifier.as_ref());
    // By its version: resolving an alias would count as a call of it.
    match lambda.functions.resolve(&named.function, Some(&record.version.version.qualifier())) {
        Ok(deployment) => configuration.starting((lambda.starts.shown)(&deployment)),
        // What cannot be invoked yet starts nothing.
        Err(_) => configuration,
    }
}

fn find(lambda: &Lambda, ctx: &Ctx, action: &str, input: &Input) -> Result<(Arc<Function>, Named), ApiError> {
    let name = input.text("FunctionName").unwrap_or_default();
    let named = Named::read(ctx, action, name, input.text("Qualifier"))?;
    let function = lambda.functions.get(&named.function).ok_or_else(|| function_not_found(named.arn()))?;
    Ok((function, named))
}

fn version<'f>(function: &'f Function, named: &Named) -> Result<&'f VersionRecord, ApiError> {
    let found = match named.qualifier {
        None | Some(Qualifier::Latest) => Some(function.latest()),
        Some(Qualifier::Version(number)) => function.version(Version::Published(number)),
        Some(Qualifier::Alias(ref name)) => {
            function.aliases().get(name).and_then(|alias| function.version(alias.version))
        }
    };
    found.ok_or_else(|| function_not_found(named.arn()))
}
