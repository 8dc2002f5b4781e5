//! `martlet doctor`: what this machine can isolate, and whatever else keeps a server from starting.

use super::print_json;
use crate::cli::{DoctorArgs, Output};
use crate::config::{self, Config, ConfigError, Inputs, Isolation, Layers, Tmp};
use crate::server;
use crate::terminal::{self, bold, red, yellow};
use martlet_environment::Runtimes;
use martlet_sandbox::doctor::{Finding, Status};
use serde_json::{Value, json};
use std::io;
use std::net::TcpListener;
use std::process::ExitCode;

pub(super) fn run(arguments: &DoctorArgs, output: Output) -> Result<ExitCode, ConfigError> {
    let data_dir = config::keys::find("data_dir").zip(arguments.data_dir.as_ref());
    let flags = data_dir.map(|(key, path)| (key, path.to_string_lossy().into_owned()));
    let config = Config::new(&Layers::load(&Inputs::this(flags.into_iter().collect(), None))?)?;

    let full = server::examine(Isolation::Full, Tmp::Disk);
    let full_is_possible = server::missing(full.clone()).is_empty();
    let weaker = if full_is_possible { None } else { server::weaker() };
    let findings: Vec<Finding> = full.into_iter().chain(surroundings(&config)).collect();
    match output {
        Output::Json => print_json(&json!({
            "full_isolation": full_is_possible,
            "weaker_flags": weaker,
            "findings": findings.iter().map(as_json).collect::<Vec<_>>(),
        })),
        Output::Text => print(&findings, full_is_possible, weaker.as_deref()),
    }
    Ok(if full_is_possible { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What `martlet up` needs besides isolation.
fn surroundings(config: &Config) -> Vec<Finding> {
    vec![data_dir(config), listen(config), runtimes(config)]
}

fn data_dir(config: &Config) -> Finding {
    let path = config.data_dir.display();
    let finding = |status, detail: String, remedy: &str| Finding {
        name: "data directory".into(),
        status,
        detail,
        remedy: remedy.into(),
    };
    if let Some(pid) = server::holder(&config.data_dir) {
        return finding(Status::Ok, format!("{path} is in use by the server with pid {pid}"), "");
    }
    match std::fs::read_dir(&config.data_dir) {
        Ok(_) => finding(Status::Ok, format!("{path} is there"), ""),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            finding(Status::Ok, format!("{path} will be made at the first start"), "")
        }
        Err(error) => finding(
            Status::Degraded,
            format!("{path} cannot be read: {error}"),
            "start Martlet as the directory's owner or as root, or name another with --data-dir DIR",
        ),
    }
}

fn listen(config: &Config) -> Finding {
    let address = config.listen;
    let (status, detail, remedy) = match TcpListener::bind(address) {
        Ok(_) => (Status::Ok, format!("{address} is free"), ""),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => (
            Status::Degraded,
            format!("{address} is taken, maybe by a running server"),
            "stop what serves there, or name another with --listen HOST:PORT",
        ),
        Err(error) => (
            Status::Degraded,
            format!("{address} cannot be listened on: {error}"),
            "name another address with --listen HOST:PORT",
        ),
    };
    Finding { name: "address".into(), status, detail, remedy: remedy.into() }
}

fn runtimes(config: &Config) -> Finding {
    let found = Runtimes::discover(&config.runtime_paths);
    let names: Vec<&str> = found.list().iter().map(|interpreter| interpreter.runtime.as_str()).collect();
    let (status, detail, remedy) = if names.is_empty() {
        (
            Status::Degraded,
            "no Python and no Node found; only provided runtimes can be used".to_owned(),
            "install python3 or node, or set `runtime_paths` to the directories that have them",
        )
    } else {
        (Status::Ok, names.join(", "), "")
    };
    Finding { name: "runtimes".into(), status, detail, remedy: remedy.into() }
}

fn as_json(finding: &Finding) -> Value {
    json!({
        "name": finding.name,
        "status": word(finding.status),
        "detail": finding.detail,
        "remedy": finding.remedy,
    })
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Degraded => "degraded",
        Status::Missing => "missing",
    }
}

fn print(findings: &[Finding], full_is_possible: bool, weaker: Option<&str>) {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for finding in findings {
        let Finding { name, status, detail, remedy } = finding;
        text.push_str(&format!("{:<8}  {name:<width$}  {detail}\n", word(*status)));
        if *status != Status::Ok && !remedy.is_empty() {
            text.push_str(&format!("{:<8}  {:<width$}  -> {remedy}\n", "", ""));
        }
    }
    terminal::print(text.as_bytes());
    match (full_is_possible, weaker) {
        (true, _) => terminal::progress(bold("Full isolation is possible on this machine.")),
        (false, Some(flags)) => terminal::progress(yellow(format_args!(
            "Full isolation is not possible until what is missing is mended. Possible now, and weaker: martlet up {flags}"
        ))),
        (false, None) => {
            terminal::progress(red("This machine cannot isolate functions until what is missing is mended."));
        }
    }
}
