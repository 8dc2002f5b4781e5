//! Messages of `application/vnd.amazon.eventstream`: a length, headers and a payload between two checksums.
//!
//! ```text
//! total length (4)  headers length (4)  checksum of these (4)  headers  payload  checksum of all before (4)
//! ```
//! All integers are big-endian. A header is the length of its name (1), the name, its type (1; 7 is text), the length of
//! its value (2) and the value.

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Crc;

/// The content type of a stream of these.
pub const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

const TEXT: u8 = 7;
const OVERHEAD: usize = 16;

/// One event of a stream, as the model names it.
#[must_use]
pub fn event(name: &str, content_type: &str, payload: &[u8]) -> Bytes {
    let headers = [(":event-type", name), (":content-type", content_type), (":message-type", "event")];
    let headers_length: usize = headers.iter().map(|(name, value)| 4 + name.len() + value.len()).sum();
    let total = OVERHEAD + headers_length + payload.len();
    let mut message = BytesMut::with_capacity(total);
    message.put_u32(u32::try_from(total).unwrap_or(u32::MAX));
    message.put_u32(u32::try_from(headers_length).unwrap_or(u32::MAX));
    message.put_u32(checksum(&message));
    for (name, value) in headers {
        message.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
        message.put_slice(name.as_bytes());
        message.put_u8(TEXT);
        message.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        message.put_slice(value.as_bytes());
    }
    message.put_slice(payload);
    message.put_u32(checksum(&message));
    message.freeze()
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Buf;

    #[test]
    fn a_message_is_framed_as_botocore_reads_it() {
        // Written down from botocore's own parser, which accepts these bytes.
        let mut message = event("PayloadChunk", "application/octet-stream", b"hello");
        assert_eq!(message.len() as u32, (&message[..]).get_u32());
        let told = (&message[message.len() - 4..]).get_u32();
        assert_eq!(told, checksum(&message[..message.len() - 4]));
        message.advance(4);
        let headers_length = message.get_u32() as usize;
        assert_eq!(
            message.get_u32(),
            checksum(
                &[&(message.len() as u32 + 12).to_be_bytes()[..], &(headers_length as u32).to_be_bytes()]
                    .concat()
            )
        );
        let first = b"\x0b:event-type\x07\x00\x0cPayloadChunk";
        assert_eq!(&message[..first.len()], first);
        assert_eq!(&message[headers_length..message.len() - 4], b"hello");
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    }
}
