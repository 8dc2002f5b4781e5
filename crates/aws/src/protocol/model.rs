//! A service model as a graph of shapes that the codec, the validator and the router walk.
//!
//! Built once at start from the checked-in JSON; names borrow from that text, so the graph is small.

use super::pattern::Pattern;
use super::raw::{RawModel, RawOperation, RawShape};
use http::{HeaderName, Method};
use std::borrow::Cow;
use std::collections::HashMap;

/// Why a model could not be read. Only a broken build can cause it: the models are part of the program.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The text is not the JSON that the models are written in.
    #[error("the service model is not readable")]
    Json(#[source] serde_json::Error),
    /// A shape is named that the model does not have.
    #[error("the service model names the shape {0}, which it does not have")]
    MissingShape(&'static str),
    /// A protocol that no codec here speaks.
    #[error("the service model's protocol {0} is not spoken here")]
    Protocol(&'static str),
    /// A type of shape, a location or a method that is not known.
    #[error("the service model has {what} {value:?}, which is not known here")]
    Unknown {
        /// What kind of thing it is.
        what: &'static str,
        /// How the model spells it.
        value: &'static str,
    },
}

/// How requests and answers are written on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Operations are methods and paths; members live in path, query, headers and a JSON body.
    RestJson,
    /// Every operation is a POST to `/` named by `X-Amz-Target`; all members live in a JSON body.
    AwsJson {
        /// The content type of requests and answers, as in `application/x-amz-json-1.1`.
        content_type: &'static str,
    },
}

/// One service as its public model describes it.
pub struct Model {
    /// The name that signatures are scoped to, as in `lambda`.
    pub signing_name: &'static str,
    /// The service's name for people, as in `CloudWatch Logs`.
    pub service_id: &'static str,
    /// How it is spoken.
    pub protocol: Protocol,
    /// What stands before the dot in `X-Amz-Target`; empty for rest-json.
    pub target_prefix: &'static str,
    /// All operations, in the order of their names.
    pub operations: Vec<OperationModel>,
    shapes: Vec<Shape>,
    errors: HashMap<&'static str, ErrorModel>,
}

/// One operation.
pub struct OperationModel {
    /// The name, as in `CreateFunction`.
    pub name: &'static str,
    /// The HTTP method.
    pub method: Method,
    /// The path template, as in `/2015-03-31/functions/{FunctionName}`; it may end in `?name=value`.
    pub uri: &'static str,
    /// The status of a success that names none.
    pub status: u16,
    /// The structure that requests are decoded to, if the operation takes any input.
    pub input: Option<ShapeId>,
    /// The structure that answers are encoded from, if there is one.
    pub output: Option<ShapeId>,
    /// The codes that the model says it may fail with.
    pub errors: Vec<&'static str>,
}

/// Where in [`Model`] a shape is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeId(u32);

/// One shape.
pub struct Shape {
    /// The shape's name.
    pub name: &'static str,
    /// Values are never shown in messages.
    pub sensitive: bool,
    /// What it is.
    pub kind: Kind,
}

/// What values of a shape look like, and the limits on them.
pub enum Kind {
    /// Named members.
    Structure(Structure),
    /// Values of one shape, in order.
    List {
        /// The shape of the values.
        member: ShapeId,
        /// How many there may be.
        size: Bounds,
    },
    /// String keys and values of one shape.
    Map {
        /// The shape of the keys.
        key: ShapeId,
        /// The shape of the values.
        value: ShapeId,
        /// How many there may be.
        size: Bounds,
    },
    /// Text.
    String {
        /// How many characters.
        length: Bounds,
        /// What it must look like.
        pattern: Option<Pattern>,
        /// What it must be one of; empty when it is no enumeration.
        values: Box<[Cow<'static, str>]>,
    },
    /// A whole number of 32 or 64 bits.
    Integer {
        /// Whether it has 64 bits.
        long: bool,
        /// Its limits.
        range: Bounds,
    },
    /// A number.
    Double {
        /// Its limits.
        range: Bounds,
    },
    /// True or false.
    Boolean,
    /// Bytes: base64 within JSON, raw as a payload.
    Blob {
        /// How many bytes.
        length: Bounds,
    },
    /// An instant.
    Timestamp {
        /// The format, where the shape names one.
        format: Option<&'static str>,
    },
    /// Any JSON.
    Document,
}

/// The members of a structure.
pub struct Structure {
    /// In the order of the model.
    pub members: Box<[Member]>,
    /// The member that is the whole body, by index.
    pub payload: Option<usize>,
    by_wire_name: Box<[u16]>,
}

/// One member of a structure.
pub struct Member {
    /// The member's name, as in `FunctionName`.
    pub name: &'static str,
    /// How the wire spells it.
    pub wire_name: &'static str,
    /// How messages spell it, as in `functionName`.
    pub display_name: String,
    /// Its shape.
    pub shape: ShapeId,
    /// It must be there.
    pub required: bool,
    /// Where on the wire it is.
    pub location: Location,
    /// The text of the header is base64 of JSON.
    pub json_value: bool,
    /// The format of an instant, where the member names one.
    pub timestamp_format: Option<&'static str>,
}

/// Where a member of an input or output is on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In the JSON body, or it is the body.
    Body,
    /// A label of the path.
    Uri,
    /// In the query string.
    Query,
    /// A header.
    Header(HeaderName),
    /// The status of the answer.
    StatusCode,
}

/// Inclusive limits of a length, a count or a number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Not less than this.
    pub min: Option<f64>,
    /// Not more than this.
    pub max: Option<f64>,
}

