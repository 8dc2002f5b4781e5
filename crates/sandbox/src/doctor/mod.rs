//! What this machine can isolate, and how to mend what it cannot.
//!
//! Looking and judging are apart: `facts` asks the kernel and changes nothing, `judge` is a pure function of what was
//! found, so that machines that nobody here has can be tested too.

mod facts;
mod judge;

use crate::spec::{Isolation, TmpKind};

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// As it should be.
    Ok,
    /// Less than there could be, and enough for what was asked.
    Degraded,
    /// What was asked is not possible without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is, in a few words; unique among the findings.
    pub name: String,
    /// How it stands.
    pub status: Status,
    /// What was seen.
    pub detail: String,
    /// What to type or change; empty where nothing needs to be done.
    pub remedy: String,
}

/// Looks at this machine as whoever calls it, root or a user. Starts one short-lived process in namespaces of its own to
/// see whether that works; otherwise has no side effects, and may be called beside a running server. Blocks for a few
/// milliseconds.
pub fn examine(isolation: Isolation, tmp: TmpKind) -> Vec<Finding> {
    judge::judge(&facts::Facts::gather(), isolation, tmp)
}
