//! Which file keeps which limit and tells which number, per version. Data only.

use crate::cgroup::layout::{Controller, Hierarchy};
use crate::spec::SandboxSpec;
use crate::wire::Control;

/// The limits of one sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes, swap included.
    pub(crate) memory: u64,
    /// Thousandths of one cpu.
    pub(crate) cpu_millis: u32,
    /// Processes and threads.
    pub(crate) pids: u64,
}

impl Limits {
    /// As asked, and one process more for pid 1, which is ours.
    pub(crate) fn of(spec: &SandboxSpec) -> Self {
        Self { memory: spec.memory_bytes, cpu_millis: spec.cpu_millis, pids: spec.pids + 1 }
    }
}

/// One value for one file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) controller: Controller,
    pub(crate) file: &'static str,
    pub(crate) value: String,
    /// Whether the limit stands or falls with it. The others do not exist on every kernel.
    pub(crate) required: bool,
}

/// The cpu quota counts in periods of this length.
const PERIOD_MICROS: u64 = 100_000;

/// The value of the quota's file for a share of `cpu_millis`.
pub(crate) fn quota(control: Control, cpu_millis: u32) -> String {
    let quota = u64::from(cpu_millis) * PERIOD_MICROS / 1000;
    if control == Control::CpuMax { format!("{quota} {PERIOD_MICROS}") } else { quota.to_string() }
}

/// Everything to write into a new group, in this order.
pub(crate) fn settings(hierarchy: Hierarchy, limits: &Limits) -> Vec<Setting> {
    let setting = |controller, file, value: String, required| Setting { controller, file, value, required };
    let memory = limits.memory.to_string();
    let pids = limits.pids.to_string();
    match hierarchy {
        Hierarchy::V1 | Hierarchy::Hybrid => vec![
            setting(Controller::Memory, "memory.limit_in_bytes", memory.clone(), true),
            // Memory and swap together; only there where the kernel counts swap. It may not be below the one before.
            setting(Controller::Memory, "memory.memsw.limit_in_bytes", memory, false),
            setting(Controller::Memory, "memory.swappiness", "0".into(), false),
            setting(Controller::Cpu, "cpu.cfs_period_us", PERIOD_MICROS.to_string(), true),
            setting(Controller::Cpu, "cpu.cfs_quota_us", quota(Control::CfsQuota, limits.cpu_millis), true),
            setting(Controller::Pids, "pids.max", pids, true),
        ],
        Hierarchy::V2 => vec![
            setting(Controller::Memory, "memory.max", memory, true),
            setting(Controller::Memory, "memory.swap.max", "0".into(), false),
            // A half-killed program is of no use: all of it goes.
            setting(Controller::Memory, "memory.oom.group", "1".into(), false),
            setting(Controller::Cpu, "cpu.max", quota(Control::CpuMax, limits.cpu_millis), true),
            setting(Controller::Pids, "pids.max", pids, true),
        ],
    }
}

/// Whether the server may change it while the sandbox lives.
pub(crate) fn changes(setting: &Setting) -> bool {
    matches!(setting.file, "cpu.cfs_quota_us" | "cpu.max")
}

/// A control file that the server gets as a descriptor.
pub(crate) struct ControlFile {
    pub(crate) control: Control,
    pub(crate) controller: Controller,
    pub(crate) file: &'static str,
    pub(crate) writable: bool,
}

/// The control files of a layout; one that this kernel does not have is left out.
pub(crate) fn controls(hierarchy: Hierarchy) -> Vec<ControlFile> {
    let reads = |control, controller, file| ControlFile { control, controller, file, writable: false };
    let writes = |control, controller, file| ControlFile { control, controller, file, writable: true };
    let cpu_stat = reads(Control::CpuStat, Controller::Unified, "cpu.stat");
    let cfs_quota = writes(Control::CfsQuota, Controller::Cpu, "cpu.cfs_quota_us");
    let cpu_max = writes(Control::CpuMax, Controller::Cpu, "cpu.max");
    let freeze = writes(Control::CgroupFreeze, Controller::Unified, "cgroup.freeze");
    let memory_v1 = [
        reads(Control::MemoryUsage, Controller::Memory, "memory.usage_in_bytes"),
        reads(Control::MemoryPeak, Controller::Memory, "memory.max_usage_in_bytes"),
        reads(Control::OomKills, Controller::Memory, "memory.oom_control"),
    ];
    let memory_v2 = [
        reads(Control::MemoryUsage, Controller::Memory, "memory.current"),
        reads(Control::MemoryPeak, Controller::Memory, "memory.peak"),
        reads(Control::OomKills, Controller::Memory, "memory.events"),
    ];
    match hierarchy {
        Hierarchy::V1 => {
            let own = [
                writes(Control::FreezerState, Controller::Freezer, "freezer.state"),
                cfs_quota,
                reads(Control::CpuacctUsage, Controller::Cpuacct, "cpuacct.usage"),
            ];
            own.into_iter().chain(memory_v1).collect()
        }
        Hierarchy::Hybrid => [freeze, cfs_quota, cpu_stat].into_iter().chain(memory_v1).collect(),
        Hierarchy::V2 => [freeze, cpu_max, cpu_stat].into_iter().chain(memory_v2).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { memory: 128 << 20, cpu_millis: 72, pids: 1025 };

    fn value(hierarchy: Hierarchy, file: &str) -> Option<String> {
        settings(hierarchy, &LIMITS)
            .into_iter()
            .find(|setting| setting.file == file)
            .map(|setting| setting.value)
    }

    #[test]
    fn a_share_of_a_cpu_becomes_a_quota_of_a_period() {
        assert_eq!(value(Hierarchy::V2, "cpu.max").as_deref(), Some("7200 100000"));
        assert_eq!(value(Hierarchy::V1, "cpu.cfs_quota_us").as_deref(), Some("7200"));
    }

    #[test]
    fn swap_is_never_left_open_where_it_can_be_closed() {
        assert_eq!(value(Hierarchy::V2, "memory.swap.max").as_deref(), Some("0"));
        assert_eq!(value(Hierarchy::Hybrid, "memory.memsw.limit_in_bytes").as_deref(), Some("134217728"));
    }

    #[test]
    fn memory_is_limited_before_memory_with_swap() {
        let files: Vec<_> =
            settings(Hierarchy::V1, &LIMITS).into_iter().map(|setting| setting.file).collect();
        assert!(
            files.iter().position(|f| *f == "memory.limit_in_bytes")
                < files.iter().position(|f| f.contains("memsw"))
        );
    }

    #[test]
    fn what_the_server_can_write_is_known_to_change() {
        for hierarchy in [Hierarchy::V1, Hierarchy::Hybrid, Hierarchy::V2] {
            let changing: Vec<_> =
                settings(hierarchy, &LIMITS).into_iter().filter(changes).map(|s| s.file).collect();
            let written: Vec<_> =
                controls(hierarchy).into_iter().filter(|control| control.writable).map(|c| c.file).collect();
            assert!(changing.iter().all(|file| written.contains(file)), "{changing:?} {written:?}");
            assert_eq!(changing.len(), 1, "the other one freezes, which is no limit");
        }
    }

    #[test]
    fn every_layout_can_freeze_and_change_the_share_of_cpu() {
        for hierarchy in [Hierarchy::V1, Hierarchy::Hybrid, Hierarchy::V2] {
            assert_eq!(
                controls(hierarchy).iter().filter(|control| control.writable).count(),
                2,
                "{hierarchy}"
            );
        }
    }
}
