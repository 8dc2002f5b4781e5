//! `martlet rm NAME`

use super::print_json;
use crate::cli::{Output, RmArgs};
use crate::client::{Client, ClientError, segment};
use crate::terminal;
use http::Method;
use serde_json::json;
use std::process::ExitCode;

pub(super) async fn run(
    arguments: &RmArgs,
    output: Output,
    client: &mut Client,
) -> Result<ExitCode, ClientError> {
    for name in &arguments.names {
        let path = format!("/2015-03-31/functions/{}", segment(name));
        client.lambda("DeleteFunction", Method::DELETE, &path, None).await?;
        if output == Output::Text {
            terminal::progress(format_args!("Deleted {name}."));
        }
    }
    if output == Output::Json {
        print_json(&json!({ "deleted": arguments.names }));
    }
    Ok(ExitCode::SUCCESS)
}
