//! Patterns for JSON records: `{ $.user.id = 7 && ($.level = "ERR*" || $.tags[0] IS NULL) }`.

use super::{PatternError, no_regex};
use serde_json::Value;

/// Deepest nesting of parentheses.
const DEPTH: usize = 32;

/// What must hold of a JSON object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    All(Vec<Self>),
    Any(Vec<Self>),
    Test(Vec<Step>, Test),
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// What must hold of the value at a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    Equal(Literal),
    NotEqual(Literal),
    Less(f64),
    LessOrEqual(f64),
    Greater(f64),
    GreaterOrEqual(f64),
    IsNull,
    Is(bool),
    NotExists,
    Exists,
}

/// The right side of `=` and `!=`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Literal {
    /// The text cut at its `*`s: one piece means that it has none.
    pieces: Vec<String>,
    /// Its value when it is written without quotes and is a number.
    number: Option<f64>,
}

/// Whether `message` is a JSON object (or array) for which the condition holds.
pub(super) fn matches(condition: &Condition, message: &str) -> bool {
    // Most lines are no JSON, and their first character tells.
    let trimmed = message.trim();
    trimmed.starts_with(['{', '['])
        && serde_json::from_str(trimmed).is_ok_and(|record: Value| condition.holds(&record))
}

impl Condition {
    fn holds(&self, record: &Value) -> bool {
        match self {
            Self::All(conditions) => conditions.iter().all(|condition| condition.holds(record)),
            Self::Any(conditions) => conditions.iter().any(|condition| condition.holds(record)),
            Self::Test(path, test) => {
                let found = path.iter().try_fold(record, |value, step| match step {
                    Step::Key(key) => value.get(key),
                    Step::Index(index) => value.get(index),
                });
                test.holds(found)
            }
        }
    }
}

impl Test {
    /// A value that is not there passes [`Test::NotExists`] only.
    fn holds(&self, found: Option<&Value>) -> bool {
        let Some(value) = found else {
            return matches!(self, Self::NotExists);
        };
        let number = |compare: fn(&f64, &f64) -> bool, bound: &f64| {
            value.as_f64().is_some_and(|number| compare(&number, bound))
        };
        match self {
            Self::Equal(literal) => literal.equals(value),
            Self::NotEqual(literal) => !literal.equals(value),
            Self::Less(bound) => number(f64::lt, bound),
            Self::LessOrEqual(bound) => number(f64::le, bound),
            Self::Greater(bound) => number(f64::gt, bound),
            Self::GreaterOrEqual(bound) => number(f64::ge, bound),
            Self::IsNull => value.is_null(),
            Self::Is(wanted) => value.as_bool() == Some(*wanted),
            Self::NotExists => false,
            Self::Exists => true,
        }
    }
}

impl Literal {
    fn new(text: &str, quoted: bool) -> Self {
        // Rust reads more as a number than the pattern language does: infinity and NaN.
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && !quoted);
        Self { pieces: text.split('*').map(str::to_owned).collect(), number }
    }

    fn equals(&self, value: &Value) -> bool {
        match value {
            Value::Number(number) => match self.number {
                Some(wanted) => number.as_f64() == Some(wanted),
                None => self.fits(&number.to_string()),
            },
            Value::String(text) => self.fits(text),
            Value::Bool(truth) => self.fits(if *truth { "true" } else { "false" }),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        }
    }

    /// Whether `text` is the literal, each `*` standing for any characters.
    fn fits(&self, text: &str) -> bool {
        let [first, middle @ .., last] = self.pieces.as_slice() else {
            return self.pieces.first().is_some_and(|piece| piece == text);
        };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else {
            return false;
        };
        for piece in middle {
            match rest.find(piece.as_str()) {
                Some(index) => rest = &rest[index + piece.len()..],
                None => return false,
            }
        }
        rest.ends_with(last.as_str())
    }
}

