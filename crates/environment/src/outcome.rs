//! What came of an invocation.

use bytes::Bytes;

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
