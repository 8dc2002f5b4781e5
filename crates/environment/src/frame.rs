//! The frames that a managed runtime's bootstrap and the server exchange over a Unix stream socket.
//!
//! `runtimes/PROTOCOL.md` describes the exchange; this file is its Rust end. Whatever arrives here was written by a
//! process that runs the function's code, so nothing in it is believed: lengths are bounded before a byte is
//! buffered for them, unknown kinds and misplaced frames end the environment.
//!
//! ```text
//!  0        1            4            8            12             16
//!  +--------+------------+------------+------------+--------------+-----------+-----------+
//!  | kind   | zero (3)   | sequence   | meta bytes | payload bytes| meta      | payload   |
//!  +--------+------------+------------+------------+--------------+-----------+-----------+
//! ```
//! All integers are big-endian. `sequence` numbers the events of one environment from 1; an answer repeats the
//! number of the event that it answers. Frames that belong to no event carry 0.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// Bytes before the meta.
pub(crate) const HEADER_BYTES: usize = 16;
/// Longest meta that a bootstrap may send.
pub(crate) const META_BYTES: usize = 64 * 1024;
/// Longest payload that a bootstrap may send: the response limit with its slack. A bootstrap whose result is longer
/// sends [`Kind::TooLarge`] instead.
pub(crate) const PAYLOAD_BYTES: usize =
    martlet_model::limits::SYNC_RESPONSE_BYTES + martlet_model::limits::RESPONSE_SLACK_BYTES;
/// Longest payload of a frame of a streamed response.
pub(crate) const STREAMED_BYTES: usize = 256 * 1024;

/// Frames up to here are copied out of the receive buffer, which then serves the next one.
const COPIED_BYTES: usize = 4 * 1024;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// To the bootstrap: an event. Meta: [`InvokeMeta`]; payload: the event.
    Invoke = 1,
    /// To a bootstrap that has just been forked from a template: what it is from here on. Meta: [`RestoreMeta`].
    Restore = 2,
    /// To the bootstrap of a runtime template: the function that it is for, whose files are there now. Meta: [`FunctionMeta`].
    Function = 3,
    /// From it: the handler is loaded, events may come; from a runtime template: it may be told its function. Empty, but from one that was to become a template and cannot:
    /// meta `{"unforkable"}` then says why.
    Ready = 16,
    /// From it: the handler could not be loaded. Meta: `{"errorType"}`; payload: the error document.
    InitError = 17,
    /// From it: the handler's result. Payload: the result.
    Response = 18,
    /// From it: the handler failed. Meta: `{"errorType"}`; payload: the error document.
    Error = 19,
    /// From it: the result is longer than [`PAYLOAD_BYTES`]. Empty.
    TooLarge = 20,
    /// From it: the handler is loaded, and the process waits to be forked. It sends nothing after this. Empty.
    Parked = 21,
    /// From it: the handler has begun to answer piece by piece. Meta: `{"contentType"}`; payload: the first piece, or nothing.
    StreamBegin = 22,
    /// From it: the next piece. Payload: at most [`STREAMED_BYTES`].
    StreamData = 23,
    /// From it: the handler's result is complete. Empty. An [`Kind::Error`] in its place says that it never will be.
    StreamEnd = 24,
}

impl Kind {
    fn from_bootstrap(byte: u8) -> Option<Self> {
        [
            Self::Response,
            Self::StreamData,
            Self::StreamBegin,
            Self::StreamEnd,
            Self::Error,
            Self::TooLarge,
            Self::Ready,
            Self::InitError,
            Self::Parked,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }

    fn longest_payload(self) -> usize {
        if matches!(self, Self::StreamBegin | Self::StreamData) { STREAMED_BYTES } else { PAYLOAD_BYTES }
    }
}

/// A frame from the bootstrap, within bounds but otherwise unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// What it says.
    pub(crate) kind: Kind,
    /// Which event it answers; 0 before the first.
    pub(crate) sequence: u32,
    /// JSON text, or nothing.
    pub(crate) meta: Bytes,
    /// The result or the error document.
    pub(crate) payload: Bytes,
}

