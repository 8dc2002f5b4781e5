//! The process behind an environment: how it is started, and how to hear from it.

use crate::bootstraps::{PARK_FD, TELEMETRY_FD};
use crate::channel::{Channel, ChannelError};
use crate::extensions::{self, Extensions};
use crate::frame::RestoreMeta;
use crate::life::Input;
use crate::log::{LogPipe, Record};
use crate::outcome::Exit;
use crate::program::{Plan, Program, Role, check_entrypoint, exec_failure, specification, wrapper};
use crate::runtime_api::RuntimeApi;
use crate::stock::Stock;
use crate::variables::{INIT_TYPE_VARIABLE, LOG_STREAM_VARIABLE};
use crate::{InitType, StartError};
use martlet_model::{Invocation, Timestamp};
use martlet_sandbox::{ExitStatus, ExitWatch, LaunchError, Launcher, Parking, Sandbox, Shell, Step, Usage};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How old a look at the memory in use may be when an invocation ends.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How much the highest memory use may rise before the memory in use is looked at again, in bytes.
const MEMORY_STEP: u64 = 1 << 20;
/// The kernel kills for lack of memory only where less than this was left, in bytes: it takes memory in pieces of at most
/// 2 MB, and keeps some ahead for each CPU.
const OOM_ROOM: u64 = 16 << 20;

/// Why there is no process.
#[derive(Debug)]
pub(crate) enum LaunchFailure {
    /// The package has nothing that can be run; as Lambda words it.
    NoEntrypoint(String),
    /// An extension that cannot be run.
    Extension(extensions::Failed),
    /// The platform's fault.
    Platform(StartError),
}

impl From<StartError> for LaunchFailure {
    fn from(error: StartError) -> Self {
        Self::Platform(error)
    }
}

impl From<io::Error> for LaunchFailure {
    fn from(error: io::Error) -> Self {
        Self::Platform(StartError::Descriptors(error))
    }
}

/// A sandbox with the environment's main process in it. Dropping it kills everything inside.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) sandbox: Arc<Sandbox>,
    exit: ExitWatch,
    /// When it began, or the request to fork it was sent.
    begun: Instant,
    /// What makes a template of it.
    parking: Option<(Parking, Stock<Kit>)>,
    transport: Transport,
    log: LogPipe,
    /// What it has in common with its template, in bytes; counted there and not in its own usage.
    shared_bytes: u64,
    /// OOM kills before the event at hand: what was killed then has been survived.
    oom_kills_seen: u64,
    /// The last look at all of the usage, and when that was.
    looked: Option<(Instant, Usage)>,
    /// The runtime has closed its end, and only its exit is waited for.
    hung_up: bool,
    /// Its extensions; none for most. Before the runtime is ready, where they would be.
    pub(crate) extensions: Option<Box<Extensions>>,
}

#[derive(Debug)]
pub(crate) enum Transport {
    Managed(Channel),
    Provided(RuntimeApi),
}

/// A parked process: nothing of it is listened to any more but its end and its answers to requests to fork.
#[derive(Debug)]
pub(crate) struct TemplateProcess {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) exit: ExitWatch,
    pub(crate) parking: Parking,
    pub(crate) stock: Stock<Kit>,
}

/// The server's ends of what leads into a managed process.
#[derive(Debug)]
pub(crate) struct Ends {
    channel: Channel,
    log: LogPipe,
}

/// All that a fork needs and that can be made ahead of it: an empty sandbox, and what leads into it.
#[derive(Debug)]
pub(crate) struct Kit {
    shell: Shell,
    ends: Ends,
    descriptors: Vec<(OwnedFd, i32)>,
}

impl Kit {
    async fn make(launcher: Launcher, template: Weak<Sandbox>) -> Result<Self, StartError> {
        let shell = {
            let template = template.upgrade().ok_or(StartError::TemplateGone)?;
            let exit = template.exit();
            launcher.shell(&template).await.map_err(|error| match exit.status() {
                // There is nothing left to make one below.
                Some(_) => StartError::TemplateGone,
                None => StartError::Sandbox(error),
            })?
        };
        let (log, writer) = LogPipe::pair().map_err(StartError::Descriptors)?;
        let mut descriptors = output_descriptors(writer).map_err(StartError::Descriptors)?;
        let (channel, theirs) = Channel::pair().map_err(StartError::Descriptors)?;
        descriptors.push(theirs);
        Ok(Self { shell, ends: Ends { channel, log }, descriptors })
    }