/// Reads a pattern that begins with a brace.
pub(super) fn parse(text: &str) -> Result<Condition, PatternError> {
    let mut parser = Parser { rest: text };
    parser.expect("{")?;
    let condition = parser.any(0)?;
    parser.expect("}")?;
    match parser.rest.trim_start() {
        "" => Ok(condition),
        more => Err(parser.wrong(&format!("nothing may follow the closing brace, but {more:?} does"))),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn wrong(&self, reason: &str) -> PatternError {
        let here: String = self.rest.trim_start().chars().take(20).collect();
        match here.as_str() {
            "" => PatternError::new(format!("{reason}, at its end")),
            here => PatternError::new(format!("{reason}, at {here:?}")),
        }
    }

    fn accept(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(token);
        rest.inspect(|rest| self.rest = rest).is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), PatternError> {
        if self.accept(token) { Ok(()) } else { Err(self.wrong(&format!("expected {token:?}"))) }
    }

    /// A word of letters, taken if it is `keyword` in any case.
    fn keyword(&mut self, keyword: &str) -> bool {
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let found = rest[..end].eq_ignore_ascii_case(keyword);
        if found {
            self.rest = &rest[end..];
        }
        found
    }

    fn any(&mut self, depth: usize) -> Result<Condition, PatternError> {
        let mut conditions = vec![self.all(depth)?];
        while self.accept("||") {
            conditions.push(self.all(depth)?);
        }
        Ok(single(conditions, Condition::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Condition, PatternError> {
        let mut conditions = vec![self.one(depth)?];
        while self.accept("&&") {
            conditions.push(self.one(depth)?);
        }
        Ok(single(conditions, Condition::All))
    }

    fn one(&mut self, depth: usize) -> Result<Condition, PatternError> {
        if self.accept("(") {
            if depth == DEPTH {
                return Err(self.wrong("the parentheses are nested too deeply"));
            }
            let condition = self.any(depth + 1)?;
            self.expect(")")?;
            return Ok(condition);
        }
        let path = self.path()?;
        let test = self.test()?;
        Ok(Condition::Test(path, test))
    }

    fn path(&mut self) -> Result<Vec<Step>, PatternError> {
        self.expect("$")?;
        let mut steps = Vec::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix('[') {
                self.rest = rest;
                steps.push(self.bracketed()?);
            } else if let Some(rest) = self.rest.strip_prefix('.') {
                self.rest = rest;
                // `$.['a b']` is a way to write `$['a b']`.
                if !rest.starts_with('[') {
                    steps.push(Step::Key(self.bare("a field name", " \t\r\n.[]=!<>(){}&|\"'")?.to_owned()));
                }
            } else {
                return Ok(steps);
            }
        }
    }

    /// What stands between brackets: an index or a quoted name.
    fn bracketed(&mut self) -> Result<Step, PatternError> {
        if self.rest.starts_with('*') {
            return Err(self.wrong("[*] is not supported yet; name an index"));
        }
        let step = match self.rest.bytes().next() {
            Some(quote @ (b'"' | b'\'')) => Step::Key(self.quoted(char::from(quote))?.to_owned()),
            _ => {
                let digits = self.bare("an index", "]")?;
                Step::Index(digits.parse().map_err(|_| self.wrong("an index is a number from 0 on"))?)
            }
        };
        self.expect("]")?;
        Ok(step)
    }

    fn test(&mut self) -> Result<Test, PatternError> {
        if self.keyword("IS") {
            return match () {
                () if self.keyword("NULL") => Ok(Test::IsNull),
                () if self.keyword("TRUE") => Ok(Test::Is(true)),
                () if self.keyword("FALSE") => Ok(Test::Is(false)),
                () => Err(self.wrong("IS goes with NULL, TRUE or FALSE")),
            };
        }
        if self.keyword("NOT") {
            return match self.keyword("EXISTS") {
                true => Ok(Test::NotExists),
                false => Err(self.wrong("NOT goes with EXISTS")),
            };
        }
        if self.keyword("EXISTS") {
            return Ok(Test::Exists);
        }
        // Longer operators first.
        match () {
            () if self.accept("!=") => Ok(Test::NotEqual(self.literal()?)),
            () if self.accept("<=") => Ok(Test::LessOrEqual(self.number()?)),
            () if self.accept(">=") => Ok(Test::GreaterOrEqual(self.number()?)),
            () if self.accept("=") => Ok(Test::Equal(self.literal()?)),
            () if self.accept("<") => Ok(Test::Less(self.number()?)),
            () if self.accept(">") => Ok(Test::Greater(self.number()?)),
            () => Err(self.wrong("expected one of = != < <= > >= IS, NOT EXISTS")),
        }
    }

    fn literal(&mut self) -> Result<Literal, PatternError> {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('"') {
            return Ok(Literal::new(self.quoted('"')?, true));
        }
        if self.rest.starts_with('%') {
            return Err(no_regex());
        }
        Ok(Literal::new(self.bare("a value", " \t\r\n(){}&|\"=!<>")?, false))
    }

    fn number(&mut self) -> Result<f64, PatternError> {
        let here = Self { rest: self.rest };
        let literal = self.literal()?;
        literal.number.ok_or_else(|| here.wrong("expected a number"))
    }

    /// Characters up to one of `ends`, at least one.
    fn bare(&mut self, what: &str, ends: &str) -> Result<&'a str, PatternError> {
        let end = self.rest.find(|c| ends.contains(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.wrong(&format!("expected {what}")));
        }
        let (bare, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(bare)
    }

    /// A text between quotes; the language has no escapes.
    fn quoted(&mut self, quote: char) -> Result<&'a str, PatternError> {
        let body = self.rest.strip_prefix(quote).unwrap_or(self.rest);
        let Some((text, rest)) = body.split_once(quote) else {
            return Err(self.wrong("the quote is not closed"));
        };
        self.rest = rest;
        Ok(text)
    }
}

/// A list of one condition is that condition.
fn single(mut conditions: Vec<Condition>, many: fn(Vec<Condition>) -> Condition) -> Condition {
    match conditions.len() {
        1 => conditions.remove(0),
        _ => many(conditions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"eventType": "UpdateTrail", "sourceIPAddress": "111.111.111.111", "ok": true, "no": null,
        "count": 12, "ratio": 1.5e-3, "arrayKey": ["value", "another"], "code": "404",
        "objectList": [{"name": "a", "id": 1}, {"name": "b", "id": 2}], "a b": {"x.y": 1}}"#;

    fn holds(pattern: &str) -> bool {
        matches(&parse(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}")), RECORD)
    }

    #[test]
    fn conditions_hold_or_not() {
        for yes in [
            r#"{ $.eventType = "UpdateTrail" }"#,
            r#"{$.eventType="UpdateTrail"}"#,
            "{ $.eventType = UpdateTrail }",
            "{ $.eventType = Up*Tr*il }",
            "{ $.eventType = * }",
            "{ $.sourceIPAddress != 123.123.* }",
            r#"{ $.arrayKey[0] = "value" }"#,
            "{ $.objectList[1].id = 2 }",
            "{ $['a b']['x.y'] = 1 }",
            "{ $.['a b'][\"x.y\"] >= 1.0 }",
            "{ $.ok IS TRUE }",
            "{ $.no is null }",
            "{ $.missing NOT EXISTS }",
            "{ $.no EXISTS && $.ok EXISTS }",
            "{ $.count > 11 && $.count < 13 && $.count != 11 }",
            "{ $.ratio = 0.0015 }",
            "{ $.ratio <= 1.5e-3 }",
            "{ $.code = 404 }",
            r#"{ ($.eventType = "x" || $.count = 12) && $.ok IS TRUE }"#,
            r#"{ $.eventType = "x" && $.count = 0 || $.ok IS TRUE }"#,
        ] {
            assert!(holds(yes), "{yes}");
        }
        for no in [
            r#"{ $.eventType = "update*" }"#,
            "{ $.eventType = Up*Trai }",
            "{ $.eventType = UpdateTrail*UpdateTrail }",
            "{ $.missing = 1 }",
            "{ $.missing != 1 }",
            "{ $.missing IS NULL }",
            "{ $.ok IS FALSE }",
            "{ $.code > 1 }",
            "{ $.count NOT EXISTS }",
            "{ $.arrayKey[9] = value }",
            "{ $.arrayKey = value }",
            r#"{ $.eventType = "x" && ($.count = 12 || $.ok IS TRUE) }"#,
        ] {
            assert!(!holds(no), "{no}");
        }
    }

    #[test]
    fn what_is_no_json_does_not_match() {
        let condition = parse("{ $.a NOT EXISTS }").expect("a pattern");
        for message in ["", "plain", "{", "{\"a\":", "7", "\"text\"", "null"] {
            assert!(!matches(&condition, message), "{message}");
        }
        assert!(matches(&condition, " {} \n"));
    }

    #[test]
    fn broken_patterns_are_refused() {
        for pattern in [
            "{",
            "{}",
            "{ }",
            "{ $.a }",
            "{ $.a = }",
            "{ a = 1 }",
            "{ $.a = 1",
            "{ $.a = 1 } x",
            "{ $.a == 1 }",
            "{ $.a = \"open }",
            "{ $.a = 1 && }",
            "{ ($.a = 1 }",
            "{ $.a < x }",
            "{ $.a IS 7 }",
            "{ $.a NOT NULL }",
            "{ $.a[x] = 1 }",
            "{ $.a[1 = 1 }",
            "{ $..a = 1 }",
        ] {
            assert!(parse(pattern).is_err(), "{pattern}");
        }
        let deep = format!("{{ {}$.a = 1{} }}", "(".repeat(40), ")".repeat(40));
        assert!(parse(&deep).is_err());
    }
}
