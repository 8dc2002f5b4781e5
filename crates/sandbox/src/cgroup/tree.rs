//! The subtree of one launcher: `martlet-<instance>` in every tree of the layout, one group below it for each sandbox.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cgroup::group::{Group, Renewal, distinct, write};
use crate::cgroup::layout::{Controller, Hierarchy, Layout, NEEDED};
use crate::error::Fault;

#[derive(Debug)]
pub(crate) struct Tree {
    hierarchy: Hierarchy,
    /// The instance's directory for each controller.
    places: Vec<(Controller, PathBuf)>,
    /// Groups of shells that have ended, by their template, to be used again below it: making and removing one costs half a
    /// millisecond. Never below another template: one that is hostile keeps the doors that it was handed.
    kept: HashMap<u64, Vec<Group>>,
}

/// As many are kept for one template.
const KEPT: usize = 32;

/// Processes that were told to die may take this long.
const DEATH_WITHIN: Duration = Duration::from_secs(10);

/// A tree could not be made; names the path at fault.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub(crate) struct TreeError {
    path: String,
    problem: io::Error,
}

trait On<T> {
    fn on(self, path: &Path) -> Result<T, TreeError>;
}

impl<T> On<T> for io::Result<T> {
    fn on(self, path: &Path) -> Result<T, TreeError> {
        self.map_err(|problem| TreeError { path: path.display().to_string(), problem })
    }
}

impl Tree {
    /// Makes the subtree of `instance`, after ending and removing whatever a killed launcher of that name left in it.
    /// Returns also how many sandboxes were left.
    ///
    /// `us` are processes that may be moved out of the way: version 2 allows no group that has both processes and
    /// controlled children.
    pub(crate) fn make(layout: &Layout, instance: &str, us: &[u32]) -> Result<(Self, usize), TreeError> {
        let name = format!("martlet-{instance}");
        let place = |(controller, base): &(Controller, PathBuf)| (*controller, base.join(&name));
        let tree = Self {
            hierarchy: layout.hierarchy,
            places: layout.places().iter().map(place).collect(),
            kept: HashMap::new(),
        };
        let leftovers = tree.clear()?;
        for directory in tree.directories() {
            match fs::create_dir(directory) {
                // One that was made for us beforehand, or could not be removed for want of rights on its parent.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.on(directory)?,
            }
        }
        if layout.hierarchy == Hierarchy::V2
            && let (Some(base), Some(own)) =
                (layout.place(Controller::Unified), tree.place(Controller::Unified))
        {
            hand_down(base, &base.join(format!("{name}-server")), us)?;
            hand_down(own, own, &[])?;
        }
        Ok((tree, leftovers))
    }

    /// Makes the group of one sandbox.
    pub(crate) fn group(&self, id: u64) -> Result<Group, Fault> {
        Group::create(self.hierarchy, &self.places, &id.to_string(), None)
    }

    /// The same for a shell below `template`: one that another shell had, or a new one.
    pub(crate) fn group_below(&mut self, template: u64, id: u64) -> Result<Group, Fault> {
        match self.kept.entry(template).or_default().pop() {
            Some(group) => Ok(group),
            None => Group::create(self.hierarchy, &self.places, &id.to_string(), Some(template)),
        }
    }

    /// Keeps the group of a sandbox that has ended for another one, or removes it. Returns it while it is busy: then this
    /// should be called again.
    pub(crate) fn let_go(&mut self, group: Group) -> Option<Group> {
        let kept =
            group.kin.and_then(|template| self.kept.get_mut(&template)).filter(|kept| kept.len() < KEPT);
        if let Some(kept) = kept {
            match group.renew() {
                Renewal::AsNew => {
                    kept.push(group);
                    return None;
                }
                Renewal::Busy => return Some(group),
                Renewal::Spent => {}
            }
        }
        group.remove().is_err().then_some(group)
    }

    /// What was kept for a template that has ended; to be let go of.
    pub(crate) fn disband(&mut self, template: u64) -> Vec<Group> {
        self.kept.remove(&template).unwrap_or_default()
    }

