//! `martlet runtimes`

use super::print_list;
use crate::cli::Output;
use crate::config::{Config, ConfigError, Inputs, Layers};
use crate::terminal::{self, Table};
use martlet_environment::{Places, Runtimes};
use serde_json::{Value, json};
use std::process::ExitCode;

pub(super) fn run(output: Output) -> Result<ExitCode, ConfigError> {
    let config = Config::new(&Layers::load(&Inputs::this(Vec::new(), None))?)?;
    let runtimes = list(&Runtimes::discover(&config.runtime_paths));
    print_list(output, &runtimes, |runtimes| {
        let mut table = Table::new(&["RUNTIME", "VERSION", "INTERPRETER"]);
        for runtime in runtimes {
            let cell = |name: &str| runtime[name].as_str().unwrap_or("-").to_owned();
            table.row(vec![cell("runtime"), cell("version"), cell("path")]);
        }
        table
    });
    if output == Output::Text {
        let places = Places::of_this_process(&config.runtime_paths);
        let places: Vec<String> =
            places.directories().iter().map(|place| place.display().to_string()).collect();
        terminal::progress(format_args!("Looked in {}.", places.join(", ")));
        terminal::progress(
            "To look elsewhere, set `runtime_paths`; a running server keeps what it found at its start.",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The runtimes as programs read them.
fn list(runtimes: &Runtimes) -> Vec<Value> {
    let entry = |name: martlet_model::RuntimeName| match runtimes.find(&name) {
        Some(interpreter) => {
            json!({ "runtime": name, "version": interpreter.version, "path": interpreter.path })
        }
        None => json!({ "runtime": name, "version": null, "path": null }),
    };
    runtimes.names().into_iter().map(entry).collect()
}
