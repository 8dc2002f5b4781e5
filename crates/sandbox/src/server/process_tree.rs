//! Usage of a sandbox that has no cgroup: added up over the processes below its pid 1, from `/proc`.

use std::fs;

use crate::server::Usage;

/// Memory now and at its peak, summed over the tree; each process' own peak, so the sum may overstate. Pid 1 itself is the
/// launcher's overhead and is left out.
pub(super) fn usage(pid: i32) -> Usage {
    let mut usage = Usage::default();
    let mut waiting = children(pid);
    while let Some(pid) = waiting.pop() {
        waiting.extend(children(pid));
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        usage.memory_bytes += kilobytes(&status, "VmRSS:");
        usage.memory_peak_bytes += kilobytes(&status, "VmHWM:");
    }
    usage
}

fn children(pid: i32) -> Vec<i32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn kilobytes(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_are_read_from_a_status_file() {
        let status = "Name:\tsh\nVmHWM:\t    1024 kB\nVmRSS:\t     512 kB\n";
        assert_eq!(kilobytes(status, "VmHWM:"), 1 << 20);
        assert_eq!(kilobytes(status, "VmRSS:"), 512 << 10);
        assert_eq!(kilobytes(status, "VmSwap:"), 0);
    }
}
