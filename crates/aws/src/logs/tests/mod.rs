//! CloudWatch Logs through the whole pipeline, over a telemetry with a few lines in it.

use super::Logs;
use crate::pipeline::{Internal, Pipeline};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use martlet_gateway::{Body, Door, GatewayOptions, Head, Shutdown, serve};
use martlet_identity::{Authenticator, Caller, Credentials, Keyring, Mode, Secret, Signer};
use martlet_model::{AccountId, Region, Timestamp};
use martlet_telemetry::{LogEvent, Telemetry, TelemetryOptions, log_group_arn};
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

struct NoInternal;

impl Internal for NoInternal {
    fn is_public(&self, _path: &str) -> bool {
        false
    }

    fn handle<'a>(
        &'a self,
        _head: &'a Head,
        _caller: Option<&'a Caller>,
        _body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + 'a>> {
        Box::pin(async { Response::new(Bytes::new()) })
    }
}

/// A directory that goes with the test.
struct Directory(std::path::PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

struct Bench {
    telemetry: Telemetry,
    pipeline: Arc<Pipeline>,
    _directory: Directory,
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    Timestamp(u64::try_from(since.as_millis()).expect("not so late"))
}

fn credentials(account: &str) -> Credentials {
    Credentials { access_key: format!("AKIA{account}"), secret: Secret::new("a secret") }
}

const ACCOUNTS: [&str; 2] = ["000000000000", "111111111111"];

impl Bench {
    fn new() -> Self {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("randomness");
        let name = format!("martlet-logs-{:016x}", u64::from_be_bytes(random));
        let directory = Directory(std::env::temp_dir().join(name));
        // A clock that stands still keeps the tests' events, which are of 1970, from expiring.
        let clock = Arc::new(|| Timestamp(1_000_000));
        let options = TelemetryOptions { clock, ..TelemetryOptions::default() };
        let telemetry = Telemetry::open(&directory.0, options).expect("open");
        let keyring = ACCOUNTS.into_iter().fold(Keyring::new(), |keyring, account| {
            let id = AccountId::new(account).expect("an account");
            keyring.with(&credentials(account), id, "default")
        });
        let service = Logs { telemetry: telemetry.clone() }.service().expect("the table fits the model");
        let authenticator = Authenticator::new(keyring, Mode::Enforced);
        let pipeline = Pipeline::new(authenticator, vec![service], Arc::new(NoInternal), Arc::new(now));
        Self { telemetry, pipeline: Arc::new(pipeline), _directory: directory }
    }

    fn log(&self, account: &str, group: &str, stream: &str, events: &[(u64, &str)]) {
        let account = AccountId::new(account).expect("an account");
        let region = Region::new("us-east-1").expect("a region");
        let events = events.iter().map(|(at, message)| LogEvent {
            timestamp: Timestamp(*at),
            message: (*message).to_owned(),
            request_id: None,
        });
        self.telemetry.log(&log_group_arn(&account, &region, group), &stream.into(), events.collect());
    }

    async fn call(&self, operation: &str, input: Value) -> (StatusCode, Value) {
        self.call_as(ACCOUNTS[0], operation, &input).await
    }

    async fn call_as(&self, account: &str, operation: &str, input: &Value) -> (StatusCode, Value) {
        let body = Bytes::from(input.to_string());
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("127.0.0.1:4566"));
        headers.insert("content-type", HeaderValue::from_static("application/x-amz-json-1.1"));
        let target = format!("Logs_20140328.{operation}");
        headers.insert("x-amz-target", HeaderValue::from_str(&target).expect("a header"));
        let credentials = credentials(account);
        let signer = Signer { credentials: &credentials, region: "us-east-1", service: "logs" };
        signer.sign(&Method::POST, &Uri::from_static("/"), &mut headers, &body, now()).expect("sign");
        let mut request = Request::post("/").body(()).expect("a request");
        *request.headers_mut() = headers;
        let (head, ()) = request.into_parts();
        let answer = match self.pipeline.admit(&head, ([127, 0, 0, 1], 1).into()) {
            Ok(admission) => {
                let peer = ([127, 0, 0, 1], 9).into();
                self.pipeline.handle(head, admission.ticket, body, peer).await
            }
            Err(refusal) => refusal,
        };
        let body = match answer.body() {
            Body::Whole(body) if body.is_empty() => Value::Null,
            Body::Whole(body) => serde_json::from_slice(body).expect("JSON"),
            Body::Stream(_) => panic!("nothing of this service is streamed"),
        };
        (answer.status(), body)
    }

    async fn ok(&self, operation: &str, input: Value) -> Value {
        let (status, output) = self.call(operation, input).await;
        assert_eq!(status, StatusCode::OK, "{output}");
        output
    }

    /// The code and the message of a refusal.
    async fn refused(&self, operation: &str, input: Value) -> (String, String) {
        let (status, output) = self.call(operation, input).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{output}");
        let text = |name: &str| output[name].as_str().unwrap_or_default().to_owned();
        (text("__type"), text("message"))
    }
}

