//! The handle of one sandbox: owned by one task; its drop ends the sandbox.

use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustix::io::{pread, pwrite};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use crate::server::connection::Outgoing;
use crate::server::reins::Reins;
use crate::wire::{Control, Ending, Part, Request};

/// How the main process of a sandbox ended. That the cause was memory is told by [`Usage::oom_kills`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It ended with this code.
    Code(i32),
    /// It was ended by this signal; also 9 where the whole sandbox was killed.
    Signal(i32),
}

impl ExitStatus {
    pub(super) fn from_wire(status: i32) -> Self {
        if status < 0 { Self::Signal(-status) } else { Self::Code(status) }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status: {code}"),
            Self::Signal(signal) => write!(f, "signal: {signal}"),
        }
    }
}

/// What a sandbox has used so far. Zero where the machine does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The most memory it held at once.
    pub memory_peak_bytes: u64,
    /// The memory it holds now.
    pub memory_bytes: u64,
    /// Cpu time of all its processes.
    pub cpu_micros: u64,
    /// Processes that the kernel killed because the memory limit was reached.
    pub oom_kills: u64,
}

/// Resolves when the last process of a sandbox is gone, with how its main process ended. Clones all resolve.
pub struct ExitWatch {
    ended: watch::Receiver<Option<ExitStatus>>,
    wait: Option<Pin<Box<dyn Future<Output = ExitStatus> + Send + Sync>>>,
}

impl Clone for ExitWatch {
    fn clone(&self) -> Self {
        Self { ended: self.ended.clone(), wait: None }
    }
}

impl fmt::Debug for ExitWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExitWatch").field("ended", &self.status()).finish()
    }
}

impl ExitWatch {
    /// How it ended, if it has; never waits.
    pub fn status(&self) -> Option<ExitStatus> {
        *self.ended.borrow()
    }
}

impl Future for ExitWatch {
    type Output = ExitStatus;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<ExitStatus> {
        let mut ended = self.ended.clone();
        let wait = self.wait.get_or_insert_with(|| {
            Box::pin(async move {
                let status = match ended.wait_for(Option::is_some).await {
                    Ok(status) => *status,
                    // The watching task went with its runtime; the launcher then kills every sandbox.
                    Err(_) => None,
                };
                status.unwrap_or(ExitStatus::Signal(libc::SIGKILL))
            })
        });
        wait.as_mut().poll(context)
    }
}

/// Of a shell: what a copy of its template needs to enter it.
#[derive(Debug, Default)]
pub(super) struct Entrance {
    pub(super) namespaces: Vec<OwnedFd>,
    pub(super) doors: Vec<OwnedFd>,
}

/// One sandbox. Dropping it kills everything inside and frees what it held.
pub struct Sandbox {
    id: u64,
    pid: i32,
    exit: ExitWatch,
    listener: Option<TcpListener>,
    reins: Option<Reins>,
    controls: Vec<(Control, OwnedFd)>,
    /// What only pid 1 can tell where there is no cgroup to ask; known from the end of the main process on.
    last_words: Arc<Mutex<Option<Ending>>>,
    to_launcher: mpsc::UnboundedSender<Outgoing>,
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("id", &self.id)
            .field("pid", &self.pid)
            .field("exit", &self.exit)
            .finish()
    }
}

impl Sandbox {
    /// Puts the handle together from the launcher's descriptors, and starts watching for the end.
    pub(super) fn assemble(
        id: u64,
        pid: i32,
        parts: impl Iterator<Item = (Part, OwnedFd)>,
        to_launcher: mpsc::UnboundedSender<Outgoing>,
    ) -> io::Result<(Self, Entrance)> {
        let mut entrance = Entrance::default();
        let (said, ended) = watch::channel(None);
        let last_words = Arc::new(Mutex::new(None));
        let mut sandbox = Self {
            id,
            pid,
            exit: ExitWatch { ended, wait: None },
            listener: None,
            reins: None,
            controls: Vec::new(),
            last_words: last_words.clone(),
            to_launcher,
        };
        let (mut pidfd, mut ending) = (None, None);
        for (part, fd) in parts {
            match part {
                Part::Pidfd => pidfd = Some(fd),
                Part::Ending => ending = Some(fd),
                Part::Listener => sandbox.listener = Some(TcpListener::from(fd)),
                Part::Reins => {
                    rustix::io::ioctl_fionbio(&fd, true)?;
                    sandbox.reins = Some(Reins::new(fd)?);
                }
                Part::Control(control) => sandbox.controls.push((control, fd)),
                Part::Namespace => entrance.namespaces.push(fd),
                Part::Door => entrance.doors.push(fd),
            }
        }
        let missing =
            || io::Error::new(io::ErrorKind::InvalidData, "the launcher's answer lacks a descriptor");
        let ending: OwnedFd = ending.ok_or_else(missing)?;
        // Without a pidfd it is the last word itself that is waited for.
        let end = pidfd.map_or_else(|| ending.try_clone(), Ok)?;
        let end = crate::sys::watch(end, Interest::READABLE)?;
        tokio::spawn(watch_end(end, ending, last_words, said));
        Ok((sandbox, entrance))
    }

    /// Unique among the sandboxes of one launcher.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Of the sandbox's pid 1, as the host sees it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The listener on 127.0.0.1 inside the sandbox, blocking; once, and only where `listen` was asked for.
    pub fn take_listener(&mut self) -> Option<TcpListener> {
        self.listener.take()
    }

