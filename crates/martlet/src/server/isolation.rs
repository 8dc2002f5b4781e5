//! Starting the launcher with the isolation that is configured, or saying what this machine lacks for it.

use crate::config::{Config, Isolation, Tmp};
use martlet_sandbox::doctor::{self, Finding, Status};
use martlet_sandbox::{Launcher, LauncherOptions, LauncherProcess, StartError, TmpKind};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// First of the host's user ids that sandboxes get when root starts the server: the first of a range that
/// systemd's table of user ids leaves to nobody.
const UID_BASE: u32 = 1_879_048_192;
/// How many sandboxes can live at once.
const UID_COUNT: u32 = 65_536;

/// Every choice that is weaker than the default, from the least given up to the most.
const WEAKER: [(Isolation, Tmp); 3] =
    [(Isolation::Full, Tmp::Memory), (Isolation::NoCgroups, Tmp::Disk), (Isolation::NoCgroups, Tmp::Memory)];

/// Why no function could be run as isolated as configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IsolationError {
    #[error("this machine cannot give the isolation that is configured (isolation = {level}, tmp = {tmp})")]
    Refused { level: &'static str, tmp: &'static str, missing: Vec<Finding>, source: StartError },
    #[error("cannot start the launcher of sandboxes")]
    Start(#[source] StartError),
}

impl IsolationError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> String {
        let mut hint = String::new();
        if let Self::Refused { missing, .. } = self {
            if !missing.is_empty() {
                hint.push_str("this is missing:\n");
            }
            for Finding { name, detail, remedy, .. } in missing {
                // Writing to a String cannot fail.
                let _ = writeln!(hint, "  {name}: {detail}\n    -> {remedy}");
            }
            if let Some(flags) = weaker() {
                let _ = writeln!(
                    hint,
                    "Or accept less, which Martlet never does by itself: martlet up {flags} (`martlet up --help` says \
                     what that gives up)"
                );
            }
        }
        hint + "`martlet doctor` tells everything that this machine can and cannot isolate"
    }
}

/// Starts the launcher. Call it while this process has one thread and still has its privileges. Whatever becomes of the
/// server, the launcher shows functions nothing of the host but `shown`, all of which must exist.
///
/// # Errors
/// [`IsolationError::Refused`] when the machine lacks something; nothing weaker is tried.
pub(super) fn start_launcher(
    config: &Config,
    shown: Vec<PathBuf>,
) -> Result<LauncherProcess, IsolationError> {
    Launcher::start_within(options(config), shown).map_err(|source| match source {
        StartError::Refused(_) => IsolationError::Refused {
            level: config.isolation.as_str(),
            tmp: config.tmp.as_str(),
            missing: missing(examine(config.isolation, config.tmp)),
            source,
        },
        other => IsolationError::Start(other),
    })
}

/// How this machine stands to that choice.
pub(crate) fn examine(isolation: Isolation, tmp: Tmp) -> Vec<Finding> {
    doctor::examine(of_sandbox(isolation), tmp_of_sandbox(tmp))
}

/// The findings without which the choice is impossible.
pub(crate) fn missing(findings: Vec<Finding>) -> Vec<Finding> {
    findings.into_iter().filter(|finding| finding.status == Status::Missing).collect()
}

/// The flags of the strongest choice below the default that this machine can give; `None` when it can give none.
pub(crate) fn weaker() -> Option<String> {
    let possible = |(isolation, tmp): &(Isolation, Tmp)| missing(examine(*isolation, *tmp)).is_empty();
    WEAKER.into_iter().find(possible).map(flags)
}

fn flags((isolation, tmp): (Isolation, Tmp)) -> String {
    let mut flags = Vec::new();
    if isolation != Isolation::Full {
        flags.push(format!("--isolation {}", isolation.as_str()));
    }
    if tmp != Tmp::Disk {
        flags.push(format!("--tmp {}", tmp.as_str()));
    }
    flags.join(" ")
}

/// Enough for two first calls at once; more are made as these are taken.
const SANDBOXES_AHEAD: u32 = 2;

fn options(config: &Config) -> LauncherOptions {
    LauncherOptions {
        isolation: of_sandbox(config.isolation),
        instance: instance(&config.data_dir),
        uid_base: UID_BASE,
        uid_count: UID_COUNT,
        scratch_dir: config.data_dir.join("scratch"),
        tmp: tmp_of_sandbox(config.tmp),
        ahead: SANDBOXES_AHEAD,
    }
}

fn of_sandbox(isolation: Isolation) -> martlet_sandbox::Isolation {
    match isolation {
        Isolation::Full => martlet_sandbox::Isolation::Full,
        Isolation::NoCgroups => martlet_sandbox::Isolation::NoCgroups,
    }
}

fn tmp_of_sandbox(tmp: Tmp) -> TmpKind {
    match tmp {
        Tmp::Disk => TmpKind::Disk,
        Tmp::Memory => TmpKind::Memory,
    }
}

/// The same name for the same data directory, on every start.
fn instance(data_dir: &Path) -> String {
    let digest = Sha256::digest(data_dir.as_os_str().as_bytes());
    digest.iter().take(6).fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_after_its_data_directory() {
        assert_eq!(instance(Path::new("/a")), instance(Path::new("/a")));
        assert_ne!(instance(Path::new("/a")), instance(Path::new("/b")));
        assert_eq!(instance(Path::new("/a")).len(), 12);
    }

    #[test]
    fn weaker_choices_are_spelled_as_flags() {
        let flags: Vec<String> = WEAKER.into_iter().map(flags).collect();
        assert_eq!(flags, ["--tmp memory", "--isolation no-cgroups", "--isolation no-cgroups --tmp memory"]);
    }
}
