//! What defaults take from this machine and this process.

use super::keys::Key;
use super::{Inputs, Machine};
use std::path::PathBuf;

impl Machine {
    /// This machine, as `/proc` tells it.
    pub(crate) fn this() -> Self {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            root: rustix::process::geteuid().is_root(),
            memory_mb: total_memory_mb(&meminfo).unwrap_or(4096),
        }
    }
}

impl Inputs {
    /// The environment of this process, with what the command line gave.
    pub(crate) fn this(flags: Vec<(&'static Key, String)>, file: Option<PathBuf>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { flags, environment: environment.collect(), file, machine: Machine::this() }
    }
}

fn total_memory_mb(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes / 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_read_from_meminfo() {
        assert_eq!(super::total_memory_mb("MemTotal:       24576000 kB\nMemFree: 1 kB"), Some(24_000));
        assert_eq!(super::total_memory_mb("nothing"), None);
    }
}
