//! JSON bodies to [`Value`]s, driven by shapes: what the model does not know is skipped without being kept, and
//! base64 is decoded straight from the request's bytes.

use super::error::ApiError;
use super::model::{Kind, Model, Shape, ShapeId, Structure};
use super::time;
use super::value::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::RefCell;
use std::fmt;

/// Reads a JSON object as the members of `structure` that travel in the body.
///
/// # Errors
/// `SerializationException` for what is not JSON, and for a value of another type than the model's.
pub(super) fn body(
    model: &Model,
    structure: ShapeId,
    text: &[u8],
) -> Result<Vec<(&'static str, Value)>, ApiError> {
    match document(model, structure, text)? {
        Value::Structure(members) => Ok(members),
        Value::Null => Ok(Vec::new()),
        _ => Err(ApiError::serialization("The request body must be a JSON object")),
    }
}

/// Reads JSON as a value of `shape`.
pub(super) fn document(model: &Model, shape: ShapeId, text: &[u8]) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(text)
        .map_err(|error| not_json(&format!("invalid UTF-8 after {} bytes", error.valid_up_to())))?;
    let fault = RefCell::new(None);
    let seed = Seed { model, shape: model.shape(shape), fault: &fault };
    let mut json = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    value.map_err(|error| match fault.take() {
        Some(fault) => ApiError::serialization(fault),
        None => not_json(&error.to_string()),
    })
}

/// Whether `text` is one JSON value with nothing after it; what it says is of no interest here.
///
/// # Errors
/// `InvalidRequestContentException`, as Lambda answers an event that is not JSON.
pub fn well_formed(text: &[u8]) -> Result<(), ApiError> {
    let refused = |detail: &dyn fmt::Display| {
        let message =
            format!("Could not parse request body into json: Could not parse payload into json: {detail}");
        ApiError::new("InvalidRequestContentException", message)
    };
    let text = std::str::from_utf8(text).map_err(|error| refused(&error))?;
    serde_json::from_str::<IgnoredAny>(text).map(|_| ()).map_err(|error| refused(&error))
}

fn not_json(detail: &str) -> ApiError {
    ApiError::serialization(format!("Could not parse request body into json: {detail}"))
}

struct Seed<'m> {
    model: &'m Model,
    shape: &'m Shape,
    /// Why a value was refused. serde_json adds a position to every message; AWS's texts have none.
    fault: &'m RefCell<Option<String>>,
}

impl Seed<'_> {
    fn inner(&self, shape: ShapeId) -> Self {
        Self { shape: self.model.shape(shape), ..*self }
    }

    fn refuse<E: Error>(&self, message: String) -> E {
        let error = E::custom(&message);
        self.fault.replace(Some(message));
        error
    }

    fn mismatch<E: Error>(&self, found: &str) -> E {
        self.refuse(match (&self.shape.kind, found) {
            (Kind::List { .. }, _) => "Expected list or null".to_owned(),
            (Kind::Structure(_) | Kind::Map { .. }, "LIST") => {
                "Start of list found where not expected".to_owned()
            }
            (Kind::Structure(_) | Kind::Map { .. }, _) => "Expected map or null".to_owned(),
            (_, "LIST") => "Start of list found where not expected".to_owned(),
            (_, "MAP") => "Start of structure or map found where not expected.".to_owned(),
            (kind, found) => format!("{found}_VALUE can not be converted to {}", type_name(kind)),
        })
    }
}

