//! What is recorded: log events, and one metering record an invocation.

use martlet_model::{AccountId, FunctionArn, Region, RequestId, Timestamp, Trigger, Version};
use std::sync::Arc;

/// One record of a log stream; its message may have several lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEvent {
    /// When it was written, by the clock of this machine.
    pub timestamp: Timestamp,
    /// The text, without a final line feed.
    pub message: String,
    /// The invocation it belongs to; `None` outside of invocations (the init and shutdown phases).
    pub request_id: Option<RequestId>,
}

/// The name under which telemetry keeps a log group: its ARN, because accounts and regions have groups of the same
/// name. Every `group` of this crate's methods is such a name.
#[must_use]
pub fn log_group_arn(account: &AccountId, region: &Region, name: &str) -> Arc<str> {
    format!("arn:aws:logs:{region}:{account}:log-group:{name}").into()
}

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The handler returned.
    Succeeded,
    /// The handler failed, or the runtime reported an error.
    FunctionError,
    /// It was stopped at its deadline.
    TimedOut,
    /// It needed more memory than it has.
    OutOfMemory,
    /// Its process ended in the middle.
    Crashed,
}

/// What one invocation used: enough to compute any bill from it. Quantities are as measured, units in the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeteringRecord {
    /// The function, and with it the account and the region.
    pub function: FunctionArn,
    /// The version that ran.
    pub version: Version,
    /// The request.
    pub request_id: RequestId,
    /// Which attempt at it, from 1.
    pub attempt: u32,
    /// What made it run.
    pub trigger: Trigger,
    /// `x86_64` or `arm64`.
    pub architecture: Arc<str>,
    /// Configured memory.
    pub memory_mb: u32,
    /// The execution environment that ran it.
    pub environment: Arc<str>,
    /// When the invoke phase began.
    pub started: Timestamp,
    /// Whether the environment was started for it.
    pub cold_start: bool,
    /// The init phase that preceded it; 0 unless `cold_start`.
    pub init_micros: u64,
    /// From the event's hand-over to the answer.
    pub duration_micros: u64,
    /// What is billed, in whole milliseconds.
    pub billed_millis: u64,
    /// CPU time of all its processes.
    pub cpu_micros: u64,
    /// Highest memory use of the environment so far.
    pub max_memory_bytes: u64,
    /// Size of the event.
    pub bytes_in: u64,
    /// Size of the answer.
    pub bytes_out: u64,
    /// How it ended.
    pub status: Status,
}

/// A kind that the database keeps as a number, whose meaning never changes.
pub(crate) trait Numbered: Sized {
    fn number(self) -> i64;
    fn from_number(number: i64) -> Option<Self>;
}

macro_rules! stored_as_number {
    ($type:ident { $($variant:ident = $number:literal),+ }) => {
        impl Numbered for $type {
            fn number(self) -> i64 {
                match self { $(Self::$variant => $number),+ }
            }

            fn from_number(number: i64) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

stored_as_number!(Trigger { Request = 0, Event = 1 });
stored_as_number!(Status { Succeeded = 0, FunctionError = 1, TimedOut = 2, OutOfMemory = 3, Crashed = 4 });