    /// Takes it for a fork that will log to `log_stream`: the forked process finds itself told so, and what it is for.
    pub(crate) fn open(mut self, log_stream: &str, init: InitType) -> (Shell, Ends, Vec<(OwnedFd, i32)>) {
        let env = BTreeMap::from([(LOG_STREAM_VARIABLE, log_stream), (INIT_TYPE_VARIABLE, init.as_str())]);
        self.ends.channel.restore(&RestoreMeta { env: &env });
        (self.shell, self.ends, self.descriptors)
    }
}

impl Process {
    /// Makes the sandbox and starts the program in it, to log to `log_stream`.
    pub(crate) async fn launch(
        launcher: Launcher,
        plan: Arc<Plan>,
        log_stream: Arc<str>,
        role: Role,
    ) -> Result<Self, LaunchFailure> {
        let (log, writer) = LogPipe::pair()?;
        let mut descriptors = output_descriptors(writer)?;
        let mut spec = specification(&plan, &log_stream, role);
        let mut companions = extensions::Companions::of(&plan.deployment, role)?;
        companions.join(&mut spec, &mut descriptors);
        let mut parking = None;
        let channel = match (&plan.program, role) {
            (Program::Managed { .. }, Role::Environment) => {
                let (channel, theirs) = Channel::pair()?;
                descriptors.push(theirs);
                Some(channel)
            }
            (Program::Managed { .. }, Role::Template) => {
                let (channel, theirs) = Channel::pair_of_template()?;
                descriptors.push(theirs);
                let (ours, theirs) = Parking::pair()?;
                descriptors.push((theirs, PARK_FD));
                parking = Some(ours);
                Some(channel)
            }
            (Program::Provided { entrypoint }, _) => {
                check_entrypoint(&plan.deployment, entrypoint).map_err(LaunchFailure::NoEntrypoint)?;
                None
            }
        };
        let program = spec.argv[0].clone();
        let from_package = channel.is_none() || wrapper(&spec.env).is_some();
        let mut sandbox = match launcher.launch(spec, descriptors).await {
            Ok(sandbox) => sandbox,
            Err(LaunchError::Step { step: Step::Exec, errno, noun }) if companions.are(&noun) => {
                return Err(LaunchFailure::Extension(extensions::Failed::launch(exec_failure(
                    &noun, &errno,
                ))));
            }
            Err(LaunchError::Step { step: Step::Exec, errno, .. }) if from_package => {
                return Err(LaunchFailure::NoEntrypoint(exec_failure(&program, &errno)));
            }
            // A wrapper's path is the function's own choice.
            Err(LaunchError::Invalid(_)) if from_package => {
                let error = io::ErrorKind::NotFound.into();
                return Err(LaunchFailure::NoEntrypoint(exec_failure(&program, &error)));
            }
            Err(error) => return Err(LaunchFailure::Platform(StartError::Sandbox(error))),
        };
        let (extensions, transport) = companions.begin(&plan, &mut sandbox, channel)?;
        let sandbox = Arc::new(sandbox);
        let parking = parking.map(|parking| (parking, stock_of(launcher, &sandbox)));
        Ok(Self { parking, extensions, ..Self::new(sandbox, transport, log, Instant::now()) })
    }

    /// A process that has just been told its function, of which it is to become the template.
    pub(crate) fn of_template(
        launcher: Launcher,
        sandbox: Arc<Sandbox>,
        channel: Channel,
        log: LogPipe,
        parking: Parking,
    ) -> Self {
        let parking = Some((parking, stock_of(launcher, &sandbox)));
        Self { parking, ..Self::new(sandbox, Transport::Managed(channel), log, Instant::now()) }
    }

    /// A process that was forked into a sandbox, at a request that was sent at `begun`.
    pub(crate) fn forked(sandbox: Sandbox, ends: Ends, begun: Instant, shared_bytes: u64) -> Self {
        let process = Self::new(Arc::new(sandbox), Transport::Managed(ends.channel), ends.log, begun);
        Self { shared_bytes, ..process }
    }

    fn new(sandbox: Arc<Sandbox>, transport: Transport, log: LogPipe, begun: Instant) -> Self {
        Self {
            exit: sandbox.exit(),
            sandbox,
            begun,
            parking: None,
            transport,
            log,
            shared_bytes: 0,
            oom_kills_seen: 0,
            looked: None,
            hung_up: false,
            extensions: None,
        }
    }

    /// Takes it as a template, once it is parked; `None` when it was not started to be one.
    pub(crate) fn into_template(self) -> Option<TemplateProcess> {
        let (parking, stock) = self.parking?;
        Some(TemplateProcess { sandbox: self.sandbox, exit: self.exit, parking, stock })
    }

    /// It is no template and will not be one.
    pub(crate) fn close_parking(&mut self) {
        self.parking = None;
    }

