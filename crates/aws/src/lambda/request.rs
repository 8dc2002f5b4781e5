//! The members that describe a function, in CreateFunction and UpdateFunctionConfiguration alike.

use super::Lambda;
use super::code::CodeSource;
use super::errors::{above, invalid};
use super::layers::layers_of;
use crate::pipeline::Ctx;
use crate::protocol::ApiError;
use martlet_environment::{MissingRuntime, is_reserved};
use martlet_functions::Settings;
use martlet_model::function::{FileSystem, LogFormat, Logging};
use martlet_model::{Configuration, Layer, RuntimeFamily, RuntimeName, limits};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Every member that one of the two operations has; the service model says which.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct FunctionRequest {
    pub(super) function_name: String,
    pub(super) code: Option<CodeSource>,
    pub(super) package_type: Option<String>,
    pub(super) architectures: Option<Vec<String>>,
    pub(super) publish: Option<bool>,
    pub(super) tags: Option<BTreeMap<String, String>>,
    pub(super) revision_id: Option<String>,
    pub(super) code_signing_config_arn: Option<String>,
    layers: Option<Vec<String>>,
    runtime: Option<String>,
    role: Option<String>,
    handler: Option<String>,
    description: Option<String>,
    timeout: Option<u32>,
    memory_size: Option<u32>,
    environment: Option<Environment>,
    ephemeral_storage: Option<EphemeralStorage>,
    logging_config: Option<LoggingConfig>,
    pub(super) dead_letter_config: Option<DeadLetterConfig>,
    snap_start: Option<SnapStart>,
    file_system_configs: Option<Vec<FileSystemConfig>>,
    tenancy_config: Option<TenancyConfig>,
}

/// Says that tenants have environments of their own; there is no other mode.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TenancyConfig {
    #[serde(rename = "TenantIsolationMode")]
    _mode: String,
}

