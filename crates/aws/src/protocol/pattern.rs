//! The models' patterns, which are written for Java's engine, on the `regex` crate's linear-time one.
//!
//! Differences that matter: Java's `\d`, `\w`, `\s` are ASCII; a pattern must match the whole value; and Java has
//! look-around, which no linear-time engine can have. The few patterns that use it are split by hand into one
//! pattern that must match and one that must not.

use regex::Regex;
use std::sync::OnceLock;

/// One pattern, compiled when it is first needed: a server uses few of the hundreds that its models have.
pub struct Pattern {
    source: &'static str,
    compiled: OnceLock<Option<Compiled>>,
}

struct Compiled {
    must: Regex,
    must_not: Option<Regex>,
}

/// (as the model writes it, what must match, what must not)
const LOOK_AROUND: &[(&str, &str, &str)] = &[
    (r"((?!^\d+$)^[0-9a-zA-Z-_]+$)", r"[0-9a-zA-Z\-_]+", r"\d+"),
    (r"(?!^[0-9]+$)([a-zA-Z0-9-_]+)", r"[a-zA-Z0-9\-_]+", r"[0-9]+"),
    (r"(^(?!(system\x2e)))(^[_a-zA-Z0-9])([^$]*)", r"[_a-zA-Z0-9][^$]*", r"(?s)system\x2e.*"),
    (r"[0-9A-Za-z\.\-_]*(?<!\.)", r"[0-9A-Za-z.\-_]*", r"[0-9A-Za-z.\-_]*\."),
    (
        r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_]{1,64})(:((?!\d+$)[0-9a-zA-Z-_]+))?",
        r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9\-_]{1,64})(:([0-9a-zA-Z\-_]+))?",
        // A numeric qualifier: a name stands before it, which is not a prefix of the ARN in disguise.
        r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?((\d{12}:)?(function:)?([a-zA-Z0-9\-_]{1,64})):\d+",
    ),
];

impl Pattern {
    pub(super) fn new(source: &'static str) -> Self {
        Self { source, compiled: OnceLock::new() }
    }

    /// The pattern as the model writes it, which is how messages show it.
    #[must_use]
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// Whether the whole of `text` matches. A pattern that does not compile lets everything through; a test of
    /// this crate compiles every pattern of every model, so that cannot happen to one that is checked in.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self.compiled.get_or_init(|| compile(self.source).ok()) {
            Some(compiled) => {
                compiled.must.is_match(text)
                    && !compiled.must_not.as_ref().is_some_and(|must_not| must_not.is_match(text))
            }
            None => true,
        }
    }
}

fn compile(source: &str) -> Result<Compiled, regex::Error> {
    let by_hand = LOOK_AROUND.iter().find(|(pattern, ..)| *pattern == source);
    let (must, must_not) = match by_hand {
        Some((_, must, must_not)) => (*must, Some(*must_not)),
        None => (source, None),
    };
    Ok(Compiled { must: whole(must)?, must_not: must_not.map(whole).transpose()? })
}

fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!(r"\A(?:{})\z", translate(pattern)))
}

/// Spells Java's ASCII classes out, as classes that also nest inside of `[...]`.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        match chars.next() {
            Some('d') => out.push_str("[0-9]"),
            Some('w') => out.push_str("[0-9A-Za-z_]"),
            Some('s') => out.push_str(r"[ \t\n\x0B\f\r]"),
            Some('S') => out.push_str(r"[^ \t\n\x0B\f\r]"),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
pub(super) fn compiles(source: &str) -> Result<(), regex::Error> {
    compile(source).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_value_must_match_and_classes_are_ascii() {
        assert!(Pattern::new(r"\d{12}").matches("123456789012"));
        assert!(!Pattern::new(r"\d{12}").matches("1234567890123"));
        assert!(!Pattern::new(r"\d{2}").matches("٣٣"));
        assert!(Pattern::new(r"[\w-]*").matches("a-b_9"));
        assert!(!Pattern::new(r"[\w]*").matches("é"));
        assert!(Pattern::new(r"[\s\S]*").matches("any\nthing é"));
        assert!(!Pattern::new(r"[^\s]+").matches("a b"));
        assert!(!Pattern::new("a|b").matches("ab"));
    }

    #[test]
    fn look_around_is_kept_by_hand() {
        let alias = Pattern::new(r"((?!^\d+$)^[0-9a-zA-Z-_]+$)");
        assert!(alias.matches("live") && alias.matches("v1") && !alias.matches("12") && !alias.matches(""));
        let dotted = Pattern::new(r"[0-9A-Za-z\.\-_]*(?<!\.)");
        assert!(dotted.matches("a.b") && dotted.matches("") && !dotted.matches("a."));
        let dead_letter = Pattern::new(LOOK_AROUND[4].0);
        assert!(dead_letter.matches("f:live") && dead_letter.matches("f") && !dead_letter.matches("f:12"));
        assert!(dead_letter.matches("arn:aws:lambda:us-east-1:123456789012:function:f:live"));
    }
}
