//! The handler contract of the Python bootstrap, on every Python of this machine.

use super::PYTHON_OPTIONS;
use super::harness::{ARN, Answer, Package, REQUEST_ID, Runtime};
use crate::frame::Kind;
use crate::runtimes::Runtimes;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

pub(super) static INTERPRETERS: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    let runtimes = Runtimes::discover(&[]);
    let python = |name: &str| name.starts_with("python");
    runtimes
        .list()
        .iter()
        .filter(|found| python(found.runtime.as_str()))
        .map(|found| found.path.clone())
        .collect()
});

fn start_with(python: &Path, package: &Package, handler: &str, extra: &[(&str, &str)]) -> Runtime {
    let bootstrap = concat!(env!("CARGO_MANIFEST_DIR"), "/../../runtimes/python/bootstrap.py");
    let mut command = vec![python.to_str().unwrap()];
    command.extend(PYTHON_OPTIONS);
    command.push(bootstrap);
    Runtime::start(&command, package, handler, extra)
}

/// Runs `test` once for each interpreter.
fn on_each(code: &str, test: impl Fn(Runtime)) {
    on_each_with(code, &[], test);
}

fn on_each_with(code: &str, extra: &[(&str, &str)], test: impl Fn(Runtime)) {
    let package = Package::new(&[("app.py", code)]);
    for python in INTERPRETERS.iter() {
        test(start_with(python, &package, "app.handler", extra).ready());
    }
}

/// Runs a function whose init code fails: the error document and the log.
fn init_failure(files: &[(&str, &str)], handler: &str) -> Vec<(Value, Vec<String>)> {
    let package = Package::new(files);
    let fail = |python: &PathBuf| {
        let mut runtime = start_with(python, &package, handler, &[]);
        let frame = runtime.receive().expect("an error frame");
        assert_eq!((frame.kind, frame.sequence), (Kind::InitError, 0));
        let document: Value = serde_json::from_slice(&frame.payload).unwrap();
        let meta: Value = serde_json::from_slice(&frame.meta).unwrap();
        assert_eq!(meta["errorType"], document["errorType"]);
        let (status, log) = runtime.finish();
        assert_eq!(status.code(), Some(1));
        (document, log)
    };
    INTERPRETERS.iter().map(fail).collect()
}

fn result(answer: &Answer) -> Value {
    assert_eq!(answer.kind, Kind::Response, "{}", answer.text());
    answer.json()
}

fn error(answer: &Answer) -> Value {
    assert_eq!(answer.kind, Kind::Error, "{}", answer.text());
    let document = answer.json();
    assert_eq!(answer.meta["errorType"], document["errorType"]);
    document
}

