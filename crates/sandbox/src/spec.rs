//! What is asked for: the launcher's options and the specification of one sandbox.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How much isolation every sandbox of a launcher gets. Chosen by whoever starts it, never by the launcher itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Everything, including memory, cpu and pids limits by cgroup. The launcher refuses to start where a needed
    /// controller is missing.
    Full,
    /// All namespaces, seccomp, Landlock and resource limits, but no cgroup: the memory limit holds for each process on
    /// its own (`RLIMIT_DATA`), the cpu is not limited, and freezing stops the processes by signal.
    NoCgroups,
}

/// Where the private `/tmp` of a sandbox is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TmpKind {
    /// A file system of its own in a sparse file on disk: a hard limit that is not charged to the sandbox's memory. Needs
    /// root, loop devices and `mkfs.ext4`.
    Disk,
    /// A tmpfs of the asked size: what is written there counts against the sandbox's memory limit.
    Memory,
}

/// What a launcher needs to know once, when it starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LauncherOptions {
    /// How much isolation is asked for.
    pub isolation: Isolation,
    /// Names the cgroup subtree (`martlet-<instance>`); two launchers of one name must not live at the same time, since
    /// a starting one removes what a killed predecessor of its name left. 1 to 64 of `[A-Za-z0-9_-]`.
    pub instance: String,
    /// First uid (and gid) of the range that is given to sandboxes, one for each living sandbox. Only used as root; the
    /// whole range must belong to nobody else on the host.
    pub uid_base: u32,
    /// Length of that range, and so the largest number of sandboxes alive at once (also when started as a user).
    pub uid_count: u32,
    /// Directory for the launcher's own mounts and `/tmp` images; made with mode 0700 where missing. Absolute.
    pub scratch_dir: PathBuf,
    /// Where `/tmp` of the sandboxes is kept.
    pub tmp: TmpKind,
    /// How many sandboxes are kept made ahead, so that a launch has only to show its files in one and to run its program. Each
    /// holds a uid.
    pub ahead: u32,
}

/// A file or directory of the host that is visible in the sandbox with everything mounted below it, read-only unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path on the host; may lie below directories that the sandbox's user could not enter.
    pub source: PathBuf,
    /// Absolute path inside the sandbox; missing parents are made.
    pub target: PathBuf,
    /// Whether the sandbox's user may write to it, as far as its permissions let others. Only below [`Bind::WRITABLE`], and only in a
    /// sandbox that is not forkable: the rules of copies do not know it.
    #[serde(default)]
    pub writable: bool,
}

impl Bind {
    /// The directory below which binds may be writable.
    pub const WRITABLE: &str = "/mnt";

    /// Shows `source` at `target`.
    pub fn new(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self { source: source.into(), target: target.into(), writable: false }
    }

    /// Shows `path` at the same path inside, which is what programs that are not relocatable need.
    pub fn same(path: impl Into<PathBuf>) -> Self {
        let source = path.into();
        Self { target: source.clone(), source, writable: false }
    }
}