/// Why the bytes on the socket are no frame. There is no way back into step: the environment is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// A kind that bootstraps do not send.
    #[error("frame of unknown kind {0}")]
    Kind(u8),
    /// The three bytes that must be zero are not.
    #[error("frame with non-zero padding")]
    Padding,
    /// The announced meta is longer than [`META_BYTES`].
    #[error("frame announces {0} bytes of meta, at most {META_BYTES} are taken")]
    Meta(usize),
    /// The announced payload is longer than [`PAYLOAD_BYTES`], or [`STREAMED_BYTES`].
    #[error("frame announces {0} bytes of payload, more than are taken")]
    Payload(usize),
}

/// What the bootstrap is told about an event besides its payload.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct InvokeMeta<'a> {
    /// The request id.
    pub(crate) id: &'a str,
    /// When the function's time is over, in milliseconds of the Unix epoch.
    pub(crate) deadline: u64,
    /// The ARN as invoked.
    pub(crate) arn: &'a str,
    /// The X-Ray trace header; empty for none.
    pub(crate) trace: &'a str,
    /// The client context, JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<&'a str>,
    /// On whose behalf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<&'a str>,
}

/// What a forked bootstrap is told.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct RestoreMeta<'a> {
    /// Environment variables that differ from the template's.
    pub(crate) env: &'a BTreeMap<&'a str, &'a str>,
}

/// What a runtime template is told.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct FunctionMeta<'a> {
    /// All environment variables, in place of those that it was started with.
    pub(crate) env: &'a BTreeMap<String, String>,
}

/// Header and meta of an [`Kind::Invoke`] frame whose payload, of `payload_bytes`, is written right after it.
#[must_use]
pub(crate) fn invoke_head(sequence: u32, meta: &InvokeMeta<'_>, payload_bytes: usize) -> Bytes {
    head(Kind::Invoke, sequence, meta, payload_bytes)
}

/// A whole [`Kind::Restore`] frame.
#[must_use]
pub(crate) fn restore(meta: &RestoreMeta<'_>) -> Bytes {
    head(Kind::Restore, 0, meta, 0)
}

/// A whole [`Kind::Function`] frame.
#[must_use]
pub(crate) fn function(meta: &FunctionMeta<'_>) -> Bytes {
    head(Kind::Function, 0, meta, 0)
}

fn head(kind: Kind, sequence: u32, meta: &impl serde::Serialize, payload_bytes: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(HEADER_BYTES + 256).writer();
    head.get_mut().put_bytes(0, HEADER_BYTES);
    // Writing strings and numbers into memory has no way to fail; an empty meta would be refused by the bootstrap.
    let written = serde_json::to_writer(&mut head, meta);
    debug_assert!(written.is_ok());
    let mut head = head.into_inner();
    let meta_bytes = head.len() - HEADER_BYTES;
    let mut fixed = &mut head[..HEADER_BYTES];
    fixed.put_u32(u32::from(kind as u8) << 24);
    fixed.put_u32(sequence);
    fixed.put_u32(saturate(meta_bytes));
    fixed.put_u32(saturate(payload_bytes));
    head.freeze()
}

fn saturate(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// How a look into the receive buffer went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// A whole frame; its bytes are gone from the buffer.
    Frame(Frame),
    /// Not yet: at least this many more bytes belong to the frame that has begun.
    Missing(usize),
}

