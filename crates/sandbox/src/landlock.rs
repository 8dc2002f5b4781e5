//! Landlock: a second opinion on files, kept by another part of the kernel than mounts and modes are.

use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};

/// The newest interface that the rules below were thought through for. An older kernel gives what it has.
const KNOWN: ABI = ABI::V6;

/// Where files may be made and changed.
const WRITABLE: [&str; 2] = ["/tmp", "/dev/shm"];
/// Devices that may be written to and asked about.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Why the rules could not be put in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LandlockError {
    #[error("the Landlock rules are not taken")]
    Rules(#[from] RulesetError),
    #[error("{0} cannot be named in a Landlock rule")]
    Path(&'static str, #[source] landlock::PathFdError),
}

/// Restricts the calling thread, and all that it will ever start, inside the sandbox's root: reading and executing is
/// allowed everywhere, writing in `/tmp`, `/dev/shm`, the few devices and one's own files in `/proc`; signals and abstract Unix
/// sockets end at the sandbox. Needs `no_new_privs`. Returns whether this kernel enforces any of it.
pub(crate) fn restrict() -> Result<bool, LandlockError> {
    let everything = AccessFs::from_all(KNOWN);
    let read = AccessFs::from_read(KNOWN);
    let change_content: BitFlags<AccessFs> = AccessFs::WriteFile | AccessFs::Truncate;

    let mut rules =
        Ruleset::default().handle_access(everything)?.scope(Scope::from_all(KNOWN))?.create()?;
    rules = rules.add_rule(PathBeneath::new(open("/")?, read))?;
    for path in WRITABLE {
        rules = rules.add_rule(PathBeneath::new(open(path)?, everything))?;
    }
    for path in DEVICES {
        let access = AccessFs::ReadFile | AccessFs::IoctlDev | change_content;
        rules = rules.add_rule(PathBeneath::new(open(path)?, access))?;
    }
    // A program may set its own name, oom_score_adj and the like; the kernel's settings are mounted read-only.
    rules = rules.add_rule(PathBeneath::new(open("/proc")?, read | change_content))?;
    Ok(rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}

fn open(path: &'static str) -> Result<PathFd, LandlockError> {
    PathFd::new(path).map_err(|source| LandlockError::Path(path, source))
}
