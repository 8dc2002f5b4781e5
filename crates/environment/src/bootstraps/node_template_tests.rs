//! The Node bootstrap as a template, on every Node of this machine.

use super::harness::Package;
use super::node_options;
use super::node_tests::INTERPRETERS;
use super::park_harness::{Template, all_differ, failing_hooks_are_told, value};
use crate::frame::Kind;
use serde_json::{Value, json};
use std::path::Path;

fn start(node: &Path, package: &Package, extra: &[(&str, &str)]) -> Template {
    let options = node_options(512, "", true);
    let mut command = vec![node.to_str().unwrap()];
    command.extend(options.iter().map(String::as_str));
    Template::start(&command, true, package, extra)
}

/// Starts a template of `files` on each interpreter.
fn on_each(files: &[(&str, &str)], test: impl Fn(Template)) {
    let package = Package::new(files);
    for node in INTERPRETERS.iter() {
        test(start(node, &package, &[]));
    }
}

#[test]
fn children_answer_for_themselves() {
    let code = "
let count = 0;
exports.handler = async (event, context) => {
  console.log('said by', event);
  return [event, ++count, process.env.STREAM, '_MARTLET_TEMPLATE' in process.env, context.logStreamName];
};
";
    on_each(&[("app.js", code)], |template| {
        let template = template.parked();
        let mut one = template.child(&[("STREAM", "one"), ("AWS_LAMBDA_LOG_STREAM_NAME", "a")]);
        let mut two = template.child(&[("STREAM", "two"), ("AWS_LAMBDA_LOG_STREAM_NAME", "b")]);
        assert_eq!(value(&mut one, "1"), json!([1, 1, "one", false, "a"]));
        assert_eq!(value(&mut one, "2"), json!([2, 2, "one", false, "a"]));
        assert_eq!(value(&mut two, "3"), json!([3, 1, "two", false, "b"]));
        assert_eq!(one.finish_forked().len(), 2);
        assert!(two.finish_forked().concat().contains("said by 3"));
    });
}

#[test]
fn nothing_random_is_the_same_in_two_children() {
    let code = "
const crypto = require('crypto');
const { random } = Math;
const { randomUUID, randomInt } = crypto;
random(), randomUUID(), randomInt(2 ** 40), crypto.randomBytes(8), crypto.webcrypto.randomUUID();
exports.handler = async () => [
  random(), Math.random(), randomUUID(), crypto.randomUUID(), crypto.randomUUID({ disableEntropyCache: false }),
  randomInt(2 ** 47), crypto.randomBytes(8).toString('hex'), crypto.webcrypto.randomUUID(),
  (await import('crypto')).randomUUID(), crypto.webcrypto.getRandomValues(new Uint32Array(2)).join(),
  globalThis.crypto ? globalThis.crypto.randomUUID() : random(),
];
";
    on_each(&[("app.js", code)], |template| {
        let template = template.parked();
        let values: Vec<Value> = (0..3).map(|_| value(&mut template.child(&[]), "0")).collect();
        all_differ(&values);
    });
}

#[test]
fn the_replaced_generator_is_uniform_and_uuids_keep_their_form() {
    let code = "
const { randomUUID } = require('crypto');
exports.handler = async () => {
  const bins = new Array(64).fill(0);
  let low = 0;
  for (let i = 0; i < 640000; i++) {
    const x = Math.random();
    if (!(x >= 0 && x < 1)) throw new Error(String(x));
    bins[Math.floor(x * 64)]++;
    if ((x * 2 ** 53) % 2) low++;
  }
  const chi = bins.reduce((sum, count) => sum + (count - 10000) ** 2 / 10000, 0);
  const form = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
  return [chi, low / 640000, form.test(randomUUID()), form.test(randomUUID({})), Math.random.name, Math.random.length];
};
";
    on_each(&[("app.js", code)], |template| {
        let found = value(&mut template.parked().child(&[]), "0");
        // 63 degrees of freedom: a true generator is beyond this once in a hundred million.
        assert!(found[0].as_f64().unwrap() < 140.0, "{found}");
        assert!((found[1].as_f64().unwrap() - 0.5).abs() < 0.01, "{found}");
        assert_eq!(
            (&found[2], &found[3], &found[4], &found[5]),
            (&json!(true), &json!(true), &json!("random"), &json!(0))
        );
    });
}

