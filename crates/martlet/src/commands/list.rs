//! `martlet ls`

use super::{print_list, text};
use crate::cli::{LsArgs, Output};
use crate::client::{Client, ClientError, segment};
use crate::terminal::{self, Table};
use http::Method;
use serde_json::Value;
use std::process::ExitCode;

pub(super) async fn run(
    arguments: &LsArgs,
    output: Output,
    client: &mut Client,
) -> Result<ExitCode, ClientError> {
    let mut functions = pages(client).await?;
    if functions.is_empty() && output == Output::Text {
        terminal::progress("No functions yet.");
        terminal::try_next(&[format!("{} deploy PATH", terminal::program())]);
        return Ok(ExitCode::SUCCESS);
    }
    let verbose = arguments.verbose;
    if verbose {
        tell_starts(client, &mut functions).await?;
    }
    print_list(output, &functions, |functions| {
        let mut head = vec!["NAME", "RUNTIME", "MEMORY", "TIMEOUT", "CODE", "MODIFIED"];
        if verbose {
            head.extend(["HANDLER", "START", "ARN", "DESCRIPTION"]);
        }
        let mut table = Table::new(&head);
        for function in functions {
            table.row(row(function, verbose));
        }
        table
    });
    Ok(ExitCode::SUCCESS)
}

fn row(function: &Value, verbose: bool) -> Vec<String> {
    let modified = text(function, "LastModified");
    let mut cells = vec![
        text(function, "FunctionName").to_owned(),
        text(function, "Runtime").to_owned(),
        format!("{} MB", function["MemorySize"]),
        format!("{} s", function["Timeout"]),
        terminal::size(function["CodeSize"].as_u64().unwrap_or_default()),
        // 2026-01-31T12:00:00.000+0000 to the second
        modified.get(..19).unwrap_or(modified).replace('T', " "),
    ];
    if verbose {
        let start = &function["Martlet"];
        cells.push(text(function, "Handler").to_owned());
        cells.push(match start["Reason"].as_str() {
            Some(reason) => format!("{}: {reason}", text(start, "Start")),
            None => text(start, "Start").to_owned(),
        });
        cells.extend(["FunctionArn", "Description"].map(|name| text(function, name).to_owned()));
    }
    cells
}

/// How the environments of each function start is told with one function only, not in lists.
async fn tell_starts(client: &mut Client, functions: &mut [Value]) -> Result<(), ClientError> {
    for function in functions {
        let path = format!("/2015-03-31/functions/{}/configuration", segment(text(function, "FunctionName")));
        match client.lambda("GetFunctionConfiguration", Method::GET, &path, None).await {
            Ok(mut one) => function["Martlet"] = one["Martlet"].take(),
            Err(error) if error.is("ResourceNotFoundException") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn pages(client: &mut Client) -> Result<Vec<Value>, ClientError> {
    let mut functions = Vec::new();
    let mut marker = String::new();
    loop {
        let path = match marker.as_str() {
            "" => "/2015-03-31/functions".to_owned(),
            marker => format!("/2015-03-31/functions?Marker={}", segment(marker)),
        };
        let mut page = client.lambda("ListFunctions", Method::GET, &path, None).await?;
        if let Some(items) = page["Functions"].as_array_mut() {
            functions.append(items);
        }
        match page["NextMarker"].as_str() {
            Some(next) if !next.is_empty() => marker = next.to_owned(),
            _ => return Ok(functions),
        }
    }
}
