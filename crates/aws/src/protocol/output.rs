//! Answers: what a handler returns, and how it is written.

use super::dialect::{self, Dialect};
use super::error::ApiError;
use super::model::{Location, Model, OperationModel, Protocol};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use martlet_gateway::{Response as Answer, Source};
use martlet_model::RequestId;
use serde::Serialize;
use serde_json::{Map, Value};

/// The header that every answer tells its request id in.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
/// The header that rest-json errors tell their code in.
pub const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const XML: HeaderValue = HeaderValue::from_static("text/xml");

/// What a handler answers with when it did what was asked.
#[derive(Default)]
pub struct Output {
    status: Option<u16>,
    headers: Vec<(&'static str, String)>,
    own: Option<(HeaderName, HeaderValue)>,
    body: Body,
}

#[derive(Default)]
enum Body {
    #[default]
    Empty,
    Json(Vec<u8>),
    Payload(Bytes),
    Stream(&'static str, Box<dyn Source>),
}

impl Output {
    /// Nothing but a status: operations without output, or whose members all travel elsewhere.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The members in the body, by serde: `#[serde(rename_all = "PascalCase")]`, absent members skipped
    /// (`skip_serializing_if`), [`super::value::Blob`] for bytes, [`super::time::EpochSeconds`] for timestamps.
    ///
    /// # Errors
    /// 500 when serde refuses the value, which only a map with keys that are not text causes.
    pub fn json<T: Serialize + ?Sized>(members: &T) -> Result<Self, ApiError> {
        let json = serde_json::to_vec(members)
            .map_err(|error| ApiError::internal(format!("the answer could not be written: {error}")))?;
        Ok(Self { body: Body::Json(json), ..Self::default() })
    }

    /// The member that is the whole body, as it is: not copied, not looked at.
    #[must_use]
    pub fn payload(payload: Bytes) -> Self {
        Self { body: Body::Payload(payload), ..Self::default() }
    }

    /// A body of another content type that is made while it is sent.
    #[must_use]
    pub fn stream(content_type: &'static str, source: impl Source + 'static) -> Self {
        Self { body: Body::Stream(content_type, Box::new(source)), ..Self::default() }
    }

    /// Another status than the model's.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// A member that the model sends as a header, by the member's name: `("FunctionError", "Unhandled")`.
    #[must_use]
    pub fn header(mut self, member: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((member, value.into()));
        self
    }

    /// A header of ours that no model has.
    #[must_use]
    pub fn own_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.own = Some((name, HeaderValue::from_static(value)));
        self
    }
}

/// Which members of an operation's output are headers, worked out once.
pub(crate) struct Shaper {
    status: StatusCode,
    content_type: HeaderValue,
    headers: Vec<(&'static str, HeaderName)>,
    /// json 1.x answers `{}` even where there is nothing to tell; rest-json does so where the model has an output.
    empty_object: bool,
}

impl Shaper {
    pub(crate) fn new(model: &Model, operation: &OperationModel) -> Self {
        let structure = operation.output.and_then(|output| model.structure(output));
        let members = structure.map(|structure| &structure.members[..]).unwrap_or_default();
        let headers = members.iter().filter_map(|member| match &member.location {
            Location::Header(header) => Some((member.name, header.clone())),
            _ => None,
        });
        let status = StatusCode::from_u16(operation.status).unwrap_or(StatusCode::OK);
        let (content_type, empty_object) = match model.protocol {
            Protocol::RestJson => {
                let payload = structure.is_some_and(|structure| structure.payload.is_some());
                (JSON, structure.is_some() && !payload && status != StatusCode::NO_CONTENT)
            }
            // An operation without output answers 200 with no body at all.
            Protocol::AwsJson { content_type } => {
                (HeaderValue::from_static(content_type), structure.is_some())
            }
        };
        Self { status, content_type, headers: headers.collect(), empty_object }
    }

