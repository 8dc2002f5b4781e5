//! Conditions: comparisons of a fact with values.

use super::facts::{Asked, Key};
use super::{PolicyError, form, glob, texts};
use jiff::Timestamp;
use serde_json::Value;
use std::cmp::Ordering;
use std::net::IpAddr;

/// One comparison; a statement's conditions have to hold all.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    key: Key,
    test: Test,
    /// Whether it holds where no value matches, rather than where one does.
    negated: bool,
    /// Whether it holds where the request has no such fact.
    if_exists: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Equal(Vec<String>),
    EqualFolded(Vec<String>),
    Like(Vec<String>),
    Arn(Vec<String>),
    Number(Compare, Vec<f64>),
    Date(Compare, Vec<f64>),
    Truth(Vec<bool>),
    Within(Vec<Network>),
    /// Whether the fact is missing.
    Missing(Vec<bool>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Condition {
    /// Reads the element `Condition`: operators, keys, values.
    pub(super) fn read_all(value: &Value) -> Result<Vec<Self>, PolicyError> {
        let Value::Object(operators) = value else { return Err(form("Condition", "an object")) };
        let mut conditions = Vec::new();
        for (operator, keys) in operators {
            let Value::Object(keys) = keys else { return Err(form(operator, "an object of condition keys")) };
            for (name, values) in keys {
                if name.eq_ignore_ascii_case("aws:PrincipalOrgID") {
                    return Err(PolicyError::Organization);
                }
                let key = Key::named(name).ok_or_else(|| PolicyError::Key(name.clone()))?;
                conditions.push(Self::read(operator, key, texts(name, values)?)?);
            }
        }
        Ok(conditions)
    }

    fn read(operator: &str, key: Key, values: Vec<String>) -> Result<Self, PolicyError> {
        let (name, if_exists) = match operator.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (operator, false),
        };
        let (test, negated) = Test::read(name, values)?;
        if if_exists && matches!(test, Test::Missing(_)) {
            return Err(PolicyError::Operator(operator.to_owned()));
        }
        Ok(Self { key, test, negated, if_exists })
    }

    pub(super) fn holds(&self, asked: &Asked<'_>) -> bool {
        match (self.key.of(asked), &self.test) {
            (found, Test::Missing(values)) => values.contains(&found.is_none()),
            // Nothing is unlike everything.
            (None, _) => self.if_exists || self.negated,
            (Some(found), test) => test.matches(&found) != self.negated,
        }
    }
}

impl Test {
    /// The comparison of that name, and whether it is the negated one.
    fn read(name: &str, values: Vec<String>) -> Result<(Self, bool), PolicyError> {
        let parse = Operands { operator: name, values: &values };
        let date = |compare| Ok((Self::Date(compare, parse.all(date, "a date")?), false));
        let number = |compare| Ok((Self::Number(compare, parse.all(number, "a number")?), false));
        let arns =
            || parse.all(|text| is_arn_pattern(text).then(|| text.to_owned()), "the pattern of an ARN");
        let truths = || parse.all(|text| text.to_ascii_lowercase().parse().ok(), "true or false");
        let networks = || parse.all(Network::read, "an address or a range of addresses");
        Ok(match name {
            "StringEquals" => (Self::Equal(values), false),
            "StringNotEquals" => (Self::Equal(values), true),
            "StringEqualsIgnoreCase" => (Self::EqualFolded(values), false),
            "StringNotEqualsIgnoreCase" => (Self::EqualFolded(values), true),
            "StringLike" => (Self::Like(values), false),
            "StringNotLike" => (Self::Like(values), true),
            "ArnEquals" | "ArnLike" => (Self::Arn(arns()?), false),
            "ArnNotEquals" | "ArnNotLike" => (Self::Arn(arns()?), true),
            "NumericEquals" => return number(Compare::Equal),
            "NumericNotEquals" => (number(Compare::Equal)?.0, true),
            "NumericLessThan" => return number(Compare::Less),
            "NumericLessThanEquals" => return number(Compare::LessOrEqual),
            "NumericGreaterThan" => return number(Compare::Greater),
            "NumericGreaterThanEquals" => return number(Compare::GreaterOrEqual),
            "DateEquals" => return date(Compare::Equal),
            "DateNotEquals" => (date(Compare::Equal)?.0, true),
            "DateLessThan" => return date(Compare::Less),
            "DateLessThanEquals" => return date(Compare::LessOrEqual),
            "DateGreaterThan" => return date(Compare::Greater),
            "DateGreaterThanEquals" => return date(Compare::GreaterOrEqual),
            "Bool" => (Self::Truth(truths()?), false),
            "IpAddress" => (Self::Within(networks()?), false),
            "NotIpAddress" => (Self::Within(networks()?), true),
            "Null" => (Self::Missing(truths()?), false),
            other => return Err(PolicyError::Operator(other.to_owned())),
        })
    }

    fn matches(&self, found: &str) -> bool {
        match self {
            Self::Equal(values) => values.iter().any(|value| value == found),
            Self::EqualFolded(values) => {
                values.iter().any(|value| value.to_lowercase() == found.to_lowercase())
            }
            Self::Like(values) => values.iter().any(|value| glob::matches(value, found, false)),
            Self::Arn(values) => values.iter().any(|value| value == "*" || glob::arn_matches(value, found)),
            Self::Number(compare, values) => compare.any(number(found), values),
            Self::Date(compare, values) => compare.any(date(found), values),
            Self::Truth(values) => values.iter().any(|value| found == if *value { "true" } else { "false" }),
            Self::Within(networks) => {
                found.parse().is_ok_and(|address| networks.iter().any(|network| network.has(address)))
            }
            Self::Missing(_) => false,
        }
    }
}

impl Compare {
    fn any(self, found: Option<f64>, values: &[f64]) -> bool {
        let Some(found) = found else { return false };
        let holds = |order: Option<Ordering>| match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        };
        values.iter().any(|value| holds(found.partial_cmp(value)))
    }
}

impl Network {
    fn read(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse().ok()?, Some(bits.parse().ok()?)),
            None => (text.parse().ok()?, None),
        };
        let most = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { address, bits })
    }

    fn has(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => (mine.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(mine), IpAddr::V6(other)) => (mine.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differ >= self.bits
    }
}

struct Operands<'a> {
    operator: &'a str,
    values: &'a [String],
}

impl Operands<'_> {
    fn all<T>(&self, read: impl Fn(&str) -> Option<T>, wanted: &'static str) -> Result<Vec<T>, PolicyError> {
        let refused = |value: &String| PolicyError::Operand {
            operator: self.operator.to_owned(),
            value: value.clone(),
            wanted,
        };
        self.values.iter().map(|value| read(value).ok_or_else(|| refused(value))).collect()
    }
}

fn is_arn_pattern(text: &str) -> bool {
    text == "*" || text.splitn(6, ':').count() == 6
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Seconds of the Unix epoch, of a number of them or of a date as ISO 8601 has it.
fn date(text: &str) -> Option<f64> {
    if let Some(seconds) = number(text) {
        return Some(seconds);
    }
    let with_time = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    with_time.parse::<Timestamp>().ok().map(|instant| instant.as_millisecond() as f64 / 1000.0)
}
