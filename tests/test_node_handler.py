"""Node functions: Lambda's contract between handler and runtime."""

import json
import re

import pytest
from harness.aws import ACCOUNT, REGION, tail
from harness.zips import make_zip


def test_the_context_object_has_every_attribute(nodelab):
    seen = nodelab.run("""
        const keys = ["functionName", "functionVersion", "invokedFunctionArn", "memoryLimitInMB", "awsRequestId",
                      "logGroupName", "logStreamName", "callbackWaitsForEmptyEventLoop"];
        return { ...Object.fromEntries(keys.map(k => [k, context[k]])), remaining: context.getRemainingTimeInMillis(),
                 identity: context.identity === undefined, client: context.clientContext === undefined };
    """)
    assert seen["functionName"] == "node-lab" and seen["functionVersion"] == "$LATEST"
    assert seen["invokedFunctionArn"] == f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:node-lab"
    assert seen["memoryLimitInMB"] == "256" and seen["logGroupName"] == "/aws/lambda/node-lab"
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", seen["logStreamName"])
    assert seen["callbackWaitsForEmptyEventLoop"] is True
    assert 0 < seen["remaining"] <= 10_000 and seen["identity"] and seen["client"]


def test_the_environment_variables(nodelab, node):
    env = nodelab.run("return process.env")
    assert env["AWS_EXECUTION_ENV"] == f"AWS_Lambda_{node}" and env["_HANDLER"] == "index.handler"
    assert env["LAMBDA_TASK_ROOT"] == "/var/task" and env["AWS_LAMBDA_FUNCTION_NAME"] == "node-lab"
    assert env["_X_AMZN_TRACE_ID"].startswith("Root=1-")
    assert not [name for name in env if name.startswith("MARTLET")]


@pytest.mark.parametrize("files,handler", [
    ({"index.mjs": "export const handler = async (e) => ['esm', e];"}, "index.handler"),
    ({"index.js": "export const handler = async (e) => ['esm', e];", "package.json": '{"type": "module"}'}, "index.handler"),
    ({"index.js": "exports.handler = async (e) => ['cjs', e];"}, "index.handler"),
    ({"index.cjs": "exports.handler = async (e) => ['cjs', e];"}, "index.handler"),
    ({"src/app.mjs": "export const run = async (e) => ['esm', e];"}, "src/app.run"),
    ({"index.js": "exports.a = { b: async (e) => ['nested', e] };"}, "index.a.b"),
    ({"index.js": "module.exports.handler = (e, c, cb) => cb(null, ['callback', e]);"}, "index.handler"),
    ({"index.js": "exports.handler = (e, c) => new Promise(r => setTimeout(() => r(['promise', e]), 5));"}, "index.handler"),
    ({"index.mjs": "const x = await Promise.resolve('top'); export const handler = async (e) => [x, e];"}, "index.handler"),
    ({"index.js": "exports.handler = async (e) => [require('left').name, e];",
      "node_modules/left/index.js": "exports.name = 'module';"}, "index.handler"),
], ids=["mjs", "type-module", "cjs", "dot-cjs", "folder", "nested", "callback", "promise", "top-level-await", "node_modules"])
def test_every_form_of_module_and_handler(deploy, node, files, handler):
    assert deploy(make_zip(files), node, handler).call({"n": 1})[1] == {"n": 1}


def test_context_done_succeed_and_fail(deploy, node):
    code = "exports.handler = (e, c) => { if (e.how === 'fail') c.fail(new TypeError('no')); else if (e.how === 'done') " \
           "c.done(null, 'done'); else c.succeed('succeed'); };"
    function = deploy({"index.js": code}, node)
    assert function.call({"how": "succeed"}) == "succeed" and function.call({"how": "done"}) == "done"
    assert function.fail({"how": "fail"})["errorType"] == "TypeError"


def test_callback_waits_for_an_empty_event_loop(deploy, node):
    function = deploy({"index.js": """
        exports.handler = (event, context, callback) => {
          context.callbackWaitsForEmptyEventLoop = event.waits;
          const began = Date.now();
          setTimeout(() => { globalThis.late = (globalThis.late ?? 0) + 1; }, 400);
          callback(null, { late: globalThis.late ?? 0 });
        };
    """}, node, Timeout=10)
    import time
    began = time.monotonic()
    assert function.call({"waits": True}) == {"late": 0}
    assert time.monotonic() - began >= 0.38, "the answer waits for the timer"
    assert function.call({"waits": False}) == {"late": 1}
    began = time.monotonic()
    function.call({"waits": False})
    assert time.monotonic() - began < 0.38, "the answer does not wait"


def test_a_sync_handler_without_an_answer_gives_null(deploy, node):
    assert deploy({"index.js": "exports.handler = () => {};"}, node).invoke()["Raw"] == b"null"
    assert deploy({"index.js": "exports.handler = async () => {};"}, node).invoke()["Raw"] == b"null"


def test_an_exception(nodelab):
    error = nodelab.run_failing("throw new RangeError('boom')")
    assert error["errorType"] == "RangeError" and error["errorMessage"] == "boom"
    assert error["trace"][0] == "RangeError: boom" and error["trace"][1].startswith("    at ")


@pytest.mark.parametrize("thrown,kind,message", [("'a string'", "string", "a string"), ("7", "number", "7"),
                                                 ("null", "string", "handled")])
def test_things_thrown_that_are_no_errors(nodelab, thrown, kind, message):
    error = nodelab.run_failing(f"throw {thrown}")
    assert error["errorMessage"] == message, error
    assert error["errorType"] in (kind, "Error", "object")


