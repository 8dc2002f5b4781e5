//! Where the lines of one environment go: into telemetry, and into the tail of the invocation at hand.

use super::Record;
use martlet_model::limits::LOG_TAIL_BYTES;
use martlet_model::{RequestId, Timestamp};
use martlet_telemetry::{LogEvent, Telemetry};
use std::sync::Arc;

/// Bytes and lines of an invocation that prints nothing.
const USUAL_TAIL: usize = 384;
const USUAL_LINES: usize = 3;

/// Collects lines in order. Timestamps never go back, so that sorting by them keeps the order of writing.
pub(crate) struct Journal {
    telemetry: Telemetry,
    group: Arc<str>,
    stream: Arc<str>,
    request: Option<RequestId>,
    waiting: Vec<LogEvent>,
    latest: Timestamp,
    tail: Vec<u8>,
}

impl Journal {
    pub(crate) fn new(telemetry: Telemetry, group: Arc<str>, stream: Arc<str>) -> Self {
        Self {
            telemetry,
            group,
            stream,
            request: None,
            waiting: Vec::new(),
            latest: Timestamp(0),
            tail: Vec::new(),
        }
    }

    /// Ties what follows to an invocation, and begins its tail.
    pub(crate) fn open(&mut self, request: RequestId) {
        self.request = Some(request);
        self.tail.clear();
        // START, END and REPORT fit; a function that prints asks for more.
        self.tail.reserve(USUAL_TAIL);
        self.waiting.reserve(USUAL_LINES);
    }

    /// Adds a line of the platform; an empty one is left out.
    pub(crate) fn line(&mut self, now: Timestamp, text: String) {
        if !text.is_empty() {
            self.push(now, text);
        }
    }

    /// Adds a record of the function. Its own time counts unless it lies in the future or before the line above.
    pub(crate) fn record(&mut self, now: Timestamp, record: Record) {
        let written = record.written.map_or(now, Timestamp);
        self.push(written.min(now), record.text);
    }

    /// Hands everything to telemetry.
    pub(crate) fn flush(&mut self) {
        if !self.waiting.is_empty() {
            self.telemetry.log(&self.group, &self.stream, std::mem::take(&mut self.waiting));
        }
    }

    /// Forgets what is waiting, and the invocation with it: nothing came of it.
    pub(crate) fn discard(&mut self) {
        self.waiting.clear();
        self.request = None;
    }

    /// Ends the invocation: everything goes to telemetry, and the last 4 KB of it to the caller.
    pub(crate) fn close(&mut self) -> Vec<u8> {
        self.flush();
        self.request = None;
        let mut tail = std::mem::take(&mut self.tail);
        tail.drain(..tail.len().saturating_sub(LOG_TAIL_BYTES));
        tail
    }

    fn push(&mut self, at: Timestamp, message: String) {
        if self.request.is_some() {
            self.tail.extend_from_slice(&message.as_bytes()[tail_start(&message)..]);
            self.tail.push(b'\n');
            if self.tail.len() > 4 * LOG_TAIL_BYTES {
                self.tail.drain(..self.tail.len() - LOG_TAIL_BYTES);
            }
        }
        self.latest = self.latest.max(at);
        self.waiting.push(LogEvent { timestamp: self.latest, message, request_id: self.request.clone() });
    }
}

/// Where the part of a message begins that may still be seen in a tail.
fn tail_start(message: &str) -> usize {
    message.len().saturating_sub(LOG_TAIL_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use martlet_telemetry::{EventQuery, PageStart, TelemetryOptions};

    fn record(text: &str, written: Option<u64>) -> Record {
        Record { written, text: text.into() }
    }

    #[tokio::test]
    async fn lines_keep_their_order_and_their_request() {
        let dir = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::open(dir.path(), TelemetryOptions::default()).unwrap();
        let now = telemetry_now();
        let at = |offset: i64| Timestamp(now.0.saturating_add_signed(offset));
        let mut journal = Journal::new(telemetry.clone(), "g".into(), "s".into());
        journal.line(at(-50), "before".into());
        let id = RequestId::from_random([1; 16]);
        journal.open(id.clone());
        journal.line(at(-40), "START".into());
        journal.record(at(-20), record("late", Some(at(-30).0)));
        journal.record(at(-20), record("forged past", Some(5)));
        journal.record(at(-20), record("forged future", Some(u64::MAX)));
        journal.line(at(-10), String::new());
        assert_eq!(journal.close(), b"START\nlate\nforged past\nforged future\n");
        journal.line(at(0), "after".into());
        journal.flush();

        let query = EventQuery {
            group: "g".into(),
            stream: "s".into(),
            start: None,
            end: None,
            from: PageStart::Head,
            limit: 100,
        };
        let page = telemetry.events(query).await.unwrap();
        let seen: Vec<_> = page
            .events
            .iter()
            .map(|event| {
                (event.timestamp.0 as i64 - now.0 as i64, event.message.as_str(), event.request_id.clone())
            })
            .collect();
        let id = Some(id);
        assert_eq!(
            seen,
            [
                (-50, "before", None),
                (-40, "START", id.clone()),
                (-30, "late", id.clone()),
                (-30, "forged past", id.clone()),
                (-20, "forged future", id),
                (0, "after", None),
            ]
        );
    }

    fn telemetry_now() -> Timestamp {
        (martlet_telemetry::system_clock())()
    }

    #[test]
    fn the_tail_is_the_last_four_kilobytes() {
        let dir = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::open(dir.path(), TelemetryOptions::default()).unwrap();
        let mut journal = Journal::new(telemetry, "g".into(), "s".into());
        journal.open(RequestId::from_random([1; 16]));
        for number in 0..5000 {
            journal.line(Timestamp(1), format!("line {number}"));
            assert!(journal.tail.len() <= 5 * LOG_TAIL_BYTES);
        }
        journal.line(Timestamp(1), "x".repeat(LOG_TAIL_BYTES - 10));
        let tail = journal.close();
        assert_eq!(tail.len(), LOG_TAIL_BYTES);
        assert!(tail.starts_with(b"ine 4999\n") && tail.ends_with(b"xx\n"));
    }
}
