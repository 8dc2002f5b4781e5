//! `martlet deploy PATH`

use super::{alias, print_json, text};
use crate::cli::{DeployArgs, Output};
use crate::client::{Client, ClientError, Server, segment};
use crate::deploy::guess::{self, GuessError, Language};
use crate::deploy::{PackError, Package, language_of_runtime, name_after, newest};
use crate::terminal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// How long a function may take to become active.
const READY_WITHIN: Duration = Duration::from_secs(60);
const FIRST_POLL: Duration = Duration::from_millis(10);
const LONGEST_POLL: Duration = Duration::from_millis(500);

/// Why a function was not deployed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeployError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error("cannot guess the handler of {}: {source}", path.display())]
    Guess { path: PathBuf, source: GuessError },
    #[error("cannot make a function's name out of {0:?}; give one with --name")]
    Name(String),
    #[error("the server has no runtime for {language} (it has {})", if .has.is_empty() { "none".into() } else { .has.join(", ") })]
    NoRuntime { language: Language, has: Vec<String> },
    #[error("{0:?} is not an environment variable; it takes NAME=VALUE")]
    Variable(String),
    #[error("{name} did not become active: {reason}")]
    Failed { name: String, reason: String },
    #[error("{name} is still {state} after {} s", READY_WITHIN.as_secs())]
    Slow { name: String, state: String },
}

impl DeployError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.hint(),
            Self::Guess { .. } => {
                Some("name it: --handler FILE.FUNCTION, and --runtime for another language".into())
            }
            Self::NoRuntime { .. } => {
                Some("`martlet runtimes` tells what was found and where Martlet looks".into())
            }
            Self::Slow { .. } => Some("`martlet ls` tells how it is doing".into()),
            _ => None,
        }
    }
}

