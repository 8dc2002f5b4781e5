//! Requests that botocore signed, and what becomes of them when one thing is changed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use martlet_identity::{
    AuthError, Authenticator, Caller, Credentials, Keyring, Mode, Payload, RequestHead, Secret, Signer,
    Spelling,
};
use martlet_model::{AccountId, Timestamp};
use proptest::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The vector whose body is not signed, which no operation allows yet.
const UNSIGNED: &str = "unsigned payload";

#[derive(Deserialize)]
struct Vectors {
    access_key: String,
    secret: String,
    requests: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
    date: String,
    region: String,
    service: String,
    expires: Option<u64>,
}

#[derive(Clone, Debug)]
struct Request {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Request {
    fn head(&self) -> RequestHead<'_> {
        RequestHead { method: &self.method, uri: &self.uri, headers: &self.headers }
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
}

impl Vector {
    fn request(&self) -> Request {
        let pairs = self.headers.iter().map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        });
        Request {
            method: self.method.parse().unwrap(),
            uri: self.target.parse().unwrap(),
            headers: pairs.collect(),
            body: self.body.clone().into_bytes(),
        }
    }

    fn signed_at(&self) -> Timestamp {
        let (date, time) = self.date.split_once('T').unwrap();
        let iso = format!(
            "{}-{}-{}T{}:{}:{}",
            &date[..4],
            &date[4..6],
            &date[6..],
            &time[..2],
            &time[2..4],
            &time[4..]
        );
        Timestamp(iso.parse::<jiff::Timestamp>().unwrap().as_millisecond().try_into().unwrap())
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("botocore/vectors.json")).unwrap()
}

fn credentials() -> Credentials {
    let vectors = vectors();
    Credentials { access_key: vectors.access_key, secret: Secret::new(vectors.secret) }
}

fn account() -> AccountId {
    AccountId::new("123456789012").unwrap()
}

fn authenticator() -> Authenticator {
    Authenticator::new(Keyring::new().with(&credentials(), account(), "ada"), Mode::Enforced)
}

fn judge(authenticator: &Authenticator, request: &Request, now: Timestamp) -> Result<Caller, AuthError> {
    let claim = authenticator.precheck(&request.head(), now)?;
    authenticator.verify(&claim, &request.head(), &request.body, Payload::Signed)
}

#[test]
fn what_botocore_signs_is_believed() {
    let authenticator = authenticator();
    for vector in vectors().requests.into_iter().filter(|vector| vector.name != UNSIGNED) {
        for _ in 0..2 {
            let caller = judge(&authenticator, &vector.request(), vector.signed_at())
                .unwrap_or_else(|error| panic!("{}: {error}", vector.name));
            assert_eq!(caller.region.as_str(), vector.region);
            assert_eq!(caller.principal.arn, "arn:aws:iam::123456789012:user/ada");
            assert_eq!(caller.principal.account, account());
        }
    }
}

#[test]
fn our_signer_makes_what_botocore_makes() {
    let credentials = credentials();
    for vector in vectors().requests {
        let signer = Signer { credentials: &credentials, region: &vector.region, service: &vector.service };
        let mut request = vector.request();
        // What needs a header of botocore's own is not what our signer makes.
        if vector.name == UNSIGNED
            || vector.headers.contains_key("date")
            || vector.headers.len() > 1 && vector.expires.is_some()
        {
            continue;
        }
        if let Some(expires) = vector.expires {
            let path = vector.target.split(['?', '&']).filter(|part| !part.starts_with("X-Amz-"));
            let path = path.collect::<Vec<_>>().join("&").replacen('&', "?", 1);
            let host = &vector.headers["host"];
            let link = signer.presign(host, &path, expires, vector.signed_at()).unwrap();
            assert_eq!(link, vector.target, "{}", vector.name);
            continue;
        }
        let theirs = request.headers.remove("authorization");
        signer
            .sign(&request.method, &request.uri, &mut request.headers, &request.body, vector.signed_at())
            .unwrap();
        assert_eq!(request.headers.get("authorization"), theirs.as_ref(), "{}", vector.name);
    }
}

fn invoke() -> (Request, Timestamp) {
    let vector = vectors().requests.into_iter().find(|vector| vector.name == "invoke").unwrap();
    (vector.request(), vector.signed_at())
}