/// Takes the first frame out of `buffer`. The payload of a long frame is not copied: it keeps the buffer's memory.
///
/// # Errors
/// [`FrameError`] as soon as the header is there and is wrong, however little of the rest has arrived.
pub(crate) fn decode(buffer: &mut Vec<u8>) -> Result<Decoded, FrameError> {
    if buffer.len() < HEADER_BYTES {
        return Ok(Decoded::Missing(HEADER_BYTES - buffer.len()));
    }
    let mut header = &buffer[..HEADER_BYTES];
    let first = header.get_u32();
    let kind_byte = (first >> 24) as u8;
    let kind = Kind::from_bootstrap(kind_byte).ok_or(FrameError::Kind(kind_byte))?;
    if first << 8 != 0 {
        return Err(FrameError::Padding);
    }
    let sequence = header.get_u32();
    let meta_bytes = header.get_u32() as usize;
    let payload_bytes = header.get_u32() as usize;
    if meta_bytes > META_BYTES {
        return Err(FrameError::Meta(meta_bytes));
    }
    if payload_bytes > kind.longest_payload() {
        return Err(FrameError::Payload(payload_bytes));
    }
    let total = HEADER_BYTES + meta_bytes + payload_bytes;
    if buffer.len() < total {
        return Ok(Decoded::Missing(total - buffer.len()));
    }
    let mut frame = if total <= COPIED_BYTES {
        let frame = Bytes::copy_from_slice(&buffer[..total]);
        buffer.drain(..total);
        frame
    } else {
        let rest = buffer.split_off(total);
        Bytes::from(std::mem::replace(buffer, rest))
    };
    frame.advance(HEADER_BYTES);
    let meta = frame.split_to(meta_bytes);
    Ok(Decoded::Frame(Frame { kind, sequence, meta, payload: frame }))
}

/// What the meta of an error frame says; nothing where it is no JSON object of the right shape.
#[derive(Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub(crate) struct ErrorMeta {
    /// The type of the error, 1 to 256 bytes.
    #[serde(rename = "errorType")]
    pub(crate) error_type: Option<String>,
    /// The process ends with this error.
    pub(crate) fatal: bool,
}

/// Reads the meta of an error frame.
pub(crate) fn error_meta(meta: &[u8]) -> ErrorMeta {
    let mut meta: ErrorMeta = serde_json::from_slice(meta).unwrap_or_default();
    meta.error_type = meta.error_type.filter(|name| (1..=256).contains(&name.len()));
    meta
}

/// What the meta of the beginning of a streamed response says.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct StreamMeta {
    #[serde(rename = "contentType")]
    content_type: String,
}

/// Reads the content type of a streamed response; the usual one where it says none.
pub(crate) fn content_type(meta: &[u8]) -> String {
    let meta: StreamMeta = serde_json::from_slice(meta).unwrap_or_default();
    crate::stream::content_type(Some(&meta.content_type))
}

/// What the meta of a ready frame says.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct ReadyMeta {
    unforkable: Option<String>,
}

/// Longest reason that is passed on, in characters.
const REASON_CHARS: usize = 300;

