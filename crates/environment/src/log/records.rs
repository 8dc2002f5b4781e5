//! Cuts what a function writes into log records.
//!
//! One pipe carries everything, so that the order in which things were written is the order in which they are
//! read: the raw bytes of file descriptors 1 and 2, and the frames that runtimes write to the descriptor named by
//! `_LAMBDA_TELEMETRY_LOG_FD`. A raw record ends at a newline; a framed record, however many lines it has, is one.
//!
//! A frame is a four-byte type, a four-byte length, an eight-byte time in microseconds of the Unix epoch and the
//! message; big-endian. The type begins with `a5 5a 00`: in UTF-8 text `a5` only continues a character, and a
//! letter Z and a NUL do not follow. Bytes of any shape are taken: what is not UTF-8 is replaced, what has no
//! end is cut.

/// Longest record, in bytes; what is longer becomes several.
pub(crate) const RECORD_BYTES: usize = 256 * 1024;
/// Longest message that a frame may announce; a longer one is no frame but noise that looks like one.
const FRAME_BYTES: usize = 8 * 1024 * 1024;
const FRAME_HEADER: usize = 16;
const MAGIC: [u8; 3] = [0xa5, 0x5a, 0x00];

/// One record of the function's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// When the writer says that it was written, in milliseconds of the Unix epoch; raw output does not say.
    pub(crate) written: Option<u64>,
    /// The text, without its last newline. Carriage returns inside stand for the line breaks of one record (that is
    /// how runtimes without a telemetry descriptor write them) and are line feeds here.
    pub(crate) text: String,
}

/// Cuts a stream of bytes into [`Record`]s. Holds at most [`RECORD_BYTES`] and the header of a frame.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    /// What has arrived of the record that has begun.
    held: Vec<u8>,
    /// How much of `held` was searched for the end of a raw record already.
    searched: usize,
    frame: Option<OpenFrame>,
}

#[derive(Clone, Copy, Debug)]
struct OpenFrame {
    missing: usize,
    written: u64,
}

impl Splitter {
    /// Takes the next bytes of the stream and appends the records that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8], records: &mut Vec<Record>) {
        if self.held.is_empty() {
            let used = self.split(bytes, records);
            self.held.extend_from_slice(&bytes[used..]);
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(bytes);
            let used = self.split(&held, records);
            held.drain(..used);
            self.held = held;
        }
    }

    /// Ends the record that has begun, if any: the writer has paused, or is gone. A frame that is cut short is given
    /// up; what follows is read from scratch.
    pub(crate) fn flush(&mut self, records: &mut Vec<Record>) {
        let written = self.frame.take().map(|frame| frame.written);
        self.searched = 0;
        if !self.held.is_empty() {
            records.push(record(&std::mem::take(&mut self.held), written));
        }
    }

    /// Appends the records that `data` completes and returns how many bytes they took. What is left is the beginning
    /// of a record: shorter than [`RECORD_BYTES`] plus a frame's header.
    fn split(&mut self, data: &[u8], records: &mut Vec<Record>) -> usize {
        let mut start = 0;
        loop {
            let rest = &data[start..];
            let used = match self.frame {
                Some(frame) => self.split_frame(rest, frame, records),
                None => self.split_raw(rest, records),
            };
            match used {
                Some(used) => start += used,
                None => return start,
            }
        }
    }

    fn split_frame(&mut self, data: &[u8], frame: OpenFrame, records: &mut Vec<Record>) -> Option<usize> {
        let piece = frame.missing.min(RECORD_BYTES);
        if data.len() < piece {
            return None;
        }
        records.push(record(&data[..piece], Some(frame.written)));
        let missing = frame.missing - piece;
        self.frame = (missing > 0).then_some(OpenFrame { missing, ..frame });
        Some(piece)
    }

    fn split_raw(&mut self, data: &[u8], records: &mut Vec<Record>) -> Option<usize> {
        while let Some(found) = data[self.searched..].iter().position(|byte| matches!(byte, b'\n' | 0xa5)) {
            let at = self.searched + found;
            if at >= RECORD_BYTES {
                break;
            }
            if data[at] == b'\n' {
                self.searched = 0;
                records.push(record(&data[..at], None));
                return Some(at + 1);
            }
            match header(&data[at..]) {
                Header::Raw => self.searched = at + 1,
                Header::Partial => {
                    self.searched = at;
                    return None;
                }
                Header::Frame { length, written } => {
                    self.searched = 0;
                    if at > 0 {
                        records.push(record(&data[..at], None));
                    }
                    self.frame = (length > 0).then_some(OpenFrame { missing: length, written });
                    return Some(at + FRAME_HEADER);
                }
            }
        }
        self.searched = data.len();
        if data.len() < RECORD_BYTES {
            return None;
        }
        self.searched = 0;
        records.push(record(&data[..RECORD_BYTES], None));
        Some(RECORD_BYTES)
    }
}

enum Header {
    Raw,
    Partial,
    Frame { length: usize, written: u64 },
}

fn header(bytes: &[u8]) -> Header {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Header::Raw;
    }
    // The two low bits tell JSON (2) from text (3), the others are the level, of which there are seven.
    if bytes.get(3).is_some_and(|kind| *kind > 0x1b || !matches!(kind & 3, 2 | 3)) {
        return Header::Raw;
    }
    let number = |range: std::ops::Range<usize>| {
        bytes[range].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    if bytes.len() < FRAME_HEADER {
        return Header::Partial;
    }
    let length = number(4..8) as usize;
    if length > FRAME_BYTES {
        return Header::Raw;
    }
    Header::Frame { length, written: number(8..16) / 1000 }
}

