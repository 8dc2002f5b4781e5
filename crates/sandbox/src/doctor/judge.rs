//! From facts to findings, each with what to do about it.

use crate::cgroup::{Controller, Hierarchy, NEEDED};
use crate::doctor::facts::{Cgroups, Facts};
use crate::doctor::{Finding, Status};
use crate::spec::{Isolation, TmpKind};
use crate::sys::Trial;

/// The oldest kernel with everything that the launcher cannot do without (`mount_setattr`).
const OLDEST_KERNEL: (u32, u32) = (5, 12);
/// From this on each user namespace counts processes by itself, and `cgroup.kill` exists.
const GOOD_KERNEL: (u32, u32) = (5, 14);

/// Findings in the order in which things are needed.
pub(super) fn judge(facts: &Facts, isolation: Isolation, tmp: TmpKind) -> Vec<Finding> {
    let mut findings = vec![architecture(facts), kernel(facts), privileges(facts), namespaces(facts)];
    findings.extend(cgroups(facts, isolation));
    findings.extend([seccomp(facts), landlock(facts), disk_tmp(facts, tmp)]);
    findings
}

fn finding(name: &str, status: Status, detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { name: name.into(), status, detail: detail.into(), remedy: remedy.into() }
}

fn architecture(facts: &Facts) -> Finding {
    let known = matches!(facts.architecture, "x86_64" | "aarch64");
    let status = if known { Status::Ok } else { Status::Missing };
    let remedy =
        if known { "" } else { "use an x86_64 or aarch64 machine: there is a system call policy for those" };
    finding("architecture", status, facts.architecture, remedy)
}

fn kernel(facts: &Facts) -> Finding {
    let (major, minor) = facts.kernel;
    let (status, remedy) = match facts.kernel {
        version if version < OLDEST_KERNEL => (Status::Missing, "install a kernel of version 5.12 or later"),
        version if version < GOOD_KERNEL => (
            Status::Degraded,
            "a kernel of version 5.14 or later ends sandboxes at once and counts their processes apart",
        ),
        _ => (Status::Ok, ""),
    };
    finding("kernel", status, format!("Linux {major}.{minor}"), remedy)
}

fn privileges(facts: &Facts) -> Finding {
    match (facts.root, facts.administrator) {
        (true, true) => {
            finding("privileges", Status::Ok, "root: each sandbox gets a host user of its own", "")
        }
        (true, false) => finding(
            "privileges",
            Status::Missing,
            "root, but without CAP_SYS_ADMIN, as in most containers",
            "start the container privileged (docker run --privileged), or start as an ordinary user",
        ),
        (false, _) => finding(
            "privileges",
            Status::Degraded,
            "an ordinary user: all sandboxes share your host user, and are kept apart by namespaces alone",
            "start as root (sudo martlet up): the server itself then runs as a user without privileges",
        ),
    }
}

fn namespaces(facts: &Facts) -> Finding {
    let missing = |detail: String, remedy: &str| finding("namespaces", Status::Missing, detail, remedy);
    let errno = match facts.namespaces {
        Trial::Works => return finding("namespaces", Status::Ok, "user, mount, pid, net, ipc, uts", ""),
        Trial::NoProc => {
            return missing(
                "a private /proc cannot be mounted: the one here is masked, as in most containers".into(),
                "start the container with its /proc unmasked (docker run --privileged, or \
                 --security-opt systempaths=unconfined)",
            );
        }
        Trial::NoRights if facts.apparmor_restricts == Some(1) => {
            return missing(
                "AppArmor takes all rights from user namespaces of users".into(),
                "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or start as root",
            );
        }
        Trial::NoRights => {
            return missing(
                "they can be made, but give no rights: a security module forbids it".into(),
                "allow user namespaces in the policy of the security module (AppArmor, SELinux), or start as root",
            );
        }
        Trial::Refused(errno) => errno,
    };
    let detail = format!("cannot be made: {}", std::io::Error::from_raw_os_error(errno));
    match (facts.userns_clone, facts.max_user_namespaces, facts.max_net_namespaces) {
        (Some(0), _, _) if !facts.root => missing(detail, "sysctl -w kernel.unprivileged_userns_clone=1"),
        (_, Some(0), _) => missing(detail, "sysctl -w user.max_user_namespaces=65536"),
        (_, _, Some(0)) => missing(detail, "sysctl -w user.max_net_namespaces=65536"),
        _ if errno == libc::ENOSYS => {
            missing(detail, "allow clone3 in the container's seccomp profile, or update the kernel")
        }
        _ => missing(
            detail,
            "if this is a container, start it with --privileged or --security-opt seccomp=unconfined; \
             otherwise use a kernel with user namespaces (CONFIG_USER_NS)",
        ),
    }
}

