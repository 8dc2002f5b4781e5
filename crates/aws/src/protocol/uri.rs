//! Percent-encoding, as far as paths and query strings of requests need it.

use std::borrow::Cow;

/// Decodes `%41` to `A`; in a query string a plus is a space. `None` when an escape is broken or the bytes are not
/// UTF-8.
pub(super) fn decode(text: &str, query: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || (query && byte == b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => (digit(bytes.next()?)? << 4) | digit(bytes.next()?)?,
            b'+' if query => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// The `name=value` pairs of a query string, still encoded; a name without `=` has an empty value.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_are_decoded() {
        assert_eq!(decode("arn%3Aaws%3alambda", false).unwrap(), "arn:aws:lambda");
        assert_eq!(decode("a+b%20c", true).unwrap(), "a b c");
        assert_eq!(decode("a+b", false).unwrap(), "a+b");
        assert_eq!(decode("%24LATEST", false).unwrap(), "$LATEST");
        for broken in ["%", "%4", "%zz", "%ff", "%c3%28"] {
            assert_eq!(decode(broken, false), None, "{broken}");
        }
        let all: Vec<_> = pairs("a=1&b&&c=2=3").collect();
        assert_eq!(all, [("a", "1"), ("b", ""), ("c", "2=3")]);
    }

    proptest! {
        #[test]
        fn decoding_never_panics(text in any::<String>(), query in any::<bool>()) {
            let _ = decode(&text, query);
        }

        #[test]
        fn what_is_fully_escaped_comes_back(text in any::<String>()) {
            let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(decode(&escaped, true).unwrap(), text.as_str());
        }
    }
}
