//! One event on its way to a function.

use crate::time::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The id of a request: a UUID in its usual text form, the same on every attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(String);

impl RequestId {
    /// Makes a version 4 UUID out of 16 random bytes; the caller brings the randomness.
    #[must_use]
    pub fn from_random(mut random: [u8; 16]) -> Self {
        random[6] = (random[6] & 0x0f) | 0x40;
        random[8] = (random[8] & 0x3f) | 0x80;
        let mut text = String::with_capacity(36);
        for (index, byte) in random.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            for digit in [byte >> 4, byte & 0x0f] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        Self(text)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What made an invocation happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A caller waits for the answer.
    Request,
    /// An asynchronous event out of the queue.
    Event,
}

/// One event for one function version, as an execution environment gets it.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The id that the caller, the function and the log see.
    pub request_id: RequestId,
    /// The ARN as invoked, with the qualifier that the caller gave.
    pub invoked_arn: String,
    /// The event: JSON text, at most 6 MB.
    pub payload: Bytes,
    /// The client context, base64-decoded: JSON text.
    pub client_context: Option<String>,
    /// The X-Ray trace header that the function sees.
    pub trace_id: String,
    /// When the request was accepted.
    pub accepted: Timestamp,
    /// What made it happen.
    pub trigger: Trigger,
    /// Which try of the request this is, counted from 1.
    pub attempt: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_version_4_uuids() {
        assert_eq!(RequestId::from_random([0xff; 16]).as_str(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(RequestId::from_random([0; 16]).as_str(), "00000000-0000-4000-8000-000000000000");
    }
}