fn type_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::String { .. } => "a String",
        Kind::Integer { long: false, .. } => "an Integer",
        Kind::Integer { long: true, .. } => "a Long",
        Kind::Double { .. } => "a Double",
        Kind::Boolean => "a Boolean",
        Kind::Blob { .. } => "a Blob",
        Kind::Timestamp { .. } => "a Timestamp",
        Kind::Structure(_) | Kind::Map { .. } | Kind::List { .. } | Kind::Document => "a Document",
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.shape.kind {
            Kind::Document => serde::Deserialize::deserialize(deserializer).map(Value::Document),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(type_name(&self.shape.kind))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        match self.shape.kind {
            Kind::Boolean => Ok(Value::Bool(value)),
            _ => Err(self.mismatch(if value { "TRUE" } else { "FALSE" })),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        match (i64::try_from(value), &self.shape.kind) {
            (Ok(value), _) => self.visit_i64(value),
            (Err(_), Kind::Double { .. }) => Ok(Value::Number(value as f64)),
            (Err(_), Kind::Integer { .. }) => {
                Err(self.refuse(format!("{value} is out of the range of {}", type_name(&self.shape.kind))))
            }
            (Err(_), _) => Err(self.mismatch("NUMBER")),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        match self.shape.kind {
            Kind::Integer { long: false, .. } if i32::try_from(value).is_err() => {
                Err(self.refuse(format!("{value} is out of the range of an Integer")))
            }
            Kind::Integer { .. } => Ok(Value::Integer(value)),
            Kind::Double { .. } => Ok(Value::Number(value as f64)),
            Kind::Timestamp { .. } => self.visit_f64(value as f64),
            _ => Err(self.mismatch("NUMBER")),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        match self.shape.kind {
            Kind::Double { .. } => Ok(Value::Number(value)),
            // A whole number may be written as `3.0` or `3e0`.
            Kind::Integer { .. } if value.fract() == 0.0 && value.abs() < 9.0e18 => {
                self.visit_i64(value as i64)
            }
            Kind::Timestamp { .. } if value.abs() < 1.0e12 => {
                Ok(Value::Timestamp((value * 1000.0).round() as i64))
            }
            _ => Err(self.mismatch("NUMBER")),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        match self.shape.kind {
            Kind::String { .. } => Ok(Value::Text(text.to_owned())),
            Kind::Blob { .. } => match STANDARD.decode(text) {
                Ok(bytes) => Ok(Value::Blob(Bytes::from(bytes))),
                Err(_) => Err(self.refuse("A blob is not valid base64".to_owned())),
            },
            Kind::Timestamp { .. } => match time::parse(text) {
                Some(millis) => Ok(Value::Timestamp(millis)),
                None => Err(self.mismatch("STRING")),
            },
            _ => Err(self.mismatch("STRING")),
        }
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        match self.shape.kind {
            Kind::String { .. } => Ok(Value::Text(text)),
            _ => self.visit_str(&text),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let Kind::List { member, .. } = self.shape.kind else {
            return Err(self.mismatch("LIST"));
        };
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self.inner(member))? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        match &self.shape.kind {
            Kind::Structure(structure) => self.visit_structure(structure, map),
            Kind::Map { value: shape, .. } => {
                let mut entries: Vec<(String, Value)> = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    entries.push((key, map.next_value_seed(self.inner(*shape))?));
                }
                keep_last_of_each(&mut entries);
                Ok(Value::Map(entries))
            }
            _ => Err(self.mismatch("MAP")),
        }
    }
}

impl Seed<'_> {
    fn visit_structure<'de, A: MapAccess<'de>>(
        &self,
        structure: &Structure,
        mut map: A,
    ) -> Result<Value, A::Error> {
        let mut members: Vec<(&'static str, Value)> = Vec::new();
        while let Some(found) = map.next_key_seed(MemberName(structure))? {
            let Some(at) = found else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let member = &structure.members[at];
            let value = map.next_value_seed(self.inner(member.shape))?;
            members.retain(|(name, _)| *name != member.name);
            if value != Value::Null {
                members.push((member.name, value));
            }
        }
        Ok(Value::Structure(members))
    }
}

fn keep_last_of_each(entries: &mut Vec<(String, Value)>) {
    let mut last: std::collections::HashMap<&str, usize> =
        std::collections::HashMap::with_capacity(entries.len());
    for (at, (key, _)) in entries.iter().enumerate() {
        last.insert(key, at);
    }
    if last.len() == entries.len() {
        return;
    }
    let keep: Vec<bool> = entries.iter().enumerate().map(|(at, (key, _))| last[key.as_str()] == at).collect();
    let mut at = 0;
    entries.retain(|_| {
        at += 1;
        keep[at - 1]
    });
}

/// A key of a structure, as the member's index; `None` for one that the model does not know.
struct MemberName<'m>(&'m Structure);

impl<'de> DeserializeSeed<'de> for MemberName<'_> {
    type Value = Option<usize>;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for MemberName<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }
    fn visit_str<E: Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.by_wire_name(name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::testing::lambda;
    use super::*;

    fn create(text: &str) -> Result<Vec<(&'static str, Value)>, String> {
        let model = lambda();
        let input = model.operations[model.operation("CreateFunction").unwrap()].input.unwrap();
        body(model, input, text.as_bytes()).map_err(|error| {
            assert_eq!(error.code, "SerializationException");
            error.message
        })
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn members_are_typed_by_the_model() {
        let members = create(
            r#"{"FunctionName":"f\u00e9","Timeout":7,"Publish":true,"Code":{"ZipFile":"UEs=","S3Key":null},
                "Tags":{"a":"1","b":"2","a":"3"},"Layers":["x",null],"Unknown":{"deep":[1,{"x":null}]},"Role":null}"#,
        );
        assert_eq!(
            members.unwrap(),
            [
                ("FunctionName", text("f\u{e9}")),
                ("Timeout", Value::Integer(7)),
                ("Publish", Value::Bool(true)),
                ("Code", Value::Structure(vec![("ZipFile", Value::Blob("PK".into()))])),
                ("Tags", Value::Map(vec![("b".into(), text("2")), ("a".into(), text("3"))])),
                ("Layers", Value::List(vec![text("x"), Value::Null])),
            ]
        );
        assert_eq!(create(r#"{"Timeout":1,"Timeout":2}"#).unwrap(), [("Timeout", Value::Integer(2))]);
        assert_eq!(create(r#"{"Timeout":1,"Timeout":null}"#).unwrap(), []);
        assert_eq!(create("null").unwrap(), []);
        assert_eq!(create(r#"{"Timeout":7.0}"#).unwrap(), [("Timeout", Value::Integer(7))]);
    }

    #[test]
    fn other_types_are_refused() {
        for (body, message) in [
            (r#"{"FunctionName":1}"#, "NUMBER_VALUE can not be converted to a String"),
            (r#"{"FunctionName":true}"#, "TRUE_VALUE can not be converted to a String"),
            (r#"{"FunctionName":[]}"#, "Start of list found where not expected"),
            (r#"{"FunctionName":{}}"#, "Start of structure or map found where not expected."),
            (r#"{"Timeout":"1"}"#, "STRING_VALUE can not be converted to an Integer"),
            (r#"{"Timeout":99999999999}"#, "99999999999 is out of the range of an Integer"),
            (r#"{"Timeout":7.5}"#, "NUMBER_VALUE can not be converted to an Integer"),
            (r#"{"Timeout":1e400}"#, ""),
            (r#"{"Publish":"true"}"#, "STRING_VALUE can not be converted to a Boolean"),
            (r#"{"Layers":"a"}"#, "Expected list or null"),
            (r#"{"Layers":{"a":1}}"#, "Expected list or null"),
            (r#"{"Code":"a"}"#, "Expected map or null"),
            (r#"{"Tags":[]}"#, "Start of list found where not expected"),
            (r#"{"Code":{"ZipFile":"%%%"}}"#, "A blob is not valid base64"),
            ("[]", "Start of list found where not expected"),
            ("7", "Expected map or null"),
        ] {
            let refused = create(body).expect_err(body);
            assert!(message.is_empty() || refused == message, "{body}: {refused}");
        }
    }

    #[test]
    fn what_is_not_json_says_where() {
        for body in ["{", "{\"a\":}", "{} {}", "nonsense", "{'a':1}", "\u{feff}{}"] {
            let refused = create(body).expect_err(body);
            assert!(refused.starts_with("Could not parse request body into json: "), "{body}: {refused}");
        }
        let deep = format!("{}{}", "{\"Unknown\":".repeat(100_000), "}".repeat(100_000));
        assert!(create(&deep).is_err(), "nesting has an end");
        let model = lambda();
        let input = model.operations[model.operation("CreateFunction").unwrap()].input.unwrap();
        assert!(
            body(model, input, b"{\"FunctionName\":\"\xff\"}").unwrap_err().message.contains("invalid UTF-8")
        );
    }

    #[test]
    fn events_must_be_json_of_any_kind() {
        for event in ["{}", "null", " [1, \"a\"] ", "7", "\"text\""] {
            assert_eq!(well_formed(event.as_bytes()), Ok(()), "{event}");
        }
        for event in ["", "{", "{} x", "nul", "\u{1}"] {
            let error = well_formed(event.as_bytes()).expect_err(event);
            assert_eq!(error.code, "InvalidRequestContentException");
            assert!(
                error.message.starts_with("Could not parse request body into json: Could not parse payload")
            );
        }
    }
}
