//! What stands between a runtime that has spoken and the environment: its extensions, until they have nothing more to do.

use super::Desk;
use super::courier::Couriers;
use super::news::News;
use super::registry::{Reason, Standing};
use super::shutdown::{Shutdown, Step};
use super::telemetry::Category;
use crate::life::Input;
use crate::log::{LogPipe, Record};
use crate::outcome::ended_how;
use crate::process::Process;
use crate::program::exec_failure;
use crate::runtime_api::RuntimeApi;
use crate::stream::Part;
use martlet_model::{Invocation, Timestamp};
use martlet_sandbox::{ExitStatus, LaunchError, Reins, Told, Who};
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::task::{Context, Poll};
use std::time::Instant;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// The extensions of one environment: those that run beside its runtime and those inside of it.
pub(crate) struct Extensions {
    pub(super) desk: Desk,
    pub(super) news: News,
    couriers: Couriers,
    /// Where there are external ones, the runtime is started, and everybody ended, by these.
    reins: Option<Reins>,
    /// What the external ones print.
    log: Option<LogPipe>,
    /// Of a managed runtime: what the extensions speak with. The runtime may, too.
    api: Option<RuntimeApi>,
    runtime: Runtime,
    /// The external ones that have not ended.
    run: Vec<bool>,
    /// What the runtime has said, until the extensions have nothing more to do.
    held: Option<Input>,
    /// Kept for its room.
    printed: Vec<Record>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runtime {
    /// It is started once every external extension has registered.
    Waits,
    Runs,
    Ended(ExitStatus),
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extensions")
            .field("desk", &self.desk)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl Process {
    /// [`Process::poll`], but what ends a phase waits for the extensions.
    pub(crate) fn poll_with_extensions(
        &mut self,
        context: &mut Context<'_>,
        records: &mut Vec<Record>,
        listen: bool,
    ) -> Poll<Input> {
        let Some(mut extensions) = self.extensions.take() else { return self.poll(context, records, listen) };
        let polled = extensions.poll(self, context, records, listen);
        // Nobody has come, and nobody can any more: from here on it is as any other.
        let none = matches!(polled, Poll::Ready(Input::Ready)) && extensions.desk.lock().registry.is_empty();
        if !none {
            self.extensions = Some(extensions);
        }
        polled
    }

    /// Whether there is somebody to be told of its end.
    pub(crate) fn has_extensions(&self) -> bool {
        self.extensions.as_ref().is_some_and(|extensions| !extensions.desk.lock().registry.is_empty())
    }

    /// What its extensions are told of the environment, which begins to start or starts again.
    pub(crate) fn news(&mut self) -> Option<&mut News> {
        self.extensions.as_mut().map(|extensions| &mut extensions.news)
    }

    /// Who has subscribed, since this was asked last.
    pub(crate) fn subscriptions(&self) -> Vec<super::Subscription> {
        let taken = |extensions: &Extensions| std::mem::take(&mut extensions.desk.lock().subscribed);
        self.extensions.as_deref().map(taken).unwrap_or_default()
    }

    /// How its extensions stand.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        self.extensions
            .as_ref()
            .map(|extensions| extensions.desk.lock().registry.standings())
            .unwrap_or_default()
    }

    /// Ends it as its extensions are promised; what is left then is to be killed. Returns at once without any.
    pub(crate) async fn shut_down(&mut self, reason: Reason, now: Timestamp, records: &mut Vec<Record>) {
        if !self.has_extensions() {
            return;
        }
        let Some(mut extensions) = self.extensions.take() else { return };
        extensions.shut_down(self, reason, now, records).await;
        self.extensions = Some(extensions);
    }
}

impl Extensions {
    /// For a sandbox in which so many `external` ones run.
    pub(super) fn new(
        desk: Desk,
        external: usize,
        reins: Option<Reins>,
        log: Option<LogPipe>,
        api: Option<RuntimeApi>,
    ) -> Self {
        let runtime = if reins.is_some() { Runtime::Waits } else { Runtime::Runs };
        Self {
            news: News::new(desk.clone()),
            couriers: Couriers::new(),
            desk,
            reins,
            log,
            api,
            runtime,
            run: vec![true; external],
            held: None,
            printed: Vec::new(),
        }
    }

