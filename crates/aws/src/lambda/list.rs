//! ListFunctions.

use super::configuration::FunctionConfiguration;
use super::errors::invalid;
use super::{Lambda, paging};
use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Input, Output};
use martlet_model::Version;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    function_version: Option<String>,
    master_region: Option<String>,
    marker: Option<String>,
    max_items: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    functions: Vec<FunctionConfiguration<'a>>,
}

/// By name, and with all versions by name and number.
type Key = (String, Version);

pub(super) async fn list_functions(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let all = request.function_version.is_some();
    // Nothing is replicated, so a function's master region is the one that it is in.
    let elsewhere = match request.master_region.as_deref() {
        None | Some("ALL") => false,
        Some(_) if !all => return Err(invalid("MasterRegion needs FunctionVersion ALL")),
        Some(region) => region != ctx.region.as_str(),
    };
    let after = request.marker.as_deref().map(read_marker).transpose()?;
    let functions = if elsewhere { Vec::new() } else { lambda.functions.list(ctx.account(), &ctx.region) };
    let records =
        functions.iter().flat_map(|function| function.versions().take(if all { usize::MAX } else { 1 }));
    let key = |record: &&martlet_functions::VersionRecord| -> Key {
        (record.version.function.name.as_str().to_owned(), record.version.version)
    };
    let (page, next) = paging::page(records, key, after.as_ref(), request.max_items);
    Output::json(&Answer {
        next_marker: next.map(|(name, version)| paging::encode(&format!("{name}:{version}"))),
        functions: page
            .into_iter()
            .map(|record| {
                let qualifier = all.then(|| record.version.version.qualifier());
                FunctionConfiguration::listed(record, qualifier.as_ref())
            })
            .collect(),
    })
}

fn read_marker(marker: &str) -> Result<Key, ApiError> {
    let marker = paging::decode(marker)?;
    let (name, version) = marker.split_once(':').ok_or_else(paging::unknown)?;
    let version = match version {
        "$LATEST" => Version::Latest,
        number => Version::Published(number.parse().map_err(|_| paging::unknown())?),
    };
    Ok((name.to_owned(), version))
}
