//! Log events: of one stream in either direction, and of a group by pattern.

use super::group_id;
use super::groups::time;
use crate::pattern::Pattern;
use crate::writer::stored;
use crate::{TelemetryError, id};
use martlet_model::{RequestId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Most bytes of events in one page, as in CloudWatch Logs.
const PAGE_BYTES: usize = 1024 * 1024;
/// Most events that one page looks at, so that a pattern that nothing matches cannot hold a reader for long.
const PAGE_ROWS: usize = 100_000;

/// A place between two events of a group: right at the event of this timestamp and number. Opaque to users; its text
/// form goes into paging tokens and event ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    timestamp: i64,
    seq: i64,
}

/// A text is no cursor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no paging token of ours")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:019}{:019}", self.timestamp, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.len() != 38 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(CursorError);
        }
        let number = |digits: &str| digits.parse().map_err(|_| CursorError);
        Ok(Self { timestamp: number(&text[..19])?, seq: number(&text[19..])? })
    }
}

impl Cursor {
    const START: Self = Self { timestamp: 0, seq: 0 };
    const END: Self = Self { timestamp: i64::MAX, seq: i64::MAX };

    /// Before every event from `at` on.
    fn before(at: Timestamp) -> Self {
        Self { timestamp: stored(at), seq: 0 }
    }
}

/// An event as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Where it stands; unique in its group.
    pub cursor: Cursor,
    /// The stream it is of.
    pub stream: Arc<str>,
    /// Its own time.
    pub timestamp: Timestamp,
    /// When telemetry got it.
    pub ingested: Timestamp,
    /// The invocation it belongs to.
    pub request_id: Option<RequestId>,
    /// The text.
    pub message: String,
}

/// Which events of one stream to read.
#[derive(Clone, Debug)]
pub struct EventQuery {
    /// The group.
    pub group: String,
    /// The stream.
    pub stream: String,
    /// Not before this.
    pub start: Option<Timestamp>,
    /// Before this.
    pub end: Option<Timestamp>,
    /// Where to go on from, and in which direction.
    pub from: PageStart,
    /// At most so many; a page also ends at 1 MB.
    pub limit: usize,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageStart {
    /// At the earliest event.
    Head,
    /// At the latest event, going back.
    Tail,
    /// After this place.
    After(Cursor),
    /// Before this place, going back.
    Before(Cursor),
}

impl PageStart {
    /// Narrows the range between two places, and tells whether it is walked backwards.
    fn bounds(self, low: Cursor, high: Cursor) -> (Cursor, Cursor, bool) {
        match self {
            Self::Head => (low, high, false),
            Self::Tail => (low, high, true),
            Self::After(cursor) => (low.max(cursor), high, false),
            Self::Before(cursor) => (low, high.min(cursor), true),
        }
    }

    /// Begin and end of a page on which there was nothing. Going on in the same direction resumes at the same place;
    /// turning round there finds the event that the place is at.
    fn empty_page(self, start: Cursor) -> (Cursor, Cursor) {
        match self {
            Self::Head | Self::Tail => (start, start),
            Self::After(at) => (Cursor { seq: at.seq.saturating_add(1), ..at }, at),
            Self::Before(at) => (at, Cursor { seq: at.seq.saturating_sub(1), ..at }),
        }
    }
}

/// A page of one stream, in the order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPage {
    /// The events.
    pub events: Vec<StoredEvent>,
    /// Where the page ends; what came later is after it.
    pub end: Cursor,
    /// Where the page begins.
    pub begin: Cursor,
}

/// Which events of a group to search.
#[derive(Clone, Debug)]
pub struct FilterQuery {
    /// The group.
    pub group: String,
    /// Only these streams; empty: all.
    pub streams: Vec<String>,
    /// Only streams whose name begins so.
    pub stream_prefix: String,
    /// Not before this.
    pub start: Option<Timestamp>,
    /// Not after this.
    pub end: Option<Timestamp>,
    /// What they must match.
    pub pattern: Pattern,
    /// Only those of this invocation.
    pub request_id: Option<RequestId>,
    /// Where to begin, and in which direction to search.
    pub from: PageStart,
    /// At most so many; a page also ends at 1 MB, or after looking at 100,000 events.
    pub limit: usize,
}

