//! Resource policies: what is answered to whom, and whom they let call.

use super::super::{UrlCall, service_may_invoke, url_may_invoke};
use super::harness::{ARN, Server, refused};
use martlet_identity::Principal;
use martlet_model::{AccountId, Qualifier, Timestamp};
use serde_json::{Value, json};

const POLICY: &str = "/2015-03-31/functions/f/policy";
const OTHER: &str = "111111111111";

fn whole(qualifier: &str) -> String {
    format!("/2026-07-09/resource-policy/{ARN}{qualifier}").replace(':', "%3A")
}

async fn one_version() -> Server {
    let server = Server::start().await;
    server.created("f", json!({})).await;
    assert_eq!(server.call("POST", "/2015-03-31/functions/f/versions", json!({})).await.status, 201);
    let live = json!({"Name": "live", "FunctionVersion": "1"});
    assert_eq!(server.call("POST", "/2015-03-31/functions/f/aliases", live).await.status, 201);
    server
}

fn invoke_for(principal: &str) -> Value {
    json!({"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": principal})
}

async fn invoke_as(server: &Server, account: &str, qualifier: &str) -> u16 {
    let path = format!("/2015-03-31/functions/{ARN}{qualifier}/invocations");
    server.call_as(account, "POST", &path, json!({})).await.status
}

#[tokio::test]
async fn permissions_are_added_shown_and_removed() {
    let server = one_version().await;
    let mut request = invoke_for("s3.amazonaws.com");
    request["SourceArn"] = json!("arn:aws:s3:::photos");
    request["SourceAccount"] = json!(OTHER);
    let added = server.call("POST", POLICY, request.clone()).await;
    assert_eq!(added.status, 201, "{:?}", added.error());
    let text = added.body["Statement"].as_str().unwrap();
    assert!(
        text.starts_with(
            r#"{"Sid":"s","Effect":"Allow","Principal":{"Service":"s3.amazonaws.com"},"Action""#
        ),
        "{text}"
    );
    let statement: Value = serde_json::from_str(text).unwrap();
    assert_eq!(
        statement,
        json!({
            "Sid": "s", "Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "lambda:InvokeFunction",
            "Resource": ARN,
            "Condition": {
                "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::photos"},
                "StringEquals": {"AWS:SourceAccount": OTHER},
            },
        })
    );
    let again = server.call("POST", POLICY, request).await;
    refused(&again, 409, "ResourceConflictException", "The statement id (s) provided already exists.");
    let got = server.call("GET", POLICY, Value::Null).await;
    let policy: Value = serde_json::from_str(got.body["Policy"].as_str().unwrap()).unwrap();
    assert_eq!(policy, json!({"Version": "2012-10-17", "Id": "default", "Statement": [statement]}));

    let path = format!("{POLICY}/s");
    let none = server.call("DELETE", &format!("{POLICY}/other"), Value::Null).await;
    refused(&none, 404, "ResourceNotFoundException", "Statement other is not found in resource policy.");
    let removed = server.call("DELETE", &path, Value::Null).await;
    assert_eq!((removed.status, removed.bytes.len()), (204, 0));
    refused(
        &server.call("GET", POLICY, Value::Null).await,
        404,
        "ResourceNotFoundException",
        "The resource you requested does not exist.",
    );
    refused(
        &server.call("DELETE", &path, Value::Null).await,
        404,
        "ResourceNotFoundException",
        "No policy is associated",
    );
    for (method, path) in
        [("GET", "/2015-03-31/functions/g/policy"), ("DELETE", "/2015-03-31/functions/g/policy/s")]
    {
        refused(
            &server.call(method, path, Value::Null).await,
            404,
            "ResourceNotFoundException",
            "function:g",
        );
    }
}

