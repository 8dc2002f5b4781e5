//! The operations through the whole pipeline, with functions in memory and somebody who plays the engine.

mod aliases;
mod control;
mod harness;
mod permissions;

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{ARN, ROLE, Server, refused, zip};
use martlet_functions::package::Writer;
use serde_json::{Value, json};

#[tokio::test]
async fn a_function_is_created_shown_and_deleted() {
    let server = Server::start().await;
    let variables = json!({"Variables": {"KEY": "value"}});
    let created = server.create("f", json!({"Environment": variables, "Tags": {"a": "b"}})).await;
    assert_eq!(created.status, 201, "{:?}", created.error());
    let expected = json!({
        "FunctionName": "f",
        "FunctionArn": ARN,
        "Runtime": "provided.al2023",
        "Role": ROLE,
        "Handler": "bootstrap",
        "Description": "",
        "Timeout": 3,
        "MemorySize": 128,
        "LastModified": "2027",
        "Version": "$LATEST",
        "Environment": {"Variables": {"KEY": "value"}},
        "TracingConfig": {"Mode": "PassThrough"},
        "State": "Pending",
        "StateReason": "The function is being created.",
        "StateReasonCode": "Creating",
        "PackageType": "Zip",
        "Architectures": [request::this_architecture()],
        "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/f"},
    });
    for (name, value) in expected.as_object().unwrap() {
        if name != "LastModified" {
            assert_eq!(&created.body[name], value, "{name}");
        }
    }
    assert_eq!(created.body["RevisionId"].as_str().unwrap().len(), 36);
    assert!(created.body.get("LastUpdateStatus").is_none());

    let settled = server.settled("f").await;
    assert_eq!((&settled["State"], &settled["LastUpdateStatus"]), (&json!("Active"), &json!("Successful")));
    assert!(settled.get("StateReason").is_none());
    let got = server.call("GET", "/2015-03-31/functions/f", Value::Null).await.body;
    assert_eq!((&got["Configuration"], &got["Tags"]), (&settled, &json!({"a": "b"})));
    assert_eq!(got["Code"]["RepositoryType"], "S3");

    let deleted = server.call("DELETE", "/2015-03-31/functions/f", Value::Null).await;
    assert_eq!((deleted.status, deleted.bytes.len()), (204, 0));
    let text = format!("Function not found: {ARN}");
    for (method, path) in [("GET", ""), ("GET", "/configuration"), ("DELETE", ""), ("GET", "/versions")] {
        let path = format!("/2015-03-31/functions/f{path}");
        refused(&server.call(method, &path, Value::Null).await, 404, "ResourceNotFoundException", &text);
    }
    refused(&server.invoke("f", &[], b"").await, 404, "ResourceNotFoundException", &text);
}

#[tokio::test]
async fn a_package_can_be_had_by_its_link_and_by_no_other() {
    let server = Server::start().await;
    server.created("f", json!({})).await;
    let got = server.call("GET", "/2015-03-31/functions/f", Value::Null).await.body;
    let link = got["Code"]["Location"].as_str().unwrap().strip_prefix("http://localhost:4566").unwrap();
    let package = server.send("GET", link, &[], b"").await;
    assert_eq!((package.status, STANDARD.encode(&package.bytes)), (200, zip("one")));
    assert_eq!(package.head["content-type"], "application/zip");

    let digest = link[PACKAGES_PREFIX.len()..].split('?').next().unwrap();
    let (before, after) = link.split_once("Credential=").unwrap();
    let forged = format!("{before}Credential=test{}", &after[after.find('%').unwrap()..]);
    assert_eq!(server.send("GET", &forged, &[], b"").await.status, 403);
    for other in ["x".to_owned(), "0".repeat(64), format!("{digest}0"), format!("../{digest}")] {
        let other = link.replace(digest, &other);
        assert_eq!(server.send("GET", &other, &[], b"").await.status, 404, "{other}");
    }
}

