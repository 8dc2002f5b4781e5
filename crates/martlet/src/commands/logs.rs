//! `martlet logs NAME`, through the CloudWatch Logs API.

use crate::cli::{LogsArgs, Output};
use crate::client::{Client, ClientError, segment};
use crate::terminal;
use http::Method;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often a follower asks for more.
const POLL: Duration = Duration::from_millis(300);
/// How far behind the newest record a follower still looks for late ones, in milliseconds.
const OVERLAP: u64 = 5_000;

/// Why no logs were printed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogsError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("there is no function {name:?}, and there are no logs of one ({group})")]
    Nothing { name: String, group: String },
    #[error("{0:?} is not a length of time; it takes a number with s, m, h or d, as in 10m")]
    Since(String),
}

impl LogsError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.hint(),
            Self::Nothing { .. } => Some("`martlet ls` lists functions".into()),
            Self::Since(_) => None,
        }
    }
}

pub(super) async fn run(
    arguments: &LogsArgs,
    output: Output,
    client: &mut Client,
) -> Result<ExitCode, LogsError> {
    // Whoever knows a request's id should not have to know when it was.
    let fallback = if arguments.request_id.is_some() { "1d" } else { "10m" };
    let since = duration(arguments.since.as_deref().unwrap_or(fallback))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut start = u64::try_from(now.saturating_sub(since).as_millis()).unwrap_or_default();
    let (group, exists) = log_group(client, &arguments.name).await?;
    let mut printed = HashSet::new();
    let mut wanted = arguments.request_id.as_deref().map(OneRequest::new);
    loop {
        let events = match filter(client, &group, start).await {
            Ok(events) => events,
            // A function's log begins with its first invocation.
            Err(error) if error.is("ResourceNotFoundException") && exists => Vec::new(),
            Err(error) if error.is("ResourceNotFoundException") => {
                return Err(LogsError::Nothing { name: arguments.name.clone(), group });
            }
            Err(error) => return Err(error.into()),
        };
        for event in &events {
            let id = event["eventId"].as_str().unwrap_or_default();
            let fresh = id.is_empty() || printed.insert(id.to_owned());
            if fresh && wanted.as_mut().is_none_or(|wanted| wanted.includes(event)) {
                print(event, output);
            }
        }
        if !arguments.follow {
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(newest) = events.iter().filter_map(|event| event["timestamp"].as_u64()).max() {
            let from = newest.saturating_sub(OVERLAP);
            if from > start {
                start = from;
                // What lies before the window cannot come again.
                let kept: HashSet<&str> = events
                    .iter()
                    .filter(|event| event["timestamp"].as_u64().is_some_and(|time| time >= from))
                    .filter_map(|event| event["eventId"].as_str())
                    .collect();
                printed.retain(|id: &String| kept.contains(id.as_str()));
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The log group of a function, and whether there is such a function: logs outlive what wrote them.
async fn log_group(client: &mut Client, name: &str) -> Result<(String, bool), ClientError> {
    let usual = || format!("/aws/lambda/{name}");
    let path = format!("/2015-03-31/functions/{}/configuration", segment(name));
    match client.lambda("GetFunctionConfiguration", Method::GET, &path, None).await {
        Ok(configuration) => {
            let group = configuration["LoggingConfig"]["LogGroup"].as_str().map(str::to_owned);
            Ok((group.unwrap_or_else(usual), true))
        }
        Err(error) if error.is("ResourceNotFoundException") => Ok((usual(), false)),
        Err(error) => Err(error),
    }
}

/// All records from `start` on, oldest first.
async fn filter(client: &mut Client, group: &str, start: u64) -> Result<Vec<Value>, ClientError> {
    let mut input = json!({ "logGroupName": group, "startTime": start });
    let mut events = Vec::new();
    loop {
        let mut page = client.logs("FilterLogEvents", &input).await?;
        if let Some(items) = page["events"].as_array_mut() {
            events.append(items);
        }
        match page["nextToken"].take() {
            Value::Null => return Ok(events),
            token => input["nextToken"] = token,
        }
    }
}

/// Picks one invocation's records out of all. A function's own lines need not name their request, but an environment
/// runs one request at a time: what its stream holds between the START and the REPORT of a request belongs to it.
struct OneRequest<'a> {
    id: &'a str,
    /// Streams that are inside the request.
    inside: HashSet<String>,
}

impl<'a> OneRequest<'a> {
    fn new(id: &'a str) -> Self {
        Self { id, inside: HashSet::new() }
    }

    /// Whether the record belongs to the request. Takes the records in their order.
    fn includes(&mut self, event: &Value) -> bool {
        let message = event["message"].as_str().unwrap_or_default();
        let stream = event["logStreamName"].as_str().unwrap_or_default();
        let named = message.contains(self.id);
        if marks(message, "START RequestId: ", "platform.start") {
            if named {
                self.inside.insert(stream.to_owned());
            } else {
                self.inside.remove(stream);
            }
        }
        let included = named || self.inside.contains(stream);
        if named && marks(message, "REPORT RequestId: ", "platform.report") {
            self.inside.remove(stream);
        }
        included
    }
}

/// Whether a record is the platform's mark of that kind, as text or as JSON.
fn marks(message: &str, text: &str, kind: &str) -> bool {
    message.starts_with(text) || (message.starts_with('{') && message.contains(&format!("\"{kind}\"")))
}

fn print(event: &Value, output: Output) {
    match output {
        // One document a line, so that a reader need not wait for the end.
        Output::Json => terminal::print_line(event),
        Output::Text => {
            let message = event["message"].as_str().unwrap_or_default();
            terminal::print_line(message.trim_end_matches('\n'));
        }
    }
}

fn duration(text: &str) -> Result<Duration, LogsError> {
    let wrong = || LogsError::Since(text.to_owned());
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_is_told_by_what_surrounds_it() {
        let records = [
            ("s1", "START RequestId: aaa Version: $LATEST"),
            ("s2", "START RequestId: bbb Version: $LATEST"),
            ("s1", "of a"),
            ("s2", "of b"),
            ("s1", "END RequestId: aaa"),
            ("s1", "REPORT RequestId: aaa\tDuration: 1 ms"),
            ("s1", "between"),
            ("s1", r#"{"type":"platform.start","record":{"requestId":"ccc"}}"#),
            ("s1", "of c"),
        ];
        let picked = |id: &str| {
            let mut wanted = OneRequest::new(id);
            let event =
                |(stream, message): &(&str, &str)| json!({"logStreamName": stream, "message": message});
            records
                .iter()
                .enumerate()
                .filter(|(_, r)| wanted.includes(&event(r)))
                .map(|(i, _)| i)
                .collect::<Vec<_>>()
        };
        assert_eq!(picked("aaa"), [0, 2, 4, 5]);
        assert_eq!(picked("bbb"), [1, 3]);
        assert_eq!(picked("ccc"), [7, 8]);
    }

    #[test]
    fn lengths_of_time_have_a_unit() {
        assert_eq!(duration("10m").unwrap(), Duration::from_secs(600));
        assert_eq!(duration("2d").unwrap(), Duration::from_secs(172_800));
        for wrong in
            ["", "m", "10", "-1m", "1.5h", "10 m", "99999999999999999999d", "18446744073709551615d", "1é"]
        {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
