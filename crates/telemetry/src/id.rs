//! Request ids in sixteen bytes.

use martlet_model::RequestId;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error;

/// Before the text of an id that is no UUID, so that its length tells it from one.
const TEXT: [u8; 17] = [0; 17];

/// The 16 bytes of a version 4 UUID in its usual text form, or, of any other id, more.
pub(crate) fn to_bytes(id: &RequestId) -> Vec<u8> {
    let text = id.as_str().as_bytes();
    match packed(text) {
        Some(bytes) if RequestId::from_random(bytes) == *id => bytes.to_vec(),
        _ => [&TEXT, text].concat(),
    }
}

/// The first 32 hexadecimal digits in `text`.
fn packed(text: &[u8]) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut digits = text.iter().filter_map(|byte| digit(*byte));
    for byte in &mut bytes {
        *byte = digits.next()? << 4 | digits.next()?;
    }
    Some(bytes)
}

/// The id that [`to_bytes`] packed. `None` for bytes that it never makes.
pub(crate) fn from_bytes(bytes: &[u8]) -> Option<RequestId> {
    if let Ok(bytes) = <[u8; 16]>::try_from(bytes) {
        return Some(RequestId::from_random(bytes));
    }
    let text = std::str::from_utf8(bytes.strip_prefix(&TEXT)?).ok()?;
    RequestId::deserialize(IntoDeserializer::<Error>::into_deserializer(text)).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn uuids_take_sixteen_bytes_and_come_back(random in any::<[u8; 16]>()) {
            let id = RequestId::from_random(random);
            let bytes = to_bytes(&id);
            prop_assert_eq!(bytes.len(), 16);
            prop_assert_eq!(from_bytes(&bytes), Some(id));
        }

        #[test]
        fn other_ids_come_back_too(text in "[0-9a-fA-F-]{36}|\\PC{0,40}") {
            let id = RequestId::deserialize(IntoDeserializer::<Error>::into_deserializer(text.as_str()))
                .expect("a text");
            prop_assert_eq!(from_bytes(&to_bytes(&id)), Some(id));
        }
    }
}
