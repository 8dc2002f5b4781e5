//! Which cgroup hierarchies this machine has, and where.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The three ways in which distributions mount cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hierarchy {
    /// Every controller in a version 1 tree, and no version 2 tree at all.
    V1,
    /// Controllers in version 1 trees, none of which freezes; a version 2 tree without them that freezes, kills and counts.
    Hybrid,
    /// One version 2 tree.
    V2,
}

impl fmt::Display for Hierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::V2 => "v2",
        })
    }
}

/// What a place in a tree is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    Memory,
    Cpu,
    Cpuacct,
    Pids,
    Freezer,
    /// The version 2 tree itself: freezing, killing, cpu time.
    Unified,
}

impl Controller {
    /// The kernel's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Pids => "pids",
            Self::Freezer => "freezer",
            Self::Unified => "cgroup2",
        }
    }
}

/// Without these, limits cannot be kept.
pub(crate) const NEEDED: [Controller; 3] = [Controller::Memory, Controller::Cpu, Controller::Pids];

/// Where each controller's tree is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) hierarchy: Hierarchy,
    places: Vec<(Controller, PathBuf)>,
}

/// A machine whose cgroups do not suffice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("no cgroup file system is mounted")]
    NotMounted,
    #[error("the {} controller is not available", .0.name())]
    Missing(Controller),
}

impl Layout {
    /// Reads a `/proc/self/mountinfo` text, and `cgroup.controllers` of the version 2 tree.
    pub(crate) fn find(mountinfo: &str) -> Result<Self, Problem> {
        let found = Self::find_any(mountinfo)?;
        let missing = NEEDED.into_iter().find(|controller| found.place(*controller).is_none());
        match missing {
            Some(controller) => Err(Problem::Missing(controller)),
            None if found.hierarchy == Hierarchy::V1 && found.place(Controller::Freezer).is_none() => {
                Err(Problem::Missing(Controller::Freezer))
            }
            None => Ok(found),
        }
    }

    /// The same, whatever is missing.
    pub(crate) fn find_any(mountinfo: &str) -> Result<Self, Problem> {
        let mut places = Vec::new();
        let mut unified = None;
        for mount in mountinfo.lines().filter_map(parse) {
            match mount.kind {
                "cgroup2" if unified.is_none() => unified = Some(mount.point),
                "cgroup" => {
                    for controller in [
                        Controller::Memory,
                        Controller::Cpu,
                        Controller::Cpuacct,
                        Controller::Pids,
                        Controller::Freezer,
                    ] {
                        let has = mount.options.split(',').any(|option| option == controller.name());
                        if has && !places.iter().any(|(known, _)| *known == controller) {
                            places.push((controller, mount.point.clone()));
                        }
                    }
                }
                _ => {}
            }
        }
        if places.iter().any(|(controller, _)| *controller == Controller::Freezer) {
            // A copy of a process can move itself between version 1 groups for microseconds, but into a version 2 group only
            // behind a lock that makes the kernel wait for all cpus.
            unified = None;
        }
        let hierarchy = match (&unified, places.is_empty()) {
            (None, true) => return Err(Problem::NotMounted),
            (None, false) => Hierarchy::V1,
            (Some(_), false) => Hierarchy::Hybrid,
            (Some(_), true) => Hierarchy::V2,
        };
        if hierarchy == Hierarchy::Hybrid {
            // The rest is better done by the version 2 tree, and every tree costs each sandbox a directory and a move.
            places.retain(|(controller, _)| NEEDED.contains(controller));
        }
        if let Some(root) = unified {
            if hierarchy == Hierarchy::V2 {
                let listed = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
                let offered =
                    |controller: &Controller| listed.split_whitespace().any(|c| c == controller.name());
                places
                    .extend(NEEDED.into_iter().filter(offered).map(|controller| (controller, root.clone())));
            }
            places.push((Controller::Unified, root));
        }
        Ok(Self { hierarchy, places })
    }

    /// The mount point of a controller's tree.
    pub(crate) fn place(&self, controller: Controller) -> Option<&Path> {
        self.places.iter().find(|(known, _)| *known == controller).map(|(_, path)| path.as_path())
    }

    /// Every controller with its tree.
    pub(crate) fn places(&self) -> &[(Controller, PathBuf)] {
        &self.places
    }

    /// The same layout further down in the version 2 tree: `own` is this process' group there.
    pub(crate) fn below(&self, own: &str) -> Self {
        let mut below = self.clone();
        if self.hierarchy == Hierarchy::V2 {
            for (_, path) in &mut below.places {
                path.push(own.trim_start_matches('/'));
            }
        }
        below
    }
}

