//! The group of one sandbox.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};

use crate::cgroup::layout::{Controller, Hierarchy};
use crate::cgroup::tables::{self, Limits};
use crate::error::{At, Fault, Step};
use crate::wire::Control;

/// A directory in each tree of the layout.
#[derive(Debug)]
pub(crate) struct Group {
    hierarchy: Hierarchy,
    /// One for each controller; several controllers may share one.
    places: Vec<(Controller, PathBuf)>,
    /// The version 2 directory: a process can be born in it, which spares moving it.
    cradle: Option<OwnedFd>,
}

/// Those that are dying are still listed for a moment.
const KILL_ROUNDS: usize = 16;

impl Group {
    /// Makes the directories below those of `parents`. What was made is removed again when one fails.
    pub(super) fn create(
        hierarchy: Hierarchy,
        parents: &[(Controller, PathBuf)],
        name: &str,
    ) -> Result<Self, Fault> {
        let places = parents.iter().map(|(controller, parent)| (*controller, parent.join(name))).collect();
        let mut group = Self { hierarchy, places, cradle: None };
        for directory in group.directories() {
            if let Err(fault) = fs::create_dir(directory).at(Step::Cgroup, directory.to_string_lossy()) {
                let _ = group.remove();
                return Err(fault);
            }
        }
        if let Some(directory) = group.place(Controller::Unified) {
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(CWD, directory, flags, Mode::empty());
            group.cradle = Some(opened.at(Step::Cgroup, directory.to_string_lossy())?);
        }
        Ok(group)
    }

    /// Writes the limits.
    pub(crate) fn limit(&self, limits: &Limits) -> Result<(), Fault> {
        for setting in tables::settings(self.hierarchy, limits) {
            let Some(directory) = self.place(setting.controller) else { continue };
            match write(&directory.join(setting.file), &setting.value) {
                Err(error) if setting.required => {
                    return Err(Fault::step(
                        Step::Limit,
                        format!("{} = {}", setting.file, setting.value),
                        &error,
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where a process can be born.
    pub(crate) fn cradle(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.cradle.as_ref().map(AsFd::as_fd)
    }

    /// The doors of the other trees: a thread that writes `0` into each is in.
    ///
    /// The thread must do so itself. Moving another one, or a whole process, takes a lock that makes the kernel wait for
    /// all cpus, ten milliseconds and more.
    pub(crate) fn doors(&self) -> Result<Vec<OwnedFd>, Fault> {
        let cradle = self.cradle.as_ref().and(self.place(Controller::Unified));
        let others = self.directories().into_iter().filter(|directory| Some(*directory) != cradle);
        let open = |directory: &Path| {
            let tasks = directory.join("tasks");
            let opened = rustix::fs::openat(CWD, &tasks, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            opened.at(Step::Attach, tasks.to_string_lossy())
        };
        others.map(open).collect()
    }

    /// The doors for a copy of a process, which is born outside of any cradle: of all trees, version 2 among them. The whole
    /// process goes through that one, with the wait that [`Group::doors`] spares others; a kernel that is mounted with
    /// `favordynmods` has none.
    pub(crate) fn doors_for_copy(&self) -> Result<Vec<OwnedFd>, Fault> {
        let mut doors = self.doors()?;
        if let Some(directory) = self.cradle.as_ref().and(self.place(Controller::Unified)) {
            let procs = directory.join("cgroup.procs");
            let opened = rustix::fs::openat(CWD, &procs, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            doors.push(opened.at(Step::Attach, procs.to_string_lossy())?);
        }
        Ok(doors)
    }

    /// Opens the control files for the server. They stay usable as long as the group exists.
    pub(crate) fn controls(&self) -> Vec<(Control, OwnedFd)> {
        let open = |control: tables::ControlFile| {
            let path = self.place(control.controller)?.join(control.file);
            let access = if control.writable { OFlags::RDWR } else { OFlags::RDONLY };
            let fd = rustix::fs::openat(CWD, &path, access | OFlags::CLOEXEC, Mode::empty()).ok()?;
            Some((control.control, fd))
        };
        tables::controls(self.hierarchy).into_iter().filter_map(open).collect()
    }

    /// Makes a kill effective: thaws what version 1 has frozen, which would not die, and kills the whole group where the
    /// kernel can.
    pub(crate) fn kill(&self) {
        // Both may fail only for a group that is already empty or a kernel before 5.14; the caller kills pid 1 too.
        if let Some(directory) = self.place(Controller::Unified) {
            let _ = write(&directory.join("cgroup.kill"), "1");
        } else if let Some(directory) = self.place(Controller::Freezer) {
            let _ = write(&directory.join("freezer.state"), "THAWED");
        }
    }

    /// Kills every process in the group but `keep`, until none is listed or the rounds are over. Version 1 is frozen in each
    /// round, so that nothing is born between the look and the kill.
    pub(crate) fn kill_all_but(&self, keep: i32) {
        let freezer = self.place(Controller::Freezer).filter(|_| self.place(Controller::Unified).is_none());
        let Some(directory) = freezer.or_else(|| self.directories().into_iter().next()) else { return };
        let freeze = |word: &str| {
            if freezer.is_some() {
                // A group that has just become empty has nothing to freeze.
                let _ = write(&directory.join("freezer.state"), word);
            }
        };
        for _ in 0..KILL_ROUNDS {
            freeze("FROZEN");
            let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            let pids = listed.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != keep);
            let others: Vec<Pid> = pids.filter_map(Pid::from_raw).collect();
            for other in &others {
                // One that has just ended needs none.
                let _ = kill_process(*other, Signal::KILL);
            }
            freeze("THAWED");
            if others.is_empty() {
                return;
            }
        }
    }

    /// Removes the directories; an error (usually `EBUSY`) means that some is still in use and this should be called again.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for directory in self.directories() {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn place(&self, controller: Controller) -> Option<&Path> {
        self.places.iter().find(|(known, _)| *known == controller).map(|(_, path)| path.as_path())
    }

    fn directories(&self) -> Vec<&Path> {
        distinct(&self.places)
    }
}

/// The directories of several controllers, each once.
pub(super) fn distinct(places: &[(Controller, PathBuf)]) -> Vec<&Path> {
    let mut directories: Vec<&Path> = Vec::new();
    for (_, path) in places {
        if !directories.contains(&path.as_path()) {
            directories.push(path);
        }
    }
    directories
}

/// Writes a control file in one call, as the kernel wants it; never creates one.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}
