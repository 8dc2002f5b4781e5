//! What is configured around functions.

use super::*;

const CONFIGS: &str = "/2020-04-22/code-signing-configs";
const PROFILE: &str = "arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/v";

#[tokio::test]
async fn a_url_belongs_to_a_function_once() {
    let server = Server::start().await;
    let path = "/2021-10-31/functions/f/url";
    let body = json!({"AuthType": "NONE", "InvokeMode": "RESPONSE_STREAM"});
    let nowhere = server.call("POST", path, body.clone()).await;
    refused(&nowhere, 404, "ResourceNotFoundException", "The resource you requested does not exist.");
    server.created("f", json!({})).await;
    let made = server.call("POST", path, body.clone()).await;
    assert_eq!((made.status, &made.body["FunctionArn"]), (201, &json!(ARN)));
    let url = made.body["FunctionUrl"].as_str().unwrap();
    let id =
        url.strip_prefix("http://").unwrap().strip_suffix(".lambda-url.us-east-1.localhost:4566/").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
    refused(&server.call("POST", path, body).await, 409, "ResourceConflictException", ARN);
    let shown = server.call("GET", path, Value::Null).await.body;
    assert_eq!((&shown["InvokeMode"], &shown["AuthType"]), (&json!("RESPONSE_STREAM"), &json!("NONE")));
    let version = server.call("POST", &format!("{path}?Qualifier=1"), json!({"AuthType": "NONE"})).await;
    assert_eq!(version.error().1, "ValidationException");
    let origin = json!({"Cors": {"AllowOrigins": ["https://*.example.com"]}});
    let answer = server.call("PUT", path, origin).await;
    refused(&answer, 400, "InvalidParameterValueException", "Cors.AllowOrigins");
    assert_eq!(server.call("DELETE", path, Value::Null).await.status, 204);
    assert_eq!(server.call("GET", path, Value::Null).await.status, 404);
}

#[tokio::test]
async fn enforced_signatures_keep_unsigned_packages_out() {
    let server = Server::start().await;
    let publishers = json!({"SigningProfileVersionArns": [PROFILE]});
    let made = server.call("POST", CONFIGS, json!({"AllowedPublishers": publishers})).await;
    assert_eq!(made.status, 201, "{:?}", made.error());
    let arn = made.body["CodeSigningConfig"]["CodeSigningConfigArn"].as_str().unwrap().to_owned();
    server.created("f", json!({"CodeSigningConfigArn": arn})).await;
    let one = format!("{CONFIGS}/{}", arn.replace(':', "%3A"));
    let enforce = json!({"CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Enforce"}});
    let updated = server.call("PUT", &one, enforce).await.body;
    assert_eq!(updated["CodeSigningConfig"]["AllowedPublishers"], publishers);
    let update = json!({"ZipFile": zip("two")});
    let answer = server.call("PUT", "/2015-03-31/functions/f/code", update.clone()).await;
    refused(&answer, 400, "CodeVerificationFailedException", "ENFORCE");
    let layer = json!({"Content": {"ZipFile": zip("layer")}});
    let layer = server.call("POST", "/2018-10-31/layers/l/versions", layer).await;
    assert_eq!(layer.status, 201, "{:?}", layer.error());
    let layers = json!({"Layers": [layer.body["LayerVersionArn"]]});
    let answer = server.call("PUT", "/2015-03-31/functions/f/configuration", layers).await;
    refused(&answer, 400, "CodeVerificationFailedException", "ENFORCE");
    refused(&server.call("DELETE", &one, Value::Null).await, 409, "ResourceConflictException", "in use");
    let of_function = "/2020-06-30/functions/f/code-signing-config";
    assert_eq!(server.call("DELETE", of_function, Value::Null).await.status, 204);
    assert_eq!(server.call("GET", of_function, Value::Null).await.body, json!({}));
    assert_eq!(server.call("PUT", "/2015-03-31/functions/f/code", update).await.status, 200);
    assert_eq!(server.call("DELETE", &one, Value::Null).await.status, 204);
    let put = server.call("PUT", of_function, json!({"CodeSigningConfigArn": arn})).await;
    refused(&put, 404, "CodeSigningConfigNotFoundException", &arn);
    let elsewhere = one.replace("us-east-1", "eu-west-1");
    refused(
        &server.call("GET", &elsewhere, Value::Null).await,
        404,
        "ResourceNotFoundException",
        "eu-west-1",
    );
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused() {
    let server = Server::start().await;
    let mount = |point: &str| {
        json!({"FileSystemConfigs": [{
            "Arn": format!("arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/{point}"),
            "LocalMountPath": "/mnt/data",
        }]})
    };
    let invalid = "InvalidParameterValueException";
    let answer = server.create("f", mount("fsap-0123456789abcdef1")).await;
    refused(&answer, 400, invalid, "fsap-0123456789abcdef1 is not granted");
    server.created("f", mount("fsap-0123456789abcdef0")).await;
    let shown = server.settled("f").await;
    assert_eq!(shown["FileSystemConfigs"][0]["LocalMountPath"], "/mnt/data");
    let snap = json!({"SnapStart": {"ApplyOn": "PublishedVersions"}});
    let answer = server.call("PUT", "/2015-03-31/functions/f/configuration", snap).await;
    refused(&answer, 400, invalid, "provided.al2023 is not supported for SnapStart");
}

#[tokio::test]
async fn a_runtime_is_kept_or_left_to_the_machine() {
    let server = Server::start().await;
    server.created("f", json!({})).await;
    let here = server.settled("f").await["RuntimeVersionConfig"]["RuntimeVersionArn"].clone();
    let path = "/2021-07-20/functions/f/runtime-management-config";
    let put = |body| server.call("PUT", path, body);
    let manual = put(json!({"UpdateRuntimeOn": "Manual", "RuntimeVersionArn": here})).await;
    assert_eq!((manual.status, &manual.body["FunctionArn"]), (200, &json!(ARN)));
    assert_eq!(server.call("GET", path, Value::Null).await.body["RuntimeVersionArn"], here);
    let invalid = "InvalidParameterValueException";
    refused(
        &put(json!({"UpdateRuntimeOn": "FunctionUpdate"})).await,
        400,
        invalid,
        "FunctionUpdate is not supported",
    );
    let both = json!({"UpdateRuntimeOn": "Auto", "RuntimeVersionArn": here});
    refused(&put(both).await, 400, invalid, "RuntimeVersionArn");
    let of_version = format!("{path}?Qualifier=7");
    let answer = server.call("GET", &of_version, Value::Null).await;
    refused(&answer, 404, "ResourceNotFoundException", "f:7");
}
