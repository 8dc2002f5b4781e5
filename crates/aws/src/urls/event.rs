//! A request as its function sees it: payload format 2.0.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use jiff::tz::TimeZone;
use martlet_identity::Caller;
use martlet_model::{RequestId, Timestamp};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Headers of the connection, which are nobody's beyond it.
const OF_THE_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// What is known of a request.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// From the first slash of the endpoint's own, as the client wrote it.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) protocol: &'static str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a Bytes,
    pub(super) source: IpAddr,
    pub(super) caller: Option<&'a Caller>,
    pub(super) id: &'a str,
    pub(super) domain: &'a str,
    pub(super) request_id: &'a RequestId,
    pub(super) received: Timestamp,
    pub(super) trace_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    version: &'a str,
    route_key: &'a str,
    raw_path: &'a str,
    raw_query_string: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cookies: Vec<Cow<'a, str>>,
    headers: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    query_string_parameters: BTreeMap<String, String>,
    request_context: Context<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context<'a> {
    account_id: &'a str,
    api_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorizer: Option<Authorizer<'a>>,
    domain_name: &'a str,
    domain_prefix: &'a str,
    http: Http<'a>,
    request_id: &'a str,
    route_key: &'a str,
    stage: &'a str,
    time: String,
    time_epoch: u64,
}

#[derive(Serialize)]
struct Authorizer<'a> {
    iam: Iam<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Iam<'a> {
    access_key: &'a str,
    account_id: &'a str,
    caller_id: &'a str,
    cognito_identity: Option<()>,
    principal_org_id: Option<()>,
    user_arn: &'a str,
    user_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Http<'a> {
    method: &'a str,
    path: &'a str,
    protocol: &'a str,
    source_ip: String,
    user_agent: &'a str,
}

/// The event, as JSON text.
pub(super) fn event(request: &Request<'_>) -> Bytes {
    let (body, is_base64_encoded) = body(request);
    let event = Event {
        version: "2.0",
        route_key: "$default",
        raw_path: request.path,
        raw_query_string: request.query,
        cookies: cookies(request.headers),
        headers: headers(request),
        query_string_parameters: parameters(request.query),
        request_context: Context {
            account_id: request.caller.map_or("anonymous", |caller| caller.principal.account.as_str()),
            api_id: request.id,
            authorizer: request.caller.map(|caller| Authorizer { iam: iam(caller) }),
            domain_name: request.domain,
            domain_prefix: request.id,
            http: Http {
                method: request.method,
                path: request.path,
                protocol: request.protocol,
                source_ip: request.source.to_string(),
                user_agent: text(request.headers, &header::USER_AGENT),
            },
            request_id: request.request_id.as_str(),
            route_key: "$default",
            stage: "$default",
            time: time(request.received),
            time_epoch: request.received.0,
        },
        body,
        is_base64_encoded,
    };
    // Text and numbers into memory: there is no way to fail.
    serde_json::to_vec(&event).unwrap_or_default().into()
}

fn iam(caller: &Caller) -> Iam<'_> {
    let principal = &caller.principal;
    Iam {
        access_key: &principal.access_key,
        account_id: principal.account.as_str(),
        caller_id: &principal.access_key,
        cognito_identity: None,
        principal_org_id: None,
        user_arn: &principal.arn,
        user_id: &principal.access_key,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// By lower-case names; what came more than once is joined by commas. Cookies have a place of their own.
fn headers<'a>(request: &Request<'a>) -> BTreeMap<&'a str, String> {
    let mut shown = BTreeMap::<&str, String>::new();
    for (name, value) in request.headers {
        if *name == header::COOKIE || OF_THE_CONNECTION.contains(name) {
            continue;
        }
        // The signature is the endpoint's affair, and would be good for another quarter of an hour.
        if *name == header::AUTHORIZATION && request.caller.is_some() {
            continue;
        }
        let value = String::from_utf8_lossy(value.as_bytes());
        match shown.get_mut(name.as_str()) {
            Some(before) => {
                before.push(',');
                before.push_str(&value);
            }
            None => drop(shown.insert(name.as_str(), value.into_owned())),
        }
    }
    let source = request.source.to_string();
    match shown.get_mut("x-forwarded-for") {
        Some(before) => *before = format!("{before}, {source}"),
        None => drop(shown.insert("x-forwarded-for", source)),
    }
    shown.entry("x-forwarded-proto").or_insert_with(|| "http".to_owned());
    shown.insert("x-amzn-trace-id", request.trace_id.to_owned());
    shown
}

fn cookies(headers: &HeaderMap) -> Vec<Cow<'_, str>> {
    let lines =
        headers.get_all(header::COOKIE).into_iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let mut cookies = Vec::new();
    for line in lines {
        let each = line.split(';').map(str::trim).filter(|cookie| !cookie.is_empty());
        cookies.extend(each.map(|cookie| Cow::Owned(cookie.to_owned())));
    }
    cookies
}

