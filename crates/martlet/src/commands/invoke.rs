//! `martlet invoke NAME`

use super::print_json;
use crate::cli::{InvokeArgs, Output};
use crate::client::{Answer, Client, ClientError, segment};
use crate::terminal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use std::io::{self, Read};
use std::process::ExitCode;

/// Why a function was not invoked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvokeError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot read the payload from {from}")]
    ReadPayload { from: String, source: io::Error },
    #[error("the payload is not JSON")]
    NotJson(#[source] serde_json::Error),
}

impl InvokeError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.hint(),
            Self::ReadPayload { .. } => None,
            Self::NotJson(_) => {
                Some(r#"a text needs quotes of its own: --payload '"text"'; a file is given as @FILE"#.into())
            }
        }
    }
}

pub(super) async fn run(
    arguments: &InvokeArgs,
    output: Output,
    client: &mut Client,
) -> Result<ExitCode, InvokeError> {
    let payload = payload(arguments.payload.as_deref())?;
    let mut path = format!("/2015-03-31/functions/{}/invocations", segment(&arguments.name));
    if let Some(qualifier) = &arguments.qualifier {
        path.push_str(&format!("?Qualifier={}", segment(qualifier)));
    }
    let mut headers =
        vec![("x-amz-invocation-type", if arguments.event { "Event" } else { "RequestResponse" })];
    // A machine reader gets the tail whenever there is one.
    if arguments.tail || (output == Output::Json && !arguments.event) {
        headers.push(("x-amz-log-type", "Tail"));
    }
    let answer = client.invoke(&path, &headers, payload).await?;
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let failed = header("x-amz-function-error");
    let tail = header("x-amz-log-result").and_then(|text| STANDARD.decode(text).ok());
    let tail = tail.as_deref().map(String::from_utf8_lossy);

    if output == Output::Json {
        print_json(&json!({
            "statusCode": answer.status.as_u16(),
            "requestId": header("x-amzn-requestid"),
            "executedVersion": header("x-amz-executed-version"),
            "functionError": failed,
            "payload": payload_as_json(&answer),
            "logTail": tail,
        }));
        return Ok(ExitCode::from(u8::from(failed.is_some())));
    }
    if let Some(tail) = tail {
        eprint!("{tail}");
        if !tail.ends_with('\n') {
            eprintln!();
        }
    }
    if arguments.event {
        terminal::progress(format_args!(
            "Queued as {}.",
            header("x-amzn-requestid").unwrap_or("(no request id)")
        ));
        return Ok(ExitCode::SUCCESS);
    }
    if failed.is_some() {
        tell_failure(&answer, arguments, header("x-amzn-requestid"));
        return Ok(ExitCode::from(1));
    }
    terminal::print(&answer.body);
    if !answer.body.ends_with(b"\n") {
        terminal::print(b"\n");
    }
    Ok(ExitCode::SUCCESS)
}

fn payload(argument: Option<&str>) -> Result<Bytes, InvokeError> {
    let failed = |from: &str, source| InvokeError::ReadPayload { from: from.to_owned(), source };
    let payload: Bytes = match argument {
        None => return Ok(Bytes::new()),
        Some("-") => {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes).map_err(|source| failed("stdin", source))?;
            bytes.into()
        }
        Some(text) => match text.strip_prefix('@') {
            Some(path) => std::fs::read(path).map_err(|source| failed(path, source))?.into(),
            None => text.to_owned().into(),
        },
    };
    serde_json::from_slice::<serde::de::IgnoredAny>(&payload).map_err(InvokeError::NotJson)?;
    Ok(payload)
}

fn payload_as_json(answer: &Answer) -> Value {
    if answer.body.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| String::from_utf8_lossy(&answer.body).into())
}

/// Prints the error that a function ended with, as its language would.
fn tell_failure(answer: &Answer, arguments: &InvokeArgs, request_id: Option<&str>) {
    let error = payload_as_json(answer);
    let kind = error["errorType"].as_str();
    let message = error["errorMessage"].as_str();
    match (kind, message) {
        (None, None) => eprintln!("{} {error}", terminal::red("function error:")),
        (kind, message) => eprintln!(
            "{} {}: {}",
            terminal::red("function error:"),
            kind.unwrap_or("Error"),
            message.unwrap_or_default()
        ),
    }
    for frame in error["stackTrace"].as_array().or(error["trace"].as_array()).into_iter().flatten() {
        eprintln!("{}", frame.as_str().unwrap_or_default().trim_end());
    }
    if let (Some(request_id), false) = (request_id, arguments.tail) {
        let name = arguments.name.as_str();
        eprintln!(
            "{} martlet logs {name} --request-id {request_id} shows what it logged",
            terminal::cyan("hint:")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_json_from_text_or_a_file() {
        let dir = crate::testing::TempDir::new();
        let file = dir.path().join("event.json");
        std::fs::write(&file, "[1]").unwrap();
        assert_eq!(payload(None).unwrap(), "");
        assert_eq!(payload(Some("{\"a\": 1}")).unwrap(), "{\"a\": 1}");
        assert_eq!(payload(Some(&format!("@{}", file.display()))).unwrap(), "[1]");
        assert!(matches!(payload(Some("@/no/such/file")), Err(InvokeError::ReadPayload { .. })));
        for wrong in ["Ada", "", "{", "1 2"] {
            assert!(matches!(payload(Some(wrong)), Err(InvokeError::NotJson(_))), "{wrong:?}");
        }
    }
}
