//! The connection to the launcher: one task owns the socket, everybody else holds a cheap handle.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::LaunchError;
use crate::server::parking::Shell;
use crate::server::sandbox::{Entrance, Sandbox};
use crate::server::start::LauncherProcess;
use crate::spec::{Furnishing, Invalid, SandboxSpec};
use crate::wire::{self, Control, InForce, Part, Reply, Request};

/// What the connection's task is asked to send.
pub(super) enum Outgoing {
    Plain(Request),
    /// For a new sandbox; the descriptors go with it.
    Asking {
        id: u64,
        request: Request,
        fds: Vec<OwnedFd>,
        answer: Answer,
    },
}

/// To whoever asked.
pub(super) enum Answer {
    /// For a sandbox.
    Sandbox(oneshot::Sender<Result<(Sandbox, Entrance), LaunchError>>),
    /// For something to be done.
    Done(oneshot::Sender<Result<(), LaunchError>>),
}

/// Handle to the launcher; clones are the same launcher. The launcher lives until [`Launcher::shutdown`] or until the
/// runtime in which it was connected ends.
#[derive(Clone, Debug)]
pub struct Launcher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    next_id: AtomicU64,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    in_force: InForce,
    gone: watch::Receiver<bool>,
}

impl LauncherProcess {
    /// Ties the launcher to the current tokio runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub fn connect(self) -> io::Result<Launcher> {
        rustix::io::ioctl_fionbio(&self.socket, true)?;
        let socket = crate::sys::watch(self.socket, Interest::READABLE | Interest::WRITABLE)?;
        let (outgoing, requests) = mpsc::unbounded_channel();
        let (ended, gone) = watch::channel(false);
        let inner =
            Inner { next_id: AtomicU64::new(1), outgoing: outgoing.clone(), in_force: self.in_force, gone };
        let waiting = Mutex::new(Some(HashMap::new()));
        let freezers = Mutex::default();
        let connection = Arc::new(Connection { socket, waiting, freezers, outgoing: outgoing.downgrade() });
        tokio::spawn(connection.clone().read(self.child, ended));
        tokio::spawn(connection.write(requests));
        Ok(Launcher { inner: Arc::new(inner) })
    }
}

impl Launcher {
    /// What this launcher enforces.
    pub fn in_force(&self) -> &InForce {
        &self.inner.in_force
    }

    /// Makes a sandbox and runs its program. Each of `fds` becomes the descriptor of the given number in the main process (1
    /// and 2 are usual; 0 to 2 are `/dev/null` unless given); every other is closed. Pipes among them become the sandbox
    /// user's own, so that a program can open `/dev/stdout`. Returns once the program has been
    /// executed. A call that is dropped leaves no sandbox behind.
    pub async fn launch(
        &self,
        spec: SandboxSpec,
        fds: Vec<(OwnedFd, RawFd)>,
    ) -> Result<Sandbox, LaunchError> {
        spec.validate().map_err(LaunchError::Invalid)?;
        validate_numbers(&fds, spec.open_files).map_err(LaunchError::Invalid)?;
        let spec = wire::write_spec(&spec).map_err(LaunchError::Send)?;
        let numbers = fds.iter().map(|(_, number)| *number).collect();
        let fds = std::iter::once(spec).chain(fds.into_iter().map(|(fd, _)| fd)).collect();
        self.ask(|id| Request::Launch { id, numbers }, fds).await.map(|(sandbox, _)| sandbox)
    }

    /// Makes an empty sandbox below `template`, which must have been launched `forkable`, with the same specification: for a
    /// copy of the template's main process, by [`crate::Parking::fork`]. It is made by the launcher alone and runs nothing,
    /// so it can be made ahead of need. A call that is dropped leaves none behind.
    pub async fn shell(&self, template: &Sandbox) -> Result<Shell, LaunchError> {
        let template = template.id();
        let (sandbox, entrance) = self.ask(|id| Request::Shell { id, template }, Vec::new()).await?;
        Ok(Shell::new(sandbox, entrance, self.inner.in_force.landlock_abi))
    }