/// Decoded; what came more than once is joined by commas.
fn parameters(query: &str) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::<String, String>::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name), decoded(value));
        match parameters.get_mut(&name) {
            Some(before) => {
                before.push(',');
                before.push_str(&value);
            }
            None => drop(parameters.insert(name, value)),
        }
    }
    parameters
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The body as text where its type says that it is text and it is; in base64 otherwise.
fn body<'a>(request: &Request<'a>) -> (Option<Cow<'a, str>>, bool) {
    if request.body.is_empty() {
        return (None, false);
    }
    let plain = !request.headers.contains_key(header::CONTENT_ENCODING)
        && is_text(text(request.headers, &header::CONTENT_TYPE));
    match std::str::from_utf8(request.body) {
        Ok(body) if plain => (Some(Cow::Borrowed(body)), false),
        _ => (Some(Cow::Owned(STANDARD.encode(request.body))), true),
    }
}

fn is_text(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.starts_with("text/")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
        || matches!(essence.as_str(), "application/json" | "application/xml" | "application/javascript")
}

/// As in `12/Mar/2020:19:03:58 +0000`.
fn time(at: Timestamp) -> String {
    let at = i64::try_from(at.0).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    at.map(|at| at.to_zoned(TimeZone::UTC).strftime("%d/%b/%Y:%H:%M:%S %z").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use serde_json::{Value, json};

    fn made(query: &str, headers: &[(&'static str, &'static str)], body: &'static [u8]) -> Value {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let request = Request {
            method: "POST",
            path: "/a%20b/c",
            query,
            protocol: "HTTP/1.1",
            headers: &map,
            body: &Bytes::from_static(body),
            source: [127, 0, 0, 1].into(),
            caller: None,
            id: "abc",
            domain: "abc.lambda-url.us-east-1.localhost",
            request_id: &RequestId::from_random([0; 16]),
            received: Timestamp(1_583_348_638_390),
            trace_id: "Root=1",
        };
        serde_json::from_slice(&event(&request)).unwrap()
    }

    #[test]
    fn an_event_is_format_2_to_the_letter() {
        let headers = [
            ("x-many", "1"),
            ("x-many", "2"),
            ("cookie", "a=1; b=2"),
            ("cookie", "c=3"),
            ("user-agent", "curl/8"),
            ("content-type", "application/json; charset=utf-8"),
            ("connection", "keep-alive"),
        ];
        let event = made("p=1&p=2%2C+x&q=&r", &headers, b"{\"a\":1}");
        assert_eq!(
            event,
            json!({
                "version": "2.0",
                "routeKey": "$default",
                "rawPath": "/a%20b/c",
                "rawQueryString": "p=1&p=2%2C+x&q=&r",
                "cookies": ["a=1", "b=2", "c=3"],
                "headers": {
                    "content-type": "application/json; charset=utf-8",
                    "user-agent": "curl/8",
                    "x-amzn-trace-id": "Root=1",
                    "x-forwarded-for": "127.0.0.1",
                    "x-forwarded-proto": "http",
                    "x-many": "1,2",
                },
                "queryStringParameters": { "p": "1,2, x", "q": "", "r": "" },
                "requestContext": {
                    "accountId": "anonymous",
                    "apiId": "abc",
                    "domainName": "abc.lambda-url.us-east-1.localhost",
                    "domainPrefix": "abc",
                    "http": {
                        "method": "POST",
                        "path": "/a%20b/c",
                        "protocol": "HTTP/1.1",
                        "sourceIp": "127.0.0.1",
                        "userAgent": "curl/8",
                    },
                    "requestId": "00000000-0000-4000-8000-000000000000",
                    "routeKey": "$default",
                    "stage": "$default",
                    "time": "04/Mar/2020:19:03:58 +0000",
                    "timeEpoch": 1_583_348_638_390_u64,
                },
                "body": "{\"a\":1}",
                "isBase64Encoded": false,
            })
        );
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        let event = made("", &[], b"");
        for absent in ["cookies", "queryStringParameters", "body"] {
            assert!(event.get(absent).is_none(), "{absent}");
        }
        assert_eq!(event["rawQueryString"], "");
    }

    #[test]
    fn bodies_are_text_where_their_type_says_so() {
        for (content_type, body, encoded) in [
            ("text/plain", b"abc".as_slice(), false),
            ("application/vnd.api+json", b"{}", false),
            ("application/javascript", b"1", false),
            ("application/x-www-form-urlencoded", b"a=b", true),
            ("application/octet-stream", b"abc", true),
            ("text/plain", b"\xff", true),
        ] {
            let event = made("", &[("content-type", content_type)], body);
            assert_eq!(event["isBase64Encoded"], encoded, "{content_type}");
            let told = event["body"].as_str().unwrap();
            let bytes = if encoded { STANDARD.decode(told).unwrap() } else { told.as_bytes().to_vec() };
            assert_eq!(bytes, body);
        }
        let zipped = made("", &[("content-type", "text/plain"), ("content-encoding", "gzip")], b"abc");
        assert_eq!(zipped["isBase64Encoded"], true);
    }
}
