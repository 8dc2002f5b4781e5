//! The canonical request: the one text that signer and verifier both make out of a request.

use crate::claim::RequestHead;
use http::HeaderMap;

/// Names and values of a query string, decoded. A broken escape stands for itself.
pub(crate) fn decoded_pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (text_of(name), text_of(value))
    })
}

fn text_of(escaped: &str) -> String {
    String::from_utf8(decode(escaped))
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn decode(escaped: &str) -> Vec<u8> {
    let bytes = escaped.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |offset: usize| char::from(*bytes.get(at + offset)?).to_digit(16);
        match (bytes[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    out
}

/// Writes `bytes` with everything escaped but RFC 3986's unreserved characters (and slashes, in paths).
pub(crate) fn encode(bytes: &[u8], keep_slash: bool, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slash && byte == b'/') {
            out.push(byte);
        } else {
            out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

/// Writes the canonical request. `omit` is the query parameter that the signature itself travels in.
pub(crate) fn request(
    head: &RequestHead<'_>,
    signed_headers: &str,
    payload_hash: &[u8],
    omit: Option<&str>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b'\n');
    path(head.uri.path(), &mut out);
    out.push(b'\n');
    if let Some(text) = head.uri.query() {
        query(text, omit, &mut out);
    }
    out.push(b'\n');
    for name in signed_headers.split(';') {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        header(head.headers, name, &mut out);
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(signed_headers.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(payload_hash);
    out
}

/// The path as every service but S3 signs it: dot segments and empty ones taken out, then escaped once more than it
/// is on the wire.
fn path(path: &str, out: &mut Vec<u8>) {
    if !path.contains("//") && !path.contains("/.") {
        return encode(if path.is_empty() { b"/" } else { path.as_bytes() }, true, out);
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    for segment in &kept {
        out.push(b'/');
        encode(segment.as_bytes(), false, out);
    }
    if kept.is_empty() || path.ends_with('/') {
        out.push(b'/');
    }
}

fn query(text: &str, omit: Option<&str>, out: &mut Vec<u8>) {
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = text
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .filter(|(name, _)| omit.is_none_or(|omit| name != omit.as_bytes()))
        .map(|(name, value)| {
            let (mut encoded_name, mut encoded_value) = (Vec::new(), Vec::new());
            encode(&name, false, &mut encoded_name);
            encode(&value, false, &mut encoded_value);
            (encoded_name, encoded_value)
        })
        .collect();
    pairs.sort();
    for (at, (name, value)) in pairs.iter().enumerate() {
        if at > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
    }
}

/// All values of a header, trimmed, runs of spaces made one, joined by commas.
fn header(headers: &HeaderMap, name: &str, out: &mut Vec<u8>) {
    for (at, value) in headers.get_all(name).iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let words = value.as_bytes().split(|byte| *byte == b' ' || *byte == b'\t');
        for (at, word) in words.filter(|word| !word.is_empty()).enumerate() {
            if at > 0 {
                out.push(b' ');
            }
            out.extend_from_slice(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical_path(text: &str) -> String {
        let mut out = Vec::new();
        path(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn paths_are_normalised_and_escaped_twice() {
        for (wire, canonical) in [
            ("", "/"),
            ("/", "/"),
            ("/a/../b", "/b"),
            ("/./a//b/", "/a/b/"),
            ("/..", "/"),
            ("/a:b", "/a%3Ab"),
            ("/a%3Ab", "/a%253Ab"),
            ("/~x", "/~x"),
            ("/.hidden", "/.hidden"),
        ] {
            assert_eq!(canonical_path(wire), canonical, "{wire}");
        }
    }

    #[test]
    fn queries_are_sorted_and_escaped_alike() {
        let canonical = |text: &str| {
            let mut out = Vec::new();
            query(text, Some("X-Amz-Signature"), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(canonical("b=2&a=1&a=0&c"), "a=0&a=1&b=2&c=");
        assert_eq!(canonical("Qualifier=$LATEST"), canonical("Qualifier=%24LATEST"));
        assert_eq!(canonical("a=x%20y"), canonical("a=x+y"));
        assert_eq!(canonical("X-Amz-Signature=1&a=%zz"), "a=%25zz");
    }

    #[test]
    fn header_values_are_trimmed_and_joined() {
        let mut headers = HeaderMap::new();
        headers.append("x-amz-a", "  one   two ".parse().unwrap());
        headers.append("x-amz-a", "three".parse().unwrap());
        let mut out = Vec::new();
        header(&headers, "x-amz-a", &mut out);
        assert_eq!(out, b"one two,three");
    }
}