    /// Tells them of an event that the runtime is given.
    pub(crate) fn invoke(&mut self, invocation: &Invocation, deadline: Timestamp) {
        let id = invocation.request_id.as_str();
        self.news.started(id, &invocation.trace_id);
        let mut desk = self.desk.lock();
        desk.registry.invoke(id, &invocation.invoked_arn, &invocation.trace_id, deadline);
    }

    /// How the runtime ended, if it has, where the sandbox's own end does not tell.
    pub(crate) fn runtime_ended(&self) -> Option<ExitStatus> {
        match self.runtime {
            Runtime::Ended(status) => Some(status),
            _ => None,
        }
    }

    pub(crate) fn drain_log(&mut self, records: &mut Vec<Record>) {
        if let Some(log) = &mut self.log {
            log.drain(&mut self.printed);
        }
        self.take_printed(records);
    }

    /// The runtime has printed this.
    pub(crate) fn of_runtime(&mut self, records: &[Record]) {
        self.news.printed(Category::Function, records);
    }

    /// Hands on what the extensions printed.
    fn take_printed(&mut self, records: &mut Vec<Record>) {
        self.news.printed(Category::Extension, &self.printed);
        records.append(&mut self.printed);
    }

    fn poll(
        &mut self,
        process: &mut Process,
        context: &mut Context<'_>,
        records: &mut Vec<Record>,
        listen: bool,
    ) -> Poll<Input> {
        let heard = self.poll_processes(context).or_else(|| self.poll_api(process, context));
        self.poll_log(context, records);
        let before = records.len();
        let said = match heard {
            Some(input) => Poll::Ready(input),
            None => self.poll_runtime(process, context, records, listen),
        };
        self.news.printed(Category::Function, &records[before..]);
        if let Poll::Ready(input) = said {
            match input {
                Input::Ready => {
                    self.news.runtime_ready();
                    self.desk.lock().registry.close();
                    self.held = Some(Input::Ready);
                }
                Input::Response(_) | Input::Error { fatal: false, .. } | Input::Stream(Part::Ended) => {
                    // What it printed before comes first.
                    let before = records.len();
                    process.drain_runtime_log(records);
                    self.news.printed(Category::Function, &records[before..]);
                    self.news.runtime_done(&input);
                    self.held = Some(input);
                }
                // More of a response, or the end of everything.
                other => return Poll::Ready(other),
            }
        }
        let decided = self.decide();
        if let Poll::Ready(Input::Ready) = &decided {
            self.news.initialized();
        }
        self.poll_couriers(context, false);
        decided
    }

    fn poll_couriers(&mut self, context: &mut Context<'_>, last: bool) {
        if let Some(reins) = &self.reins {
            // Nobody waits for it: what is not sent now is sent with the next event.
            let _ = self.couriers.poll(context, &self.desk, reins, self.news.now(), last);
        }
    }

    /// What follows from how things stand now.
    fn decide(&mut self) -> Poll<Input> {
        let mut desk = self.desk.lock();
        if let Some(failed) = desk.registry.take_failed() {
            self.held = None;
            return Poll::Ready(Input::Extension(failed));
        }
        if self.runtime == Runtime::Waits
            && desk.registry.all_registered()
            && let Some(reins) = &self.reins
        {
            reins.start();
            self.runtime = Runtime::Runs;
        }
        if self.held.is_some() && desk.registry.all_waiting() {
            return self.held.take().map_or(Poll::Pending, Poll::Ready);
        }
        Poll::Pending
    }

    /// What the runtime says, unless it has said what is waited with.
    fn poll_runtime(
        &mut self,
        process: &mut Process,
        context: &mut Context<'_>,
        records: &mut Vec<Record>,
        listen: bool,
    ) -> Poll<Input> {
        match (&self.held, self.runtime) {
            (Some(Input::Ready), Runtime::Ended(status)) => Poll::Ready(process.ended(context, status)),
            (Some(_), _) => {
                let Poll::Ready(status) = process.poll_aside(context, records) else { return Poll::Pending };
                // Nobody is left to be waited for; what was said counts, unless nothing was asked yet.
                match self.held.take() {
                    Some(Input::Ready) | None => Poll::Ready(process.ended(context, status)),
                    Some(said) => Poll::Ready(said),
                }
            }
            (None, Runtime::Ended(status)) if listen => {
                // What it printed before is read first.
                process.drain_log(records);
                Poll::Ready(process.ended(context, status))
            }
            (None, Runtime::Ended(_)) => Poll::Pending,
            (None, Runtime::Waits | Runtime::Runs) => process.poll(context, records, listen),
        }
    }

