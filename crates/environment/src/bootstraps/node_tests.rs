//! The handler contract of the Node bootstrap, on every Node of this machine.

use super::harness::{ARN, Answer, Package, REQUEST_ID, Runtime};
use crate::frame::Kind;
use crate::runtimes::Runtimes;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

pub(super) static INTERPRETERS: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    // Several versions side by side: name the directories that hold a `node` each, separated as in PATH.
    let extra = std::env::var_os("MARTLET_TEST_NODES");
    let extra: Vec<PathBuf> = extra.iter().flat_map(std::env::split_paths).collect();
    let runtimes = Runtimes::discover(&extra);
    let node = |name: &str| name.starts_with("nodejs");
    runtimes
        .list()
        .iter()
        .filter(|found| node(found.runtime.as_str()))
        .map(|found| found.path.clone())
        .collect()
});

pub(super) fn start_with(node: &Path, package: &Package, handler: &str, extra: &[(&str, &str)]) -> Runtime {
    let bootstrap = concat!(env!("CARGO_MANIFEST_DIR"), "/../../runtimes/nodejs/bootstrap.cjs");
    Runtime::start(&[node.to_str().unwrap(), bootstrap], package, handler, extra)
}

/// Runs `test` once for each interpreter.
pub(super) fn on_each(files: &[(&str, &str)], handler: &str, extra: &[(&str, &str)], test: impl Fn(Runtime)) {
    let package = Package::new(files);
    for node in INTERPRETERS.iter() {
        test(start_with(node, &package, handler, extra).ready());
    }
}

