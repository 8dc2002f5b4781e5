//! A decoded request member, and its way into the handler's own structs through serde.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};
use std::fmt;

/// A member's value, already of the type that the model says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A null within a list or a map; a null member is an absent one.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// Text.
    Text(String),
    /// Bytes, no longer base64.
    Blob(Bytes),
    /// An instant, in milliseconds of the Unix epoch.
    Timestamp(i64),
    /// A list.
    List(Vec<Value>),
    /// A map, in the order of the request; a key that comes twice keeps its last value.
    Map(Vec<(String, Value)>),
    /// A structure's members that are present, each once.
    Structure(Vec<(&'static str, Value)>),
    /// Any JSON.
    Document(serde_json::Value),
}

impl Value {
    /// The text of a [`Value::Text`].
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Empty text, list, map, `false`, or a structure with nothing but such members: what asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Null | Self::Bool(false) => true,
            Self::Text(text) => text.is_empty(),
            Self::Blob(bytes) => bytes.is_empty(),
            Self::List(values) => values.is_empty(),
            Self::Map(entries) => entries.is_empty(),
            Self::Structure(members) => members.iter().all(|(_, value)| value.is_empty()),
            Self::Bool(true)
            | Self::Integer(_)
            | Self::Number(_)
            | Self::Timestamp(_)
            | Self::Document(_) => false,
        }
    }
}

/// Bytes in a handler's struct: `Code.ZipFile` and its kind. Base64 where it is written as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Bytes);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Raw;
        impl Visitor<'_> for Raw {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes.into()))
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_byte_buf(Raw)
    }
}

impl serde::Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

/// A handler's struct does not agree with the model: a mistake of ours, never of the caller.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

impl de::Error for ParseError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

pub(super) fn parse_members<T: DeserializeOwned>(
    members: Vec<(&'static str, Value)>,
) -> Result<T, ParseError> {
    T::deserialize(MapDeserializer::new(members.into_iter()))
}

impl<'de> IntoDeserializer<'de, ParseError> for Value {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> de::Deserializer<'de> for Value {
    type Error = ParseError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParseError> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Integer(value) | Self::Timestamp(value) => match u64::try_from(value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(value),
            },
            Self::Number(value) => visitor.visit_f64(value),
            Self::Text(value) => visitor.visit_string(value),
            Self::Blob(value) => visitor.visit_byte_buf(value.into()),
            Self::List(values) => visitor.visit_seq(SeqDeserializer::new(values.into_iter())),
            Self::Map(entries) => visitor.visit_map(MapDeserializer::new(entries.into_iter())),
            Self::Structure(members) => visitor.visit_map(MapDeserializer::new(members.into_iter())),
            Self::Document(value) => value.deserialize_any(visitor).map_err(de::Error::custom),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParseError> {
        match self {
            Self::Null => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ParseError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ParseError> {
        match self {
            Self::Text(text) => visitor.visit_enum(text.into_deserializer()),
            other => Err(de::Error::custom(format_args!("{other:?} is no enumeration value"))),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "PascalCase")]
    struct Request {
        name: String,
        count: Option<u32>,
        code: Option<Code>,
        tags: Option<BTreeMap<String, String>>,
        mode: Option<Mode>,
        since: Option<martlet_model::Timestamp>,
    }
    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "PascalCase")]
    struct Code {
        zip_file: Blob,
    }
    #[derive(Debug, Deserialize, PartialEq)]
    enum Mode {
        Active,
    }

    #[test]
    fn members_become_a_struct() {
        let members = vec![
            ("Name", Value::Text("f".into())),
            ("Count", Value::Integer(3)),
            ("Code", Value::Structure(vec![("ZipFile", Value::Blob(Bytes::from_static(b"PK")))])),
            ("Tags", Value::Map(vec![("a".into(), Value::Text("b".into()))])),
            ("Mode", Value::Text("Active".into())),
            ("Since", Value::Timestamp(1500)),
        ];
        let request: Request = parse_members(members).unwrap();
        assert_eq!(request.code.unwrap().zip_file.0, "PK");
        assert_eq!((request.name.as_str(), request.count, request.mode), ("f", Some(3), Some(Mode::Active)));
        assert_eq!(request.since, Some(martlet_model::Timestamp(1500)));
        let bare: Request = parse_members(vec![("Name", Value::Text("f".into()))]).unwrap();
        assert_eq!((bare.count, bare.tags), (None, None));
        assert!(parse_members::<Request>(vec![]).is_err());
    }

    #[test]
    fn what_asks_for_nothing_is_empty() {
        let off = Value::Structure(vec![("SubnetIds", Value::List(vec![])), ("Ipv6", Value::Bool(false))]);
        assert!(off.is_empty() && Value::Text(String::new()).is_empty());
        assert!(!Value::Structure(vec![("Mode", Value::Text("Active".into()))]).is_empty());
        assert!(!Value::Integer(0).is_empty());
    }
}
