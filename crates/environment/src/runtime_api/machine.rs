//! The order in which a runtime may call, without HTTP.
//!
//! ```text
//! Started --next--> Ready --event--> Running --post--> Response | ErrorResponse --read--> Answered --next--> Ready
//!    |                                  |
//!    +--init/error--> InitError         +--next: the same event once more
//! ```

use crate::life::Input;
use crate::outcome::Failure;
use crate::stream::Part;
use bytes::Bytes;
use std::collections::VecDeque;

/// A refused call: status and JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) error_type: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    fn new(status: u16, error_type: &'static str, message: impl Into<String>) -> Self {
        Self { status, error_type, message: message.into() }
    }

    fn transition(from: State, to: &str) -> Self {
        let message = format!(
            "State transition from {} to {to} failed for runtime. Error: State transition is not allowed",
            from.name()
        );
        Self::new(403, "InvalidStateTransition", message)
    }

    fn request_id() -> Self {
        Self::new(400, "InvalidRequestID", "Invalid request ID")
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("Exceeded maximum allowed payload size ({limit} bytes).");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub(super) fn truncated() -> Self {
        Self::new(400, "TruncatedHTTPRequest", "HTTP request detected as truncated")
    }

    pub(super) fn response_mode() -> Self {
        Self::new(400, "InvalidFunctionResponseMode", "Invalid function response mode")
    }
}

/// An event as `next` hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) request_id: String,
    /// Differs between attempts at one request; a runtime that knows it repeats it with its answer.
    pub(crate) invocation_id: String,
    pub(crate) deadline_ms: u64,
    pub(crate) arn: String,
    pub(crate) trace_id: String,
    pub(crate) client_context: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) payload: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Started,
    InitError,
    Ready,
    Running,
    Response,
    ErrorResponse,
    Answered,
}

impl State {
    /// The names that the API's refusals use.
    fn name(self) -> &'static str {
        match self {
            Self::Started => "Started",
            Self::InitError => "InitError",
            Self::Ready => "Ready",
            Self::Running => "Running",
            Self::Response => "InvocationResponse",
            Self::ErrorResponse => "InvocationErrorResponse",
            Self::Answered => "RuntimeResponseSentState",
        }
    }
}

/// Which of the two answers a runtime posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    Response,
    Error,
}

