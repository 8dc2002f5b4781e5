//! What the server says about itself: a short banner for people, one line of JSON for programs.

use crate::config::{Config, Isolation, Tmp};
use crate::credentials_file::FILE_NAME;
use crate::terminal::{bold, cyan, program, shell_word, yellow};
use martlet_sandbox::InForce;
use serde_json::{Value, json};
use std::fmt::Write;
use std::net::SocketAddr;

/// How a client of the same machine reaches a server that listens on `address`.
pub(super) fn endpoint(address: SocketAddr) -> String {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    format!("http://{address}")
}

/// The banner, with a line for everything that is less than the default protects.
pub(super) fn text(config: &Config, address: SocketAddr, in_force: &InForce, runtimes: &[String]) -> String {
    let mut banner = String::new();
    let mut line = |name: &str, what: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(banner, "  {name:<12} {what}");
    };
    line("address", &endpoint(address));
    line("data", &config.data_dir.display().to_string());
    line("user", &user());
    line("isolation", &isolation(in_force));
    line("runtimes", &if runtimes.is_empty() { "none found".to_owned() } else { runtimes.join(", ") });
    line("credentials", &config.data_dir.join(FILE_NAME).display().to_string());
    let mut notices = String::new();
    for notice in notices_of(config, address) {
        let _ = writeln!(notices, "{}", yellow(format_args!("! {notice}")));
    }
    let exports = [
        format!(
            "export AWS_ENDPOINT_URL={} AWS_REGION={region} AWS_DEFAULT_REGION={region}",
            endpoint(address),
            region = config.region
        ),
        format!(
            "export AWS_SHARED_CREDENTIALS_FILE={}",
            shell_word(&config.data_dir.join(FILE_NAME).to_string_lossy())
        ),
        format!("{} deploy PATH", program()),
    ];
    let exports: String = exports.iter().map(|line| format!("  {}\n", cyan(line))).collect();
    let title = bold(format_args!("Martlet {} is ready.", env!("CARGO_PKG_VERSION")));
    format!("{title}\n{banner}{notices}{}\n{exports}", bold("Try next, in another shell:"))
}

/// What a program needs to use the server.
pub(super) fn json(config: &Config, address: SocketAddr) -> Value {
    json!({
        "endpoint": endpoint(address),
        "credentials": config.data_dir.join(FILE_NAME),
        "dataDir": config.data_dir,
        "region": config.region,
        "pid": std::process::id(),
    })
}

fn notices_of(config: &Config, address: SocketAddr) -> Vec<String> {
    let mut notices = Vec::new();
    if config.dev {
        notices.push(
            "DEVELOPMENT MODE: any signature is accepted. Whoever can reach this address can do everything; never use \
             it for anything but local work."
                .to_owned(),
        );
    }
    if config.cold != "off" {
        notices.push(format!(
            "COLD STARTS: every invocation gets a new environment ({}), however warm another one is; for measuring only.",
            config.cold
        ));
    }
    if config.isolation == Isolation::NoCgroups {
        notices.push(
            "WEAKER ISOLATION as asked for: without cgroups, memory and CPU of functions are limited per process only."
                .to_owned(),
        );
    }
    if config.tmp == Tmp::Memory {
        notices.push(
            "Functions' /tmp is kept in memory and counts against their limit, as asked for.".to_owned(),
        );
    }
    if !address.ip().is_loopback() {
        notices.push(
            "This address can be reached from other machines, and traffic is plain HTTP: signatures keep requests from \
             being forged, not from being read."
                .to_owned(),
        );
    }
    notices
}

fn user() -> String {
    format!("uid {}", rustix::process::geteuid().as_raw())
}

/// What holds a function, in one line.
fn isolation(in_force: &InForce) -> String {
    let mut parts = vec!["namespaces".to_owned(), "seccomp".to_owned()];
    match in_force.landlock_abi {
        0 => parts.push("no Landlock (the kernel has none)".to_owned()),
        abi => parts.push(format!("Landlock {abi}")),
    }
    match &in_force.cgroups {
        Some(layout) => parts.push(format!("cgroups {layout}")),
        None => parts.push("NO cgroups".to_owned()),
    }
    parts.push(if in_force.rootless { "user namespace".to_owned() } else { "own uid each".to_owned() });
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_sent_to_an_address_that_they_can_reach() {
        assert_eq!(endpoint("127.0.0.1:4566".parse().unwrap()), "http://127.0.0.1:4566");
        assert_eq!(endpoint("0.0.0.0:80".parse().unwrap()), "http://127.0.0.1:80");
        assert_eq!(endpoint("[::]:80".parse().unwrap()), "http://[::1]:80");
    }
}
