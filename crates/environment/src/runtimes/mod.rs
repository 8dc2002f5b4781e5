//! The language runtimes of this machine: which interpreters there are, and what of them a sandbox has to see.

mod places;
mod version;

pub use places::Places;

use martlet_model::{RuntimeFamily, RuntimeName};
use std::collections::HashSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Oldest Python that the bootstrap runs on, as in `python3.8`.
const OLDEST_PYTHON_MINOR: u32 = 8;
/// Oldest Node that the bootstrap runs on.
const OLDEST_NODE_MAJOR: u32 = 18;
/// Where an interpreter from outside the system directories appears inside the sandbox.
pub(crate) const LANGUAGE_DIR: &str = "/var/lang";
/// Directories that every sandbox sees at their own place.
const SYSTEM_DIRS: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store"];
/// How long an interpreter may take to print its version. They all run at once, so this bounds the whole search.
const VERSION_TIMEOUT: Duration = Duration::from_secs(2);

/// One interpreter, ready to run functions of one runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// The runtime that it serves.
    pub runtime: RuntimeName,
    /// The binary on this machine, with all links resolved.
    pub path: PathBuf,
    /// Its full version, `3.12.1`; only as much as is known when it could not be asked.
    pub version: String,
    /// The binary as the sandbox sees it.
    pub(crate) inside: String,
    /// Host path and place inside of what the sandbox has to show read-only.
    pub(crate) binds: Vec<(PathBuf, String)>,
}

/// A runtime that no interpreter of this machine serves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the runtime {wanted} is not on this machine, which has {}; install it, or name the directory that has it in the configuration",
    one_line(found)
)]
pub struct MissingRuntime {
    /// The runtime asked for.
    pub wanted: RuntimeName,
    /// Those that are there.
    pub found: Vec<RuntimeName>,
}

fn one_line(found: &[RuntimeName]) -> String {
    found.iter().map(RuntimeName::as_str).collect::<Vec<_>>().join(", ")
}

/// The interpreters found on this machine, one for each runtime. Found once; a change needs a new search.
#[derive(Clone, Debug, Default)]
pub struct Runtimes {
    interpreters: Vec<Interpreter>,
}

impl Runtimes {
    /// Searches `extra` (directories of binaries, or prefixes with a `bin` in them) and the usual places, see
    /// [`Places`]. Versions are read from files where possible; an interpreter that keeps none is asked, all of
    /// them at once.
    ///
    /// Takes some milliseconds. Blocks; call it outside of an async runtime or before there is one. When it runs as
    /// root it executes nothing that another user owns.
    #[must_use]
    pub fn discover(extra: &[PathBuf]) -> Self {
        Self::search(&Places::of_this_process(extra))
    }

    /// Searches exactly `places`. Where two interpreters serve one runtime, the one in the earlier place is taken.
    #[must_use]
    pub fn search(places: &Places) -> Self {
        let mut seen = HashSet::new();
        let mut candidates = Vec::new();
        for directory in places.directories() {
            for name in candidate_names() {
                if let Some(candidate) = Candidate::at(&directory.join(name))
                    && seen.insert(candidate.path.clone())
                {
                    candidates.push(candidate);
                }
            }
        }
        let mut interpreters: Vec<Interpreter> = Vec::new();
        let versions = version::of_all(&candidates, VERSION_TIMEOUT);
        for (candidate, version) in candidates.into_iter().zip(versions) {
            let Some(interpreter) = version.and_then(|version| candidate.into_interpreter(version)) else {
                continue;
            };
            if !interpreters.iter().any(|known| known.runtime == interpreter.runtime) {
                interpreters.push(interpreter);
            }
        }
        interpreters.sort_by_key(|interpreter| {
            let order = match interpreter.runtime.family() {
                Some(RuntimeFamily::Python { minor }) => (0, minor),
                Some(RuntimeFamily::Node { major }) => (1, major),
                Some(RuntimeFamily::Provided) | None => (2, 0),
            };
            (order, interpreter.runtime.clone())
        });
        Self { interpreters }
    }

    /// The interpreter that serves `runtime`; `None` for `provided` runtimes, which need none.
    #[must_use]
    pub fn find(&self, runtime: &RuntimeName) -> Option<&Interpreter> {
        self.interpreters.iter().find(|interpreter| interpreter.runtime == *runtime)
    }

    /// All interpreters: Python by minor version, then Node by major version.
    #[must_use]
    pub fn list(&self) -> &[Interpreter] {
        &self.interpreters
    }

    /// Names of everything that functions may ask for, `provided` runtimes included.
    #[must_use]
    pub fn names(&self) -> Vec<RuntimeName> {
        let provided = ["provided.al2", "provided.al2023"].map(RuntimeName::new);
        self.interpreters.iter().map(|interpreter| interpreter.runtime.clone()).chain(provided).collect()
    }

    /// Every path of this machine that an environment is shown for the sake of its interpreter.
    #[must_use]
    pub fn host_paths(&self) -> Vec<PathBuf> {
        let binds = self.interpreters.iter().flat_map(|interpreter| &interpreter.binds);
        binds.map(|(host, _)| host.clone()).collect()
    }

    /// Tells whether a function of this runtime can run here.
    ///
    /// # Errors
    /// [`MissingRuntime`], which lists those that can.
    pub fn check(&self, runtime: &RuntimeName) -> Result<(), MissingRuntime> {
        let there = match runtime.family() {
            Some(RuntimeFamily::Provided) => true,
            Some(_) => self.find(runtime).is_some(),
            None => false,
        };
        if there { Ok(()) } else { Err(MissingRuntime { wanted: runtime.clone(), found: self.names() }) }
    }
}