struct Mount<'a> {
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

/// One line: `id parent dev root POINT options fields... - KIND source OPTIONS`. `None` for anything else.
fn parse(line: &str) -> Option<Mount<'_>> {
    let (left, right) = line.split_once(" - ")?;
    let point = left.split(' ').nth(4)?;
    let mut right = right.split(' ');
    let kind = right.next()?;
    let options = right.nth(1)?;
    Some(Mount { point: PathBuf::from(unescape(point)), kind, options })
}

/// The kernel writes blanks and backslashes in paths as `\` and three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once('\\') {
        plain.push_str(head);
        let code = tail.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                plain.push(char::from(code));
                rest = &tail[3..];
            }
            _ => {
                plain.push('\\');
                rest = tail;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// This process' group in the version 2 tree, from a `/proc/self/cgroup` text.
pub(crate) fn own_group(proc_self_cgroup: &str) -> Option<&str> {
    proc_self_cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cgroup::tree::tests::scratch;

    const V1: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
";

    #[test]
    fn version_1_trees_are_told_by_their_options() {
        let layout = Layout::find(V1).expect("complete");
        assert_eq!(layout.hierarchy, Hierarchy::V1);
        assert_eq!(layout.place(Controller::Memory), Some(Path::new("/sys/fs/cgroup/memory")));
        assert_eq!(layout.place(Controller::Cpu), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(layout.place(Controller::Unified), None);
    }

    #[test]
    fn a_version_2_tree_beside_them_is_used_only_where_they_cannot_freeze() {
        let both = format!("{V1}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        assert_eq!(Layout::find(&both), Layout::find(V1));
        let without: Vec<_> = both.lines().filter(|line| !line.contains("freezer")).collect();
        let layout = Layout::find(&without.join("\n")).expect("complete");
        assert_eq!(layout.hierarchy, Hierarchy::Hybrid);
        assert_eq!(layout.place(Controller::Unified), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(layout.place(Controller::Pids), Some(Path::new("/sys/fs/cgroup/pids")));
    }

    #[test]
    fn a_lone_version_2_tree_says_itself_what_it_offers() {
        let root = scratch("layout-v2");
        let text = format!("30 24 0:26 / {} rw - cgroup2 cgroup2 rw,nsdelegate\n", root.display());
        fs::write(root.join("cgroup.controllers"), "cpuset cpu io memory pids\n").expect("write");
        let layout = Layout::find(&text).expect("complete");
        assert_eq!(layout.hierarchy, Hierarchy::V2);
        assert_eq!(layout.place(Controller::Memory), Some(root.as_path()));
        assert_eq!(
            layout.below("/user.slice/x").place(Controller::Cpu),
            Some(root.join("user.slice/x").as_path())
        );
        fs::write(root.join("cgroup.controllers"), "memory pids\n").expect("write");
        assert_eq!(Layout::find(&text), Err(Problem::Missing(Controller::Cpu)));
    }

    #[test]
    fn what_is_missing_is_named() {
        let without =
            |name: &str| V1.lines().filter(|line| !line.contains(name)).collect::<Vec<_>>().join("\n");
        assert_eq!(Layout::find(&without("memory")), Err(Problem::Missing(Controller::Memory)));
        assert_eq!(Layout::find(&without("freezer")), Err(Problem::Missing(Controller::Freezer)));
        assert_eq!(Layout::find("27 1 254:0 / / rw - ext4 /dev/vda rw\n"), Err(Problem::NotMounted));
    }

    #[test]
    fn escaped_mount_points_are_read() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/a\9"), r"/a\9");
    }

    #[test]
    fn the_own_group_is_the_line_of_hierarchy_zero() {
        assert_eq!(own_group("8:pids:/x\n0::/user.slice/a\n"), Some("/user.slice/a"));
        assert_eq!(own_group("8:pids:/x\n"), None);
    }

    proptest! {
        #[test]
        fn no_mount_table_makes_it_panic(text in "\\PC*") {
            let _ = Layout::find_any(&text);
            let _ = unescape(&text);
        }

        #[test]
        fn no_line_makes_it_panic(text in "[0-9 /\\\\a-z:-]{0,80} - cgroup2? [a-z ]{0,9} [a-z,]{0,20}") {
            let _ = Layout::find_any(&text);
        }
    }
}
