//! `FunctionConfiguration`: a version as the API shows it.

use super::{Lambda, StartShown};
use crate::protocol::time::lambda_date;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use martlet_environment::Runtimes;
use martlet_functions::{Reason, State, Update, VersionRecord};
use martlet_model::function::{FileSystem, LogFormat, Logging};
use martlet_model::{Configuration, FunctionVersion, Layer, Qualifier, Version};
use martlet_store::Digest;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const CREATING: &str = "The function is being created.";

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct FunctionConfiguration<'a> {
    function_name: &'a str,
    function_arn: String,
    runtime: &'a str,
    role: &'a str,
    handler: &'a str,
    code_size: u64,
    description: &'a str,
    timeout: u32,
    memory_size: u32,
    last_modified: String,
    code_sha256: String,
    config_sha256: String,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<Environment<'a>>,
    tracing_config: TracingConfig,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<LayerShown>,
    revision_id: &'a str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    package_type: &'static str,
    architectures: [&'a str; 1],
    ephemeral_storage: EphemeralStorage,
    snap_start: SnapStart,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    file_system_configs: Vec<FileSystemConfig<'a>>,
    logging_config: LoggingConfig<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_config: Option<DeadLetterConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenancy_config: Option<TenancyConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    martlet: Option<StartShown>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TenancyConfig {
    tenant_isolation_mode: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DeadLetterConfig<'a> {
    target_arn: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Environment<'a> {
    variables: &'a BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TracingConfig {
    mode: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EphemeralStorage {
    size: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SnapStart {
    apply_on: &'static str,
    optimization_status: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct FileSystemConfig<'a> {
    arn: &'a str,
    local_mount_path: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct LoggingConfig<'a> {
    log_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_log_level: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_log_level: Option<&'a str>,
    log_group: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct LayerShown {
    arn: String,
    code_size: u64,
}

impl LayerShown {
    fn new(layer: &Layer) -> Self {
        Self { arn: layer.arn.to_string(), code_size: layer.code.bytes }
    }
}

/// What lists leave out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Status<'a> {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_reason_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_update_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_update_status_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_update_status_reason_code: Option<&'a str>,
    runtime_version_config: RuntimeVersionConfig,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RuntimeVersionConfig {
    runtime_version_arn: String,
}

impl<'a> FunctionConfiguration<'a> {
    /// With `qualifier` the ARN is qualified, as AWS does wherever a version was asked for.
    pub(super) fn new(lambda: &Lambda, record: &'a VersionRecord, qualifier: Option<&Qualifier>) -> Self {
        let status = Status::new(record, RuntimeVersionConfig::new(&lambda.runtimes, &record.version));
        Self { status: Some(status), ..Self::listed(record, qualifier) }
    }

    /// As lists show it: without the states.
    pub(super) fn listed(record: &'a VersionRecord, qualifier: Option<&Qualifier>) -> Self {
        let version = &record.version;
        let configuration = &version.configuration;
        let function = &version.function;
        Self {
            function_name: function.name.as_str(),
            function_arn: match qualifier {
                Some(qualifier) => function.qualified(qualifier),
                None => function.to_string(),
            },
            runtime: configuration.runtime.as_str(),
            role: &configuration.role,
            handler: &configuration.handler,
            code_size: version.code.bytes,
            description: &configuration.description,
            timeout: configuration.timeout_seconds,
            memory_size: configuration.memory_mb,
            last_modified: lambda_date(record.modified),
            code_sha256: code_sha256(&version.code.digest),
            // A configuration is plain data, which always serialises.
            config_sha256: base64(Digest::of(&serde_json::to_vec(configuration).unwrap_or_default())),
            version: version.version.to_string(),
            environment: record
                .environment_given
                .then_some(Environment { variables: &configuration.environment }),
            tracing_config: TracingConfig { mode: "PassThrough" },
            layers: configuration.layers.iter().map(LayerShown::new).collect(),
            revision_id: &record.revision_id,
            status: None,
            package_type: "Zip",
            architectures: [&configuration.architecture],
            ephemeral_storage: EphemeralStorage { size: configuration.ephemeral_mb },
            snap_start: SnapStart::new(configuration, version.version),
            file_system_configs: configuration.file_systems.iter().map(FileSystemConfig::new).collect(),
            logging_config: LoggingConfig::new(&configuration.logging, version),
            dead_letter_config: configuration
                .dead_letter
                .as_deref()
                .map(|target_arn| DeadLetterConfig { target_arn }),
            tenancy_config: configuration
                .per_tenant
                .then_some(TenancyConfig { tenant_isolation_mode: "PER_TENANT" }),
            martlet: None,
        }
    }

    /// The same, told how its environments start.
    pub(super) fn starting(self, start: StartShown) -> Self {
        Self { martlet: Some(start), ..self }
    }
}

impl<'a> Status<'a> {
    fn new(record: &'a VersionRecord, runtime_version_config: RuntimeVersionConfig) -> Self {
        let (state, state_reason, state_reason_code) = match &record.state {
            State::Pending => ("Pending", Some(CREATING), Some("Creating")),
            State::Active => ("Active", None, None),
            State::Failed(Reason { code, text }) => ("Failed", Some(text.as_str()), Some(code.as_str())),
        };
        let (update, update_reason, update_reason_code) = match &record.update {
            None => (None, None, None),
            Some(Update::InProgress) => (Some("InProgress"), Some(CREATING), Some("Creating")),
            Some(Update::Successful) => (Some("Successful"), None, None),
            Some(Update::Failed(Reason { code, text })) => {
                (Some("Failed"), Some(text.as_str()), Some(code.as_str()))
            }
        };
        Self {
            state,
            state_reason,
            state_reason_code,
            last_update_status: update,
            last_update_status_reason: update_reason,
            last_update_status_reason_code: update_reason_code,
            runtime_version_config,
        }
    }
}

impl SnapStart {
    /// Only published versions start from snapshots.
    fn new(configuration: &Configuration, version: Version) -> Self {
        let on = configuration.snap_start && version != Version::Latest;
        Self {
            apply_on: if configuration.snap_start { "PublishedVersions" } else { "None" },
            optimization_status: if on { "On" } else { "Off" },
        }
    }
}

impl<'a> FileSystemConfig<'a> {
    fn new(file_system: &'a FileSystem) -> Self {
        Self { arn: &file_system.arn, local_mount_path: &file_system.mount }
    }
}

impl<'a> LoggingConfig<'a> {
    fn new(logging: &'a Logging, version: &FunctionVersion) -> Self {
        Self {
            log_format: match logging.format {
                LogFormat::Text => "Text",
                LogFormat::Json => "JSON",
            },
            application_log_level: logging.application_level.as_deref(),
            system_log_level: logging.system_level.as_deref(),
            log_group: version.log_group(),
        }
    }
}

impl RuntimeVersionConfig {
    fn new(runtimes: &Runtimes, version: &FunctionVersion) -> Self {
        Self { runtime_version_arn: runtime_version_arn(runtimes, version) }
    }
}

/// What a version runs on: another interpreter version is another runtime version, told by a digest as AWS does.
pub(super) fn runtime_version_arn(runtimes: &Runtimes, version: &FunctionVersion) -> String {
    let runtime = &version.configuration.runtime;
    let interpreter = runtimes.find(runtime).map_or("", |interpreter| interpreter.version.as_str());
    let digest = Digest::of(format!("{runtime} {interpreter}").as_bytes());
    format!("arn:aws:lambda:{}::runtime:{digest}", version.function.region)
}

/// A digest as the API shows it: base64 of the bytes that the digits say.
pub(super) fn code_sha256(digest: &str) -> String {
    digest.parse().map(base64).unwrap_or_default()
}

fn base64(digest: Digest) -> String {
    STANDARD.encode(digest.as_bytes())
}

/// The digits of a digest as the API shows it; what is no such thing comes back as it is, and matches nothing.
pub(super) fn digest_of(code_sha256: &str) -> Cow<'_, str> {
    match STANDARD.decode(code_sha256) {
        Ok(bytes) if bytes.len() == 32 => bytes
            .iter()
            .fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
            .into(),
        _ => code_sha256.into(),
    }
}
