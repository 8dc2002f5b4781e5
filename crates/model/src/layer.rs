//! Layers: their names and ARNs, and one as a function refers to it.

use crate::arn::{AccountId, ParseError, Region};
use crate::function::Code;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest name of a layer.
const LONGEST_NAME: usize = 140;

/// A layer without its version: where it lives and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayerArn {
    /// The region it was published in.
    pub region: Region,
    /// The account that owns it.
    pub account: AccountId,
    name: String,
}

/// One version of a layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayerVersionArn {
    /// The layer.
    pub layer: LayerArn,
    /// Counted from 1 and never used again.
    pub version: u64,
}

/// A layer version as a function uses it. It is all that running needs: the version itself may be deleted meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// What was asked for.
    pub arn: LayerVersionArn,
    /// Its zip file.
    pub code: Code,
    /// Size of its files together, in bytes.
    pub unpacked_bytes: u64,
}

impl LayerArn {
    /// The layer `name` of an account in a region.
    ///
    /// # Errors
    /// [`ParseError::Layer`] when the name is not 1 to 140 letters, digits, hyphens and underscores.
    pub fn new(region: Region, account: AccountId, name: impl Into<String>) -> Result<Self, ParseError> {
        let name = name.into();
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(word) {
            return Err(ParseError::Layer(name));
        }
        Ok(Self { region, account, name })
    }

    /// Reads `arn:aws:lambda:REGION:ACCOUNT:layer:NAME`.
    ///
    /// # Errors
    /// The part that broke its rule, or [`ParseError::Layer`] when it has another form.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        match parts(text)? {
            (layer, None) => Ok(layer),
            (_, Some(_)) => Err(ParseError::Layer(text.to_owned())),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One version of it.
    #[must_use]
    pub fn version(&self, version: u64) -> LayerVersionArn {
        LayerVersionArn { layer: self.clone(), version }
    }
}

impl LayerVersionArn {
    /// Reads `arn:aws:lambda:REGION:ACCOUNT:layer:NAME:VERSION`.
    ///
    /// # Errors
    /// The part that broke its rule, or [`ParseError::Layer`] when it has another form.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let refused = || ParseError::Layer(text.to_owned());
        let (layer, version) = parts(text)?;
        let version = version.and_then(|version| version.parse().ok()).filter(|version| *version > 0);
        Ok(Self { layer, version: version.ok_or_else(refused)? })
    }
}

/// The layer, and the text of the version if there is one.
fn parts(text: &str) -> Result<(LayerArn, Option<&str>), ParseError> {
    let refused = || ParseError::Layer(text.to_owned());
    let mut parts = text.split(':');
    let mut next = || parts.next();
    let head = (next(), next(), next());
    if !matches!(head, (Some("arn"), Some(partition), Some("lambda")) if partition.starts_with("aws")) {
        return Err(refused());
    }
    let (region, account) = (next().ok_or_else(refused)?, next().ok_or_else(refused)?);
    let (region, account) = (Region::new(region)?, AccountId::new(account)?);
    if next() != Some("layer") {
        return Err(refused());
    }
    let layer = LayerArn::new(region, account, next().ok_or_else(refused)?)?;
    let version = next();
    if next().is_some() { Err(refused()) } else { Ok((layer, version)) }
}

impl fmt::Display for LayerArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arn:aws:lambda:{}:{}:layer:{}", self.region, self.account, self.name)
    }
}

impl fmt::Display for LayerVersionArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.layer, self.version)
    }
}

macro_rules! stored_as_text {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = ParseError;
            fn try_from(text: String) -> Result<Self, ParseError> {
                Self::parse(&text)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

stored_as_text!(LayerArn);
stored_as_text!(LayerVersionArn);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_print_as_they_are_read() {
        let text = "arn:aws:lambda:eu-west-3:000000000000:layer:my-layer_1:12";
        let arn = LayerVersionArn::parse(text).unwrap();
        assert_eq!((arn.layer.name(), arn.version), ("my-layer_1", 12));
        assert_eq!(arn.to_string(), text);
        assert_eq!(LayerArn::parse(&arn.layer.to_string()), Ok(arn.layer.clone()));
        assert_eq!(arn.layer.version(12), arn);
    }

    #[test]
    fn wrong_forms_are_refused() {
        for wrong in [
            "",
            "my-layer:1",
            "arn:aws:lambda:eu-west-3:000000000000:layer:mine",
            "arn:aws:lambda:eu-west-3:000000000000:layer:mine:0",
            "arn:aws:lambda:eu-west-3:000000000000:layer:mine:x",
            "arn:aws:lambda:eu-west-3:000000000000:layer:mine:1:2",
            "arn:aws:lambda:eu-west-3:000000000000:function:mine:1",
            "arn:aws:lambda:eu-west-3:0000:layer:mine:1",
            "arn:aws:s3:eu-west-3:000000000000:layer:mine:1",
            "arn:aws:lambda:eu-west-3:000000000000:layer:mi/ne:1",
            "arn:aws:lambda:::awslayer:AmazonLinux1703",
        ] {
            assert!(LayerVersionArn::parse(wrong).is_err(), "{wrong:?} was read");
        }
        assert!(LayerArn::parse("arn:aws:lambda:eu-west-3:000000000000:layer:mine:1").is_err());
    }
}
