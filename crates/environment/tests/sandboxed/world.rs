//! What the tests need: a host, packages, functions.

use bytes::Bytes;
use martlet_environment::{
    Completed, Completion, Deployment, Environment, Host, HostOptions, Prepared, Runtimes, Template,
};
use martlet_model::function::Logging;
use martlet_model::{
    AccountId, Code, Configuration, FunctionArn, FunctionName, FunctionVersion, Invocation, Region,
    RequestId, RuntimeName, Timestamp, Version,
};
use martlet_sandbox::{Isolation, Launcher, LauncherOptions, LauncherProcess, TmpKind};
use martlet_telemetry::{
    EventQuery, MeteringQuery, MeteringRecord, PageStart, Telemetry, TelemetryOptions, log_group_arn,
};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

pub(crate) fn start_launcher() -> Result<LauncherProcess, String> {
    let options = LauncherOptions {
        isolation: Isolation::Full,
        instance: format!("environment-test-{}", std::process::id()),
        uid_base: 1_300_000,
        uid_count: 64,
        scratch_dir: std::env::temp_dir().join(format!("martlet-scratch-{}", std::process::id())),
        tmp: TmpKind::Memory,
        ahead: 1,
    };
    Launcher::start(options).map_err(|error| error.to_string())
}

/// One test's own telemetry, host and packages.
pub(crate) struct World {
    pub(crate) host: Arc<Host>,
    pub(crate) telemetry: Telemetry,
    launcher: Launcher,
    directory: tempfile::TempDir,
}

/// A function under test; what is not set is Lambda's default.
pub(crate) struct Function {
    pub(crate) runtime: String,
    pub(crate) handler: &'static str,
    pub(crate) timeout_seconds: u32,
    pub(crate) memory_mb: u32,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) logging: Logging,
}

impl Function {
    pub(crate) fn new(runtime: &str) -> Self {
        Self {
            runtime: runtime.to_owned(),
            handler: "app.handler",
            timeout_seconds: 10,
            memory_mb: 256,
            environment: BTreeMap::new(),
            logging: Logging::default(),
        }
    }
}

impl World {
    pub(crate) fn new(launcher: &Launcher) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        // The sandboxes' users have to reach what is in it.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))
            .expect("permissions");
        let telemetry = Telemetry::open(&directory.path().join("telemetry"), TelemetryOptions::default())
            .expect("telemetry");
        let host =
            Host::new(launcher.clone(), Runtimes::discover(&[]), telemetry.clone(), HostOptions::default());
        Self { host, telemetry, launcher: launcher.clone(), directory }
    }

    /// One more, with telemetry of its own.
    pub(crate) fn another(&self) -> Self {
        Self::new(&self.launcher)
    }

    /// The first runtime of this machine whose name begins so.
    pub(crate) fn runtime(&self, prefix: &str) -> Option<String> {
        let names = self.host.runtimes().names();
        names.iter().map(RuntimeName::as_str).find(|name| name.starts_with(prefix)).map(str::to_owned)
    }

    /// Every Python of this machine.
    pub(crate) fn pythons(&self) -> Vec<String> {
        let names = self.host.runtimes().names();
        names
            .iter()
            .map(RuntimeName::as_str)
            .filter(|name| name.starts_with("python"))
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn deploy(&self, function: Function, files: &[(&str, &str)]) -> Arc<Deployment> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let code_dir = self.directory.path().join(format!("code-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        for (name, text) in files {
            let file = code_dir.join(name);
            std::fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
            std::fs::write(&file, text).expect("a file");
            let mode = if name.ends_with("bootstrap") { 0o755 } else { 0o644 };
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).expect("permissions");
        }
        std::fs::create_dir_all(&code_dir).expect("a directory");
        self.deploy_from(function, code_dir)
    }

    /// The same with layers: `opt` is what lies at `/opt`. Extensions among it can be executed.
    pub(crate) fn deploy_with(
        &self,
        function: Function,
        files: &[(&str, &str)],
        opt: &[(&str, &str)],
    ) -> Arc<Deployment> {
        let deployment = self.deploy(function, files);
        let opt_dir = deployment.code_dir.with_extension("opt");
        std::fs::create_dir_all(&opt_dir).expect("a directory");
        for (name, text) in opt {
            let file = opt_dir.join(name);
            std::fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
            std::fs::write(&file, text).expect("a file");
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).expect("permissions");
        }
        Arc::new(Deployment { opt_dir: Some(opt_dir), ..Deployment::clone(&deployment) })
    }

    /// Deploys what is in a directory already.
    pub(crate) fn deploy_from(&self, function: Function, code_dir: PathBuf) -> Arc<Deployment> {
        let version = FunctionVersion {
            function: FunctionArn {
                region: Region::new("us-east-1").expect("a region"),
                account: AccountId::new("000000000000").expect("an account"),
                name: FunctionName::new("under-test").expect("a name"),
            },
            version: Version::Latest,
            configuration: Configuration {
                timeout_seconds: function.timeout_seconds,
                memory_mb: function.memory_mb,
                environment: function.environment,
                logging: function.logging,
                ..Configuration::new(RuntimeName::new(function.runtime), function.handler)
            },
            code: Code { digest: "0".repeat(64), bytes: 1 },
            revision: "r".into(),
        };
        Arc::new(Deployment { version, code_dir, opt_dir: None })
    }

    pub(crate) async fn start(&self, function: Function, files: &[(&str, &str)]) -> Environment {
        self.host.start(self.deploy(function, files)).await.unwrap_or_else(|error| {
            panic!("no environment: {error}: {:?}", std::error::Error::source(&error))
        })
    }

    /// A template of a function that can be forked.
    pub(crate) async fn template(&self, function: Function, files: &[(&str, &str)]) -> Arc<Template> {
        match self.host.prepare(self.deploy(function, files)).await {
            Ok(Prepared::Template(template)) => Arc::new(template),
            other => panic!("no template: {other:?}"),
        }
    }

    pub(crate) async fn fork(&self, template: &Arc<Template>) -> Environment {
        self.host.fork(template).await.unwrap_or_else(|error| {
            panic!("no environment: {error}: {:?}", std::error::Error::source(&error))
        })
    }

    /// Everything that was logged, in order.
    pub(crate) async fn log(&self) -> Vec<String> {
        self.streams().await.into_iter().flat_map(|(_, lines)| lines).collect()
    }

    /// Everything that was logged, in order, by the name of its stream.
    pub(crate) async fn streams(&self) -> Vec<(String, Vec<String>)> {
        let group = log_group_arn(
            &AccountId::new("000000000000").expect("an account"),
            &Region::new("us-east-1").expect("a region"),
            "/aws/lambda/under-test",
        );
        let query = martlet_telemetry::StreamQuery {
            group: group.to_string(),
            prefix: String::new(),
            order: martlet_telemetry::StreamOrder::Name,
            descending: false,
            after: None,
            limit: 50,
        };
        let mut streams = Vec::new();
        for stream in self.telemetry.streams(query).await.expect("streams") {
            let query = EventQuery {
                group: group.to_string(),
                stream: stream.name.to_string(),
                start: None,
                end: None,
                from: PageStart::Head,
                limit: 10_000,
            };
            let events = self.telemetry.events(query).await.expect("events").events;
            let lines = events.into_iter().map(|event| event.message).collect();
            streams.push((stream.name.to_string(), lines));
        }
        streams
    }

    pub(crate) async fn bills(&self) -> Vec<MeteringRecord> {
        let query = MeteringQuery { limit: 1000, ..MeteringQuery::default() };
        self.telemetry.metering(query).await.expect("metering").records
    }
}

