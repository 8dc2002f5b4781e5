//! Starting the launcher with the isolation that is configured, or saying what this machine lacks for it.

use crate::config::{Config, Isolation, Tmp};
use martlet_sandbox::{Launcher, LauncherOptions, LauncherProcess, StartError, TmpKind};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// First of the host's user ids that sandboxes get when root starts the server: the first of a range that
/// systemd's table of user ids leaves to nobody.
const UID_BASE: u32 = 1_879_048_192;
/// How many sandboxes can live at once.
const UID_COUNT: u32 = 65_536;

/// Why no function could be run as isolated as configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IsolationError {
    #[error("this machine cannot give the isolation that is configured (isolation = {level}, tmp = {tmp})")]
    Refused { level: &'static str, tmp: &'static str, source: StartError },
    #[error("cannot start the launcher of sandboxes")]
    Start(#[source] StartError),
}

impl IsolationError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Refused { .. } => "`martlet doctor` lists what is missing and how to mend it. Weaker isolation is \
                only ever chosen by name: --isolation no-cgroups gives up the hard limits of memory and CPU, --tmp \
                memory keeps /tmp in memory"
                .to_owned(),
            Self::Start(_) => "`martlet doctor` examines this machine".to_owned(),
        }
    }
}

/// What the launcher is asked for.
pub(crate) fn options(config: &Config) -> LauncherOptions {
    LauncherOptions {
        isolation: match config.isolation {
            Isolation::Full => martlet_sandbox::Isolation::Full,
            Isolation::NoCgroups => martlet_sandbox::Isolation::NoCgroups,
        },
        instance: instance(&config.data_dir),
        uid_base: UID_BASE,
        uid_count: UID_COUNT,
        scratch_dir: config.data_dir.join("scratch"),
        tmp: match config.tmp {
            Tmp::Disk => TmpKind::Disk,
            Tmp::Memory => TmpKind::Memory,
        },
    }
}

/// Starts the launcher. Call it while this process has one thread and still has its privileges.
///
/// # Errors
/// [`IsolationError::Refused`] when the machine lacks something; nothing weaker is tried.
pub(crate) fn start_launcher(config: &Config) -> Result<LauncherProcess, IsolationError> {
    Launcher::start(options(config)).map_err(|source| match source {
        StartError::Refused(_) => {
            IsolationError::Refused { level: config.isolation.as_str(), tmp: config.tmp.as_str(), source }
        }
        other => IsolationError::Start(other),
    })
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
}