const HELLO: &str = "/aws/lambda/hello";

fn messages(output: &Value) -> Vec<&str> {
    let events = output["events"].as_array().expect("events");
    events.iter().filter_map(|event| event["message"].as_str()).collect()
}

#[tokio::test]
async fn groups_are_described_to_their_account_only() {
    let bench = Bench::new();
    for name in ["/aws/lambda/a", "/aws/lambda/b", "/aws/lambda/c", "/other"] {
        bench.log(ACCOUNTS[0], name, "s", &[(1, "12345")]);
    }
    bench.log(ACCOUNTS[1], "/aws/lambda/secret", "s", &[(1, "x")]);
    let first =
        bench.ok("DescribeLogGroups", json!({"logGroupNamePrefix": "/aws/lambda/", "limit": 2})).await;
    let names = |output: &Value| {
        let groups = output["logGroups"].as_array().expect("groups").clone();
        groups
            .iter()
            .map(|group| group["logGroupName"].as_str().expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&first), ["/aws/lambda/a", "/aws/lambda/b"]);
    let group = &first["logGroups"][0];
    assert_eq!(group["arn"], "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/a:*");
    assert_eq!(group["logGroupArn"], "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/a");
    assert_eq!((&group["storedBytes"], &group["retentionInDays"]), (&json!(31), &json!(30)));
    let token = &first["nextToken"];
    let second = bench
        .ok("DescribeLogGroups", json!({"logGroupNamePrefix": "/aws/lambda/", "nextToken": token}))
        .await;
    assert_eq!(names(&second), ["/aws/lambda/c"]);
    assert_eq!(second["nextToken"], Value::Null);
    let pattern = bench.ok("DescribeLogGroups", json!({"logGroupNamePattern": "the"})).await;
    assert_eq!(names(&pattern), ["/other"]);
    let (_, other) = bench.call_as(ACCOUNTS[1], "DescribeLogGroups", &json!({})).await;
    assert_eq!(names(&other), ["/aws/lambda/secret"]);
    let foreign = "arn:aws:logs:us-east-1:000000000000:log-group:/other";
    let input = json!({"logGroupIdentifier": foreign, "logStreamName": "s"});
    let (status, output) = bench.call_as(ACCOUNTS[1], "GetLogEvents", &input).await;
    assert_eq!((status, &output["__type"]), (StatusCode::BAD_REQUEST, &json!("ResourceNotFoundException")));
}

#[tokio::test]
async fn streams_are_described_in_the_order_asked_for() {
    let bench = Bench::new();
    bench.log(ACCOUNTS[0], HELLO, "2026/01/01/[$LATEST]a", &[(30, "x")]);
    bench.log(ACCOUNTS[0], HELLO, "2026/01/01/[$LATEST]b", &[(10, "x")]);
    bench.log(ACCOUNTS[0], HELLO, "2026/01/02/[1]c", &[(20, "x")]);
    let listed = async |input: Value| {
        let output = bench.ok("DescribeLogStreams", input).await;
        let streams = output["logStreams"].as_array().expect("streams").clone();
        let times = streams.iter().map(|stream| stream["lastEventTimestamp"].as_u64().expect("a time"));
        (times.collect::<Vec<_>>(), output["nextToken"].clone())
    };
    assert_eq!(listed(json!({"logGroupName": HELLO})).await.0, [30, 10, 20]);
    assert_eq!(listed(json!({"logGroupName": HELLO, "logStreamNamePrefix": "2026/01/02"})).await.0, [20]);
    let latest = json!({"logGroupName": HELLO, "orderBy": "LastEventTime", "descending": true, "limit": 2});
    let (first, token) = listed(latest.clone()).await;
    assert_eq!(first, [30, 20]);
    let mut next = latest;
    next["nextToken"] = token;
    assert_eq!(listed(next).await, (vec![10], Value::Null));
    let both = json!({"logGroupName": HELLO, "orderBy": "LastEventTime", "logStreamNamePrefix": "x"});
    assert_eq!(bench.refused("DescribeLogStreams", both).await.0, "InvalidParameterException");
}

