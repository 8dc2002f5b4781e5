//! The group of one sandbox.

use std::cell::Cell;
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
    /// The template below which its sandboxes live, if they do.
    pub(super) kin: Option<u64>,
    /// What was written last.
    limits: Cell<Option<Limits>>,
}

/// Whether a group can be used again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    AsNew,
    /// Somebody is still in it.
    Busy,
    /// It would tell the next one's story wrongly.
    Spent,
}

/// What may still be counted in a group that is used again: pages that cpus hold ready for it, small remains in the kernel.
const RESIDUE_BYTES: u64 = 1 << 20;

/// Those that are dying are still listed for a moment.
const KILL_ROUNDS: usize = 16;

impl Group {
    /// Makes the directories below those of `parents`. What was made is removed again when one fails.
    pub(super) fn create(
        hierarchy: Hierarchy,
        parents: &[(Controller, PathBuf)],
        name: &str,
        kin: Option<u64>,
    ) -> Result<Self, Fault> {
        let places = parents.iter().map(|(controller, parent)| (*controller, parent.join(name))).collect();
        let mut group = Self { hierarchy, places, cradle: None, kin, limits: Cell::new(None) };
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

    /// Writes the limits; of those that are in force already only what the server changes in between.
    pub(crate) fn limit(&self, limits: &Limits) -> Result<(), Fault> {
        let in_force = self.limits.replace(None) == Some(*limits);
        for setting in tables::settings(self.hierarchy, limits) {
            if in_force && !tables::changes(&setting) {
                continue;
            }
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
        self.limits.set(Some(*limits));
        Ok(())
    }

    /// Makes a group that was used as good as new. Only version 1 lets its numbers be set back.
    pub(super) fn renew(&self) -> Renewal {
        match self.try_renew() {
            Ok(renewal) => renewal,
            Err(_) => Renewal::Spent,
        }
    }

    fn try_renew(&self) -> io::Result<Renewal> {
        if self.hierarchy != Hierarchy::V1 {
            return Ok(Renewal::Spent);
        }
        if self.number(Controller::Pids, "pids.current")? != 0 {
            return Ok(Renewal::Busy);
        }
        // Neither the count of kills nor memory that is still charged can be set back.
        let kills = self.read(Controller::Memory, "memory.oom_control")?;
        let killed =
            kills.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"));
        if killed || self.number(Controller::Memory, "memory.usage_in_bytes")? > RESIDUE_BYTES {
            return Ok(Renewal::Spent);
        }
        self.write(Controller::Memory, "memory.max_usage_in_bytes", "0")?;
        self.write(Controller::Cpuacct, "cpuacct.usage", "0")?;
        // A freeze may have come when nobody was left in it.
        self.write(Controller::Freezer, "freezer.state", "THAWED")?;
        Ok(Renewal::AsNew)
    }

    fn number(&self, controller: Controller, file: &str) -> io::Result<u64> {
        self.read(controller, file)?.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn read(&self, controller: Controller, file: &str) -> io::Result<String> {
        fs::read_to_string(self.place(controller).ok_or(io::ErrorKind::NotFound)?.join(file))
    }

    fn write(&self, controller: Controller, file: &str, value: &str) -> io::Result<()> {
        write(&self.place(controller).ok_or(io::ErrorKind::NotFound)?.join(file), value)
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