#[tokio::test]
async fn what_a_permission_cannot_say_is_refused() {
    let server = one_version().await;
    let invalid = "InvalidParameterValueException";
    for (name, value, code, text) in [
        ("Principal", json!("somebody"), invalid, "The provided principal was invalid."),
        (
            "Principal",
            json!("arn:aws:iam::111111111111:group/g"),
            invalid,
            "The provided principal was invalid.",
        ),
        ("PrincipalOrgID", json!("o-1234567890"), invalid, "PrincipalOrgID is not supported"),
        ("FunctionUrlAuthType", json!("NONE"), invalid, "FunctionUrlAuthType is only supported"),
        ("Action", json!("s3:GetObject"), "ValidationException", "at 'action'"),
        ("SourceArn", json!("photos"), "ValidationException", "at 'sourceArn'"),
        ("StatementId", json!("a b"), "ValidationException", "at 'statementId'"),
    ] {
        let mut request = invoke_for("*");
        request[name] = value;
        refused(&server.call("POST", POLICY, request).await, 400, code, text);
    }
    let latest = server.call("POST", &format!("{POLICY}?Qualifier=$LATEST"), invoke_for("*")).await;
    refused(&latest, 400, invalid, "We currently do not support adding policies for $LATEST.");
    let none = server.call("POST", &format!("{POLICY}?Qualifier=7"), invoke_for("*")).await;
    refused(&none, 404, "ResourceNotFoundException", &format!("Function not found: {ARN}:7"));
    let none = server.call("POST", &format!("{POLICY}?Qualifier=beta"), invoke_for("*")).await;
    refused(&none, 404, "ResourceNotFoundException", "Cannot find alias arn");
    let mut via = json!({"StatementId": "s", "Action": "lambda:InvokeFunctionUrl", "Principal": "*"});
    via["InvokedViaFunctionUrl"] = json!(true);
    refused(&server.call("POST", POLICY, via).await, 400, invalid, "InvokedViaFunctionUrl is only supported");
}

#[tokio::test]
async fn a_policy_has_room_for_20_kb() {
    let server = one_version().await;
    let mut number = 0;
    let answer = loop {
        let mut request = invoke_for("events.amazonaws.com");
        request["StatementId"] = json!(format!("statement-{number}"));
        let answer = server.call("POST", POLICY, request).await;
        if answer.status != 201 || number > 1000 {
            break answer;
        }
        number += 1;
    };
    refused(&answer, 400, "PolicyLengthExceededException", "is bigger than the limit (20480).");
    assert!((80..200).contains(&number), "{number}");
    let policy = server.call("GET", POLICY, Value::Null).await.body;
    assert!(policy["Policy"].as_str().unwrap().len() <= 20_480);
}

#[tokio::test]
async fn the_revision_of_a_policy_is_that_of_what_it_is_attached_to() {
    let server = one_version().await;
    let revision = async |qualifier: &str| match qualifier {
        "live" => {
            server.call("GET", "/2015-03-31/functions/f/aliases/live", Value::Null).await.body["RevisionId"]
                .clone()
        }
        _ => {
            let path = format!("/2015-03-31/functions/f/configuration{qualifier}");
            server.call("GET", &path, Value::Null).await.body["RevisionId"].clone()
        }
    };
    for (of, query) in [("", ""), ("?Qualifier=1", "?Qualifier=1"), ("live", "?Qualifier=live")] {
        let before = revision(of).await;
        let mut request = invoke_for("*");
        request["RevisionId"] = json!("00000000-0000-0000-0000-000000000000");
        let path = format!("{POLICY}{query}");
        let wrong = server.call("POST", &path, request.clone()).await;
        refused(&wrong, 412, "PreconditionFailedException", "does not match the latest Revision Id");
        request["RevisionId"] = before.clone();
        assert_eq!(server.call("POST", &path, request).await.status, 201);
        let after = revision(of).await;
        assert_ne!(before, after);
        assert_eq!(server.call("GET", &path, Value::Null).await.body["RevisionId"], after);
        let separator = if query.is_empty() { '?' } else { '&' };
        let remove = |id: &Value| format!("{POLICY}/s{query}{separator}RevisionId={}", id.as_str().unwrap());
        let stale = server.call("DELETE", &remove(&before), Value::Null).await;
        refused(&stale, 412, "PreconditionFailedException", "Revision Id");
        assert_eq!(server.call("DELETE", &remove(&after), Value::Null).await.status, 204);
        assert_ne!(revision(of).await, after);
    }
    // Nothing that runs has changed.
    assert_eq!(server.call("POST", "/2015-03-31/functions/f/versions", json!({})).await.body["Version"], "1");
}