fn presigned() -> (Request, Timestamp) {
    let vector = vectors().requests.into_iter().find(|vector| vector.name == "presigned").unwrap();
    (vector.request(), vector.signed_at())
}

/// The refusal after one change, as (code, message).
fn after(change: impl FnOnce(&mut Request)) -> (&'static str, String) {
    let (mut request, now) = invoke();
    change(&mut request);
    let error = judge(&authenticator(), &request, now).expect_err("the change is seen");
    (error.code(Spelling::Json), error.to_string())
}

fn authorization(change: impl FnOnce(&str) -> String) -> (&'static str, String) {
    after(|request| {
        let text = change(request.headers["authorization"].to_str().unwrap());
        request.set("authorization", &text);
    })
}

#[test]
fn every_change_of_the_request_is_seen() {
    let mismatch = |change: fn(&mut Request)| {
        let (code, message) = after(change);
        assert_eq!(code, "InvalidSignatureException");
        assert!(message.starts_with("The request signature we calculated does not match"), "{message}");
    };
    mismatch(|request| request.method = Method::PUT);
    mismatch(|request| request.uri = "/2015-03-31/functions/other/invocations".parse().unwrap());
    mismatch(|request| request.uri = "/2015-03-31/functions/hello/invocations?x=1".parse().unwrap());
    mismatch(|request| request.body = b"{\"a\":2}".to_vec());
    mismatch(|request| request.body = vec![]);
    mismatch(|request| request.set("host", "elsewhere:4566"));
    mismatch(|request| request.set("x-amz-invocation-type", "Event"));
    mismatch(|request| drop(request.headers.remove("x-amz-invocation-type")));
    mismatch(|request| {
        request.headers.append("x-amz-invocation-type", HeaderValue::from_static("Event"));
    });
    mismatch(|request| request.set("x-amz-date", "20261123T090001Z"));
}

#[test]
fn headers_that_must_be_signed_are() {
    let (code, message) = after(|request| request.set("x-amz-log-type", "Tail"));
    assert_eq!(code, "InvalidSignatureException");
    assert_eq!(message, "'x-amz-log-type' must be a 'SignedHeader' in the AWS Authorization.");
    let (_, message) = authorization(|text| text.replace("SignedHeaders=host;", "SignedHeaders="));
    assert_eq!(message, "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.");
    let (mut request, now) = invoke();
    request.set("x-amzn-trace-id", "Root=1");
    request.set("user-agent", "a proxy");
    assert!(judge(&authenticator(), &request, now).is_ok(), "what changes on the way is never signed");
}

#[test]
fn keys_and_scopes_are_checked() {
    let (code, message) = authorization(|text| text.replace("AKIDEXAMPLE", "AKIDOTHER"));
    assert_eq!(
        (code, message.as_str()),
        ("UnrecognizedClientException", "The security token included in the request is invalid.")
    );
    let (code, _) = after(|request| request.set("x-amz-security-token", "anything"));
    assert_eq!(code, "InvalidSignatureException", "a token that nobody signed");

    let (code, message) =
        authorization(|text| text.replace("us-east-1", "US EAST").replace("US EAST", "US_EAST"));
    assert_eq!(
        (code, message.as_str()),
        ("InvalidSignatureException", "Credential should be scoped to a valid region.")
    );
    let (_, message) = authorization(|text| text.replace("aws4_request", "aws5_request"));
    assert_eq!(
        message,
        "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5_request'."
    );
    let (_, message) = authorization(|text| text.replace("20261123/", "20261122/"));
    assert_eq!(
        message,
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20261122' != \
         '20261123', from '20261123T090000Z'."
    );
    for scope in ["us-east-2/lambda", "us-east-1/logs"] {
        let (code, _) = authorization(|text| text.replace("us-east-1/lambda", scope));
        assert_eq!(code, "InvalidSignatureException", "{scope}");
    }
    let (code, message) = authorization(|text| text.replace("/us-east-1/", "/"));
    assert_eq!(code, "IncompleteSignatureException");
    assert!(message.starts_with("Credential must have exactly 5 slash-delimited elements"), "{message}");
}

