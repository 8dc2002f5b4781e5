//! The environment variables of a function.

use crate::InitType;
use crate::bootstraps::{RUNTIME_DIR, TELEMETRY_FD};
use martlet_model::function::LogFormat;
use martlet_model::{FunctionVersion, RuntimeFamily, RuntimeName};
use std::collections::BTreeMap;

/// Where the package appears inside a sandbox.
pub(crate) const TASK_DIR: &str = "/var/task";
/// Where its layers do.
pub(crate) const OPT_DIR: &str = "/opt";
/// Port of the Runtime API on the sandbox's own loopback.
pub(crate) const RUNTIME_API_PORT: u16 = 9001;

/// The variables whose values are an environment's own.
pub(crate) const INIT_TYPE_VARIABLE: &str = "AWS_LAMBDA_INITIALIZATION_TYPE";
pub(crate) const LOG_STREAM_VARIABLE: &str = "AWS_LAMBDA_LOG_STREAM_NAME";
/// The program that a function wants its interpreter to be started by.
pub(crate) const WRAPPER_VARIABLE: &str = "AWS_LAMBDA_EXEC_WRAPPER";
/// Set to `off`, it keeps a function from being forked.
pub(crate) const FORK_VARIABLE: &str = "MARTLET_FORK_START";

/// Names that a function's configuration cannot set; [`is_reserved`] also covers those that begin with an underscore.
const RESERVED: [&str; 25] = [
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_MAX_CONCURRENCY",
    "AWS_LAMBDA_METADATA_API",
    "AWS_LAMBDA_METADATA_TOKEN",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECRET_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
    "_AWS_XRAY_DAEMON_ADDRESS",
    "_AWS_XRAY_DAEMON_PORT",
    "_HANDLER",
    "_LAMBDA_TELEMETRY_LOG_FD",
    "_X_AMZN_TRACE_ID",
];

/// True for names that the platform sets by itself, or keeps for itself: a configuration's value would not be applied.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name.starts_with('_') || RESERVED.contains(&name)
}

/// The variables of an interpreter that is not for a function yet.
pub(crate) fn of_runtime(runtime: &RuntimeName) -> Vec<(String, String)> {
    let mut all: BTreeMap<&str, String> = BTreeMap::new();
    all.extend(of_interpreter(runtime));
    all.extend(of_bootstrap());
    owned(all)
}

/// Whether the C library, the dynamic linker or an interpreter reads the variable when it starts, and not later: telling it to one
/// that runs already would not apply it.
pub(crate) fn is_read_at_start(name: &str) -> bool {
    const BEGINNINGS: [&str; 11] =
        ["GCONV_", "GLIBC_", "ICU_", "LANG", "LC_", "LD_", "LOCPATH", "MALLOC_", "NODE_", "PYTHON", "UV_"];
    const MORE: [&str; 4] = ["NLSPATH", "OPENSSL_CONF", "SSL_CERT_DIR", "SSL_CERT_FILE"];
    name != "NODE_ENV"
        && (BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) || MORE.contains(&name))
}

/// What a runtime's interpreter finds its own way by; a configuration may override it.
fn of_interpreter(runtime: &RuntimeName) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("LANG", "en_US.UTF-8".to_owned()),
        (
            "LD_LIBRARY_PATH",
            "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib"
                .into(),
        ),
        ("PATH", "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin".into()),
        ("TZ", ":UTC".into()),
    ];
    if let Some(RuntimeFamily::Node { major }) = runtime.family() {
        let path = format!(
            "/opt/nodejs/node{major}/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:{TASK_DIR}"
        );
        all.push(("NODE_PATH", path));
    }
    all
}

fn of_bootstrap() -> Vec<(&'static str, String)> {
    vec![
        ("LAMBDA_RUNTIME_DIR", RUNTIME_DIR.into()),
        ("LAMBDA_TASK_ROOT", TASK_DIR.into()),
        ("_LAMBDA_TELEMETRY_LOG_FD", TELEMETRY_FD.to_string()),
    ]
}

