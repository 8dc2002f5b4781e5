//! Giving up: resource limits, privileges, and what else the kernel can take away. Everything here is inherited by the
//! main process.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
};

use crate::error::{At, Fault, Step};
use crate::spec::SandboxSpec;

/// Beyond the memory limit when only data is limited: what an interpreter maps without using it, thread stacks above all.
const DATA_SLACK: u64 = 256 << 20;

/// All but the number of open files, which the main process sets last. `limit_data` stands in for a cgroup's memory limit:
/// it counts writable private memory of each process on its own. An address space limit would be no use, since V8 and
/// others reserve many times what they use.
pub(super) fn resource_limits(spec: &SandboxSpec, limit_data: bool) -> Result<(), Fault> {
    limit(Resource::Core, 0).at(Step::ResourceLimit, "core")?;
    // The kernel counts the copies of a forkable process in its user namespace, too; cgroups bound those.
    if limit_data || !spec.forkable {
        // One more for pid 1, which is ours.
        limit(Resource::Nproc, spec.pids + 1).at(Step::ResourceLimit, "nproc")?;
    }
    if limit_data {
        limit(Resource::Data, spec.memory_bytes + DATA_SLACK).at(Step::ResourceLimit, "data")?;
    }
    Ok(())
}

pub(super) fn limit(resource: Resource, value: u64) -> rustix::io::Result<()> {
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
}

/// For good: no capability, no way to get one.
pub(super) fn privileges() -> Result<(), Fault> {
    // This process holds a copy of the launcher's memory: nobody inside may read it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Privileges, "dumpable")?;
    set_no_new_privs(true).at(Step::Privileges, "no_new_privs")?;
    clear_ambient_capability_set().at(Step::Privileges, "ambient set")?;
    // The bounding set goes before the right to change it.
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // One more than the last that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(errno).at(Step::Privileges, "bounding set"),
        }
    }
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits).at(Step::Privileges, "secure bits")?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).at(Step::Privileges, "capabilities")
}