#[tokio::test]
async fn what_cannot_be_created_is_told_precisely() {
    let server = Server::start().await;
    let not_a_zip = STANDARD.encode("this is no zip file");
    let mut evil = Writer::new();
    evil.file("../evil", false, b"x").unwrap();
    let evil = STANDARD.encode(evil.finish().unwrap());
    let unzip = "Could not unzip uploaded file. Please check your file, then try to upload again.";
    let invalid = "InvalidParameterValueException";
    let tags: serde_json::Map<String, Value> = (0..51).map(|n| (n.to_string(), json!("v"))).collect();
    for (more, code, text) in [
        (json!({"Code": {"ZipFile": not_a_zip}}), invalid, unzip),
        (json!({"Code": {"ZipFile": evil}}), invalid, "\"../evil\": the name climbs"),
        (json!({"Code": {"ZipFile": ""}}), invalid, "Uploaded file must be a non-empty zip"),
        (json!({"Code": {}}), invalid, "Please provide a source for function code."),
        (json!({"Code": {"S3Bucket": "bucket", "S3Key": "k"}}), invalid, "Amazon S3"),
        (
            json!({"Code": {"S3Bucket": "bucket", "ZipFile": "UEs="}}),
            invalid,
            "do not provide other FunctionCode parameters",
        ),
        (json!({"Code": {"ImageUri": "image"}}), invalid, "container images"),
        (json!({"PackageType": "Image"}), invalid, "container images"),
        (json!({"Runtime": "python3.12"}), invalid, "enum value set: [provided.al2, provided.al2023]"),
        (json!({"Runtime": null}), invalid, "Runtime and Handler are mandatory"),
        (json!({"Handler": null}), invalid, "Runtime and Handler are mandatory"),
        (json!({"Architectures": [other_architecture()]}), invalid, "is not this machine's"),
        (json!({"Timeout": 901}), "ValidationException", "Value '901' at 'timeout' failed"),
        (json!({"MemorySize": 10241}), "ValidationException", "less than or equal to 10240"),
        (json!({"EphemeralStorage": {"Size": 10241}}), "ValidationException", "ephemeralStorage.size"),
        (
            json!({"Environment": {"Variables": {"AWS_REGION": "x", "LAMBDA_TASK_ROOT": "y"}}}),
            invalid,
            "Reserved keys used in this request: AWS_REGION, LAMBDA_TASK_ROOT",
        ),
        (
            json!({"Environment": {"Variables": {"KEY": "x".repeat(4090)}}}),
            invalid,
            "exceeded the 4KB limit. String measured: {\"KEY\":\"xx",
        ),
        (json!({"FunctionName": "x".repeat(65)}), invalid, "length less than or equal to 64"),
        (json!({"FunctionName": "f:1"}), invalid, "leave the qualifier 1 out"),
        (json!({"Tags": tags}), invalid, "Number of tags exceeds"),
        (json!({"Tags": {"AWS:x": "y"}}), invalid, "aws: prefixed"),
        (json!({"Layers": [format!("{}:1", ARN.replace("function", "layer"))]}), invalid, "does not exist"),
        (json!({"TracingConfig": {"Mode": "Active"}}), invalid, "TracingConfig.Mode is not"),
        (
            json!({"SnapStart": {"ApplyOn": "PublishedVersions"}}),
            invalid,
            "is not supported for SnapStart enabled functions.",
        ),
        (
            json!({"LoggingConfig": {"LogFormat": "Text", "SystemLogLevel": "INFO"}}),
            invalid,
            "need LogFormat JSON",
        ),
    ] {
        let answer = server.create("f", more).await;
        refused(&answer, 400, code, text);
    }
    refused(
        &server.create("111111111111:function:f", json!({})).await,
        403,
        "AccessDeniedException",
        "lambda:CreateFunction",
    );
    let listed = server.call("GET", "/2015-03-31/functions", Value::Null).await;
    assert_eq!(listed.body, json!({"Functions": []}));
}

fn other_architecture() -> &'static str {
    if request::this_architecture() == "arm64" { "x86_64" } else { "arm64" }
}

#[tokio::test]
async fn members_that_ask_for_nothing_are_taken() {
    let server = Server::start().await;
    let off = json!({
        "Layers": [], "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []}, "TracingConfig": {"Mode": "PassThrough"},
        "SnapStart": {"ApplyOn": "None"}, "DeadLetterConfig": {}, "KMSKeyArn": "", "PackageType": "Zip",
        "FileSystemConfigs": [], "Environment": {},
    });
    let created = server.create(ARN, off).await;
    assert_eq!(created.status, 201, "{:?}", created.error());
    assert_eq!(created.body["FunctionName"], "f");
    assert_eq!(created.body["Environment"], json!({"Variables": {}}));
    refused(
        &server.create("f", json!({})).await,
        409,
        "ResourceConflictException",
        "Function already exist: f",
    );
}