/// Why a process that was to become a template says that it cannot be forked: one line, however it was written.
pub(crate) fn unforkable(meta: &[u8]) -> String {
    let meta: ReadyMeta = serde_json::from_slice(meta).unwrap_or_default();
    let text = meta.unforkable.unwrap_or_default();
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut reason = String::new();
    for word in words {
        if !reason.is_empty() {
            reason.push(' ');
        }
        reason.push_str(word);
        if let Some((end, _)) = reason.char_indices().nth(REASON_CHARS) {
            reason.truncate(end);
            break;
        }
    }
    if reason.is_empty() { "its runtime does not say why".to_owned() } else { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(kind: u8, sequence: u32, meta: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.put_u32(sequence);
        bytes.put_u32(meta.len() as u32);
        bytes.put_u32(payload.len() as u32);
        bytes.extend_from_slice(meta);
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn an_event_is_framed_as_the_bootstraps_read_it() {
        let meta = InvokeMeta { id: "i", deadline: 7, arn: "a", trace: "t\"", client: None, tenant: None };
        let head = invoke_head(3, &meta, 5);
        assert_eq!(&head[..12], [1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, (head.len() - 16) as u8]);
        assert_eq!(&head[12..16], [0, 0, 0, 5]);
        assert_eq!(&head[16..], br#"{"id":"i","deadline":7,"arn":"a","trace":"t\""}"#);
        let with_client = InvokeMeta { client: Some("{}"), ..meta };
        assert!(invoke_head(3, &with_client, 5).ends_with(br#","client":"{}"}"#));
    }

    #[test]
    fn a_restored_bootstrap_is_told_its_variables() {
        let frame = restore(&RestoreMeta { env: &BTreeMap::from([("A", "1"), ("B", "\"")]) });
        let meta = br#"{"env":{"A":"1","B":"\""}}"#;
        assert_eq!(&frame[..12], [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, meta.len() as u8]);
        assert_eq!((&frame[12..16], &frame[16..]), (&[0u8; 4][..], &meta[..]));
    }

    #[test]
    fn reasons_are_one_short_line() {
        let reason =
            |text: &str| unforkable(serde_json::json!({ "unforkable": text }).to_string().as_bytes());
        assert_eq!(reason("a thread is alive: x"), "a thread is alive: x");
        assert_eq!(reason("two\r\nlines\u{1b}[31m \t and\0more"), "two lines [31m and more");
        assert_eq!(reason(&"ü".repeat(400)).chars().count(), REASON_CHARS);
        assert_eq!(reason(&"word ".repeat(400)).chars().count(), REASON_CHARS);
        let silent = "its runtime does not say why";
        for strange in ["", "{}", "[]", r#"{"unforkable":7}"#, r#"{"unforkable":" \n"}"#] {
            assert_eq!(unforkable(strange.as_bytes()), silent, "{strange}");
        }
    }

    #[test]
    fn wrong_headers_are_refused_before_their_bodies_arrive() {
        let refused = |bytes: Vec<u8>| decode(&mut bytes[..16].to_vec()).unwrap_err();
        assert_eq!(refused(encode(1, 0, b"", b"")), FrameError::Kind(1));
        assert_eq!(refused(encode(99, 0, b"", b"")), FrameError::Kind(99));
        let mut padded = encode(16, 0, b"", b"");
        padded[2] = 1;
        assert_eq!(refused(padded), FrameError::Padding);
        let mut long = encode(18, 1, b"", b"");
        long[12..16].copy_from_slice(&(PAYLOAD_BYTES as u32 + 1).to_be_bytes());
        assert_eq!(refused(long.clone()), FrameError::Payload(PAYLOAD_BYTES + 1));
        long[8..12].copy_from_slice(&[0xff; 4]);
        assert_eq!(refused(long), FrameError::Meta(u32::MAX as usize));
    }

    #[test]
    fn error_types_are_read_from_sane_meta_only() {
        let known = error_meta(br#"{"errorType":"Runtime.X","fatal":true}"#);
        assert_eq!((known.error_type.as_deref(), known.fatal), (Some("Runtime.X"), true));
        for strange in ["", "{}", "[]", r#"{"errorType":7}"#, r#"{"errorType":""}"#, "{\"errorType\":\"\u{1}"]
        {
            assert_eq!(error_meta(strange.as_bytes()), ErrorMeta::default(), "{strange}");
        }
        let long = format!(r#"{{"errorType":"{}"}}"#, "x".repeat(257));
        assert_eq!(error_meta(long.as_bytes()).error_type, None);
    }

    fn kinds() -> impl Strategy<Value = u8> {
        16u8..=21
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            frames in prop::collection::vec(
                (kinds(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..300)),
                0..6,
            ),
            cut in 1usize..64,
        ) {
            let stream: Vec<u8> =
                frames.iter().flat_map(|(kind, sequence, meta, payload)| encode(*kind, *sequence, meta, payload)).collect();
            let mut buffer = Vec::new();
            let mut seen = Vec::new();
            for piece in stream.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Decoded::Frame(frame) = decode(&mut buffer).unwrap() {
                    seen.push((frame.kind as u8, frame.sequence, frame.meta.to_vec(), frame.payload.to_vec()));
                }
            }
            prop_assert!(buffer.is_empty());
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn any_bytes_are_read_without_panic_and_within_bounds(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = bytes.clone();
            match decode(&mut buffer) {
                Ok(Decoded::Missing(missing)) => {
                    prop_assert!(missing <= HEADER_BYTES + META_BYTES + PAYLOAD_BYTES);
                    prop_assert_eq!(buffer.len(), bytes.len());
                }
                Ok(Decoded::Frame(frame)) => {
                    prop_assert_eq!(HEADER_BYTES + frame.meta.len() + frame.payload.len() + buffer.len(), bytes.len());
                }
                Err(_) => {}
            }
        }
    }
}
