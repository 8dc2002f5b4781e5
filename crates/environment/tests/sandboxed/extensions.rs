//! Extensions beside runtimes and inside of them, played by scripts that speak the API with nothing but a socket.

use crate::world::{Function, World, failure, invocation, result, tail};
use martlet_environment::{Completion, Deployment, Environment, StartMode};
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An extension whose behaviour is a Python program, with `call`, `register` and `next` to be used.
fn extension(program: &str) -> String {
    format!("#!/usr/bin/python3\n{CLIENT}\n{program}\n")
}

const CLIENT: &str = r#"
import http.client, json, os, sys, time
sys.stdout.reconfigure(line_buffering=True)
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
me = {}
def call(method, path, body=None, headers={}):
    api.request(method, "/2020-01-01/extension/" + path, body, {**me, **headers})
    response = api.getresponse()
    return response, response.read().decode()
def register(events, name=os.path.basename(sys.argv[0]), **headers):
    response, body = call("POST", "register", json.dumps({"events": events}), {"Lambda-Extension-Name": name, **headers})
    if response.status == 200:
        me["Lambda-Extension-Identifier"] = response.headers["Lambda-Extension-Identifier"]
    return response.status, json.loads(body)
def next():
    response, body = call("GET", "event/next")
    return json.loads(body)
"#;

/// Writes what it is told into its log, and leaves a file behind.
const WITNESS: &str = r#"
print("registered", register(["INVOKE", "SHUTDOWN"], **{"Lambda-Extension-Accept-Feature": "accountId"}))
print("sees", sorted(name for name in os.environ if name in ("_HANDLER", "AWS_LAMBDA_LOG_STREAM_NAME", "MINE", "AWS_REGION")))
while True:
    event = next()
    left = event.pop("deadlineMs") / 1000 - time.time()
    print("told", json.dumps(event), 0 < left <= 10)
    if event["eventType"] == "SHUTDOWN":
        print("ended in time", left > 1)
        break
    time.sleep(0.3)
    open("/tmp/done-" + event["requestId"], "w")
"#;

const HANDLER: &str = "
import os
def handler(event, context):
    return sorted(name for name in os.listdir('/tmp') if name.startswith('done'))
";

fn can_run(world: &World) -> Option<Function> {
    let runtime = world.runtime("python")?;
    std::path::Path::new("/usr/bin/python3").exists().then(|| Function::new(&runtime))
}

async fn start(world: &World, function: Function, handler: &str, opt: &[(&str, &str)]) -> Environment {
    let deployment = world.deploy_with(function, &[("app.py", handler)], opt);
    world.host.start(deployment).await.expect("an environment")
}

