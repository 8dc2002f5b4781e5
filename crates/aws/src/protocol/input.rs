//! A request's members, from wherever on the wire the model puts them.

use super::decode;
use super::error::ApiError;
use super::model::{Kind, Location, Model, ModelError, OperationModel, Protocol, ShapeId, Structure};
use super::router::Labels;
use super::time;
use super::uri;
use super::value::{Value, parse_members};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Uri};
use serde::de::DeserializeOwned;

/// What a handler gets: the members that were in the request, checked against the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    /// Members by name, each at most once; null members and unknown ones are absent.
    pub members: Vec<(&'static str, Value)>,
    /// The member that is the whole body, when the operation has one that is bytes (`Payload` of Invoke). It is
    /// the request's body itself, not a copy.
    pub payload: Bytes,
}

impl Input {
    /// The member called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.members.iter().find(|(member, _)| *member == name).map(|(_, value)| value)
    }

    /// The text of the member called `name`.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_text()
    }

    /// All members as a struct of the handler's, by serde: `#[serde(rename_all = "PascalCase")]`, `Option` for what
    /// the model does not require, [`super::value::Blob`] for bytes, [`martlet_model::Timestamp`] for instants.
    ///
    /// # Errors
    /// 500 when the struct does not agree with the model; no request can cause that.
    pub fn parse<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        parse_members(self.members)
            .map_err(|error| ApiError::internal(format!("the request was decoded to another type: {error}")))
    }
}

/// Which parts of a request an operation's members come from, worked out once.
pub(crate) struct Binding {
    input: Option<ShapeId>,
    /// Members by the order of the labels in the path.
    labels: Vec<usize>,
    query: Vec<usize>,
    headers: Vec<(HeaderName, usize)>,
    body: Body,
}

enum Body {
    /// No member is in the body, which is not looked at.
    Ignored,
    /// A JSON object with the members.
    Members,
    /// The body is a member: bytes, or text, or a structure as JSON.
    Payload(usize),
}

impl Binding {
    pub(crate) fn new(model: &Model, operation: &OperationModel) -> Result<Self, ModelError> {
        let mut binding = Self {
            input: operation.input,
            labels: Vec::new(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::Ignored,
        };
        let Some(structure) = operation.input.and_then(|input| model.structure(input)) else {
            return Ok(binding);
        };
        if model.protocol != Protocol::RestJson {
            binding.body = Body::Members;
            return Ok(binding);
        }
        for (at, member) in structure.members.iter().enumerate() {
            match &member.location {
                Location::Query => binding.query.push(at),
                Location::Header(header) => binding.headers.push((header.clone(), at)),
                Location::Body if structure.payload.is_none() => binding.body = Body::Members,
                Location::Body | Location::Uri | Location::StatusCode => {}
            }
        }
        if let Some(payload) = structure.payload {
            binding.body = Body::Payload(payload);
        }
        let path = operation.uri.split('?').next().unwrap_or_default();
        for segment in path.split('/') {
            let Some(label) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
                continue;
            };
            let unknown = ModelError::Unknown { what: "the label", value: label };
            binding.labels.push(structure.by_wire_name(label).ok_or(unknown)?);
        }
        Ok(binding)
    }

