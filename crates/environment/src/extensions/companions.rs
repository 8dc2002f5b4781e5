//! Starting external extensions beside a runtime.

use super::gate::Extensions;
use super::registry::{EXTENSIONS, Failed, FunctionShown, Registry};
use super::{Desk, EXTENSIONS_DIR, external};
use crate::Deployment;
use crate::channel::Channel;
use crate::log::LogPipe;
use crate::process::{LaunchFailure, Transport};
use crate::program::{Plan, Role};
use crate::runtime_api::RuntimeApi;
use martlet_sandbox::{Companion, Sandbox, SandboxSpec};
use std::io;
use std::os::fd::OwnedFd;

/// The number under which the extensions' output is handed to the sandbox: one that no other descriptor has.
const OUTPUT: i32 = 40;

const HOSTS: &str = "127.0.0.1 localhost\n127.0.0.1 sandbox.localdomain sandbox\n";

/// Variables of the runtime's process alone.
const OF_THE_RUNTIME: [&str; 11] = [
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_XRAY_CONTEXT_MISSING",
    "AWS_XRAY_DAEMON_ADDRESS",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
    "_AWS_XRAY_DAEMON_ADDRESS",
    "_AWS_XRAY_DAEMON_PORT",
    "_HANDLER",
    "_LAMBDA_TELEMETRY_LOG_FD",
];

/// The external extensions of a process that is about to be started.
pub(crate) struct Companions {
    names: Vec<String>,
    log: Option<LogPipe>,
    writer: Option<OwnedFd>,
}

impl Companions {
    /// Those of `deployment`.
    pub(crate) fn of(deployment: &Deployment, role: Role) -> Result<Self, LaunchFailure> {
        let names = match role {
            Role::Environment => external(deployment.opt_dir.as_deref()),
            // What has any does not become one.
            Role::Template => Vec::new(),
        };
        if names.len() > EXTENSIONS {
            let reason = format!("Extension limit ({EXTENSIONS}) reached");
            return Err(LaunchFailure::Extension(Failed::launch(reason)));
        }
        if names.is_empty() {
            return Ok(Self { names, log: None, writer: None });
        }
        let (log, writer) = LogPipe::pair()?;
        Ok(Self { names, log: Some(log), writer: Some(writer) })
    }

    /// Has them started with `spec`.
    pub(crate) fn join(&mut self, spec: &mut SandboxSpec, descriptors: &mut Vec<(OwnedFd, i32)>) {
        let Some(writer) = self.writer.take() else { return };
        descriptors.push((writer, OUTPUT));
        // Where telemetry is sent to; what a subscriber may also want to listen on.
        spec.files.push(("/etc/hosts".to_owned(), HOSTS.as_bytes().to_vec()));
        let env = spec.env.iter().filter(|(name, _)| !OF_THE_RUNTIME.contains(&name.as_str()));
        let env: Vec<_> = env.cloned().collect();
        let companion = |name: &String| Companion {
            argv: vec![format!("{EXTENSIONS_DIR}/{name}")],
            env: env.clone(),
            cwd: "/".to_owned(),
            output: OUTPUT,
        };
        spec.companions = Some(self.names.iter().map(companion).collect());
    }

    /// Whether `program` is one of them.
    pub(crate) fn are(&self, program: &str) -> bool {
        program
            .strip_prefix(EXTENSIONS_DIR)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|name| self.names.iter().any(|known| known == name))
    }

    /// They run. What is listened to from now on, `channel` being that of a managed runtime.
    pub(crate) fn begin(
        self,
        plan: &Plan,
        sandbox: &mut Sandbox,
        channel: Option<Channel>,
    ) -> io::Result<(Option<Box<Extensions>>, Transport)> {
        let Some(listener) = sandbox.take_listener() else {
            let missing = || io::Error::new(io::ErrorKind::NotFound, "the sandbox came without a listener");
            // A template has none, and no extensions.
            return Ok((None, Transport::Managed(channel.ok_or_else(missing)?)));
        };
        let version = &plan.deployment.version;
        let function = FunctionShown {
            function_name: version.function.name.to_string(),
            function_version: plan.version_text.clone(),
            handler: version.configuration.handler.clone(),
            account_id: Some(version.function.account.to_string()),
        };
        let reins = sandbox.take_reins();
        let desk = Desk::new(Registry::new(function, &self.names), reins.is_some());
        let api = RuntimeApi::new(listener, desk.clone())?;
        let (api, transport) = match channel {
            Some(channel) => (Some(api), Transport::Managed(channel)),
            None => (None, Transport::Provided(api)),
        };
        let extensions = Extensions::new(desk, self.names.len(), reins, self.log, api);
        Ok((Some(Box::new(extensions)), transport))
    }
}
