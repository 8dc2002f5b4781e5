//! The system call filter: an allow-list kept as data (`policy/seccomp.json`), compiled when the launcher starts.
//!
//! What is on no list is refused with `EPERM`. Some calls answer `ENOSYS` instead, as if the kernel were too old for
//! them, because programs then fall back to an older way; so do all calls that are newer than the list.

use seccompiler::{BpfProgram, TargetArch, sock_filter};
use serde::Deserialize;
use serde_json::{Value, json};

const POLICY: &str = include_str!("../policy/seccomp.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    #[serde(rename = "about")]
    _about: String,
    /// The highest system call number that the lists know of; the same on every architecture since 2019.
    newest: u32,
    allow: Vec<Group>,
    keeper: Vec<Group>,
    absent: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[cfg_attr(not(test), expect(dead_code, reason = "for whoever reviews the policy; a test demands it"))]
    reason: String,
    calls: Vec<String>,
    #[serde(default)]
    when: Vec<Vec<Condition>>,
    only: Option<String>,
    r#for: Option<Kind>,
}

/// Which sandboxes a filter is for.
#[derive(Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Whose process stays where it is.
    Plain,
    /// Whose process may be copied into shells. The copies inherit the filter.
    Forkable,
    /// Pid 1 of a shell, whose main process brings its own filter.
    Keeper,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    arg: u8,
    bits: u8,
    op: Operation,
    mask: Option<u64>,
    value: u64,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Operation {
    Eq,
    Ne,
    MaskedEq,
}

/// The filters of one architecture, in the order in which they must be applied.
pub(crate) struct Filters {
    programs: Vec<BpfProgram>,
}

