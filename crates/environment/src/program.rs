//! What an environment's process is: its program, and the sandbox that it asks for.

use crate::bootstraps::{self, Compiled, RUNTIME_DIR, RUNTIME_TEMPLATE_VARIABLE, TEMPLATE_VARIABLE};
use crate::runtimes::Interpreter;
use crate::variables::{self, OPT_DIR, RUNTIME_API_PORT, TASK_DIR, WRAPPER_VARIABLE, variables};
use crate::{Deployment, InitType};
use bytes::Bytes;
use martlet_model::{RuntimeFamily, RuntimeName, limits};
use martlet_sandbox::{Bind, Furnishing, Launcher, SandboxSpec};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

/// The program of a package or a layer that brings its own runtime, in the order in which Lambda looks.
const ENTRYPOINTS: [&str; 2] = ["/var/task/bootstrap", "/opt/bootstrap"];
/// Where a function's own files appear. The folders below are there before anything else is, since the dynamic linker looks for
/// them once, when an interpreter starts, and never again for those that are missing then.
const FURNISHED: [&str; 4] = [TASK_DIR, OPT_DIR, "/var/task/lib", "/opt/lib"];

/// What an environment runs.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    /// An interpreter with one of our bootstraps; `compiled` is the Python one, ready to run.
    Managed { interpreter: Interpreter, compiled: Option<Bytes> },
    /// The `bootstrap` of the package or of a layer.
    Provided { entrypoint: &'static str },
}

/// Everything that all environments of a deployment have in common.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) program: Program,
    /// The version as log lines name it.
    pub(crate) version_text: String,
    pub(crate) log_group: String,
    pub(crate) log_group_arn: Arc<str>,
    pub(crate) architecture: Arc<str>,
    pub(crate) init: InitType,
    /// Directories of the host that the function was granted.
    pub(crate) file_systems: Vec<Bind>,
}

/// What a process is started to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Environment,
    /// A template, or an environment if it cannot be forked.
    Template,
}

/// The share of CPU during the init phase, in thousandths of one CPU: as on Lambda, loading code is not slowed down by a
/// small memory setting.
const INIT_CPU_MILLIS: u32 = 2000;

pub(crate) fn specification(plan: &Plan, log_stream: &str, role: Role) -> SandboxSpec {
    let version = &plan.deployment.version;
    let configuration = &version.configuration;
    let template = role == Role::Template;
    let mut env = variables(version, &plan.log_group, log_stream, plan.init);
    if template {
        let (name, value) = TEMPLATE_VARIABLE;
        env.push((name.to_owned(), value.to_owned()));
    }
    let (argv, mut binds, files) = plan.program.start(configuration.memory_mb, template, &env);
    let Furnishing { binds: own, memory_bytes, cpu_millis } = furnishing(plan);
    binds.extend(own);
    binds.extend_from_slice(&plan.file_systems);
    SandboxSpec {
        argv,
        env,
        cwd: TASK_DIR.to_owned(),
        hostname: "localhost".to_owned(),
        binds,
        files,
        tmp_bytes: u64::from(configuration.ephemeral_mb) << 20,
        memory_bytes,
        cpu_millis,
        pids: limits::PROCESSES,
        open_files: limits::OPEN_FILES,
        // Any runtime may have an extension inside of it.
        listen: (!template).then_some(RUNTIME_API_PORT),
        forkable: template,
        places: Vec::new(),
        companions: None,
    }
}

/// What of a specification is the function's own, but for its `/tmp`.
pub(crate) fn furnishing(plan: &Plan) -> Furnishing {
    let configuration = &plan.deployment.version.configuration;
    Furnishing {
        binds: [(Some(&plan.deployment.code_dir), TASK_DIR), (plan.deployment.opt_dir.as_ref(), OPT_DIR)]
            .into_iter()
            .filter_map(|(source, target)| Some(Bind::new(source?, target)))
            .collect(),
        memory_bytes: u64::from(configuration.memory_mb) << 20,
        cpu_millis: configuration.cpu_millis().max(INIT_CPU_MILLIS),
    }
}

/// For an interpreter that is to become the template of a function not known yet, of `memory_mb` where that matters at its start.
pub(crate) fn runtime_specification(program: &Program, memory_mb: u32) -> SandboxSpec {
    let runtime = program.runtime();
    let mut env = runtime.map(variables::of_runtime).unwrap_or_default();
    let (argv, binds, files) = program.start(memory_mb, true, &env);
    let (name, value) = RUNTIME_TEMPLATE_VARIABLE;
    env.push((name.to_owned(), value.to_owned()));
    SandboxSpec {
        argv,
        env,
        cwd: "/".to_owned(),
        hostname: "localhost".to_owned(),
        binds,
        files,
        tmp_bytes: u64::from(limits::MIN_EPHEMERAL_MB) << 20,
        memory_bytes: u64::from(limits::MAX_MEMORY_MB) << 20,
        cpu_millis: INIT_CPU_MILLIS,
        pids: limits::PROCESSES,
        open_files: limits::OPEN_FILES,
        listen: None,
        forkable: true,
        places: FURNISHED.map(Into::into).to_vec(),
        companions: None,
    }
}

type Start = (Vec<String>, Vec<Bind>, Vec<(String, Vec<u8>)>);

