//! One execution environment: the life cycle with its I/O.

use crate::Deployment;
use crate::ending::Ending;
use crate::extensions::{Reason, Start};
use crate::host::{Host, StartError, environment_id, stream_name};
use crate::life::{Finish, InitFailure, Input, Life, Output, Verdict};
use crate::log::{InitPhase, InitStatus, Journal, Lines, Record, Report, Status};
use crate::outcome::{Completed, Completion, Exit, Failure, FunctionError};
use crate::process::{LaunchFailure, Process};
use crate::program::{Plan, Role};
use crate::stream::{Response, ResponseSink};
use crate::template::Template;
use martlet_model::{Invocation, Timestamp};
use martlet_telemetry::MeteringRecord;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// Most parts of a response that are dealt with before others get their turn; a function may answer without end.
const TURN: usize = 64;

type Launching = Pin<Box<dyn Future<Output = Result<Process, LaunchFailure>> + Send>>;

/// One execution environment. It is passive: it does its work on the task that uses it, and nothing while nobody does.
/// It takes one event at a time. Dropping it kills its processes.
pub struct Environment {
    host: Arc<Host>,
    id: Arc<str>,
    plan: Arc<Plan>,
    log_stream: Arc<str>,
    life: Life,
    process: Option<Process>,
    /// A process that is being started in place of one whose init phase failed.
    launching: Option<Launching>,
    lines: Lines,
    journal: Journal,
    /// Kept for its room.
    records: Vec<Record>,
    current: Option<Current>,
    /// Where the response to it goes, if the function makes it piece by piece.
    response: Response,
    /// An end that was known when the event was handed over.
    early: Option<Completion>,
    timer: Option<Pin<Box<Sleep>>>,
    frozen: bool,
    /// Why its processes will be ended.
    reason: Reason,
    cpu_micros_seen: u64,
}

/// The event at hand.
struct Current {
    invocation: Invocation,
    begun: Timestamp,
    deadline: Timestamp,
    /// The START line is written.
    started: bool,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("id", &self.id).field("life", &self.life).finish_non_exhaustive()
    }
}

/// How an environment comes into being.
#[derive(Debug)]
pub(crate) enum Birth {
    /// Its process runs the init phase.
    Ordinary,
    /// Its process runs the init phase and then waits to be forked, if it can.
    Template,
    /// Its process is a fork of a template. `init` is the template's init phase, if this one is billed for it.
    Fork { template: Arc<Template>, init: Option<Duration> },
}

/// How the init phase ended.
#[derive(Debug)]
pub(crate) enum Initialized {
    Ready,
    /// It was to become a template and is an environment, for this reason.
    Unforkable(String),
    /// It is a template, and took so long to become one.
    Parked(Duration),
    Failed,
}

impl Environment {
    /// An environment whose process is about to start; [`Environment::initialize`] sees to that.
    pub(crate) fn new(host: Arc<Host>, plan: Arc<Plan>, birth: Birth) -> Result<Self, StartError> {
        let id: Arc<str> = environment_id()?.into();
        let log_stream: Arc<str> = stream_name(&plan.deployment, host.now(), &id).into();
        let configuration = &plan.deployment.version.configuration;
        let timeout = Duration::from_secs(u64::from(configuration.timeout_seconds));
        let init_type = plan.init;
        let now = Instant::now();
        let (life, launching): (_, Launching) = match birth {
            Birth::Ordinary => {
                (Life::new(now, timeout), Box::pin(host.launch(&plan, &log_stream, Role::Environment)))
            }
            Birth::Template => {
                (Life::template(now, timeout), Box::pin(host.launch(&plan, &log_stream, Role::Template)))
            }
            Birth::Fork { template, init } => (
                Life::forked(now, timeout, init),
                Box::pin(template.fork(Arc::clone(&log_stream), init_type)),
            ),
        };
        let journal =
            Journal::new(host.telemetry().clone(), Arc::clone(&plan.log_group_arn), Arc::clone(&log_stream));
        Ok(Self {
            life: life.init_within(init_type.limit(timeout)),
            lines: Lines::new(&configuration.logging, init_type),
            host,
            id,
            plan,
            log_stream,
            process: None,
            launching: Some(launching),
            journal,
            records: Vec::new(),
            current: None,
            response: Response::default(),
            early: None,
            timer: None,
            frozen: false,
            reason: Reason::Spindown,
            cpu_micros_seen: 0,
        })
    }