    /// Shows host directories in a sandbox whose program runs already, and limits it anew. It must have been launched forkable
    /// and with [`SandboxSpec::places`], which this uses up whatever comes of it, and no shell may have been made below it. All
    /// of it holds, for the shells to come as well, when this returns.
    ///
    /// It is for a program that has run nothing yet but what all sandboxes of a kind have in common.
    ///
    /// # Errors
    /// [`LaunchError`]; the sandbox is of no use then.
    pub async fn furnish(&self, sandbox: &Sandbox, furnishing: Furnishing) -> Result<(), LaunchError> {
        let (answer, answered) = oneshot::channel();
        let sandbox = sandbox.id();
        self.send(|id| Request::Furnish { id, sandbox, furnishing }, Vec::new(), Answer::Done(answer))?;
        answered.await.unwrap_or(Err(LaunchError::Gone))
    }

    async fn ask(
        &self,
        request: impl FnOnce(u64) -> Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Sandbox, Entrance), LaunchError> {
        let (answer, answered) = oneshot::channel();
        self.send(request, fds, Answer::Sandbox(answer))?;
        answered.await.unwrap_or(Err(LaunchError::Gone))
    }

    /// Sends a question under a new id.
    fn send(
        &self,
        request: impl FnOnce(u64) -> Request,
        fds: Vec<OwnedFd>,
        answer: Answer,
    ) -> Result<(), LaunchError> {
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let asking = Outgoing::Asking { id, request: request(id), fds, answer };
        self.inner.outgoing.send(asking).map_err(|_| LaunchError::Gone)
    }

    /// Ends every sandbox and the launcher, and waits for it. Calling it again only waits.
    pub async fn shutdown(&self) {
        let _ = self.inner.outgoing.send(Outgoing::Plain(Request::Shutdown));
        self.gone().await;
    }

    /// Resolves when the launcher has ended, for whatever reason; all sandboxes are then gone or going.
    pub async fn gone(&self) {
        let mut gone = self.inner.gone.clone();
        // An error means that the connection's task is gone, and the launcher with it.
        let _ = gone.wait_for(|gone| *gone).await;
    }
}

fn validate_numbers(fds: &[(OwnedFd, RawFd)], open_files: u64) -> Result<(), Invalid> {
    let invalid = |problem: &str| Err(Invalid { field: "fds".into(), problem: problem.into() });
    if fds.len() > SandboxSpec::MAX_DESCRIPTORS {
        return invalid("are more than one sandbox can be given");
    }
    if fds.iter().any(|(_, number)| u64::try_from(*number).is_ok_and(|n| n >= open_files) || *number < 0) {
        return invalid("hold a number that is negative or not below open_files");
    }
    let mut numbers: Vec<_> = fds.iter().map(|(_, number)| number).collect();
    numbers.sort_unstable();
    if numbers.windows(2).any(|pair| pair[0] == pair[1]) {
        return invalid("give one number twice");
    }
    Ok(())
}

/// Callers waiting for an answer, by sandbox; `None` once the launcher is gone.
type Waiting = Option<HashMap<u64, Answer>>;

/// Shared by the two tasks that serve the connection.
struct Connection {
    socket: AsyncFd<OwnedFd>,
    waiting: Mutex<Waiting>,
    /// Of version 1, by sandbox. What is frozen by those does not even die of the launcher's end.
    freezers: Mutex<HashMap<u64, OwnedFd>>,
    /// Weak: only handles of launcher and sandboxes keep the connection.
    outgoing: mpsc::WeakUnboundedSender<Outgoing>,
}

