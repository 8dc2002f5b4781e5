//! The checked-in models (`models/*.json`) as they are written, before [`super::model`] makes a graph of them.

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// A JSON object whose order matters: members are validated, and reported, in the order of the model.
pub(super) struct Ordered<'a, V>(pub(super) Vec<(&'a str, V)>);

impl<V> Default for Ordered<'_, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de: 'a, 'a, V: Deserialize<'de>> Deserialize<'de> for Ordered<'a, V> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Ordered<'de, V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some(entry) = map.next_entry::<&'de str, V>()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[derive(Deserialize)]
pub(super) struct RawModel<'a> {
    #[serde(borrow)]
    pub(super) metadata: Metadata<'a>,
    #[serde(borrow)]
    pub(super) operations: Ordered<'a, RawOperation<'a>>,
    #[serde(borrow)]
    pub(super) shapes: Ordered<'a, RawShape<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata<'a> {
    pub(super) endpoint_prefix: &'a str,
    #[serde(borrow)]
    pub(super) signing_name: Option<&'a str>,
    pub(super) protocol: &'a str,
    #[serde(borrow)]
    pub(super) json_version: Option<&'a str>,
    #[serde(borrow)]
    pub(super) target_prefix: Option<&'a str>,
    pub(super) service_id: &'a str,
}

#[derive(Deserialize)]
pub(super) struct RawOperation<'a> {
    #[serde(borrow)]
    pub(super) http: RawHttp<'a>,
    #[serde(borrow)]
    pub(super) input: Option<&'a str>,
    #[serde(borrow)]
    pub(super) output: Option<&'a str>,
    #[serde(borrow)]
    pub(super) errors: Vec<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawHttp<'a> {
    pub(super) method: &'a str,
    pub(super) request_uri: &'a str,
    pub(super) response_code: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawShape<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'a str,
    #[serde(borrow, default)]
    pub(super) required: Vec<&'a str>,
    #[serde(borrow, default)]
    pub(super) members: Ordered<'a, RawMember<'a>>,
    #[serde(borrow)]
    pub(super) member: Option<RawMember<'a>>,
    #[serde(borrow)]
    pub(super) key: Option<RawMember<'a>>,
    #[serde(borrow)]
    pub(super) value: Option<RawMember<'a>>,
    #[serde(borrow)]
    pub(super) payload: Option<&'a str>,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    #[serde(borrow)]
    pub(super) pattern: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "enum", default)]
    pub(super) values: Vec<Cow<'a, str>>,
    #[serde(default)]
    pub(super) sensitive: bool,
    #[serde(borrow)]
    pub(super) timestamp_format: Option<&'a str>,
    #[serde(default)]
    pub(super) exception: bool,
    #[serde(default)]
    pub(super) fault: bool,
    #[serde(default)]
    pub(super) document: bool,
    pub(super) error: Option<RawError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawMember<'a> {
    pub(super) shape: &'a str,
    #[serde(borrow)]
    pub(super) location: Option<&'a str>,
    #[serde(borrow)]
    pub(super) location_name: Option<&'a str>,
    #[serde(borrow)]
    pub(super) timestamp_format: Option<&'a str>,
    #[serde(default)]
    pub(super) jsonvalue: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawError {
    pub(super) http_status_code: Option<u16>,
}