/// The runtime's side of one environment.
#[derive(Debug)]
pub(crate) struct Machine {
    state: State,
    /// An event that no runtime has taken yet.
    offered: Option<Event>,
    /// The event that was taken last. Stays known after its answer, so that a second answer to it is told from one with a
    /// wrong id.
    taken: Option<Event>,
    /// The connection on which it was taken.
    taker: u64,
    /// News for the environment: what has not been taken of a response that comes piece by piece, and what ends a phase.
    news: VecDeque<Input>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { state: State::Started, offered: None, taken: None, taker: 0, news: VecDeque::new() }
    }

    /// Puts up the next event, for whoever waits in `next` or calls it later.
    pub(crate) fn offer(&mut self, event: Event) {
        self.offered = Some(event);
    }

    /// True while no runtime has taken the event that was put up last.
    pub(crate) fn is_untaken(&self) -> bool {
        self.offered.is_some()
    }

    /// True when a runtime that waits in `next` would get an event.
    pub(crate) fn has_event(&self) -> bool {
        match self.state {
            State::Ready => self.offered.is_some(),
            state => state == State::Running,
        }
    }

    /// News for the environment, once.
    pub(crate) fn take_news(&mut self) -> Option<Input> {
        self.news.pop_front()
    }

    /// A runtime calls `next`; it then waits for [`Machine::event`].
    pub(crate) fn next(&mut self) -> Result<(), Refusal> {
        match self.state {
            State::Started => self.news.push_back(Input::Ready),
            State::Answered | State::Ready => {}
            // It has lost the event, or never read it: it gets the same once more.
            State::Running => return Ok(()),
            state @ (State::InitError | State::Response | State::ErrorResponse) => {
                return Err(Refusal::transition(state, State::Ready.name()));
            }
        }
        self.state = State::Ready;
        Ok(())
    }

    /// The event for a runtime that waits in `next` on `connection`, as soon as there is one.
    pub(crate) fn event(&mut self, connection: u64) -> Option<Event> {
        match self.state {
            State::Ready => {
                self.taken = Some(self.offered.take()?);
                self.state = State::Running;
            }
            State::Running => {}
            _ => return None,
        }
        self.taker = connection;
        self.taken.clone()
    }

    /// `connection` was closed by the runtime with bytes in it that the runtime had not read. If the event was among them,
    /// nobody has seen it: it is put up again.
    pub(crate) fn unread(&mut self, connection: u64) {
        if self.state == State::Running && self.taker == connection {
            self.state = State::Ready;
            self.offered = self.taken.take();
        }
    }

    /// A runtime begins to post an answer to the event `request_id`. What it posts is then read and given to
    /// [`Machine::answer`].
    pub(crate) fn begin_answer(
        &mut self,
        kind: AnswerKind,
        request_id: &str,
        invocation_id: Option<&str>,
    ) -> Result<(), Refusal> {
        let known = self.taken.as_ref().is_some_and(|event| {
            event.request_id == request_id && invocation_id.is_none_or(|id| event.invocation_id == id)
        });
        if !known {
            return Err(Refusal::request_id());
        }
        let next = match kind {
            AnswerKind::Response => State::Response,
            AnswerKind::Error => State::ErrorResponse,
        };
        if self.state != State::Running {
            return Err(Refusal::transition(self.state, next.name()));
        }
        self.state = next;
        Ok(())
    }

    /// True when the environment has taken every part of the response so far: until then no further one is read.
    pub(crate) fn is_heard(&self) -> bool {
        self.news.is_empty()
    }

    /// A part of the response that was begun.
    pub(crate) fn part(&mut self, part: Part) {
        if self.state == State::Response {
            self.news.push_back(Input::Stream(part));
        }
    }

    /// The answer that was begun is there, or has failed; `input` is what the environment learns.
    pub(crate) fn answer(&mut self, input: Input) {
        if matches!(self.state, State::Response | State::ErrorResponse) {
            self.state = State::Answered;
            self.news.push_back(input);
        }
    }

    /// A runtime says that its init phase failed.
    pub(crate) fn init_error(&mut self, failure: Failure) -> Result<(), Refusal> {
        if self.state != State::Started {
            return Err(Refusal::transition(self.state, State::InitError.name()));
        }
        self.state = State::InitError;
        self.news.push_back(Input::InitError(failure));
        Ok(())
    }
}