#[test]
fn hooks_run_around_the_fork_in_their_order() {
    let code = "
const calls = [];
martlet.beforeSnapshot(() => calls.push('before 1'));
martlet.beforeSnapshot(async () => { await null; calls.push('before 2'); });
martlet.afterRestore(async () => { await new Promise((r) => setTimeout(r, 1)); calls.push('after 1'); });
martlet.afterRestore(() => calls.push('after 2 ' + process.env.NAME));
exports.handler = async () => calls;
";
    on_each(&[("app.js", code)], |template| {
        let mut child = template.parked().child(&[("NAME", "here")]);
        assert_eq!(value(&mut child, "0"), json!(["before 2", "before 1", "after 1", "after 2 here"]));
    });
}

#[test]
fn hooks_that_fail_are_told() {
    let code = "
const fail = async () => { throw new RangeError('not like this'); };
if (process.env.WHEN === 'before') martlet.beforeSnapshot(fail); else martlet.afterRestore(fail);
exports.handler = async () => 1;
";
    let package = Package::new(&[("app.js", code)]);
    for node in INTERPRETERS.iter() {
        failing_hooks_are_told(|when| start(node, &package, &[("WHEN", when)]), "RangeError");
    }
}

#[test]
fn what_a_fork_would_break_is_said_and_served_all_the_same() {
    let cases = [
        (
            "const w = new (require('worker_threads').Worker)('setInterval(() => {}, 1000)', { eval: true });",
            "threads",
        ),
        ("require('net').createServer().listen(0, '127.0.0.1').unref();", "socket"),
        (
            "const c = require('child_process').spawn('sleep', ['60'], { stdio: 'ignore' }); c.unref(); process.on('exit', () => c.kill());",
            "processes",
        ),
        ("require('fs').openSync(process.env.LAMBDA_TASK_ROOT + '/app.js');", "left something open"),
        ("require('crypto').pbkdf2('a', 'b', 3e6, 64, 'sha512', () => {});", "requests"),
    ];
    for (code, reason) in cases {
        let code = format!("{code}\nexports.handler = async (event) => event;\n");
        on_each(&[("app.js", &code)], |mut template| {
            template.serves_unforked(reason);
        });
    }
}

#[test]
fn requests_that_end_soon_are_waited_for() {
    let code = "
let size;
require('fs').stat('/', () => { size = 1; });
require('crypto').pbkdf2('a', 'b', 1000, 64, 'sha512', () => { size += 1; });
exports.handler = async (event) => size;
";
    on_each(&[("app.js", code)], |template| {
        assert_eq!(value(&mut template.parked().child(&[]), "0"), json!(2));
    });
}

/// V8 keeps what it maps from being copied to children, and may map more at any moment before the fork.
#[test]
fn what_is_allocated_just_before_the_fork_is_there_in_a_child() {
    let code = "
const fs = require('fs');
const { readFileSync } = fs;
let kept = [];
fs.readFileSync = (path, ...more) => {
  if (/task.*stat$/.test(path) && kept.length < 1e6) for (let i = 0; i < 2e5; i++) kept.push({ i });
  return readFileSync(path, ...more);
};
exports.handler = async () => [kept.length >= 2e5, kept.every(({ i }) => i >= 0)];
";
    on_each(&[("app.js", code)], |template| {
        assert_eq!(value(&mut template.parked().child(&[]), "0"), json!([true, true]));
    });
}

#[test]
fn what_a_function_uses_works_in_a_child() {
    let code = "
const { promisify } = require('util');
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
exports.handler = async () => {
  const found = {};
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setTimeout(resolve, 5));
  found.file = (await fs.promises.readFile(__filename)).length > 0;
  found.dns = (await require('dns').promises.lookup('localhost')).address.length > 0;
  found.key = (await promisify(crypto.pbkdf2)('a', 'b', 1000, 32, 'sha256')).length;
  const zlib = require('zlib');
  found.zip = (await promisify(zlib.gunzip)(await promisify(zlib.gzip)('text'))).toString();
  found.shell = require('child_process').execSync('echo out').toString();
  found.spawned = await new Promise((resolve) => require('child_process').exec('echo more', (e, out) => resolve(out)));
  const server = http.createServer((request, response) => response.end('hi'));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  found.http = await new Promise((resolve) => http.get({ port: server.address().port, agent: false }, (response) => {
    response.on('data', (data) => resolve(data.toString()));
  }));
  if (globalThis.fetch) found.http = await (await fetch(`http://127.0.0.1:${server.address().port}/`)).text();
  server.close();
  const { Worker } = require('worker_threads');
  const worker = new Worker('require(\"worker_threads\").parentPort.postMessage(1)', { eval: true });
  found.worker = await new Promise((resolve) => worker.on('message', resolve));
  await WebAssembly.compile(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]));
  let kept = [];
  for (let i = 0; i < 1e6; i++) { kept.push({ i, s: 'x' + i }); if (kept.length > 1e5) kept = []; }
  found.pid = process.pid === Number(fs.readlinkSync('/proc/self'));
  found.lo = 'lo' in require('os').networkInterfaces();
  return found;
};
";
    on_each(&[("app.js", code)], |template| {
        let found = value(&mut template.parked().child(&[]), "0");
        let expected = json!({"file": true, "dns": true, "key": 32, "zip": "text", "shell": "out\n", "spawned": "more\n",
            "http": "hi", "worker": 1, "pid": true, "lo": true});
        assert_eq!(found, expected);
    });
}