/// Where events that were given up go; an empty ARN is nowhere.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DeadLetterConfig {
    pub(super) target_arn: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SnapStart {
    apply_on: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FileSystemConfig {
    arn: String,
    local_mount_path: String,
    #[serde(rename = "S3FilesConfig")]
    s3_files_config: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Environment {
    variables: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EphemeralStorage {
    size: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LoggingConfig {
    log_format: Option<String>,
    application_log_level: Option<String>,
    system_log_level: Option<String>,
    log_group: Option<String>,
}

/// Settings that were asked for and found right; those that were not asked for are absent.
#[derive(Clone, Debug, Default)]
pub(super) struct Edit {
    runtime: Option<RuntimeName>,
    role: Option<String>,
    handler: Option<String>,
    description: Option<String>,
    timeout_seconds: Option<u32>,
    memory_mb: Option<u32>,
    ephemeral_mb: Option<u32>,
    environment: Option<BTreeMap<String, String>>,
    logging: Option<LoggingConfig>,
    dead_letter: Option<Option<String>>,
    snap_start: Option<bool>,
    file_systems: Option<Vec<FileSystem>>,
    per_tenant: Option<bool>,
    layers: Option<Vec<Layer>>,
}

const MANDATORY: &str =
    "Runtime and Handler are mandatory parameters for functions created with deployment packages.";

impl FunctionRequest {
    /// Checks what the service model cannot: this machine's runtimes, the layers that there are, the limits of ordinary
    /// functions, and what has to fit together, also with the configuration that is there already.
    pub(super) fn check(
        &mut self,
        lambda: &Lambda,
        ctx: &Ctx,
        now: Option<&Configuration>,
    ) -> Result<Edit, ApiError> {
        let runtime = self.runtime.take().map(RuntimeName::new);
        if let Some(runtime) = &runtime {
            lambda.runtimes.check(runtime).map_err(|missing| no_such_runtime(&missing))?;
        }
        if self.handler.as_ref().is_some_and(String::is_empty) {
            return Err(invalid(MANDATORY));
        }
        let at_most = |value: Option<u32>, member: &str, most: u32| match value {
            Some(value) if value > most => Err(above(value, member, most)),
            value => Ok(value),
        };
        let environment = self.environment.take();
        if let Some(variables) = environment.as_ref().and_then(|environment| environment.variables.as_ref()) {
            check_variables(variables)?;
        }
        if let Some(logging) = &self.logging_config {
            check_levels(logging, now)?;
        }
        let ephemeral = self.ephemeral_storage.take().map(|storage| storage.size);
        Ok(Edit {
            runtime,
            role: self.role.take(),
            handler: self.handler.take(),
            description: self.description.take(),
            timeout_seconds: at_most(self.timeout, "timeout", limits::TIMEOUT_SECONDS)?,
            memory_mb: at_most(self.memory_size, "memorySize", limits::MAX_MEMORY_MB)?,
            ephemeral_mb: at_most(ephemeral, "ephemeralStorage.size", limits::MAX_EPHEMERAL_MB)?,
            environment: environment.map(|environment| environment.variables.unwrap_or_default()),
            logging: self.logging_config.take(),
            per_tenant: self.tenancy_config.take().map(|_| true),
            dead_letter: self.dead_letter_config.take().map(DeadLetterConfig::target),
            snap_start: self
                .snap_start
                .take()
                .map(|asked| asked.apply_on.as_deref() == Some("PublishedVersions")),
            file_systems: self.file_system_configs.take().map(file_systems).transpose()?,
            layers: self.layers.take().map(|arns| layers_of(lambda, ctx, &arns)).transpose()?,
        })
    }

    /// The architecture that was asked for, which has to be this machine's.
    pub(super) fn architecture(asked: Option<&[String]>) -> Result<Option<String>, ApiError> {
        match asked.and_then(|asked| asked.first()) {
            None => Ok(None),
            Some(asked) if asked == this_architecture() => Ok(Some(asked.clone())),
            Some(asked) => Err(invalid(format!(
                "The architecture {asked} is not this machine's, which is {}; build the function for that, or leave \
                 Architectures out",
                this_architecture()
            ))),
        }
    }
}

/// This machine's architecture as Lambda calls it.
pub(super) fn this_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}

impl Edit {
    /// The settings of a new function: what was asked for, and Lambda's defaults for the rest.
    pub(super) fn into_settings(mut self, architecture: Option<String>) -> Result<Settings, ApiError> {
        let (Some(runtime), Some(handler)) = (self.runtime.take(), self.handler.take()) else {
            return Err(invalid(MANDATORY));
        };
        let configuration = Configuration {
            architecture: architecture.unwrap_or_else(|| this_architecture().to_owned()),
            ..Configuration::new(runtime, handler)
        };
        let mut settings = Settings { configuration, environment_given: false };
        self.apply(&mut settings);
        Ok(settings)
    }

    /// What a function that is configured so would be configured like.
    pub(super) fn after(&self, now: &Configuration) -> Configuration {
        let mut settings = Settings { configuration: now.clone(), environment_given: false };
        self.clone().apply(&mut settings);
        settings.configuration
    }

    /// Sets what was asked for and leaves the rest.
    pub(super) fn apply(self, settings: &mut Settings) {
        fn set<T>(setting: &mut T, asked: Option<T>) {
            if let Some(asked) = asked {
                *setting = asked;
            }
        }
        let configuration = &mut settings.configuration;
        set(&mut configuration.runtime, self.runtime);
        set(&mut configuration.role, self.role);
        set(&mut configuration.handler, self.handler);
        set(&mut configuration.description, self.description);
        set(&mut configuration.timeout_seconds, self.timeout_seconds);
        set(&mut configuration.memory_mb, self.memory_mb);
        set(&mut configuration.ephemeral_mb, self.ephemeral_mb);
        set(&mut configuration.layers, self.layers);
        settings.environment_given |= self.environment.is_some();
        set(&mut configuration.environment, self.environment);
        set(&mut configuration.dead_letter, self.dead_letter);
        set(&mut configuration.snap_start, self.snap_start);
        set(&mut configuration.file_systems, self.file_systems);
        set(&mut configuration.per_tenant, self.per_tenant);
        if let Some(asked) = self.logging {
            asked.apply(&mut configuration.logging);
        }
    }
}

impl DeadLetterConfig {
    /// The target, if there is to be one.
    pub(super) fn target(self) -> Option<String> {
        self.target_arn.filter(|arn| !arn.is_empty())
    }
}

impl LoggingConfig {
    fn apply(self, logging: &mut Logging) {
        match self.log_format.as_deref() {
            Some("JSON") => logging.format = LogFormat::Json,
            Some(_) => logging.format = LogFormat::Text,
            None => {}
        }
        match logging.format {
            LogFormat::Text => (logging.application_level, logging.system_level) = (None, None),
            LogFormat::Json => {
                let level = |asked: Option<String>, now: Option<String>| {
                    asked.or(now).or_else(|| Some("INFO".to_owned()))
                };
                logging.application_level =
                    level(self.application_log_level, logging.application_level.take());
                logging.system_level = level(self.system_log_level, logging.system_level.take());
            }
        }
        if self.log_group.is_some() {
            logging.group = self.log_group;
        }
    }
}

fn file_systems(asked: Vec<FileSystemConfig>) -> Result<Vec<FileSystem>, ApiError> {
    let read = |asked: FileSystemConfig| match asked.s3_files_config {
        Some(_) => Err(invalid(
            "FileSystemConfigs.S3FilesConfig.DirectS3Read is not supported by this version of Martlet; leave it out of the request",
        )),
        None => Ok(FileSystem { arn: asked.arn, mount: asked.local_mount_path }),
    };
    asked.into_iter().map(read).collect()
}

/// Checks what has to fit together in a whole configuration. `granted` tells whether the server has a directory for an
/// access point.
pub(super) fn check_whole(
    configuration: &Configuration,
    granted: impl Fn(&str) -> bool,
) -> Result<(), ApiError> {
    if let Some(missing) = configuration.file_systems.iter().find(|it| !granted(it.access_point())) {
        return Err(invalid(format!(
            "FileSystemConfigs: the access point {} is not granted on this server; its configuration has to name a \
             directory for it, as in file_systems = [\"{}=/srv/data\"]",
            missing.arn,
            missing.access_point()
        )));
    }
    if configuration.snap_start {
        if !matches!(
            configuration.runtime.family(),
            Some(RuntimeFamily::Python { .. } | RuntimeFamily::Node { .. })
        ) {
            return Err(invalid(format!(
                "{} is not supported for SnapStart enabled functions.",
                configuration.runtime
            )));
        }
        if configuration.ephemeral_mb > limits::MIN_EPHEMERAL_MB {
            return Err(invalid(format!(
                "SnapStart does not support ephemeral storage over {} MB",
                limits::MIN_EPHEMERAL_MB
            )));
        }
        if !configuration.file_systems.is_empty() {
            return Err(invalid("SnapStart does not support FileSystemConfigs"));
        }
    }
    Ok(())
}

/// AWS's words, with the runtimes of this machine where AWS lists its own.
fn no_such_runtime(missing: &MissingRuntime) -> ApiError {
    let found: Vec<&str> = missing.found.iter().map(RuntimeName::as_str).collect();
    invalid(format!(
        "Value {} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [{}]. These are the \
         runtimes of this machine; install the interpreter of another one, or name the directory that has it in the \
         configuration",
        missing.wanted,
        found.join(", ")
    ))
}

/// Levels need JSON, be it asked for now or before.
fn check_levels(logging: &LoggingConfig, now: Option<&Configuration>) -> Result<(), ApiError> {
    let levels = logging.application_log_level.is_some() || logging.system_log_level.is_some();
    let json = match logging.log_format.as_deref() {
        Some(asked) => asked == "JSON",
        None => now.is_some_and(|now| now.logging.format == LogFormat::Json),
    };
    if levels && !json {
        return Err(invalid("ApplicationLogLevel and SystemLogLevel need LogFormat JSON"));
    }
    Ok(())
}

fn check_variables(variables: &BTreeMap<String, String>) -> Result<(), ApiError> {
    let reserved: Vec<&str> = variables.keys().map(String::as_str).filter(|name| is_reserved(name)).collect();
    if !reserved.is_empty() {
        return Err(invalid(format!(
            "Lambda was unable to configure your environment variables because the environment variables you have \
             provided contains reserved keys that are currently not supported for modification. Reserved keys used \
             in this request: {}",
            reserved.join(", ")
        )));
    }
    if let Some(name) = variables.iter().find_map(|(name, value)| value.contains('\0').then_some(name)) {
        return Err(invalid(format!("The value of the environment variable {name} has a NUL character")));
    }
    // Plain text to text, which always serialises.
    let measured = serde_json::to_string(variables).unwrap_or_default();
    if measured.len() > limits::ENVIRONMENT_BYTES {
        return Err(invalid(format!(
            "Lambda was unable to configure your environment variables because the environment variables you have \
             provided exceeded the 4KB limit. String measured: {measured}"
        )));
    }
    Ok(())
}
