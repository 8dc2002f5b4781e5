"""Custom runtimes: any executable named bootstrap, and the official clients, unmodified."""

import base64
import json
import re
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import aws, lab
from harness.aws import Raw, function_path, tail
from harness.paths import EXAMPLES, NODE_MODULES, build_example, tool
from harness.waiting import until
from harness.zips import make_zip

RUNTIME = "provided.al2023"
SHELL = (EXAMPLES / "shell" / "bootstrap").read_text()


@pytest.fixture
def shell(deploy):
    if not tool("bash"):
        pytest.skip("no bash on this machine")
    return deploy({"bootstrap": SHELL}, RUNTIME, "x.y")


def test_a_bootstrap_in_bash(shell):
    for number in range(3):
        response = shell.invoke({"n": number}, LogType="Tail")
        assert response["Answer"] == {"message": "Hello from bash", "event": {"n": number}}
        assert "shell got 8 bytes\n" in tail(response)


def test_both_names_of_the_runtime(deploy):
    for name in ("provided.al2", "provided.al2023"):
        assert deploy({"bootstrap": SHELL}, name, "x.y").call(1)["event"] == 1


def test_error_posted_by_the_runtime(deploy):
    function = deploy({"bootstrap": SHELL, "f.sh": "handler() { return 1; }\n"}, RUNTIME, "f.handler")
    response = function.invoke({})
    assert response["FunctionError"] == "Unhandled"
    assert response["Answer"] == {"errorType": "Runtime.HandlerFailed", "errorMessage": "the handler failed"}


def test_no_bootstrap_or_one_that_cannot_run(deploy):
    for files in ({"other": "x"}, {"bootstrap": "#!/no/such/interpreter\n"}, {"bootstrap": b"\x7fELF nonsense"}):
        error = deploy(files, RUNTIME, "x").fail({})
        assert error["errorType"] in ("Runtime.InvalidEntrypoint", "Runtime.ExitError"), error


def test_a_bootstrap_that_is_not_executable(deploy):
    error = deploy(make_zip({"bootstrap": SHELL}, executable=()), RUNTIME, "x").fail({})
    assert error["errorType"] == "Runtime.InvalidEntrypoint", error


def test_a_bootstrap_that_ends_at_once(deploy):
    error = deploy({"bootstrap": "#!/bin/sh\nexit 7\n"}, RUNTIME, "x").fail({})
    assert error["errorType"] == "Runtime.ExitError" and "exit status 7" in error["errorMessage"]


# A client of the Runtime API that does what the event asks for and tells what it was answered.
PROBE = f"""#!{sys.executable if sys.executable.startswith('/usr') else '/usr/bin/python3'}
import http.client, json, os, time
api = os.environ["AWS_LAMBDA_RUNTIME_API"]
base = "/2018-06-01/runtime"

def call(method, path, body=None, headers={{}}):
    c = http.client.HTTPConnection(api, timeout=30)
    c.request(method, base + path, body, headers)
    r = c.getresponse()
    return r.status, {{k.lower(): v for k, v in r.getheaders()}}, r.read().decode()

while True:
    status, headers, body = call("GET", "/invocation/next")
    event, rid = json.loads(body), headers["lambda-runtime-aws-request-id"]
    time.sleep(event.get("seconds", 0))
    found = {{"headers": headers, "env": dict(os.environ)}}
    for step in event.get("steps", []):
        path = step["path"].replace("ID", rid)
        found.setdefault("answers", []).append(call(step.get("method", "POST"), path, step.get("body"), step.get("headers", {{}}))[::2])
    if event.get("error"):
        call("POST", f"/invocation/{{rid}}/error", json.dumps(event["error"]), event.get("headers", {{}}))
    elif not event.get("answered"):
        call("POST", f"/invocation/{{rid}}/response", json.dumps(found))
"""


