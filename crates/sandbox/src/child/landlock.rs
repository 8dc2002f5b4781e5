//! Landlock: a second, independent word on which files may be written, and none on other sandboxes' sockets and signals.
//!
//! The mounts say the same already; this holds even where a mount was got wrong.

use std::io;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};

use crate::error::{At, Fault, Step};
use crate::spec::Bind;

/// Where a sandbox may write, make and remove.
const WRITABLE: [&str; 2] = ["/tmp", "/dev/shm"];
/// Where it may write to what exists: devices that hold nothing, and the files about itself in `/proc`.
const WRITABLE_IN_PLACE: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/proc"];

/// What the rules are made of, in the kernel's own numbers: for a copy of a forkable process, which applies them to itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rights {
    /// Accesses that the rules decide about; 0 for no rules.
    pub(crate) handled: u64,
    /// What may not reach outside of the sandbox.
    pub(crate) scoped: u64,
    /// Allowed everywhere.
    pub(crate) read: u64,
    /// Allowed below [`WRITABLE`].
    pub(crate) everything: u64,
    /// Allowed below [`WRITABLE_IN_PLACE`].
    pub(crate) in_place: u64,
}

impl Rights {
    /// Under version `abi` of the kernel's Landlock.
    pub(crate) fn under(abi: u32) -> Self {
        let abi = version(abi);
        if abi == ABI::Unsupported {
            return Self::default();
        }
        Self {
            handled: AccessFs::from_all(abi).bits(),
            scoped: if abi >= ABI::V6 { (Scope::AbstractUnixSocket | Scope::Signal).bits() } else { 0 },
            read: AccessFs::from_read(abi).bits(),
            everything: AccessFs::from_all(abi).bits(),
            in_place: in_place(abi).bits(),
        }
    }
}

/// Restricts this process and its descendants as far as version `abi` of the kernel's Landlock can; 0 does nothing.
pub(super) fn restrict(abi: u32) -> Result<(), Fault> {
    let abi = version(abi);
    if abi == ABI::Unsupported {
        return Ok(());
    }
    apply(abi).map_err(|error| io::Error::other(error.to_string())).at(Step::Landlock, "rules")
}

/// The newest version that both the kernel and these rules know.
fn version(abi: u32) -> ABI {
    match abi {
        // Version 1 cannot allow to rename across directories, which would break programs in /tmp.
        0 | 1 => ABI::Unsupported,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        _ => ABI::V6,
    }
}

fn in_place(abi: ABI) -> BitFlags<AccessFs> {
    (AccessFs::from_read(abi) | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev)
        & AccessFs::from_file(abi)
}

/// Only what every copy of this process may be under, too: its files are not those of its copies.
pub(super) fn restrict_scope(abi: u32) -> Result<(), Fault> {
    if version(abi) < ABI::V6 {
        return Ok(());
    }
    apply_scope().map_err(|error| io::Error::other(error.to_string())).at(Step::Landlock, "scope")
}

fn apply_scope() -> Result<(), Box<dyn std::error::Error>> {
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    rules.scope(Scope::AbstractUnixSocket | Scope::Signal)?.create()?.restrict_self()?;
    Ok(())
}

fn apply(abi: ABI) -> Result<(), Box<dyn std::error::Error>> {
    let read = AccessFs::from_read(abi);
    let everything = AccessFs::from_all(abi);
    let in_place = in_place(abi);
    // The version was chosen by what the kernel has, so anything that does not work is an error, not a compromise.
    let mut rules =
        Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(everything)?;
    if abi >= ABI::V6 {
        rules = rules.scope(Scope::AbstractUnixSocket | Scope::Signal)?;
    }
    let mut rules = rules.create()?.add_rule(PathBeneath::new(PathFd::new("/")?, read))?;
    for path in WRITABLE {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, everything))?;
    }
    for path in WRITABLE_IN_PLACE {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, in_place))?;
    }
    // Only there when something was asked to be shown below it; the mounts say what of that may be written to.
    if let Ok(shown) = PathFd::new(Bind::WRITABLE) {
        rules = rules.add_rule(PathBeneath::new(shown, everything))?;
    }
    rules.restrict_self()?;
    Ok(())
}
