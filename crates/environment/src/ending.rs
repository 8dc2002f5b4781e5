//! How an invocation that has ended is told: to its caller, in the log and on the bill.

use crate::life::Verdict;
use crate::log::{Status, iso};
use crate::outcome::Failure;
use bytes::Bytes;
use martlet_model::{RequestId, Timestamp};
use martlet_telemetry::Status as Metered;

/// A verdict put into words.
#[derive(Debug)]
pub(crate) struct Ending {
    /// What the caller gets.
    pub(crate) payload: Bytes,
    error_type: String,
    kind: Kind,
    /// The line in the log, still without a time-out's time.
    note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Success,
    /// The handler failed, the runtime lives on.
    Handler,
    /// Nothing lives on.
    Broken {
        out_of_memory: bool,
    },
    Timeout,
}

impl Ending {
    /// `in_init` tells that the handler was never reached.
    pub(crate) fn of(verdict: Verdict, id: &RequestId, timeout_seconds: u32, in_init: bool) -> Self {
        match verdict {
            Verdict::Response(payload) => {
                Self { payload, error_type: String::new(), kind: Kind::Success, note: None }
            }
            Verdict::Error(failure) => {
                let kind = if in_init { Kind::Broken { out_of_memory: false } } else { Kind::Handler };
                Self::failed(failure, kind, None)
            }
            Verdict::Exited(exit) => {
                let note = fault(id, &exit.reason(), exit.error_type());
                let kind = Kind::Broken { out_of_memory: exit.out_of_memory };
                Self::failed(Failure::exited(id, exit), kind, Some(note))
            }
            Verdict::NoEntrypoint(reason) => {
                let note = fault(id, &reason, Failure::NO_ENTRYPOINT);
                let kind = Kind::Broken { out_of_memory: false };
                Self::failed(Failure::entrypoint(id, &reason), kind, Some(note))
            }
            Verdict::Extension(failed) => {
                let note = fault(id, &failed.reason, failed.error_type);
                let kind = Kind::Broken { out_of_memory: false };
                Self::failed(Failure::extension(id, &failed), kind, Some(note))
            }
            Verdict::TimedOut => {
                let note = format!("{id} Task timed out after {timeout_seconds}.00 seconds");
                Self::failed(Failure::timed_out(id, timeout_seconds), Kind::Timeout, Some(note))
            }
        }
    }

    fn failed(failure: Failure, kind: Kind, note: Option<String>) -> Self {
        Self { payload: failure.document, error_type: failure.error_type, kind, note }
    }

    /// True when the payload describes a failure.
    pub(crate) fn is_failure(&self) -> bool {
        self.kind != Kind::Success
    }

    /// The type of the error; empty when there is none.
    pub(crate) fn error_type(&self) -> &str {
        &self.error_type
    }

    /// For the report.
    pub(crate) fn status(&self) -> Status<'_> {
        match self.kind {
            Kind::Success => Status::Success,
            Kind::Handler => Status::Failure(&self.error_type),
            Kind::Broken { .. } => Status::Error(&self.error_type),
            Kind::Timeout => Status::Timeout,
        }
    }

    /// For the bill.
    pub(crate) fn metered(&self) -> Metered {
        match self.kind {
            Kind::Success => Metered::Succeeded,
            Kind::Handler => Metered::FunctionError,
            Kind::Broken { out_of_memory: true } => Metered::OutOfMemory,
            Kind::Broken { out_of_memory: false } if self.note.is_none() => Metered::FunctionError,
            Kind::Broken { out_of_memory: false } => Metered::Crashed,
            Kind::Timeout => Metered::TimedOut,
        }
    }

    /// The platform's line before END; none where the function has logged the failure by itself.
    pub(crate) fn note(&self, now: Timestamp) -> Option<String> {
        let note = self.note.as_ref()?;
        Some(if self.kind == Kind::Timeout { format!("{} {note}", iso(now)) } else { note.clone() })
    }
}

fn fault(id: &RequestId, reason: &str, error_type: &str) -> String {
    format!("RequestId: {id} Error: {reason}\n{error_type}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Exit;
    use martlet_sandbox::ExitStatus;

    fn of(verdict: Verdict) -> Ending {
        Ending::of(verdict, &RequestId::from_random([0; 16]), 3, false)
    }

    #[test]
    fn each_verdict_is_told_in_its_own_way() {
        let now = Timestamp(1_767_225_603_000);
        let id = RequestId::from_random([0; 16]);

        let success = of(Verdict::Response("1".into()));
        assert_eq!((success.is_failure(), success.note(now)), (false, None));

        let late = of(Verdict::TimedOut);
        let line = format!("2026-01-01T00:00:03.000Z {id} Task timed out after 3.00 seconds");
        assert_eq!(
            (late.note(now), late.status(), late.metered()),
            (Some(line), Status::Timeout, Metered::TimedOut)
        );

        let exit = Exit { status: ExitStatus::Code(1), out_of_memory: false };
        let crash = of(Verdict::Exited(exit));
        let line =
            format!("RequestId: {id} Error: Runtime exited with error: exit status 1\nRuntime.ExitError");
        assert_eq!(crash.note(now), Some(line));
        assert_eq!((crash.status(), crash.metered()), (Status::Error("Runtime.ExitError"), Metered::Crashed));

        let memory = of(Verdict::Exited(Exit { out_of_memory: true, ..exit }));
        assert_eq!(
            (memory.status(), memory.metered()),
            (Status::Error("Runtime.OutOfMemory"), Metered::OutOfMemory)
        );

        let failure = Failure { error_type: "ValueError".into(), document: "{}".into() };
        let handler = of(Verdict::Error(failure.clone()));
        assert_eq!((handler.status(), handler.note(now)), (Status::Failure("ValueError"), None));
        let init = Ending::of(Verdict::Error(failure), &id, 3, true);
        assert_eq!((init.status(), init.metered()), (Status::Error("ValueError"), Metered::FunctionError));
    }
}