@pytest.fixture
def probe(deploy):
    if not Path("/usr/bin/python3").exists():
        pytest.skip("the probe needs /usr/bin/python3")
    return deploy({"bootstrap": PROBE}, RUNTIME, "some.handler", Timeout=10)


def test_what_next_tells(probe, lam):
    context = base64.b64encode(b'{"custom":{"k":"v"}}').decode()
    response = probe.invoke({}, ClientContext=context)
    headers = response["Answer"]["headers"]
    assert headers["lambda-runtime-aws-request-id"] == response["ResponseMetadata"]["RequestId"]
    assert re.fullmatch(r"\d{13}", headers["lambda-runtime-deadline-ms"])
    arn = lam.get_function_configuration(FunctionName=probe.name)["FunctionArn"]
    assert headers["lambda-runtime-invoked-function-arn"] == arn
    assert headers["lambda-runtime-trace-id"].startswith("Root=1-")
    assert json.loads(headers["lambda-runtime-client-context"]) == {"custom": {"k": "v"}}
    assert headers["content-type"] == "application/json"
    assert headers["lambda-runtime-invocation-id"]


def test_its_environment(probe):
    env = probe.call({})["env"]
    assert env["_HANDLER"] == "some.handler" and env["LAMBDA_TASK_ROOT"] == "/var/task"
    assert re.fullmatch(r"127\.0\.0\.1:\d+|localhost:\d+", env["AWS_LAMBDA_RUNTIME_API"])
    assert env["AWS_LAMBDA_FUNCTION_NAME"] == probe.name
    assert "AWS_EXECUTION_ENV" not in env or env["AWS_EXECUTION_ENV"].startswith("AWS_Lambda")


def test_the_states_of_the_runtime_api(probe):
    answers = probe.call({"steps": [
        {"path": "/invocation/wrong-id/response", "body": "1"},
        {"path": "/invocation/wrong-id/error", "body": "{}"},
        {"path": "/init/error", "body": '{"errorType": "X.Y", "errorMessage": "late"}'},
        {"path": "/nothing", "body": "x"},
        {"path": "/restore/next", "method": "GET"},
    ]})["answers"]
    assert answers[0][0] == 400 and json.loads(answers[0][1])["errorType"] == "InvalidRequestID"
    assert answers[1][0] == 400
    assert answers[2][0] == 403 and json.loads(answers[2][1])["errorType"] == "InvalidStateTransition"
    assert answers[3][0] == 404
    assert answers[4][0] in (403, 404)


def test_two_answers_to_one_request(probe):
    response = probe.invoke({"answered": True, "steps": [{"path": "/invocation/ID/response", "body": '"first"'},
                                                         {"path": "/invocation/ID/response", "body": '"second"'}]})
    assert response["Answer"] == "first"
    assert "headers" in probe.call({}), "and the environment goes on"


def test_error_types_that_a_runtime_may_name(probe):
    for kind, expected in (("Function.MyError", "Function.MyError"), ("nonsense here", "MyClass")):
        error = probe.fail({"error": {"errorType": "MyClass", "errorMessage": "m", "stackTrace": ["a"]},
                            "headers": {"Lambda-Runtime-Function-Error-Type": kind}})
        assert error["errorMessage"] == "m" and error["errorType"] in (expected, "MyClass"), error
        assert error["stackTrace"] == ["a"]


def test_an_answer_is_passed_on_as_it_is(probe):
    response = probe.invoke({"answered": True, "steps": [{"path": "/invocation/ID/response", "body": "no json"}]})
    assert response["Raw"] == b"no json"


def test_a_response_that_is_too_large_is_413_to_the_runtime(deploy, probe):
    function = deploy({"bootstrap": PROBE.replace('step.get("body")', '"x" * step["size"]')}, RUNTIME, "x", Timeout=10)
    steps = [{"path": "/invocation/ID/response", "size": 6 * 1024 * 1024 + 101}]
    error = function.fail({"answered": True, "steps": steps})
    assert error["errorType"] == "Function.ResponseSizeTooLarge"
    assert "headers" in function.call({}), "the runtime survives it and asks for the next event"


