//! `DescribeLogStreams`.

use super::{Logs, failed, invalid, names, token};
use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Input, Output};
use martlet_model::Timestamp;
use martlet_telemetry::{StreamInfo, StreamOrder, StreamQuery};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    log_group_name: Option<String>,
    log_group_identifier: Option<String>,
    log_stream_name_prefix: Option<String>,
    #[serde(default)]
    order_by: OrderBy,
    #[serde(default)]
    descending: bool,
    next_token: Option<String>,
    limit: Option<usize>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum OrderBy {
    #[default]
    LogStreamName,
    LastEventTime,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    log_streams: Vec<Stream>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stream {
    arn: String,
    log_stream_name: String,
    creation_time: Timestamp,
    first_event_timestamp: Timestamp,
    last_event_timestamp: Timestamp,
    last_ingestion_time: Timestamp,
    stored_bytes: u64,
}

pub(super) async fn describe_log_streams(
    logs: Arc<Logs>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    if request.order_by == OrderBy::LastEventTime && request.log_stream_name_prefix.is_some() {
        return Err(invalid("Cannot order by LastEventTime with a logStreamNamePrefix."));
    }
    let group =
        names::group(&ctx, request.log_group_name.as_deref(), request.log_group_identifier.as_deref())?;
    let limit = request.limit.unwrap_or(50);
    let query = StreamQuery {
        group: group.clone(),
        prefix: request.log_stream_name_prefix.unwrap_or_default(),
        order: match request.order_by {
            OrderBy::LogStreamName => StreamOrder::Name,
            OrderBy::LastEventTime => StreamOrder::LastEvent,
        },
        descending: request.descending,
        after: request.next_token.as_deref().map(open).transpose()?,
        // One more tells whether there is another page.
        limit: limit + 1,
    };
    let mut streams = logs.telemetry.streams(query).await.map_err(failed)?;
    let more = limit < streams.len();
    streams.truncate(limit);
    let next_token = streams.last().filter(|_| more).map(seal);
    let log_streams = streams.into_iter().map(|stream| describe(stream, &group)).collect();
    Output::json(&Response { log_streams, next_token })
}

fn seal(last: &StreamInfo) -> String {
    token::seal(&format!("{} {}", last.last_event.0, last.name))
}

fn open(token: &str) -> Result<(Timestamp, String), ApiError> {
    let place = token::open(token)?;
    let (last_event, name) = place.split_once(' ').ok_or_else(token::refused)?;
    let last_event = last_event.parse().map_err(|_| token::refused())?;
    Ok((Timestamp(last_event), name.to_owned()))
}

fn describe(stream: StreamInfo, group: &str) -> Stream {
    Stream {
        arn: format!("{group}:log-stream:{}", stream.name),
        log_stream_name: stream.name,
        creation_time: stream.created,
        first_event_timestamp: stream.first_event,
        last_event_timestamp: stream.last_event,
        last_ingestion_time: stream.last_ingestion,
        stored_bytes: stream.stored_bytes,
    }
}