/// How an exception looks on the wire.
pub struct ErrorModel {
    /// The HTTP status, where the model tells one.
    pub status: Option<u16>,
    /// How the member with the message is spelled: `message` or `Message`.
    pub message_name: &'static str,
    /// It has a member `Type` (`User` or `Service`).
    pub has_type: bool,
    /// Members that travel as headers: (member, header).
    pub headers: Vec<(&'static str, HeaderName)>,
}

impl Structure {
    /// The member that the wire spells `name`.
    #[must_use]
    pub fn by_wire_name(&self, name: &str) -> Option<usize> {
        let found =
            self.by_wire_name.binary_search_by(|at| self.members[usize::from(*at)].wire_name.cmp(name));
        found.ok().map(|at| usize::from(self.by_wire_name[at]))
    }

    /// The member called `name`.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.name == name)
    }
}

impl Model {
    /// Reads a checked-in model and links its shapes.
    ///
    /// # Errors
    /// [`ModelError`] when the text is no model, or one with parts that nothing here knows.
    pub fn read(text: &'static str) -> Result<Self, ModelError> {
        let raw: RawModel<'static> = serde_json::from_str(text).map_err(ModelError::Json)?;
        let ids: HashMap<&'static str, ShapeId> =
            raw.shapes.0.iter().enumerate().map(|(at, (name, _))| (*name, ShapeId(at as u32))).collect();
        let protocol = match (raw.metadata.protocol, raw.metadata.json_version) {
            ("rest-json", _) => Protocol::RestJson,
            ("json", Some("1.0")) => Protocol::AwsJson { content_type: "application/x-amz-json-1.0" },
            ("json", Some("1.1")) => Protocol::AwsJson { content_type: "application/x-amz-json-1.1" },
            (other, _) => return Err(ModelError::Protocol(other)),
        };
        let mut errors = HashMap::new();
        let mut shapes = Vec::with_capacity(raw.shapes.0.len());
        for (name, shape) in raw.shapes.0 {
            let built = build_shape(name, shape, &ids, &mut errors)?;
            shapes.push(built);
        }
        let operations = raw
            .operations
            .0
            .into_iter()
            .map(|(name, operation)| build_operation(name, operation, &ids))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            signing_name: raw.metadata.signing_name.unwrap_or(raw.metadata.endpoint_prefix),
            service_id: raw.metadata.service_id,
            protocol,
            target_prefix: raw.metadata.target_prefix.unwrap_or_default(),
            operations,
            shapes,
            errors,
        })
    }

    /// The shape behind an id of this model.
    #[must_use]
    pub fn shape(&self, id: ShapeId) -> &Shape {
        &self.shapes[id.0 as usize]
    }

    /// The structure behind an id, or `None` when the shape is something else.
    #[must_use]
    pub fn structure(&self, id: ShapeId) -> Option<&Structure> {
        match &self.shape(id).kind {
            Kind::Structure(structure) => Some(structure),
            _ => None,
        }
    }

    /// The operation called `name`, by index into [`Model::operations`].
    #[must_use]
    pub fn operation(&self, name: &str) -> Option<usize> {
        self.operations.binary_search_by(|operation| operation.name.cmp(name)).ok()
    }

    /// How the exception `code` looks, when the model has it.
    #[must_use]
    pub fn error(&self, code: &str) -> Option<&ErrorModel> {
        self.errors.get(code)
    }
}

