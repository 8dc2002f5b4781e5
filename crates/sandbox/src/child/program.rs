//! The main process: from the fork to the program.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Resource;

use crate::child::{Task, jail};
use crate::error::{At, Fault, Step};
use crate::spec::SandboxSpec;
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

/// Forks the main process and waits until it has executed its program, or returns what kept it from that.
pub(super) fn spawn(task: &Task) -> Result<Main, Fault> {
    let (told, low) = pipe_with(PipeFlags::CLOEXEC).at(Step::Fork, "pipe")?;
    // Out of the way of every number that descriptors are moved to.
    let tell = lift(task, &low).at(Step::Fork, "pipe")?;
    drop(low);
    let Some(pid) = sys::fork().at(Step::Fork, "main process")? else {
        let Err(fault) = execute(task);
        // Shorter than a pipe, so written whole; should pid 1 be gone, this process is going too.
        let _ = rustix::io::write(&tell, &serde_json::to_vec(&fault).unwrap_or_default());
        sys::exit_now(1)
    };
    drop(tell);
    // The write side closes at exec; a fault comes before.
    let mut text = Vec::new();
    std::fs::File::from(told).read_to_end(&mut text).at(Step::Exec, &task.spec.argv[0])?;
    if text.is_empty() {
        return Ok(Main { pid });
    }
    let unreadable = |_| Fault::step(Step::Exec, &task.spec.argv[0], &io::ErrorKind::InvalidData.into());
    Err(serde_json::from_slice(&text).unwrap_or_else(unreadable))
}

fn execute(task: &Task) -> Result<std::convert::Infallible, Fault> {
    let spec = &task.spec;
    // Fails only for a process that leads a session already, which is as good.
    let _ = rustix::process::setsid();
    sys::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::chdir(spec.cwd.as_str()).at(Step::WorkingDirectory, &spec.cwd)?;
    let (program, argv, env) = strings(spec).at(Step::Exec, &spec.argv[0])?;
    arrange_descriptors(task)?;
    // Last, since the arranging needs numbers above those that the program may use.
    jail::limit(Resource::Nofile, spec.open_files).at(Step::ResourceLimit, "nofile")?;
    Err(sys::exec(&program, &argv, &env)).at(Step::Exec, &spec.argv[0])
}

type Strings = (CString, Vec<CString>, Vec<CString>);

fn strings(spec: &SandboxSpec) -> io::Result<Strings> {
    let text = |text: String| CString::new(text).map_err(io::Error::from);
    let argv = spec.argv.iter().cloned().map(text).collect::<io::Result<Vec<_>>>()?;
    let env = spec.env.iter().map(|(name, value)| text(format!("{name}={value}")));
    let program = argv.first().cloned().ok_or(io::ErrorKind::InvalidInput)?;
    Ok((program, argv, env.collect::<io::Result<_>>()?))
}

/// Puts every descriptor at its number, `/dev/null` at 0 to 2 where nothing else was given, and marks all others to be
/// closed at exec.
fn arrange_descriptors(task: &Task) -> Result<(), Fault> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .and_then(|fd| lift(task, &fd))
        .at(Step::Descriptors, "/dev/null")?;
    // First away from all the places that are to be taken, then down to them.
    let mut lifted: Vec<(OwnedFd, RawFd)> = Vec::new();
    for (fd, number) in &task.fds {
        lifted.push((lift(task, fd).at(Step::Descriptors, number.to_string())?, *number));
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
fn lift(task: &Task, fd: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let above = task.fds.iter().map(|(_, number)| *number + 1).max().unwrap_or(0).max(3);
    rustix::io::fcntl_dupfd_cloexec(fd, above)
}