/// Runs a function whose init code fails: the error document, the exit status and the log.
fn init_failure(files: &[(&str, &str)], handler: &str) -> Option<(Value, Option<i32>, Vec<String>)> {
    let package = Package::new(files);
    let mut outcome = None;
    for node in INTERPRETERS.iter() {
        let mut runtime = start_with(node, &package, handler, &[]);
        let frame = runtime.receive().expect("an error frame");
        assert_eq!((frame.kind, frame.sequence), (Kind::InitError, 0));
        let document: Value = serde_json::from_slice(&frame.payload).unwrap();
        let (status, log) = runtime.finish();
        outcome = Some((document, status.code(), log));
    }
    outcome
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
    let code = "
exports.handler = async (event, context) => {
  const left = context.getRemainingTimeInMillis();
  return {
    names: [context.awsRequestId, context.logGroupName, context.logStreamName, context.functionName,
      context.memoryLimitInMB, context.functionVersion, context.invokedFunctionArn],
    left: left > 0 && left <= 3000, trace: process.env._X_AMZN_TRACE_ID, client: context.clientContext,
    identity: context.identity === undefined, fd: process.env._LAMBDA_TELEMETRY_LOG_FD === undefined,
    waits: context.callbackWaitsForEmptyEventLoop, event,
    methods: [typeof context.done, typeof context.succeed, typeof context.fail],
  };
};";
    on_each(&[("app.js", code)], "app.handler", &[], |mut runtime| {
        let seen = result(&runtime.invoke(r#"{"k":"ü€"}"#));
        let names =
            json!([REQUEST_ID, "/aws/lambda/hello", "2026/01/01/[$LATEST]0", "hello", "128", "$LATEST", ARN]);
        assert_eq!(seen["names"], names);
        for flag in ["left", "identity", "fd", "waits"] {
            assert_eq!(seen[flag], true, "{flag}");
        }
        assert_eq!((&seen["trace"], &seen["event"]), (&json!("Root=1-0-0"), &json!({"k": "ü€"})));
        assert_eq!(seen["methods"], json!(["function", "function", "function"]));
        runtime.send(b"{}", Some(r#"{"custom":{"a":1}}"#));
        assert_eq!(result(&runtime.answer().unwrap())["client"], json!({"custom": {"a": 1}}));
        assert!(runtime.finish().0.success());
    });
}

#[test]
fn results_come_by_promise_by_callback_by_context_or_not_at_all() {
    let code = "
exports.handler = (event, context, callback) => {
  switch (event) {
    case 'promise': return Promise.resolve({ a: 1 });
    case 'thenable': return { then(resolve) { setTimeout(() => resolve('t'), 5); } };
    case 'callback': setTimeout(() => callback(null, 'c'), 5); return;
    case 'at once': callback(null, 'now'); return;
    case 'twice': callback(null, 'first'); callback(null, 'second'); context.fail('third'); return;
    case 'succeed': context.succeed('s'); return;
    case 'done': context.done(null, 'd'); return;
    case 'fail': context.fail(new RangeError('f')); return;
    case 'fail with nothing': context.fail(); return;
    case 'callback error': callback(new TypeError('ce')); return;
    case 'callback text': callback('just text'); return;
    case 'undefined': return Promise.resolve(undefined);
    case 'function': return Promise.resolve(() => 1);
    case 'sync': return 5;
    case 'never': setTimeout(() => {}, 20); return;
    case 'never async': return new Promise(() => {});
  }
};";
    on_each(&[("app.js", code)], "app.handler", &[], |mut runtime| {
        let mut run = |event: &str| runtime.invoke(&json!(event).to_string());
        for (event, expected) in [
            ("promise", json!({"a": 1})),
            ("thenable", json!("t")),
            ("callback", json!("c")),
            ("at once", json!("now")),
            ("twice", json!("first")),
            ("succeed", json!("s")),
            ("done", json!("d")),
            ("undefined", Value::Null),
            ("function", Value::Null),
            ("sync", Value::Null),
            ("never", Value::Null),
            ("never async", Value::Null),
        ] {
            assert_eq!(result(&run(event)), expected, "{event}");
        }
        let failed = error(&run("fail"));
        assert_eq!((&failed["errorType"], &failed["errorMessage"]), (&json!("RangeError"), &json!("f")));
        assert!(failed["trace"][0].as_str().unwrap().starts_with("RangeError: f"));
        assert_eq!(error(&run("fail with nothing"))["errorMessage"], "handled");
        assert_eq!(error(&run("callback error"))["errorType"], "TypeError");
        let text = error(&run("callback text"));
        assert_eq!((&text["errorType"], &text["trace"]), (&json!("string"), &json!([])));
        assert!(runtime.finish().0.success());
    });
}

#[test]
fn a_callback_waits_for_the_event_loop_if_it_is_told_to() {
    let code = "
let late = 0;
exports.handler = (event, context, callback) => {
  context.callbackWaitsForEmptyEventLoop = event;
  const seen = late;
  setTimeout(() => { late++; }, 50);
  callback(null, { seen, get late() { return late; } });
};";
    on_each(&[("app.js", code)], "app.handler", &[], |mut runtime| {
        assert_eq!(result(&runtime.invoke("true")), json!({"seen": 0, "late": 1}));
        // This one leaves its timer behind; it goes off while the next event is handled.
        assert_eq!(result(&runtime.invoke("false")), json!({"seen": 1, "late": 1}));
        std::thread::sleep(std::time::Duration::from_millis(60));
        let next = result(&runtime.invoke("true"));
        assert_eq!(next["late"], 3, "{next}");
    });
}

#[test]
fn errors_are_described_and_logged_with_the_request() {
    let code = "
class Odd extends Error { constructor() { super('odd'); this.name = 'Odd'; this.code = 7; this.extra = { a: [1] }; } }
exports.handler = async (event) => {
  if (event === 'odd') throw new Odd();
  if (event === 'text') throw 'text';
  if (event === 'big') return 1n;
  if (event === 'cycle') { const a = {}; a.a = a; return a; }
  return 1;
};";
    on_each(&[("app.js", code)], "app.handler", &[], |mut runtime| {
        let odd = error(&runtime.invoke("\"odd\""));
        assert_eq!((&odd["errorType"], &odd["errorMessage"]), (&json!("Odd"), &json!("odd")));
        assert!(odd["trace"].as_array().unwrap().len() > 1);
        assert_eq!(error(&runtime.invoke("\"text\""))["errorMessage"], "text");
        for event in ["\"big\"", "\"cycle\""] {
            let document = error(&runtime.invoke(event));
            assert_eq!(document["errorMessage"], "Unable to stringify response body");
            assert_eq!(document["errorType"], "Error");
        }
        assert_eq!(error(&runtime.invoke("{\"broken\""))["errorType"], "SyntaxError");
        assert_eq!(result(&runtime.invoke("1")), 1);
        let (_, log) = runtime.finish();
        let parts: Vec<&str> = log[0].splitn(4, '\t').collect();
        assert_eq!((parts[1], parts[2]), (REQUEST_ID, "ERROR"));
        assert!(parts[0].ends_with('Z') && parts[0].len() == 24, "{log:?}");
        let (title, fields) = parts[3].split_once(" \t").unwrap();
        assert_eq!(title, "Invoke Error");
        let fields: Value = serde_json::from_str(fields).unwrap();
        assert_eq!((&fields["errorType"], &fields["code"]), (&json!("Odd"), &json!(7)));
        assert_eq!((&fields["extra"], fields["stack"].is_array()), (&json!({"a": [1]}), true));
    });
}

#[test]
fn what_nobody_catches_answers_the_event_and_ends_the_process() {
    let code = "
exports.handler = async (event) => {
  if (event === 'throw') { setTimeout(() => { throw new Error('late'); }, 5); await new Promise(() => setTimeout(() => {}, 1000)); }
  if (event === 'reject') { Promise.reject(new Error('unseen')); await new Promise((done) => setTimeout(done, 1000)); }
  if (event === 'exit') process.exit(4);
};";
    for (event, error_type, status, line) in [
        ("throw", "Error", 129, "Uncaught Exception \t"),
        ("reject", "Runtime.UnhandledPromiseRejection", 128, "Unhandled Promise Rejection \t"),
    ] {
        on_each(&[("app.js", code)], "app.handler", &[], |mut runtime| {
            let answer = runtime.invoke(&json!(event).to_string());
            let document = error(&answer);
            assert_eq!(document["errorType"], error_type);
            assert_eq!(answer.meta["fatal"], true);
            let (ended, log) = runtime.finish();
            assert_eq!(ended.code(), Some(status));
            assert!(log[0].contains(line) && log[0].contains(REQUEST_ID), "{log:?}");
        });
    }
    on_each(&[("app.js", code)], "app.handler", &[], |mut runtime| {
        runtime.send(b"\"exit\"", None);
        assert!(runtime.answer().is_none());
        assert_eq!(runtime.finish().0.code(), Some(4));
    });
}

#[test]
fn handlers_are_found_in_modules_of_every_kind() {
    let cjs =
        "exports.handler = async () => 'cjs'; exports.deep = { inner: { handler: async () => 'deep' } };";
    let esm = "export const handler = async () => 'esm'; export default { x: async () => 'default' };";
    let package = r#"{"type":"module"}"#;
    for (files, handler, expected) in [
        (vec![("app.js", cjs)], "app.handler", "cjs"),
        (vec![("app.js", cjs)], "app.deep.inner.handler", "deep"),
        (vec![("app.cjs", cjs)], "app.handler", "cjs"),
        (vec![("src/lib/app.js", cjs)], "src/lib/app.handler", "cjs"),
        (vec![("app.mjs", esm)], "app.handler", "esm"),
        (vec![("app.mjs", esm)], "app.default.x", "default"),
        (vec![("app.js", esm), ("package.json", package)], "app.handler", "esm"),
        (vec![("src/app.js", esm), ("package.json", package)], "src/app.handler", "esm"),
        (
            vec![("src/app.js", cjs), ("src/package.json", "{}"), ("package.json", package)],
            "src/app.handler",
            "cjs",
        ),
        (vec![("app/index.js", cjs)], "app/index.handler", "cjs"),
        (vec![("node_modules/dep/index.js", cjs)], "dep.handler", "cjs"),
        (
            vec![(
                "app.mjs",
                "const v = await Promise.resolve('awaited'); export const handler = async () => v;",
            )],
            "app.handler",
            "awaited",
        ),
    ] {
        on_each(&files, handler, &[], |mut runtime| {
            assert_eq!(result(&runtime.invoke("{}")), expected, "{handler} {files:?}");
        });
    }
}

#[test]
fn init_failures_have_their_own_types() {
    let Some((missing, status, log)) =
        init_failure(&[("app.js", "require('nothing-of-that-name')")], "app.handler")
    else {
        return;
    };
    assert_eq!(missing["errorType"], "Runtime.ImportModuleError");
    let message = missing["errorMessage"].as_str().unwrap();
    assert!(
        message.starts_with("Error: Cannot find module 'nothing-of-that-name'\nRequire stack:\n"),
        "{message}"
    );
    assert!(
        missing["trace"][0].as_str().unwrap().starts_with("Runtime.ImportModuleError: Error: "),
        "{missing}"
    );
    assert_eq!(status, Some(129));
    assert!(
        log[0].contains(
            "\tundefined\tERROR\tUncaught Exception \t{\"errorType\":\"Runtime.ImportModuleError\""
        )
    );

    let document = |files: &[(&str, &str)], handler: &str| init_failure(files, handler).unwrap().0;
    let syntax = document(&[("app.js", "exports.handler = (")], "app.handler");
    assert_eq!(syntax["errorType"], "Runtime.UserCodeSyntaxError");
    assert!(syntax["errorMessage"].as_str().unwrap().starts_with("SyntaxError: "), "{syntax}");
    let absent = document(&[("app.js", "")], "app.handler");
    assert_eq!(absent["errorType"], "Runtime.HandlerNotFound");
    assert_eq!(absent["errorMessage"], "app.handler is undefined or not exported");
    let wrong = document(&[("app.js", "exports.handler = 5")], "app.handler");
    assert_eq!(wrong["errorMessage"], "app.handler is not a function");
    for malformed in ["app", "../app.handler", ""] {
        let document = document(&[("app.js", "")], malformed);
        assert_eq!(document["errorType"], "Runtime.MalformedHandlerName", "{malformed}");
    }
    assert_eq!(document(&[], "app.handler")["errorType"], "Runtime.ImportModuleError");
    let thrown = document(&[("app.js", "throw new RangeError('at import')")], "app.handler");
    assert_eq!((&thrown["errorType"], &thrown["errorMessage"]), (&json!("RangeError"), &json!("at import")));
    let streaming = "exports.handler = () => {}; exports.handler[Symbol.for('aws.lambda.runtime.handler.streaming')] = 'x'";
    let refused = document(&[("app.js", streaming)], "app.handler");
    assert_eq!(refused["errorType"], "Runtime.MalformedStreamingHandler");
}

#[test]
fn the_console_writes_records_and_stdout_stays_raw() {
    let code = "
console.log('at import');
exports.handler = async () => {
  console.log('first %s\\nline', 1, { a: 1 });
  process.stdout.write('raw\\nunfinished');
  console.error(new Error('shown').message);
  console.debug('d'); console.trace('t'); console.warn('w'); console.fatal('f');
  process.stderr.write('e\\n');
  process.stdout.write('x'.repeat(200000) + '\\n');
};";
    on_each(&[("app.js", code)], "app.handler", &[], |mut runtime| {
        result(&runtime.invoke("{}"));
        let (_, log) = runtime.finish();
        let field = |index: usize, number: usize| log[index].splitn(4, '\t').nth(number).unwrap_or_default();
        assert_eq!((field(0, 1), field(0, 2), field(0, 3)), ("undefined", "INFO", "at import"));
        assert_eq!((field(1, 1), field(1, 3)), (REQUEST_ID, "first 1\nline { a: 1 }"));
        assert_eq!((log[2].as_str(), log[3].as_str()), ("raw", "unfinished"));
        let levels: Vec<&str> = (4..9).map(|index| field(index, 2)).collect();
        assert_eq!(levels, ["ERROR", "DEBUG", "TRACE", "WARN", "FATAL"]);
        assert_eq!((log[9].as_str(), log[10].len()), ("e", 200_000));
    });
}

#[test]
fn json_logging_filters_by_level_and_names_the_request() {
    let code = "
exports.handler = async () => {
  console.debug('no');
  console.info('yes %d', 1, 'more');
  console.warn({ deep: [1] });
  console.error('failed', new RangeError('r'));
  const a = {}; a.a = a; console.log(a);
  throw new TypeError('end');
};";
    let extra = [("AWS_LAMBDA_LOG_FORMAT", "JSON"), ("AWS_LAMBDA_LOG_LEVEL", "INFO")];
    on_each(&[("app.js", code)], "app.handler", &extra, |mut runtime| {
        error(&runtime.invoke("{}"));
        let (_, log) = runtime.finish();
        let records: Vec<Value> = log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len(), 5, "{log:?}");
        assert!(records.iter().all(|record| record["requestId"] == REQUEST_ID));
        assert_eq!((&records[0]["message"], &records[0]["level"]), (&json!("yes 1 more"), &json!("INFO")));
        assert_eq!(records[1]["message"], json!({"deep": [1]}));
        assert_eq!(
            (&records[2]["errorType"], &records[2]["errorMessage"]),
            (&json!("RangeError"), &json!("r"))
        );
        assert!(records[2]["message"].as_str().unwrap().starts_with("failed RangeError: r"));
        assert!(records[3]["message"].as_str().unwrap().contains("[Circular"));
        assert_eq!(records[4]["message"]["errorType"], "TypeError");
        assert!(records[4]["message"]["stackTrace"].is_array());
    });
}

#[test]
fn large_events_and_results_pass_and_too_large_ones_are_told() {
    let code =
        "exports.handler = async (event) => (typeof event === 'string' ? event.length : 'y'.repeat(event));";
    on_each(&[("app.js", code)], "app.handler", &[], |mut runtime| {
        assert_eq!(result(&runtime.invoke(&format!("\"{}\"", "x".repeat(5_000_000)))), 5_000_000);
        let limit = 6 * 1024 * 1024 + 100;
        assert_eq!(runtime.invoke(&(limit - 2).to_string()).payload.len(), limit);
        let answer = runtime.invoke(&(limit - 1).to_string());
        assert_eq!((answer.kind, answer.payload.len()), (Kind::TooLarge, 0));
        assert_eq!(runtime.invoke("1").text(), "\"y\"");
    });
}