/// A page of a search, ordered by time across streams; a search that goes back has the latest event first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterPage {
    /// The events found.
    pub events: Vec<StoredEvent>,
    /// Where to go on in the same direction; `None` when everything was looked at. A page may be empty and not the
    /// last.
    pub next: Option<PageStart>,
}

/// An event as its row has it, without the name of its stream.
struct Found {
    cursor: Cursor,
    stream: i64,
    lag: i64,
}

const COLUMNS: &str = "timestamp, seq, stream, lag";

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    Ok(Found {
        cursor: Cursor { timestamp: row.get(0)?, seq: row.get(1)? },
        stream: row.get(2)?,
        lag: row.get(3)?,
    })
}

impl Found {
    fn event(self, stream: Arc<str>, request: Option<&[u8]>, message: String) -> StoredEvent {
        let time = |millis: i64| Timestamp(u64::try_from(millis).unwrap_or(0));
        StoredEvent {
            cursor: self.cursor,
            stream,
            timestamp: time(self.cursor.timestamp),
            ingested: time(self.cursor.timestamp.saturating_add(self.lag)),
            request_id: request.and_then(id::from_bytes),
            message,
        }
    }
}

pub(crate) fn events(connection: &Connection, query: &EventQuery) -> Result<EventPage, TelemetryError> {
    let group = group_id(connection, &query.group)?;
    let read = TelemetryError::at("read log events");
    let find = || {
        let sql = "SELECT id, first, last FROM streams WHERE log_group = ?1 AND name = ?2";
        let mut statement = connection.prepare_cached(sql)?;
        let row = |row: &Row<'_>| Ok((row.get(0)?, time(row, 1)?, time(row, 2)?));
        statement.query_row(params![group, query.stream], row).optional()
    };
    let stream = find().map_err(TelemetryError::at("find a log stream"))?;
    let (stream, first, last): (i64, Timestamp, Timestamp) =
        stream.ok_or_else(|| TelemetryError::NoSuchStream(query.stream.clone()))?;

    // The group is walked only where the stream has events.
    let lowest = Cursor::before(query.start.map_or(first, |start| start.max(first)));
    let beyond = Cursor::before(query.end.map_or(last.plus_millis(1), |end| end.min(last.plus_millis(1))));
    let (low, high, back) = query.from.bounds(lowest, beyond);
    let direction = if back { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT {COLUMNS}, request, message FROM events
         WHERE log_group = ?1 AND (timestamp, seq) > (?2, ?3) AND (timestamp, seq) < (?4, ?5) AND stream = ?6
         ORDER BY timestamp {direction}, seq {direction}"
    );
    let name: Arc<str> = query.stream.as_str().into();
    let run = || {
        let mut statement = connection.prepare_cached(&sql)?;
        let params = params![group, low.timestamp, low.seq, high.timestamp, high.seq, stream];
        let mut rows = statement.query(params)?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        while events.len() < query.limit
            && let Some(row) = rows.next()?
        {
            let message: String = row.get(5)?;
            bytes += message.len();
            if PAGE_BYTES < bytes && !events.is_empty() {
                break;
            }
            let request = row.get_ref(4)?.as_blob_or_null()?;
            events.push(found(row)?.event(name.clone(), request, message));
        }
        Ok(events)
    };
    let mut events = run().map_err(read)?;
    if back {
        events.reverse();
    }
    let (begin, end) = match (events.first(), events.last()) {
        (Some(first), Some(last)) => (first.cursor, last.cursor),
        // A page without events stands where it was asked for, so that what comes later is still after it.
        _ => query.from.empty_page(query.start.map_or(Cursor::START, Cursor::before)),
    };
    Ok(EventPage { events, end, begin })
}