impl Program {
    /// The package's own program, or that of a layer if the package has none.
    pub(crate) fn provided(deployment: &Deployment) -> Self {
        let has = |entrypoint: &&&str| {
            bootstrap_of(deployment, entrypoint).is_some_and(|path| path.symlink_metadata().is_ok())
        };
        Self::Provided { entrypoint: ENTRYPOINTS.iter().find(has).unwrap_or(&ENTRYPOINTS[0]) }
    }

    /// An interpreter, with its bootstrap ready to run if that has been made.
    pub(crate) fn managed(launcher: &Launcher, compiled: &Compiled, interpreter: &Interpreter) -> Self {
        let compiled = matches!(interpreter.runtime.family(), Some(RuntimeFamily::Python { .. }))
            .then(|| compiled.for_interpreter(launcher, interpreter))
            .flatten();
        Self::Managed { interpreter: interpreter.clone(), compiled }
    }

    fn runtime(&self) -> Option<&RuntimeName> {
        match self {
            Self::Managed { interpreter, .. } => Some(&interpreter.runtime),
            Self::Provided { .. } => None,
        }
    }

    /// What is executed, and what of the host and which files it needs to see for that.
    fn start(&self, memory_mb: u32, template: bool, env: &[(String, String)]) -> Start {
        let (interpreter, compiled) = match self {
            Self::Managed { interpreter, compiled } => (interpreter, compiled),
            Self::Provided { entrypoint } => return (vec![(*entrypoint).to_owned()], Vec::new(), Vec::new()),
        };
        let binds = interpreter.binds.iter().map(|(host, inside)| Bind::new(host, inside)).collect();
        let node = matches!(interpreter.runtime.family(), Some(RuntimeFamily::Node { .. }));
        let mut files: Vec<_> = bootstraps::companions(node, template)
            .into_iter()
            .map(|(name, content)| (format!("{RUNTIME_DIR}/{name}"), content.to_vec()))
            .collect();
        let argv = managed_argv(interpreter, compiled.as_ref(), memory_mb, template, env, &mut files);
        (argv, binds, files)
    }
}

/// Interpreter, options and bootstrap; the bootstrap is added to `files`.
fn managed_argv(
    interpreter: &Interpreter,
    compiled: Option<&Bytes>,
    memory_mb: u32,
    template: bool,
    env: &[(String, String)],
    files: &mut Vec<(String, Vec<u8>)>,
) -> Vec<String> {
    let mut argv = vec![interpreter.inside.clone()];
    let (name, content) = match interpreter.runtime.family() {
        Some(RuntimeFamily::Node { .. }) => {
            let options = env.iter().find(|(name, _)| name == "NODE_OPTIONS").map(|(_, options)| options);
            argv.extend(bootstraps::node_options(memory_mb, options.map_or("", String::as_str), template));
            ("bootstrap.cjs", bootstraps::NODE.as_bytes().to_vec())
        }
        _ => {
            argv.extend(bootstraps::PYTHON_OPTIONS.map(str::to_owned));
            match compiled {
                Some(compiled) => ("bootstrap.pyc", compiled.to_vec()),
                None => ("bootstrap.py", bootstraps::PYTHON.as_bytes().to_vec()),
            }
        }
    };
    let path = format!("{RUNTIME_DIR}/{name}");
    argv.push(path.clone());
    files.push((path, content));
    if let Some(wrapper) = wrapper(env) {
        argv.insert(0, wrapper);
    }
    argv
}

/// The program that the function wants its interpreter to be started by, as an absolute path: it gets the interpreter and
/// its arguments as its own.
pub(crate) fn wrapper(env: &[(String, String)]) -> Option<String> {
    let (_, path) = env.iter().find(|(name, _)| name == WRAPPER_VARIABLE)?;
    match path.as_str() {
        "" => None,
        path if path.starts_with('/') => Some(path.to_owned()),
        path => Some(format!("{TASK_DIR}/{path}")),
    }
}

/// Tells in Lambda's words why there is no `bootstrap` that can be run. What only the kernel can tell (a script whose
/// interpreter is missing, a foreign binary) shows when it is run.
pub(crate) fn check_entrypoint(deployment: &Deployment, entrypoint: &str) -> Result<(), String> {
    match bootstrap_of(deployment, entrypoint).and_then(|path| path.symlink_metadata().ok()) {
        // A link is resolved inside the sandbox, where it may lead elsewhere than out here.
        Some(metadata) if metadata.is_symlink() => Ok(()),
        Some(metadata) if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 => {
            Err(exec_failure(entrypoint, &io::ErrorKind::PermissionDenied.into()))
        }
        Some(_) => Ok(()),
        None => Err(format!("Couldn't find valid bootstrap(s): [{}]", ENTRYPOINTS.join(" "))),
    }
}

/// Where the program that would appear at `entrypoint` lies on the host.
fn bootstrap_of(deployment: &Deployment, entrypoint: &str) -> Option<PathBuf> {
    let folder =
        if entrypoint == ENTRYPOINTS[0] { Some(&deployment.code_dir) } else { deployment.opt_dir.as_ref() };
    folder.map(|folder| folder.join("bootstrap"))
}

pub(crate) fn exec_failure(program: &str, error: &io::Error) -> String {
    let reason = match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => "no such file or directory".to_owned(),
        (io::ErrorKind::PermissionDenied, _) => "permission denied".to_owned(),
        (_, Some(code)) if code == rustix::io::Errno::NOEXEC.raw_os_error() => "exec format error".to_owned(),
        _ => error.to_string(),
    };
    format!("fork/exec {program}: {reason}")
}