#[tokio::test]
async fn another_account_calls_what_a_policy_lets_it_call() {
    let server = one_version().await;
    let why = format!(
        "User: arn:aws:iam::{OTHER}:user/dev is not authorized to perform: lambda:InvokeFunction on resource: {ARN} because no \
         resource-based policy allows the lambda:InvokeFunction action"
    );
    let path = format!("/2015-03-31/functions/{ARN}/invocations");
    refused(&server.call_as(OTHER, "POST", &path, json!({})).await, 403, "AccessDeniedException", &why);
    // Nobody learns from it whether a function exists.
    let nothing = server.call_as(OTHER, "POST", &path.replace("function:f", "function:g"), json!({})).await;
    assert_eq!(nothing.status, 403);

    server.call("POST", POLICY, invoke_for(OTHER)).await;
    assert_eq!(invoke_as(&server, OTHER, "").await, 200);
    assert_eq!(invoke_as(&server, "222222222222", "").await, 403);
    // The function's policy is not that of its versions and aliases, nor of other actions.
    for qualifier in [":1", ":live"] {
        assert_eq!(invoke_as(&server, OTHER, qualifier).await, 403);
    }
    let get = format!("/2015-03-31/functions/{ARN}");
    assert_eq!(server.call_as(OTHER, "GET", &get, Value::Null).await.status, 403);
    server
        .call(
            "POST",
            &format!("{POLICY}?Qualifier=live"),
            invoke_for(&format!("arn:aws:iam::{OTHER}:user/dev")),
        )
        .await;
    assert_eq!(invoke_as(&server, OTHER, ":live").await, 200);
    assert_eq!(invoke_as(&server, OTHER, ":1").await, 403);
    let see = json!({"StatementId": "see", "Action": "lambda:GetFunction", "Principal": OTHER});
    server.call("POST", POLICY, see).await;
    let seen = server.call_as(OTHER, "GET", &get, Value::Null).await;
    assert_eq!((seen.status, &seen.body["Configuration"]["FunctionArn"]), (200, &json!(ARN)));
    assert_eq!(server.call_as(OTHER, "DELETE", &get, Value::Null).await.status, 403);

    server.call("DELETE", &format!("{POLICY}/s"), Value::Null).await;
    assert_eq!(invoke_as(&server, OTHER, "").await, 403);
    // An alias takes its policy along.
    server.call("DELETE", "/2015-03-31/functions/f/aliases/live", Value::Null).await;
    server
        .call("POST", "/2015-03-31/functions/f/aliases", json!({"Name": "live", "FunctionVersion": "1"}))
        .await;
    assert_eq!(invoke_as(&server, OTHER, ":live").await, 403);
}