pub(crate) fn filter(connection: &Connection, query: &FilterQuery) -> Result<FilterPage, TelemetryError> {
    let group = group_id(connection, &query.group)?;
    let mut streams = Streams::chosen(connection, group, query)?;
    let request = query.request_id.as_ref().map(id::to_bytes);
    let start = query.start.map_or(Cursor::START, Cursor::before);
    let end = query.end.map_or(Cursor::END, |end| Cursor::before(end.plus_millis(1)));
    let (low, high, back) = query.from.bounds(start, end);
    let direction = if back { "DESC" } else { "ASC" };
    let mut run = || {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {COLUMNS}, request, message FROM events
             WHERE log_group = ?1 AND (timestamp, seq) > (?2, ?3) AND (timestamp, seq) < (?4, ?5)
             ORDER BY timestamp {direction}, seq {direction}"
        ))?;
        let mut rows = statement.query(params![group, low.timestamp, low.seq, high.timestamp, high.seq])?;
        let (mut events, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
        let mut last = if back { high } else { low };
        let next = |last| Some(if back { PageStart::Before(last) } else { PageStart::After(last) });
        while let Some(row) = rows.next()? {
            if events.len() == query.limit || looked_at == PAGE_ROWS {
                return Ok(FilterPage { events, next: next(last) });
            }
            let found = found(row)?;
            looked_at += 1;
            let here = found.cursor;
            let stored_request = row.get_ref(4)?.as_blob_or_null()?;
            let message = row.get_ref(5)?.as_str()?;
            let wanted = request.as_deref().is_none_or(|request| stored_request == Some(request));
            if wanted
                && query.pattern.matches(message)
                && let Some(stream) = streams.name(connection, found.stream)?
            {
                bytes += message.len();
                if PAGE_BYTES < bytes && !events.is_empty() {
                    return Ok(FilterPage { events, next: next(last) });
                }
                events.push(found.event(stream, stored_request, message.to_owned()));
            }
            last = here;
        }
        Ok(FilterPage { events, next: None })
    };
    run().map_err(TelemetryError::at("search log events"))
}

/// The streams that a search takes events from, and their names as they are met.
struct Streams {
    /// `None`: all of the group.
    chosen: Option<HashSet<i64>>,
    names: HashMap<i64, Arc<str>>,
}

impl Streams {
    fn chosen(connection: &Connection, group: i64, query: &FilterQuery) -> Result<Self, TelemetryError> {
        let all = query.streams.is_empty() && query.stream_prefix.is_empty();
        let mut streams = Self { chosen: None, names: HashMap::new() };
        if all {
            return Ok(streams);
        }
        let mut chosen = HashSet::new();
        let find = TelemetryError::at("find log streams");
        let mut run = || {
            let sql =
                "SELECT id, name FROM streams WHERE log_group = ?1 AND substr(name, 1, length(?2)) = ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![group, query.stream_prefix])?;
            while let Some(row) = rows.next()? {
                let name: String = row.get(1)?;
                if query.streams.is_empty() || query.streams.contains(&name) {
                    chosen.insert(row.get(0)?);
                    streams.names.insert(row.get(0)?, name.into());
                }
            }
            Ok(())
        };
        run().map_err(find)?;
        if let Some(unknown) = query.streams.iter().find(|wanted| {
            wanted.starts_with(&query.stream_prefix)
                && !streams.names.values().any(|name| **name == ***wanted)
        }) {
            return Err(TelemetryError::NoSuchStream(unknown.clone()));
        }
        streams.chosen = Some(chosen);
        Ok(streams)
    }

    /// The name of a stream, `None` when its events are not wanted.
    fn name(&mut self, connection: &Connection, id: i64) -> rusqlite::Result<Option<Arc<str>>> {
        if self.chosen.as_ref().is_some_and(|chosen| !chosen.contains(&id)) {
            return Ok(None);
        }
        if let Some(name) = self.names.get(&id) {
            return Ok(Some(name.clone()));
        }
        let mut statement = connection.prepare_cached("SELECT name FROM streams WHERE id = ?1")?;
        let name: String = statement.query_row([id], |row| row.get(0)).optional()?.unwrap_or_default();
        Ok(Some(self.names.entry(id).or_insert(name.into()).clone()))
    }
}
