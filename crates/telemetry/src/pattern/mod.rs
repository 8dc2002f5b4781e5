//! CloudWatch Logs filter patterns: what `FilterLogEvents` searches for.

/// A parsed filter pattern.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pattern {
    terms: Vec<String>,
}

/// A text is no filter pattern that this version understands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid filter pattern: {0}")]
pub struct PatternError(String);

impl std::str::FromStr for Pattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        Ok(Self { terms: text.split_whitespace().map(str::to_owned).collect() })
    }
}

impl Pattern {
    /// Whether `message` matches.
    #[must_use]
    pub fn matches(&self, message: &str) -> bool {
        self.terms.iter().all(|term| message.contains(term.as_str()))
    }
}
