//! Martlet, the one binary: it serves, it is the launcher of its own sandboxes, and it is the command line.

mod cli;
mod client;
mod commands;
mod config;
mod credentials_file;
mod deploy;
mod server;
mod terminal;
#[cfg(test)]
mod testing;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: the launcher is this binary too, and must neither parse arguments nor have threads.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == martlet_sandbox::LAUNCHER_COMMAND) {
        martlet_sandbox::launcher_main();
    }
    match commands::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            terminal::report(&error, error.hint().as_deref());
            error.exit_code()
        }
    }
}
