//! Configuration: defaults < file < environment < flags, each value with its origin.

pub(crate) mod keys;
mod layers;
mod machine;
mod value;

pub(crate) use layers::{ConfigError, Inputs, Layers, Machine, Origin, local_data_dirs};

use martlet_environment::Grant;
use martlet_model::{AccountId, Region};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Which isolation a function needs to run at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    Full,
    NoCgroups,
}

impl Isolation {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NoCgroups => "no-cgroups",
        }
    }
}

/// What backs a function's `/tmp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tmp {
    Disk,
    Memory,
}

impl Tmp {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}

/// Limits of the HTTP gateway.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) max_connections: usize,
    pub(crate) max_headers: usize,
    pub(crate) max_header_bytes: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) body_idle_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) keep_alive: Duration,
}

/// The configuration of one server, checked. [`keys::KEYS`] says what each value means.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) account_id: AccountId,
    pub(crate) region: Region,
    pub(crate) user: String,
    pub(crate) isolation: Isolation,
    pub(crate) tmp: Tmp,
    pub(crate) log_retention_days: u32,
    pub(crate) metering_retention_days: u32,
    pub(crate) idle_timeout: Duration,
    /// Whether environments are kept by their function's history of calls.
    pub(crate) keep_by_history: bool,
    pub(crate) fork_start: bool,
    pub(crate) spares: usize,
    pub(crate) runtime_templates: usize,
    pub(crate) starts_per_second: u32,
    pub(crate) function_starts_per_second: u32,
    pub(crate) longest_wait: Duration,
    pub(crate) stream_idle: Duration,
    pub(crate) memory_budget_mb: u64,
    pub(crate) account_concurrency: u32,
    pub(crate) async_retry: Duration,
    /// For each unit of concurrency; 0 is no limit.
    pub(crate) calls_per_second: u32,
    pub(crate) account_calls_per_second: u32,
    pub(crate) drain: Duration,
    pub(crate) runtime_paths: Vec<PathBuf>,
    /// By the ids of access points.
    pub(crate) file_systems: BTreeMap<String, Grant>,
    pub(crate) log_level: String,
    pub(crate) dev: bool,
    /// The start that every synchronous invocation has: a word of [`martlet_aws::lambda::start_of`], or `off`.
    pub(crate) cold: String,
    pub(crate) gateway: Gateway,
}

/// Reads `fsap-0123456789abcdef0=/srv/data,ro`.
fn grants(given: &[PathBuf]) -> Result<BTreeMap<String, Grant>, String> {
    let mut grants = BTreeMap::new();
    for entry in given {
        let entry = entry.to_string_lossy();
        let wrong = || {
            format!(
                "{entry} is not ID=DIR with an id such as fsap-0123456789abcdef0 and an absolute directory"
            )
        };
        let (id, directory) = entry.split_once('=').ok_or_else(wrong)?;
        let digits = id.strip_prefix("fsap-").unwrap_or_default();
        let (directory, writable) = match directory.strip_suffix(",ro") {
            Some(directory) => (directory, false),
            None => (directory, true),
        };
        let lower_hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        if digits.len() != 17 || !digits.bytes().all(lower_hex) || !directory.starts_with('/') {
            return Err(wrong());
        }
        let directory = PathBuf::from(directory);
        if grants.insert(id.to_owned(), Grant { directory, writable }).is_some() {
            return Err(format!("{id} is given twice"));
        }
    }
    Ok(grants)
}

impl Config {
    /// Checks what a single key cannot: the form of names, and settings that exclude each other.
    ///
    /// # Errors
    /// [`ConfigError`], which names the setting, where it was set and what to do.
    pub(crate) fn new(layers: &Layers) -> Result<Self, ConfigError> {
        let account_id = AccountId::new(layers.text("account_id"))
            .map_err(|e| layers.refused("account_id", e.to_string()))?;
        let region =
            Region::new(layers.text("region")).map_err(|e| layers.refused("region", e.to_string()))?;
        let listen = layers.address("listen");
        let dev = layers.switch("dev");
        if dev && !listen.ip().is_loopback() {
            return Err(layers.refused(
                "listen",
                format!(
                    "development mode accepts any signature and therefore listens on loopback only; drop --dev or \
                     listen on 127.0.0.1:{}",
                    listen.port()
                ),
            ));
        }
        Ok(Self {
            data_dir: layers.path("data_dir"),
            listen,
            account_id,
            region,
            user: layers.text("user"),
            isolation: if layers.text("isolation") == "full" {
                Isolation::Full
            } else {
                Isolation::NoCgroups
            },
            tmp: if layers.text("tmp") == "disk" { Tmp::Disk } else { Tmp::Memory },
            log_retention_days: layers.number("log_retention_days"),
            metering_retention_days: layers.number("metering_retention_days"),
            idle_timeout: layers.seconds("idle_timeout_seconds"),
            keep_by_history: layers.text("keep_alive") == "history",
            fork_start: layers.switch("fork_start"),
            spares: layers.number("spares"),
            runtime_templates: layers.number("runtime_templates"),
            starts_per_second: layers.number("starts_per_second"),
            function_starts_per_second: layers.number("function_starts_per_second"),
            stream_idle: layers.seconds("stream_idle_seconds"),
            longest_wait: layers.seconds("longest_wait_seconds"),
            memory_budget_mb: layers.number("memory_budget_mb"),
            account_concurrency: layers.number("account_concurrency"),
            async_retry: layers.seconds("async_retry_seconds"),
            calls_per_second: layers.number("calls_per_second"),
            account_calls_per_second: layers.number("account_calls_per_second"),
            drain: layers.seconds("drain_seconds"),
            runtime_paths: layers.paths("runtime_paths"),
            file_systems: grants(&layers.paths("file_systems"))
                .map_err(|text| layers.refused("file_systems", text))?,
            log_level: layers.text("log_level"),
            dev,
            cold: layers.text("cold"),
            gateway: Gateway {
                max_connections: layers.number("gateway.max_connections"),
                max_headers: layers.number("gateway.max_headers"),
                max_header_bytes: layers.number("gateway.max_header_bytes"),
                header_timeout: layers.seconds("gateway.header_timeout_seconds"),
                body_idle_timeout: layers.seconds("gateway.body_idle_timeout_seconds"),
                body_timeout: layers.seconds("gateway.body_timeout_seconds"),
                write_timeout: layers.seconds("gateway.write_timeout_seconds"),
                keep_alive: layers.seconds("gateway.keep_alive_seconds"),
            },
        })
    }
}