fn owned(all: BTreeMap<&str, String>) -> Vec<(String, String)> {
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Every variable of an environment that runs `version` and logs to `group` and `stream`, in the order of their names.
///
/// There are no credentials among them: functions have no identity of their own yet.
pub(crate) fn variables(
    version: &FunctionVersion,
    group: &str,
    stream: &str,
    init: InitType,
) -> Vec<(String, String)> {
    let configuration = &version.configuration;
    let mut all: BTreeMap<&str, String> = BTreeMap::new();

    // These a configuration may override.
    all.extend(of_interpreter(&configuration.runtime));
    let mut set = |name: &'static str, value: String| {
        all.insert(name, value);
    };
    set("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR".into());
    set("AWS_XRAY_DAEMON_ADDRESS", "127.0.0.1:2000".into());
    let logging = &configuration.logging;
    let (format, default_level) = match logging.format {
        LogFormat::Text => ("Text", None),
        LogFormat::Json => ("JSON", Some("INFO")),
    };
    set("AWS_LAMBDA_LOG_FORMAT", format.into());
    if let Some(level) = logging.application_level.as_deref().or(default_level) {
        set("AWS_LAMBDA_LOG_LEVEL", level.into());
    }
    for (name, value) in &configuration.environment {
        if !is_reserved(name) {
            all.insert(name, value.clone());
        }
    }

    // These it may not.
    all.extend(of_bootstrap());
    let mut set = |name: &'static str, value: String| {
        all.insert(name, value);
    };
    set("AWS_DEFAULT_REGION", version.function.region.to_string());
    set("AWS_REGION", version.function.region.to_string());
    set("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", configuration.memory_mb.to_string());
    set("AWS_LAMBDA_FUNCTION_NAME", version.function.name.to_string());
    set("AWS_LAMBDA_FUNCTION_VERSION", version.version.to_string());
    set(INIT_TYPE_VARIABLE, init.as_str().into());
    set("AWS_LAMBDA_LOG_GROUP_NAME", group.into());
    set(LOG_STREAM_VARIABLE, stream.into());
    set("AWS_LAMBDA_RUNTIME_API", format!("127.0.0.1:{RUNTIME_API_PORT}"));
    if !matches!(configuration.runtime.family(), Some(RuntimeFamily::Provided)) {
        set("AWS_EXECUTION_ENV", format!("AWS_Lambda_{}", configuration.runtime));
    }
    set("_HANDLER", configuration.handler.clone());
    owned(all)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use martlet_model::{
        AccountId, Code, Configuration, FunctionArn, FunctionName, Region, RuntimeName, Version,
    };

    pub(crate) fn version(runtime: &str) -> FunctionVersion {
        FunctionVersion {
            function: FunctionArn {
                region: Region::new("eu-west-3").unwrap(),
                account: AccountId::new("000000000000").unwrap(),
                name: FunctionName::new("hello").unwrap(),
            },
            version: Version::Latest,
            configuration: Configuration::new(RuntimeName::new(runtime), "app.handler"),
            code: Code { digest: "0".repeat(64), bytes: 1 },
            revision: "r".into(),
        }
    }

    fn value(all: &[(String, String)], name: &str) -> Option<String> {
        all.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn a_function_sees_what_lambda_shows_it() {
        let all = variables(
            &version("python3.12"),
            "/aws/lambda/hello",
            "2026/01/01/[$LATEST]0",
            InitType::OnDemand,
        );
        for (name, expected) in [
            ("_HANDLER", "app.handler"),
            ("LAMBDA_TASK_ROOT", "/var/task"),
            ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
            ("AWS_EXECUTION_ENV", "AWS_Lambda_python3.12"),
            ("AWS_LAMBDA_FUNCTION_NAME", "hello"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/hello"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "2026/01/01/[$LATEST]0"),
            ("AWS_LAMBDA_LOG_FORMAT", "Text"),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
            ("AWS_REGION", "eu-west-3"),
            ("AWS_DEFAULT_REGION", "eu-west-3"),
            ("TZ", ":UTC"),
            ("LANG", "en_US.UTF-8"),
        ] {
            assert_eq!(value(&all, name).as_deref(), Some(expected), "{name}");
        }
        for absent in [
            "AWS_ACCESS_KEY_ID",
            "AWS_SESSION_TOKEN",
            "AWS_LAMBDA_MAX_CONCURRENCY",
            "AWS_LAMBDA_LOG_LEVEL",
            "HOME",
        ] {
            assert_eq!(value(&all, absent), None, "{absent}");
        }
        assert_eq!(
            value(&variables(&version("provided.al2023"), "g", "s", InitType::OnDemand), "AWS_EXECUTION_ENV"),
            None
        );
    }

    #[test]
    fn what_only_a_start_reads_is_told_from_what_programs_read() {
        for name in
            ["LD_PRELOAD", "LANG", "LANGUAGE", "LC_ALL", "PYTHONPATH", "NODE_OPTIONS", "UV_THREADPOOL_SIZE"]
        {
            assert!(is_read_at_start(name), "{name}");
        }
        for name in ["TZ", "PATH", "NODE_ENV", "TABLE_NAME", "AWS_REGION"] {
            assert!(!is_read_at_start(name), "{name}");
        }
    }

    #[test]
    fn an_interpreter_without_a_function_finds_its_way_as_one_with_it_does() {
        let with = variables(&version("nodejs20.x"), "g", "s", InitType::OnDemand);
        for (name, expected) in of_runtime(&RuntimeName::new("nodejs20.x")) {
            assert_eq!(value(&with, &name), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_configuration_overrides_what_it_may_and_nothing_else() {
        let mut version = version("nodejs20.x");
        version.configuration.logging.format = LogFormat::Json;
        let environment = &mut version.configuration.environment;
        for (name, value) in [
            ("PATH", "/mine"),
            ("TZ", "Asia/Tokyo"),
            ("AWS_REGION", "mars"),
            ("_HANDLER", "x"),
            ("_MINE", "x"),
            ("MINE", "1"),
        ] {
            environment.insert(name.into(), value.into());
        }
        let all = variables(&version, "g", "s", InitType::Provisioned);
        assert_eq!(value(&all, "PATH").as_deref(), Some("/mine"));
        assert_eq!(value(&all, "TZ").as_deref(), Some("Asia/Tokyo"));
        assert_eq!(value(&all, "MINE").as_deref(), Some("1"));
        assert_eq!(value(&all, INIT_TYPE_VARIABLE).as_deref(), Some("provisioned-concurrency"));
        assert_eq!(value(&all, "_MINE"), None);
        assert_eq!(value(&all, "AWS_REGION").as_deref(), Some("eu-west-3"));
        assert_eq!(value(&all, "_HANDLER").as_deref(), Some("app.handler"));
        assert_eq!(value(&all, "AWS_LAMBDA_LOG_LEVEL").as_deref(), Some("INFO"));
        assert!(value(&all, "NODE_PATH").unwrap().starts_with("/opt/nodejs/node20/node_modules:"));
    }
}
