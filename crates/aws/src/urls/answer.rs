//! What a function returns, as an HTTP response: format 2.0, and the prelude of a streamed one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Map, Value};

/// The content type by which a streamed response says that it begins with a prelude.
pub(super) const WITH_PRELUDE: &str = "application/vnd.awslambda.http-integration-response";
/// What stands between the prelude and the body.
const DELIMITER: [u8; 8] = [0; 8];
/// Longest prelude, in bytes.
const PRELUDE_BYTES: usize = 128 * 1024;

/// What the server decides by itself, whatever the function says.
const DECIDED: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// What the function returned is no response.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoResponse(pub(super) &'static str);

/// The response that `payload` describes. JSON that is no description of one is the body itself, and so is what is no JSON.
pub(super) fn whole(payload: &Bytes) -> Result<Response<Bytes>, NoResponse> {
    let described = match serde_json::from_slice::<Value>(payload) {
        Ok(Value::Object(described)) if described.contains_key("statusCode") => described,
        Ok(Value::String(text)) => return Ok(plain(text.into(), "application/json")),
        Ok(_) => return Ok(plain(payload.clone(), "application/json")),
        Err(_) => return undescribed(payload),
    };
    let mut response = head(&described)?;
    let body = match described.get("body") {
        None | Some(Value::Null) => Bytes::new(),
        Some(Value::String(text)) if described.get("isBase64Encoded") == Some(&Value::Bool(true)) => STANDARD
            .decode(text)
            .map_err(|_| NoResponse("its body is not the base64 that it is said to be"))?
            .into(),
        Some(Value::String(text)) => Bytes::copy_from_slice(text.as_bytes()),
        Some(other) => other.to_string().into(),
    };
    response
        .headers_mut()
        .entry(header::CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/json"));
    *response.body_mut() = body;
    Ok(response)
}

/// A function that streams, called by an endpoint that does not.
fn undescribed(payload: &Bytes) -> Result<Response<Bytes>, NoResponse> {
    let mut prelude = Prelude::default();
    if payload.first() == Some(&b'{')
        && let Ok(Some((response, rest))) = prelude.take(payload)
    {
        return Ok(response.map(|()| rest));
    }
    Ok(plain(payload.clone(), "application/octet-stream"))
}

fn plain(body: Bytes, content_type: &'static str) -> Response<Bytes> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Status, headers and cookies.
fn head<T: Default>(described: &Map<String, Value>) -> Result<Response<T>, NoResponse> {
    let mut response = Response::new(T::default());
    let status = match described.get("statusCode") {
        None => Some(200),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64().and_then(|status| u16::try_from(status).ok()),
    };
    *response.status_mut() = status
        .filter(|status| (200..=599).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or(NoResponse("its statusCode is no status of a response"))?;
    let headers = response.headers_mut();
    match described.get("headers") {
        None | Some(Value::Null) => {}
        Some(Value::Object(named)) => {
            for (name, value) in named {
                for value in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
                    add(headers, name, value)?;
                }
            }
        }
        Some(_) => return Err(NoResponse("its headers are no object")),
    }
    let cookies = described.get("cookies").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for cookie in cookies {
        add(headers, header::SET_COOKIE.as_str(), cookie)?;
    }
    Ok(response)
}

fn add(headers: &mut HeaderMap, name: &str, value: &Value) -> Result<(), NoResponse> {
    let name =
        HeaderName::try_from(name).map_err(|_| NoResponse("one of its headers has an impossible name"))?;
    if DECIDED.contains(&name) {
        return Ok(());
    }
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Null => return Ok(()),
        Value::Array(_) | Value::Object(_) => return Err(NoResponse("one of its headers is no text")),
    };
    let value =
        HeaderValue::try_from(text).map_err(|_| NoResponse("one of its headers has an impossible value"))?;
    headers.append(name, value);
    Ok(())
}

/// Collects the beginning of a streamed response until it is known how it begins.
#[derive(Default)]
pub(super) struct Prelude(BytesMut);

impl Prelude {
    /// Takes more of the response. `None` while the prelude is not whole; then its response, and what has come of the body.
    pub(super) fn take(&mut self, more: &[u8]) -> Result<Option<(Response<()>, Bytes)>, NoResponse> {
        // The delimiter may lie on both sides of what is new.
        let from = self.0.len().saturating_sub(DELIMITER.len() - 1);
        self.0.extend_from_slice(more);
        let found = self.0[from..].windows(DELIMITER.len()).position(|window| window == DELIMITER);
        let Some(at) = found.map(|at| from + at) else {
            let whole = self.0.len() <= PRELUDE_BYTES;
            return if whole { Ok(None) } else { Err(NoResponse("its prelude does not end")) };
        };
        let described: Map<String, Value> =
            serde_json::from_slice(&self.0[..at]).map_err(|_| NoResponse("its prelude is no JSON object"))?;
        let mut response = head(&described)?;
        let octets = HeaderValue::from_static("application/octet-stream");
        response.headers_mut().entry(header::CONTENT_TYPE).or_insert(octets);
        let mut rest = std::mem::take(&mut self.0).freeze();
        Ok(Some((response, rest.split_off(at + DELIMITER.len()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(payload: &str) -> Response<Bytes> {
        whole(&Bytes::copy_from_slice(payload.as_bytes())).unwrap()
    }

    fn told<T>(response: &Response<T>, name: &str) -> Vec<String> {
        response.headers().get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_describes_a_response_is_one() {
        let response = of(
            r#"{"statusCode":"201","headers":{"Content-Type":"text/html","X-N":5,"X-B":true,"Content-Length":"999","X-L":["a","b"]},
               "cookies":["a=1; Secure","b=2"],"body":"aGk=","isBase64Encoded":true}"#,
        );
        assert_eq!((response.status().as_u16(), &response.body()[..]), (201, b"hi".as_slice()));
        assert_eq!(told(&response, "content-type"), ["text/html"]);
        assert_eq!(told(&response, "set-cookie"), ["a=1; Secure", "b=2"]);
        assert_eq!((told(&response, "x-n"), told(&response, "x-b")), (vec!["5".into()], vec!["true".into()]));
        assert_eq!((told(&response, "x-l").len(), told(&response, "content-length").len()), (2, 0));
        let bare = of(r#"{"statusCode":204}"#);
        assert_eq!((bare.status().as_u16(), bare.body().len()), (204, 0));
        assert_eq!(told(&bare, "content-type"), ["application/json"]);
        assert_eq!(of(r#"{"statusCode":200,"body":{"a":1}}"#).body(), r#"{"a":1}"#);
    }

    #[test]
    fn everything_else_is_the_body() {
        for (payload, body, content_type) in [
            (r#"{"message":"hi"}"#, r#"{"message":"hi"}"#, "application/json"),
            (r#""Hello from Lambda!""#, "Hello from Lambda!", "application/json"),
            ("null", "null", "application/json"),
            ("[1]", "[1]", "application/json"),
            ("<html>", "<html>", "application/octet-stream"),
        ] {
            let response = of(payload);
            assert_eq!(
                (response.status().as_u16(), &response.body()[..]),
                (200, body.as_bytes()),
                "{payload}"
            );
            assert_eq!(told(&response, "content-type"), [content_type], "{payload}");
        }
        let streamed = of("{\"statusCode\":202,\"headers\":{\"a\":\"b\"}}\0\0\0\0\0\0\0\0body");
        assert_eq!((streamed.status().as_u16(), &streamed.body()[..]), (202, b"body".as_slice()));
    }

    #[test]
    fn what_cannot_be_sent_is_no_response() {
        for payload in [
            r#"{"statusCode":99}"#,
            r#"{"statusCode":"ok"}"#,
            r#"{"statusCode":101}"#,
            r#"{"statusCode":200,"headers":[]}"#,
            r#"{"statusCode":200,"headers":{"a b":"c"}}"#,
            r#"{"statusCode":200,"headers":{"a":"b\nc"}}"#,
            r#"{"statusCode":200,"headers":{"a":{}}}"#,
            r#"{"statusCode":200,"body":"%","isBase64Encoded":true}"#,
        ] {
            assert!(whole(&Bytes::copy_from_slice(payload.as_bytes())).is_err(), "{payload}");
        }
    }

    #[test]
    fn a_prelude_that_does_not_end_is_not_waited_for() {
        let mut prelude = Prelude::default();
        let refused = (0..100).find_map(|_| prelude.take(&[b' '; 4096]).err());
        assert!(refused.is_some());
    }

    proptest! {
        #[test]
        fn a_prelude_is_found_however_it_is_cut(cuts in prop::collection::vec(1usize..9, 1..60)) {
            let all = b"{\"statusCode\":203,\"cookies\":[\"a=b\"]}\0\0\0\0\0\0\0\0the body";
            let (mut prelude, mut at, mut found) = (Prelude::default(), 0, None);
            for cut in cuts.into_iter().cycle() {
                let end = (at + cut).min(all.len());
                found = prelude.take(&all[at..end]).unwrap();
                at = end;
                if found.is_some() || at == all.len() {
                    break;
                }
            }
            let (response, rest) = found.unwrap();
            prop_assert_eq!(response.status().as_u16(), 203);
            prop_assert_eq!([&rest, &all[at..]].concat(), b"the body");
        }

        #[test]
        fn nothing_that_a_function_returns_is_too_strange(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = whole(&payload.into());
        }
    }
}
