//! What is told of an event that is over: Lambda's invocation record, and its dead letter.

use crate::Event;
use crate::fate::{Conclusion, Condition};
use bytes::Bytes;
use jiff::tz::TimeZone;
use martlet_model::{RequestId, Timestamp};
use serde::de::IgnoredAny;
use serde_json::json;

/// Most bytes of an error message in a dead letter.
const MESSAGE_BYTES: usize = 1_024;

/// An event that was given up, as dead-letter targets get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event as it was sent.
    pub body: Bytes,
    /// The attribute `RequestID`.
    pub request_id: RequestId,
    /// The attribute `ErrorCode`: an HTTP status. Absent when nothing was tried.
    pub error_code: Option<u16>,
    /// The attribute `ErrorMessage`: at most 1 KB.
    pub error_message: String,
}

/// The invocation record of an event, in Lambda's version 1.0.
pub(crate) fn record(event: &Event, end: &Conclusion, at: Timestamp) -> Bytes {
    let context = json!({
        "requestId": event.request_id,
        "functionArn": event.qualified_arn(),
        "condition": end.condition.as_str(),
        "approximateInvokeCount": end.invokes,
    });
    // Payloads are put in as they are: they may be long, and their numbers and the order of their keys are the caller's.
    let mut record = Vec::with_capacity(event.payload.len() + end.payload().map_or(0, Bytes::len) + 512);
    record.extend_from_slice(
        format!(
            r#"{{"version":"1.0","timestamp":"{}","requestContext":{context},"requestPayload":"#,
            date(at)
        )
        .as_bytes(),
    );
    push_json(&mut record, &event.payload);
    if let Some(status) = end.status {
        let mut response = json!({ "statusCode": status });
        if let Some(answer) = &end.answer {
            response["executedVersion"] = answer.version.to_string().into();
            if let Some(error) = &answer.function_error {
                response["functionError"] = error.as_str().into();
            }
        }
        record.extend_from_slice(format!(r#","responseContext":{response}"#).as_bytes());
    }
    if let Some(payload) = end.payload() {
        record.extend_from_slice(br#","responsePayload":"#);
        push_json(&mut record, payload);
    }
    record.push(b'}');
    record.into()
}

/// JSON as it is; anything else, which a runtime of one's own may answer, as text.
fn push_json(record: &mut Vec<u8>, payload: &[u8]) {
    if serde_json::from_slice::<IgnoredAny>(payload).is_ok() {
        record.extend_from_slice(payload);
    } else {
        let text = String::from_utf8_lossy(payload);
        record.extend_from_slice(json!(text).to_string().as_bytes());
    }
}

/// `2026-11-23T09:00:00.007Z`.
fn date(at: Timestamp) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    let instant = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    instant.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// The dead letter of an event that was given up.
pub(crate) fn dead_letter(event: &Event, end: &Conclusion) -> DeadLetter {
    let told = end.payload().and_then(|payload| {
        let document: serde_json::Value = serde_json::from_slice(payload).ok()?;
        document.get("errorMessage")?.as_str().map(str::to_owned)
    });
    let message = told.unwrap_or_else(|| match (end.condition, end.status) {
        (Condition::ZeroReservedConcurrency, _) => {
            "Function not invoked. Function is configured with zero reserved concurrent executions".to_owned()
        }
        (Condition::RecursiveInvocation, _) => {
            "Function not invoked. It has run too often in the same chain of requests".to_owned()
        }
        (_, Some(429)) => "Rate Exceeded.".to_owned(),
        (_, Some(404)) => format!("Function not found: {}", event.qualified_arn()),
        (Condition::EventAgeExceeded, _) => "Function not invoked. The event is too old".to_owned(),
        _ => String::new(),
    });
    DeadLetter {
        body: event.payload.clone(),
        request_id: event.request_id.clone(),
        error_code: end.status,
        error_message: message[..message.floor_char_boundary(MESSAGE_BYTES)].to_owned(),
    }
}

impl DeadLetter {
    /// The letter as a function gets it: as the record of a message that lay in a queue, which is how a function that looks after a
    /// dead-letter queue has always seen one. `source` is the ARN of the function that failed.
    #[must_use]
    pub fn as_event(&self, source: &str, at: Timestamp) -> Bytes {
        let attribute = |kind: &str, value: &str| json!({ "stringValue": value, "stringListValues": [], "binaryListValues": [], "dataType": kind });
        let mut attributes = json!({
            "RequestID": attribute("String", self.request_id.as_str()),
            "ErrorMessage": attribute("String", &self.error_message),
        });
        if let Some(code) = self.error_code {
            attributes["ErrorCode"] = attribute("Number", &code.to_string());
        }
        let sent = at.0.to_string();
        let event = json!({ "Records": [{
            "messageId": self.request_id,
            "body": String::from_utf8_lossy(&self.body),
            "attributes": {
                "ApproximateReceiveCount": "1",
                "SentTimestamp": &sent,
                "ApproximateFirstReceiveTimestamp": &sent,
            },
            "messageAttributes": attributes,
            "eventSource": "aws:lambda",
            "eventSourceARN": source,
            "awsRegion": source.split(':').nth(3),
        }]});
        event.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Answer;
    use crate::tests::event;
    use martlet_model::Version;
    use serde_json::Value;

    const AT: Timestamp = Timestamp(1_795_424_400_007);

    fn end(condition: Condition, status: Option<u16>, answer: Option<(&str, bool)>) -> Conclusion {
        let answer = answer.map(|(payload, failed)| Answer {
            version: Version::Published(3),
            payload: payload.to_owned().into(),
            function_error: failed.then(|| "Unhandled".to_owned()),
        });
        Conclusion { condition, invokes: 3, status, answer }
    }

    fn read(document: &[u8]) -> Value {
        serde_json::from_slice(document).expect("JSON")
    }

    #[test]
    fn a_record_of_success_is_lambdas() {
        let record = record(&event(7), &end(Condition::Success, Some(200), Some(("[1.50]", false))), AT);
        let expected = json!({
            "version": "1.0",
            "timestamp": "2026-11-23T09:00:00.007Z",
            "requestContext": {
                "requestId": event(7).request_id,
                "functionArn": "arn:aws:lambda:us-east-1:000000000000:function:hello:live",
                "condition": "Success",
                "approximateInvokeCount": 3,
            },
            "requestPayload": {"number": 7},
            "responseContext": {"statusCode": 200, "executedVersion": "3"},
            "responsePayload": [1.5],
        });
        assert_eq!(read(&record), expected);
        // Numbers come through as they were written.
        assert!(record.ends_with(br#""responsePayload":[1.50]}"#));
    }

    #[test]
    fn a_record_of_failure_has_the_error_and_only_what_there_was() {
        let failed = end(Condition::RetriesExhausted, Some(200), Some((r#"{"errorMessage":"no"}"#, true)));
        let record_of_it = read(&record(&event(7), &failed, AT));
        assert_eq!(record_of_it["responseContext"]["functionError"], "Unhandled");
        assert_eq!(record_of_it["responsePayload"], json!({"errorMessage": "no"}));
        let unqualified = Event { qualifier: None, ..event(7) };
        let off = read(&record(&unqualified, &end(Condition::ZeroReservedConcurrency, None, None), AT));
        assert!(off.get("responseContext").is_none() && off.get("responsePayload").is_none());
        let arn = off["requestContext"]["functionArn"].as_str().expect("an ARN").to_owned();
        assert!(arn.ends_with(":hello:$LATEST"), "{arn}");
        let throttled = read(&record(&event(7), &end(Condition::EventAgeExceeded, Some(429), None), AT));
        assert_eq!(throttled["responseContext"], json!({"statusCode": 429}));
        let odd = end(Condition::Success, Some(200), Some(("no JSON", false)));
        assert_eq!(read(&record(&event(7), &odd, AT))["responsePayload"], "no JSON");
    }

    #[test]
    fn a_dead_letter_is_the_event_and_three_attributes() {
        let document = json!({"errorMessage": "é".repeat(1_000), "errorType": "E"}).to_string();
        let letter =
            dead_letter(&event(7), &end(Condition::RetriesExhausted, Some(200), Some((&document, true))));
        assert_eq!((letter.body.clone(), letter.error_code), (event(7).payload, Some(200)));
        assert_eq!(letter.error_message, "é".repeat(512));
        let shown = read(&letter.as_event("arn:aws:lambda:us-east-1:000000000000:function:hello:live", AT));
        let message = &shown["Records"][0];
        assert_eq!(message["body"], "{\"number\":7}");
        assert_eq!(message["awsRegion"], "us-east-1");
        assert_eq!(message["messageAttributes"]["ErrorCode"]["stringValue"], "200");
        assert_eq!(message["messageAttributes"]["RequestID"]["stringValue"], json!(event(7).request_id));
        let off = dead_letter(&event(7), &end(Condition::ZeroReservedConcurrency, None, None));
        assert!(off.error_message.contains("zero reserved") && off.error_code.is_none());
        let gone = dead_letter(&event(7), &end(Condition::RetriesExhausted, Some(404), None));
        assert_eq!(
            gone.error_message,
            "Function not found: arn:aws:lambda:us-east-1:000000000000:function:hello:live"
        );
    }
}
