//! The main process and its companions: from the fork to the program.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Resource;

use crate::child::{Task, jail};
use crate::error::{At, Fault, Step};
use crate::spec::{Companion, SandboxSpec};
use crate::sys;

/// The main process, running its program.
#[derive(Clone, Copy)]
pub(super) struct Main {
    pub(super) pid: i32,
}

impl Main {
    /// The copy that enters a shell: pid 2 is the helper that creates it, in this namespace so that it is adopted by its
    /// pid 1. A template that does otherwise only blurs how its own copy ends.
    pub(super) const FIRST_COPY: Self = Self { pid: 3 };
}

/// A program, and what it starts with.
pub(super) struct Recipe<'a> {
    pub(super) argv: &'a [String],
    pub(super) env: &'a [(String, String)],
    pub(super) cwd: &'a str,
    pub(super) open_files: u64,
    /// With their numbers in it.
    pub(super) fds: Vec<(&'a OwnedFd, RawFd)>,
}

impl Task {
    /// The main program.
    pub(super) fn main(&self) -> Recipe<'_> {
        let SandboxSpec { argv, env, cwd, open_files, companions, .. } = &self.spec;
        let outputs: Vec<_> = companions.iter().flatten().map(|companion| companion.output).collect();
        let fds = self.fds.iter().filter(|(_, number)| !outputs.contains(number));
        let fds = fds.map(|(fd, number)| (fd, *number)).collect();
        Recipe { argv, env, cwd, open_files: *open_files, fds }
    }

    /// A program beside it.
    pub(super) fn companion<'a>(&'a self, companion: &'a Companion) -> Recipe<'a> {
        let Companion { argv, env, cwd, output } = companion;
        let output = self.fds.iter().find(|(_, number)| number == output).map(|(fd, _)| fd);
        let fds = output.into_iter().flat_map(|output| [(output, 1), (output, 2)]).collect();
        Recipe { argv, env, cwd, open_files: self.spec.open_files, fds }
    }
}

/// Forks a process and waits until it has executed its program, or returns what kept it from that.
pub(super) fn spawn(recipe: &Recipe<'_>) -> Result<Main, Fault> {
    let (told, low) = pipe_with(PipeFlags::CLOEXEC).at(Step::Fork, "pipe")?;
    // Out of the way of every number that descriptors are moved to.
    let tell = lift(recipe, &low).at(Step::Fork, "pipe")?;
    drop(low);
    let Some(pid) = sys::fork().at(Step::Fork, "main process")? else {
        let Err(fault) = execute(recipe);
        // Shorter than a pipe, so written whole; should pid 1 be gone, this process is going too.
        let _ = rustix::io::write(&tell, &serde_json::to_vec(&fault).unwrap_or_default());
        sys::exit_now(1)
    };
    drop(tell);
    // The write side closes at exec; a fault comes before.
    let mut text = Vec::new();
    std::fs::File::from(told).read_to_end(&mut text).at(Step::Exec, &recipe.argv[0])?;
    if text.is_empty() {
        return Ok(Main { pid });
    }
    let unreadable = |_| Fault::step(Step::Exec, &recipe.argv[0], &io::ErrorKind::InvalidData.into());
    Err(serde_json::from_slice(&text).unwrap_or_else(unreadable))
}

fn execute(recipe: &Recipe<'_>) -> Result<std::convert::Infallible, Fault> {
    // Fails only for a process that leads a session already, which is as good.
    let _ = rustix::process::setsid();
    sys::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::chdir(recipe.cwd).at(Step::WorkingDirectory, recipe.cwd)?;
    let (program, argv, env) = strings(recipe).at(Step::Exec, &recipe.argv[0])?;
    arrange_descriptors(recipe)?;
    // Last, since the arranging needs numbers above those that the program may use.
    jail::limit(Resource::Nofile, recipe.open_files).at(Step::ResourceLimit, "nofile")?;
    Err(sys::exec(&program, &argv, &env)).at(Step::Exec, &recipe.argv[0])
}

type Strings = (CString, Vec<CString>, Vec<CString>);

fn strings(recipe: &Recipe<'_>) -> io::Result<Strings> {
    let text = |text: String| CString::new(text).map_err(io::Error::from);
    let argv = recipe.argv.iter().cloned().map(text).collect::<io::Result<Vec<_>>>()?;
    let env = recipe.env.iter().map(|(name, value)| text(format!("{name}={value}")));
    let program = argv.first().cloned().ok_or(io::ErrorKind::InvalidInput)?;
    Ok((program, argv, env.collect::<io::Result<_>>()?))
}

/// Puts every descriptor at its number, `/dev/null` at 0 to 2 where nothing else was given, and marks all others to be
/// closed at exec.
fn arrange_descriptors(recipe: &Recipe<'_>) -> Result<(), Fault> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .and_then(|fd| lift(recipe, &fd))
        .at(Step::Descriptors, "/dev/null")?;
    // First away from all the places that are to be taken, then down to them.
    let mut lifted: Vec<(OwnedFd, RawFd)> = Vec::new();
    for (fd, number) in &recipe.fds {
        lifted.push((lift(recipe, fd).at(Step::Descriptors, number.to_string())?, *number));
    }
    sys::close_range(0, u32::MAX, true).at(Step::Descriptors, "close-on-exec")?;
    for number in 0..3 {
        sys::place_descriptor(&null, number).at(Step::Descriptors, number.to_string())?;
    }
    for (fd, number) in &lifted {
        sys::place_descriptor(fd, *number).at(Step::Descriptors, number.to_string())?;
    }
    Ok(())
}

/// A copy of `fd` above every number that the program is to be given.
fn lift(recipe: &Recipe<'_>, fd: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let above = recipe.fds.iter().map(|(_, number)| *number + 1).max().unwrap_or(0).max(3);
    rustix::io::fcntl_dupfd_cloexec(fd, above)
}