    /// Decodes one request. Unknown members are skipped; nothing is validated yet but the types.
    ///
    /// # Errors
    /// `SerializationException` for what cannot be read as the model's types.
    pub(crate) fn decode(
        &self,
        model: &Model,
        uri: &Uri,
        labels: &Labels,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Input, ApiError> {
        let mut input = Input::default();
        let Some((id, structure)) = self.input.and_then(|id| Some((id, model.structure(id)?))) else {
            return Ok(input);
        };
        if matches!(self.body, Body::Members) && !body.is_empty() {
            input.members = decode::body(model, id, &body)?;
            input.members.retain(|(name, _)| {
                structure.by_name(name).is_some_and(|at| structure.members[at].location == Location::Body)
            });
        }
        if let Body::Payload(at) = self.body {
            self.payload(model, structure, at, body, &mut input)?;
        }
        for (at, label) in self.labels.iter().zip(labels.of(uri.path())) {
            let member = &structure.members[*at];
            let text = uri::decode(label, false).ok_or_else(|| broken_escape("path"))?;
            input.members.push((member.name, from_text(model, member.shape, member.wire_name, &text)?));
        }
        if let (Some(query), false) = (uri.query(), self.query.is_empty()) {
            self.query(model, structure, query, &mut input)?;
        }
        for (header, at) in &self.headers {
            let member = &structure.members[*at];
            let Some(value) = headers.get(header) else { continue };
            let text = value.to_str().map_err(|_| {
                ApiError::serialization(format!("The header {} is not plain text", member.wire_name))
            })?;
            let value = if member.json_value {
                json_value(text).ok_or_else(|| {
                    ApiError::serialization(format!("The header {} is not base64 of JSON", member.wire_name))
                })?
            } else {
                from_text(model, member.shape, member.wire_name, text)?
            };
            input.members.push((member.name, value));
        }
        Ok(input)
    }

    fn payload(
        &self,
        model: &Model,
        structure: &Structure,
        at: usize,
        body: Bytes,
        input: &mut Input,
    ) -> Result<(), ApiError> {
        let member = &structure.members[at];
        match model.shape(member.shape).kind {
            Kind::Blob { .. } => input.payload = body,
            _ if body.is_empty() => {}
            Kind::String { .. } => {
                let text = String::from_utf8(body.into())
                    .map_err(|_| ApiError::serialization("The request body is not UTF-8 text"))?;
                input.members.push((member.name, Value::Text(text)));
            }
            _ => input.members.push((member.name, decode::document(model, member.shape, &body)?)),
        }
        Ok(())
    }

    fn query(
        &self,
        model: &Model,
        structure: &Structure,
        query: &str,
        input: &mut Input,
    ) -> Result<(), ApiError> {
        for at in &self.query {
            let member = &structure.members[*at];
            let mut values = uri::pairs(query).filter(|(name, _)| {
                *name == member.wire_name
                    || (name.contains('%')
                        && uri::decode(name, true).is_some_and(|name| name == member.wire_name))
            });
            let read = |text: &str, shape| {
                let text = uri::decode(text, true).ok_or_else(|| broken_escape("query string"))?;
                from_text(model, shape, member.wire_name, &text)
            };
            let value = match model.shape(member.shape).kind {
                Kind::List { member: shape, .. } => {
                    let values = values.map(|(_, text)| read(text, shape)).collect::<Result<Vec<_>, _>>()?;
                    (!values.is_empty()).then_some(Value::List(values))
                }
                _ => values.next().map(|(_, text)| read(text, member.shape)).transpose()?,
            };
            if let Some(value) = value {
                input.members.push((member.name, value));
            }
        }
        Ok(())
    }
}

fn broken_escape(part: &str) -> ApiError {
    ApiError::serialization(format!("The {part} has a broken percent-escape or is not UTF-8"))
}

fn from_text(model: &Model, shape: ShapeId, name: &str, text: &str) -> Result<Value, ApiError> {
    let wrong = |wanted: &str| {
        ApiError::serialization(format!("'{text}' at '{name}' can not be converted to {wanted}"))
    };
    match &model.shape(shape).kind {
        Kind::String { .. } => Ok(Value::Text(text.to_owned())),
        Kind::Integer { long: false, .. } => {
            text.parse::<i32>().map(|value| Value::Integer(value.into())).map_err(|_| wrong("an Integer"))
        }
        Kind::Integer { long: true, .. } => {
            text.parse::<i64>().map(Value::Integer).map_err(|_| wrong("a Long"))
        }
        Kind::Double { .. } => text.parse::<f64>().map(Value::Number).map_err(|_| wrong("a Double")),
        Kind::Boolean => match text {
            "true" | "True" | "TRUE" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" => Ok(Value::Bool(false)),
            _ => Err(wrong("a Boolean")),
        },
        Kind::Timestamp { .. } => time::parse(text).map(Value::Timestamp).ok_or_else(|| wrong("a Timestamp")),
        Kind::Blob { .. } => {
            STANDARD.decode(text).map(|bytes| Value::Blob(bytes.into())).map_err(|_| wrong("a Blob"))
        }
        Kind::Structure(_) | Kind::List { .. } | Kind::Map { .. } | Kind::Document => {
            Err(wrong("a Document"))
        }
    }
}

fn json_value(text: &str) -> Option<Value> {
    let json = STANDARD.decode(text).ok()?;
    serde_json::from_slice(&json).ok().map(Value::Document)
}

#[cfg(test)]
mod tests {
    use super::super::model::testing::lambda;
    use super::super::router::Router;
    use super::*;
    use http::{HeaderValue, Method};
    use proptest::prelude::*;

