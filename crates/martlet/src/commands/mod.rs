//! The commands that talk to a server, one file each, and what they share.

mod alias;
mod completions;
mod deploy;
mod doctor;
mod invoke;
mod list;
mod logs;
mod remove;
mod runtimes;

use crate::cli::{Cli, Command, Output, ServerArgs};
use crate::client::{Client, ClientError};
use crate::config::ConfigError;
use crate::server::UpError;
use crate::terminal;
use serde_json::Value;
use std::io;
use std::process::ExitCode;

/// Why a command failed, one variant a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Up(#[from] UpError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Alias(#[from] alias::AliasError),
    #[error(transparent)]
    Deploy(#[from] deploy::DeployError),
    #[error(transparent)]
    Invoke(#[from] invoke::InvokeError),
    #[error(transparent)]
    Logs(#[from] logs::LogsError),
    #[error("cannot start the client's runtime")]
    Runtime(#[source] io::Error),
}

impl CommandError {
    /// 2 where the command line or the configuration must be mended, else 1.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Up(error) => error.hint(),
            Self::Client(error) => error.hint(),
            Self::Alias(error) => error.hint(),
            Self::Deploy(error) => error.hint(),
            Self::Invoke(error) => error.hint(),
            Self::Logs(error) => error.hint(),
            Self::Config(_) | Self::Runtime(_) => None,
        }
    }
}

/// Carries out what the command line asks for.
///
/// # Errors
/// The command's own.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, CommandError> {
    let output = cli.output;
    match cli.command {
        Command::Up(arguments) => crate::server::up(&arguments, output),
        Command::Deploy(arguments) => with_client(&arguments.server, async |client| {
            deploy::run(&arguments, output, client).await.map_err(Into::into)
        }),
        Command::Invoke(arguments) => with_client(&arguments.server, async |client| {
            invoke::run(&arguments, output, client).await.map_err(Into::into)
        }),
        Command::Logs(arguments) => with_client(&arguments.server, async |client| {
            logs::run(&arguments, output, client).await.map_err(Into::into)
        }),
        Command::Alias(arguments) => with_client(&arguments.server, async |client| {
            alias::run(&arguments, output, client).await.map_err(Into::into)
        }),
        Command::Ls(arguments) => with_client(&arguments.server, async |client| {
            list::run(&arguments, output, client).await.map_err(Into::into)
        }),
        Command::Rm(arguments) => with_client(&arguments.server, async |client| {
            remove::run(&arguments, output, client).await.map_err(Into::into)
        }),
        Command::Runtimes(_) => runtimes::run(output).map_err(Into::into),
        Command::Doctor(arguments) => doctor::run(&arguments, output).map_err(Into::into),
        Command::Completions(arguments) => Ok(completions::run(&arguments)),
    }
}

/// Runs a command against the server that `arguments` name, on one thread.
fn with_client(
    arguments: &ServerArgs,
    command: impl AsyncFnOnce(&mut Client) -> Result<ExitCode, CommandError>,
) -> Result<ExitCode, CommandError> {
    let root = rustix::process::geteuid().is_root();
    let data_dirs = crate::config::local_data_dirs(root, |name| std::env::var(name).ok());
    let mut client = Client::new(arguments, &data_dirs)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::Runtime)?;
    runtime.block_on(command(&mut client))
}

/// Prints the result of a command for programs.
fn print_json(value: &Value) {
    terminal::print_line(format_args!("{value:#}"));
}

/// The text of a member of an answer, empty when there is none.
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// The table or the JSON of a list, whichever was asked for.
fn print_list(output: Output, items: &[Value], table: impl FnOnce(&[Value]) -> terminal::Table) {
    match output {
        Output::Json => print_json(&Value::from(items.to_vec())),
        Output::Text => terminal::print(table(items).to_string().as_bytes()),
    }
}