fn find(ids: &HashMap<&'static str, ShapeId>, name: &'static str) -> Result<ShapeId, ModelError> {
    ids.get(name).copied().ok_or(ModelError::MissingShape(name))
}

fn build_operation(
    name: &'static str,
    raw: RawOperation<'static>,
    ids: &HashMap<&'static str, ShapeId>,
) -> Result<OperationModel, ModelError> {
    Ok(OperationModel {
        name,
        method: Method::from_bytes(raw.http.method.as_bytes())
            .map_err(|_| ModelError::Unknown { what: "the method", value: raw.http.method })?,
        uri: raw.http.request_uri,
        status: raw.http.response_code.unwrap_or(200),
        input: raw.input.map(|input| find(ids, input)).transpose()?,
        output: raw.output.map(|output| find(ids, output)).transpose()?,
        errors: raw.errors,
    })
}

fn build_shape(
    name: &'static str,
    raw: RawShape<'static>,
    ids: &HashMap<&'static str, ShapeId>,
    errors: &mut HashMap<&'static str, ErrorModel>,
) -> Result<Shape, ModelError> {
    let bounds = Bounds { min: raw.min, max: raw.max };
    let sensitive = raw.sensitive;
    let inner = |member: Option<super::raw::RawMember<'static>>| match member {
        Some(member) => find(ids, member.shape),
        None => Err(ModelError::MissingShape(name)),
    };
    let kind = match raw.kind {
        "structure" if raw.document => Kind::Document,
        "structure" => {
            let (exception, fault, error) = (raw.exception, raw.fault, raw.error.as_ref());
            let status = error.and_then(|error| error.http_status_code).or(fault.then_some(500));
            let structure = build_structure(raw, ids)?;
            if exception {
                errors.insert(name, error_model(status, &structure));
            }
            Kind::Structure(structure)
        }
        "list" => Kind::List { member: inner(raw.member)?, size: bounds },
        "map" => Kind::Map { key: inner(raw.key)?, value: inner(raw.value)?, size: bounds },
        "string" => Kind::String {
            length: bounds,
            pattern: raw.pattern.map(leak).map(Pattern::new),
            values: raw.values.into(),
        },
        "integer" => Kind::Integer { long: false, range: bounds },
        "long" => Kind::Integer { long: true, range: bounds },
        "double" | "float" => Kind::Double { range: bounds },
        "boolean" => Kind::Boolean,
        "blob" => Kind::Blob { length: bounds },
        "timestamp" => Kind::Timestamp { format: raw.timestamp_format },
        other => return Err(ModelError::Unknown { what: "the type", value: other }),
    };
    Ok(Shape { name, sensitive, kind })
}

