//! Function names, qualifiers and ARNs, and the four forms in which callers name a function.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a name or an ARN was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The account part is not twelve digits.
    #[error("{0:?} is not an account id: it takes twelve digits")]
    Account(String),
    /// The region part does not look like `us-east-1`.
    #[error("{0:?} is not a region: it takes lower-case letters, digits and hyphens, as in us-east-1")]
    Region(String),
    /// The function's name has other characters than letters, digits, `-` and `_`, or not 1 to 64 of them.
    #[error("{0:?} is not a function name: it takes 1 to 64 letters, digits, hyphens and underscores")]
    Name(String),
    /// The qualifier is neither `$LATEST` nor a version number nor an alias name.
    #[error("{0:?} is not a qualifier: it takes $LATEST, a version number or an alias name")]
    Qualifier(String),
    /// Not the ARN or the name of a layer or of one of its versions.
    #[error("{0:?} names no layer: its name takes 1 to 140 letters, digits, hyphens and underscores")]
    Layer(String),
    /// The whole is none of: name, name:qualifier, account:function:name[:qualifier], full ARN.
    #[error("{0:?} names no function: give a name, name:qualifier, a partial ARN or a full ARN")]
    Form(String),
}

/// Twelve digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountId(String);

/// A region name such as `us-east-1`: 1 to 32 lower-case letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Region(String);

/// 1 to 64 letters, digits, hyphens and underscores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionName(String);

/// Which version of a function is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qualifier {
    /// `$LATEST`
    Latest,
    /// A published version.
    Version(u64),
    /// An alias: 1 to 128 letters, digits, hyphens and underscores, not digits alone.
    Alias(String),
}

macro_rules! string_newtype {
    ($type:ident, $error:ident, $valid:expr) => {
        impl $type {
            /// Checks `text` and wraps it.
            ///
            /// # Errors
            /// The [`ParseError`] of this type when `text` breaks its rule.
            pub fn new(text: impl Into<String>) -> Result<Self, ParseError> {
                let text = text.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) { Ok(Self(text)) } else { Err(ParseError::$error(text)) }
            }

            /// The text as given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = ParseError;
            fn try_from(text: String) -> Result<Self, ParseError> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.0
            }
        }
    };
}

string_newtype!(AccountId, Account, |text| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()));
string_newtype!(Region, Region, |text| (1..=32).contains(&text.len())
    && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
string_newtype!(FunctionName, Name, |text| (1..=64).contains(&text.len()) && text.bytes().all(is_word));

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

impl Qualifier {
    /// Reads `$LATEST`, a version number without leading zeros, or an alias name.
    ///
    /// # Errors
    /// [`ParseError::Qualifier`] for anything else.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let refused = || ParseError::Qualifier(text.to_owned());
        if text == "$LATEST" {
            return Ok(Self::Latest);
        }
        if text.is_empty() || text.len() > 128 || !text.bytes().all(is_word) {
            return Err(refused());
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return match text.parse::<u64>() {
                Ok(number) if number > 0 && !text.starts_with('0') => Ok(Self::Version(number)),
                _ => Err(refused()),
            };
        }
        Ok(Self::Alias(text.to_owned()))
    }
}

impl fmt::Display for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("$LATEST"),
            Self::Version(number) => write!(f, "{number}"),
            Self::Alias(name) => f.write_str(name),
        }
    }
}

/// The unqualified identity of a function: where it lives and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FunctionArn {
    /// The region it was created in.
    pub region: Region,
    /// The account that owns it.
    pub account: AccountId,
    /// Its name.
    pub name: FunctionName,
}

impl FunctionArn {
    /// The ARN with a qualifier: `arn:aws:lambda:REGION:ACCOUNT:function:NAME:QUALIFIER`.
    #[must_use]
    pub fn qualified(&self, qualifier: &Qualifier) -> String {
        format!("{self}:{qualifier}")
    }
}

impl fmt::Display for FunctionArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arn:aws:lambda:{}:{}:function:{}", self.region, self.account, self.name)
    }
}

/// A function as a caller named it; what the caller left out is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRef {
    /// Given only in a full ARN (or in a partial one that begins with a region).
    pub region: Option<Region>,
    /// Given in a full and in a partial ARN.
    pub account: Option<AccountId>,
    /// The name, always.
    pub name: FunctionName,
    /// The part after the name, when there is one.
    pub qualifier: Option<Qualifier>,
}

