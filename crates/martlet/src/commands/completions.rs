//! `martlet completions SHELL`

use crate::cli::{Cli, CompletionsArgs};
use crate::terminal;
use clap::CommandFactory;
use std::process::ExitCode;

pub(super) fn run(arguments: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "martlet", &mut script);
    terminal::print(&script);
    ExitCode::SUCCESS
}