/// Names worth a look in a directory of binaries. The bare names come last: they are links to the others as a rule.
fn candidate_names() -> impl Iterator<Item = String> {
    (OLDEST_PYTHON_MINOR..=20)
        .rev()
        .map(|minor| format!("python3.{minor}"))
        .chain(["python3".to_owned(), "node".to_owned()])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Python,
    Node,
}

/// A binary that looks like an interpreter.
#[derive(Debug)]
struct Candidate {
    language: Language,
    path: PathBuf,
    owner: u32,
}

impl Candidate {
    /// Resolves `path`. Scripts (the shims of version managers) are not it, and neither is what nobody may run.
    fn at(path: &Path) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        let name = path.file_name()?.to_str()?;
        let language = match name {
            "node" | "nodejs" => Language::Node,
            _ if name.starts_with("python3") => Language::Python,
            _ => return None,
        };
        let metadata = path.metadata().ok()?;
        let runs = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
        (runs && is_native(&path)).then(|| Self { language, owner: metadata.uid(), path })
    }

    /// The directory that holds `bin`, when the binary lies in one.
    fn prefix(&self) -> Option<&Path> {
        let directory = self.path.parent()?;
        (directory.file_name()? == "bin").then(|| directory.parent())?
    }

    fn into_interpreter(self, version: String) -> Option<Interpreter> {
        let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
        let (major, minor) = (numbers.next()?, numbers.next()?);
        let runtime = match self.language {
            Language::Python if major == 3 && minor >= OLDEST_PYTHON_MINOR => format!("python3.{minor}"),
            Language::Node if major >= OLDEST_NODE_MAJOR => format!("nodejs{major}.x"),
            Language::Python | Language::Node => return None,
        };
        let (inside, binds) = self.binds(minor)?;
        Some(Interpreter { runtime: RuntimeName::new(runtime), version, inside, binds, path: self.path })
    }

    /// The path inside the sandbox, and what has to be shown there. Never the whole prefix: it may be somebody's home.
    fn binds(&self, minor: u32) -> Option<(String, Vec<(PathBuf, String)>)> {
        if SYSTEM_DIRS.iter().any(|system| self.path.starts_with(system)) {
            return Some((self.path.to_str()?.to_owned(), Vec::new()));
        }
        if self.language == Language::Node {
            let inside = format!("{LANGUAGE_DIR}/bin/node");
            return Some((inside.clone(), vec![(self.path.clone(), inside)]));
        }
        let prefix = self.prefix()?;
        let inside = format!("{LANGUAGE_DIR}/bin/python3.{minor}");
        let mut binds = vec![
            (self.path.clone(), inside.clone()),
            (self.path.clone(), format!("{LANGUAGE_DIR}/bin/python3")),
        ];
        for library in ["lib", "lib64"] {
            let host = prefix.join(library);
            // A link leads to the other one, which is shown already.
            if host.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                binds.push((host, format!("{LANGUAGE_DIR}/{library}")));
            }
        }
        Some((inside, binds))
    }
}

fn is_native(path: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 4];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_has_is_found_with_its_versions() {
        let runtimes = Runtimes::discover(&[]);
        for interpreter in runtimes.list() {
            assert!(is_native(&interpreter.path), "{interpreter:?}");
            assert_eq!(runtimes.find(&interpreter.runtime), Some(interpreter));
            assert_eq!(runtimes.check(&interpreter.runtime), Ok(()));
            let major_minor = match interpreter.runtime.family() {
                Some(RuntimeFamily::Python { minor }) => format!("3.{minor}."),
                Some(RuntimeFamily::Node { major }) => format!("{major}."),
                other => panic!("{other:?} is no interpreter's family"),
            };
            assert!(interpreter.version.starts_with(&major_minor), "{interpreter:?}");
        }
    }

    #[test]
    fn a_missing_runtime_is_refused_with_the_list_of_the_others() {
        let none = Runtimes::search(&Places::default());
        assert_eq!(none.check(&RuntimeName::new("provided.al2023")), Ok(()));
        let refused = none.check(&RuntimeName::new("python3.12")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the runtime python3.12 is not on this machine, which has provided.al2, provided.al2023; install it, or name the directory that has it in the configuration"
        );
        assert!(none.check(&RuntimeName::new("java21")).is_err());
    }

    #[test]
    fn only_the_interpreter_itself_is_shown_to_a_sandbox() {
        let candidate = |path: &str, language| Candidate { language, path: path.into(), owner: 0 };
        let system = candidate("/usr/bin/python3.11", Language::Python);
        assert_eq!(system.binds(11), Some(("/usr/bin/python3.11".into(), vec![])));
        let node = candidate("/home/me/bin/node", Language::Node).into_interpreter("20.1.0".into()).unwrap();
        assert_eq!(node.binds, [("/home/me/bin/node".into(), "/var/lang/bin/node".into())]);
        let python = candidate("/home/me/bin/python3.12", Language::Python);
        let (inside, binds) = python.binds(12).unwrap();
        assert_eq!(inside, "/var/lang/bin/python3.12");
        assert!(binds.iter().all(|(host, _)| host != Path::new("/home/me")), "{binds:?}");
        assert_eq!(candidate("/home/me/python3.12", Language::Python).binds(12), None);
    }

    #[test]
    fn old_interpreters_are_left_alone() {
        let candidate = |language| Candidate { language, path: "/usr/bin/x".into(), owner: 0 };
        assert!(candidate(Language::Python).into_interpreter("3.7.16".into()).is_none());
        assert!(candidate(Language::Python).into_interpreter("2.7.18".into()).is_none());
        assert!(candidate(Language::Node).into_interpreter("16.20.0".into()).is_none());
        assert!(candidate(Language::Node).into_interpreter("nonsense".into()).is_none());
    }
}
