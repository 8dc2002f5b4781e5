//! Aliases: what is answered to whom, and which version a call of one runs.

use super::harness::{ARN, Server, refused, zip};
use serde_json::{Value, json};

const ALIASES: &str = "/2015-03-31/functions/f/aliases";

/// A server with a function that has the versions 1 and 2.
async fn two_versions() -> Server {
    let server = Server::start().await;
    server.created("f", json!({})).await;
    for code in ["two", "three"] {
        assert_eq!(server.call("POST", "/2015-03-31/functions/f/versions", json!({})).await.status, 201);
        server.call("PUT", "/2015-03-31/functions/f/code", json!({"ZipFile": zip(code)})).await;
        server.settled("f").await;
    }
    server
}

async fn executed(server: &Server, name: &str) -> String {
    let answer = server.invoke(name, &[], b"1").await;
    assert_eq!(answer.status, 200, "{:?}", answer.error());
    answer.head["x-amz-executed-version"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_alias_is_created_shown_moved_and_deleted() {
    let server = two_versions().await;
    let created = server.call("POST", ALIASES, json!({"Name": "live", "FunctionVersion": "1"})).await;
    assert_eq!(created.status, 201, "{:?}", created.error());
    let revision = created.body["RevisionId"].as_str().unwrap().to_owned();
    let shown = json!({
        "AliasArn": format!("{ARN}:live"), "Name": "live", "FunctionVersion": "1", "Description": "",
        "RevisionId": revision,
    });
    assert_eq!(created.body, shown);
    let live = format!("{ALIASES}/live");
    assert_eq!(server.call("GET", &live, Value::Null).await.body, shown);
    assert_eq!(executed(&server, "f:live").await, "1");
    assert_eq!(server.player.ran.lock().unwrap()[0].invoked_arn, format!("{ARN}:live"));

    let moved = json!({"FunctionVersion": "2", "Description": "more", "RevisionId": revision});
    let moved = server.call("PUT", &live, moved).await;
    assert_eq!(
        (moved.status, &moved.body["FunctionVersion"], &moved.body["Description"]),
        (200, &json!("2"), &json!("more"))
    );
    assert_ne!(moved.body["RevisionId"], revision);
    assert_eq!(executed(&server, "f:live").await, "2");
    let stale = server.call("PUT", &live, json!({"FunctionVersion": "1", "RevisionId": revision})).await;
    refused(&stale, 412, "PreconditionFailedException", "does not match the latest Revision Id");
    assert_eq!(executed(&server, "f:live").await, "2");

    let configuration =
        server.call("GET", "/2015-03-31/functions/f/configuration?Qualifier=live", Value::Null).await.body;
    assert_eq!(
        (&configuration["FunctionArn"], &configuration["Version"]),
        (&json!(format!("{ARN}:live")), &json!("2"))
    );

    let deleted = server.call("DELETE", &live, Value::Null).await;
    assert_eq!((deleted.status, deleted.bytes.len()), (204, 0));
    assert_eq!(server.call("DELETE", &live, Value::Null).await.status, 204);
    refused(
        &server.call("GET", &live, Value::Null).await,
        404,
        "ResourceNotFoundException",
        &format!("Cannot find alias arn: {ARN}:live"),
    );
    refused(&server.call("PUT", &live, json!({})).await, 404, "ResourceNotFoundException", "Alias not found");
    let gone = server.invoke("f:live", &[], b"").await;
    refused(&gone, 404, "ResourceNotFoundException", &format!("Function not found: {ARN}:live"));
}

#[tokio::test]
async fn a_weighted_alias_splits_as_it_says() {
    let server = two_versions().await;
    let weights = |weight: f64| json!({"AdditionalVersionWeights": {"2": weight}});
    let created = json!({"Name": "live", "FunctionVersion": "1", "RoutingConfig": weights(0.1)});
    let created = server.call("POST", ALIASES, created).await;
    assert_eq!(created.body["RoutingConfig"], weights(0.1));
    let live = format!("{ALIASES}/live");
    for (weight, least, most) in [(0.1, 97, 103), (0.5, 497, 503), (1.0, 1000, 1000), (0.0, 0, 0)] {
        server.call("PUT", &live, json!({"RoutingConfig": weights(weight)})).await;
        let mut second = 0;
        for _ in 0..1000 {
            second += usize::from(executed(&server, "f:live").await == "2");
        }
        assert!((least..=most).contains(&second), "{second} of 1000 at {weight}");
    }
    // What is not said stays; an empty one takes the second version away.
    let described = server.call("PUT", &live, json!({"Description": "d"})).await;
    assert_eq!(described.body["RoutingConfig"], weights(0.0));
    let promoted = server.call("PUT", &live, json!({"FunctionVersion": "2", "RoutingConfig": {}})).await;
    assert!(promoted.body.get("RoutingConfig").is_none());
    assert_eq!(executed(&server, "f:live").await, "2");
}

#[tokio::test]
async fn what_an_alias_cannot_mean_is_refused() {
    let server = two_versions().await;
    let invalid = "InvalidParameterValueException";
    let missing = "ResourceNotFoundException";
    let map = "at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map";
    for (more, status, code, text) in [
        (json!({"FunctionVersion": "10"}), 404, missing, format!("Function not found: {ARN}:10")),
        (
            json!({"RoutingConfig": {"AdditionalVersionWeights": {"10": 0.5}}}),
            404,
            missing,
            format!("Function not found: {ARN}:10"),
        ),
        (
            json!({"RoutingConfig": {"AdditionalVersionWeights": {"2": 0.1, "3": 0.1}}}),
            400,
            invalid,
            "cannot be greater than 1".into(),
        ),
        (
            json!({"RoutingConfig": {"AdditionalVersionWeights": {"2": 2.0}}}),
            400,
            "ValidationException",
            map.into(),
        ),
        (
            json!({"RoutingConfig": {"AdditionalVersionWeights": {"$LATEST": 0.5}}}),
            400,
            "ValidationException",
            map.into(),
        ),
        (
            json!({"RoutingConfig": {"AdditionalVersionWeights": {"1": 0.5}}}),
            400,
            invalid,
            "Function version 1 is already included".into(),
        ),
        (
            json!({"FunctionVersion": "$LATEST", "RoutingConfig": {"AdditionalVersionWeights": {"1": 0.5}}}),
            400,
            invalid,
            "$LATEST is not supported for an alias pointing to more than 1 version".into(),
        ),
        (json!({"FunctionVersion": "$LATEST.PUBLISHED"}), 400, invalid, "managed instances".into()),
        (json!({"Name": "123"}), 400, "ValidationException", "at 'name'".into()),
    ] {
        let mut body = json!({"Name": "live", "FunctionVersion": "1"});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        refused(&server.call("POST", ALIASES, body).await, status, code, &text);
    }
    let good = json!({"Name": "live", "FunctionVersion": "$LATEST", "RoutingConfig": {"AdditionalVersionWeights": {}}});
    assert_eq!(server.call("POST", ALIASES, good.clone()).await.status, 201);
    let again = server.call("POST", ALIASES, good).await;
    refused(&again, 409, "ResourceConflictException", &format!("Alias already exists: {ARN}:live"));
    let nothing = server
        .call("POST", "/2015-03-31/functions/g/aliases", json!({"Name": "a", "FunctionVersion": "1"}))
        .await;
    refused(&nothing, 404, missing, "function:g:1");
    let qualified = server
        .call("POST", "/2015-03-31/functions/f:1/aliases", json!({"Name": "a", "FunctionVersion": "1"}))
        .await;
    refused(&qualified, 400, invalid, "permitted on Lambda functions only");
    // A canary in the way of its own promotion.
    let live = format!("{ALIASES}/live");
    server
        .call(
            "PUT",
            &live,
            json!({"FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.5}}}),
        )
        .await;
    refused(
        &server.call("PUT", &live, json!({"FunctionVersion": "2"})).await,
        400,
        invalid,
        "already included",
    );
}

#[tokio::test]
async fn a_version_that_an_alias_means_stays() {
    let server = two_versions().await;
    let weighted = json!({"Name": "live", "FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.5}}});
    server.call("POST", ALIASES, weighted).await;
    for version in ["1", "2"] {
        let answer =
            server.call("DELETE", &format!("/2015-03-31/functions/f?Qualifier={version}"), Value::Null).await;
        refused(
            &answer,
            409,
            "ResourceConflictException",
            "because the following aliases reference it: [live]",
        );
    }
    let alias = server.call("DELETE", "/2015-03-31/functions/f?Qualifier=live", Value::Null).await;
    refused(&alias, 400, "InvalidParameterValueException", "Deletion of aliases");
    server.call("DELETE", &format!("{ALIASES}/live"), Value::Null).await;
    assert_eq!(server.call("DELETE", "/2015-03-31/functions/f?Qualifier=1", Value::Null).await.status, 204);
}

#[tokio::test]
async fn two_versions_of_an_alias_have_one_role_and_one_dead_letter_target() {
    let server = two_versions().await;
    server.created("g", json!({})).await;
    let target = ARN.replace("function:f", "function:g");
    for (version, change, text) in [
        (
            "3",
            json!({"Role": "arn:aws:iam::000000000000:role/other"}),
            "Versions 1 and 3 have different execution roles",
        ),
        (
            "4",
            json!({"Role": super::harness::ROLE, "DeadLetterConfig": {"TargetArn": target}}),
            "Versions 1 and 4 have different dead-letter targets",
        ),
    ] {
        server.call("PUT", "/2015-03-31/functions/f/configuration", change).await;
        server.settled("f").await;
        let published = server.call("POST", "/2015-03-31/functions/f/versions", json!({})).await;
        assert_eq!(published.body["Version"], version);
        let routing = json!({"AdditionalVersionWeights": {version: 0.5}});
        let weighted = json!({"Name": "live", "FunctionVersion": "1", "RoutingConfig": routing});
        let answer = server.call("POST", ALIASES, weighted).await;
        refused(&answer, 400, "InvalidParameterValueException", text);
    }
}

#[tokio::test]
async fn aliases_are_listed_by_name_by_version_and_by_page() {
    let server = two_versions().await;
    for (name, version) in [("c", "1"), ("a", "1"), ("b", "2"), ("d", "$LATEST")] {
        server.call("POST", ALIASES, json!({"Name": name, "FunctionVersion": version})).await;
    }
    let names = |answer: &Value| -> Vec<String> {
        answer["Aliases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|alias| alias["Name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&server.call("GET", ALIASES, Value::Null).await.body), ["a", "b", "c", "d"]);
    let of_one = server.call("GET", &format!("{ALIASES}?FunctionVersion=1"), Value::Null).await.body;
    assert_eq!((names(&of_one), of_one.get("NextMarker")), (vec!["a".to_owned(), "c".to_owned()], None));
    let first = server.call("GET", &format!("{ALIASES}?MaxItems=3"), Value::Null).await.body;
    assert_eq!(names(&first), ["a", "b", "c"]);
    let marker = first["NextMarker"].as_str().unwrap();
    let second = server.call("GET", &format!("{ALIASES}?MaxItems=3&Marker={marker}"), Value::Null).await.body;
    assert_eq!((names(&second), second.get("NextMarker")), (vec!["d".to_owned()], None));
}