def test_errors_by_callback_and_rejection(deploy, node):
    function = deploy({"index.js": "exports.handler = (e, c, cb) => e.reject ? Promise.reject(new Error('r')) : cb(new Error('c'));"}, node)
    assert function.fail({})["errorMessage"] == "c"
    assert function.fail({"reject": True})["errorMessage"] == "r"


@pytest.mark.parametrize("handler,files,kind,message", [
    ("nope.handler", {"index.js": ""}, "Runtime.ImportModuleError", "Error: Cannot find module 'nope'"),
    ("index.nope", {"index.js": ""}, "Runtime.HandlerNotFound", "index.nope is undefined or not exported"),
    ("index", {"index.js": ""}, "Runtime.MalformedHandlerName", "Bad handler"),
    ("index.handler", {"index.js": "require('not-here')"}, "Runtime.ImportModuleError", "Error: Cannot find module 'not-here'"),
    ("index.handler", {"index.js": "exports.handler = async ( => {"}, "Runtime.UserCodeSyntaxError", "SyntaxError: "),
    ("index.handler", {"index.js": "exports.handler = 7"}, "Runtime.HandlerNotFound", "index.handler is"),
], ids=["module", "handler", "malformed", "require", "syntax", "no-function"])
def test_what_goes_wrong_before_the_handler(deploy, node, handler, files, kind, message):
    error = deploy(make_zip(files), node, handler).fail()
    assert error["errorType"] == kind and error["errorMessage"].startswith(message), error


def test_an_error_at_load_time(deploy, node):
    error = deploy({"index.js": "throw new EvalError('at load')"}, node).fail()
    assert (error["errorType"], error["errorMessage"]) == ("EvalError", "at load")


def test_an_unhandled_rejection_ends_the_environment_and_is_named(deploy, node):
    function = deploy({"index.js": """
        exports.handler = (event, context, callback) => {
          if (event.bad) { Promise.reject(new Error('nobody cares')); setTimeout(() => callback(null, 1), 1000); }
          else callback(null, 'fine');
        };
    """}, node, Timeout=10)
    error = function.fail({"bad": True})
    assert error["errorType"] == "Runtime.UnhandledPromiseRejection" and "nobody cares" in error["errorMessage"]
    assert function.call({}) == "fine"


def test_an_uncaught_exception_in_a_timer(deploy, node):
    function = deploy({"index.js": "exports.handler = (e, c, cb) => { if (e.bad) setTimeout(() => { throw new Error('late'); }, 5); else cb(null, 'fine'); };"},
                      node, Timeout=10)
    assert "late" in function.fail({"bad": True})["errorMessage"]
    assert function.call({}) == "fine"


def test_results_that_json_cannot_hold(nodelab):
    error = nodelab.run_failing("const a = {}; a.a = a; return a;")
    assert error["errorMessage"] == "Unable to stringify response body", "Lambda's own words"
    assert nodelab.run_failing("return 10n")["errorMessage"]
    assert nodelab.run("return undefined") is None


def test_process_exit(nodelab):
    error = nodelab.run_failing("process.exit(5)")
    assert error["errorType"] == "Runtime.ExitError" and "exit status 5" in error["errorMessage"]
    assert nodelab.run("return 1") == 1


def test_console_levels_have_time_request_id_and_level(nodelab):
    response = nodelab.invoke({"code": """
        console.log("one %d", 1); console.info("two"); console.warn("three"); console.error("four", { a: 1 });
        process.stdout.write("five\\n");
    """}, LogType="Tail")
    request_id = response["ResponseMetadata"]["RequestId"]
    lines = tail(response).splitlines()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    for line, level, message in zip(lines[1:5], ("INFO", "INFO", "WARN", "ERROR"), ("one 1", "two", "three", "four { a: 1 }")):
        assert re.fullmatch(rf"{time}\t{request_id}\t{level}\t{re.escape(message)}", line), line
    assert "five" in lines


def test_an_uncaught_error_is_in_the_log(nodelab):
    response = nodelab.invoke({"code": "throw new Error('see the log')"}, LogType="Tail")
    line = next(line for line in tail(response).splitlines() if "Invoke Error" in line)
    assert response["ResponseMetadata"]["RequestId"] in line and "ERROR" in line and '"errorMessage":"see the log"' in line


def test_json_logging(deploy, node):
    function = deploy({"index.js": """
        exports.handler = async () => {
          console.debug("hidden"); console.info("an info"); console.error("failed", new Error("inside"));
          return 1;
        };
    """}, node, LoggingConfig={"LogFormat": "JSON"})
    response = function.invoke(LogType="Tail")
    request_id = response["ResponseMetadata"]["RequestId"]
    records = [json.loads(line) for line in tail(response).splitlines()]
    assert records[0]["type"] == "platform.start" or records[0]["type"] == "platform.initStart"
    info = next(record for record in records if record.get("message") == "an info")
    assert info["level"] == "INFO" and info["requestId"] == request_id and info["timestamp"].endswith("Z")
    failed = next(record for record in records if record.get("level") == "ERROR")
    assert failed["errorMessage"] == "inside" and failed["errorType"] == "Error" and failed["stackTrace"]
    assert not [record for record in records if record.get("message") == "hidden"]


def test_the_client_context_arrives(nodelab):
    import base64
    context = base64.b64encode(json.dumps({"custom": {"k": "v"}}).encode()).decode()
    assert nodelab.run("return context.clientContext", ClientContext=context) in ({"custom": {"k": "v"}}, {"custom": {"k": "v"}, "Custom": {"k": "v"}})


def test_children_and_files(nodelab):
    assert nodelab.run("""
        const { execSync } = require("child_process"); const fs = require("fs");
        fs.writeFileSync("/tmp/x", "y");
        return [execSync("echo child").toString(), fs.readFileSync("/tmp/x", "utf8"), process.cwd()];
    """) == ["child\n", "y", "/var/task"]
