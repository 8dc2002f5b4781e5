//! `GetLogEvents` and `FilterLogEvents`.

use super::{Logs, failed, invalid, names, token};
use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Input, Output};
use martlet_model::Timestamp;
use martlet_telemetry::{Cursor, EventQuery, FilterQuery, PageStart, Pattern, PatternError, StoredEvent};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Most events of one page, and as many as there are unless asked for fewer.
const PAGE_EVENTS: usize = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Get {
    log_group_name: Option<String>,
    log_group_identifier: Option<String>,
    log_stream_name: String,
    start_time: Option<u64>,
    end_time: Option<u64>,
    next_token: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    start_from_head: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Got {
    events: Vec<GotEvent>,
    next_forward_token: String,
    next_backward_token: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GotEvent {
    timestamp: Timestamp,
    message: String,
    ingestion_time: Timestamp,
}

pub(super) async fn get_log_events(logs: Arc<Logs>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Get = input.parse()?;
    let first = if request.start_from_head { PageStart::Head } else { PageStart::Tail };
    let query = EventQuery {
        group: names::group(
            &ctx,
            request.log_group_name.as_deref(),
            request.log_group_identifier.as_deref(),
        )?,
        stream: request.log_stream_name,
        start: request.start_time.map(Timestamp),
        end: request.end_time.map(Timestamp),
        from: request.next_token.as_deref().map(open).transpose()?.unwrap_or(first),
        limit: request.limit.unwrap_or(PAGE_EVENTS),
    };
    let page = logs.telemetry.events(query).await.map_err(failed)?;
    let got = |event: StoredEvent| GotEvent {
        timestamp: event.timestamp,
        message: event.message,
        ingestion_time: event.ingested,
    };
    Output::json(&Got {
        events: page.events.into_iter().map(got).collect(),
        next_forward_token: seal(PageStart::After(page.end)),
        next_backward_token: seal(PageStart::Before(page.begin)),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    log_group_name: Option<String>,
    log_group_identifier: Option<String>,
    #[serde(default)]
    log_stream_names: Vec<String>,
    log_stream_name_prefix: Option<String>,
    start_time: Option<u64>,
    end_time: Option<u64>,
    filter_pattern: Option<String>,
    next_token: Option<String>,
    limit: Option<usize>,
    start_from_head: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Filtered<'a> {
    events: Vec<FilteredEvent<'a>>,
    /// Always empty, as AWS's is since 2020.
    searched_log_streams: [(); 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FilteredEvent<'a> {
    log_stream_name: &'a str,
    timestamp: Timestamp,
    message: &'a str,
    ingestion_time: Timestamp,
    event_id: String,
}

pub(super) async fn filter_log_events(logs: Arc<Logs>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: Filter = input.parse()?;
    if !request.log_stream_names.is_empty() && request.log_stream_name_prefix.is_some() {
        return Err(invalid("logStreamNames and logStreamNamePrefix are mutually exclusive parameters."));
    }
    let pattern = request.filter_pattern.as_deref().unwrap_or_default();
    let first = if request.start_from_head.unwrap_or(true) { PageStart::Head } else { PageStart::Tail };
    let query = FilterQuery {
        group: names::group(
            &ctx,
            request.log_group_name.as_deref(),
            request.log_group_identifier.as_deref(),
        )?,
        streams: request.log_stream_names,
        stream_prefix: request.log_stream_name_prefix.unwrap_or_default(),
        start: request.start_time.map(Timestamp),
        end: request.end_time.map(Timestamp),
        pattern: pattern.parse::<Pattern>().map_err(|error: PatternError| invalid(error.to_string()))?,
        request_id: None,
        from: request.next_token.as_deref().map(open).transpose()?.unwrap_or(first),
        limit: request.limit.unwrap_or(PAGE_EVENTS),
    };
    let page = logs.telemetry.filter(query).await.map_err(failed)?;
    Output::json(&Filtered {
        events: page.events.iter().map(filtered).collect(),
        searched_log_streams: [],
        next_token: page.next.map(seal),
    })
}

fn filtered(event: &StoredEvent) -> FilteredEvent<'_> {
    FilteredEvent {
        log_stream_name: &event.stream,
        timestamp: event.timestamp,
        message: &event.message,
        ingestion_time: event.ingested,
        // AWS's ids have 56 digits, and some clients sort by them.
        event_id: format!("{:0>56}", event.cursor.to_string()),
    }
}

/// The token of a place: `f/` goes forward from it, `b/` back.
fn seal(place: PageStart) -> String {
    match place {
        PageStart::After(cursor) => format!("f/{cursor}/s"),
        PageStart::Before(cursor) => format!("b/{cursor}/s"),
        // Pages never end at these.
        PageStart::Head | PageStart::Tail => String::new(),
    }
}

fn open(text: &str) -> Result<PageStart, ApiError> {
    let cursor = |rest: &str| {
        rest.strip_suffix("/s").and_then(|digits| digits.parse::<Cursor>().ok()).ok_or_else(token::refused)
    };
    match text.split_at_checked(2) {
        Some(("f/", rest)) => cursor(rest).map(PageStart::After),
        Some(("b/", rest)) => cursor(rest).map(PageStart::Before),
        _ => Err(token::refused()),
    }
}