/// One sandbox: what runs in it, what it sees and its limits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Program and arguments; the first is an absolute path inside the sandbox, no search path is consulted.
    pub argv: Vec<String>,
    /// The whole environment; nothing is added.
    pub env: Vec<(String, String)>,
    /// Working directory, an absolute path inside.
    pub cwd: String,
    /// Host name, 1 to 63 of `[A-Za-z0-9.-]`.
    pub hostname: String,
    /// Host files and directories shown inside. System directories need not be named.
    pub binds: Vec<Bind>,
    /// Small read-only files: absolute path inside, and content. They replace files of the same name that the sandbox makes by itself
    /// (`/etc/hosts`, `/etc/passwd`, ...). At most [`SandboxSpec::MAX_FILES_BYTES`] together.
    #[serde(with = "crate::wire::file_lengths")]
    pub files: Vec<(String, Vec<u8>)>,
    /// Size of `/tmp` in bytes.
    pub tmp_bytes: u64,
    /// Memory limit of all processes together, in bytes; swap is never used.
    pub memory_bytes: u64,
    /// Cpu limit in thousandths of one cpu, enforced per 100 ms.
    pub cpu_millis: u32,
    /// Processes and threads at once.
    pub pids: u64,
    /// Open files of each process.
    pub open_files: u64,
    /// TCP port that is bound and listening on 127.0.0.1 inside before the program starts; the listener goes to the
    /// server ([`crate::Sandbox::take_listener`]).
    pub listen: Option<u16>,
    /// The main process may be copied into shells ([`crate::Launcher::shell`]). Its filter then allows to join namespaces
    /// and refuses sockets and options that would matter to a process with capabilities in a namespace of its own; the
    /// rules of Landlock are put on each copy instead.
    pub forkable: bool,
    /// Empty directories, absolute paths inside: where [`crate::Launcher::furnish`] may show something while the program runs
    /// already. Only a forkable sandbox may have any.
    pub places: Vec<PathBuf>,
    /// Programs beside the main one. With them, even with none of them, they are started at once, but the main program only at
    /// the word of [`crate::Reins`]; and no process's end is the end of the sandbox, which lives until it is killed.
    pub companions: Option<Vec<Companion>>,
}

/// A program that runs beside the main one, in a session of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Companion {
    /// As [`SandboxSpec::argv`].
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory, an absolute path inside.
    pub cwd: String,
    /// Which of the descriptors handed over is its standard output and its standard error. The main process does not get that
    /// one.
    pub output: i32,
}

/// What a sandbox whose program runs already is given: see [`crate::Launcher::furnish`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Furnishing {
    /// Host directories to show; each target is one of [`SandboxSpec::places`].
    pub binds: Vec<Bind>,
    /// As [`SandboxSpec::memory_bytes`], from now on and for the shells below.
    pub memory_bytes: u64,
    /// As [`SandboxSpec::cpu_millis`], from now on and for the shells below.
    pub cpu_millis: u32,
}