#[test]
fn a_session_token_is_one_that_nobody_issued() {
    let (mut request, now) = invoke();
    request.set("x-amz-security-token", "a token");
    let credentials = credentials();
    let signer = Signer { credentials: &credentials, region: "us-east-1", service: "lambda" };
    signer.sign(&request.method, &request.uri, &mut request.headers, &request.body, now).unwrap();
    assert_eq!(judge(&authenticator(), &request, now), Err(AuthError::UnknownKey));
}

#[test]
fn parts_that_are_missing_are_named() {
    assert_eq!(
        after(|request| drop(request.headers.remove("authorization"))),
        ("MissingAuthenticationTokenException", "Missing Authentication Token".to_owned())
    );
    assert_eq!(
        after(|request| request.set("authorization", "Basic YTpi")).0,
        "MissingAuthenticationTokenException"
    );
    let (code, message) = authorization(|text| text.replace("SignedHeaders=", "Headers="));
    assert_eq!(code, "IncompleteSignatureException");
    assert!(
        message.starts_with("Authorization header requires 'SignedHeaders' parameter. (Hashed with"),
        "{message}"
    );
    let (_, message) = after(|request| drop(request.headers.remove("x-amz-date")));
    assert!(
        message.starts_with("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date'")
    );
    let (_, message) = after(|request| request.set("authorization", "AWS4-HMAC-SHA256"));
    assert!(
        message.contains("'Credential'")
            && message.contains("'Signature'")
            && message.contains("'SignedHeaders'")
    );
    let (_, message) = after(|request| request.set("authorization", "AWS4-HMAC-SHA256 Credential"));
    assert!(message.starts_with("'Credential' not a valid key=value pair (missing equal-sign)"), "{message}");
    let (_, message) = after(|request| request.set("x-amz-date", "2026-11-23"));
    assert!(message.starts_with("Date must be in ISO-8601 'basic format'. Got '2026-11-23'."), "{message}");
    let (code, message) = authorization(|text| text.replace("SHA256", "SHA1"));
    assert_eq!(code, "IncompleteSignatureException");
    assert!(message.starts_with("Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA1'"), "{message}");
    let (code, _) = after(|request| {
        request.uri = "/2015-03-31/functions?X-Amz-Algorithm=AWS4-HMAC-SHA256".parse().unwrap();
    });
    assert_eq!(code, "InvalidSignatureException", "one form at a time");
    let (_, message) = after(|request| {
        request.headers.remove("authorization");
        request.uri = "/2015-03-31/functions?X-Amz-Date=1&X-Amz-Credential=".parse().unwrap();
    });
    assert!(
        message.starts_with("AWS query-string parameters must include 'X-Amz-Algorithm'. AWS query-string")
    );
    assert!(message.ends_with("Re-examine the query-string parameters."), "{message}");
}

#[test]
fn the_clock_may_differ_by_fifteen_minutes() {
    let (request, signed) = invoke();
    let authenticator = authenticator();
    let at = |seconds: i64| {
        judge(&authenticator, &request, Timestamp(signed.0.saturating_add_signed(seconds * 1000)))
    };
    for seconds in [-900, -1, 0, 1, 900] {
        assert!(at(seconds).is_ok(), "{seconds}");
    }
    assert_eq!(
        at(901).unwrap_err().to_string(),
        "Signature expired: 20261123T090000Z is now earlier than 20261123T090001Z (20261123T091501Z - 15 min.)"
    );
    assert_eq!(
        at(-901).unwrap_err().to_string(),
        "Signature not yet current: 20261123T090000Z is still later than 20261123T085959Z (20261123T084459Z + 15 min.)"
    );
}

