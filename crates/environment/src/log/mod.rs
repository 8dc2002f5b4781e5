//! The log of an environment: what the function writes, cut into records, between the lines of the platform.

mod journal;
mod lines;
mod pipe;
mod records;

pub(crate) use journal::Journal;
pub(crate) use lines::{InitPhase, InitStatus, Lines, Report, Status, day, iso};
pub(crate) use pipe::LogPipe;
pub(crate) use records::{Record, Splitter};
