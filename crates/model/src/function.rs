//! One version of a function: what was configured and which code it runs.

use crate::arn::{FunctionArn, Qualifier};
use crate::layer::Layer;
use crate::limits;
use crate::runtime::RuntimeName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// `$LATEST`, which changes, or a published number, which never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Version {
    /// The version under work.
    Latest,
    /// A published version, counted from 1 and never used again.
    Published(u64),
}

impl Version {
    /// The qualifier that names exactly this version.
    #[must_use]
    pub fn qualifier(self) -> Qualifier {
        match self {
            Self::Latest => Qualifier::Latest,
            Self::Published(number) => Qualifier::Version(number),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.qualifier().fmt(f)
    }
}

/// How log lines leave the function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// Lines as the function wrote them.
    #[default]
    Text,
    /// One JSON object a record, filtered by level.
    Json,
}

/// Where and how a function logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// Text or JSON.
    pub format: LogFormat,
    /// Lowest level that the function's own records need (TRACE, DEBUG, INFO, WARN, ERROR, FATAL); JSON only.
    pub application_level: Option<String>,
    /// Lowest level that the platform's records need (DEBUG, INFO, WARN); JSON only.
    pub system_level: Option<String>,
    /// The log group, when it is not `/aws/lambda/NAME`.
    pub group: Option<String>,
}

/// A directory of the host that a version sees. Which one the access point stands for, the server's configuration says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// The access point's ARN.
    pub arn: String,
    /// Where it is mounted, below `/mnt`.
    pub mount: String,
}

impl FileSystem {
    /// The access point's id, `fsap-...`, with which its ARN ends.
    #[must_use]
    pub fn access_point(&self) -> &str {
        self.arn.rsplit_once('/').map_or("", |(_, id)| id)
    }
}

/// The settings of one version that change how it runs. Units are in the names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The runtime identifier.
    pub runtime: RuntimeName,
    /// `module.function` for managed runtimes; passed on unread as `_HANDLER` to provided ones.
    pub handler: String,
    /// The execution role's ARN. No policy is attached to it yet; it is kept and shown.
    pub role: String,
    /// Free text.
    pub description: String,
    /// Deadline of an invocation, 1 to 900 s.
    pub timeout_seconds: u32,
    /// Memory limit, 128 to 10,240 MB; CPU is proportional ([`limits::cpu_millis`]).
    pub memory_mb: u32,
    /// Size of `/tmp`, 512 to 10,240 MB.
    pub ephemeral_mb: u32,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// The function's own environment variables.
    pub environment: BTreeMap<String, String>,
    /// Where and how it logs.
    pub logging: Logging,
    /// Where events that were given up go, an ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<String>,
    /// Whether published versions start from a snapshot, which here is a template.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub snap_start: bool,
    /// Directories of the host that it sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub file_systems: Vec<FileSystem>,
    /// Whether each tenant has environments of its own. Never changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub per_tenant: bool,
    /// What is laid over each other at `/opt`, the lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
}

impl Configuration {
    /// What a function has that asks for nothing but its runtime and its handler: Lambda's defaults, on x86_64.
    #[must_use]
    pub fn new(runtime: RuntimeName, handler: impl Into<String>) -> Self {
        Self {
            runtime,
            handler: handler.into(),
            role: String::new(),
            description: String::new(),
            timeout_seconds: limits::DEFAULT_TIMEOUT_SECONDS,
            memory_mb: limits::MIN_MEMORY_MB,
            ephemeral_mb: limits::MIN_EPHEMERAL_MB,
            architecture: "x86_64".to_owned(),
            environment: BTreeMap::new(),
            logging: Logging::default(),
            dead_letter: None,
            snap_start: false,
            file_systems: Vec::new(),
            per_tenant: false,
            layers: Vec::new(),
        }
    }

    /// The share of CPU that the memory buys, in thousandths of one CPU.
    #[must_use]
    pub fn cpu_millis(&self) -> u32 {
        limits::cpu_millis(self.memory_mb)
    }
}

/// The code of one version; the bytes live in blob storage under `digest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Code {
    /// SHA-256 of the zip file, 64 lower-case hexadecimal digits.
    pub digest: String,
    /// Size of the zip file, in bytes.
    pub bytes: u64,
}

/// Everything that running one version needs to know. Immutable: an update makes another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionVersion {
    /// The function it is a version of.
    pub function: FunctionArn,
    /// Which version.
    pub version: Version,
    /// Its settings.
    pub configuration: Configuration,
    /// Its code.
    pub code: Code,
    /// Changes with every change of code or configuration; an environment of another revision is stale.
    pub revision: String,
}

impl FunctionVersion {
    /// The log group that its environments write to.
    #[must_use]
    pub fn log_group(&self) -> String {
        match &self.configuration.logging.group {
            Some(group) => group.clone(),
            None => format!("/aws/lambda/{}", self.function.name),
        }
    }
}