fn cgroups(facts: &Facts, isolation: Isolation) -> Vec<Finding> {
    // What was not asked for cannot be missing.
    let lacking = if isolation == Isolation::Full { Status::Missing } else { Status::Degraded };
    let Some(cgroups) = &facts.cgroups else {
        let remedy = "mount -t cgroup2 none /sys/fs/cgroup";
        return vec![finding("cgroups", lacking, "no cgroup file system is mounted", remedy)];
    };
    let mut findings = vec![finding("cgroups", Status::Ok, layout_words(cgroups), "")];
    for controller in NEEDED {
        let (status, detail) = match cgroups.controllers.iter().find(|(known, _)| *known == controller) {
            Some((_, true)) => (Status::Ok, "usable"),
            Some((_, false)) => (lacking, "there, but not delegated to this user"),
            None => (lacking, "not available"),
        };
        let remedy =
            if status == Status::Ok { String::new() } else { controller_remedy(facts, cgroups, controller) };
        findings.push(finding(&format!("cgroup {}", controller.name()), status, detail, remedy));
    }
    findings.push(freezing(cgroups, lacking));
    if facts.swap && !cgroups.counts_swap {
        findings.push(finding(
            "cgroup swap",
            Status::Degraded,
            "swap is in use and not counted, so a function may swap beyond its memory limit",
            "boot with swapaccount=1 on the kernel command line, or swapoff -a",
        ));
    }
    findings
}

fn layout_words(cgroups: &Cgroups) -> String {
    match cgroups.hierarchy {
        Hierarchy::V1 => "version 1".into(),
        Hierarchy::Hybrid => "version 1 for limits, version 2 for freezing and killing".into(),
        Hierarchy::V2 => format!("version 2, below {}", cgroups.own),
    }
}

fn controller_remedy(facts: &Facts, cgroups: &Cgroups, controller: Controller) -> String {
    let name = controller.name();
    match (facts.root, cgroups.hierarchy) {
        (false, Hierarchy::V2) => "systemd-run --user --scope -p Delegate=yes martlet up; for cpu also, as root: mkdir -p \
                                   /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu memory pids\\n' > \
                                   /etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload"
            .into(),
        (false, _) => "start as root: cgroups of version 1 cannot be delegated safely; or boot with \
                       systemd.unified_cgroup_hierarchy=1"
            .into(),
        (true, Hierarchy::V2) if controller == Controller::Memory => {
            "boot with cgroup_enable=memory on the kernel command line; in a container, start it with --privileged \
             --cgroupns=host"
                .into()
        }
        (true, Hierarchy::V2) => {
            format!("echo +{name} > /sys/fs/cgroup/cgroup.subtree_control; in a container, start it with --privileged")
        }
        (true, _) => format!(
            "mkdir -p /sys/fs/cgroup/{name} && mount -t cgroup -o {name} none /sys/fs/cgroup/{name}; for memory, the \
             kernel may need cgroup_enable=memory on its command line"
        ),
    }
}

fn freezing(cgroups: &Cgroups, lacking: Status) -> Finding {
    let v1 = cgroups.hierarchy == Hierarchy::V1;
    let freezer =
        cgroups.controllers.iter().any(|(controller, usable)| *controller == Controller::Freezer && *usable);
    if v1 && !freezer {
        let remedy =
            "mkdir -p /sys/fs/cgroup/freezer && mount -t cgroup -o freezer none /sys/fs/cgroup/freezer";
        return finding("cgroup freezer", lacking, "not available", remedy);
    }
    if !cgroups.can_freeze {
        return finding(
            "cgroup freezer",
            lacking,
            "not available",
            "install a kernel of version 5.12 or later",
        );
    }
    let detail = match (v1, cgroups.can_kill) {
        (true, _) => "freezer controller",
        (false, true) => "cgroup.freeze, cgroup.kill",
        (false, false) => "cgroup.freeze",
    };
    finding("cgroup freezer", Status::Ok, detail, "")
}

fn seccomp(facts: &Facts) -> Finding {
    if facts.seccomp {
        return finding("seccomp", Status::Ok, "system call filters", "");
    }
    let remedy = "use a kernel with CONFIG_SECCOMP_FILTER";
    finding("seccomp", Status::Missing, "the kernel filters no system calls", remedy)
}

/// Version 6 restricts sockets and signals too.
const WHOLE_LANDLOCK: u32 = 6;

fn landlock(facts: &Facts) -> Finding {
    let remedy = "use a kernel of version 6.12 or later, with landlock in its list of security modules (lsm=landlock,...)";
    match facts.landlock {
        0 => finding("landlock", Status::Degraded, "not in this kernel, or switched off", remedy),
        1 => finding("landlock", Status::Degraded, "version 1, which is not usable here", remedy),
        version if version < WHOLE_LANDLOCK => {
            finding("landlock", Status::Degraded, format!("version {version}: files only"), remedy)
        }
        version => finding("landlock", Status::Ok, format!("version {version}"), ""),
    }
}