#[tokio::test]
async fn updates_change_what_they_name() {
    let server = Server::start().await;
    server.created("f", json!({"Timeout": 9})).await;
    let path = "/2015-03-31/functions/f/configuration";
    let json_logging = json!({"LogFormat": "JSON", "SystemLogLevel": "WARN"});
    let updated = server.call("PUT", path, json!({"MemorySize": 256, "LoggingConfig": json_logging})).await;
    assert_eq!(updated.status, 200, "{:?}", updated.error());
    assert_eq!(updated.body["LastUpdateStatus"], "InProgress");
    assert_eq!(updated.body["LastUpdateStatusReasonCode"], "Creating");
    let settled = server.settled("f").await;
    assert_eq!((&settled["MemorySize"], &settled["Timeout"]), (&json!(256), &json!(9)));
    let logging = json!({"LogFormat": "JSON", "ApplicationLogLevel": "INFO", "SystemLogLevel": "WARN",
        "LogGroup": "/aws/lambda/f"});
    assert_eq!(settled["LoggingConfig"], logging);
    let level = json!({"LoggingConfig": {"ApplicationLogLevel": "ERROR"}});
    let updated = server.call("PUT", path, level.clone()).await;
    assert_eq!(updated.body["LoggingConfig"]["ApplicationLogLevel"], "ERROR");
    server.settled("f").await;
    let text = json!({"LoggingConfig": {"LogFormat": "Text", "LogGroup": "mine"}});
    let updated = server.call("PUT", path, text).await;
    assert_eq!(updated.body["LoggingConfig"], json!({"LogFormat": "Text", "LogGroup": "mine"}));

    let before = server.settled("f").await;
    refused(
        &server.call("PUT", path, level).await,
        400,
        "InvalidParameterValueException",
        "need LogFormat JSON",
    );
    let stale = json!({"RevisionId": updated.body["RevisionId"], "Timeout": 5});
    let precondition = "The Revision Id provided does not match the latest Revision Id. Call the \
                        GetFunction/GetAlias API to retrieve the latest Revision Id";
    refused(&server.call("PUT", path, stale).await, 412, "PreconditionFailedException", precondition);
    let path = "/2015-03-31/functions/f/code";
    let dry = server.call("PUT", path, json!({"ZipFile": zip("two"), "DryRun": true})).await;
    assert_eq!((dry.status, &dry.body["RevisionId"]), (200, &before["RevisionId"]));
    let right = json!({"ZipFile": zip("two"), "RevisionId": before["RevisionId"]});
    let updated = server.call("PUT", path, right).await;
    assert_ne!(updated.body["CodeSha256"], before["CodeSha256"]);
    assert_eq!(server.settled("f").await["CodeSha256"], updated.body["CodeSha256"]);

    for (path, body) in [
        ("/2015-03-31/functions/f:1/code", json!({"ZipFile": zip("two")})),
        ("/2015-03-31/functions/f:live/configuration", json!({})),
        ("/2015-03-31/functions/f:1/versions", json!({})),
    ] {
        let method = if path.ends_with("versions") { "POST" } else { "PUT" };
        let answer = server.call(method, path, body).await;
        refused(&answer, 400, "InvalidParameterValueException", "permitted on Lambda functions only");
    }
}