#[test]
fn the_end_of_the_event_loop_is_noticed_after_a_collection() {
    let code = "
exports.handler = (event, context, callback) => {
  let kept = [];
  for (let i = 0; i < 3e6; i++) { kept.push({ i, s: 'x' + i }); if (kept.length > 2e5) kept = []; }
  if (event === 1) return;
  setTimeout(() => { kept = 'later'; }, 5);
  callback(null, { toJSON: () => kept });
};
";
    on_each(&[("app.js", code)], |template| {
        let template = template.parked();
        let mut child = template.child(&[]);
        assert_eq!(value(&mut child, "0"), json!("later"));
        assert_eq!(value(&mut child, "1"), json!(null));
        assert_eq!(value(&mut child, "2"), json!("later"));
    });
}

#[test]
fn workers_of_a_child_end() {
    let code = r#"
const { Worker } = require('worker_threads');
const busy = 'let kept = []; for (let i = 0; i < 3e6; i++) { kept.push({ i }); if (kept.length > 2e5) kept = []; }';
const work = `${busy} setTimeout(() => require('worker_threads').parentPort.postMessage(1), 20); process.exitCode = 4;`;
exports.handler = async () => {
  const worker = new Worker(work, { eval: true });
  const heard = new Promise((resolve) => worker.on('message', resolve));
  const ended = new Promise((resolve) => worker.on('exit', resolve));
  const idle = new Worker("require('worker_threads').parentPort.on('message', () => {});" + busy, { eval: true });
  await new Promise((resolve) => setTimeout(resolve, 50));
  return [await heard, await ended, await idle.terminate()];
};
"#;
    on_each(&[("app.js", code)], |template| {
        assert_eq!(value(&mut template.parked().child(&[]), "0"), json!([1, 4, 1]));
    });
}

#[test]
fn every_way_out_of_a_child_ends_it() {
    let ways = [
        "process.exit(3)",
        "setTimeout(() => process.exit(), 1)",
        "process.reallyExit(3)",
        "process.abort()",
        "setTimeout(() => { throw new Error('late'); }, 1)",
        "process.removeAllListeners('uncaughtException'); setTimeout(() => { throw new Error('late'); }, 1)",
        "Promise.reject(new Error('lost'))",
        "process.removeAllListeners('beforeExit')",
        "process.removeAllListeners('beforeExit'); process.removeAllListeners('exit')",
        "process.kill(process.pid, 'SIGTERM')",
    ];
    for way in ways {
        let code = format!(
            "exports.handler = (event, context, callback) => {{ if (event === 1) {{ {way}; }} else callback(null, 0); }};"
        );
        on_each(&[("app.js", &code)], |template| {
            let template = template.parked();
            let mut child = template.child(&[]);
            assert_eq!(value(&mut child, "0"), json!(0));
            child.send(b"1", None);
            // An error may come first; then the socket ends with the process, or the receiving fails the test.
            while let Some(frame) = child.receive() {
                assert_eq!(frame.kind, Kind::Error, "{way}");
            }
            child.finish_forked();
        });
    }
}

#[test]
fn exit_listeners_of_a_child_run() {
    let code = "
exports.handler = (event) => {
  process.on('exit', (code) => console.log('left with', code));
  process.exitCode = 7;
  process.exit();
};
";
    on_each(&[("app.js", code)], |template| {
        let template = template.parked();
        let mut child = template.child(&[]);
        child.send(b"1", None);
        assert!(child.receive().is_none());
        assert!(child.finish_forked().concat().contains("left with 7"));
    });
}

#[test]
fn children_outlive_their_template() {
    on_each(&[("app.js", "exports.handler = async (event) => [event, process.pid];")], |template| {
        template.parked().be_outlived();
    });
}

/// Prints how long a fork takes, as the server sees it:
/// `cargo test -p martlet-environment --release -- --ignored --nocapture node_fork_latency`
#[test]
#[ignore = "a measurement"]
fn node_fork_latency() {
    on_each(&[("app.js", "exports.handler = async (event) => event;")], |template| {
        template.parked().print_latency();
    });
}