impl FunctionRef {
    /// Reads the forms that the service model's `FunctionName` pattern lets through:
    /// `NAME`, `NAME:QUALIFIER`, `function:NAME[:Q]`, `ACCOUNT:function:NAME[:Q]`, `ACCOUNT:NAME[:Q]`,
    /// `REGION:ACCOUNT:function:NAME[:Q]` and `arn:aws:lambda:REGION:ACCOUNT:function:NAME[:Q]`.
    ///
    /// # Errors
    /// The part that broke its rule, or [`ParseError::Form`] when the parts do not add up to one of the forms.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let form = || ParseError::Form(text.to_owned());
        let mut parts: Vec<&str> = text.split(':').collect();
        if parts.len() > 8 {
            return Err(form());
        }
        parts.reverse();
        let next_is = |test: &dyn Fn(&str) -> bool, parts: &mut Vec<&str>| -> Option<String> {
            // The last part is the name or its qualifier, never a prefix.
            if parts.len() > 1 && parts.last().is_some_and(|part| test(part)) {
                parts.pop().map(str::to_owned)
            } else {
                None
            }
        };

        let full = next_is(&|part| part == "arn", &mut parts).is_some();
        if full {
            let partition = next_is(&|part| part.starts_with("aws"), &mut parts).ok_or_else(form)?;
            let letters = partition["aws".len()..].bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
            if !letters || next_is(&|part| part == "lambda", &mut parts).is_none() {
                return Err(form());
            }
        }
        let region = next_is(&looks_like_region, &mut parts).map(Region::new).transpose()?;
        let account =
            next_is(&|part| AccountId::new(part).is_ok(), &mut parts).map(AccountId::new).transpose()?;
        let keyword = next_is(&|part| part == "function", &mut parts).is_some();
        if full && (region.is_none() || account.is_none() || !keyword) {
            return Err(form());
        }
        if region.is_some() && account.is_none() {
            return Err(form());
        }
        let name = FunctionName::new(parts.pop().unwrap_or_default())?;
        let qualifier = parts.pop().map(Qualifier::parse).transpose()?;
        if !parts.is_empty() {
            return Err(form());
        }
        Ok(Self { region, account, name, qualifier })
    }
}

fn looks_like_region(part: &str) -> bool {
    let hyphens = part.bytes().filter(|b| *b == b'-').count();
    let ends_in_digit = part.as_bytes().last().is_some_and(u8::is_ascii_digit);
    hyphens >= 2
        && ends_in_digit
        && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> FunctionRef {
        FunctionRef::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn every_form_of_a_function_reference_is_read() {
        let plain = parsed("hello");
        assert_eq!((plain.region, plain.account, plain.qualifier), (None, None, None));
        assert_eq!(parsed("hello:7").qualifier, Some(Qualifier::Version(7)));
        assert_eq!(parsed("hello:$LATEST").qualifier, Some(Qualifier::Latest));
        assert_eq!(parsed("hello:live").qualifier, Some(Qualifier::Alias("live".into())));
        let partial = parsed("123456789012:function:hello:live");
        assert_eq!(partial.account.unwrap().as_str(), "123456789012");
        let full = parsed("arn:aws:lambda:eu-west-3:123456789012:function:hello");
        assert_eq!(full.region.unwrap().as_str(), "eu-west-3");
        assert_eq!(full.name.as_str(), "hello");
        assert_eq!(
            parsed("arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:h:3").name.as_str(),
            "h"
        );
        assert_eq!(parsed("123456789012").name.as_str(), "123456789012");
        assert_eq!(parsed("function").name.as_str(), "function");
    }

    #[test]
    fn wrong_forms_are_refused() {
        for wrong in [
            "",
            ":",
            "a:",
            ":a",
            "hello:",
            "hello:live:more",
            "arn:aws:lambda",
            "arn:aws:s3:::bucket",
            "arn:aws:lambda:us-east-1:123:function:hello",
            "arn:aws:lambda:us-east-1:123456789012:layer:x",
            "hello world",
            "héllo",
            "a/b",
            "hello:$latest",
            "hello:0",
            "hello:01",
            "us-east-1:function:hello",
            "arn:aws:lambda:us-east-1:123456789012:hello",
            "a:b:c:d:e:f:g:h:i:j",
        ] {
            assert!(
                FunctionRef::parse(wrong).is_err(),
                "{wrong:?} was read as {:?}",
                FunctionRef::parse(wrong)
            );
        }
        assert!(FunctionName::new("x".repeat(65)).is_err());
        assert!(Qualifier::parse(&"9".repeat(40)).is_err());
    }

    #[test]
    fn arns_print_as_they_are_read() {
        let arn = FunctionArn {
            region: Region::new("us-east-1").unwrap(),
            account: AccountId::new("000000000000").unwrap(),
            name: FunctionName::new("hello").unwrap(),
        };
        assert_eq!(
            arn.qualified(&Qualifier::Version(3)),
            "arn:aws:lambda:us-east-1:000000000000:function:hello:3"
        );
        let back = parsed(&arn.to_string());
        assert_eq!((back.region, back.account, back.name), (Some(arn.region), Some(arn.account), arn.name));
    }
}
