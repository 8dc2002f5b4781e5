//! CloudWatch Logs filter patterns: what `FilterLogEvents` searches for.
//!
//! Understood: the empty pattern; terms, `"quoted phrases"`, `-excluded` and `?optional` terms; JSON conditions in
//! braces, `{ $.level = "ERROR" && ($.ms > 100 || $.retry IS TRUE) }`. Refused by name: regular expressions between
//! `%`, patterns for space-delimited fields in brackets, and `[*]` in a JSON path.

mod json;
mod terms;

use std::str::FromStr;

/// A parsed filter pattern. The default one matches everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pattern(Kind);

#[derive(Clone, Debug, Default, PartialEq)]
enum Kind {
    #[default]
    Everything,
    Terms(terms::Terms),
    Json(json::Condition),
}

/// A text is no filter pattern, or one that is not understood yet; the message says what and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid filter pattern: {0}")]
pub struct PatternError(String);

impl PatternError {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let text = text.trim();
        let kind = match text.bytes().next() {
            None => Kind::Everything,
            Some(b'{') => Kind::Json(json::parse(text)?),
            Some(b'[') => {
                return Err(PatternError::new(
                    "patterns for space-delimited fields ([a, b, ...]) are not supported yet; use terms or { $.field }",
                ));
            }
            Some(_) => Kind::Terms(terms::parse(text)?),
        };
        Ok(Self(kind))
    }
}

impl Pattern {
    /// Whether `message` matches.
    #[must_use]
    pub fn matches(&self, message: &str) -> bool {
        match &self.0 {
            Kind::Everything => true,
            Kind::Terms(terms) => terms.match_text(message),
            Kind::Json(condition) => json::matches(condition, message),
        }
    }
}

/// Refuses a regular expression.
fn no_regex() -> PatternError {
    PatternError::new(
        "regular expressions (%...%) are not supported yet; use terms, \"phrases\" or { $.field = a* }",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_pattern_matches_everything() {
        for text in ["", "  ", "\n"] {
            assert!(text.parse::<Pattern>().expect("a pattern").matches("anything"));
        }
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for (text, name) in [
            ("%ERROR|WARN%", "regular expressions"),
            ("[ip, user, status = 4*]", "space-delimited"),
            ("{ $.a = %x% }", "regular expressions"),
            ("{ $.a[*] = 1 }", "[*]"),
        ] {
            let error = text.parse::<Pattern>().expect_err(text).to_string();
            assert!(error.contains(name), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_never_panics(text in "\\PC{0,60}", message in "\\PC{0,40}") {
            if let Ok(pattern) = text.parse::<Pattern>() {
                let _ = pattern.matches(&message);
            }
        }

        #[test]
        fn texts_that_look_like_patterns_never_panic(
            text in "[{(\\[]{0,3}[ $.a-z0-9\"'*=!<>&|()\\]}%?-]{0,40}[})]{0,3}",
            message in "[{\\[]\"a\":[0-9\"a{}\\[\\]]{0,9}[}\\]]",
        ) {
            if let Ok(pattern) = text.parse::<Pattern>() {
                let _ = pattern.matches(&message);
            }
        }
    }
}
