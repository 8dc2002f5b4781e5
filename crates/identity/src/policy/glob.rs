//! Patterns with `*` for any text and `?` for any character.

/// Whether `pattern` matches all of `text`; `fold` takes ASCII letters of either case for the same. Takes at most the product of the
/// lengths.
pub(super) fn matches(pattern: &str, text: &str, fold: bool) -> bool {
    let same = |a: char, b: char| a == b || (fold && a.eq_ignore_ascii_case(&b));
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // After the last star, and where the text that it took ends.
    let mut back: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let here = text.clone();
        match (pattern.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                back = Some((pattern.clone(), here.clone()));
                text = here;
            }
            (Some(a), Some(b)) if a == '?' || same(a, b) => {}
            _ => {
                let Some((after, taken)) = &mut back else { return false };
                if taken.next().is_none() {
                    return false;
                }
                (pattern, text) = (after.clone(), taken.clone());
            }
        }
    }
}

/// The same for ARNs: each of the six parts for itself, so that a star takes no colon but in the last one.
pub(super) fn arn_matches(pattern: &str, arn: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.splitn(6, ':'), arn.splitn(6, ':'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if matches(pattern, part, false) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, without care for time.
    fn defined(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some(('*', rest)), None) => defined(rest, text),
            (Some(('*', rest)), Some((_, tail))) => defined(rest, text) || defined(pattern, tail),
            (Some(('?', rest)), Some((_, tail))) => defined(rest, tail),
            (Some((a, rest)), Some((b, tail))) => a == b && defined(rest, tail),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_its_definition_says(pattern in "[ab*?é]{0,8}", text in "[abé]{0,8}") {
            let (chars, of): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches(&pattern, &text, false), defined(&chars, &of));
        }

        #[test]
        fn case_matters_unless_it_is_folded(text in "[a-z]{1,20}") {
            prop_assert!(matches(&text.to_uppercase(), &text, true));
            prop_assert!(!matches(&text.to_uppercase(), &text, false));
        }
    }

    #[test]
    fn a_star_stays_within_its_part_of_an_arn() {
        let arn = "arn:aws:s3:us-east-1:111122223333:bucket/a:b";
        assert!(arn_matches("arn:aws:s3:*:111122223333:bucket/*", arn));
        assert!(arn_matches("arn:*:*:*:*:*", arn));
        assert!(!arn_matches("arn:aws:s3:*:bucket/*", arn) && !arn_matches("arn:aws:s3:*", arn));
        assert!(!arn_matches("arn:aws:s3:us-east-1:444455556666:*", arn));
    }

    #[test]
    fn many_stars_take_no_long_time() {
        assert!(!matches(&"*a".repeat(2_000), &"a".repeat(1_999), false));
        assert!(matches(&"*a".repeat(1_000), &"ba".repeat(1_000), false));
    }
}
