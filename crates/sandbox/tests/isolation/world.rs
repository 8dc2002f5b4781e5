//! One launcher with a scratch directory of its own, and what a program in a sandbox of it said.

use std::io::Read;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use martlet_sandbox::{
    ExitStatus, Isolation, LaunchError, Launcher, LauncherOptions, LauncherProcess, Sandbox, SandboxSpec,
    TmpKind, Usage,
};
use tokio::runtime::Runtime;

use crate::harness::skip;

/// Far from what a machine is likely to use.
pub const UID_BASE: u32 = 1_900_000_000;

pub struct World {
    pub launcher: Launcher,
    pub runtime: Runtime,
    pub scratch: PathBuf,
    pub instance: String,
    pub launcher_pid: u32,
}

/// Everything a program left to be judged by.
#[derive(Debug)]
pub struct Outcome {
    pub out: String,
    pub err: String,
    pub status: ExitStatus,
    pub usage: Usage,
}

impl Outcome {
    /// The output, of a program that must have ended well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, ExitStatus::Code(0), "{self:?}");
        self.out
    }
}

pub fn options(name: &str) -> LauncherOptions {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let instance = format!("test-{}-{}-{name}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    LauncherOptions {
        isolation: Isolation::Full,
        scratch_dir: std::env::temp_dir().join(&instance),
        instance,
        uid_base: UID_BASE,
        uid_count: 16,
        tmp: TmpKind::Memory,
        ahead: crate::harness::AHEAD.load(std::sync::atomic::Ordering::Relaxed),
    }
}

impl World {
    pub fn new(name: &str) -> Self {
        Self::with(options(name))
    }

    #[track_caller]
    pub fn with(options: LauncherOptions) -> Self {
        Self::within(options, vec!["/".into()])
    }

    #[track_caller]
    pub fn within(options: LauncherOptions, bind_roots: Vec<PathBuf>) -> Self {
        match Launcher::start_within(options.clone(), bind_roots) {
            Ok(process) => Self::around(process, options),
            Err(error) => panic!("the launcher does not start: {error}"),
        }
    }

    pub fn around(process: LauncherProcess, options: LauncherOptions) -> Self {
        let LauncherOptions { scratch_dir: scratch, instance, .. } = options;
        let launcher_pid = process.pid();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let launcher = runtime.block_on(async { process.connect() }).expect("connect");
        Self { launcher, runtime, scratch, instance, launcher_pid }
    }

    /// Runs a shell script to its end.
    pub fn sh(&self, script: &str) -> Outcome {
        self.run(spec(&["/bin/sh", "-c", script]))
    }

    /// Runs a Python script to its end; the test is skipped where the system has no Python.
    pub fn python(&self, script: &str) -> Outcome {
        self.run(python(script))
    }

    #[track_caller]
    pub fn run(&self, spec: SandboxSpec) -> Outcome {
        let start = self.start(spec);
        self.runtime.block_on(within(start.finish()))
    }

    /// Starts a program, with pipes for what it says.
    #[track_caller]
    pub fn start(&self, spec: SandboxSpec) -> Running {
        match self.try_start(spec) {
            Ok(running) => running,
            Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
        }
    }

    pub fn try_start(&self, spec: SandboxSpec) -> Result<Running, LaunchError> {
        let (out, program_out) = std::io::pipe().expect("pipe");
        let (err, program_err) = std::io::pipe().expect("pipe");
        let fds = vec![(program_out.into(), 1), (program_err.into(), 2)];
        let sandbox = self.runtime.block_on(within(self.launcher.launch(spec, fds)))?;
        Ok(Running { sandbox, out, err })
    }

    pub fn launch(&self, spec: SandboxSpec, fds: Vec<(OwnedFd, RawFd)>) -> Result<Sandbox, LaunchError> {
        self.runtime.block_on(within(self.launcher.launch(spec, fds)))
    }

    /// Cgroups of this launcher's sandboxes, in all trees.
    pub fn groups(&self) -> Vec<PathBuf> {
        groups(&self.instance)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.runtime.block_on(within(self.launcher.shutdown()));
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

pub struct Running {
    pub sandbox: Sandbox,
    pub out: std::io::PipeReader,
    pub err: std::io::PipeReader,
}

impl Running {
    /// Waits for the end, reading what is said meanwhile.
    pub async fn finish(self) -> Outcome {
        let Self { sandbox, out, err } = self;
        let read = |mut pipe: std::io::PipeReader| {
            tokio::task::spawn_blocking(move || {
                let mut bytes = Vec::new();
                pipe.read_to_end(&mut bytes).expect("read");
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let (out, err) = (read(out), read(err));
        let status = sandbox.exit().await;
        let usage = sandbox.usage();
        Outcome { out: out.await.expect("output"), err: err.await.expect("errors"), status, usage }
    }

    /// Reads one line of output.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.out.read_exact(&mut byte).is_ok() && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).into_owned()
    }
}

/// A sandbox with small but sufficient limits.
pub fn spec(argv: &[&str]) -> SandboxSpec {
    SandboxSpec {
        argv: argv.iter().map(ToString::to_string).collect(),
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        cwd: "/tmp".into(),
        hostname: "sandbox".into(),
        binds: vec![],
        files: vec![],
        tmp_bytes: 64 << 20,
        memory_bytes: 128 << 20,
        cpu_millis: 1000,
        pids: 64,
        open_files: 1024,
        listen: None,
        forkable: false,
        places: Vec::new(),
        companions: None,
    }
}

pub fn python(script: &str) -> SandboxSpec {
    let program = "/usr/bin/python3";
    if !Path::new(program).exists() {
        skip(format!("{program} is not there"));
    }
    spec(&[program, "-c", script])
}

/// Nothing here may take long; a hang is a failure.
pub async fn within<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("took more than a minute")
}

/// Waits for a condition that nothing announces, with a bound.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The directories of a launcher's cgroups, in all trees.
pub fn cgroups(instance: &str) -> Vec<PathBuf> {
    let name = format!("martlet-{instance}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let points =
        mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    points.map(|point| Path::new(point).join(&name)).filter(|path| path.exists()).collect()
}

/// What lies below them: a directory for each sandbox.
pub fn groups(instance: &str) -> Vec<PathBuf> {
    let entries =
        cgroups(instance).into_iter().flat_map(|path| std::fs::read_dir(path).into_iter().flatten());
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Whether a process is there and not merely waiting to be reaped.
pub fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

/// Processes of the tests' own range of users.
pub fn sandboxed_processes() -> Vec<i32> {
    let ours = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let uid = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse::<u32>().ok());
        uid.is_some_and(|uid| (UID_BASE..UID_BASE + 1000).contains(&uid)) && alive(*pid)
    };
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(ours).collect()
}

/// Loop devices that have a file behind them which has no name any more, as ours have.
pub fn loop_devices(scratch: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let backing =
        entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("loop/backing_file")).ok());
    backing.filter(|file| file.starts_with(&*scratch.to_string_lossy())).collect()
}
