//! Packages that bring their own runtime: here a script that speaks the Runtime API with nothing but a socket.

use crate::world::{Function, World, failure, invocation, invoke, kill_from_outside, result, shown, tail};
use martlet_environment::Completion;
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;

/// A runtime in Python whose handler is the expression in `_HANDLER`.
const BOOTSTRAP: &str = r#"#!/usr/bin/python3
import http.client, json, os, sys
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
def call(method, path, body=None, headers={}):
    api.request(method, "/2018-06-01/runtime/" + path, body, headers)
    response = api.getresponse()
    return response, response.read()
sys.stdout.reconfigure(line_buffering=True)
print("bootstrap in", os.getcwd())
if os.environ["_HANDLER"] == "broken":
    call("POST", "init/error", '{"errorMessage":"no","errorType":"Runtime.Mine"}', {"Lambda-Runtime-Function-Error-Type": "Runtime.Mine"})
    sys.exit(1)
while True:
    response, body = call("GET", "invocation/next")
    request = response.headers["Lambda-Runtime-Aws-Request-Id"]
    event = json.loads(body)
    try:
        result = eval(os.environ["_HANDLER"])
    except Exception as error:
        call("POST", "invocation/%s/error" % request, json.dumps({"errorMessage": str(error), "errorType": "E"}), {"Lambda-Runtime-Function-Error-Type": "Function.E"})
        continue
    response, body = call("POST", "invocation/%s/response" % request, json.dumps(result))
    print(response.status)
"#;

fn function(handler: &'static str) -> Function {
    Function { handler, ..Function::new("provided.al2023") }
}

/// True when `/usr/bin/python3` is there to run the script.
fn can_run() -> bool {
    std::path::Path::new("/usr/bin/python3").exists()
}

pub(crate) async fn an_executable_is_served_the_runtime_api(world: World) {
    if !can_run() {
        return;
    }
    let mut environment = world
        .start(function("[event, os.environ.get('AWS_EXECUTION_ENV')]"), &[("bootstrap", BOOTSTRAP)])
        .await;
    for run in 0..3 {
        assert_eq!(result(&mut environment, run.to_string()).await, json!([run, null]));
        environment.freeze();
    }
    let big = format!("\"{}\"", "x".repeat(3_000_000));
    assert_eq!(invoke(&mut environment, big).await.payload.len(), 3_000_010);
    environment.stop().await;
    let log = world.log().await;
    assert_eq!(log[0], "INIT_START Runtime Version: provided:al2023");
    assert_eq!(log[1], "bootstrap in /var/task");
}

pub(crate) async fn its_failures_are_told(world: World) {
    if !can_run() {
        return;
    }
    let mut environment =
        world.start(function("1 / event if event else os._exit(5)"), &[("bootstrap", BOOTSTRAP)]).await;
    let (document, completed) = failure(&mut environment, "\"x\"").await;
    assert_eq!(document["errorType"], "E");
    assert!(completed.reusable);
    assert_eq!(result(&mut environment, "2").await, 0.5);
    let (document, completed) = failure(&mut environment, "0").await;
    assert_eq!(document["errorType"], "Runtime.ExitError", "{}", shown(&completed));
    assert!(
        document["errorMessage"]
            .as_str()
            .expect("text")
            .ends_with("Runtime exited with error: exit status 5")
    );
    assert!(!completed.reusable);
    environment.stop().await;

    let mut environment = world.start(function("'x' * 7000000"), &[("bootstrap", BOOTSTRAP)]).await;
    for _ in 0..2 {
        let (document, completed) = failure(&mut environment, "1").await;
        assert_eq!(document["errorType"], "Function.ResponseSizeTooLarge");
        assert!(completed.reusable);
    }
    environment.stop().await;

    let mut environment = world.start(function("broken"), &[("bootstrap", BOOTSTRAP)]).await;
    let (document, completed) = failure(&mut environment, "1").await;
    assert_eq!(document, json!({"errorMessage": "no", "errorType": "Runtime.Mine"}));
    assert!(
        tail(&completed)
            .iter()
            .any(|line| line.ends_with("Phase: invoke\tStatus: error\tError Type: Runtime.Mine"))
    );
    environment.stop().await;
}

pub(crate) async fn a_package_without_a_usable_bootstrap_says_why(world: World) {
    for (name, content, reason) in [
        ("other", "", "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"),
        ("bootstrap", "#!/no/such/interpreter\n", "fork/exec /var/task/bootstrap: no such file or directory"),
        ("bootstrap", "\x7fELF nonsense", "fork/exec /var/task/bootstrap: exec format error"),
    ] {
        let mut environment = world.start(function("x"), &[(name, content)]).await;
        // Nothing runs, and that is no reason for the environment not to answer.
        environment.exited().await;
        let (document, completed) = failure(&mut environment, "1").await;
        assert_eq!(document["errorType"], "Runtime.InvalidEntrypoint", "{}", shown(&completed));
        let message = document["errorMessage"].as_str().expect("text");
        assert!(message.ends_with(&format!(" Error: {reason}")), "{message}");
        environment.stop().await;
    }
    let deployment = world.deploy(function("x"), &[("bootstrap", "#!/bin/sh\n")]);
    let file = deployment.code_dir.join("bootstrap");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).expect("permissions");
    let mut environment = world.host.start(deployment).await.expect("an environment");
    let (document, _) = failure(&mut environment, "1").await;
    assert!(document["errorMessage"].as_str().expect("text").ends_with("permission denied"), "{document}");
}

pub(crate) async fn an_environment_that_dies_idle_gives_the_event_back(world: World) {
    if !can_run() {
        return;
    }
    // Not the moment between the signal and the death: a process that waits in a TCP socket takes what arrives even then,
    // and what it has taken it may have seen.
    for (frozen, noticed) in [(false, true), (true, false)] {
        let mut environment = world.start(function("1"), &[("bootstrap", BOOTSTRAP)]).await;
        for _ in 0..3 {
            assert_eq!(result(&mut environment, "0").await, 1);
        }
        // Long enough for the runtime to have called `next`.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        if frozen {
            environment.freeze();
            // Until it really stands still; a process that has used up its CPU share may get there late.
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        kill_from_outside(&environment);
        if noticed {
            environment.exited().await;
        }
        environment.begin(invocation("1"));
        match environment.complete().await {
            Completion::Undelivered(invocation) => assert_eq!(invocation.payload, "1"),
            Completion::Done(completed) => panic!("{frozen} {noticed} {}", shown(&completed)),
        }
        environment.stop().await;
    }
}
