//! One value of one key, read from text or from the file and held to what the key takes.

use super::keys::Kind;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use toml::de::DeValue;

/// A value that its key accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Path(PathBuf),
    Paths(Vec<PathBuf>),
    Address(SocketAddr),
    Number(u64),
    Switch(bool),
}

impl Value {
    /// Reads the text of an environment variable, a flag or a default.
    ///
    /// # Errors
    /// What the kind takes, as the end of a sentence: "it takes ...".
    pub(crate) fn from_text(kind: Kind, text: &str) -> Result<Self, String> {
        match kind {
            Kind::Text if text.is_empty() => Err("it takes some text".into()),
            Kind::Text => Ok(Self::Text(text.into())),
            Kind::Path if text.is_empty() => Err("it takes a path".into()),
            Kind::Path => Ok(Self::Path(text.into())),
            Kind::Paths => {
                Ok(Self::Paths(text.split(':').filter(|part| !part.is_empty()).map(PathBuf::from).collect()))
            }
            Kind::Address => address(text).map(Self::Address),
            Kind::Number { min, max } => match text.parse::<u64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(Self::Number(number)),
                _ => Err(format!("it takes a whole number from {min} to {max}")),
            },
            Kind::Choice(words) if words.contains(&text) => Ok(Self::Text(text.into())),
            Kind::Choice(words) => Err(format!("it takes {}", words.join(" or "))),
            Kind::Switch => match text {
                "true" | "1" => Ok(Self::Switch(true)),
                "false" | "0" => Ok(Self::Switch(false)),
                _ => Err("it takes true or false".into()),
            },
        }
    }

    /// Reads a value of the configuration file. Numbers and switches are written bare there, not as strings.
    ///
    /// # Errors
    /// What the kind takes, as the end of a sentence: "it takes ...".
    pub(crate) fn from_toml(kind: Kind, value: &DeValue<'_>) -> Result<Self, String> {
        match (kind, value) {
            (Kind::Number { .. }, DeValue::Integer(number)) => Self::from_text(kind, &number.to_string()),
            (Kind::Number { min, max }, _) => {
                Err(format!("it takes a whole number from {min} to {max}, without quotes"))
            }
            (Kind::Switch, DeValue::Boolean(on)) => Ok(Self::Switch(*on)),
            (Kind::Switch, _) => Err("it takes true or false, without quotes".into()),
            (Kind::Paths, DeValue::Array(items)) => {
                let path = |item: &toml::Spanned<DeValue<'_>>| item.get_ref().as_str().map(PathBuf::from);
                let paths: Option<Vec<PathBuf>> = items.iter().map(path).collect();
                paths.map(Self::Paths).ok_or_else(|| "it takes an array of strings".into())
            }
            (Kind::Paths, _) => Err("it takes an array of strings".into()),
            (_, DeValue::String(text)) => Self::from_text(kind, text),
            _ => Err("it takes a string in quotes".into()),
        }
    }

    /// The value for programs.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Path(one) => path(one).into(),
            Self::Paths(paths) => paths.iter().map(path).collect(),
            Self::Address(address) => address.to_string().into(),
            Self::Number(number) => (*number).into(),
            Self::Switch(on) => (*on).into(),
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok());
    match local {
        Some(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => text.parse().map_err(|_| {
            "it takes HOST:PORT with an IP address or localhost, as in 127.0.0.1:4566 or [::1]:4566"
                .to_owned()
        }),
    }
}

impl fmt::Display for Value {
    /// The value as the configuration file spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What JSON escapes in a string, TOML escapes in the same way.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Path(path) => f.write_str(&quoted(&path.to_string_lossy())),
            Self::Paths(paths) => {
                let items: Vec<String> = paths.iter().map(|path| quoted(&path.to_string_lossy())).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Self::Address(address) => f.write_str(&quoted(&address.to_string())),
            Self::Number(number) => write!(f, "{number}"),
            Self::Switch(on) => write!(f, "{on}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_held_to_its_kind() {
        let number = Kind::Number { min: 1, max: 10 };
        assert_eq!(Value::from_text(number, "10"), Ok(Value::Number(10)));
        for wrong in ["", "0", "11", "-1", "1.5", "ten", "99999999999999999999"] {
            assert!(Value::from_text(number, wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(Value::from_text(Kind::Switch, "yes"), Err("it takes true or false".into()));
        assert_eq!(
            Value::from_text(Kind::Choice(&["disk", "memory"]), "ram"),
            Err("it takes disk or memory".into())
        );
        assert_eq!(
            Value::from_text(Kind::Paths, "/a::/b c"),
            Ok(Value::Paths(vec!["/a".into(), "/b c".into()]))
        );
    }

    #[test]
    fn addresses_are_an_ip_or_localhost_with_a_port() {
        let read = |text| Value::from_text(Kind::Address, text);
        assert_eq!(read("localhost:80"), read("127.0.0.1:80"));
        assert!(read("[::1]:4566").is_ok());
        for wrong in ["", ":4566", "4566", "127.0.0.1", "example.org:80", "localhost:99999"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(text in "[^\\x00-\\x1f\\x7f]{1,40}") {
            let value = Value::Text(text);
            let line = format!("key = {value}");
            let file = toml::de::DeTable::parse(&line).expect("printed as TOML");
            prop_assert_eq!(Value::from_toml(Kind::Text, file.get_ref()["key"].get_ref()), Ok(value));
        }
    }
}
