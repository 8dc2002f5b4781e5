//! The system-call filter: `policy/seccomp.json`, compiled for this machine.
//!
//! Two filters are stacked. The first lets through what the policy allows and answers everything else `ENOSYS`, so that
//! a system call newer than the policy looks like one that the kernel does not have, and programs fall back (`clone3`
//! and io_uring are kept out that way). The second answers `EPERM` to what the policy refuses by name. Of two `errno`
//! answers the kernel takes the one of the filter installed last (seccomp(2)).

use seccompiler::{BpfProgram, TargetArch};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

const POLICY: &str = include_str!("../policy/seccomp.json");

/// Why the filter could not be made or installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    #[error("the system-call policy does not parse")]
    Policy(#[source] serde_json::Error),
    #[error("there is no system-call policy for processors of kind {0}; Martlet runs on x86_64 and aarch64")]
    Architecture(&'static str),
    #[error("the system-call policy does not compile")]
    Compile(#[source] seccompiler::Error),
    #[error("the kernel does not take the system-call filter")]
    Install(#[source] seccompiler::Error),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    allow: Vec<Entry>,
    refuse: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    reason: String,
    /// The one kind of processor that has these system calls.
    only: Option<String>,
    syscalls: Vec<String>,
    /// All must hold. In the terms of seccompiler's own policy format.
    args: Option<serde_json::Value>,
}

/// One filter in seccompiler's own policy format.
#[derive(Serialize)]
struct Table<'a> {
    mismatch_action: serde_json::Value,
    match_action: serde_json::Value,
    filter: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    syscall: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<&'a serde_json::Value>,
    comment: &'a str,
}

/// The compiled policy, in the order of installation. Made once, by the launcher; children inherit the memory.
pub(crate) struct Filter {
    programs: [BpfProgram; 2],
}

/// Compiles the policy for this machine.
pub(crate) fn compile() -> Result<Filter, SeccompError> {
    compile_for(std::env::consts::ARCH)
}

fn compile_for(architecture: &'static str) -> Result<Filter, SeccompError> {
    let target = TargetArch::try_from(architecture).map_err(|_| SeccompError::Architecture(architecture))?;
    let policy: Policy = serde_json::from_str(POLICY).map_err(SeccompError::Policy)?;
    let allow = serde_json::Value::from("allow");
    let errno = |number: i32| serde_json::json!({ "errno": number });
    let tables = HashMap::from([
        ("allow", table(&policy.allow, architecture, errno(libc::ENOSYS), allow.clone())),
        ("refuse", table(&policy.refuse, architecture, allow, errno(libc::EPERM))),
    ]);
    let text = serde_json::to_vec(&tables).map_err(SeccompError::Policy)?;
    let mut programs = seccompiler::compile_from_json(&text[..], target).map_err(SeccompError::Compile)?;
    let mut take = |name: &str| programs.remove(name).unwrap_or_default();
    Ok(Filter { programs: [take("allow"), take("refuse")] })
}

fn table<'a>(
    entries: &'a [Entry],
    architecture: &str,
    mismatch_action: serde_json::Value,
    match_action: serde_json::Value,
) -> Table<'a> {
    let here = |entry: &&Entry| entry.only.as_deref().is_none_or(|only| only == architecture);
    let rows = |entry: &'a Entry| {
        let row = |syscall| Row { syscall, args: entry.args.as_ref(), comment: &entry.reason };
        entry.syscalls.iter().map(String::as_str).map(row)
    };
    Table { mismatch_action, match_action, filter: entries.iter().filter(here).flat_map(rows).collect() }
}

impl Filter {
    /// Puts the calling thread, and all that it will ever start, under the filter. Needs `no_new_privs`. Cannot be undone.
    pub(crate) fn install(&self) -> Result<(), SeccompError> {
        self.programs.iter().try_for_each(|program| seccompiler::apply_filter(program).map_err(SeccompError::Install))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn policy() -> Policy {
        serde_json::from_str(POLICY).unwrap()
    }

    #[test]
    fn the_policy_compiles_for_every_processor_that_martlet_runs_on() {
        for architecture in ["x86_64", "aarch64"] {
            let filter = compile_for(architecture).unwrap();
            // BPF_MAXINSNS; the kernel refuses longer ones.
            assert!(filter.programs.iter().all(|program| (10..4096).contains(&program.len())), "{architecture}");
        }
        assert!(matches!(compile_for("s390x"), Err(SeccompError::Architecture("s390x"))));
    }

    #[test]
    fn every_entry_says_why() {
        let policy = policy();
        for entry in policy.allow.iter().chain(&policy.refuse) {
            assert!(entry.reason.ends_with('.') && entry.reason.len() > 10, "{:?}", entry.syscalls);
        }
    }

    #[test]
    fn nothing_is_named_twice_or_both_allowed_and_refused() {
        let whole = |entries: &[Entry]| {
            let mut seen = BTreeSet::new();
            for name in entries.iter().filter(|entry| entry.args.is_none()).flat_map(|entry| &entry.syscalls) {
                assert!(seen.insert(name.clone()), "{name} is named twice");
            }
            // An entry with conditions beside one without would turn the latter's "always" into "sometimes".
            for name in entries.iter().filter(|entry| entry.args.is_some()).flat_map(|entry| &entry.syscalls) {
                assert!(!seen.contains(name), "{name} is named with and without conditions");
            }
            seen
        };
        let policy = policy();
        let both: Vec<_> = whole(&policy.allow).intersection(&whole(&policy.refuse)).cloned().collect();
        assert!(both.is_empty(), "{both:?}");
    }

    #[test]
    fn what_could_break_out_is_not_allowed() {
        let allowed: BTreeSet<String> = policy().allow.into_iter().flat_map(|entry| entry.syscalls).collect();
        for forbidden in ["clone3", "io_uring_setup", "mount", "unshare", "setns", "ptrace", "bpf", "keyctl", "kexec_load"] {
            assert!(!allowed.contains(forbidden), "{forbidden}");
        }
    }
}