#[tokio::test]
async fn a_stream_is_paged_until_the_token_stays_the_same() {
    let bench = Bench::new();
    bench.log(ACCOUNTS[0], HELLO, "s", &[(10, "a"), (20, "b"), (30, "c")]);
    let get = async |token: &Value, head: bool| {
        let mut input =
            json!({"logGroupName": HELLO, "logStreamName": "s", "limit": 2, "startFromHead": head});
        if !token.is_null() {
            input["nextToken"] = token.clone();
        }
        bench.ok("GetLogEvents", input).await
    };
    let first = get(&Value::Null, true).await;
    assert_eq!(messages(&first), ["a", "b"]);
    assert_eq!(first["events"][0]["timestamp"], 10);
    assert!(first["events"][0]["ingestionTime"].is_u64());
    let second = get(&first["nextForwardToken"], true).await;
    assert_eq!(messages(&second), ["c"]);
    let third = get(&second["nextForwardToken"], true).await;
    assert!(messages(&third).is_empty());
    assert_eq!(third["nextForwardToken"], second["nextForwardToken"]);

    let last = get(&Value::Null, false).await;
    assert_eq!(messages(&last), ["b", "c"]);
    let before = get(&last["nextBackwardToken"], false).await;
    assert_eq!(messages(&before), ["a"]);
    let none = get(&before["nextBackwardToken"], false).await;
    assert!(messages(&none).is_empty());
    assert_eq!(none["nextBackwardToken"], before["nextBackwardToken"]);
}

