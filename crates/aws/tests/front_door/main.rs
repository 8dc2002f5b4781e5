//! The whole front door over a real socket, with a toy Lambda behind it: routing, signatures, codec, validation and
//! errors as a caller sees them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod mangled;
mod server;

use http::StatusCode;
use server::{Server, json};

#[tokio::test]
async fn an_invocation_goes_in_and_comes_back() {
    let server = Server::start().await;
    let answer = server.signed("POST", "/2015-03-31/functions/echo/invocations", &[], b"{\"a\":1}").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["x-amz-executed-version"], "$LATEST");
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.headers()["x-amzn-requestid"].len(), 36);
    assert_eq!(answer.body(), "{\"a\":1}");
}

#[tokio::test]
async fn members_are_found_wherever_the_model_puts_them() {
    let server = Server::start().await;
    let headers = [("x-amz-invocation-type", "Event"), ("x-amz-client-context", "e30=")];
    let path = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Aecho/invocations?Qualifier=live";
    let answer = server.signed("POST", path, &headers, b"[]").await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(
        answer.headers()["x-amz-log-result"],
        "arn:aws:lambda:us-east-1:000000000000:function:echo live Event e30="
    );

    let answer = server.signed("GET", "/2015-03-31/functions/?MaxItems=7&Marker=a%2Fb", &[], b"").await;
    assert_eq!(json(&answer)["NextMarker"], "7 a/b 000000000000 us-east-1");
}

#[tokio::test]
async fn what_the_model_forbids_is_told_in_its_words() {
    let server = Server::start().await;
    let answer = server
        .signed("POST", "/2015-03-31/functions", &[], b"{\"FunctionName\":\"a b\",\"Timeout\":0}")
        .await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert_eq!(answer.headers()["x-amzn-errortype"], "ValidationException");
    let message = json(&answer)["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("4 validation errors detected: Value 'a b' at 'functionName' failed"),
        "{message}"
    );
    assert!(
        message.contains("; Value null at 'role' failed to satisfy constraint: Member must not be null"),
        "{message}"
    );
    assert!(message.contains("Value '0' at 'timeout' failed to satisfy constraint: Member must have value greater than or equal to 1"), "{message}");

    let answer = server.signed("POST", "/2015-03-31/functions", &[], b"{\"FunctionName\":1}").await;
    assert_eq!(answer.headers()["x-amzn-errortype"], "SerializationException");
    assert_eq!(json(&answer)["message"], "NUMBER_VALUE can not be converted to a String");

    let answer = server.signed("POST", "/2015-03-31/functions", &[], b"{not json").await;
    assert_eq!(answer.headers()["x-amzn-errortype"], "SerializationException");
    assert!(
        json(&answer)["message"].as_str().unwrap().starts_with("Could not parse request body into json: ")
    );
}

#[tokio::test]
async fn members_that_nothing_applies_are_refused_by_name() {
    let server = Server::start().await;
    let create = |more: &str| {
        format!(
            r#"{{"FunctionName":"f","Role":"arn:aws:iam::000000000000:role/r","Code":{{"ZipFile":"UEs="}},"Future":1{more}}}"#
        )
    };
    let answer = server.signed("POST", "/2015-03-31/functions", &[], create("").as_bytes()).await;
    assert_eq!(answer.status(), StatusCode::CREATED, "{:?}", answer.body());
    assert_eq!(json(&answer)["CodeSize"], 2);
    let off = r#","TracingConfig":{"Mode":"PassThrough"},"Layers":[],"VpcConfig":{"SubnetIds":[]}"#;
    let answer = server.signed("POST", "/2015-03-31/functions", &[], create(off).as_bytes()).await;
    assert_eq!(answer.status(), StatusCode::CREATED, "{:?}", answer.body());

    let on = r#","TracingConfig":{"Mode":"Active"}"#;
    let answer = server.signed("POST", "/2015-03-31/functions", &[], create(on).as_bytes()).await;
    assert_eq!(answer.headers()["x-amzn-errortype"], "InvalidParameterValueException");
    assert!(json(&answer)["message"].as_str().unwrap().starts_with("TracingConfig.Mode is not supported"));
    assert_eq!(json(&answer)["Type"], "User");
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let server = Server::start().await;
    let answer = server.signed("GET", "/2015-03-31/functions/f/aliases", &[], b"").await;
    assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED);
    assert!(
        json(&answer)["message"].as_str().unwrap().starts_with("ListAliases of Lambda is not implemented")
    );
    let answer = server.signed("GET", "/2015-03-31/nothing", &[], b"").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(answer.headers()["x-amzn-errortype"], "UnknownOperationException");
    let answer = server.signed_for("s3", "GET", "/", &[], b"").await;
    assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED);
    assert!(std::str::from_utf8(answer.body()).unwrap().contains("<Code>NotImplemented</Code>"));
    let answer = server
        .signed_for("dynamodb", "POST", "/", &[("x-amz-target", "DynamoDB_20120810.ListTables")], b"{}")
        .await;
    assert_eq!(json(&answer)["__type"], "NotImplementedException");
    assert!(json(&answer)["message"].as_str().unwrap().contains("these are: lambda"));
    let form = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
    let answer = server.plain("POST", "/", &form, b"Action=GetCallerIdentity").await;
    assert!(std::str::from_utf8(answer.body()).unwrap().contains("<Code>MissingAuthenticationToken</Code>"));
}