    /// The hold on its processes; once, and only where it was launched with companions.
    pub fn take_reins(&mut self) -> Option<Reins> {
        self.reins.take()
    }

    /// Watches for the end; also after this handle is gone.
    pub fn exit(&self) -> ExitWatch {
        self.exit.clone()
    }

    /// Kills everything inside. Returns at once; [`Sandbox::exit`] tells when it is done.
    pub fn kill(&self) {
        self.tell(Request::Kill { id: self.id });
    }

    /// Asks the main process and its group to end (`SIGTERM`); nothing sees to it that they do.
    pub fn terminate(&self) {
        self.tell(Request::Terminate { id: self.id });
    }

    /// Stops every process inside where it stands. When it returns no more of their code runs, within a few
    /// milliseconds; without cgroups it only asks for it.
    pub fn freeze(&self) -> io::Result<()> {
        if !self.write_freezer("FROZEN", "1")? {
            self.tell(Request::Stop { id: self.id });
        }
        Ok(())
    }

    /// Lets every process go on.
    pub fn thaw(&self) -> io::Result<()> {
        if !self.write_freezer("THAWED", "0")? {
            self.tell(Request::Continue { id: self.id });
        }
        Ok(())
    }

    /// Changes the share of cpu, in thousandths of one cpu and at least 10; in force when it returns. Does nothing without
    /// cgroups, where cpu is not limited.
    pub fn set_cpu_millis(&self, cpu_millis: u32) -> io::Result<()> {
        for (control, fd) in &self.controls {
            if matches!(control, Control::CfsQuota | Control::CpuMax) {
                pwrite(fd, crate::cgroup::quota(*control, cpu_millis.max(10)).as_bytes(), 0)?;
            }
        }
        Ok(())
    }

    /// What has been used so far; stays readable after the end, until this handle is dropped.
    pub fn usage(&self) -> Usage {
        self.read_usage(|control| control.tells_usage())
    }

    /// Highest memory and cpu time of [`Sandbox::usage`], for half its price; what else is in it may be 0.
    pub fn work(&self) -> Usage {
        self.read_usage(|control| {
            matches!(control, Control::MemoryPeak | Control::CpuStat | Control::CpuacctUsage)
        })
    }

    fn read_usage(&self, wanted: impl Fn(Control) -> bool) -> Usage {
        let mut usage = Usage::default();
        for (control, fd) in &self.controls {
            if !wanted(*control) {
                continue;
            }
            let mut buffer = [0; 1024];
            let Ok(length) = pread(fd, &mut buffer, 0) else { continue };
            let text = std::str::from_utf8(&buffer[..length]).unwrap_or_default();
            match control {
                Control::MemoryUsage => usage.memory_bytes = number(text),
                Control::MemoryPeak => usage.memory_peak_bytes = number(text),
                Control::OomKills => usage.oom_kills = field(text, "oom_kill"),
                Control::CpuStat => usage.cpu_micros = field(text, "usage_usec"),
                Control::CpuacctUsage => usage.cpu_micros = number(text) / 1000,
                Control::FreezerState | Control::CgroupFreeze | Control::CfsQuota | Control::CpuMax => {}
            }
        }
        let last_words = *self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        if self.controls.is_empty() {
            let now = super::process_tree::usage(self.pid);
            let ended = last_words.unwrap_or(Ending { status: 0, peak_bytes: 0, cpu_micros: 0 });
            usage = Usage {
                memory_peak_bytes: now.memory_peak_bytes.max(ended.peak_bytes),
                cpu_micros: ended.cpu_micros,
                ..now
            };
        }
        usage
    }

    /// Writes the word of the freezer that is there; false where there is none.
    fn write_freezer(&self, v1: &str, v2: &str) -> io::Result<bool> {
        for (control, fd) in &self.controls {
            let word = match control {
                Control::FreezerState => v1,
                Control::CgroupFreeze => v2,
                _ => continue,
            };
            pwrite(fd, word.as_bytes(), 0)?;
            return Ok(true);
        }
        Ok(false)
    }

    fn tell(&self, request: Request) {
        // A launcher that is gone has taken every sandbox with it: nothing is left to ask for.
        let _ = self.to_launcher.send(Outgoing::Plain(request));
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.tell(Request::Release { id: self.id });
    }
}

/// Waits for the end, then reads what pid 1 wrote last. Nothing written means that pid 1 itself was killed.
async fn watch_end(
    end: AsyncFd<OwnedFd>,
    ending: OwnedFd,
    last_words: Arc<Mutex<Option<Ending>>>,
    said: watch::Sender<Option<ExitStatus>>,
) {
    let Ok(_) = end.readable().await else { return };
    let mut bytes = [0; Ending::LENGTH];
    let status = match std::fs::File::from(ending).read_exact(&mut bytes) {
        Ok(()) => {
            let ending = Ending::from_bytes(&bytes);
            *last_words.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
            ExitStatus::from_wire(ending.status)
        }
        Err(_) => ExitStatus::Signal(libc::SIGKILL),
    };
    said.send_replace(Some(status));
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// The value of a `name value` line.
fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map_or(0, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "low 0\noom 2\noom_kill 7\noom_group_kill 0\n";
        assert_eq!(field(text, "oom_kill"), 7);
        assert_eq!(field(text, "oom"), 2);
        assert_eq!(field(text, "max"), 0);
        assert_eq!(number("1234\n"), 1234);
        assert_eq!(number("max\n"), 0);
    }
}
