//! Who is registered, who waits for what, and what is refused: the Extensions API without HTTP.
//!
//! ```text
//! Started --register--> Registered --next--> Ready --event--> Running --next--> Ready
//! (external only)           |                  |                 |
//!                           +--init/error      +--exit/error-----+
//! ```
//! An external extension is a program that was started, known by its file's name before it registers. An internal one lives
//! inside the runtime's process and comes into being by registering, which it can until the runtime is ready.

use martlet_model::Timestamp;
use serde::Serialize;
use std::collections::VecDeque;

/// Most extensions of an environment.
pub(crate) const EXTENSIONS: usize = 10;

/// A refused call: always with status 403, and these words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) error_type: &'static str,
    pub(crate) message: String,
}

fn refusal(error_type: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { error_type, message: message.into() }
}

/// What extensions can ask to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Event {
    #[serde(rename = "INVOKE")]
    Invoke,
    #[serde(rename = "SHUTDOWN")]
    Shutdown,
}

impl Event {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Invoke => "INVOKE",
            Self::Shutdown => "SHUTDOWN",
        }
    }
}

/// Why an environment ends, as extensions are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Spindown,
    Timeout,
    Failure,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::Spindown => "SPINDOWN",
            Self::Timeout => "TIMEOUT",
            Self::Failure => "FAILURE",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Started,
    Registered,
    Ready,
    Running,
    InitError,
    ExitError,
    Exited,
}

impl State {
    /// The names that the API's refusals use.
    fn name(self) -> &'static str {
        match self {
            Self::Started => "Started",
            Self::Registered => "Registered",
            Self::Ready => "Ready",
            Self::Running => "Running",
            Self::InitError => "InitError",
            Self::ExitError => "ExitError",
            Self::Exited => "Exited",
        }
    }
}

#[derive(Clone, Debug)]
struct Extension {
    name: String,
    external: bool,
    /// Made up when it registers.
    id: String,
    events: Vec<Event>,
    state: State,
    error_type: Option<String>,
    /// Events that it has not come for, oldest first.
    waiting: VecDeque<String>,
}

/// How an extension stands at the end of the init phase, for the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Standing {
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) events: Vec<Event>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_type: Option<String>,
}

/// An extension has failed, and the environment with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) error_type: &'static str,
    pub(crate) reason: String,
}

impl Failed {
    pub(crate) fn launch(reason: String) -> Self {
        Self { error_type: "Extension.LaunchError", reason }
    }
}

/// What an extension that registers is told of its function.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FunctionShown {
    pub(crate) function_name: String,
    pub(crate) function_version: String,
    pub(crate) handler: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account_id: Option<String>,
}

/// All extensions of one environment.
#[derive(Debug)]
pub(crate) struct Registry {
    function: FunctionShown,
    extensions: Vec<Extension>,
    open: bool,
    failed: Option<Failed>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    event_type: &'a str,
    deadline_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invoked_function_arn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracing: Option<Tracing<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shutdown_reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Tracing<'a> {
    r#type: &'a str,
    value: &'a str,
}

impl Registry {
    /// For an environment in which the external extensions of these names are started.
    pub(crate) fn new(function: FunctionShown, external: &[String]) -> Self {
        let extensions = external.iter().map(|name| Extension {
            name: name.clone(),
            external: true,
            id: String::new(),
            events: Vec::new(),
            state: State::Started,
            error_type: None,
            waiting: VecDeque::new(),
        });
        Self { function, extensions: extensions.collect(), open: true, failed: None }
    }

    pub(crate) fn function(&self) -> &FunctionShown {
        &self.function
    }