#[test]
fn links_live_as_long_as_they_say() {
    let (request, signed) = presigned();
    let authenticator = authenticator();
    let at = |seconds: u64| judge(&authenticator, &request, signed.plus_millis(seconds * 1000));
    assert!(at(600).is_ok());
    let error = at(601).unwrap_err().to_string();
    assert!(error.starts_with("Signature expired: 20261123T090000Z is now earlier than"), "{error}");
    assert!(error.ends_with("(20261123T091001Z - 10 min.)"), "{error}");

    let changed = |from: &str, to: &str| {
        let (mut request, signed) = presigned();
        request.uri = request.uri.to_string().replace(from, to).parse().unwrap();
        judge(&authenticator, &request, signed).unwrap_err()
    };
    assert_eq!(changed("packages/abc", "packages/abd"), AuthError::Mismatch);
    assert_eq!(changed("Expires=600", "Expires=604800"), AuthError::Mismatch);
    assert_eq!(
        changed("Expires=600", "Expires=604801").to_string(),
        "X-Amz-Expires must be less than a week (in seconds) that is 604800"
    );
    assert_eq!(changed("Expires=600", "Expires=-1").to_string(), "X-Amz-Expires should be a number");
    assert!(matches!(changed("&X-Amz-Expires=600", ""), AuthError::Incomplete(_)));
    assert!(matches!(changed("Expires=600", "Expires=600&X-Amz-Expires=700"), AuthError::Incomplete(_)));
}

#[test]
fn a_body_may_be_unsigned_only_where_that_is_allowed() {
    let vector = vectors().requests.into_iter().find(|vector| vector.name == UNSIGNED).unwrap();
    let (request, now) = (vector.request(), vector.signed_at());
    let authenticator = authenticator();
    let claim = authenticator.precheck(&request.head(), now).unwrap();
    let verify =
        |payload, body: &[u8]| authenticator.verify(&claim, &request.head(), body, payload).map(drop);
    assert_eq!(verify(Payload::Signed, &request.body), Err(AuthError::Mismatch));
    assert_eq!(verify(Payload::MayBeUnsigned, &request.body), Ok(()));
    assert_eq!(verify(Payload::MayBeUnsigned, b"another body"), Ok(()));
}

#[test]
fn a_wrong_secret_is_refused_and_remembered_by_nobody() {
    let (request, now) = invoke();
    let wrong = Credentials { secret: Secret::new("another"), ..credentials() };
    let other = Authenticator::new(Keyring::new().with(&wrong, account(), "ada"), Mode::Enforced);
    assert_eq!(judge(&other, &request, now), Err(AuthError::Mismatch));
    assert_eq!(judge(&other, &request, now), Err(AuthError::Mismatch));
    let empty = Authenticator::new(Keyring::new(), Mode::Enforced);
    assert_eq!(judge(&empty, &request, now), Err(AuthError::UnknownKey));
}

#[test]
fn development_mode_believes_and_names_accounts() {
    let default = AccountId::new("000000000000").unwrap();
    let dev =
        Authenticator::new(Keyring::new().with(&credentials(), account(), "ada"), Mode::Dev(default.clone()));
    let now = Timestamp(0);
    let caller = |authorization: &str| {
        let (mut request, _) = invoke();
        request.headers.clear();
        request.set("authorization", authorization);
        judge(&dev, &request, now)
    };
    let line = |key: &str| {
        format!(
            "AWS4-HMAC-SHA256 Credential={key}/20200101/eu-west-1/lambda/aws4_request, SignedHeaders=host, Signature=x"
        )
    };
    assert_eq!(caller(&line("test")).unwrap().principal.account, default);
    assert_eq!(caller(&line("test")).unwrap().region.as_str(), "eu-west-1");
    assert_eq!(caller(&line("123123123123")).unwrap().principal.account.as_str(), "123123123123");
    assert_eq!(caller(&line("AKIDEXAMPLE")).unwrap().principal.account, account());
    assert_eq!(caller("Bearer x"), Err(AuthError::Missing));

    let (mut request, _) = invoke();
    request.headers.remove("authorization");
    assert_eq!(judge(&dev, &request, now), Err(AuthError::Missing), "a credential names region and service");
    request.uri = "/?X-Amz-Credential=test%2F20200101%2Fus-east-1%2Flambda%2Faws4_request".parse().unwrap();
    assert!(judge(&dev, &request, now).is_ok());
    for (host, local) in [
        ("127.0.0.1:4566", true),
        ("[::1]:4566", true),
        ("::1", true),
        ("localhost", true),
        ("a.localhost:80", true),
        ("box:4566", true),
        ("a.page.on.the.web", false),
        ("a.page.on.the.web.:4566", false),
        ("127.0.0.1.page.on.the.web", false),
    ] {
        request.set("host", host);
        assert_eq!(judge(&dev, &request, now).is_ok(), local, "{host}");
    }
    request.set("host", "localhost");
    request.set("origin", "https://a.page.on.the.web");
    assert_eq!(judge(&dev, &request, now), Err(AuthError::CrossOrigin));
}

