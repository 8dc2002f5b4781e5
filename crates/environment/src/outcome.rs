//! What came of an invocation, and the documents that describe failures.

use crate::extensions::Failed;
use bytes::Bytes;
use martlet_model::limits::{RESPONSE_SLACK_BYTES, SYNC_RESPONSE_BYTES};
use martlet_model::{Invocation, RequestId};
use martlet_sandbox::ExitStatus;

/// How the caller is told that the function failed: the value of `X-Amz-Function-Error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionError {
    /// The function, its runtime or the platform around it failed.
    Unhandled,
    /// The function reported the failure by itself (older runtimes only; nothing here says it today).
    Handled,
}

impl FunctionError {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unhandled => "Unhandled",
            Self::Handled => "Handled",
        }
    }
}

/// A finished invocation. It is always an answer: what went wrong inside the function is part of it.
#[derive(Clone, Debug)]
pub struct Completed {
    /// What the function returned, or the JSON document that describes its failure.
    pub payload: Bytes,
    /// Set when `payload` describes a failure.
    pub function_error: Option<FunctionError>,
    /// The last 4 KB of the invocation's log, START to REPORT.
    pub log_tail: Vec<u8>,
    /// False after a crash, a time-out or running out of memory: the environment must be stopped.
    pub reusable: bool,
}

/// How an invocation that was begun came out.
#[derive(Clone, Debug)]
pub enum Completion {
    /// The function answered, failed, crashed or ran out of time. It is logged and metered.
    Done(Completed),
    /// The environment ended before the function saw the event, which can be given to another. Nothing was logged or
    /// metered for it. The environment must be stopped.
    Undelivered(Invocation),
}

/// An error document with its type, as the function or the platform wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) error_type: String,
    pub(crate) document: Bytes,
}

impl Failure {
    pub(crate) const OUT_OF_MEMORY: &'static str = "Runtime.OutOfMemory";
    pub(crate) const EXIT: &'static str = "Runtime.ExitError";
    pub(crate) const NO_ENTRYPOINT: &'static str = "Runtime.InvalidEntrypoint";

    fn new(error_type: &str, message: &str) -> Self {
        let document = serde_json::json!({ "errorType": error_type, "errorMessage": message });
        Self { error_type: error_type.to_owned(), document: document.to_string().into() }
    }

    /// The deadline passed.
    pub(crate) fn timed_out(id: &RequestId, timeout_seconds: u32) -> Self {
        let message = format!("RequestId: {id} Error: Task timed out after {timeout_seconds}.00 seconds");
        Self::new("Sandbox.Timedout", &message)
    }

    /// The process ended without an answer.
    pub(crate) fn exited(id: &RequestId, exit: Exit) -> Self {
        Self::new(exit.error_type(), &format!("RequestId: {id} Error: {}", exit.reason()))
    }

    /// There is nothing that could be started.
    pub(crate) fn entrypoint(id: &RequestId, reason: &str) -> Self {
        Self::new(Self::NO_ENTRYPOINT, &format!("RequestId: {id} Error: {reason}"))
    }

    /// An extension failed.
    pub(crate) fn extension(id: &RequestId, failed: &Failed) -> Self {
        Self::new(failed.error_type, &format!("RequestId: {id} Error: {}", failed.reason))
    }

    /// The result exceeds the limit.
    pub(crate) fn too_large() -> Self {
        Self::longer_than(SYNC_RESPONSE_BYTES + RESPONSE_SLACK_BYTES)
    }

    /// The same for another limit, in bytes.
    pub(crate) fn longer_than(limit: usize) -> Self {
        let message = format!("Response payload size exceeded maximum allowed payload size ({limit} bytes).");
        Self::new("Function.ResponseSizeTooLarge", &message)
    }

    /// The connection that carried the result broke in the middle.
    pub(crate) fn truncated() -> Self {
        Self::new("Runtime.TruncatedResponse", "the response ended before all of it had arrived")
    }

    /// The runtime announced a response mode that does not exist.
    pub(crate) fn response_mode() -> Self {
        Self::new("Runtime.InvalidResponseModeHeader", "Invalid function response mode")
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) status: ExitStatus,
    /// The kernel killed something in the sandbox for lack of memory.
    pub(crate) out_of_memory: bool,
}

impl Exit {
    /// Ended by us, because it did not keep to the protocol.
    pub(crate) const KILLED: Self = Self { status: ExitStatus::Signal(9), out_of_memory: false };

    /// The type of the error that it is.
    pub(crate) fn error_type(self) -> &'static str {
        if self.out_of_memory { Failure::OUT_OF_MEMORY } else { Failure::EXIT }
    }

    /// As Lambda words it.
    pub(crate) fn reason(self) -> String {
        match self.status {
            // What the kernel killed may have been a child, whose parent then ended in its own way.
            _ if self.out_of_memory => "Runtime exited with error: signal: killed".to_owned(),
            ExitStatus::Code(0) => "Runtime exited without providing a reason".to_owned(),
            status => format!("Runtime exited with error: {}", ended_how(status)),
        }
    }
}

/// How a process ended, as Lambda words it.
pub(crate) fn ended_how(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(0) => "exit code 0".to_owned(),
        ExitStatus::Code(code) => format!("exit status {code}"),
        ExitStatus::Signal(signal) => format!("signal: {}", signal_name(signal)),
    }
}

/// The names that Lambda prints, which are those of its implementation's language.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(failure: &Failure) -> &str {
        std::str::from_utf8(&failure.document).unwrap()
    }

    #[test]
    fn failures_of_the_platform_are_worded_as_lambda_words_them() {
        let id = RequestId::from_random([0; 16]);
        assert_eq!(
            text(&Failure::timed_out(&id, 3)),
            format!(
                r#"{{"errorMessage":"RequestId: {id} Error: Task timed out after 3.00 seconds","errorType":"Sandbox.Timedout"}}"#
            )
        );
        let exited = |status, out_of_memory| Failure::exited(&id, Exit { status, out_of_memory });
        for (failure, error_type, reason) in [
            (
                exited(ExitStatus::Code(1), false),
                "Runtime.ExitError",
                "Runtime exited with error: exit status 1",
            ),
            (
                exited(ExitStatus::Code(0), false),
                "Runtime.ExitError",
                "Runtime exited without providing a reason",
            ),
            (
                exited(ExitStatus::Signal(9), false),
                "Runtime.ExitError",
                "Runtime exited with error: signal: killed",
            ),
            (exited(ExitStatus::Signal(11), false), "Runtime.ExitError", "signal: segmentation fault"),
            (exited(ExitStatus::Signal(31), false), "Runtime.ExitError", "signal: signal 31"),
            (exited(ExitStatus::Code(1), true), "Runtime.OutOfMemory", "signal: killed"),
        ] {
            assert_eq!(failure.error_type, error_type);
            assert!(
                text(&failure).contains(&format!("RequestId: {id} Error: Runtime exited")),
                "{failure:?}"
            );
            assert!(text(&failure).contains(reason), "{failure:?}");
        }
        assert!(
            text(&Failure::too_large())
                .contains("Response payload size exceeded maximum allowed payload size (6291556 bytes).")
        );
    }
}