/// A specification that cannot be carried out as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{field} {problem}")]
pub struct Invalid {
    /// The member at fault.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Invalid {
    pub(crate) fn new(field: &str, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

impl SandboxSpec {
    /// Upper limit of all `files` together.
    pub const MAX_FILES_BYTES: usize = 4 << 20;
    /// Descriptors that can be handed to one sandbox.
    pub const MAX_DESCRIPTORS: usize = 64;

    /// What of a template's specification its shells need: they have its root already and run nothing. Much smaller.
    pub(crate) fn of_shells(&self) -> Self {
        Self {
            argv: Vec::new(),
            env: Vec::new(),
            cwd: String::new(),
            hostname: self.hostname.clone(),
            binds: Vec::new(),
            files: Vec::new(),
            listen: None,
            places: Vec::new(),
            companions: None,
            ..*self
        }
    }

    /// Checks everything that can be known to be wrong before any work is done.
    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        let program = self.argv.first().ok_or_else(|| Invalid::new("argv", "is empty"))?;
        inside("argv[0]", Path::new(program))?;
        inside("cwd", Path::new(&self.cwd))?;
        for bind in &self.binds {
            inside("binds.target", &bind.target)?;
            inside("binds.source", &bind.source)?;
            if bind.writable && (self.forkable || !bind.target.starts_with(Bind::WRITABLE)) {
                let place = Bind::WRITABLE;
                return Err(Invalid::new(
                    "binds.writable",
                    format!("is for what lies below {place} in a sandbox that is not forkable"),
                ));
            }
        }
        for place in &self.places {
            inside("places", place)?;
        }
        if self.forkable && self.companions.is_some() {
            return Err(Invalid::new("companions", "are not for forkable sandboxes"));
        }
        let companions = self.companions.as_deref().unwrap_or_default();
        for companion in companions {
            let program = companion.argv.first().map(String::as_str).unwrap_or_default();
            inside("companions.argv[0]", Path::new(program))?;
            inside("companions.cwd", Path::new(&companion.cwd))?;
        }
        if !self.places.is_empty() && !self.forkable {
            return Err(Invalid::new("places", "are for forkable sandboxes only"));
        }
        let mut files = 0;
        for (path, content) in &self.files {
            inside("files", Path::new(path))?;
            files += content.len();
        }
        if files > Self::MAX_FILES_BYTES {
            return Err(Invalid::new(
                "files",
                format!("are {files} bytes; the most is {}", Self::MAX_FILES_BYTES),
            ));
        }
        let programs = companions.iter().map(|companion| (&companion.argv, &companion.env));
        for (argv, env) in programs.chain([(&self.argv, &self.env)]) {
            let mut text = argv.iter().chain(env.iter().flat_map(|(name, value)| [name, value]));
            if text.any(|text| text.contains('\0')) {
                return Err(Invalid::new("argv or env", "holds a zero byte"));
            }
            if env.iter().any(|(name, _)| name.is_empty() || name.contains('=')) {
                return Err(Invalid::new("env", "has a name that is empty or holds '='"));
            }
        }
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if self.hostname.is_empty() || self.hostname.len() > 63 || !self.hostname.chars().all(named) {
            return Err(Invalid::new("hostname", "must be 1 to 63 of A-Z a-z 0-9 . -"));
        }
        at_least(&[
            ("tmp_bytes", self.tmp_bytes, 1 << 20),
            LEAST_MEMORY.of(self.memory_bytes),
            LEAST_CPU.of(u64::from(self.cpu_millis)),
            ("pids", self.pids, 2),
            ("open_files", self.open_files, 8),
        ])
    }
}

impl Furnishing {
    /// Checks everything that can be known to be wrong before any work is done, `places` being those of the sandbox.
    pub(crate) fn validate(&self, places: &[PathBuf]) -> Result<(), Invalid> {
        for bind in &self.binds {
            inside("binds.source", &bind.source)?;
            if bind.writable {
                return Err(Invalid::new(
                    "binds.writable",
                    "is not for a sandbox whose program runs already",
                ));
            }
            if !places.contains(&bind.target) {
                return Err(Invalid::new(
                    "binds.target",
                    format!("{} is none of the sandbox's free places", bind.target.display()),
                ));
            }
        }
        at_least(&[LEAST_MEMORY.of(self.memory_bytes), LEAST_CPU.of(u64::from(self.cpu_millis))])
    }
}

/// A member and the least that it may be.
struct Least(&'static str, u64);

const LEAST_MEMORY: Least = Least("memory_bytes", 4 << 20);
const LEAST_CPU: Least = Least("cpu_millis", 10);

impl Least {
    const fn of(&self, value: u64) -> (&'static str, u64, u64) {
        (self.0, value, self.1)
    }
}

/// Checks values, each with its name before it and the least that it may be behind it.
fn at_least(values: &[(&str, u64, u64)]) -> Result<(), Invalid> {
    match values.iter().find(|(_, value, least)| value < least) {
        Some((field, value, least)) => Err(Invalid::new(field, format!("is {value}; the least is {least}"))),
        None => Ok(()),
    }
}

/// A path must be absolute and plain, so that no component can lead out of where it seems to be.
fn inside(field: &str, path: &Path) -> Result<(), Invalid> {
    let plain = path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        && !path.as_os_str().as_encoded_bytes().contains(&0);
    if plain {
        return Ok(());
    }
    Err(Invalid::new(field, format!("{} is not an absolute path without '..'", path.display())))
}

impl LauncherOptions {
    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.instance.is_empty() || self.instance.len() > 64 || !self.instance.chars().all(named) {
            return Err(Invalid::new("instance", "must be 1 to 64 of A-Z a-z 0-9 _ -"));
        }
        if self.uid_count == 0 || self.uid_base < 1000 || self.uid_base.checked_add(self.uid_count).is_none()
        {
            return Err(Invalid::new(
                "uid_base and uid_count",
                "must be a range of at least one uid, none below 1000",
            ));
        }
        if !self.scratch_dir.is_absolute() {
            return Err(Invalid::new(
                "scratch_dir",
                format!("{} is not absolute", self.scratch_dir.display()),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SandboxSpec {
        SandboxSpec {
            argv: vec!["/bin/true".into()],
            env: vec![],
            cwd: "/".into(),
            hostname: "localhost".into(),
            binds: vec![],
            files: vec![],
            tmp_bytes: 1 << 20,
            memory_bytes: 128 << 20,
            cpu_millis: 1000,
            pids: 64,
            open_files: 64,
            listen: None,
            forkable: false,
            places: vec![],
            companions: None,
        }
    }

    fn fault(change: impl FnOnce(&mut SandboxSpec)) -> String {
        let mut changed = spec();
        change(&mut changed);
        changed.validate().expect_err("must be refused").field
    }

    #[test]
    fn a_plain_specification_is_valid() {
        assert_eq!(spec().validate(), Ok(()));
    }

    #[test]
    fn paths_that_could_lead_out_are_refused() {
        assert_eq!(fault(|s| s.binds = vec![Bind::new("/srv", "/var/../etc")]), "binds.target");
        assert_eq!(fault(|s| s.binds = vec![Bind::new("srv", "/var")]), "binds.source");
        assert_eq!(fault(|s| s.files = vec![("etc/hosts".into(), vec![])]), "files");
        assert_eq!(fault(|s| s.argv = vec!["sh".into()]), "argv[0]");
        assert_eq!(fault(|s| s.cwd = "/a/../b".into()), "cwd");
        assert_eq!(fault(|s| (s.forkable, s.places) = (true, vec!["/a/../b".into()])), "places");
        assert_eq!(fault(|s| s.places = vec!["/a".into()]), "places");
        let writable = |target: &str| Bind { writable: true, ..Bind::new("/srv", target) };
        assert_eq!(fault(|s| s.binds = vec![writable("/var/task")]), "binds.writable");
        assert_eq!(fault(|s| (s.forkable, s.binds) = (true, vec![writable("/mnt/a")])), "binds.writable");
    }

    #[test]
    fn text_that_the_kernel_cannot_carry_is_refused() {
        assert_eq!(fault(|s| s.argv.push("a\0b".into())), "argv or env");
        assert_eq!(fault(|s| s.env = vec![("A=B".into(), "c".into())]), "env");
        assert_eq!(fault(|s| s.hostname = "a b".into()), "hostname");
    }

    #[test]
    fn limits_too_small_to_start_anything_are_refused() {
        assert_eq!(fault(|s| s.memory_bytes = 0), "memory_bytes");
        assert_eq!(fault(|s| s.cpu_millis = 0), "cpu_millis");
        assert_eq!(fault(|s| s.pids = 1), "pids");
    }

    #[test]
    fn only_free_places_are_furnished() {
        let furnishing = |target: &str, memory_bytes| Furnishing {
            binds: vec![Bind::new("/srv", target)],
            memory_bytes,
            cpu_millis: 100,
        };
        let free = [PathBuf::from("/var/task"), PathBuf::from("/opt")];
        assert_eq!(furnishing("/opt", 64 << 20).validate(&free), Ok(()));
        for (wrong, field) in [
            (furnishing("/etc", 64 << 20), "binds.target"),
            (furnishing("/opt/inner", 64 << 20), "binds.target"),
            (furnishing("/opt", 1), "memory_bytes"),
        ] {
            assert_eq!(wrong.validate(&free).expect_err("must be refused").field, field);
        }
    }
}