#[tokio::test]
async fn a_whole_document_replaces_the_statements() {
    let server = one_version().await;
    server.call("POST", POLICY, invoke_for("*")).await;
    let document = json!({
        "Version": "2012-10-17", "Id": "mine",
        "Statement": {"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "lambda:InvokeFunction", "Resource": ARN},
    });
    let put = server.call("PUT", &whole(""), json!({"Policy": document.to_string()})).await;
    assert_eq!(put.status, 200, "{:?}", put.error());
    let got = server.call("GET", &whole(""), Value::Null).await.body;
    assert_eq!(got, put.body);
    let shown: Value = serde_json::from_str(got["Policy"].as_str().unwrap()).unwrap();
    assert_eq!(shown, json!({"Version": "2012-10-17", "Id": "mine", "Statement": [document["Statement"]]}));
    assert_eq!(server.call("GET", POLICY, Value::Null).await.body, got);

    // A denial is for the owner as well, and for what it names only.
    let denied = server.invoke("f", &[], b"").await;
    refused(&denied, 403, "AccessDeniedException", "with an explicit deny in a resource-based policy");
    assert_eq!(server.invoke("f:live", &[], b"").await.status, 200);
    assert_eq!(server.call("GET", "/2015-03-31/functions/f", Value::Null).await.status, 200);

    let stale = json!({"Policy": document.to_string(), "RevisionId": "00000000-0000-0000-0000-000000000000"});
    refused(&server.call("PUT", &whole(""), stale).await, 412, "PreconditionFailedException", "Revision Id");
    let revision = got["RevisionId"].as_str().unwrap();
    let path = format!("{}?RevisionId={revision}", whole(""));
    assert_eq!(server.call("DELETE", &path, Value::Null).await.status, 204);
    assert_eq!(server.invoke("f", &[], b"").await.status, 200);
    for method in ["GET", "DELETE"] {
        refused(
            &server.call(method, &whole(""), Value::Null).await,
            404,
            "ResourceNotFoundException",
            "does not exist",
        );
    }
    let invalid = "InvalidParameterValueException";
    for (policy, text) in [
        ("{".to_owned(), "not JSON"),
        (json!({"Statement": []}).to_string(), "Version"),
        (document.to_string().replace("function:f", "function:g"), "Resource of statement 1"),
        (document.to_string().replace("Deny", "Maybe"), "Effect"),
        (document.to_string().replace("Principal", "NotPrincipal"), "NotPrincipal"),
    ] {
        refused(&server.call("PUT", &whole(""), json!({"Policy": policy})).await, 400, invalid, text);
    }
    let latest = server.call("PUT", &whole(":$LATEST"), json!({"Policy": "{}"})).await;
    refused(&latest, 400, invalid, "$LATEST");
    let runtime =
        "/2026-07-09/resource-policy/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Aruntime%2Fmine";
    refused(&server.call("GET", runtime, Value::Null).await, 400, invalid, "is not the ARN of a function");
}

#[tokio::test]
async fn urls_need_both_permissions_and_services_one() {
    let server = one_version().await;
    let function = || server.functions.get(&super::harness::arn("f")).unwrap();
    let live = Qualifier::parse("live").unwrap();
    let now = Timestamp(1_800_000_000_000);
    let dev = |account: &str| Principal::user(AccountId::new(account).unwrap(), "dev", "key");
    let url = |signer: Option<&Principal>| {
        let call = UrlCall { signer, source_ip: "127.0.0.1".parse().unwrap(), now };
        url_may_invoke(&function(), Some(&live), &call)
    };
    let (own, other) = (dev("000000000000"), dev(OTHER));
    assert!(url(Some(&own)) && !url(Some(&other)) && !url(None));
    let path = format!("{POLICY}?Qualifier=live");
    for (id, principal, kind) in [("none", "*", "NONE"), ("iam", OTHER, "AWS_IAM")] {
        let by_url = json!({"StatementId": id, "Action": "lambda:InvokeFunctionUrl", "Principal": principal, "FunctionUrlAuthType": kind});
        assert_eq!(server.call("POST", &path, by_url).await.status, 201);
    }
    assert!(!url(Some(&other)) && !url(None));
    let mut via = invoke_for("*");
    via["InvokedViaFunctionUrl"] = json!(true);
    assert_eq!(server.call("POST", &path, via).await.status, 201);
    assert!(url(Some(&other)) && url(None) && !url(Some(&dev("222222222222"))));
    assert_eq!(invoke_as(&server, OTHER, ":live").await, 403);

    let photos = "arn:aws:s3:::photos";
    let s3 = |arn: &str, account: &str| {
        let account = AccountId::new(account).unwrap();
        service_may_invoke(&function(), None, "s3.amazonaws.com", arn, &account, now)
    };
    assert!(!s3(photos, OTHER));
    let mut request = invoke_for("s3.amazonaws.com");
    (request["SourceArn"], request["SourceAccount"]) = (json!(photos), json!(OTHER));
    server.call("POST", POLICY, request).await;
    assert!(s3(photos, OTHER) && !s3("arn:aws:s3:::letters", OTHER) && !s3(photos, "000000000000"));
}