def test_init_error_posted_by_the_runtime(deploy):
    script = ('#!/bin/bash\nexec 3<>"/dev/tcp/${AWS_LAMBDA_RUNTIME_API%:*}/${AWS_LAMBDA_RUNTIME_API#*:}"\n'
              'b=\'{"errorType": "Runtime.NoConfig", "errorMessage": "nothing to do"}\'\n'
              'printf \'POST /2018-06-01/runtime/init/error HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n'
              'Content-Length: %d\\r\\n\\r\\n%s\' ${#b} "$b" >&3\ncat <&3 >/dev/null\nexit 1\n')
    error = deploy({"bootstrap": script}, RUNTIME, "x").fail({})
    assert (error["errorType"], error["errorMessage"]) == ("Runtime.NoConfig", "nothing to do")


def test_awslambdaric_unmodified(deploy):
    """AWS's Python client as it comes from its package, started by a one-line bootstrap."""
    site = Path(sysconfig.get_paths()["purelib"])
    python = Path(sys.base_prefix) / "bin" / "python3"
    if not python.resolve().as_posix().startswith("/usr/"):
        system = Path("/usr/bin") / f"python3.{sys.version_info.minor}"
        if not system.exists():
            pytest.skip(f"the tests' Python {sys.version_info[:2]} is not under /usr, where functions can see it")
        python = system
    files = {"bootstrap": f"#!/bin/sh\nexec {python} -m awslambdaric \"$_HANDLER\"\n",
             "app.py": "import logging\ndef handler(event, context):\n    logging.warning('by the client')\n    print('printed')\n"
                       "    if event.get('fail'):\n        raise ValueError('as asked')\n"
                       "    return [event, context.function_name, context.aws_request_id, context.get_remaining_time_in_millis()]\n"}
    for package in ("awslambdaric", "simplejson", "snapshot_restore_py"):
        for path in (site / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                files[str(path.relative_to(site))] = path.read_bytes()
    for path in site.glob("runtime_client*.so"):
        files[path.name] = path.read_bytes()
    for path in site.glob("awslambdaric*.dist-info/METADATA"):
        files[str(path.relative_to(site))] = path.read_bytes()
    function = deploy(files, RUNTIME, "app.handler", Timeout=15, MemorySize=512)
    for number in range(3):
        response = function.invoke({"n": number}, LogType="Tail")
        assert response.get("FunctionError") is None, (response["Raw"], tail(response))
        event, name, request_id, remaining = response["Answer"]
        assert (event, name) == ({"n": number}, function.name)
        assert request_id == response["ResponseMetadata"]["RequestId"] and 0 < remaining <= 15_000
        assert "printed" in tail(response) and "by the client" in tail(response)
    error = function.fail({"fail": True})
    assert error["errorType"] == "ValueError" and error["errorMessage"] == "as asked" and error["stackTrace"]


@pytest.mark.parametrize("client", ["javascript", "native"])
def test_aws_lambda_ric_unmodified(deploy, client):
    """AWS's Node client from npm: with its HTTP client in JavaScript, and with its native one where that was built."""
    package = NODE_MODULES / "aws-lambda-ric"
    if not (package / "index.mjs").exists():
        pytest.skip("npm has not installed aws-lambda-ric (./test does)")
    if client == "native" and not (package / "rapid-client.node").exists():
        pytest.skip("aws-lambda-ric's native client is not built (npm rebuild aws-lambda-ric in tests/)")
    if not Path("/usr/bin/node").exists():
        pytest.skip("node is not under /usr/bin, where functions can see it")
    files = {"bootstrap": "#!/bin/sh\nexec /usr/bin/node /var/task/node_modules/aws-lambda-ric/index.mjs \"$_HANDLER\"\n",
             "index.mjs": "export const handler = async (event, context) => { console.log('by the client'); "
                          "if (event.fail) throw new Error('as asked'); return [event, context.functionName, context.awsRequestId]; };"}
    for path in [*package.glob("*.mjs"), *package.glob("*.node"), package / "package.json"]:
        files[f"node_modules/aws-lambda-ric/{path.name}"] = path.read_bytes()
    store = NODE_MODULES / "@aws" / "lambda-invoke-store"
    for path in store.rglob("*"):
        if path.is_file():
            files[str(Path("node_modules") / path.relative_to(NODE_MODULES))] = path.read_bytes()
    function = deploy(files, RUNTIME, "index.handler", Timeout=15, MemorySize=512,
                      Environment={"Variables": {"AWS_LAMBDA_NODEJS_USE_ALTERNATIVE_CLIENT_1": str(client == "javascript").lower()}})
    for number in range(3):
        response = function.invoke({"n": number}, LogType="Tail")
        assert response.get("FunctionError") is None, (response["Raw"], tail(response))
        assert response["Answer"] == [{"n": number}, function.name, response["ResponseMetadata"]["RequestId"]]
        assert "by the client" in tail(response)
    assert function.fail({"fail": True})["errorMessage"] == "as asked"


@pytest.mark.parametrize("language,compiler", [("go", "go"), ("rust", "cargo")])
def test_the_official_clients_of_compiled_languages(deploy, language, compiler):
    if not tool(compiler):
        pytest.skip(f"no {compiler} on this machine")
    directory = build_example(language)
    package = make_zip({"bootstrap": (directory / "bootstrap").read_bytes()})
    function = deploy(package, RUNTIME, "bootstrap", Timeout=10)
    for number in range(3):
        response = function.invoke({"name": f"Ada {number}"}, LogType="Tail")
        answer = response["Answer"]
        assert answer["message"] == f"Hello, Ada {number}!" and answer["function"] == function.name
        assert answer["request_id"] == response["ResponseMetadata"]["RequestId"]
        assert "greeting Ada" in tail(response)
    error = function.fail({"fail": True})
    assert error["errorMessage"] == "asked to fail" and error["errorType"]


# Started ahead

@pytest.fixture
def caller(new_server):
    """`make(**server)`: starts a server and gives it, a function, and `call(n)`: n calls at once, each of half a second, and the
    starts that they had."""
    if not Path("/usr/bin/python3").exists():
        pytest.skip("the probe needs /usr/bin/python3")

    def make(**options):
        server = new_server(flags=["--dev"], **options).start()
        function = lab.create(aws.client(server), {"bootstrap": PROBE}, RUNTIME, "some.handler", Timeout=10)
        raw, path = Raw(server), function_path(function.name, "invocations")

        def call(count=1):
            with ThreadPoolExecutor(count) as pool:
                answers = list(pool.map(lambda _: raw.call("POST", path, {"seconds": 0.5}), range(count)))
            assert all(answer.status == 200 for answer in answers), answers
            return sorted(answer.headers["x-martlet-start"] for answer in answers)

        return server, function, call

    return make


def idle_of(server, function):
    return len(server.environments_of(function.name))


def test_the_second_of_two_calls_finds_an_environment_started_ahead(caller):
    server, function, call = caller()
    assert call() == ["ordinary"]
    assert idle_of(server, function) == 1, "one call alone shows nothing"
    assert call() == ["warm"]
    until(lambda: idle_of(server, function) == 2, "a spare to stand ready")
    assert call(2) == ["spare", "warm"]
    # Both have served, and another one was made when both were at work.
    until(lambda: idle_of(server, function) == 3, "the next spare")
    assert [call() for _ in range(2)] == [["warm"]] * 2 and idle_of(server, function) == 3


def test_no_spares_are_made_when_none_are_wanted(caller):
    server, function, call = caller(config="spares = 0\n")
    assert [call() for _ in range(3)] == [["ordinary"], ["warm"], ["warm"]]
    assert call(2) == ["ordinary", "warm"] and idle_of(server, function) == 2
