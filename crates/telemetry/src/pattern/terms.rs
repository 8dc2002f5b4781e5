//! Patterns of terms: `ERROR -timeout "exact phrase"`, or `?ERROR ?WARN`.

use super::{PatternError, no_regex};

/// Terms that a text is searched for, case-sensitively and anywhere in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Terms {
    /// All of them must be there.
    required: Vec<String>,
    /// None of them may be there.
    excluded: Vec<String>,
    /// One of them must be there; not looked at when there are others, as AWS documents it.
    optional: Vec<String>,
}

impl Terms {
    pub(super) fn match_text(&self, text: &str) -> bool {
        let within = |term: &String| text.contains(term.as_str());
        if self.required.is_empty() && self.excluded.is_empty() {
            return self.optional.iter().any(within);
        }
        self.required.iter().all(within) && !self.excluded.iter().any(within)
    }
}

pub(super) fn parse(text: &str) -> Result<Terms, PatternError> {
    let mut terms = Terms::default();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let kind = match rest.as_bytes()[0] {
            b'-' => &mut terms.excluded,
            b'?' => &mut terms.optional,
            _ => &mut terms.required,
        };
        let body = rest.strip_prefix(['-', '?']).unwrap_or(rest);
        let (term, after) = match body.strip_prefix('"') {
            Some(quoted) => phrase(quoted)?,
            None => word(body)?,
        };
        if term.is_empty() {
            return Err(PatternError::new(format!("a term is empty at {:?}", shortened(rest))));
        }
        kind.push(term);
        rest = after.trim_start();
    }
    Ok(terms)
}

/// A phrase up to its closing quote, `\"` and `\\` unescaped.
fn phrase(quoted: &str) -> Result<(String, &str), PatternError> {
    let mut phrase = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Ok((phrase, &quoted[index + 1..])),
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => phrase.push(escaped),
                Some((_, other)) => phrase.extend(['\\', other]),
                None => break,
            },
            other => phrase.push(other),
        }
    }
    Err(PatternError::new(format!("the quote before {:?} is not closed", shortened(quoted))))
}

/// A term without quotes, up to the next white space.
fn word(body: &str) -> Result<(String, &str), PatternError> {
    let end = body.find(char::is_whitespace).unwrap_or(body.len());
    let (word, after) = body.split_at(end);
    if word.starts_with('%') {
        return Err(no_regex());
    }
    if word.contains('"') {
        return Err(PatternError::new(format!(
            "quotes go around a whole term, as in \"{}\"",
            word.replace('"', "")
        )));
    }
    Ok((word.to_owned(), after))
}

fn shortened(text: &str) -> String {
    text.chars().take(20).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        parse(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}")).match_text(text)
    }

    #[test]
    fn all_required_terms_must_be_there() {
        assert!(matches("ERROR", "[ERROR 400] BAD REQUEST"));
        assert!(matches("ERROR REQUEST", "[ERROR 400] BAD REQUEST"));
        assert!(!matches("ERROR REQUEST", "[ERROR 419] MISSING ARGUMENTS"));
        assert!(!matches("error", "ERROR"));
    }

    #[test]
    fn phrases_are_searched_for_as_they_are() {
        assert!(matches("\"BAD REQUEST\"", "[ERROR 400] BAD REQUEST"));
        assert!(!matches("\"REQUEST BAD\"", "[ERROR 400] BAD REQUEST"));
        assert!(matches(r#""a \"b\" \\ \n""#, r#"say a "b" \ \n now"#));
        assert!(matches("\"- ?\"x", "- ? x"), "a quote ends its term");
    }

    #[test]
    fn excluded_terms_must_not_be_there() {
        assert!(matches("ERROR -ARGUMENTS", "ERROR 400"));
        assert!(!matches("ERROR -ARGUMENTS", "ERROR 419 ARGUMENTS"));
        assert!(!matches("-\"BAD REQUEST\"", "a BAD REQUEST"));
        assert!(matches("-a", ""));
    }

    #[test]
    fn one_optional_term_is_enough() {
        assert!(matches("?ERROR ?\"no luck\"", "ERROR"));
        assert!(matches("?ERROR ?\"no luck\"", "no luck"));
        assert!(!matches("?ERROR ?WARN", "INFO"));
        assert!(matches("?ERROR REQUEST", "REQUEST"), "beside other terms they count for nothing");
    }

    #[test]
    fn broken_terms_are_refused() {
        for pattern in ["\"open", "\"open\\", "-", "?", "- a", "a\"b", "\"\"", "%x%"] {
            assert!(parse(pattern).is_err(), "{pattern}");
        }
    }
}