    fn decode(
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        body: &'static [u8],
    ) -> Result<Input, ApiError> {
        let model = lambda();
        let uri: Uri = target.parse().unwrap();
        let (at, labels) =
            Router::new(model).find(method, uri.path(), uri.query().unwrap_or_default()).expect(target);
        let binding = Binding::new(model, &model.operations[at]).unwrap();
        binding.decode(model, &uri, &labels, headers, Bytes::from_static(body))
    }

    fn get(target: &str) -> Result<Input, ApiError> {
        decode(&Method::GET, target, &HeaderMap::new(), b"")
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn members_come_from_path_and_query() {
        let tags = "/2017-03-31/tags/arn%3Aaws%3Alambda%2Fx?tagKeys=a%20b&tagKeys=c+d&other=1";
        let input = decode(&Method::DELETE, tags, &HeaderMap::new(), b"").unwrap();
        assert_eq!(input.text("Resource"), Some("arn:aws:lambda/x"));
        assert_eq!(input.get("TagKeys"), Some(&Value::List(vec![text("a b"), text("c d")])));
        assert_eq!(input.members.len(), 2);

        let input = get("/2015-03-31/functions?MaxItems=7&Marker=&MaxItems=8").unwrap();
        assert_eq!(input.get("MaxItems"), Some(&Value::Integer(7)), "the first one counts");
        assert_eq!(input.text("Marker"), Some(""));
        assert_eq!(get("/2015-03-31/functions").unwrap().members, []);
    }

    #[test]
    fn a_payload_is_the_body_itself() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-log-type", HeaderValue::from_static("Tail"));
        let body = b"not looked at";
        let input = decode(&Method::POST, "/2015-03-31/functions/f/invocations", &headers, body).unwrap();
        assert_eq!(input.payload, &body[..]);
        assert_eq!(input.payload.as_ptr(), body.as_ptr(), "not copied");
        assert_eq!(input.text("LogType"), Some("Tail"));
    }

    #[test]
    fn members_of_the_body_are_found_only_there() {
        let path = "/2015-03-31/functions/f/code";
        let input =
            decode(&Method::PUT, path, &HeaderMap::new(), br#"{"FunctionName":"other","DryRun":true}"#)
                .unwrap();
        assert_eq!(input.members, [("DryRun", Value::Bool(true)), ("FunctionName", text("f"))]);
        assert!(decode(&Method::PUT, path, &HeaderMap::new(), b"").unwrap().get("DryRun").is_none());
    }

    #[test]
    fn texts_of_the_wrong_type_are_refused() {
        for target in [
            "/2015-03-31/functions?MaxItems=seven",
            "/2015-03-31/functions?MaxItems=",
            "/2015-03-31/functions?MaxItems=99999999999",
            "/2015-03-31/functions?Marker=%zz",
            "/2015-03-31/functions?Marker=%ff",
            "/2015-03-31/functions/%e2%82",
        ] {
            assert_eq!(get(target).expect_err(target).code, "SerializationException", "{target}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-log-type", HeaderValue::from_bytes(b"\xff").unwrap());
        let path = "/2015-03-31/functions/f/invocations";
        assert_eq!(decode(&Method::POST, path, &headers, b"").unwrap_err().code, "SerializationException");
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "((Marker|MaxItems|FunctionVersion|tagKeys|[a-z%]{0,6})=?[a-zA-Z0-9%+=]{0,8}&?){0,6}") {
            let _ = get(&format!("/2015-03-31/functions?{query}"));
        }
    }
}
