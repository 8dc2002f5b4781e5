//! `martlet alias FUNCTION [ALIAS [VERSION]]`

use super::{print_json, print_list, text};
use crate::cli::{AliasArgs, Output};
use crate::client::{Client, ClientError, segment};
use crate::terminal::{self, Table};
use http::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Why an alias was not shown or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AliasError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0:?} is no share of the calls; it takes VERSION=PERCENT, as in 4=10")]
    Canary(String),
}

impl AliasError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.hint(),
            Self::Canary(_) => None,
        }
    }
}

pub(super) async fn run(
    arguments: &AliasArgs,
    output: Output,
    client: &mut Client,
) -> Result<ExitCode, AliasError> {
    let function = &arguments.function;
    let shown = match (&arguments.alias, &arguments.version) {
        (None, _) => {
            list(function, output, client).await?;
            return Ok(ExitCode::SUCCESS);
        }
        (Some(alias), None) if arguments.rm => {
            client.lambda("DeleteAlias", Method::DELETE, &path(function, Some(alias)), None).await?;
            match output {
                Output::Json => print_json(&json!({ "deleted": format!("{function}:{alias}") })),
                Output::Text => terminal::progress(format_args!("Deleted {function}:{alias}.")),
            }
            return Ok(ExitCode::SUCCESS);
        }
        (Some(alias), None) => {
            client.lambda("GetAlias", Method::GET, &path(function, Some(alias)), None).await?
        }
        (Some(alias), Some(version)) => {
            let canary = arguments.canary.as_deref().map(canary).transpose()?;
            point(function, alias, version, canary, client).await?
        }
    };
    match output {
        Output::Json => print_json(&shown),
        Output::Text => terminal::print(table(std::slice::from_ref(&shown)).to_string().as_bytes()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Moves an alias in one step, or makes it; what it had beside `canary` is gone.
pub(super) async fn point(
    function: &str,
    alias: &str,
    version: &str,
    canary: Option<(String, f64)>,
    client: &mut Client,
) -> Result<Value, ClientError> {
    let weights = canary.map_or_else(|| json!({}), |(version, weight)| json!({ version: weight }));
    let input =
        json!({ "FunctionVersion": version, "RoutingConfig": { "AdditionalVersionWeights": weights } });
    match client.lambda("UpdateAlias", Method::PUT, &path(function, Some(alias)), Some(&input)).await {
        Err(error) if error.is("ResourceNotFoundException") => {
            let mut input = input;
            input["Name"] = alias.into();
            client.lambda("CreateAlias", Method::POST, &path(function, None), Some(&input)).await
        }
        other => other,
    }
}

async fn list(function: &str, output: Output, client: &mut Client) -> Result<(), ClientError> {
    let mut aliases = Vec::new();
    let mut marker = String::new();
    loop {
        let path = match marker.as_str() {
            "" => path(function, None),
            marker => format!("{}?Marker={}", path(function, None), segment(marker)),
        };
        let mut page = client.lambda("ListAliases", Method::GET, &path, None).await?;
        if let Some(items) = page["Aliases"].as_array_mut() {
            aliases.append(items);
        }
        match page["NextMarker"].as_str() {
            Some(next) if !next.is_empty() => marker = next.to_owned(),
            _ => break,
        }
    }
    if aliases.is_empty() && output == Output::Text {
        terminal::progress(format_args!("{function} has no aliases yet."));
        terminal::try_next(&[format!("{} deploy PATH --name {function} --alias live", terminal::program())]);
        return Ok(());
    }
    print_list(output, &aliases, table);
    Ok(())
}

fn table(aliases: &[Value]) -> Table {
    let mut table = Table::new(&["ALIAS", "VERSION", "CANARY", "DESCRIPTION"]);
    for alias in aliases {
        let weights = alias["RoutingConfig"]["AdditionalVersionWeights"].as_object();
        let shares = weights.into_iter().flatten().map(|(version, weight)| {
            format!("{version} ({}%)", hundredfold(weight.as_f64().unwrap_or_default()))
        });
        table.row(vec![
            text(alias, "Name").to_owned(),
            text(alias, "FunctionVersion").to_owned(),
            shares.collect::<Vec<_>>().join(", "),
            text(alias, "Description").to_owned(),
        ]);
    }
    table
}

/// A share in percent, without what its binary form adds far behind the point.
fn hundredfold(weight: f64) -> f64 {
    (weight * 1e8).round() / 1e6
}

/// `4=10`: a tenth for version 4.
fn canary(given: &str) -> Result<(String, f64), AliasError> {
    let refused = || AliasError::Canary(given.to_owned());
    let (version, percent) = given.split_once('=').ok_or_else(refused)?;
    let percent: f64 = percent.trim_end_matches('%').parse().map_err(|_| refused())?;
    if version.is_empty() || !(0.0..=100.0).contains(&percent) {
        return Err(refused());
    }
    Ok((version.to_owned(), percent / 100.0))
}

fn path(function: &str, alias: Option<&str>) -> String {
    let aliases = format!("/2015-03-31/functions/{}/aliases", segment(function));
    match alias {
        Some(alias) => format!("{aliases}/{}", segment(alias)),
        None => aliases,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_in_percent() {
        assert_eq!(canary("4=10").unwrap(), ("4".to_owned(), 0.1));
        assert_eq!(canary("12=0.5%").unwrap(), ("12".to_owned(), 0.005));
        assert!([0.1, 0.07, 0.29].map(hundredfold) == [10.0, 7.0, 29.0]);
        for wrong in ["4", "4=", "=10", "4=ten", "4=-1", "4=101", "4=NaN"] {
            assert!(matches!(canary(wrong), Err(AliasError::Canary(_))), "{wrong}");
        }
    }
}