#[test]
fn the_context_has_every_attribute() {
    let code = r#"
import os
def handler(event, context):
    left = context.get_remaining_time_in_millis()
    assert 0 < left <= 3000 and isinstance(left, int)
    client = context.client_context
    return {
        "names": [context.aws_request_id, context.log_group_name, context.log_stream_name, context.function_name,
                  context.memory_limit_in_mb, context.function_version, context.invoked_function_arn],
        "tenant": context.tenant_id,
        "identity": [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id],
        "client": client and [client.custom, client.env, client.client and client.client.app_title],
        "w3c": context.w3c(), "trace": os.environ["_X_AMZN_TRACE_ID"],
        "shown": repr(context).startswith("LambdaContext([aws_request_id="),
        "fd": "_LAMBDA_TELEMETRY_LOG_FD" in os.environ, "event": event,
    }
"#;
    on_each(code, |mut runtime| {
        let seen = result(&runtime.invoke(r#"{"k":"ü"}"#));
        assert_eq!(
            seen["names"],
            json!([REQUEST_ID, "/aws/lambda/hello", "2026/01/01/[$LATEST]0", "hello", "128", "$LATEST", ARN])
        );
        assert_eq!((&seen["tenant"], &seen["client"]), (&Value::Null, &Value::Null));
        assert_eq!(seen["identity"], json!([null, null]));
        assert_eq!(seen["trace"], "Root=1-0-0");
        assert_eq!((&seen["shown"], &seen["fd"]), (&json!(true), &json!(false)));
        assert_eq!(seen["event"], json!({"k": "ü"}));

        let client = r#"{"custom":{"a":1},"env":{"b":2},"client":{"app_title":"t"},"w3c":{"traceparent":"00-1","x":"y"}}"#;
        runtime.send(b"{}", Some(client));
        let seen = result(&runtime.answer().unwrap());
        assert_eq!(seen["client"], json!([{"a": 1}, {"b": 2}, "t"]));
        assert_eq!(seen["w3c"], json!({"traceparent": "00-1"}));

        runtime.send(b"{}", Some("{"));
        assert_eq!(error(&runtime.answer().unwrap())["errorType"], "Runtime.LambdaContextUnmarshalError");
        assert!(runtime.finish().0.success());
    });
}

#[test]
fn errors_have_lambdas_shape_and_are_logged_whole() {
    let code = r#"
class Odd(Exception):
    pass
def inner(event):
    raise ValueError("wrong: %s" % event)
def handler(event, context):
    if event == "silent":
        raise Odd()
    inner(event)
"#;
    on_each(code, |mut runtime| {
        let document = error(&runtime.invoke("7"));
        assert_eq!(document["errorMessage"], "wrong: 7");
        assert_eq!(document["errorType"], "ValueError");
        assert_eq!(document["requestId"], REQUEST_ID);
        let trace = document["stackTrace"].as_array().unwrap();
        assert_eq!(trace.len(), 2, "{trace:?}");
        assert!(
            trace[0].as_str().unwrap().ends_with("app.py\", line 9, in handler\n    inner(event)\n"),
            "{trace:?}"
        );
        assert!(trace[1].as_str().unwrap().contains("line 5, in inner\n    raise ValueError("), "{trace:?}");
        assert_eq!(error(&runtime.invoke("\"silent\""))["errorType"], "Odd");
        let (_, log) = runtime.finish();
        assert_eq!(log.len(), 2, "{log:?}");
        let lines: Vec<&str> = log[0].lines().collect();
        assert_eq!(lines[..2], ["[ERROR] ValueError: wrong: 7", "Traceback (most recent call last):"]);
        assert!(lines[2].starts_with("\u{a0}\u{a0}File \""), "{lines:?}");
        assert_eq!(lines[3], "\u{a0}\u{a0}\u{a0}\u{a0}inner(event)");
        assert!(log[1].starts_with("[ERROR] Odd\nTraceback"), "{log:?}");
    });
}

#[test]
fn init_failures_have_their_own_types() {
    let failures = |files: &[(&str, &str)], handler: &str| {
        let mut all = init_failure(files, handler);
        let (first, log) = all.remove(0);
        for (other, _) in all {
            assert_eq!(other["errorType"], first["errorType"]);
        }
        (first, log)
    };
    let (missing, log) = failures(&[("app.py", "import nothing_of_that_name")], "app.handler");
    assert_eq!(missing["errorType"], "Runtime.ImportModuleError");
    assert_eq!(
        missing["errorMessage"],
        "Unable to import module 'app': No module named 'nothing_of_that_name'"
    );
    assert_eq!((&missing["requestId"], &missing["stackTrace"]), (&json!(""), &json!([])));
    assert!(
        log[0].starts_with("[ERROR] Runtime.ImportModuleError: Unable to import module 'app'"),
        "{log:?}"
    );

    let (syntax, _) = failures(&[("app.py", "def handler(:\n  pass")], "app.handler");
    assert_eq!(syntax["errorType"], "Runtime.UserCodeSyntaxError");
    assert!(syntax["errorMessage"].as_str().unwrap().starts_with("Syntax error in module 'app': "));
    assert!(syntax["stackTrace"][0].as_str().unwrap().contains("Line 1\n    def handler(:"));

    let (absent, _) = failures(&[("app.py", "")], "app.handler");
    assert_eq!(absent["errorType"], "Runtime.HandlerNotFound");
    assert_eq!(absent["errorMessage"], "Handler 'handler' missing on module 'app'");

    let (malformed, _) = failures(&[("app.py", "")], "app");
    assert_eq!(malformed["errorType"], "Runtime.MalformedHandlerName");
    assert_eq!(
        malformed["errorMessage"],
        "Bad handler 'app': not enough values to unpack (expected 2, got 1)"
    );

    let (builtin, _) = failures(&[("app.py", "")], "sys.exit");
    assert_eq!(builtin["errorType"], "Runtime.BuiltInModuleConflict");

    let (raised, _) = failures(&[("app.py", "def f():\n    raise KeyError('x')\nf()")], "app.handler");
    assert_eq!((&raised["errorType"], &raised["errorMessage"]), (&json!("KeyError"), &json!("'x'")));
    let trace = raised["stackTrace"].as_array().unwrap();
    assert!(trace.last().unwrap().as_str().unwrap().contains("line 2, in f"), "{trace:?}");
    assert!(!trace[0].as_str().unwrap().contains("bootstrap.py"), "{trace:?}");
}

#[test]
fn results_are_written_as_lambda_writes_them() {
    let code = r#"
import collections, decimal, math
Point = collections.namedtuple("Point", "x y")
RESULTS = {
    "decimal": {"n": decimal.Decimal("1.10"), "e": decimal.Decimal("1E+2"), "big": [decimal.Decimal("12345678901234567890.5")]},
    "named": [Point(1, {"p": Point(2, 3)})],
    "bytes": {"a": b"text", b"key": 1},
    "raw": b"\x00\xffraw",
    "umlaut": "\u00fc\u20ac",
    "none": None,
    "keys": {1: "a", None: "b", True: "c", 1.5: "d"},
    "tuple": (1, (2,)),
    "nan": decimal.Decimal("NaN"),
    "set": {1},
    "object": object(),
    "cycle": [],
    "tuple_key": {(1, 2): 3},
    "surrogate": "\ud800",
    "coroutine": None,
}
RESULTS["cycle"].append(RESULTS["cycle"])
def handler(event, context):
    return RESULTS[event]
"#;
    let package = Package::new(&[("app.py", code)]);
    for python in INTERPRETERS.iter() {
        let mut runtime = start_with(python, &package, "app.handler", &[]).ready();
        let mut text = |name: &str| runtime.invoke(&json!(name).to_string()).text().to_owned();
        assert_eq!(text("decimal"), r#"{"n": 1.10, "e": 1E+2, "big": [12345678901234567890.5]}"#);
        assert_eq!(text("named"), r#"[{"x": 1, "y": {"p": {"x": 2, "y": 3}}}]"#);
        assert_eq!(text("bytes"), r#"{"a": "text", "key": 1}"#);
        assert_eq!(text("none"), "null");
        assert_eq!(text("keys"), r#"{"1": "c", "null": "b", "1.5": "d"}"#);
        assert_eq!(text("tuple"), "[1, [2]]");
        assert_eq!(text("nan"), "NaN");
        let umlaut = text("umlaut");
        assert!(umlaut == "\"ü€\"" || umlaut == r#""\u00fc\u20ac""#, "{umlaut}");
        assert_eq!(runtime.invoke("\"raw\"").payload, b"\x00\xffraw");
        for (name, reason) in [
            ("set", "Object of type set is not JSON serializable"),
            ("object", "Object of type object is not JSON serializable"),
            ("cycle", "Circular reference detected"),
            ("tuple_key", "keys must be str, int, float, bool or None, not tuple"),
        ] {
            let document = error(&runtime.invoke(&json!(name).to_string()));
            assert_eq!(document["errorType"], "Runtime.MarshalError");
            assert_eq!(document["errorMessage"], format!("Unable to marshal response: {reason}"));
        }
        let odd = runtime.invoke("\"surrogate\"");
        assert!(odd.kind == Kind::Error || odd.text() == r#""\ud800""#, "{odd:?}");
        assert_eq!(error(&runtime.invoke("{\"broken\""))["errorType"], "Runtime.UnmarshalError");
        assert!(runtime.finish().0.success());
    }
}

#[test]
fn large_events_and_results_pass_and_too_large_ones_are_told() {
    let code =
        "def handler(event, context):\n    return 'y' * event if isinstance(event, int) else len(event)";
    on_each(code, |mut runtime| {
        let event = format!("\"{}\"", "x".repeat(5_000_000));
        assert_eq!(result(&runtime.invoke(&event)), 5_000_000);
        let limit = 6 * 1024 * 1024 + 100;
        assert_eq!(runtime.invoke(&(limit - 2).to_string()).payload.len(), limit);
        let answer = runtime.invoke(&(limit - 1).to_string());
        assert_eq!((answer.kind, answer.payload.len()), (Kind::TooLarge, 0));
        assert_eq!(runtime.invoke("1").text(), "\"y\"");
    });
}

#[test]
fn print_logging_and_the_platform_keep_their_order() {
    let code = r#"
import sys
print("at import")
import logging
logger = logging.getLogger()
def handler(event, context):
    print("first")
    logger.warning("second\nand more")
    logger.info("not shown")
    sys.stdout.write("third")
    logger.error("fourth %s", 4)
    print("fifth", file=sys.stderr)
    context.log("sixth")
    try:
        1 / 0
    except ZeroDivisionError:
        logger.exception("seventh")
"#;
    on_each(code, |mut runtime| {
        result(&runtime.invoke("{}"));
        let (_, log) = runtime.finish();
        let stamped = |record: &str, level: &str, text: &str| {
            let parts: Vec<&str> = record.splitn(4, '\t').collect();
            assert_eq!((parts[0], parts[2], parts[3]), (level, REQUEST_ID, text));
            assert_eq!((parts[1].len(), &parts[1][23..]), (24, "Z"), "{record}");
        };
        assert_eq!(log.len(), 8, "{log:?}");
        assert_eq!((log[0].as_str(), log[1].as_str()), ("at import", "first"));
        stamped(&log[2], "[WARNING]", "second\nand more");
        assert_eq!(log[3], "third");
        stamped(&log[4], "[ERROR]", "fourth 4");
        assert_eq!((log[5].as_str(), log[6].as_str()), ("fifth", "sixth"));
        assert!(log[7].contains("seventh\nTraceback (most recent call last):\n"), "{log:?}");
        assert!(log[7].ends_with("ZeroDivisionError: division by zero"), "{log:?}");
    });
}

#[test]
fn json_logging_filters_by_level_and_names_the_request() {
    let code = r#"
import logging
logger = logging.getLogger("mine")
logger.info("before")
def handler(event, context):
    logger.debug("no")
    logger.info("yes %d", 1, extra={"who": "me"})
    logger.warning({"deep": [1]})
    try:
        {}["k"]
    except KeyError:
        logger.exception("failed")
    raise RuntimeError("end")
"#;
    let extra = [("AWS_LAMBDA_LOG_FORMAT", "JSON"), ("AWS_LAMBDA_LOG_LEVEL", "INFO")];
    on_each_with(code, &extra, |mut runtime| {
        error(&runtime.invoke("{}"));
        let (_, log) = runtime.finish();
        let records: Vec<Value> = log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len(), 5, "{log:?}");
        assert_eq!((&records[0]["message"], &records[0]["requestId"]), (&json!("before"), &json!("")));
        assert_eq!(records[1]["message"], "yes 1");
        assert_eq!((&records[1]["who"], &records[1]["logger"]), (&json!("me"), &json!("mine")));
        assert_eq!((&records[1]["level"], &records[1]["requestId"]), (&json!("INFO"), &json!(REQUEST_ID)));
        assert_eq!(records[2]["message"], json!({"deep": [1]}));
        assert_eq!(
            (&records[3]["errorType"], &records[3]["errorMessage"]),
            (&json!("KeyError"), &json!("'k'"))
        );
        assert!(
            records[3]["stackTrace"].is_array()
                && records[3]["location"].as_str().unwrap().contains(":handler:")
        );
        assert_eq!(
            (&records[4]["level"], &records[4]["errorType"]),
            (&json!("ERROR"), &json!("RuntimeError"))
        );
        assert_eq!(records[4]["requestId"], REQUEST_ID);
        assert_eq!(records[4]["timestamp"].as_str().unwrap().len(), 20);
    });
}

#[test]
fn exits_end_the_process_with_their_status() {
    let code = r#"
import os, sys
def handler(event, context):
    if event == "exit": sys.exit(7)
    if event == "builtin": exit(3)
    if event == "hard": os._exit(9)
"#;
    for (event, status) in [("exit", 7), ("builtin", 3), ("hard", 9)] {
        on_each(code, |mut runtime| {
            runtime.send(json!(event).to_string().as_bytes(), None);
            assert!(runtime.answer().is_none());
            assert_eq!(runtime.finish().0.code(), Some(status), "{event}");
        });
    }
}

#[test]
fn the_import_path_is_lambdas_and_the_standard_library_keeps_its_names() {
    let files = [
        (
            "pkg/sub/app.py",
            "import sys, string, helper\ndef handler(e, c):\n  return [sys.path[:4], string.digits, helper.X, 'logging' in sys.modules]",
        ),
        ("helper.py", "X = 1"),
        ("string.py", "raise SystemExit('shadowed')"),
        ("traceback.py", "raise SystemExit('shadowed')"),
    ];
    let package = Package::new(&files);
    for python in INTERPRETERS.iter() {
        let mut runtime = start_with(python, &package, "pkg/sub/app.handler", &[]).ready();
        let seen = result(&runtime.invoke("{}"));
        let path = seen[0].as_array().unwrap();
        assert_eq!(path[0], package.path().to_str().unwrap());
        assert!(path[1].as_str().unwrap().starts_with("/opt/python/lib/python3."), "{path:?}");
        assert_eq!(path[2], "/opt/python");
        assert_eq!((&seen[1], &seen[2]), (&json!("0123456789"), &json!(1)));
        assert_eq!(seen[3], false, "logging is imported before anybody asks for it");
        assert_eq!(error(&runtime.invoke("{"))["errorType"], "Runtime.UnmarshalError");
        assert!(runtime.finish().0.success());
    }
}

#[test]
fn a_python_path_of_the_functions_own_is_honoured() {
    let files = [
        ("app.py", "import extra\ndef handler(e, c):\n  return [extra.X, extra.HOOKED]"),
        ("lib/extra.py", "X = 1\nHOOKED = False"),
        ("lib/sitecustomize.py", "import extra\nextra.HOOKED = True"),
    ];
    let package = Package::new(&files);
    let path = package.path().join("lib");
    for python in INTERPRETERS.iter() {
        let extra = [("PYTHONPATH", path.to_str().unwrap())];
        let mut runtime = start_with(python, &package, "app.handler", &extra).ready();
        assert_eq!(result(&runtime.invoke("{}")), json!([1, true]));
        assert!(runtime.finish().0.success());
    }
}