    /// An extension asks to be told of `events`; `id` is what it is known by from then on.
    pub(crate) fn register(&mut self, name: &str, events: &[String], id: &str) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(refusal("Extension.InvalidExtensionName", "Empty extension name"));
        }
        let known = self.extensions.iter().position(|extension| extension.external && extension.name == name);
        let wanted = events.iter().map(|event| match event.as_str() {
            "INVOKE" => Ok(Event::Invoke),
            "SHUTDOWN" if known.is_some() => Ok(Event::Shutdown),
            "SHUTDOWN" => Err(refusal(
                "Extension.InvalidEventType",
                format!("{event}: ShutdownEventNotSupportedForInternalExtension"),
            )),
            _ => Err(refusal("Extension.InvalidEventType", format!("{event}: InvalidEventType"))),
        });
        let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
        let at = match known {
            Some(at) => at,
            None => self.come_into_being(name)?,
        };
        let extension = &mut self.extensions[at];
        if extension.state != State::Started {
            return Err(transition(extension, State::Registered, name));
        }
        for event in wanted {
            if !extension.events.contains(&event) {
                extension.events.push(event);
            }
        }
        extension.state = State::Registered;
        id.clone_into(&mut extension.id);
        Ok(())
    }

    /// A place for an internal extension.
    fn come_into_being(&mut self, name: &str) -> Result<usize, Refusal> {
        if !self.open {
            return Err(refusal("Extension.RegistrationClosed", "Extension registration closed already"));
        }
        if self.extensions.iter().any(|extension| extension.name == name) {
            let message = "Extension with this name already registered";
            return Err(refusal("Extension.InvalidExtensionState", message));
        }
        if self.extensions.len() >= EXTENSIONS {
            let message = format!("Extension limit ({EXTENSIONS}) reached");
            return Err(refusal("Extension.TooManyExtensions", message));
        }
        self.extensions.push(Extension {
            name: name.to_owned(),
            external: false,
            id: String::new(),
            events: Vec::new(),
            state: State::Started,
            error_type: None,
            waiting: VecDeque::new(),
        });
        Ok(self.extensions.len() - 1)
    }

    /// The name of the one that is known by `id`.
    pub(crate) fn name(&self, id: &str) -> Result<&str, Refusal> {
        match self.extensions.iter().find(|extension| !id.is_empty() && extension.id == id) {
            Some(extension) => Ok(&extension.name),
            None => Err(unknown(id)),
        }
    }

    fn known(&mut self, id: &str) -> Result<&mut Extension, Refusal> {
        self.extensions
            .iter_mut()
            .find(|extension| !id.is_empty() && extension.id == id)
            .ok_or_else(|| unknown(id))
    }

    /// An extension has done what it had to, and waits for [`Registry::event`].
    pub(crate) fn next(&mut self, id: &str) -> Result<(), Refusal> {
        let extension = self.known(id)?;
        match extension.state {
            // One that waits already has lost its connection.
            State::Registered | State::Running | State::Ready => {
                extension.state = State::Ready;
                Ok(())
            }
            _ => Err(transition(extension, State::Ready, id)),
        }
    }

    /// Whether there is an event for an extension that waits.
    pub(crate) fn has_event(&self, id: &str) -> bool {
        let waits = |extension: &Extension| extension.state == State::Ready && !extension.waiting.is_empty();
        self.extensions.iter().any(|extension| extension.id == id && waits(extension))
    }

    /// The next event for an extension that waits, as JSON.
    pub(crate) fn event(&mut self, id: &str) -> Option<String> {
        let extension = self.known(id).ok()?;
        if extension.state != State::Ready {
            return None;
        }
        let event = extension.waiting.pop_front()?;
        extension.state = State::Running;
        Some(event)
    }

    /// An extension says that it could not start.
    pub(crate) fn init_error(&mut self, id: &str, error_type: &str) -> Result<(), Refusal> {
        let extension = self.known(id)?;
        match extension.state {
            State::InitError => return Ok(()),
            State::Registered => {}
            _ => return Err(transition(extension, State::InitError, id)),
        }
        extension.state = State::InitError;
        extension.error_type = Some(error_type.to_owned());
        let reason = format!("{} failed to start: {error_type}", extension.name);
        self.fail("Extension.InitError", reason);
        Ok(())
    }

    /// An extension says that it is about to end.
    pub(crate) fn exit_error(&mut self, id: &str, error_type: &str) -> Result<(), Refusal> {
        let extension = self.known(id)?;
        match extension.state {
            State::ExitError => return Ok(()),
            State::Registered | State::Ready | State::Running => {}
            _ => return Err(transition(extension, State::Exited, id)),
        }
        extension.state = State::ExitError;
        extension.error_type = Some(error_type.to_owned());
        let reason = format!("{} ended: {error_type}", extension.name);
        self.fail("Extension.ExitError", reason);
        Ok(())
    }

    /// The process of an external extension, which is the one at this place, ended in this way.
    pub(crate) fn exited(&mut self, at: usize, how: &str) {
        if let Some(extension) = self.extensions.get_mut(at) {
            extension.state = State::Exited;
            self.fail("Extension.Crash", how.to_owned());
        }
    }

    fn fail(&mut self, error_type: &'static str, reason: String) {
        // The first counts: what follows is what comes of it.
        self.failed.get_or_insert(Failed { error_type, reason });
    }

    /// The failure of an extension, once.
    pub(crate) fn take_failed(&mut self) -> Option<Failed> {
        self.failed.take()
    }

    /// Whether every external extension has registered: the runtime is started then.
    pub(crate) fn all_registered(&self) -> bool {
        self.extensions.iter().all(|extension| extension.state != State::Started)
    }

    /// The runtime is ready: nobody can register any more.
    pub(crate) fn close(&mut self) {
        self.open = false;
    }

    /// Whether no extension has anything to do: the init phase, or the invocation, is over as far as they are concerned.
    pub(crate) fn all_waiting(&self) -> bool {
        self.extensions
            .iter()
            .all(|extension| extension.state == State::Ready && extension.waiting.is_empty())
    }

    /// Tells all that want to know of an invocation.
    pub(crate) fn invoke(&mut self, request_id: &str, arn: &str, trace: &str, deadline: Timestamp) {
        let tracing = (!trace.is_empty()).then_some(Tracing { r#type: "X-Amzn-Trace-Id", value: trace });
        self.tell(
            Event::Invoke,
            &Told {
                event_type: Event::Invoke.name(),
                deadline_ms: deadline.0,
                request_id: Some(request_id),
                invoked_function_arn: Some(arn),
                tracing,
                shutdown_reason: None,
            },
        );
    }

    /// Tells all that want to know that the environment ends. Failures count no more.
    pub(crate) fn shut_down(&mut self, reason: Reason, deadline: Timestamp) {
        for extension in &mut self.extensions {
            extension.waiting.clear();
        }
        self.tell(
            Event::Shutdown,
            &Told {
                event_type: Event::Shutdown.name(),
                deadline_ms: deadline.0,
                request_id: None,
                invoked_function_arn: None,
                tracing: None,
                shutdown_reason: Some(reason.name()),
            },
        );
    }

    fn tell(&mut self, event: Event, told: &Told<'_>) {
        // Strings and numbers always serialize.
        let text = serde_json::to_string(told).unwrap_or_default();
        for extension in &mut self.extensions {
            if extension.events.contains(&event) {
                extension.waiting.push_back(text.clone());
            }
        }
    }

    /// Whether anybody registered.
    pub(crate) fn is_empty(&self) -> bool {
        self.extensions.is_empty()
    }

    /// Whether there are extensions with processes of their own.
    pub(crate) fn has_external(&self) -> bool {
        self.extensions.iter().any(|extension| extension.external)
    }

    /// Whether the external extension at this place is to end by itself: it asked to be told, and can be.
    pub(crate) fn ends_by_itself(&self, at: usize) -> bool {
        self.extensions
            .get(at)
            .is_some_and(|extension| extension.external && extension.events.contains(&Event::Shutdown))
    }

    /// Everybody, in order of coming.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        let standing = |extension: &Extension| Standing {
            name: extension.name.clone(),
            state: extension.state.name(),
            events: extension.events.clone(),
            error_type: extension.error_type.clone(),
        };
        self.extensions.iter().map(standing).collect()
    }
}

fn unknown(id: &str) -> Refusal {
    refusal("Extension.UnknownExtensionIdentifier", format!("Unknown extension {id}"))
}

fn transition(extension: &Extension, to: State, who: &str) -> Refusal {
    let message = format!(
        "State transition from {} to {} failed for extension {who}. Error: State transition is not allowed",
        extension.state.name(),
        to.name()
    );
    refusal("Extension.InvalidExtensionState", message)
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