    pub(crate) fn encode(&self, output: Output, request_id: &RequestId) -> Answer {
        let mut content_type = self.content_type.clone();
        let body = match output.body {
            Body::Json(json) => Bytes::from(json).into(),
            Body::Payload(payload) => payload.into(),
            Body::Stream(of, source) => {
                content_type = HeaderValue::from_static(of);
                martlet_gateway::Body::Stream(source)
            }
            Body::Empty if self.empty_object => Bytes::from_static(b"{}").into(),
            Body::Empty => martlet_gateway::Body::default(),
        };
        let mut response = Answer::new(body);
        *response.status_mut() =
            output.status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(self.status);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(REQUEST_ID, id_value(request_id));
        headers.extend(output.own);
        for (member, value) in output.headers {
            let name = self.headers.iter().find(|(name, _)| *name == member);
            debug_assert!(name.is_some(), "the model has no header member {member}");
            if let (Some((_, name)), Ok(value)) = (name, HeaderValue::try_from(value)) {
                headers.insert(name.clone(), value);
            }
        }
        response
    }
}

/// Writes a refusal as `dialect` spells it; `model` tells the rest, where the service is known already.
pub(crate) fn error(
    model: Option<&Model>,
    dialect: Dialect,
    error: ApiError,
    request_id: &RequestId,
) -> Response<Bytes> {
    let shape = model.and_then(|model| model.error(&error.code));
    let status = shape.and_then(|shape| shape.status).unwrap_or(error.status);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    if let Dialect::Query | Dialect::RestXml = dialect {
        let server = status.is_server_error();
        let text = dialect::xml(dialect, &error.code, &error.message, server, request_id.as_str());
        return finish(status, XML, Bytes::from(text), Vec::new(), request_id);
    }
    let mut members = Map::new();
    let mut headers = Vec::new();
    for (name, value) in error.extra {
        match shape.and_then(|shape| shape.headers.iter().find(|(member, _)| *member == name)) {
            Some((_, header)) => headers.push((header.clone(), value)),
            None => drop(members.insert(name.to_owned(), Value::String(value))),
        }
    }
    let message_name = shape.map_or("message", |shape| shape.message_name);
    members.insert(message_name.to_owned(), Value::String(error.message));
    if shape.is_some_and(|shape| shape.has_type) {
        let side = if status.is_server_error() { "Service" } else { "User" };
        members.insert("Type".to_owned(), Value::from(side));
    }
    let code = error.code.into_owned();
    let content_type = if let Dialect::AwsJson { content_type } = dialect {
        members.insert("__type".to_owned(), Value::String(code));
        HeaderValue::from_static(content_type)
    } else {
        headers.push((ERROR_TYPE, code));
        JSON
    };
    let body = serde_json::to_vec(&members).map(Bytes::from).unwrap_or_default();
    finish(status, content_type, body, headers, request_id)
}

fn finish(
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
    more: Vec<(HeaderName, String)>,
    request_id: &RequestId,
) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(REQUEST_ID, id_value(request_id));
    for (name, value) in more {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn id_value(request_id: &RequestId) -> HeaderValue {
    HeaderValue::from_str(request_id.as_str()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::super::model::testing::{lambda, logs};
    use super::super::{Blob, time::EpochSeconds};
    use super::*;
    use martlet_model::Timestamp;
    use serde_json::json;

    fn whole(answer: Answer) -> Response<Bytes> {
        answer.map(|body| match body {
            martlet_gateway::Body::Whole(bytes) => bytes,
            martlet_gateway::Body::Stream(_) => panic!("a stream"),
        })
    }

    fn encoded(model: &Model, operation: &str, output: Output) -> Response<Bytes> {
        let operation = &model.operations[model.operation(operation).unwrap()];
        whole(Shaper::new(model, operation).encode(output, &RequestId::from_random([7; 16])))
    }

    fn failed(model: &Model, refusal: ApiError) -> Response<Bytes> {
        error(Some(model), model.protocol.into(), refusal, &RequestId::from_random([7; 16]))
    }

    fn body(response: &Response<Bytes>) -> Value {
        serde_json::from_slice(response.body()).unwrap()
    }

    #[test]
    fn answers_have_the_models_status_and_headers() {
        let output = Output::payload("{}".into()).header("FunctionError", "Unhandled").status(202);
        let answer = encoded(lambda(), "Invoke", output);
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (202, b"{}".as_slice()));
        assert_eq!(answer.headers()["x-amz-function-error"], "Unhandled");
        assert_eq!(answer.headers()[REQUEST_ID], "07070707-0707-4707-8707-070707070707");

        assert_eq!(encoded(lambda(), "CreateFunction", Output::empty()).status().as_u16(), 201);
        let gone = encoded(lambda(), "TagResource", Output::empty());
        assert_eq!((gone.status().as_u16(), gone.body().len()), (204, 0));
        let members = json!({"at": EpochSeconds(Timestamp(1500)), "blob": Blob("PK".into())});
        let answer = encoded(lambda(), "GetFunction", Output::json(&members).unwrap());
        assert_eq!(body(&answer), json!({"at": 1.5, "blob": "UEs="}));

        let answer = encoded(logs(), "DescribeLogGroups", Output::empty());
        assert_eq!(answer.headers()["content-type"], "application/x-amz-json-1.1");
        assert_eq!(answer.body(), "{}");
        assert_eq!(encoded(logs(), "CreateLogGroup", Output::empty()).body().len(), 0);
    }

    #[test]
    fn header_values_that_no_header_can_carry_are_left_out() {
        let answer = encoded(lambda(), "Invoke", Output::empty().header("FunctionError", "a\r\nb: c"));
        assert!(!answer.headers().contains_key("x-amz-function-error"));
    }

    #[test]
    fn errors_are_spelled_as_each_protocol_does() {
        let answer = failed(lambda(), ApiError::new("ResourceConflictException", "It exists."));
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[ERROR_TYPE]),
            (409, &"ResourceConflictException".parse().unwrap())
        );
        assert_eq!(body(&answer), json!({"Type": "User", "message": "It exists."}));
        let answer = failed(lambda(), ApiError::internal("Sorry."));
        assert_eq!(
            (answer.status().as_u16(), body(&answer)),
            (500, json!({"Type": "Service", "Message": "Sorry."}))
        );
        let answer = failed(lambda(), ApiError::new("ValidationException", "No."));
        assert_eq!((answer.status().as_u16(), body(&answer)), (400, json!({"message": "No."})));

        let answer = failed(
            logs(),
            ApiError::new("ResourceNotFoundException", "The specified log group does not exist."),
        );
        assert_eq!(answer.status().as_u16(), 400);
        assert_eq!(
            body(&answer),
            json!({"__type": "ResourceNotFoundException", "message": "The specified log group does not exist."})
        );
        let answer = failed(
            logs(),
            ApiError::new("InvalidSequenceTokenException", "m").with("expectedSequenceToken", "t"),
        );
        assert_eq!(body(&answer)["expectedSequenceToken"], "t");
    }
}