/// Patterns with escapes cannot borrow from the JSON text. Models live as long as the program, so a leak of a few
/// kilobytes at start keeps every name in the graph a plain `&'static str`.
fn leak(text: Cow<'static, str>) -> &'static str {
    match text {
        Cow::Borrowed(text) => text,
        Cow::Owned(text) => Box::leak(text.into_boxed_str()),
    }
}

fn build_structure(
    raw: RawShape<'static>,
    ids: &HashMap<&'static str, ShapeId>,
) -> Result<Structure, ModelError> {
    let mut members = Vec::with_capacity(raw.members.0.len());
    for (name, member) in raw.members.0 {
        let wire_name = member.location_name.unwrap_or(name);
        let location = match member.location {
            None => Location::Body,
            Some("uri") => Location::Uri,
            Some("querystring") => Location::Query,
            Some("statusCode") => Location::StatusCode,
            Some("header") => Location::Header(
                HeaderName::from_bytes(wire_name.as_bytes())
                    .map_err(|_| ModelError::Unknown { what: "the header", value: wire_name })?,
            ),
            Some(other) => return Err(ModelError::Unknown { what: "the location", value: other }),
        };
        members.push(Member {
            name,
            wire_name,
            display_name: display_name(name),
            shape: find(ids, member.shape)?,
            required: raw.required.contains(&name),
            location,
            json_value: member.jsonvalue,
            timestamp_format: member.timestamp_format,
        });
    }
    let mut by_wire_name: Vec<u16> = (0..members.len() as u16).collect();
    by_wire_name.sort_by_key(|at| members[usize::from(*at)].wire_name);
    let payload = raw.payload.and_then(|payload| members.iter().position(|member| member.name == payload));
    Ok(Structure { members: members.into(), payload, by_wire_name: by_wire_name.into() })
}

/// AWS's messages show Java property names: only the first letter is lowered (`KMSKeyArn` is `kMSKeyArn`).
fn display_name(name: &str) -> String {
    let mut chars = name.chars();
    let first = chars.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

fn error_model(status: Option<u16>, structure: &Structure) -> ErrorModel {
    let names = || structure.members.iter().map(|member| member.name);
    ErrorModel {
        status,
        message_name: names().find(|name| name.eq_ignore_ascii_case("message")).unwrap_or("message"),
        has_type: names().any(|name| name == "Type"),
        headers: structure
            .members
            .iter()
            .filter_map(|member| match &member.location {
                Location::Header(header) => Some((member.name, header.clone())),
                _ => None,
            })
            .collect(),
    }
}

/// Models for tests, each read once: property tests need them hundreds of times.
#[cfg(test)]
pub(crate) mod testing {
    use super::Model;
    use std::sync::OnceLock;

    pub(crate) fn lambda() -> &'static Model {
        static MODEL: OnceLock<Model> = OnceLock::new();
        MODEL.get_or_init(|| Model::read(crate::models::LAMBDA).unwrap())
    }

    pub(crate) fn logs() -> &'static Model {
        static MODEL: OnceLock<Model> = OnceLock::new();
        MODEL.get_or_init(|| Model::read(crate::models::LOGS).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODELS: [&str; 2] = [crate::models::LAMBDA, crate::models::LOGS];

    #[test]
    fn the_models_are_read_and_linked() {
        let lambda = Model::read(MODELS[0]).unwrap();
        assert_eq!((lambda.signing_name, lambda.operations.len()), ("lambda", 91));
        assert_eq!(lambda.protocol, Protocol::RestJson);
        let invoke = &lambda.operations[lambda.operation("Invoke").unwrap()];
        let input = lambda.structure(invoke.input.unwrap()).unwrap();
        assert_eq!(input.members[input.payload.unwrap()].name, "Payload");
        let name = &input.members[input.by_wire_name("FunctionName").unwrap()];
        assert!(name.required && name.location == Location::Uri && name.display_name == "functionName");
        let throttled = lambda.error("TooManyRequestsException").unwrap();
        assert_eq!(
            (throttled.status, throttled.message_name, throttled.has_type),
            (Some(429), "message", true)
        );
        assert_eq!(throttled.headers[0].0, "retryAfterSeconds");

        let logs = Model::read(MODELS[1]).unwrap();
        assert_eq!((logs.signing_name, logs.target_prefix), ("logs", "Logs_20140328"));
        assert!(logs.operation("GetLogEvents").is_some() && logs.operation("Nonsense").is_none());
    }

    #[test]
    fn every_pattern_of_every_model_compiles() {
        for text in MODELS {
            for shape in Model::read(text).unwrap().shapes {
                if let Kind::String { pattern: Some(pattern), .. } = &shape.kind {
                    super::super::pattern::compiles(pattern.source())
                        .unwrap_or_else(|error| panic!("{} {}: {error}", shape.name, pattern.source()));
                }
            }
        }
    }
}