    /// When its init phase began.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// Has the tokio runtime of the calling task hear from the process, if it is another one than before: being woken from
    /// another thread costs more than all else that a warm invocation does. True when it moved. The Runtime API's connections
    /// stay where they are.
    pub(crate) fn move_here(&mut self) -> bool {
        let Transport::Managed(channel) = &mut self.transport else { return false };
        if channel.is_here() {
            return false;
        }
        // The pipe is made where the socket is, and moves with it.
        if let Err(error) = channel.move_here().and_then(|()| self.log.move_here()) {
            // It is heard from where it was, only later.
            tracing::debug!(sandbox = self.sandbox.id(), %error, "could not move an environment to its caller's thread");
        }
        true
    }

    /// Gives the runtime an event; [`Process::poll`] drives it on.
    pub(crate) fn deliver(&mut self, invocation: &Invocation, deadline: Timestamp) {
        if let Some(extensions) = &mut self.extensions {
            extensions.invoke(invocation, deadline);
        }
        match &mut self.transport {
            Transport::Managed(channel) => channel.deliver(invocation, deadline),
            Transport::Provided(api) => api.deliver(invocation, deadline),
        }
    }

    /// What happens next; meanwhile appends what the process prints to `records`. What the runtime says waits until `listen`.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        records: &mut Vec<Record>,
        listen: bool,
    ) -> Poll<Input> {
        // An end that is known comes first: nobody is left to take an event.
        if let Some(status) = self.exit.status() {
            return if listen { Poll::Ready(self.ended(context, status)) } else { Poll::Pending };
        }
        if listen && let Poll::Ready(input) = self.poll_transport(context) {
            return Poll::Ready(input);
        }
        if self.log.poll(context, records).is_ready() {
            // There is more, but others have waited long enough.
            context.waker().wake_by_ref();
        }
        if let Poll::Ready(status) = Pin::new(&mut self.exit).poll(context)
            && listen
        {
            return Poll::Ready(self.ended(context, status));
        }
        Poll::Pending
    }

    fn poll_transport(&mut self, context: &mut Context<'_>) -> Poll<Input> {
        if self.hung_up {
            return Poll::Pending;
        }
        let (input, error) = match &mut self.transport {
            Transport::Managed(channel) => match std::task::ready!(channel.poll(context)) {
                Ok(input) => return Poll::Ready(input),
                Err(ChannelError::Unread) => return Poll::Ready(Input::Lost),
                // It is ending, or has chosen to be silent until its deadline.
                Err(ChannelError::Closed) => {
                    self.hung_up = true;
                    return Poll::Pending;
                }
                Err(error @ (ChannelError::Frame(_) | ChannelError::OutOfTurn(_))) => {
                    (Input::Violation, error.to_string())
                }
            },
            Transport::Provided(api) => match std::task::ready!(api.poll(context)) {
                Ok(input) => return Poll::Ready(input),
                Err(error) if api.is_untaken() => (Input::Lost, error.to_string()),
                Err(error) => (Input::Violation, error.to_string()),
            },
        };
        self.hung_up = true;
        tracing::debug!(sandbox = self.sandbox.id(), error, "ending a runtime that cannot be spoken with");
        self.sandbox.kill();
        Poll::Ready(input)
    }

    /// What the end means: an answer may have come right before it, and an event may not have been seen. The control socket
    /// tells that exactly. The Runtime API cannot where a signal had struck before the event was handed over and the process
    /// dies after: the kernel still took the event off the connection in its name, and it counts as seen.
    pub(crate) fn ended(&mut self, context: &mut Context<'_>, status: ExitStatus) -> Input {
        if !self.hung_up {
            match &mut self.transport {
                Transport::Managed(channel) => match channel.last_words() {
                    Ok(input) => return input,
                    Err(ChannelError::Unread) => return Input::Lost,
                    Err(_) => {}
                },
                // Nobody must take it any more, so it is looked at before the connections are.
                Transport::Provided(api) if api.is_untaken() => return Input::Lost,
                Transport::Provided(api) => match api.poll(context) {
                    Poll::Ready(Ok(input)) => return input,
                    _ if api.is_unread() => return Input::Lost,
                    _ => {}
                },
            }
        }
        Input::Exited(self.exit_of(status))
    }

    /// How it ended, if it has.
    pub(crate) fn exit(&self) -> Option<Exit> {
        let runtime = self.extensions.as_ref().and_then(|extensions| extensions.runtime_ended());
        self.exit.status().or(runtime).map(|status| self.exit_of(status))
    }

    fn exit_of(&self, status: ExitStatus) -> Exit {
        Exit { status, out_of_memory: self.sandbox.usage().oom_kills > self.oom_kills_seen }
    }

    /// Reads what it prints, and lets its extensions speak, while what the runtime said waits for them. How the sandbox ended,
    /// if it has.
    pub(crate) fn poll_aside(
        &mut self,
        context: &mut Context<'_>,
        records: &mut Vec<Record>,
    ) -> Poll<ExitStatus> {
        if let Transport::Provided(api) = &mut self.transport
            && !self.hung_up
        {
            // A runtime that has spoken has nothing more to say until it is given an event.
            let _ = api.poll(context);
        }
        if self.log.poll(context, records).is_ready() {
            context.waker().wake_by_ref();
        }
        Pin::new(&mut self.exit).poll(context)
    }

    /// The runtime speaks by the Runtime API, though it is a managed one.
    pub(crate) fn adopt(&mut self, api: RuntimeApi) {
        self.transport = Transport::Provided(api);
        self.hung_up = false;
    }

    /// Appends what the process and its extensions printed before this call to `records`.
    pub(crate) fn drain_log(&mut self, records: &mut Vec<Record>) {
        self.drain_runtime_log(records);
        if let Some(extensions) = &mut self.extensions {
            extensions.drain_log(records);
        }
    }

    /// The same without the extensions.
    pub(crate) fn drain_runtime_log(&mut self, records: &mut Vec<Record>) {
        let before = records.len();
        self.log.drain(records);
        if let Some(extensions) = &mut self.extensions {
            extensions.of_runtime(&records[before..]);
        }
    }

    /// What has been used so far of at most `limit` bytes of memory. OOM kills up to here are taken as survived.
    ///
    /// Highest memory and cpu time are of this moment. The memory that is held now is looked at when the highest has moved
    /// or a second has passed; so are OOM kills, unless there was too much room left for any.
    pub(crate) fn usage(&mut self, limit: u64) -> Usage {
        let now = Instant::now();
        let work = self.sandbox.work();
        if let Some((when, seen)) = &self.looked
            && now.saturating_duration_since(*when) < LOOK_AGAIN
            && work.memory_peak_bytes < seen.memory_peak_bytes + MEMORY_STEP
            && work.memory_peak_bytes + OOM_ROOM < limit
        {
            return Usage { memory_bytes: seen.memory_bytes, oom_kills: seen.oom_kills, ..work };
        }
        let usage = self.sandbox.usage();
        self.oom_kills_seen = usage.oom_kills;
        self.looked = Some((now, usage));
        usage
    }

    /// The most memory that a function of `limit` bytes is to be told it has used: what a fork shares with its template is
    /// memory that it would need on its own, too.
    pub(crate) fn told_peak(&self, usage: &Usage, limit: u64) -> u64 {
        let own = usage.memory_peak_bytes;
        own.max((own + self.shared_bytes).min(limit))
    }

    /// Memory held when the last invocation ended, in bytes, as [`Process::usage`] tells it; before the first one, at this
    /// moment.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.looked.map_or_else(|| self.sandbox.usage().memory_bytes, |(_, usage)| usage.memory_bytes)
    }

    /// Resolves when it has ended; may be held longer than the process.
    pub(crate) fn exit_watch(&self) -> ExitWatch {
        self.exit.clone()
    }

    pub(crate) fn kill(&self) {
        self.sandbox.kill();
    }

    /// The init phase is over: from here on the function has the share of CPU that its memory buys.
    pub(crate) fn end_init(&self, cpu_millis: u32) -> io::Result<()> {
        self.sandbox.set_cpu_millis(cpu_millis)
    }

    pub(crate) fn freeze(&self) -> io::Result<()> {
        self.sandbox.freeze()
    }

    pub(crate) fn thaw(&self) -> io::Result<()> {
        self.sandbox.thaw()
    }
}

/// The three numbers under which the log pipe appears. The telemetry descriptor is opened anew: a program that makes its
/// standard output non-blocking would otherwise make it so, too, and cut its own log frames.
pub(crate) fn output_descriptors(writer: OwnedFd) -> io::Result<Vec<(OwnedFd, i32)>> {
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let telemetry = OpenOptions::new().write(true).open(path)?;
    Ok(vec![(writer.try_clone()?, 1), (writer, 2), (telemetry.into(), TELEMETRY_FD)])
}

/// A stock for the template that is made in `sandbox`. The first kit is made while the init phase runs.
fn stock_of(launcher: Launcher, sandbox: &Arc<Sandbox>) -> Stock<Kit> {
    let template = Arc::downgrade(sandbox);
    Stock::new(move || Kit::make(launcher.clone(), template.clone()))
}