pub(crate) fn invocation(payload: impl Into<Bytes>) -> Invocation {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    Invocation {
        request_id: RequestId::from_random([NEXT.fetch_add(1, Ordering::Relaxed); 16]),
        invoked_arn: "arn:aws:lambda:us-east-1:000000000000:function:under-test".into(),
        payload: payload.into(),
        client_context: None,
        tenant: None,
        trace_id: String::new(),
        accepted: Timestamp(0),
        trigger: martlet_model::Trigger::Request,
        attempt: 1,
    }
}

pub(crate) async fn invoke(environment: &mut Environment, payload: impl Into<Bytes>) -> Completed {
    environment.begin(invocation(payload));
    match environment.complete().await {
        Completion::Done(completed) => completed,
        Completion::Undelivered(_) => panic!("the event was not delivered"),
    }
}

/// The result of an invocation that is to succeed.
pub(crate) async fn result(environment: &mut Environment, payload: impl Into<Bytes>) -> serde_json::Value {
    let completed = invoke(environment, payload).await;
    assert!(completed.function_error.is_none() && completed.reusable, "{}", shown(&completed));
    serde_json::from_slice(&completed.payload).expect("JSON")
}

/// The error document of an invocation that is to fail.
pub(crate) async fn failure(
    environment: &mut Environment,
    payload: impl Into<Bytes>,
) -> (serde_json::Value, Completed) {
    let completed = invoke(environment, payload).await;
    assert!(completed.function_error.is_some(), "{}", shown(&completed));
    (serde_json::from_slice(&completed.payload).expect("JSON"), completed)
}

pub(crate) fn shown(completed: &Completed) -> String {
    let (payload, tail) =
        (String::from_utf8_lossy(&completed.payload), String::from_utf8_lossy(&completed.log_tail));
    format!("{payload} {:?} reusable: {}\n{tail}", completed.function_error, completed.reusable)
}

pub(crate) fn tail(completed: &Completed) -> Vec<&str> {
    std::str::from_utf8(&completed.log_tail).expect("text").lines().collect()
}

/// Kills every process of the environment from outside, as the host's out-of-memory killer or an operator would.
pub(crate) fn kill_from_outside(environment: &Environment) {
    let id = environment.id().as_bytes();
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(variables) = std::fs::read(entry.path().join("environ")) else { continue };
        if variables.windows(id.len()).any(|window| window == id) {
            let pid = entry.file_name();
            let status = std::process::Command::new("kill").arg("-9").arg(pid).status().expect("kill");
            killed += usize::from(status.success());
        }
    }
    assert!(killed > 0, "no process of the environment was found");
}
