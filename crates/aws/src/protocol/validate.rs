//! Every limit of the model on every member, refused in AWS's own words.
//!
//! A request that is right costs no allocation here: paths and texts are made for failures only.

use super::model::{Bounds, Kind, Model, Shape, ShapeId, Structure};
use super::value::Value;
use std::fmt::Write;

/// Most failures that one message tells; a body of a megabyte can have hundreds of thousands.
const MOST_TOLD: usize = 100;
/// Longest value that a message repeats, in characters.
const LONGEST_SHOWN: usize = 2_000;
const NOT_NULL: &str = "Member must not be null";

/// Checks decoded members against their structure.
///
/// # Errors
/// The text of AWS's `ValidationException`: "2 validation errors detected: Value ... at '...' failed to satisfy
/// constraint: Member must ...; Value ...".
pub(crate) fn check(model: &Model, input: ShapeId, members: &[(&'static str, Value)]) -> Result<(), String> {
    let Some(structure) = model.structure(input) else { return Ok(()) };
    let mut check = Check { model, path: Vec::new(), failures: Vec::new() };
    check.structure(structure, members);
    if check.failures.is_empty() {
        return Ok(());
    }
    let plural = if check.failures.len() == 1 { "" } else { "s" };
    Err(format!("{} validation error{plural} detected: {}", check.failures.len(), check.failures.join("; ")))
}

struct Check<'m> {
    model: &'m Model,
    path: Vec<Step<'m>>,
    failures: Vec<String>,
}

#[derive(Clone, Copy)]
enum Step<'m> {
    Member(&'m str),
    Index(usize),
    Key(&'m str),
}

impl<'m> Check<'m> {
    fn structure(&mut self, structure: &'m Structure, members: &'m [(&'static str, Value)]) {
        for (at, member) in structure.members.iter().enumerate() {
            self.path.push(Step::Member(&member.display_name));
            let found = members.iter().find(|(name, _)| *name == member.name);
            match found {
                Some((_, value)) => self.value(member.shape, value),
                // The payload is the body itself, which is always there.
                None if member.required && structure.payload != Some(at) => {
                    self.fail(&Shown::Null, NOT_NULL);
                }
                None => {}
            }
            self.path.pop();
        }
    }

    fn value(&mut self, id: ShapeId, value: &'m Value) {
        let shape = self.model.shape(id);
        match (&shape.kind, value) {
            (Kind::Structure(structure), Value::Structure(members)) => self.structure(structure, members),
            (Kind::List { member, size }, Value::List(values)) => {
                self.list(shape, *member, *size, value, values);
            }
            (Kind::Map { key, value: of, size }, Value::Map(entries)) => {
                self.map(shape, (*key, *of), *size, value, entries);
            }
            _ => {
                let mut broken = Vec::new();
                broken_constraints(shape, value, &mut broken);
                for constraint in broken {
                    self.fail(&Shown::of(shape, value), &constraint);
                }
            }
        }
    }

    fn list(&mut self, shape: &Shape, member: ShapeId, size: Bounds, value: &'m Value, values: &'m [Value]) {
        self.size(shape, size, value, values.len());
        let inner = self.model.shape(member);
        if let Kind::Structure(_) | Kind::List { .. } | Kind::Map { .. } = inner.kind {
            for (at, value) in values.iter().enumerate() {
                self.path.push(Step::Index(at + 1));
                self.value(member, value);
                self.path.pop();
            }
        } else if values.iter().any(|value| !satisfies(inner, value)) {
            let mut all = all_constraints(inner);
            all.push(NOT_NULL.to_owned());
            let constraint = format!("Member must satisfy constraint: [{}]", all.join(", "));
            self.fail(&Shown::of_either(shape, inner, value), &constraint);
        }
    }

    fn map(
        &mut self,
        shape: &Shape,
        (key, inner): (ShapeId, ShapeId),
        size: Bounds,
        value: &'m Value,
        entries: &'m [(String, Value)],
    ) {
        self.size(shape, size, value, entries.len());
        let (key, inner_shape) = (self.model.shape(key), self.model.shape(inner));
        let shown = if key.sensitive { Shown::Hidden } else { Shown::of_either(shape, inner_shape, value) };
        if entries.iter().any(|(name, _)| !text_satisfies(key, name)) {
            let constraint =
                format!("Map keys must satisfy constraint: [{}]", all_constraints(key).join(", "));
            self.fail(&shown, &constraint);
        }
        if let Kind::Structure(_) | Kind::List { .. } | Kind::Map { .. } = inner_shape.kind {
            for (name, value) in entries {
                self.path.push(Step::Key(name));
                self.value(inner, value);
                self.path.pop();
            }
        } else if entries.iter().any(|(_, value)| !satisfies(inner_shape, value)) {
            let mut all = all_constraints(inner_shape);
            all.push(NOT_NULL.to_owned());
            self.fail(&shown, &format!("Map value must satisfy constraint: [{}]", all.join(", ")));
        }
    }

    fn size(&mut self, shape: &Shape, size: Bounds, value: &Value, count: usize) {
        let mut broken = Vec::new();
        length_constraints(size, count, &mut broken);
        for constraint in broken {
            self.fail(&Shown::of(shape, value), &constraint);
        }
    }

    fn fail(&mut self, shown: &Shown<'_>, constraint: &str) {
        if self.failures.len() == MOST_TOLD {
            return;
        }
        let mut text = match shown {
            Shown::Null => "Value null at '".to_owned(),
            Shown::Hidden => "Value at '".to_owned(),
            Shown::Value(value) => format!("Value '{}' at '", print(value)),
        };
        for (at, step) in self.path.iter().enumerate() {
            let dot = if at == 0 { "" } else { "." };
            // Writing to a String cannot fail.
            let _ = match step {
                Step::Member(name) => write!(text, "{dot}{name}"),
                Step::Index(index) => write!(text, "{dot}{index}.member"),
                Step::Key(key) => write!(text, "{dot}{key}.member"),
            };
        }
        let _ = write!(text, "' failed to satisfy constraint: {constraint}");
        self.failures.push(text);
    }
}

/// How a message shows the value that broke a rule.
enum Shown<'v> {
    Null,
    Hidden,
    Value(&'v Value),
}

impl<'v> Shown<'v> {
    fn of(shape: &Shape, value: &'v Value) -> Self {
        match value {
            Value::Null => Self::Null,
            _ if shape.sensitive || matches!(value, Value::Blob(_)) => Self::Hidden,
            _ => Self::Value(value),
        }
    }

    fn of_either(shape: &Shape, inner: &Shape, value: &'v Value) -> Self {
        if inner.sensitive { Self::Hidden } else { Self::of(shape, value) }
    }
}

/// As Java prints it, because that is who writes AWS's messages.
fn print(value: &Value) -> String {
    let text = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) | Value::Timestamp(value) => value.to_string(),
        Value::Number(value) => format!("{value:?}"),
        Value::Text(text) => text.clone(),
        Value::Blob(_) | Value::Structure(_) | Value::Document(_) => "...".to_owned(),
        Value::List(values) => format!("[{}]", values.iter().map(print).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| format!("{key}={}", print(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    };
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn satisfies(shape: &Shape, value: &Value) -> bool {
    let mut broken = Vec::new();
    broken_constraints(shape, value, &mut broken);
    broken.is_empty()
}

fn text_satisfies(shape: &Shape, text: &str) -> bool {
    let mut broken = Vec::new();
    text_constraints(shape, text, &mut broken);
    broken.is_empty()
}

fn broken_constraints(shape: &Shape, value: &Value, broken: &mut Vec<String>) {
    match (&shape.kind, value) {
        (_, Value::Null) => broken.push(NOT_NULL.to_owned()),
        (Kind::String { .. }, Value::Text(text)) => text_constraints(shape, text, broken),
        (Kind::Integer { range, .. }, Value::Integer(value)) => {
            outside(*range, *value as f64, integer_text, broken);
        }
        (Kind::Double { range }, Value::Number(value)) => outside(*range, *value, double_text, broken),
        (Kind::Blob { length }, Value::Blob(bytes)) => length_constraints(*length, bytes.len(), broken),
        _ => {}
    }
}

/// Pattern, enumeration, length: the order in which Lambda tells them.
fn text_constraints(shape: &Shape, text: &str, broken: &mut Vec<String>) {
    let Kind::String { length, pattern, values } = &shape.kind else { return };
    if let Some(pattern) = pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
        broken.push(pattern_text(pattern.source()));
    }
    if !values.is_empty() && !values.iter().any(|value| value == text) {
        broken.push(enum_text(values));
    }
    if *length != Bounds::default() {
        length_constraints(*length, text.chars().count(), broken);
    }
}

/// Every constraint that the elements of a list or a map have, broken or not: they are told all at once.
fn all_constraints(shape: &Shape) -> Vec<String> {
    let mut all = Vec::new();
    match &shape.kind {
        Kind::String { length, pattern, values } => {
            both(*length, length_text, &mut all);
            all.extend(pattern.as_ref().map(|pattern| pattern_text(pattern.source())));
            if !values.is_empty() {
                all.push(enum_text(values));
            }
        }
        Kind::Blob { length } => both(*length, length_text, &mut all),
        Kind::Integer { range, .. } => both(*range, integer_text, &mut all),
        Kind::Double { range } => both(*range, double_text, &mut all),
        _ => {}
    }
    all
}

fn both(bounds: Bounds, text: fn(&str, f64) -> String, all: &mut Vec<String>) {
    all.extend(bounds.max.map(|max| text("less", max)));
    all.extend(bounds.min.map(|min| text("greater", min)));
}

fn length_constraints(bounds: Bounds, length: usize, broken: &mut Vec<String>) {
    outside(bounds, length as f64, length_text, broken);
}

fn outside(bounds: Bounds, value: f64, text: fn(&str, f64) -> String, broken: &mut Vec<String>) {
    broken.extend(bounds.max.filter(|max| value > *max).map(|max| text("less", max)));
    broken.extend(bounds.min.filter(|min| value < *min).map(|min| text("greater", min)));
}

fn length_text(side: &str, bound: f64) -> String {
    format!("Member must have length {side} than or equal to {bound}")
}

fn integer_text(side: &str, bound: f64) -> String {
    format!("Member must have value {side} than or equal to {bound}")
}

/// Java prints a whole double with its `.0`.
fn double_text(side: &str, bound: f64) -> String {
    format!("Member must have value {side} than or equal to {bound:?}")
}

fn pattern_text(source: &str) -> String {
    format!("Member must satisfy regular expression pattern: {source}")
}

fn enum_text(values: &[std::borrow::Cow<'static, str>]) -> String {
    format!("Member must satisfy enum value set: [{}]", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::super::model::testing::{lambda, logs};
    use super::*;
    use proptest::prelude::*;

    /// What is wrong with a body; empty when nothing is.
    fn told(model: &Model, operation: &str, body: &str) -> String {
        let input = model.operations[model.operation(operation).unwrap()].input.unwrap();
        let members = decode::body(model, input, body.as_bytes()).unwrap();
        check(model, input, &members).err().unwrap_or_default()
    }

    fn create(more: &str) -> String {
        let body =
            format!(r#"{{"FunctionName":"f","Role":"arn:aws:iam::000000000000:role/r","Code":{{}},{more}}}"#);
        told(lambda(), "CreateFunction", &body)
    }

    #[test]
    fn failures_are_told_in_awss_words() {
        assert_eq!(create(r#""Timeout":3"#), "");
        assert_eq!(
            create(r#""MemorySize":64"#),
            "1 validation error detected: Value '64' at 'memorySize' failed to satisfy constraint: Member must have \
             value greater than or equal to 128"
        );
        assert_eq!(
            create(r#""PackageType":"Tar""#),
            "1 validation error detected: Value 'Tar' at 'packageType' failed to satisfy constraint: Member must \
             satisfy enum value set: [Zip, Image]"
        );
        assert_eq!(
            create(r#""TracingConfig":{"Mode":"On"}"#),
            "1 validation error detected: Value 'On' at 'tracingConfig.mode' failed to satisfy constraint: Member \
             must satisfy enum value set: [Active, PassThrough]"
        );
        assert_eq!(
            told(lambda(), "CreateFunction", r#"{"FunctionName":"f","Code":{}}"#),
            "1 validation error detected: Value null at 'role' failed to satisfy constraint: Member must not be null"
        );
        let two = told(logs(), "CreateLogGroup", r#"{"logGroupName":""}"#);
        assert_eq!(
            two,
            "2 validation errors detected: Value '' at 'logGroupName' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+; Value '' at 'logGroupName' failed to satisfy \
             constraint: Member must have length greater than or equal to 1"
        );
    }

    #[test]
    fn lists_and_maps_tell_every_rule_of_their_elements() {
        let layers = create(r#""Layers":["nonsense","more"]"#);
        assert!(layers.starts_with(
            "1 validation error detected: Value '[nonsense, more]' at 'layers' failed to satisfy constraint: Member \
             must satisfy constraint: [Member must have length less than or equal to 2048, Member must have length \
             greater than or equal to 1, Member must satisfy regular expression pattern: "
        ), "{layers}");
        assert!(layers.ends_with(", Member must not be null]"), "{layers}");
        assert_eq!(
            create(r#""Environment":{"Variables":{"1":"x"}}"#),
            "1 validation error detected: Value at 'environment.variables' failed to satisfy constraint: Map keys \
             must satisfy constraint: [Member must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+]"
        );
        assert_eq!(
            told(
                logs(),
                "PutLogEvents",
                r#"{"logGroupName":"g","logStreamName":"s","logEvents":[{"timestamp":1,"message":"m"},{"timestamp":-1,"message":""}]}"#
            ),
            "2 validation errors detected: Value '-1' at 'logEvents.2.member.timestamp' failed to satisfy constraint: \
             Member must have value greater than or equal to 0; Value '' at 'logEvents.2.member.message' failed to \
             satisfy constraint: Member must have length greater than or equal to 1"
        );
        let sizes = create(r#""Architectures":["x86_64","arm64"]"#);
        assert!(
            sizes.contains("Value '[x86_64, arm64]' at 'architectures'")
                && sizes.ends_with("less than or equal to 1"),
            "{sizes}"
        );
    }

    #[test]
    fn messages_have_an_end() {
        let events = vec![r#"{"timestamp":-1,"message":""}"#; 5_000].join(",");
        let text = told(
            logs(),
            "PutLogEvents",
            &format!(r#"{{"logGroupName":"g","logStreamName":"s","logEvents":[{events}]}}"#),
        );
        assert!(text.starts_with("100 validation errors detected"), "{}", &text[..80]);
        let long = create(&format!(r#""Description":"{}""#, "é".repeat(100_000)));
        assert!(long.len() < 5_000 && long.contains("length less than or equal to 256"));
    }

    proptest! {
        /// Whatever JSON comes, it is decoded, refused or validated; nothing panics.
        #[test]
        fn no_body_panics(body in "([\\[\\]{},:]|\"(Code|ZipFile|Environment|Variables|Tags|Layers|Timeout|VpcConfig|SubnetIds|a)\"|null|true|-?[0-9]{1,25}(\\.5)?(e[0-9])?|\"\\PC{0,5}\"){0,40}") {
            let model = lambda();
            for operation in ["CreateFunction", "Invoke", "PutFunctionEventInvokeConfig"] {
                let input = model.operations[model.operation(operation).unwrap()].input.unwrap();
                if let Ok(members) = decode::body(model, input, body.as_bytes()) {
                    let _ = check(model, input, &members);
                }
            }
        }
    }
}
