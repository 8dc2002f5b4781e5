//! Whether the machine as a whole runs out of memory.

use std::time::Duration;

/// How often the machine is looked at while there are idle environments that could be stopped.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// How many bytes should be given back at once, `None` while the machine has at least 5 % of its memory available.
pub(crate) fn missing_bytes() -> Option<u64> {
    missing(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn missing(meminfo: &str) -> Option<u64> {
    let kilobytes = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    let wanted = kilobytes("MemTotal")? / 20;
    let available = kilobytes("MemAvailable")?;
    (available < wanted).then(|| (wanted - available) * 1024)
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn less_than_a_twentieth_available_is_pressure() {
        assert_eq!(missing("MemTotal:       1000000 kB\nMemAvailable:    60000 kB\n"), None);
        assert_eq!(missing("MemTotal:       1000000 kB\nMemAvailable:    40000 kB\n"), Some(10_000 * 1024));
        assert_eq!(missing("nothing here"), None);
    }
}
