//! Martlet, the one binary: server and command line.

mod cli;
mod config;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Completions(arguments) => {
            clap_complete::generate(arguments.shell, &mut Cli::command(), "martlet", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}