fn record(bytes: &[u8], written: Option<u64>) -> Record {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    if text.contains('\r') {
        text = text.replace("\r\n", "\n").replace('\r', "\n");
    }
    Record { written, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(message: &str, micros: u64) -> Vec<u8> {
        let mut bytes = vec![0xa5, 0x5a, 0x00, 0x03];
        bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&micros.to_be_bytes());
        bytes.extend_from_slice(message.as_bytes());
        bytes
    }

    fn split(bytes: &[u8]) -> Vec<Record> {
        let (mut splitter, mut records) = (Splitter::default(), Vec::new());
        splitter.feed(bytes, &mut records);
        splitter.flush(&mut records);
        records
    }

    fn texts(bytes: &[u8]) -> Vec<String> {
        split(bytes).into_iter().map(|record| record.text).collect()
    }

    #[test]
    fn raw_output_is_cut_at_newlines_and_carriage_returns_keep_a_record_whole() {
        assert_eq!(texts(b"a\nb\r\n\nlast"), ["a", "b", "", "last"]);
        assert_eq!(texts(b"[ERROR] E\rTraceback\r\xc2\xa0 File\n"), ["[ERROR] E\nTraceback\n\u{a0} File"]);
        assert_eq!(texts(b"\xff\xfe\n"), ["\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn a_frame_is_one_record_between_raw_lines() {
        let mut bytes = b"before\nunfinished".to_vec();
        bytes.extend(frame("one\ntwo\n", 1_700_000_000_123_456));
        bytes.extend(frame("", 1));
        bytes.extend(b"after\n");
        let records = split(&bytes);
        assert_eq!(
            records.iter().map(|record| record.text.as_str()).collect::<Vec<_>>(),
            ["before", "unfinished", "one\ntwo", "after"]
        );
        assert_eq!(records[2].written, Some(1_700_000_000_123));
        assert_eq!(records[3].written, None);
    }

    #[test]
    fn text_that_resembles_a_frame_stays_text() {
        assert_eq!(texts("åZ\n".as_bytes()), ["åZ"]);
        assert_eq!(texts(b"\xa5\x5a\x00\x04rest\n"), ["\u{fffd}Z\0\u{4}rest"]);
        let mut absurd = vec![0xa5, 0x5a, 0x00, 0x03, 0xff, 0xff, 0xff, 0xff];
        absurd.extend(b"12345678\n");
        assert_eq!(texts(&absurd).len(), 1);
    }

    #[test]
    fn records_are_bounded() {
        let long = vec![b'x'; 2 * RECORD_BYTES + 7];
        assert_eq!(texts(&long).iter().map(String::len).collect::<Vec<_>>(), [RECORD_BYTES, RECORD_BYTES, 7]);
        let framed = frame(&"y".repeat(RECORD_BYTES + 9), 0);
        assert_eq!(texts(&framed).iter().map(String::len).collect::<Vec<_>>(), [RECORD_BYTES, 9]);
        let mut splitter = Splitter::default();
        let mut records = Vec::new();
        for byte in &long {
            splitter.feed(std::slice::from_ref(byte), &mut records);
            assert!(splitter.held.len() < RECORD_BYTES + FRAME_HEADER);
        }
        assert_eq!(records.len(), 2);
    }

    #[test]
    fn a_frame_cut_short_is_given_up_at_the_pause() {
        let whole = frame("promised but never written", 0);
        let (mut splitter, mut records) = (Splitter::default(), Vec::new());
        splitter.feed(&whole[..20], &mut records);
        splitter.flush(&mut records);
        splitter.feed(b"next\n", &mut records);
        assert_eq!(records.iter().map(|record| record.text.as_str()).collect::<Vec<_>>(), ["prom", "next"]);
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_makes_no_difference(
            pieces in prop::collection::vec(
                prop_oneof![
                    "[a-zå\n\r]{0,12}".prop_map(String::into_bytes),
                    "[a-z\n]{0,12}".prop_map(|message| frame(&message, 5000)),
                    prop::collection::vec(any::<u8>(), 0..8),
                    Just(vec![0xa5]), Just(vec![0xa5, 0x5a]), Just(vec![0xa5, 0x5a, 0x00]),
                ],
                0..12,
            ),
            cut in 1usize..24,
        ) {
            let stream: Vec<u8> = pieces.concat();
            let (mut splitter, mut records) = (Splitter::default(), Vec::new());
            for piece in stream.chunks(cut) {
                splitter.feed(piece, &mut records);
            }
            splitter.flush(&mut records);
            prop_assert_eq!(records, split(&stream));
        }

        #[test]
        fn frames_come_out_whole_however_they_are_mixed(
            messages in prop::collection::vec(("[a-z\n]{0,20}[a-z]", any::<bool>()), 0..10),
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for (message, framed) in &messages {
                if *framed {
                    stream.extend(frame(message, 0));
                    expected.push(message.clone());
                } else {
                    let line = message.replace('\n', " ");
                    stream.extend(line.as_bytes());
                    stream.push(b'\n');
                    expected.push(line);
                }
            }
            prop_assert_eq!(texts(&stream), expected);
        }
    }
}
