//! How an event is kept in the log: a version byte, the length of a JSON head, the head, and the payload unless it is
//! big; big payloads are blobs.

use crate::Event;
use bytes::{BufMut, Bytes, BytesMut};
use martlet_model::{FunctionArn, RequestId, Timestamp, Version};
use martlet_store::Digest;
use serde::{Deserialize, Serialize};

/// The only form so far.
const FORM: u8 = 1;
/// Payloads above this are kept as blobs.
pub(crate) const INLINE_BYTES: usize = 64 * 1024;

/// A record is not one of ours, or of a newer Martlet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("the record has form {0:?}, this version knows {FORM}")]
    Form(Option<u8>),
    #[error("the record is cut off")]
    Short,
    #[error("the head of the record cannot be read")]
    Head(#[source] serde_json::Error),
    #[error("the record names {0:?} as its payload's digest")]
    Digest(String),
}

#[derive(Serialize, Deserialize)]
struct Head {
    request_id: RequestId,
    function: FunctionArn,
    #[serde(skip_serializing_if = "Option::is_none")]
    qualifier: Option<String>,
    version: Version,
    trace_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    accepted: Timestamp,
    /// Where the payload is when it does not follow the head.
    #[serde(skip_serializing_if = "Option::is_none")]
    blob: Option<String>,
}

/// Where an event's payload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// In the record.
    Here(Bytes),
    /// In the blob of this digest, after [`blob_head`].
    Blob(Digest),
}

/// An event's blob begins with the request id, so that no two events share one and each can delete its own.
pub(crate) fn blob_head(request_id: &RequestId) -> String {
    format!("martlet event {request_id}\n")
}

/// The bytes for the log. The event's own payload is not looked at.
pub(crate) fn encode(event: &Event, payload: &Payload) -> Bytes {
    let (here, blob) = match payload {
        Payload::Here(bytes) => (bytes.clone(), None),
        Payload::Blob(digest) => (Bytes::new(), Some(digest.to_string())),
    };
    let head = Head {
        request_id: event.request_id.clone(),
        function: event.function.clone(),
        qualifier: event.qualifier.clone(),
        version: event.version,
        trace_id: event.trace_id.clone(),
        tenant: event.tenant.as_deref().map(str::to_owned),
        accepted: event.accepted,
        blob,
    };
    // Plain strings and numbers: this cannot fail, and an empty head would be refused when it is read.
    let head = serde_json::to_vec(&head).unwrap_or_default();
    let mut record = BytesMut::with_capacity(5 + head.len() + here.len());
    record.put_u8(FORM);
    record.put_u32(u32::try_from(head.len()).unwrap_or(u32::MAX));
    record.put_slice(&head);
    record.put_slice(&here);
    record.freeze()
}

/// The event, its payload empty, and where the payload is.
pub(crate) fn decode(record: &Bytes) -> Result<(Event, Payload), RecordError> {
    let form = record.first().copied();
    if form != Some(FORM) {
        return Err(RecordError::Form(form));
    }
    let (length, rest) = record[1..].split_first_chunk::<4>().ok_or(RecordError::Short)?;
    let length = u32::from_be_bytes(*length) as usize;
    let head = rest.get(..length).ok_or(RecordError::Short)?;
    let head: Head = serde_json::from_slice(head).map_err(RecordError::Head)?;
    let payload = match head.blob {
        None => Payload::Here(record.slice(5 + length..)),
        Some(digest) => Payload::Blob(digest.parse().map_err(|_| RecordError::Digest(digest))?),
    };
    let event = Event {
        request_id: head.request_id,
        function: head.function,
        qualifier: head.qualifier,
        version: head.version,
        payload: Bytes::new(),
        trace_id: head.trace_id,
        tenant: head.tenant.map(Into::into),
        accepted: head.accepted,
    };
    Ok((event, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::event;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back_as_they_were(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            qualifier in proptest::option::of("\\PC{0,20}"),
            published in any::<Option<u64>>(),
            trace_id in "\\PC{0,40}",
            in_blob in any::<bool>(),
            tenant in proptest::option::of("[a-z]{1,9}"),
        ) {
            let version = published.map_or(Version::Latest, Version::Published);
            let tenant = tenant.map(Into::into);
            let event = Event { qualifier, version, trace_id, tenant, payload: Bytes::new(), ..event(1) };
            let payload = match in_blob {
                true => Payload::Blob(Digest::of(&payload)),
                false => Payload::Here(payload.into()),
            };
            let (decoded, found) = decode(&encode(&event, &payload)).expect("one of ours");
            prop_assert_eq!(decoded, event);
            prop_assert_eq!(found, payload);
        }

        #[test]
        fn broken_records_are_refused_and_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            cut in any::<usize>(),
        ) {
            decode(&Bytes::from(bytes)).ok();
            let whole = encode(&event(1), &Payload::Here(Bytes::new()));
            let cut = cut % whole.len();
            prop_assert!(decode(&whole.slice(..cut)).is_err());
        }
    }
}