    /// Starts and ends of processes.
    fn poll_processes(&mut self, context: &mut Context<'_>) -> Option<Input> {
        while let Some(reins) = &self.reins {
            match reins.poll(context) {
                Poll::Pending => break,
                Poll::Ready(Ok(Told::Started)) => {}
                Poll::Ready(Ok(Told::Connecting(at, stream))) => {
                    self.couriers.connected(at, stream, &self.desk);
                }
                Poll::Ready(Ok(Told::NotStarted(error))) => return Some(Input::NoEntrypoint(why(&error))),
                Poll::Ready(Ok(Told::Ended(Who::Main, status))) => self.runtime = Runtime::Ended(status),
                Poll::Ready(Ok(Told::Ended(Who::Companion(at), status))) => {
                    if let Some(runs) = self.run.get_mut(at) {
                        *runs = false;
                    }
                    self.desk.lock().registry.exited(at, &ended_how(status));
                }
                // The sandbox is gone, which is heard from itself.
                Poll::Ready(Err(_)) => self.reins = None,
            }
        }
        None
    }

    /// Lets the extensions of a managed runtime speak, and the runtime if it does so here.
    fn poll_api(&mut self, process: &mut Process, context: &mut Context<'_>) -> Option<Input> {
        match self.api.as_mut()?.poll(context) {
            Poll::Pending => None,
            Poll::Ready(Ok(input)) => {
                if let Some(api) = self.api.take() {
                    process.adopt(api);
                }
                Some(input)
            }
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "extensions can connect no more");
                self.api = None;
                None
            }
        }
    }

    fn poll_log(&mut self, context: &mut Context<'_>, records: &mut Vec<Record>) {
        if let Some(log) = &mut self.log
            && log.poll(context, &mut self.printed).is_ready()
        {
            // There is more, but others have waited long enough.
            context.waker().wake_by_ref();
        }
        self.take_printed(records);
    }

    async fn shut_down(
        &mut self,
        process: &mut Process,
        reason: Reason,
        now: Timestamp,
        records: &mut Vec<Record>,
    ) {
        let external = self.desk.lock().registry.has_external();
        let budget = Shutdown::budget(external);
        let deadline = now.plus_millis(u64::try_from(budget.as_millis()).unwrap_or(u64::MAX));
        let mut end = Shutdown::new(Instant::now(), external);
        match &self.reins {
            Some(reins) => reins.signal(Who::Main, SIGTERM),
            None => process.sandbox.terminate(),
        }
        let mut timer = Box::pin(tokio::time::sleep_until(end.wake_at().into()));
        poll_fn(|context| {
            loop {
                let sandbox_ended = process.poll_aside(context, records).is_ready();
                self.poll_processes(context);
                self.poll_api(process, context);
                self.poll_log(context, records);
                self.poll_couriers(context, true);
                let runtime_runs = !sandbox_ended && self.runtime == Runtime::Runs;
                let left = if sandbox_ended { 0 } else { self.left() };
                match end.step(Instant::now(), runtime_runs, left) {
                    Step::Wait => {
                        timer.as_mut().reset(end.wake_at().into());
                        if timer.as_mut().poll(context).is_pending() {
                            return Poll::Pending;
                        }
                    }
                    Step::TellExtensions => self.tell_end(reason, deadline),
                    Step::Over => return Poll::Ready(()),
                }
            }
        })
        .await;
    }

    /// How many external extensions may still end by themselves.
    fn left(&self) -> usize {
        let desk = self.desk.lock();
        let left = |(at, runs): (usize, &bool)| *runs && desk.registry.ends_by_itself(at);
        self.run.iter().enumerate().filter(|running| left(*running)).count()
    }

    fn tell_end(&mut self, reason: Reason, deadline: Timestamp) {
        let mut desk = self.desk.lock();
        desk.registry.shut_down(reason, deadline);
        let Some(reins) = &self.reins else { return };
        reins.signal(Who::Main, SIGKILL);
        for at in 0..self.run.len() {
            if !desk.registry.ends_by_itself(at) {
                reins.signal(Who::Companion(at), SIGKILL);
            }
        }
    }
}

/// Why the runtime could not be executed.
fn why(error: &LaunchError) -> String {
    match error {
        LaunchError::Step { noun, errno, .. } => exec_failure(noun, errno),
        other => other.to_string(),
    }
}