    /// The init phase. An error is one of the platform; the environment is then of no use.
    pub(crate) async fn initialize(&mut self) -> Result<Initialized, StartError> {
        let version = &self.plan.deployment.version;
        let line = self.lines.init_start(
            self.host.now(),
            &self.host.runtime_version(&self.plan),
            version.function.name.as_str(),
            &self.plan.version_text,
        );
        self.journal.line(self.host.now(), line);
        let initialized = match poll_fn(|context| self.poll_output(context)).await? {
            Output::InitFailed { took, why } => {
                self.report_init(took, &why);
                Initialized::Failed
            }
            Output::Unforkable(reason) => Initialized::Unforkable(reason),
            Output::Parked { took } => Initialized::Parked(took),
            _ => Initialized::Ready,
        };
        self.drain_log();
        self.tell_extensions();
        self.journal.flush();
        // It belongs to the runtime that it was made in, and events may come in another.
        self.timer = None;
        Ok(initialized)
    }

    /// Takes it as a template, once it is parked.
    pub(crate) fn into_template(self, init: Duration) -> Option<Template> {
        let process = self.process?.into_template()?;
        Some(Template::new(self.host, self.plan, process, init))
    }

    /// Writes into its log that environments of its function do not start by fork.
    pub(crate) fn say_ordinary(&mut self, reason: &str) {
        let now = self.host.now();
        self.journal.line(now, self.lines.ordinary_start(now, reason));
        self.journal.flush();
    }

    /// Has the response to the next event, which is about to be handed over, go to `sink` while the function makes it. One that
    /// is not made piece by piece is one piece; the document of a failure goes to the caller alone.
    pub fn stream_to(&mut self, sink: ResponseSink) {
        self.response = Response::to(sink);
    }

    /// Hands over an event, and thaws the environment if it is frozen. [`Environment::complete`] then deals with it; the
    /// time of the invocation begins now. Nothing is done if another event is under way.
    pub fn begin(&mut self, invocation: Invocation) {
        debug_assert!(self.current.is_none(), "one event at a time");
        if self.current.is_some() {
            return;
        }
        self.thaw();
        let now = Instant::now();
        let begun = self.host.now();
        if let Some(exit) = self.process.as_ref().and_then(Process::exit) {
            self.life.input(now, Input::Exited(exit));
        }
        self.journal.open(invocation.request_id.clone());
        let timeout = u64::from(self.plan.deployment.version.configuration.timeout_seconds) * 1000;
        self.current =
            Some(Current { invocation, begun, deadline: begun.plus_millis(timeout), started: false });
        let output = self.life.begin(now);
        self.early = self.carry_out(output);
    }

    /// Resolves when the event that [`Environment::begin`] handed over is dealt with: answered, failed, stopped at its
    /// deadline, or not delivered at all. Its log and its metering record are then with telemetry.
    ///
    /// Dropping the future loses nothing, and calling again goes on; in between nobody reads the function's output or
    /// watches its deadline. Pending for ever when no event was handed over.
    pub async fn complete(&mut self) -> Completion {
        poll_fn(|context| self.poll_complete(context)).await
    }

    /// Stops the processes where they stand. Does nothing during an invocation.
    pub fn freeze(&mut self) {
        if self.frozen || self.life.is_busy() {
            return;
        }
        if let Some(process) = &self.process {
            match process.freeze() {
                Ok(()) => self.frozen = true,
                // It goes on running, which costs something and harms nobody.
                Err(error) => tracing::warn!(environment = %self.id, %error, "could not freeze"),
            }
        }
    }

    /// Lets the processes run again; [`Environment::begin`] does it by itself.
    pub fn thaw(&mut self) {
        if !std::mem::take(&mut self.frozen) {
            return;
        }
        if let Some(process) = &self.process
            && let Err(error) = process.thaw()
        {
            // It cannot be used any more; the invocation that follows finds it ended.
            tracing::warn!(environment = %self.id, %error, "could not thaw, ending it");
            process.kill();
        }
    }

