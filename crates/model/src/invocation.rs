//! One event on its way to a function.

use crate::time::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The id of a request: a UUID in its usual text form, the same on every attempt. Clones share the text, for there are many:
/// every log line of an invocation has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct RequestId(Arc<str>);

impl From<String> for RequestId {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        (*id.0).to_owned()
    }
}

impl RequestId {
    /// Makes a version 4 UUID out of 16 random bytes; the caller brings the randomness.
    #[must_use]
    pub fn from_random(mut random: [u8; 16]) -> Self {
        random[6] = (random[6] & 0x0f) | 0x40;
        random[8] = (random[8] & 0x3f) | 0x80;
        let mut text = [b'-'; 36];
        let mut places = (0..36).filter(|place| !matches!(place, 8 | 13 | 18 | 23));
        for byte in random {
            for digit in [byte >> 4, byte & 0x0f] {
                if let Some(place) = places.next() {
                    text[place] = b"0123456789abcdef"[usize::from(digit)];
                }
            }
        }
        Self(String::from_utf8_lossy(&text).into())
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
    /// On whose behalf it runs, for a function whose tenants have environments of their own.
    pub tenant: Option<Arc<str>>,
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