    /// Ends and removes everything in the subtree, and the subtree itself. Returns how many groups still held processes.
    pub(crate) fn clear(&self) -> Result<usize, TreeError> {
        let deadline = Instant::now() + DEATH_WITHIN;
        let mut inhabited = BTreeSet::new();
        for child in self.directories().into_iter().flat_map(children) {
            // What version 1 has frozen does not die, in whichever tree it is found; other trees have no such file.
            let _ = write(&child.join("freezer.state"), "THAWED");
        }
        for directory in self.directories() {
            for child in children(directory) {
                if end_processes(&child, deadline).on(&child)? {
                    inhabited.insert(child.file_name().map(ToOwned::to_owned));
                }
            }
        }
        for directory in self.directories() {
            for child in children(directory) {
                remove_when_free(&child, deadline).on(&child)?;
            }
            // The instance's own directory holds no process, but may belong to whoever made it for us.
            let _ = fs::remove_dir(directory);
        }
        Ok(inhabited.len())
    }

    fn place(&self, controller: Controller) -> Option<&Path> {
        self.places.iter().find(|(known, _)| *known == controller).map(|(_, path)| path.as_path())
    }

    fn directories(&self) -> Vec<&Path> {
        distinct(&self.places)
    }
}

/// Lets the children of a version 2 group have limits. Where processes stand in the way, `us` are moved to `aside`.
fn hand_down(directory: &Path, aside: &Path, us: &[u32]) -> Result<(), TreeError> {
    let file = directory.join("cgroup.subtree_control");
    let wanted = NEEDED.map(|controller| format!("+{}", controller.name())).join(" ");
    match write(&file, &wanted) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) && !us.is_empty() => {
            match fs::create_dir(aside) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.on(aside)?,
            }
            for pid in us {
                let procs = aside.join("cgroup.procs");
                write(&procs, &pid.to_string()).on(&procs)?;
            }
            write(&file, &wanted).on(&file)
        }
        other => other.on(&file),
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Kills every process in a group and waits for the ends. False where there was none.
fn end_processes(group: &Path, deadline: Instant) -> io::Result<bool> {
    let mut any = false;
    loop {
        let processes = processes(group)?;
        if processes.is_empty() {
            return Ok(any);
        }
        any = true;
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for process in &processes {
            // Gone already is as good.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        for process in &processes {
            let mut fds = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
            let left = deadline.saturating_duration_since(Instant::now());
            let _ = poll(&mut fds, left.try_into().ok().as_ref());
        }
    }
}

/// Handles of all processes in a group; those are safe against a number being used again.
fn processes(group: &Path) -> io::Result<Vec<OwnedFd>> {
    let listed = match fs::read_to_string(group.join("cgroup.procs")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let pids = listed.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
    Ok(pids.filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).collect())
}