#[tokio::test]
async fn versions_are_published_listed_and_deleted() {
    let server = Server::start().await;
    server.created("f", json!({"Description": "latest"})).await;
    let path = "/2015-03-31/functions/f/versions";
    let first = server.call("POST", path, json!({"Description": "first"})).await;
    assert_eq!((first.status, &first.body["FunctionArn"]), (201, &json!(format!("{ARN}:1"))));
    assert_eq!((&first.body["Description"], &first.body["Version"]), (&json!("first"), &json!("1")));
    assert_eq!(server.call("POST", path, json!({})).await.body["Version"], "1");
    let sha = first.body["CodeSha256"].as_str().unwrap();
    let wrong = format!("CodeSHA256 (AAAA) is different from current CodeSHA256 in $LATEST ({sha})");
    let answer = server.call("POST", path, json!({"CodeSha256": "AAAA"})).await;
    refused(&answer, 400, "InvalidParameterValueException", &wrong);
    assert_eq!(server.call("POST", path, json!({"CodeSha256": sha})).await.status, 201);
    let code = json!({"ZipFile": zip("two"), "Publish": true});
    let second = server.call("PUT", "/2015-03-31/functions/f/code", code).await;
    assert_eq!(second.body["FunctionArn"], format!("{ARN}:2"));
    server.settled("f").await;

    let listed = server.call("GET", path, Value::Null).await.body;
    let arns: Vec<&Value> =
        listed["Versions"].as_array().unwrap().iter().map(|v| &v["FunctionArn"]).collect();
    assert_eq!(arns, [&format!("{ARN}:$LATEST"), &format!("{ARN}:1"), &format!("{ARN}:2")]);
    assert!(listed["Versions"][0].get("State").is_none());
    let page = server.call("GET", &format!("{path}?MaxItems=2"), Value::Null).await.body;
    let marker = page["NextMarker"].as_str().unwrap();
    let rest = server.call("GET", &format!("{path}?Marker={marker}"), Value::Null).await.body;
    assert_eq!((rest["Versions"][0]["Version"].as_str(), rest.get("NextMarker")), (Some("2"), None));

    let one = "/2015-03-31/functions/f?Qualifier=1";
    let got = server.call("GET", one, Value::Null).await.body;
    assert_eq!(got["Configuration"]["FunctionArn"], format!("{ARN}:1"));
    let both = server.call("GET", "/2015-03-31/functions/f:2?Qualifier=1", Value::Null).await;
    refused(&both, 400, "InvalidParameterValueException", "The derived qualifier from the function name");
    assert_eq!(server.call("DELETE", one, Value::Null).await.status, 204);
    refused(&server.call("DELETE", one, Value::Null).await, 404, "ResourceNotFoundException", ":f:1");
    let latest = server.call("DELETE", "/2015-03-31/functions/f?Qualifier=%24LATEST", Value::Null).await;
    refused(&latest, 400, "InvalidParameterValueException", "$LATEST version cannot be deleted");
    for nothing in ["1", "live", "$LATEST.PUBLISHED", "01"] {
        let path = format!("/2015-03-31/functions/f?Qualifier={}", nothing.replace('$', "%24"));
        let answer = server.call("GET", &path, Value::Null).await;
        refused(&answer, 404, "ResourceNotFoundException", &format!("{ARN}:{nothing}"));
    }
}

