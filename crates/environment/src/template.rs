//! Templates: initialised processes that wait to be forked.

use crate::host::{Host, StartError};
use crate::process::{Kit, LaunchFailure, Process, TemplateProcess};
use crate::program::Plan;
use crate::stock::Stock;
use crate::{Deployment, InitType};
use martlet_sandbox::{ExitWatch, ForkError, Parking, Sandbox, Shell};
use std::fmt;
use std::future::Future;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A process that has a function's init phase behind it and waits to be forked. It never handles an event. Dropping it
/// kills its processes; the environments that were forked from it live on.
pub struct Template {
    host: Arc<Host>,
    plan: Arc<Plan>,
    sandbox: Arc<Sandbox>,
    exit: ExitWatch,
    door: tokio::sync::Mutex<Door>,
    stock: Stock<Kit>,
    /// What it held when it was parked, in bytes.
    parked_bytes: u64,
    /// Its init phase, until an environment is billed for it.
    init: Mutex<Option<Duration>>,
    /// Its end is wanted.
    stopping: AtomicBool,
    /// Its end has been held against the deployment.
    blamed: AtomicBool,
}

/// What only one fork at a time may use.
struct Door {
    parking: Parking,
    frozen: bool,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("sandbox", &self.sandbox).finish_non_exhaustive()
    }
}

impl Template {
    pub(crate) fn new(host: Arc<Host>, plan: Arc<Plan>, process: TemplateProcess, init: Duration) -> Self {
        let TemplateProcess { sandbox, exit, parking, stock } = process;
        Self {
            parked_bytes: sandbox.usage().memory_bytes,
            host,
            plan,
            sandbox,
            exit,
            door: tokio::sync::Mutex::new(Door { parking, frozen: false }),
            stock,
            init: Mutex::new(Some(init)),
            stopping: AtomicBool::new(false),
            blamed: AtomicBool::new(false),
        }
    }

    /// What it was prepared from.
    #[must_use]
    pub fn deployment(&self) -> &Arc<Deployment> {
        &self.plan.deployment
    }

    /// Memory that it holds now, in bytes. What its environments share with it is counted here and not there.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.sandbox.usage().memory_bytes
    }

    /// Stops its processes where they stand, so that nothing that the init phase left behind runs on. Does nothing during a
    /// fork; the next fork thaws it.
    pub fn freeze(&self) {
        let Ok(mut door) = self.door.try_lock() else { return };
        if door.frozen || self.exit.status().is_some() {
            return;
        }
        match self.sandbox.freeze() {
            Ok(()) => door.frozen = true,
            // It waits in a system call, and goes on doing so.
            Err(error) => tracing::warn!(sandbox = self.sandbox.id(), %error, "could not freeze a template"),
        }
    }

    /// Lets its processes run again.
    pub fn thaw(&self) {
        if let Ok(mut door) = self.door.try_lock() {
            self.thaw_behind(&mut door);
        }
    }

    /// Keeps `shells` empty sandboxes ready for forks to come; one, unless this is called. They are made in the background,
    /// one after the other, after the forks that used them.
    pub fn set_stock(&self, shells: usize) {
        self.stock.set_wanted(shells);
    }

    /// Resolves when its main process has ended.
    pub fn exited(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let watch = self.exit.clone();
        async move {
            watch.await;
        }
    }

    /// Kills its processes and resolves when they are gone. Forks that are under way answer that the template is gone.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.sandbox.kill();
        self.exit.clone().await;
    }

    pub(crate) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Its init phase, for the first who asks.
    pub(crate) fn take_init(&self) -> Option<Duration> {
        self.init().take()
    }

    /// Nobody was billed for it after all.
    pub(crate) fn return_init(&self, init: Option<Duration>) {
        if init.is_some() {
            *self.init() = init;
        }
    }

    /// Replaces the shells that were used, in the background.
    pub(crate) fn refill(&self) {
        self.stock.refill();
    }

    /// Holds its end against the deployment, once, unless that was wanted.
    pub(crate) fn blame(&self) {
        if !self.stopping.load(Ordering::Relaxed) && !self.blamed.swap(true, Ordering::Relaxed) {
            self.host.template_ended(&self.plan.deployment);
        }
    }

    /// Forks a process into a shell. It has been told that it logs to `log_stream`, and is not ready yet. The shell is not
    /// replaced before [`Template::refill`]: making one would take the processor from what has just been forked.
    pub(crate) async fn fork(
        self: Arc<Self>,
        log_stream: Arc<str>,
        init: InitType,
    ) -> Result<Process, LaunchFailure> {
        let mut first = true;
        loop {
            let (shell, ends, descriptors) = self.stock.take().await?.open(&log_stream, init);
            let (forked, begun) = self.fork_into(shell, descriptors).await;
            match forked {
                Ok(sandbox) => return Ok(Process::forked(sandbox, ends, begun, self.parked_bytes)),
                // The shell may have been at fault: whoever shares the template's user can end its processes.
                Err(error @ ForkError::Refused { .. }) if first => {
                    tracing::debug!(sandbox = self.sandbox.id(), %error, "trying to fork again");
                    first = false;
                }
                Err(error) => {
                    tracing::debug!(sandbox = self.sandbox.id(), %error, "a template could not be forked");
                    self.sandbox.kill();
                    return Err(StartError::TemplateGone.into());
                }
            }
        }
    }

    /// One attempt, when all before it have ended; also tells when it began.
    async fn fork_into(
        &self,
        shell: Shell,
        descriptors: Vec<(OwnedFd, RawFd)>,
    ) -> (Result<Sandbox, ForkError>, Instant) {
        let mut door = self.door.lock().await;
        let begun = Instant::now();
        if self.exit.status().is_some() {
            return (Err(ForkError::Gone), begun);
        }
        self.thaw_behind(&mut door);
        (door.parking.fork(shell, descriptors).await, begun)
    }

    fn thaw_behind(&self, door: &mut Door) {
        if std::mem::take(&mut door.frozen)
            && let Err(error) = self.sandbox.thaw()
        {
            // It cannot be used any more; the fork that follows finds it ended.
            tracing::warn!(sandbox = self.sandbox.id(), %error, "could not thaw a template, ending it");
            self.sandbox.kill();
        }
    }

    fn init(&self) -> MutexGuard<'_, Option<Duration>> {
        self.init.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        // It may have ended with nobody asking it for a fork since.
        if self.exit.status().is_some() {
            self.blame();
        }
    }
}