#[tokio::test]
async fn signatures_are_checked_before_anything_else() {
    let server = Server::start().await;
    let answer = server.plain("GET", "/2015-03-31/functions", &[], b"").await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert_eq!(answer.headers()["x-amzn-errortype"], "MissingAuthenticationTokenException");
    assert_eq!(json(&answer)["message"], "Missing Authentication Token");

    let answer = server.tampered("POST", "/2015-03-31/functions/echo/invocations", b"{}", b"[]").await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert_eq!(answer.headers()["x-amzn-errortype"], "InvalidSignatureException");
}

#[tokio::test]
async fn errors_of_handlers_are_spelled_as_the_model_does() {
    let server = Server::start().await;
    let answer = server.signed("POST", "/2015-03-31/functions/missing/invocations", &[], b"{}").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(json(&answer), serde_json::json!({"Type": "User", "Message": "Function not found: missing"}));
    let answer = server.signed("POST", "/2015-03-31/functions/busy/invocations", &[], b"{}").await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["retry-after"], "1");
    assert_eq!(
        json(&answer),
        serde_json::json!({"Type": "User", "message": "Rate Exceeded.", "Reason": "CallerRateLimitExceeded"})
    );
    let answer = server.signed("POST", "/2015-03-31/functions/panic/invocations", &[], b"{}").await;
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.headers()["x-amzn-errortype"], "ServiceException");
    let answer = server.signed("POST", "/2015-03-31/functions/echo/invocations", &[], b"1").await;
    assert_eq!(answer.body(), "1", "a panic of one handler hurts no other request");
}

#[tokio::test]
async fn bodies_over_the_limit_are_told_lambdas_way() {
    let server = Server::start().await;
    let body = vec![b' '; 2_000];
    let answer = server.signed("POST", "/2015-03-31/functions/echo/invocations", &[], &body).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.headers()["x-amzn-errortype"], "RequestTooLargeException");
    assert_eq!(
        json(&answer)["message"],
        "Request must be smaller than 1000 bytes for the InvokeFunction operation"
    );
}

#[tokio::test]
async fn the_servers_own_paths_go_through_the_same_door() {
    let server = Server::start().await;
    assert_eq!(server.plain("GET", "/_martlet/health", &[], b"").await.body(), "well");
    let answer = server.plain("GET", "/_martlet/packages/x", &[], b"").await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let link = server.presigned("/_martlet/packages/x?name=a%20b");
    assert_eq!(server.plain("GET", &link, &[], b"").await.body(), "000000000000");
    let answer = server.plain("GET", &link.replace("packages/x", "packages/y"), &[], b"").await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
}

/// The same with AWS's own client, where Python has boto3 (`MARTLET_TEST_PYTHON` names the interpreter).
#[tokio::test(flavor = "multi_thread")]
async fn boto3_is_content() {
    let python = std::env::var("MARTLET_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_boto3 = tokio::process::Command::new(&python).args(["-c", "import boto3"]).output().await;
    if !has_boto3.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} has no boto3");
        return;
    }
    let server = Server::start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/front_door/client.py");
    let output = tokio::process::Command::new(&python)
        .args([
            script,
            &server.address.to_string(),
            &server.credentials.access_key,
            server.credentials.secret.reveal(),
        ])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