fn disk_tmp(facts: &Facts, tmp: TmpKind) -> Finding {
    let lacking = if tmp == TmpKind::Disk { Status::Missing } else { Status::Degraded };
    let lacks = |detail: &str, remedy: &str| finding("disk-backed /tmp", lacking, detail, remedy);
    match (facts.root, facts.loop_control, facts.mkfs) {
        (false, _, _) => lacks(
            "loop devices are for root only",
            "start as root, or choose memory-backed /tmp (martlet up --tmp memory)",
        ),
        (true, Err(libc::ENOENT | libc::ENODEV | libc::ENXIO), _) => {
            lacks("no loop devices", "modprobe loop")
        }
        (true, Err(errno), _) => lacks(
            &format!("/dev/loop-control: {}", std::io::Error::from_raw_os_error(errno)),
            "in a container, start it with --privileged; or choose memory-backed /tmp (martlet up --tmp memory)",
        ),
        (true, Ok(()), false) => lacks("mkfs.ext4 is not installed", "install the package e2fsprogs"),
        (true, Ok(()), true) => finding("disk-backed /tmp", Status::Ok, "loop devices and mkfs.ext4", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            architecture: "x86_64",
            kernel: (6, 12),
            root: true,
            administrator: true,
            namespaces: Trial::Works,
            userns_clone: None,
            apparmor_restricts: None,
            max_user_namespaces: Some(1000),
            max_net_namespaces: Some(1000),
            cgroups: Some(Cgroups {
                hierarchy: Hierarchy::V2,
                own: "/".into(),
                controllers: NEEDED.map(|controller| (controller, true)).to_vec(),
                can_freeze: true,
                can_kill: true,
                counts_swap: true,
            }),
            swap: true,
            seccomp: true,
            landlock: 7,
            mkfs: true,
            loop_control: Ok(()),
        }
    }

    fn full(facts: &Facts) -> Vec<Finding> {
        judge(facts, Isolation::Full, TmpKind::Disk)
    }

    #[track_caller]
    fn named(findings: &[Finding], name: &str) -> Finding {
        findings.iter().find(|finding| finding.name == name).cloned().expect("finding")
    }

    #[test]
    fn a_good_machine_has_nothing_to_mend() {
        for finding in full(&good()) {
            assert_eq!((finding.status, finding.remedy.as_str()), (Status::Ok, ""), "{finding:?}");
        }
    }

    #[test]
    fn whatever_is_not_well_has_a_remedy() {
        let mut bad = good();
        bad.architecture = "riscv64";
        bad.kernel = (4, 19);
        bad.administrator = false;
        bad.namespaces = Trial::Refused(libc::EPERM);
        bad.seccomp = false;
        bad.landlock = 0;
        bad.loop_control = Err(libc::ENOENT);
        if let Some(cgroups) = &mut bad.cgroups {
            cgroups.controllers.clear();
            cgroups.can_freeze = false;
        }
        let findings = full(&bad);
        assert!(findings.len() >= 10);
        for finding in findings {
            assert!(finding.name == "cgroups" || finding.status > Status::Ok, "{finding:?}");
            assert_eq!(finding.remedy.is_empty(), finding.status == Status::Ok, "{finding:?}");
        }
        bad.cgroups = None;
        assert_eq!(named(&full(&bad), "cgroups").status, Status::Missing);
    }

    #[test]
    fn names_are_unique() {
        let findings = full(&good());
        let names: std::collections::HashSet<_> = findings.iter().map(|finding| &finding.name).collect();
        assert_eq!(names.len(), findings.len());
    }

    #[test]
    fn the_setting_at_fault_is_named() {
        let mut facts = good();
        facts.root = false;
        facts.namespaces = Trial::Refused(libc::EPERM);
        facts.userns_clone = Some(0);
        assert!(named(&full(&facts), "namespaces").remedy.contains("unprivileged_userns_clone=1"));
        facts.userns_clone = Some(1);
        facts.max_user_namespaces = Some(0);
        assert!(named(&full(&facts), "namespaces").remedy.contains("max_user_namespaces"));
        facts.namespaces = Trial::NoRights;
        facts.apparmor_restricts = Some(1);
        assert!(named(&full(&facts), "namespaces").remedy.contains("apparmor_restrict"));
    }

    #[test]
    fn what_was_not_asked_for_cannot_be_missing() {
        let mut facts = good();
        facts.root = false;
        facts.administrator = false;
        if let Some(cgroups) = &mut facts.cgroups {
            cgroups.controllers[0].1 = false;
        }
        let status = |isolation, tmp, name| named(&judge(&facts, isolation, tmp), name).status;
        assert_eq!(status(Isolation::Full, TmpKind::Disk, "cgroup memory"), Status::Missing);
        assert_eq!(status(Isolation::NoCgroups, TmpKind::Disk, "cgroup memory"), Status::Degraded);
        assert_eq!(status(Isolation::Full, TmpKind::Disk, "disk-backed /tmp"), Status::Missing);
        assert_eq!(status(Isolation::Full, TmpKind::Memory, "disk-backed /tmp"), Status::Degraded);
        assert_eq!(status(Isolation::Full, TmpKind::Memory, "privileges"), Status::Degraded);
    }
}