/// A group stays busy for moments after its last process has ended; only runs when a launcher starts or ends.
fn remove_when_free(group: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cgroup::tables::Limits;
    use crate::wire::Control;

    const LIMITS: Limits = Limits { memory: 64 << 20, cpu_millis: 500, pids: 33 };

    /// An empty directory for one test.
    pub(crate) fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("martlet-cgroup-test-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("scratch directory");
        path
    }

    /// Puts files there as the kernel does in a new group.
    fn populate(directory: &Path, files: &[&str]) {
        for file in files {
            fs::write(directory.join(file), "").expect("control file");
        }
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).expect("control file")
    }

    fn version_1(root: &Path) -> String {
        let mut text = String::new();
        for controller in ["memory", "cpu", "cpuacct", "pids", "freezer"] {
            let mount = root.join(controller);
            fs::create_dir_all(&mount).expect("mount point");
            text += &format!("1 1 0:1 / {} rw - cgroup cgroup rw,{controller}\n", mount.display());
        }
        text
    }

    #[test]
    fn version_1_limits_go_to_their_own_trees() {
        let root = scratch("v1");
        let layout = Layout::find(&version_1(&root)).expect("layout");
        let (tree, leftovers) = Tree::make(&layout, "t", &[]).expect("tree");
        assert_eq!(leftovers, 0);
        let group = tree.group(7).expect("group");
        let at = |controller: &str| root.join(controller).join("martlet-t/7");
        populate(&at("memory"), &["memory.limit_in_bytes", "tasks", "memory.oom_control"]);
        populate(&at("cpu"), &["cpu.cfs_period_us", "cpu.cfs_quota_us", "tasks"]);
        populate(&at("cpuacct"), &["cpuacct.usage", "tasks"]);
        populate(&at("pids"), &["pids.max", "tasks"]);
        populate(&at("freezer"), &["freezer.state", "tasks"]);
        group.limit(&LIMITS).expect("limits");
        assert_eq!(group.doors().expect("doors").len(), 5);
        assert_eq!(read(at("memory").join("memory.limit_in_bytes")), (64 << 20).to_string());
        assert_eq!(read(at("cpu").join("cpu.cfs_quota_us")), "50000");
        assert_eq!(read(at("pids").join("pids.max")), "33");
        let controls: Vec<_> = group.controls().into_iter().map(|(control, _)| control).collect();
        assert_eq!(
            controls,
            [Control::FreezerState, Control::CfsQuota, Control::CpuacctUsage, Control::OomKills]
        );
        group.kill();
        assert_eq!(read(at("freezer").join("freezer.state")), "THAWED");
    }

    #[test]
    fn hybrid_limits_in_version_1_and_freezes_and_kills_in_version_2() {
        let root = scratch("hybrid");
        let unified = root.join("unified");
        fs::create_dir_all(&unified).expect("mount point");
        let text = version_1(&root) + &format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", unified.display());
        let text: Vec<_> = text.lines().filter(|line| !line.contains("freezer")).collect();
        let layout = Layout::find(&text.join("\n")).expect("layout");
        let (tree, _) = Tree::make(&layout, "t", &[]).expect("tree");
        let group = tree.group(1).expect("group");
        assert!(group.cradle().is_some());
        let own = unified.join("martlet-t/1");
        populate(&own, &["cgroup.freeze", "cgroup.kill", "cpu.stat"]);
        for controller in ["memory", "cpu", "pids"] {
            populate(&root.join(controller).join("martlet-t/1"), &["tasks"]);
        }
        populate(&root.join("memory/martlet-t/1"), &["memory.limit_in_bytes"]);
        populate(&root.join("cpu/martlet-t/1"), &["cpu.cfs_period_us", "cpu.cfs_quota_us"]);
        populate(&root.join("pids/martlet-t/1"), &["pids.max"]);
        group.limit(&LIMITS).expect("limits");
        assert_eq!(group.doors().expect("doors").len(), 3, "born in version 2, so no door leads there");
        let controls: Vec<_> = group.controls().into_iter().map(|(control, _)| control).collect();
        assert_eq!(controls, [Control::CgroupFreeze, Control::CfsQuota, Control::CpuStat]);
        group.kill();
        assert_eq!(read(own.join("cgroup.kill")), "1");
    }

    #[test]
    fn version_2_hands_controllers_down_and_limits_in_one_place() {
        let root = scratch("v2");
        populate(&root, &["cgroup.subtree_control"]);
        fs::write(root.join("cgroup.controllers"), "cpu memory pids").expect("controllers");
        let text = format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", root.display());
        let layout = Layout::find(&text).expect("layout");
        // The instance's directory is there beforehand, as the kernel would have filled it.
        let own = root.join("martlet-t");
        fs::create_dir(&own).expect("instance");
        populate(&own, &["cgroup.subtree_control"]);
        let (tree, _) = Tree::make(&layout, "t", &[]).expect("tree");
        assert_eq!(read(root.join("cgroup.subtree_control")), "+memory +cpu +pids");
        assert_eq!(read(own.join("cgroup.subtree_control")), "+memory +cpu +pids");
        let group = tree.group(3).expect("group");
        let place = own.join("3");
        populate(&place, &["memory.max", "memory.swap.max", "cpu.max", "pids.max"]);
        group.limit(&LIMITS).expect("limits");
        assert!(group.doors().expect("doors").is_empty());
        assert_eq!(read(place.join("memory.max")), (64 << 20).to_string());
        assert_eq!(read(place.join("memory.swap.max")), "0");
        assert_eq!(read(place.join("cpu.max")), "50000 100000");
        assert_eq!(read(place.join("pids.max")), "33");
    }

    /// The files that a group is made new by, as the kernel fills them.
    fn with_numbers(root: &Path, name: &str, memory: &str, kills: &str, pids: &str) {
        let at = |controller: &str| root.join(controller).join("martlet-t").join(name);
        for (controller, file, value) in [
            ("pids", "pids.current", pids),
            ("pids", "pids.max", ""),
            ("memory", "memory.oom_control", &format!("oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")),
            ("memory", "memory.usage_in_bytes", memory),
            ("memory", "memory.max_usage_in_bytes", "7"),
            ("memory", "memory.limit_in_bytes", ""),
            ("cpuacct", "cpuacct.usage", "9"),
            ("cpu", "cpu.cfs_period_us", ""),
            ("cpu", "cpu.cfs_quota_us", ""),
            ("freezer", "freezer.state", "FROZEN"),
        ] {
            fs::write(at(controller).join(file), value).expect("control file");
        }
    }

    #[test]
    fn a_group_goes_from_shell_to_shell_of_one_template_with_its_numbers_set_back() {
        let root = scratch("kept");
        let layout = Layout::find(&version_1(&root)).expect("layout");
        let (mut tree, _) = Tree::make(&layout, "t", &[]).expect("tree");
        let at = |path: &str| root.join(path.replace('/', "/martlet-t/1/"));
        let group = tree.group_below(100, 1).expect("group");
        with_numbers(&root, "1", "4096\n", "0", "1\n");
        group.limit(&LIMITS).expect("limits");
        let group = tree.let_go(group).expect("somebody is still in it");
        with_numbers(&root, "1", "4096\n", "0", "0\n");
        fs::write(at("cpu/cpu.cfs_quota_us"), "1").expect("the server's change");
        assert!(tree.let_go(group).is_none());
        assert_eq!(read(at("memory/memory.max_usage_in_bytes")), "0");
        assert_eq!(read(at("cpuacct/cpuacct.usage")), "0");
        assert_eq!(read(at("freezer/freezer.state")), "THAWED");
        let other = tree.group_below(200, 2).expect("group");
        assert!(root.join("memory/martlet-t/2").exists(), "another template gets a new one");
        let again = tree.group_below(100, 3).expect("group");
        assert!(!root.join("memory/martlet-t/3").exists(), "this one gets that one");
        fs::write(at("memory/memory.limit_in_bytes"), "untouched").expect("write");
        again.limit(&LIMITS).expect("limits");
        assert_eq!(read(at("cpu/cpu.cfs_quota_us")), "50000");
        assert_eq!(read(at("memory/memory.limit_in_bytes")), "untouched", "it was in force");
        drop(other);
    }

    #[test]
    fn a_group_with_a_past_is_not_kept_and_none_is_without_its_template() {
        let root = scratch("spent");
        let layout = Layout::find(&version_1(&root)).expect("layout");
        let (mut tree, _) = Tree::make(&layout, "t", &[]).expect("tree");
        for (id, memory, kills) in [(1, "99999999", "0"), (2, "0", "1")] {
            let group = tree.group_below(100, id).expect("group");
            with_numbers(&root, &id.to_string(), memory, kills, "0");
            // Real ones can be removed with their files in them.
            assert!(tree.let_go(group).is_some(), "it was not kept, and these are no real files");
        }
        let group = tree.group_below(100, 3).expect("group");
        assert!(tree.disband(100).is_empty());
        assert!(tree.let_go(group).is_none());
        assert!(!root.join("memory/martlet-t/3").exists());
    }

    #[test]
    fn a_limit_that_cannot_be_written_fails_by_name() {
        let root = scratch("unwritable");
        let layout = Layout::find(&version_1(&root)).expect("layout");
        let (tree, _) = Tree::make(&layout, "t", &[]).expect("tree");
        let group = tree.group(1).expect("group");
        match group.limit(&LIMITS) {
            Err(Fault::Step { noun, .. }) => assert!(noun.contains("memory.limit_in_bytes"), "{noun}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn directories_of_a_predecessor_are_removed() {
        let root = scratch("predecessor");
        let layout = Layout::find(&version_1(&root)).expect("layout");
        let (tree, _) = Tree::make(&layout, "t", &[]).expect("tree");
        tree.group(1).expect("group");
        tree.group(2).expect("group");
        let (again, leftovers) = Tree::make(&layout, "t", &[]).expect("tree");
        assert_eq!(leftovers, 0, "they were empty");
        assert!(children(&root.join("memory/martlet-t")).is_empty());
        again.clear().expect("clear");
        assert!(!root.join("memory/martlet-t").exists());
    }
}