pub(super) async fn run(
    arguments: &DeployArgs,
    output: Output,
    client: &mut Client,
) -> Result<ExitCode, DeployError> {
    let package = Package::from_path(&arguments.path)?;
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => name_after(&package.stem).ok_or_else(|| DeployError::Name(package.stem.clone()))?,
    };
    let files = match package.files {
        Some(1) => "1 file, ".to_owned(),
        Some(files) => format!("{files} files, "),
        None => String::new(),
    };
    let size = terminal::size(package.zip.len() as u64);
    terminal::progress(format_args!("Packed {} ({files}{size}).", arguments.path.display()));

    let server = client.server().await?;
    let path = format!("/2015-03-31/functions/{}", segment(&name));
    let existing = match client
        .lambda("GetFunctionConfiguration", Method::GET, &format!("{path}/configuration"), None)
        .await
    {
        Ok(configuration) => Some(configuration),
        Err(error) if error.is("ResourceNotFoundException") => None,
        Err(error) => return Err(error.into()),
    };
    match existing {
        None => create(arguments, &name, &package, &server, client).await?,
        Some(existing) => update(arguments, &name, &path, &package, &server, &existing, client).await?,
    }
    let mut configuration = wait(&name, &path, client).await?;
    let mut called = name.clone();
    if let Some(alias) = &arguments.alias {
        configuration = publish(&name, &path, alias, client).await?;
        called = format!("{name}:{alias}");
    }

    match output {
        Output::Json => print_json(&configuration),
        Output::Text => {
            terminal::print_line(text(&configuration, "FunctionArn"));
            let program = terminal::program();
            terminal::try_next(&[
                format!("{program} invoke {called} --payload '{{}}' --tail"),
                format!("{program} logs {name}"),
            ]);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(
    arguments: &DeployArgs,
    name: &str,
    package: &Package,
    server: &Server,
    client: &mut Client,
) -> Result<(), DeployError> {
    let (runtime, handler) = runtime_and_handler(arguments, package, server)?;
    terminal::progress(format_args!("Creating {name} ({runtime}, handler {handler})."));
    let mut input = settings(arguments)?;
    let role = || format!("arn:aws:iam::{}:role/martlet", server.account_id);
    input.entry("Role").or_insert_with(|| role().into());
    input.insert("FunctionName".into(), name.into());
    input.insert("Runtime".into(), runtime.into());
    input.insert("Handler".into(), handler.into());
    input.insert("Code".into(), json!({ "ZipFile": STANDARD.encode(&package.zip) }));
    client.lambda("CreateFunction", Method::POST, "/2015-03-31/functions", Some(&Value::from(input))).await?;
    Ok(())
}

async fn update(
    arguments: &DeployArgs,
    name: &str,
    path: &str,
    package: &Package,
    server: &Server,
    existing: &Value,
    client: &mut Client,
) -> Result<(), DeployError> {
    let mut input = settings(arguments)?;
    let (runtime, handler) = (text(existing, "Runtime"), text(existing, "Handler"));
    if let Some(runtime) = &arguments.runtime {
        input.insert("Runtime".into(), runtime.clone().into());
    }
    if let Some(handler) = &arguments.handler {
        input.insert("Handler".into(), handler.clone().into());
    }
    // The handler that it has is kept for as long as the code has it.
    let asked = arguments.runtime.is_some() || arguments.handler.is_some();
    if !asked
        && guess::language_of(handler, &package.sources) != language_of_runtime(runtime)
        && let Ok((runtime, handler)) = runtime_and_handler(arguments, package, server)
    {
        terminal::progress(format_args!(
            "The code has no {} any more; using {runtime}, handler {handler}.",
            text(existing, "Handler")
        ));
        input.insert("Runtime".into(), runtime.into());
        input.insert("Handler".into(), handler.into());
    }
    terminal::progress(format_args!("Updating the code of {name}."));
    let code = json!({ "ZipFile": STANDARD.encode(&package.zip) });
    client.lambda("UpdateFunctionCode", Method::PUT, &format!("{path}/code"), Some(&code)).await?;
    if !input.is_empty() {
        wait(name, path, client).await?;
        let members: Vec<&str> = input.keys().map(String::as_str).collect();
        terminal::progress(format_args!("Updating {}.", members.join(", ")));
        let path = format!("{path}/configuration");
        client.lambda("UpdateFunctionConfiguration", Method::PUT, &path, Some(&Value::from(input))).await?;
    }
    Ok(())
}

/// Publishes what was deployed, moves the alias to it, and returns what the alias means then.
async fn publish(name: &str, path: &str, alias: &str, client: &mut Client) -> Result<Value, DeployError> {
    let versions = format!("{path}/versions");
    let published = client.lambda("PublishVersion", Method::POST, &versions, Some(&json!({}))).await?;
    let version = text(&published, "Version");
    terminal::progress(format_args!("Moving {alias} to version {version}."));
    alias::point(name, alias, version, None, client).await?;
    let path = format!("{path}/configuration?Qualifier={}", segment(alias));
    Ok(client.lambda("GetFunctionConfiguration", Method::GET, &path, None).await?)
}

/// What was asked for, and for the rest what the files suggest.
fn runtime_and_handler(
    arguments: &DeployArgs,
    package: &Package,
    server: &Server,
) -> Result<(String, String), DeployError> {
    let asked = arguments.runtime.as_deref().and_then(language_of_runtime);
    let (language, handler) = match (&arguments.handler, &arguments.runtime) {
        (Some(handler), Some(runtime)) => return Ok((runtime.clone(), handler.clone())),
        (Some(handler), None) => (guess::language_of(handler, &package.sources), Some(handler.clone())),
        (None, _) => (asked, None),
    };
    let (language, handler) = match (language, handler) {
        (Some(language), Some(handler)) => (language, handler),
        (language, handler) => {
            let guess = guess::handler(&package.sources, language)
                .map_err(|source| DeployError::Guess { path: arguments.path.clone(), source })?;
            (guess.language, handler.unwrap_or(guess.handler))
        }
    };
    let runtime = match &arguments.runtime {
        Some(runtime) => runtime.clone(),
        None => newest(&server.runtimes, language)
            .ok_or_else(|| DeployError::NoRuntime { language, has: server.runtimes.clone() })?
            .to_owned(),
    };
    Ok((runtime, handler))
}

/// The settings that were given, as members of CreateFunction and UpdateFunctionConfiguration.
fn settings(arguments: &DeployArgs) -> Result<Map<String, Value>, DeployError> {
    let mut input = Map::new();
    if let Some(memory) = arguments.memory {
        input.insert("MemorySize".into(), memory.into());
    }
    if let Some(timeout) = arguments.timeout {
        input.insert("Timeout".into(), timeout.into());
    }
    if let Some(role) = &arguments.role {
        input.insert("Role".into(), role.clone().into());
    }
    if !arguments.env.is_empty() {
        let variables: Result<Map<String, Value>, DeployError> = arguments
            .env
            .iter()
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.into())),
                _ => Err(DeployError::Variable(pair.clone())),
            })
            .collect();
        input.insert("Environment".into(), json!({ "Variables": variables? }));
    }
    Ok(input)
}

/// Waits until the function can be invoked and returns its configuration.
async fn wait(name: &str, path: &str, client: &mut Client) -> Result<Value, DeployError> {
    let deadline = Instant::now() + READY_WITHIN;
    let mut pause = FIRST_POLL;
    let path = format!("{path}/configuration");
    loop {
        let configuration = client.lambda("GetFunctionConfiguration", Method::GET, &path, None).await?;
        let (state, update) = (text(&configuration, "State"), text(&configuration, "LastUpdateStatus"));
        if state == "Failed" || update == "Failed" {
            let reason = ["StateReason", "LastUpdateStatusReason"].map(|member| text(&configuration, member));
            let reason = reason.into_iter().find(|reason| !reason.is_empty()).unwrap_or("no reason given");
            return Err(DeployError::Failed { name: name.to_owned(), reason: reason.to_owned() });
        }
        if state == "Active" && update != "InProgress" {
            return Ok(configuration);
        }
        if Instant::now() >= deadline {
            return Err(DeployError::Slow { name: name.to_owned(), state: state.to_owned() });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_POLL);
    }
}