impl Connection {
    /// Reads until the launcher is gone, then says so to everybody who waits.
    async fn read(self: Arc<Self>, mut child: Child, ended: watch::Sender<bool>) {
        while self.receive().await {}
        lock(&self.waiting).take();
        for freezer in lock(&self.freezers).values() {
            // Its sandbox may be gone already.
            let _ = rustix::io::pwrite(freezer, b"THAWED", 0);
        }
        let reap = tokio::task::spawn_blocking(move || child.wait());
        let _ = reap.await;
        ended.send_replace(true);
    }

    /// Sends until nobody is left who could ask for anything; the launcher then sees the end and ends itself.
    async fn write(self: Arc<Self>, mut requests: mpsc::UnboundedReceiver<Outgoing>) {
        while let Some(request) = requests.recv().await {
            if self.send(request).await.is_err() {
                break;
            }
        }
        let _ = rustix::net::shutdown(self.socket.get_ref(), rustix::net::Shutdown::Both);
    }

    /// Handles one message; false at the end.
    async fn receive(&self) -> bool {
        let received = self
            .socket
            .async_io(Interest::READABLE, |socket| wire::receive::<Reply>(socket, RecvFlags::DONTWAIT))
            .await;
        match received {
            Ok(Some((Reply::Launched { id, pid, parts }, fds))) => self.launched(id, pid, &parts, fds),
            Ok(Some((Reply::Furnished { id }, _))) => self.done(id),
            Ok(Some((Reply::Failed { id, fault }, _))) => self.failed(id, fault.into()),
            Ok(Some((Reply::Ready(_) | Reply::Invalid(_) | Reply::Refused(_), _)) | None) | Err(_) => {
                return false;
            }
        }
        true
    }

    fn launched(&self, id: u64, pid: i32, parts: &[Part], fds: Vec<OwnedFd>) {
        let Some(outgoing) = self.outgoing.upgrade() else { return };
        let freezer = parts.iter().position(|part| *part == Part::Control(Control::FreezerState));
        if let Some(Ok(freezer)) = freezer.and_then(|at| fds.get(at)).map(OwnedFd::try_clone) {
            lock(&self.freezers).insert(id, freezer);
        }
        let parts = parts.iter().copied().zip(fds);
        let assembled = Sandbox::assemble(id, pid, parts, outgoing).map_err(LaunchError::Send);
        if let Some(Answer::Sandbox(answer)) = self.answer(id) {
            // A caller that has gone away gets its sandbox dropped here, which ends it.
            let _ = answer.send(assembled);
        }
    }

    fn done(&self, id: u64) {
        if let Some(Answer::Done(answer)) = self.answer(id) {
            let _ = answer.send(Ok(()));
        }
    }

    fn failed(&self, id: u64, error: LaunchError) {
        match self.answer(id) {
            Some(Answer::Sandbox(answer)) => drop(answer.send(Err(error))),
            Some(Answer::Done(answer)) => drop(answer.send(Err(error))),
            None => {}
        }
    }

    /// Who waits for the answer to the question `id`, if anybody still does.
    fn answer(&self, id: u64) -> Option<Answer> {
        lock(&self.waiting).as_mut().and_then(|waiting| waiting.remove(&id))
    }

    /// Sends one request. An error means that the launcher is gone; what only this request did wrong its caller is told.
    async fn send(&self, outgoing: Outgoing) -> io::Result<()> {
        let (id, request, fds, answer) = match outgoing {
            Outgoing::Plain(request) => {
                if let Request::Release { id } = request {
                    lock(&self.freezers).remove(&id);
                }
                return self.send_message(&request, &[]).await;
            }
            Outgoing::Asking { id, request, fds, answer } => (id, request, fds, answer),
        };
        match lock(&self.waiting).as_mut() {
            Some(waiting) => waiting.insert(id, answer),
            // Dropping the sender tells the caller that the launcher is gone.
            None => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        match self.send_message(&request, &fds).await {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => {
                self.failed(id, LaunchError::Send(error));
                Ok(())
            }
            other => other,
        }
    }

    async fn send_message(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.socket.async_io(Interest::WRITABLE, |socket| wire::send(socket, request, fds)).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