#[tokio::test]
async fn a_group_is_filtered() {
    let bench = Bench::new();
    bench.log(ACCOUNTS[0], HELLO, "s1", &[(10, "ERROR one"), (30, r#"{"level":"ERROR","n":3}"#)]);
    bench.log(ACCOUNTS[0], HELLO, "s2", &[(20, "fine"), (40, "ERROR four")]);
    let filter = async |more: Value| {
        let mut input = json!({"logGroupName": HELLO, "interleaved": true});
        input.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        bench.ok("FilterLogEvents", input).await
    };
    let all = filter(json!({})).await;
    assert_eq!(all["events"].as_array().expect("events").len(), 4);
    assert_eq!((&all["searchedLogStreams"], &all["nextToken"]), (&json!([]), &Value::Null));
    let event = &all["events"][0];
    assert_eq!((&event["logStreamName"], &event["timestamp"]), (&json!("s1"), &json!(10)));
    assert_eq!(event["eventId"].as_str().map(str::len), Some(56));
    assert_eq!(
        messages(&filter(json!({"filterPattern": "ERROR -level"})).await),
        ["ERROR one", "ERROR four"]
    );
    assert_eq!(filter(json!({"filterPattern": "{ $.n > 2 }"})).await["events"][0]["timestamp"], 30);
    assert_eq!(messages(&filter(json!({"startTime": 20, "endTime": 20})).await), ["fine"]);
    assert_eq!(messages(&filter(json!({"logStreamNames": ["s2"], "limit": 1})).await), ["fine"]);
    let latest = filter(json!({"startFromHead": false, "limit": 1})).await;
    assert_eq!(messages(&latest), ["ERROR four"]);
    let earlier = filter(json!({"nextToken": latest["nextToken"], "limit": 1})).await;
    assert_eq!(earlier["events"][0]["timestamp"], 30, "the token knows its direction");
    let by_arn =
        json!({"logGroupIdentifier": "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/hello"});
    assert_eq!(messages(&bench.ok("FilterLogEvents", by_arn).await).len(), 4);
}

#[tokio::test]
async fn wrong_requests_are_told_what_is_wrong() {
    let bench = Bench::new();
    bench.log(ACCOUNTS[0], HELLO, "s", &[(10, "a")]);
    let (code, message) = bench.refused("FilterLogEvents", json!({"logGroupName": "/none"})).await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("ResourceNotFoundException", "The specified log group does not exist.")
    );
    for (operation, input, expected) in [
        ("GetLogEvents", json!({"logGroupName": HELLO, "logStreamName": "t"}), "ResourceNotFoundException"),
        (
            "FilterLogEvents",
            json!({"logGroupName": HELLO, "logStreamNames": ["t"]}),
            "ResourceNotFoundException",
        ),
        ("FilterLogEvents", json!({}), "InvalidParameterException"),
        (
            "FilterLogEvents",
            json!({"logGroupName": HELLO, "logGroupIdentifier": HELLO}),
            "InvalidParameterException",
        ),
        ("FilterLogEvents", json!({"logGroupName": HELLO, "limit": 0}), "InvalidParameterException"),
        ("FilterLogEvents", json!({"logGroupName": HELLO, "nextToken": "x"}), "InvalidParameterException"),
        ("FilterLogEvents", json!({"logGroupName": HELLO, "nextToken": "ä/ö"}), "InvalidParameterException"),
        (
            "FilterLogEvents",
            json!({"logGroupName": HELLO, "filterPattern": "%x%"}),
            "InvalidParameterException",
        ),
        ("FilterLogEvents", json!({"logGroupName": HELLO, "unmask": true}), "InvalidParameterException"),
        ("DescribeLogGroups", json!({"nextToken": "!"}), "InvalidParameterException"),
        (
            "DescribeLogStreams",
            json!({"logGroupName": HELLO, "nextToken": "YQ"}),
            "InvalidParameterException",
        ),
        (
            "PutRetentionPolicy",
            json!({"logGroupName": HELLO, "retentionInDays": 2}),
            "InvalidParameterException",
        ),
        (
            "PutRetentionPolicy",
            json!({"logGroupName": "/none", "retentionInDays": 3}),
            "ResourceNotFoundException",
        ),
    ] {
        let (code, message) = bench.refused(operation, input.clone()).await;
        assert_eq!(code, expected, "{operation} {input}: {message}");
    }
    let (status, output) = bench.call("PutLogEvents", json!({})).await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
    assert!(
        output["message"].as_str().is_some_and(|message| message.starts_with("PutLogEvents ")),
        "{output}"
    );
}

#[tokio::test]
async fn retention_is_set_and_taken_away() {
    let bench = Bench::new();
    bench.log(ACCOUNTS[0], HELLO, "s", &[(now().0, "a")]);
    let days =
        async || bench.ok("DescribeLogGroups", json!({})).await["logGroups"][0]["retentionInDays"].clone();
    assert_eq!(days().await, 30);
    bench.ok("PutRetentionPolicy", json!({"logGroupName": HELLO, "retentionInDays": 365})).await;
    assert_eq!(days().await, 365);
    bench.ok("DeleteRetentionPolicy", json!({"logGroupName": HELLO})).await;
    assert_eq!(days().await, Value::Null, "for ever");
}

/// The same with AWS's own client, where Python has boto3 (`MARTLET_TEST_PYTHON` names the interpreter).
#[tokio::test(flavor = "multi_thread")]
async fn boto3_tails_a_group() {
    let python = std::env::var("MARTLET_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_boto3 = tokio::process::Command::new(&python).args(["-c", "import boto3"]).output().await;
    if !has_boto3.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} has no boto3");
        return;
    }
    let bench = Bench::new();
    let at = now().0;
    for stream in ["a", "b"] {
        let events: Vec<(u64, String)> =
            (0..25).map(|number| (at - 25 + number, format!("{stream}{number}"))).collect();
        let events: Vec<(u64, &str)> = events.iter().map(|(at, message)| (*at, message.as_str())).collect();
        bench.log(ACCOUNTS[0], HELLO, stream, &events);
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("an address").to_string();
    let (_shutdown, stages) = Shutdown::new();
    tokio::spawn(serve(listener, bench.pipeline.clone(), GatewayOptions::default(), stages));
    let credentials = credentials(ACCOUNTS[0]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/logs/tests/client.py");
    let output = tokio::process::Command::new(&python)
        .args([script, &address, &credentials.access_key, credentials.secret.reveal()])
        .output()
        .await
        .expect("run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