#[tokio::test]
async fn functions_are_listed_by_pages() {
    let server = Server::start().await;
    for name in ["c", "a", "b"] {
        server.created(name, json!({"Publish": name == "b"})).await;
    }
    let mut seen = Vec::new();
    let mut path = "/2015-03-31/functions/?MaxItems=2".to_owned();
    loop {
        let page = server.call("GET", &path, Value::Null).await.body;
        let functions = page["Functions"].as_array().unwrap().clone();
        seen.push(
            functions.iter().map(|f| f["FunctionName"].as_str().unwrap().to_owned()).collect::<Vec<_>>(),
        );
        let Some(marker) = page["NextMarker"].as_str() else { break };
        path = format!("/2015-03-31/functions/?MaxItems=2&Marker={marker}");
    }
    assert_eq!(seen, [vec!["a", "b"], vec!["c"]]);
    let all = server.call("GET", "/2015-03-31/functions?FunctionVersion=ALL", Value::Null).await.body;
    let names: Vec<&str> = all["Functions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["FunctionArn"].as_str().unwrap().split_once("function:").unwrap().1)
        .collect();
    assert_eq!(names, ["a:$LATEST", "b:$LATEST", "b:1", "c:$LATEST"]);
    let answer = server.call("GET", "/2015-03-31/functions?Marker=%21", Value::Null).await;
    refused(&answer, 400, "InvalidParameterValueException", "Marker");

    let account = server.call("GET", "/2016-08-19/account-settings", Value::Null).await.body;
    assert_eq!(account["AccountLimit"]["ConcurrentExecutions"], 7);
    assert_eq!(account["AccountLimit"]["TotalCodeSize"], 80_530_636_800_u64);
    assert_eq!(account["AccountUsage"]["FunctionCount"], 3);
}

#[tokio::test]
async fn tags_are_kept_and_limited() {
    let server = Server::start().await;
    server.created("f", json!({})).await;
    let path = format!("/2017-03-31/tags/{}", ARN.replace(':', "%3A"));
    let tagged = server.call("POST", &path, json!({"Tags": {"a": "1", "b": "2"}})).await;
    assert_eq!((tagged.status, tagged.bytes.len()), (204, 0));
    assert_eq!(server.call("DELETE", &format!("{path}?tagKeys=a&tagKeys=x"), Value::Null).await.status, 204);
    assert_eq!(server.call("GET", &path, Value::Null).await.body, json!({"Tags": {"b": "2"}}));
    let many: serde_json::Map<String, Value> = (0..50).map(|n| (n.to_string(), json!("v"))).collect();
    let invalid = "InvalidParameterValueException";
    refused(&server.call("POST", &path, json!({"Tags": many})).await, 400, invalid, "Number of tags exceeds");
    refused(&server.call("POST", &path, json!({"Tags": {}})).await, 400, invalid, "An error occurred");
    let version = server.call("POST", &format!("{path}%3A1"), json!({"Tags": {"a": "1"}})).await;
    refused(&version, 400, invalid, "Tags on function aliases and versions are not supported");
    refused(
        &server.call("GET", &format!("{path}x"), Value::Null).await,
        404,
        "ResourceNotFoundException",
        "fx",
    );
}

#[tokio::test]
async fn an_invocation_carries_everything_there_and_back() {
    let server = Server::start().await;
    server.created("f", json!({"Publish": true})).await;
    let context = STANDARD.encode("{\"client\":1}");
    let trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
    let headers =
        [("x-amz-log-type", "Tail"), ("x-amz-client-context", context.as_str()), ("x-amzn-trace-id", trace)];
    let answer = server.invoke("f", &headers, b"{\"a\": 1}").await;
    assert_eq!((answer.status, &answer.bytes[..]), (200, &b"{\"a\": 1}"[..]));
    assert_eq!(answer.head["x-amz-executed-version"], "$LATEST");
    assert_eq!(answer.head["x-amz-log-result"], STANDARD.encode("END").as_str());
    assert!(!answer.head.contains_key("x-amz-function-error"));
    let answer = server.invoke("000000000000:function:f:1", &[], b"\"fail\"").await;
    assert_eq!((answer.status, answer.head["x-amz-executed-version"].to_str().unwrap()), (200, "1"));
    assert_eq!(answer.head["x-amz-function-error"], "Unhandled");
    assert!(!answer.head.contains_key("x-amz-log-result"));
    assert_eq!(server.invoke("f", &[], b"").await.bytes, "{}");

    let ran = server.player.ran.lock().unwrap();
    assert_eq!(ran[0].invoked_arn, ARN);
    assert_eq!(ran[0].client_context.as_deref(), Some("{\"client\":1}"));
    assert_eq!(ran[0].trace_id, format!("{trace};Lineage=1:ea9e24da:0"));
    assert_eq!(ran[1].invoked_arn, format!("{ARN}:1"));
    assert!(
        ran[1].trace_id.starts_with("Root=1-6b49d200-")
            && ran[1].trace_id.ends_with(";Sampled=0;Lineage=1:ea9e24da:0")
    );
    assert_ne!(ran[1].request_id, ran[2].request_id);
}

#[tokio::test]
async fn invocations_for_later_and_for_nothing() {
    let server = Server::start().await;
    server.created("f", json!({})).await;
    let answer = server.invoke("f", &[("x-amz-invocation-type", "Event")], b"[1]").await;
    assert_eq!((answer.status, answer.bytes.len()), (202, 0));
    let answer = server.invoke("f", &[("x-amz-invocation-type", "DryRun")], b"[1]").await;
    assert_eq!((answer.status, answer.bytes.len()), (204, 0));
    assert!(server.player.ran.lock().unwrap().is_empty());
    let accepted = server.player.accepted.lock().unwrap().remove(0);
    assert_eq!((&accepted.payload[..], accepted.qualifier), (&b"[1]"[..], None));
    let large = format!("\"{}\"", "x".repeat(limits::ASYNC_REQUEST_BYTES));
    let answer = server.invoke("f", &[("x-amz-invocation-type", "Event")], large.as_bytes()).await;
    refused(&answer, 413, "RequestTooLargeException", "(limit 1048576 bytes)");
    assert!(server.player.accepted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn invocations_are_refused_with_reasons() {
    let server = Server::start().await;
    server.created("f", json!({})).await;
    let content = "InvalidRequestContentException";
    for payload in [&b"{"[..], b"{'a'}", b"\xff", b"1 2", b" "] {
        let answer = server.invoke("f", &[], payload).await;
        refused(&answer, 400, content, "Could not parse request body into json: ");
    }
    let throttled = server.invoke("f", &[], b"\"throttle\"").await;
    refused(&throttled, 429, "TooManyRequestsException", "Rate Exceeded.");
    assert_eq!(throttled.head["retry-after"], "3");
    assert_eq!(throttled.body["Reason"], "ReservedFunctionConcurrentInvocationLimitExceeded");
    let long = STANDARD.encode("x".repeat(3000));
    for context in ["%%%", &STANDARD.encode("[]"), &STANDARD.encode("{"), &long] {
        let answer = server.invoke("f", &[("x-amz-client-context", context)], b"").await;
        refused(&answer, 400, content, "Client context");
    }
    let answer = server.invoke("arn:aws:lambda:us-east-1:000000000000:layer:f", &[], b"").await;
    refused(&answer, 400, "InvalidParameterValueException", "names no function");
    let answer = server.invoke("arn:aws:lambda:eu-west-1:000000000000:function:f", &[], b"").await;
    let elsewhere = "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')";
    refused(&answer, 404, "ResourceNotFoundException", elsewhere);
    for nothing in ["g", "f:7", "f:live", "a.b"] {
        let answer = server.invoke(nothing, &[], b"").await;
        let arn = format!("function:{nothing}");
        refused(&answer, 404, "ResourceNotFoundException", &arn);
    }
}

#[tokio::test]
async fn in_development_a_start_can_be_asked_for_and_is_told() {
    use martlet_engine::{Start, Wanted};
    let shown = StartShown { start: "ordinary", reason: Some("a thread is alive".into()) };
    let by_header = Starts { by_header: true, always: None, shown: Arc::new(move |_| shown.clone()) };
    let server = Server::starting(by_header).await;
    server.created("f", json!({})).await;
    let got = server.call("GET", "/2015-03-31/functions/f", Value::Null).await.body;
    assert_eq!(got["Configuration"]["Martlet"], json!({"Start": "ordinary", "Reason": "a thread is alive"}));

    assert_eq!(server.invoke("f", &[], b"1").await.head["x-martlet-start"], "warm");
    for kind in ["spare", "fork", "ordinary"] {
        let answer = server.invoke("f", &[("x-martlet-cold-start", kind)], b"1").await;
        assert_eq!((answer.status, &answer.head["x-martlet-start"]), (200, &kind.parse().unwrap()));
    }
    let cold = [Start::Spare, Start::Fork, Start::Ordinary].map(Wanted::Cold);
    assert_eq!(server.player.wanted.lock().unwrap()[..], [&[Wanted::Any], &cold[..]].concat());
    for wrong in ["warm", "Fork", "", "\u{e9}"] {
        let answer = server.invoke("f", &[("x-martlet-cold-start", wrong)], b"1").await;
        refused(&answer, 400, "InvalidParameterValueException", "takes spare, fork or ordinary");
    }

    let always = Server::starting(Starts { always: Some(Start::Fork), ..Starts::default() }).await;
    always.created("f", json!({})).await;
    assert_eq!(always.invoke("f", &[], b"1").await.head["x-martlet-start"], "fork");

    let usual = Server::start().await;
    usual.created("f", json!({})).await;
    assert!(usual.invoke("f", &[], b"1").await.head.get("x-martlet-start").is_none());
    let answer = usual.invoke("f", &[("x-martlet-cold-start", "fork")], b"1").await;
    refused(&answer, 400, "InvalidParameterValueException", "start the server with --dev");
}