pub(crate) async fn an_external_one_is_told_and_waited_for(world: World) {
    let Some(function) = can_run(&world) else { return };
    let mut function = function;
    function.environment.insert("MINE".into(), "1".into());
    let witness = extension(WITNESS);
    let deployment = world.deploy_with(function, &[("app.py", HANDLER)], &[("extensions/witness", &witness)]);
    assert_eq!(
        world.host.start_mode(&deployment),
        StartMode::Ordinary("it has an extension with a process of its own (witness)".into())
    );
    let mut environment = world.host.start(deployment).await.expect("an environment");
    let mut done = Vec::new();
    for _ in 0..3 {
        let event = invocation("1");
        let id = event.request_id.to_string();
        let begun = Instant::now();
        environment.begin(event);
        let Completion::Done(completed) = environment.complete().await else { panic!("it was delivered") };
        // It ran at the same time as the handler, and the environment is busy until it is done.
        assert!(begun.elapsed() >= Duration::from_millis(300));
        assert!(completed.reusable);
        let seen: serde_json::Value = serde_json::from_slice(&completed.payload).expect("JSON");
        assert_eq!(seen, json!(done));
        done.push(format!("done-{id}"));
        done.sort();
        environment.freeze();
    }
    let stopped = Instant::now();
    environment.stop().await;
    assert!(stopped.elapsed() < Duration::from_millis(1900), "it ended by itself");

    let log = world.log().await;
    let at = |text: &str| {
        log.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text} in {log:#?}"))
    };
    assert!(log[at("registered")].contains("'functionName': 'under-test'"), "{log:#?}");
    assert!(log[at("registered")].contains("'accountId': '000000000000'"), "{log:#?}");
    at("sees ['AWS_REGION', 'MINE']");
    assert!(at("EXTENSION\tName: witness\tState: Ready\tEvents: [INVOKE,SHUTDOWN]") < at("START RequestId"));
    assert_eq!(log.iter().filter(|line| line.contains(r#"told {"eventType": "INVOKE""#)).count(), 3);
    at(r#""invokedFunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:under-test"} True"#);
    at(r#"told {"eventType": "SHUTDOWN", "shutdownReason": "SPINDOWN"} True"#);
    at("ended in time True");
}

pub(crate) async fn one_that_crashes_fails_the_invocation(world: World) {
    let Some(function) = can_run(&world) else { return };
    let crash = extension("register(['INVOKE'])\nnext()\nos._exit(3)");
    let mut environment = start(&world, function, HANDLER, &[("extensions/crash", &crash)]).await;
    let (document, completed) = failure(&mut environment, "1").await;
    assert_eq!(document["errorType"], "Extension.Crash");
    assert!(document["errorMessage"].as_str().expect("text").ends_with("Error: exit status 3"));
    assert!(!completed.reusable);
    assert!(tail(&completed).iter().any(|line| line.ends_with("Status: error\tError Type: Extension.Crash")));
    environment.stop().await;
}

pub(crate) async fn one_that_cannot_start_fails_the_init_phase(world: World) {
    if can_run(&world).is_none() {
        return;
    }
    let says = "register(['INVOKE'])\ncall('POST', 'init/error', '{}', {'Lambda-Extension-Function-Error-Type': 'Extension.Mine'})\ntime.sleep(60)";
    for (text, error_type) in [
        (extension(says), "Extension.InitError"),
        (extension(&says.replace("init/error", "exit/error")), "Extension.ExitError"),
        (extension("sys.exit(1)"), "Extension.Crash"),
        ("#!/no/such/interpreter".to_owned(), "Extension.LaunchError"),
    ] {
        let world = world.another();
        let function = can_run(&world).expect("a runtime");
        let mut environment = start(&world, function, HANDLER, &[("extensions/broken", &text)]).await;
        let (document, completed) = failure(&mut environment, "1").await;
        assert_eq!(document["errorType"], error_type, "{document}");
        assert!(!completed.reusable);
        environment.stop().await;
        let log = world.log().await;
        let reports: Vec<_> = log.iter().filter(|line| line.starts_with("INIT_REPORT")).collect();
        assert_eq!(reports.len(), 2, "{log:#?}");
        assert!(reports[0].ends_with(&format!("Phase: init\tStatus: error\tError Type: {error_type}")));
    }
}

pub(crate) async fn an_internal_one_is_told_and_the_runtime_may_end_in_peace(world: World) {
    let Some(function) = can_run(&world) else { return };
    let handler = format!(
        "{CLIENT}\nimport signal, threading\n{}",
        r#"
print("refused", register(["SHUTDOWN"], "inside")[1]["errorType"])
print("registered", register(["INVOKE"], "inside")[0])
print("twice", register(["INVOKE"], "inside")[1]["errorType"])
told = []
def listen():
    while True:
        told.append(next()["eventType"])
threading.Thread(target=listen, daemon=True).start()
def end(*_):
    print("asked to end")
    time.sleep(0.2)
    print("ended in peace")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
def handler(event, context):
    return len(told)
"#
    );
    let mut environment = start(&world, function, &handler, &[]).await;
    result(&mut environment, "1").await;
    let stopped = Instant::now();
    environment.stop().await;
    assert!(stopped.elapsed() < Duration::from_millis(480), "{:?}", stopped.elapsed());
    let log = world.log().await;
    for line in [
        "refused Extension.InvalidEventType",
        "registered 200",
        "twice Extension.InvalidExtensionState",
        "EXTENSION\tName: inside\tState: Ready\tEvents: [INVOKE]",
        "asked to end",
        "ended in peace",
    ] {
        assert!(log.iter().any(|seen| seen == line), "{line} in {log:#?}");
    }
}

pub(crate) async fn a_time_out_is_told_as_the_reason(world: World) {
    let Some(function) = can_run(&world) else { return };
    let function = Function { timeout_seconds: 1, ..function };
    let witness = extension(&WITNESS.replace("time.sleep(0.3)", "time.sleep(30)"));
    let mut environment = start(&world, function, HANDLER, &[("extensions/witness", &witness)]).await;
    let (document, completed) = failure(&mut environment, "1").await;
    assert_eq!(document["errorType"], "Sandbox.Timedout");
    assert!(!completed.reusable);
    let stopped = Instant::now();
    environment.stop().await;
    let took = stopped.elapsed();
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_secs(4), "{took:?}");
}

/// A runtime in Python that answers with what it is sent.
const BOOTSTRAP: &str = r#"
def runtime(method, path, body=None):
    api.request(method, "/2018-06-01/runtime/" + path, body)
    response = api.getresponse()
    return response, response.read()
while True:
    response, body = runtime("GET", "invocation/next")
    runtime("POST", "invocation/%s/response" % response.headers["Lambda-Runtime-Aws-Request-Id"], body)
"#;

pub(crate) async fn provided_runtimes_have_them_too(world: World) {
    if can_run(&world).is_none() {
        return;
    }
    let (bootstrap, witness) = (extension(BOOTSTRAP), extension(WITNESS));
    let opt = [("extensions/one", witness.as_str()), ("extensions/two", witness.as_str())];
    let function = Function::new("provided.al2023");
    let deployment = world.deploy_with(function, &[("bootstrap", &bootstrap)], &opt);
    let mut environment = world.host.start(deployment).await.expect("an environment");
    for run in 0..2 {
        assert_eq!(result(&mut environment, run.to_string()).await, run);
    }
    environment.stop().await;
    let log = world.log().await;
    assert_eq!(log.iter().filter(|line| line.contains(r#"told {"eventType": "INVOKE""#)).count(), 4);
    assert_eq!(log.iter().filter(|line| line.contains("ended in time True")).count(), 2, "{log:#?}");
}

/// Subscribes, and holds each invocation until it has been told that the runtime is done with it.
const SUBSCRIBER: &str = r#"
import http.server, socket, threading
seen, news = [], threading.Condition()
def take(events):
    with news:
        seen.extend(events)
        news.notify_all()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        take(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
def lines(listener):
    stream, _ = listener.accept()
    for line in stream.makefile():
        take([json.loads(line)])
register(["INVOKE", "SHUTDOWN"])
types = ["platform", "function", "extension"]
if TCP:
    listener = socket.create_server(("sandbox.localdomain", 4243))
    threading.Thread(target=lines, args=(listener,), daemon=True).start()
    asked = {"schemaVersion": "2020-08-15", "destination": {"protocol": "TCP", "port": 4243}, "types": types}
    path = "/2020-08-15/logs"
else:
    server = http.server.HTTPServer(("sandbox.localdomain", 4243), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asked = {"schemaVersion": "2022-12-13", "destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain:4243"}, "types": types}
    path = "/2022-07-01/telemetry"
asked["buffering"] = {"timeoutMs": 25, "maxBytes": 262144, "maxItems": 1000}
def subscribe():
    api.request("PUT", path, json.dumps(asked), me)
    response = api.getresponse()
    return response.status, response.read().decode()
print("subscribed", subscribe())
while True:
    event = next()
    if event["eventType"] == "SHUTDOWN":
        break
    def done():
        return any(e["type"] == "platform.runtimeDone" and e["record"]["requestId"] == event["requestId"] for e in seen)
    with news:
        assert news.wait_for(done, 5), seen
    print("late", subscribe()[0])
with news:
    assert news.wait_for(lambda: sum(e["type"] == "platform.report" for e in seen) == 2, 1), seen
for kind in sorted({e["type"] for e in seen}):
    print("seen", kind, sum(e["type"] == kind for e in seen))
print("first", json.dumps(seen[0]))
print("function", [e["record"] for e in seen if e["type"] == "function"])
print("done", [e["record"]["status"] for e in seen if e["type"] == "platform.runtimeDone"])
"#;

pub(crate) async fn telemetry_comes_by_http_and_by_tcp(world: World) {
    let Some(runtime) = can_run(&world).map(|function| function.runtime) else { return };
    for tcp in [false, true] {
        let world = world.another();
        let flag = if tcp { "TCP = True" } else { "TCP = False" };
        let subscriber = extension(&format!("{flag}\n{SUBSCRIBER}"));
        let handler = "def handler(event, context):\n    print('hello', event)\n    return 1 / event\n";
        let function = Function::new(&runtime);
        let mut environment = start(&world, function, handler, &[("extensions/sub", &subscriber)]).await;
        assert_eq!(result(&mut environment, "1").await, 1.0);
        environment.freeze();
        failure(&mut environment, "0").await;
        environment.stop().await;
        let log = world.log().await;
        let has = |line: &str| assert!(log.iter().any(|seen| seen == line), "{line} in {log:#?}");
        has(r#"subscribed (200, '"OK"')"#);
        has("late 403");
        has("seen platform.start 2");
        has("seen platform.report 2");
        has("seen platform.runtimeDone 2");
        has("seen platform.extension 1");
        assert!(log.iter().any(|line| line.starts_with("function ['hello 1', 'hello 0'")), "{log:#?}");
        if tcp {
            has("LOGS\tName: sub\tState: Subscribed\tTypes: [Platform, Function, Extension]");
            has("seen platform.end 2");
            has("seen platform.logsSubscription 1");
        } else {
            has("TELEMETRY\tName: sub\tState: Subscribed\tTypes: [Platform, Function, Extension]");
            has("done ['success', 'error']");
            has("seen platform.initRuntimeDone 1");
            has("seen platform.initReport 1");
            assert!(
                log.iter().any(|line| line.starts_with("first {") && line.contains("platform.initStart"))
            );
        }
    }
}

/// Extensions that others wrote, as they are published. Fetching and building them takes minutes, so it is done elsewhere:
/// `MARTLET_TEST_EXTENSIONS` names a directory with `web-adapter` (the program of the crate `lambda_web_adapter`), `otel` (what
/// `@serverless/aws-lambda-otel-extension-dist` has in `extension.zip`) and `sigterm` (the package `lambda-sigterm` installed
/// with what it needs).
pub(crate) async fn those_that_others_wrote_run_unmodified(world: World) {
    let Some(place) = std::env::var_os("MARTLET_TEST_EXTENSIONS").map(std::path::PathBuf::from) else {
        return;
    };
    let Some(python) = world.pythons().pop() else { return };
    a_web_server_behind_the_adapter(&world.another(), &place.join("web-adapter"), &python).await;
    one_that_subscribes_to_logs(&world.another(), &place.join("otel"), &python).await;
    one_inside_python(&world.another(), &place.join("sigterm"), &python).await;
}

fn laid_at_opt(deployment: &Deployment, opt_dir: std::path::PathBuf) -> Arc<Deployment> {
    Arc::new(Deployment { opt_dir: Some(opt_dir), ..deployment.clone() })
}

/// A web server that knows nothing of Lambda, started in place of the interpreter: the adapter is its runtime.
async fn a_web_server_behind_the_adapter(world: &World, opt: &Path, python: &str) {
    let mut function = Function { memory_mb: 512, ..Function::new(python) };
    let wrapper = "serve.sh";
    function.environment.insert("AWS_LAMBDA_EXEC_WRAPPER".into(), format!("/var/task/{wrapper}"));
    function.environment.insert("AWS_LWA_PORT".into(), "8080".into());
    let server = "import http.server\nclass H(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        self.send_response(200)\n        self.end_headers()\n        self.wfile.write(b'served ' + self.path.encode())\nhttp.server.HTTPServer(('127.0.0.1', 8080), H).serve_forever()\n";
    let script = "#!/bin/sh\nexec /usr/bin/python3 /var/task/server.py\n";
    let deployment = world.deploy(function, &[("server.py", server), ("serve.sh", script)]);
    std::fs::set_permissions(deployment.code_dir.join(wrapper), std::fs::Permissions::from_mode(0o755))
        .expect("permissions");
    let mut environment =
        world.host.start(laid_at_opt(&deployment, opt.to_owned())).await.expect("an environment");
    for path in ["/one", "/two"] {
        let event = json!({
            "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "headers": {"host": "x"},
            "requestContext": {"accountId": "0", "apiId": "a", "domainName": "x", "domainPrefix": "x", "requestId": "r",
                "http": {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "t"},
                "routeKey": "$default", "stage": "$default", "time": "01/Jan/2026:00:00:00 +0000", "timeEpoch": 0},
            "isBase64Encoded": false,
        });
        let answer = result(&mut environment, event.to_string()).await;
        assert_eq!((&answer["statusCode"], &answer["body"]), (&json!(200), &json!(format!("served {path}"))));
        environment.freeze();
    }
    environment.stop().await;
    println!("lambda_web_adapter runs");
}

async fn one_that_subscribes_to_logs(world: &World, opt: &Path, python: &str) {
    let mut function = Function { memory_mb: 512, ..Function::new(python) };
    // It would wait for what its own layer inside the function sends.
    function.environment.insert("DO_NOT_WAIT".into(), "1".into());
    let deployment =
        world.deploy(function, &[("app.py", "def handler(event, context):\n    return event\n")]);
    let mut environment =
        world.host.start(laid_at_opt(&deployment, opt.to_owned())).await.expect("an environment");
    for event in 0..2 {
        assert_eq!(result(&mut environment, event.to_string()).await, event);
        environment.freeze();
    }
    environment.stop().await;
    let log = world.log().await;
    for line in
        ["EXTENSION\tName: otel-extension\tState: Ready", "LOGS\tName: otel-extension\tState: Subscribed"]
    {
        assert!(log.iter().any(|seen| seen.starts_with(line)), "{line} in {log:#?}");
    }
    println!("aws-lambda-otel-extension runs");
}

async fn one_inside_python(world: &World, packages: &Path, python: &str) {
    let mut function = Function::new(python);
    function.environment.insert("PYTHONPATH".into(), "/opt".into());
    let handler = "import lambda_sigterm, signal, sys\nlambda_sigterm.register()\ndef end(*_):\n    print('ended in peace')\n    sys.exit(0)\nsignal.signal(signal.SIGTERM, end)\ndef handler(event, context):\n    return event\n";
    let deployment = world.deploy(function, &[("app.py", handler)]);
    let mut environment =
        world.host.start(laid_at_opt(&deployment, packages.to_owned())).await.expect("an environment");
    assert_eq!(result(&mut environment, "1").await, 1);
    environment.stop().await;
    let log = world.log().await;
    for line in ["EXTENSION\tName: lambda-sigterm\tState: Ready\tEvents: []", "ended in peace"] {
        assert!(log.iter().any(|seen| seen.contains(line)), "{line} in {log:#?}");
    }
    println!("lambda-sigterm runs");
}