/// The policy could not be compiled: a mistake in the policy file, or a machine of another architecture.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("there is no system call policy for this architecture ({0})")]
    Architecture(&'static str),
    #[error("the system call policy cannot be read")]
    Policy(#[from] serde_json::Error),
    #[error("the system call policy cannot be compiled")]
    Compile(#[from] seccompiler::Error),
}

impl Filters {
    /// For this machine.
    pub(crate) fn compile(kind: Kind) -> Result<Self, FilterError> {
        let name = std::env::consts::ARCH;
        let arch = match name {
            "x86_64" => TargetArch::x86_64,
            "aarch64" => TargetArch::aarch64,
            other => return Err(FilterError::Architecture(other)),
        };
        Self::compile_for(&serde_json::from_str(POLICY)?, kind, name, arch)
    }

    fn compile_for(policy: &Policy, kind: Kind, name: &str, arch: TargetArch) -> Result<Self, FilterError> {
        let refused = json!({ "errno": libc::EPERM });
        let absent = json!({ "errno": libc::ENOSYS });
        let allow = if kind == Kind::Keeper { &policy.keeper } else { &policy.allow };
        let input = json!({
            "allow": {
                "mismatch_action": refused, "match_action": "allow", "filter": rules(allow, kind, name),
            },
            "absent": {
                "mismatch_action": "allow", "match_action": absent, "filter": rules(&policy.absent, kind, name),
            },
        });
        let mut compiled = seccompiler::compile_from_json(input.to_string().as_bytes(), arch)?;
        let mut take = |name: &str| compiled.remove(name).unwrap_or_default();
        let allow = take("allow");
        if kind == Kind::Keeper {
            return Ok(Self { programs: vec![allow] });
        }
        let absent = unknown_are_absent(policy.newest).into_iter().chain(take("absent")).collect();
        // Of two refusals the one of the filter that was applied last counts.
        Ok(Self { programs: vec![allow, absent] })
    }

    /// Puts this process and all its descendants under the filters, for good.
    pub(crate) fn apply(&self) -> std::io::Result<()> {
        for program in &self.programs {
            seccompiler::apply_filter(program).map_err(|error| match error {
                seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
                other => std::io::Error::other(other),
            })?;
        }
        Ok(())
    }
}

/// The rules in the compiler's own format: one for each call and alternative.
fn rules(groups: &[Group], kind: Kind, arch: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    let applies = |group: &&Group| {
        group.only.as_deref().is_none_or(|only| only == arch) && group.r#for.is_none_or(|only| only == kind)
    };
    for group in groups.iter().filter(applies) {
        for call in &group.calls {
            if group.when.is_empty() {
                rules.push(json!({ "syscall": call }));
            }
            for alternative in &group.when {
                let args: Vec<Value> = alternative.iter().map(Condition::to_rule).collect();
                rules.push(json!({ "syscall": call, "args": args }));
            }
        }
    }
    rules
}

impl Condition {
    fn to_rule(&self) -> Value {
        let operation = match self.op {
            Operation::Eq => json!("eq"),
            Operation::Ne => json!("ne"),
            Operation::MaskedEq => json!({ "masked_eq": self.mask.unwrap_or(u64::MAX) }),
        };
        let width = if self.bits == 32 { "dword" } else { "qword" };
        json!({ "index": self.arg, "type": width, "op": operation, "val": self.value })
    }
}

/// Answers `ENOSYS` to every number above `newest`; on x86_64 that includes the whole second numbering (x32). What follows it
/// decides about the rest.
fn unknown_are_absent(newest: u32) -> [sock_filter; 3] {
    // Offset of the call's number in the kernel's seccomp_data.
    const NUMBER: u32 = 0;
    let statement = |code: u32, k| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NUMBER),
        sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, newest) },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn policy() -> Policy {
        serde_json::from_str(POLICY).expect("policy")
    }

    #[test]
    fn every_entry_has_a_reason_of_its_own() {
        let policy = policy();
        let mut reasons = HashSet::new();
        for group in policy.allow.iter().chain(&policy.absent) {
            assert!(group.reason.len() >= 5, "{:?} has no reason", group.calls);
            assert!(!group.calls.is_empty(), "{} names no call", group.reason);
            assert!(group.calls.len() <= 12, "{} covers too many calls for one reason", group.reason);
            reasons.insert(&group.reason);
        }
        assert!(reasons.len() > 40, "reasons are not copied from entry to entry");
    }

    /// The compiler refuses a name that is not in the architecture's table, so a dead entry cannot hide.
    #[test]
    fn every_name_is_a_system_call_of_its_architecture() {
        for kind in [Kind::Plain, Kind::Forkable, Kind::Keeper] {
            Filters::compile_for(&policy(), kind, "x86_64", TargetArch::x86_64).expect("x86_64");
            Filters::compile_for(&policy(), kind, "aarch64", TargetArch::aarch64).expect("aarch64");
        }
        let mut wrong = policy();
        wrong.allow[0].calls.push("reed".into());
        assert!(Filters::compile_for(&wrong, Kind::Plain, "x86_64", TargetArch::x86_64).is_err());
    }

    #[test]
    fn no_call_is_listed_twice_without_conditions() {
        let policy = policy();
        for kind in [Kind::Plain, Kind::Forkable] {
            let mut seen = HashSet::new();
            let groups = policy.allow.iter().chain(&policy.absent);
            for group in groups.filter(|group| group.when.is_empty() && group.r#for.is_none_or(|k| k == kind))
            {
                for call in &group.calls {
                    assert!(seen.insert(call), "{call} is listed twice");
                }
            }
        }
    }

    #[test]
    fn a_group_that_is_only_for_one_architecture_is_needed_there_alone() {
        let mut policy = policy();
        let mut calls = policy.allow.iter_mut().filter(|group| group.only.is_some()).map(|group| {
            group.only = None;
            group.calls.clone()
        });
        assert!(calls.next().is_some());
        drop(calls);
        assert!(Filters::compile_for(&policy, Kind::Plain, "aarch64", TargetArch::aarch64).is_err());
    }

    #[test]
    fn what_a_sandbox_must_never_do_is_on_no_list() {
        let policy = policy();
        let of = |wanted: fn(&&Group) -> bool| -> HashSet<&str> {
            let groups = policy.allow.iter().filter(wanted);
            groups.flat_map(|group| group.calls.iter().map(String::as_str)).collect()
        };
        let only_forkable: Vec<&str> = of(|group| group.r#for == Some(Kind::Forkable))
            .difference(&of(|group| group.r#for != Some(Kind::Forkable)))
            .copied()
            .collect();
        assert_eq!(only_forkable, ["setns"], "a process that may be copied needs nothing else");
        let listed = of(|group| group.r#for != Some(Kind::Forkable));
        for call in [
            "mount",
            "umount2",
            "pivot_root",
            "chroot",
            "unshare",
            "setns",
            "clone3",
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "pidfd_getfd",
            "kcmp",
            "bpf",
            "perf_event_open",
            "userfaultfd",
            "keyctl",
            "add_key",
            "request_key",
            "kexec_load",
            "kexec_file_load",
            "init_module",
            "finit_module",
            "delete_module",
            "reboot",
            "swapon",
            "swapoff",
            "acct",
            "quotactl",
            "open_by_handle_at",
            "name_to_handle_at",
            "fsopen",
            "fsmount",
            "move_mount",
            "open_tree",
            "mount_setattr",
            "io_uring_setup",
            "syslog",
            "settimeofday",
            "clock_settime",
            "iopl",
            "ioperm",
            "modify_ldt",
            "fanotify_init",
            "sethostname",
            "vmsplice",
        ] {
            assert!(!listed.contains(call), "{call}");
        }
    }

    #[test]
    fn conditions_are_complete() {
        for group in policy().allow {
            for condition in group.when.iter().flatten() {
                assert_eq!(condition.mask.is_some(), condition.op == Operation::MaskedEq, "{}", group.reason);
                assert!(condition.arg < 6 && matches!(condition.bits, 32 | 64), "{}", group.reason);
            }
        }
    }
}