fn any_request() -> impl Strategy<Value = Request> {
    let path = "/[a-zA-Z0-9:._~/%-]{0,30}";
    let query = proptest::option::of("[a-zA-Z0-9=&+%._~$-]{0,30}");
    let headers = proptest::collection::btree_map("x-amz-[a-z]{1,6}", "[ -~]{0,20}", 0..4);
    let body = proptest::collection::vec(any::<u8>(), 0..40);
    (path, query, headers, body).prop_filter_map("a path that is none", |(path, query, headers, body)| {
        let text = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        let mut map = HeaderMap::new();
        map.insert("host", HeaderValue::from_static("127.0.0.1:4566"));
        for (name, value) in headers.iter().filter(|(name, _)| *name != "x-amz-date") {
            map.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?);
        }
        let uri: Uri = text.parse().ok()?;
        let clash = uri.query().is_some_and(|query| query.contains("X-Amz-"));
        (!clash).then_some(Request { method: Method::POST, uri, headers: map, body })
    })
}

proptest! {
    /// Whatever we sign is believed; the same with one bit of the body, one byte of the signature or one header
    /// changed is not.
    #[test]
    fn signing_and_verifying_agree(request in any_request(), seconds in 1_000_000_u64..4_000_000_000, at in 0_usize..64, bit in 0_u8..8) {
        let (credentials, now) = (credentials(), Timestamp(seconds * 1000));
        let signer = Signer { credentials: &credentials, region: "us-east-1", service: "lambda" };
        let mut request = request;
        signer.sign(&request.method, &request.uri, &mut request.headers, &request.body, now).unwrap();
        let authenticator = authenticator();
        prop_assert!(judge(&authenticator, &request, now).is_ok());

        let mut other = request.clone();
        if let Some(byte) = other.body.get_mut(at) {
            *byte ^= 1 << bit;
            prop_assert_eq!(judge(&authenticator, &other, now), Err(AuthError::Mismatch));
        }
        let mut other = request.clone();
        other.body.push(bit);
        prop_assert_eq!(judge(&authenticator, &other, now), Err(AuthError::Mismatch));

        let text = request.headers["authorization"].to_str().unwrap().to_owned();
        let place = text.len() - 64 + at;
        let digit = if &text[place..=place] == "0" { "1" } else { "0" };
        let mut other = request.clone();
        other.set("authorization", &format!("{}{digit}{}", &text[..place], &text[place + 1..]));
        prop_assert_eq!(judge(&authenticator, &other, now), Err(AuthError::Mismatch));

        let mut other = request;
        other.headers.insert("x-amz-added", HeaderValue::from_static("x"));
        prop_assert!(judge(&authenticator, &other, now).is_err());
    }

    /// No text in the places where signatures are read makes the reader panic, or lets anybody in.
    #[test]
    fn nonsense_is_refused(
        authorization in "(AWS4-HMAC-SHA256 )?([A-Za-z]{0,12}=?|Credential=|SignedHeaders=host|Signature=|[a-z0-9/]{0,20}|[,; =/\t]){0,12}",
        date in "(20261123T090000Z|[0-9TZ]{0,17}|[ -~]{0,20})",
        query in "(X-Amz-(Algorithm|Credential|Signature|SignedHeaders|Date|Expires)=[A-Za-z0-9%/-]{0,20}&?){0,8}",
    ) {
        let (mut request, now) = invoke();
        request.set("authorization", &authorization);
        request.set("x-amz-date", &date);
        let dev = Authenticator::new(Keyring::new(), Mode::Dev(account()));
        prop_assert!(judge(&authenticator(), &request, now).is_err());
        let _ = judge(&dev, &request, now);
        request.headers.remove("authorization");
        request.uri = format!("/?{query}").parse().unwrap();
        prop_assert!(judge(&authenticator(), &request, now).is_err());
        let _ = judge(&dev, &request, now);
    }
}