    /// Resolves when the processes of this moment are gone; at once when there are none. An invocation may replace them
    /// (a failed init phase is run again by a new process), so ask again after one.
    pub fn exited(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let watch = self.process.as_ref().map(Process::exit_watch);
        async move {
            if let Some(watch) = watch {
                watch.await;
            }
        }
    }

    /// Whether its init phase is over and went well; otherwise it runs again inside the first invocation.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.life.is_initialized()
    }

    /// Memory it held when its last invocation ended, in bytes; before the first one, at this moment.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.process.as_ref().map_or(0, Process::memory_bytes)
    }

    /// 32 hexadecimal digits, the last part of its log stream's name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it was started from.
    #[must_use]
    pub fn deployment(&self) -> &Arc<Deployment> {
        &self.plan.deployment
    }

    /// The shutdown phase: ends the processes and resolves when they are gone, 2 s at most where they have extensions. Without
    /// any it is announced to nobody.
    pub async fn stop(mut self) {
        self.launching = None;
        self.thaw();
        if let Some(process) = &mut self.process {
            let now = self.host.now();
            process.shut_down(self.reason, now, &mut self.records).await;
            process.kill();
            process.exit_watch().await;
            process.drain_log(&mut self.records);
        }
        self.take_records();
        self.journal.flush();
    }

    fn poll_complete(&mut self, context: &mut Context<'_>) -> Poll<Completion> {
        if let Some(early) = self.early.take() {
            return Poll::Ready(early);
        }
        if self.current.is_none() {
            return Poll::Pending;
        }
        loop {
            let output = match std::task::ready!(self.poll_output(context)) {
                Ok(output) => output,
                // A process could not be started in place of the one that failed: another environment may fare better.
                Err(error) => {
                    tracing::warn!(environment = %self.id, %error, "could not start the function again");
                    self.life.give_up();
                    Output::Undelivered
                }
            };
            if let Some(completion) = self.carry_out(output) {
                return Poll::Ready(completion);
            }
        }
    }

    /// Carries out what the life cycle asks for during an invocation, and returns its end.
    fn carry_out(&mut self, output: Output) -> Option<Completion> {
        match output {
            Output::Wait
            | Output::Initialized
            | Output::Unforkable(_)
            | Output::Parked { .. }
            | Output::InitFailed { .. } => None,
            Output::Deliver => {
                self.write_start();
                if let (Some(process), Some(current)) = (&mut self.process, &self.current) {
                    if process.move_here() {
                        self.timer = None;
                    }
                    process.deliver(&current.invocation, current.deadline);
                }
                None
            }
            Output::Restart => {
                self.process = None;
                self.cpu_micros_seen = 0;
                let launching = self.host.launch(&self.plan, &self.log_stream, Role::Environment);
                self.launching = Some(Box::pin(launching));
                None
            }
            Output::Undelivered => {
                self.launching = None;
                self.response = Response::default();
                self.journal.discard();
                self.current.take().map(|current| Completion::Undelivered(current.invocation))
            }
            Output::Finish(finish) => {
                let current = self.current.take()?;
                Some(Completion::Done(self.finish(current, finish)))
            }
        }
    }

    /// The next thing that the life cycle wants done.
    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<Result<Output, StartError>> {
        let input = match self.poll_heard(context) {
            Poll::Ready(input) => input?,
            Poll::Pending => {
                if self.take_records() {
                    self.journal.flush();
                }
                std::task::ready!(self.poll_timer(context));
                return Poll::Ready(Ok(self.life.expire(Instant::now())));
            }
        };
        if matches!(input, Input::Ready | Input::Unforkable(_)) {
            self.end_init();
        }
        Poll::Ready(Ok(self.life.input(Instant::now(), input)))
    }

    fn end_init(&mut self) {
        let cpu_millis = self.plan.deployment.version.configuration.cpu_millis();
        let Some(process) = &mut self.process else { return };
        process.close_parking();
        if let Err(error) = process.end_init(cpu_millis) {
            // Rather no environment than one that takes more than its share.
            tracing::warn!(environment = %self.id, %error, "could not limit the share of CPU, ending it");
            process.kill();
        }
    }

    /// What happens next. Parts of a response go where they belong.
    fn poll_heard(&mut self, context: &mut Context<'_>) -> Poll<Result<Input, StartError>> {
        for _ in 0..TURN {
            let listen = self.response.poll_room(context).is_ready();
            let part = match std::task::ready!(self.poll_input(context, listen))? {
                Input::Stream(part) => part,
                // Somebody may have read what it has answered so far: nobody else may be given the event.
                Input::Lost if self.response.has_begun() => {
                    return Poll::Ready(Ok(Input::Exited(Exit::KILLED)));
                }
                input => return Poll::Ready(Ok(input)),
            };
            match self.response.take(part) {
                None => {}
                Some(Ok(response)) => return Poll::Ready(Ok(Input::Response(response))),
                Some(Err(failure)) => return Poll::Ready(Ok(Input::Error { failure, fatal: false })),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_input(&mut self, context: &mut Context<'_>, listen: bool) -> Poll<Result<Input, StartError>> {
        if let Some(launching) = &mut self.launching {
            let launched = std::task::ready!(launching.as_mut().poll(context));
            self.launching = None;
            match launched {
                Ok(mut process) => {
                    self.life.launched(process.begun());
                    let begun = process.begun();
                    if let Some(news) = process.news() {
                        news.begin(self.start_told(begun));
                    }
                    self.process = Some(process);
                }
                Err(LaunchFailure::NoEntrypoint(reason)) => {
                    return Poll::Ready(Ok(Input::NoEntrypoint(reason)));
                }
                Err(LaunchFailure::Extension(failed)) => {
                    return Poll::Ready(Ok(Input::Extension(failed)));
                }
                Err(LaunchFailure::Platform(error)) => return Poll::Ready(Err(error)),
            }
        }
        match &mut self.process {
            Some(process) => process.poll_with_extensions(context, &mut self.records, listen).map(Ok),
            None => Poll::Pending,
        }
    }

    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.life.deadline() else { return Poll::Pending };
        let deadline = tokio::time::Instant::from_std(deadline);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(context)
    }

    /// Moves what the function has printed into the journal; true when there was something.
    fn take_records(&mut self) -> bool {
        if self.records.is_empty() {
            return false;
        }
        let now = self.host.now();
        for record in self.records.drain(..) {
            self.journal.record(now, record);
        }
        // One loud moment does not keep its room for ever.
        self.records.shrink_to(64);
        true
    }

    fn drain_log(&mut self) {
        if let Some(process) = &mut self.process {
            process.drain_log(&mut self.records);
        }
        self.take_records();
    }

    fn write_start(&mut self) {
        let Some(current) = &mut self.current else { return };
        if !std::mem::replace(&mut current.started, true) {
            let now = self.host.now();
            let id = current.invocation.request_id.as_str();
            let line = self.lines.start(now, id, &self.plan.version_text);
            self.journal.line(now, line);
        }
    }

    /// Ends the process of a failed init phase, and says why.
    fn report_init(&mut self, took: Duration, why: &InitFailure) {
        if let Some(process) = &self.process {
            process.kill();
        }
        self.drain_log();
        let status = match why {
            InitFailure::TimedOut => InitStatus::Timeout,
            InitFailure::Failed(failure) => InitStatus::Error(&failure.error_type),
            InitFailure::Exited(exit) => InitStatus::Error(exit.error_type()),
            InitFailure::NoEntrypoint(_) => InitStatus::Error(Failure::NO_ENTRYPOINT),
            InitFailure::Extension(failed) => InitStatus::Error(failed.error_type),
        };
        let now = self.host.now();
        let line = self.lines.init_report(now, took, InitPhase::Init, status);
        self.journal.line(now, line);
        self.process = None;
    }

    /// What its extensions are told of a start.
    fn start_told(&self, begun: Instant) -> Start {
        Start {
            clock: self.host.clock(),
            phase: if self.current.is_some() { "invoke" } else { "init" },
            runtime_version: self.host.runtime_version(&self.plan),
            function: self.plan.deployment.version.function.name.to_string(),
            version: self.plan.version_text.clone(),
            begun,
        }
    }

    /// Writes how its extensions stand into the log.
    fn tell_extensions(&mut self) {
        let Some(process) = &self.process else { return };
        for subscription in process.subscriptions() {
            let now = self.host.now();
            self.journal.line(now, self.lines.subscription(now, &subscription));
        }
        for standing in process.standings() {
            let now = self.host.now();
            self.journal.line(now, self.lines.extension(now, &standing));
        }
    }

    /// Writes the last lines and the bill of an invocation.
    fn finish(&mut self, current: Current, finish: Finish) -> Completed {
        if !finish.reusable {
            self.launching = None;
            self.reason = match finish.verdict {
                Verdict::TimedOut => Reason::Timeout,
                _ => Reason::Failure,
            };
            match &self.process {
                // It is told, and ended then, by the shutdown phase that follows.
                Some(process) if process.has_extensions() => {}
                Some(process) => process.kill(),
                None => {}
            }
        }
        self.drain_log();
        let configuration = &self.plan.deployment.version.configuration;
        let id = &current.invocation.request_id;
        let ending =
            Ending::of(finish.verdict, id, configuration.timeout_seconds, finish.failed_init.is_some());
        let response = std::mem::take(&mut self.response);
        if !ending.is_failure() {
            response.whole(&ending.payload);
        }
        let now = self.host.now();
        if let Some(took) = finish.failed_init {
            let status = match ending.status() {
                Status::Timeout => InitStatus::Timeout,
                _ => InitStatus::Error(ending.error_type()),
            };
            self.journal.line(now, self.lines.init_report(now, took, InitPhase::Invoke, status));
        }
        if !current.started {
            self.journal.line(now, self.lines.start(now, id.as_str(), &self.plan.version_text));
        }
        if let Some(note) = ending.note(now) {
            self.journal.line(now, note);
        }
        let limit = u64::from(configuration.memory_mb) << 20;
        let usage = self.process.as_mut().map(|process| process.usage(limit)).unwrap_or_default();
        let peak_bytes = self.process.as_ref().map_or(0, |process| process.told_peak(&usage, limit));
        let report = Report {
            request_id: id.as_str(),
            duration: finish.duration,
            billed_ms: finish.billed_ms,
            memory_mb: configuration.memory_mb,
            max_memory_mb: peak_bytes.div_ceil(1 << 20),
            init: finish.init,
            status: ending.status(),
        };
        if let Some(news) = self.process.as_mut().and_then(Process::news) {
            news.report(&report);
        }
        for line in self.lines.end(now, &report) {
            self.journal.line(now, line);
        }
        let log_tail = self.journal.close();
        let cpu_micros = usage.cpu_micros.saturating_sub(self.cpu_micros_seen);
        self.cpu_micros_seen = usage.cpu_micros;
        let version = &self.plan.deployment.version;
        self.host.telemetry().meter(MeteringRecord {
            function: version.function.clone(),
            version: version.version,
            attempt: current.invocation.attempt,
            trigger: current.invocation.trigger,
            architecture: Arc::clone(&self.plan.architecture),
            memory_mb: configuration.memory_mb,
            environment: Arc::clone(&self.id),
            started: current.begun,
            cold_start: finish.init.is_some() || finish.failed_init.is_some(),
            init_micros: micros(finish.init.unwrap_or_default()),
            duration_micros: micros(finish.duration),
            billed_millis: finish.billed_ms,
            cpu_micros,
            max_memory_bytes: peak_bytes,
            bytes_in: current.invocation.payload.len() as u64,
            bytes_out: ending.payload.len().max(response.bytes()) as u64,
            status: ending.metered(),
            request_id: current.invocation.request_id,
        });
        Completed {
            function_error: ending.is_failure().then_some(FunctionError::Unhandled),
            payload: ending.payload,
            log_tail,
            reusable: finish.reusable,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
