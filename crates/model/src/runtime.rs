//! Runtime identifiers as functions name them: `python3.12`, `nodejs20.x`, `provided.al2023`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A runtime identifier exactly as the API spells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuntimeName(String);

/// Which kind of bootstrap a runtime needs, with the interpreter version that its name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuntimeFamily {
    /// `python3.MINOR`
    Python {
        /// The minor version: 12 for `python3.12`.
        minor: u32,
    },
    /// `nodejsMAJOR.x`
    Node {
        /// The major version: 20 for `nodejs20.x`.
        major: u32,
    },
    /// `provided.al2` and `provided.al2023`: the package brings an executable named `bootstrap`.
    Provided,
}

impl RuntimeName {
    /// Wraps an identifier without judging it; [`RuntimeName::family`] tells whether it is one that we can run.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The identifier as the API spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The family, or `None` for an identifier that no bootstrap of ours serves (`java21`, `ruby3.4`, ...).
    #[must_use]
    pub fn family(&self) -> Option<RuntimeFamily> {
        let name = self.0.as_str();
        if let Some(minor) = name.strip_prefix("python3.") {
            return parse_plain_number(minor).map(|minor| RuntimeFamily::Python { minor });
        }
        if let Some(major) = name.strip_prefix("nodejs").and_then(|rest| rest.strip_suffix(".x")) {
            return parse_plain_number(major).map(|major| RuntimeFamily::Node { major });
        }
        matches!(name, "provided.al2" | "provided.al2023").then_some(RuntimeFamily::Provided)
    }
}

impl fmt::Display for RuntimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn parse_plain_number(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    if plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_read_from_names() {
        let family = |name: &str| RuntimeName::new(name).family();
        assert_eq!(family("python3.12"), Some(RuntimeFamily::Python { minor: 12 }));
        assert_eq!(family("nodejs20.x"), Some(RuntimeFamily::Node { major: 20 }));
        assert_eq!(family("provided.al2023"), Some(RuntimeFamily::Provided));
        for unknown in
            ["python2.7", "python3.", "python3.x", "nodejs20", "nodejs.x", "provided", "java21", ""]
        {
            assert_eq!(family(unknown), None, "{unknown}");
        }
    }
}