/// The error type that a runtime gave, if it is one that the API takes: `Runtime.` or `Function.` and a name of letters that
/// begins with a capital.
pub(crate) fn error_type(given: &str) -> String {
    let valid = ["Runtime.", "Function."].iter().any(|prefix| {
        given.match_indices(prefix).any(|(at, _)| {
            let name = &given.as_bytes()[at + prefix.len()..];
            matches!(name, [first, second, ..] if first.is_ascii_uppercase() && second.is_ascii_alphabetic())
        })
    });
    if valid && given.len() <= 256 {
        given.to_owned()
    } else if given.starts_with("Function.") {
        "Function.Unknown".to_owned()
    } else {
        "Runtime.Unknown".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(id: &str) -> Event {
        Event {
            request_id: id.into(),
            invocation_id: format!("attempt-{id}"),
            deadline_ms: 1,
            arn: "arn".into(),
            trace_id: String::new(),
            client_context: None,
            tenant: None,
            payload: Bytes::from_static(b"{}"),
        }
    }

    fn response() -> Input {
        Input::Response(Bytes::from_static(b"1"))
    }

    fn failure() -> Failure {
        Failure { error_type: "Runtime.X".into(), document: Bytes::new() }
    }

    fn running(id: &str) -> Machine {
        let mut machine = Machine::new();
        machine.next().unwrap();
        assert!(matches!(machine.take_news(), Some(Input::Ready)));
        machine.offer(event(id));
        assert_eq!(machine.event(1), Some(event(id)));
        machine
    }

    #[test]
    fn events_are_taken_and_answered_in_turn() {
        let mut machine = running("a");
        assert!(!machine.is_untaken());
        machine.begin_answer(AnswerKind::Response, "a", Some("attempt-a")).unwrap();
        assert!(machine.take_news().is_none(), "the body is not there yet");
        machine.answer(response());
        assert!(matches!(machine.take_news(), Some(Input::Response(_))));

        // The event may be put up before the runtime comes for it.
        machine.offer(event("b"));
        assert_eq!(machine.event(1), None);
        machine.next().unwrap();
        assert!(machine.is_untaken());
        assert_eq!(machine.event(1), Some(event("b")));
        assert!(machine.take_news().is_none(), "only the first next ends an init phase");
        machine.next().unwrap();
        assert_eq!(machine.event(1), Some(event("b")), "asked again, the same event");
        machine.begin_answer(AnswerKind::Error, "b", None).unwrap();
        machine.answer(Input::Error { failure: failure(), fatal: false });
        assert!(matches!(machine.take_news(), Some(Input::Error { .. })));
    }

    #[test]
    fn wrong_ids_and_wrong_order_are_refused_with_lambdas_words() {
        let mut machine = Machine::new();
        let early = machine.begin_answer(AnswerKind::Response, "a", None).unwrap_err();
        assert_eq!((early.status, early.error_type), (400, "InvalidRequestID"));
        let mut machine = running("a");
        for (id, attempt) in [("b", None), ("a", Some("attempt-b")), ("", None)] {
            let refused = machine.begin_answer(AnswerKind::Response, id, attempt).unwrap_err();
            assert_eq!((refused.status, refused.error_type), (400, "InvalidRequestID"));
        }
        machine.begin_answer(AnswerKind::Response, "a", None).unwrap();
        let twice = machine.begin_answer(AnswerKind::Error, "a", None).unwrap_err();
        assert_eq!((twice.status, twice.error_type), (403, "InvalidStateTransition"));
        assert_eq!(
            twice.message,
            "State transition from InvocationResponse to InvocationErrorResponse failed for runtime. Error: State transition is not allowed"
        );
        assert_eq!(machine.next().unwrap_err().status, 403);
        machine.answer(response());
        let late = machine.begin_answer(AnswerKind::Response, "a", None).unwrap_err();
        assert!(
            late.message.starts_with("State transition from RuntimeResponseSentState to InvocationResponse")
        );
    }

    #[test]
    fn an_event_that_was_not_read_is_put_up_again() {
        let mut machine = running("a");
        machine.unread(2);
        assert!(!machine.is_untaken(), "another connection");
        machine.unread(1);
        assert!(machine.is_untaken());
        assert_eq!(machine.event(3), Some(event("a")));
        machine.begin_answer(AnswerKind::Response, "a", None).unwrap();
        machine.unread(3);
        assert!(!machine.is_untaken(), "whoever answers it has read it");
    }

    #[test]
    fn init_errors_come_before_anything_else_or_not_at_all() {
        let mut machine = Machine::new();
        machine.init_error(failure()).unwrap();
        assert!(matches!(machine.take_news(), Some(Input::InitError(_))));
        assert_eq!(machine.init_error(failure()).unwrap_err().status, 403);
        assert_eq!(machine.next().unwrap_err().status, 403);
        assert_eq!(running("a").init_error(failure()).unwrap_err().error_type, "InvalidStateTransition");
    }

    #[test]
    fn only_the_apis_own_error_types_are_taken() {
        for valid in ["Runtime.MyError", "Function.Abc", "xRuntime.Ab"] {
            assert_eq!(error_type(valid), valid);
        }
        for (given, taken) in [
            ("", "Runtime.Unknown"),
            ("Unhandled", "Runtime.Unknown"),
            ("Runtime.lower", "Runtime.Unknown"),
            ("Runtime.A", "Runtime.Unknown"),
            ("Function.", "Function.Unknown"),
            ("Function.9", "Function.Unknown"),
        ] {
            assert_eq!(error_type(given), taken, "{given}");
        }
    }

    proptest! {
        #[test]
        fn each_event_is_answered_at_most_once(calls in prop::collection::vec((0u8..7, 0usize..3), 0..80)) {
            let ids = ["a", "b", "c"];
            let mut machine = Machine::new();
            let (mut offered, mut answers) = (0, 0);
            for (call, id) in calls {
                match call {
                    0 => { let _ = machine.next(); }
                    1 if !machine.is_untaken() && matches!(machine.state, State::Ready | State::Answered) => {
                        machine.offer(event(ids[id]));
                        offered += 1;
                    }
                    1 => {}
                    2 => { machine.event(1); }
                    3 => { let _ = machine.begin_answer(AnswerKind::Response, ids[id], None); }
                    4 => { let _ = machine.begin_answer(AnswerKind::Error, ids[id], None); }
                    5 => machine.answer(response()),
                    _ => { let _ = machine.init_error(failure()); }
                }
                if let Some(Input::Response(_)) = machine.take_news() {
                    answers += 1;
                }
                prop_assert!(answers <= offered);
            }
        }
    }
}
