"""Responses that are read while the function makes them: InvokeWithResponseStream with boto3 and the JavaScript SDK."""

import base64
import http.client
import json
import subprocess
import threading
import time
from pathlib import Path

import pytest
from harness.aws import Raw, log_messages
from harness.paths import NODE_MODULES, TESTS, tool
from harness.server import plain_environment
from harness.waiting import until

STREAMS = """
const { pipeline } = require('stream/promises');
const { Readable } = require('stream');
const later = (ms) => new Promise((done) => setTimeout(done, ms));
const ways = {
  async parts(stream, event) {
    for (const part of event.parts) { stream.write(part); await later(event.pause || 0); }
    stream.end();
  },
  async early() { throw new TypeError('early'); },
  async late(stream) { stream.write('half'); await later(20); throw new TypeError('late'); },
  async silent(stream) { stream.write('half'); await later(60000); },
  async exits(stream) { stream.write('half'); await later(20); process.exit(3); },
  async bytes(stream, event) {
    const began = Date.now();
    await pipeline(Readable.from((function* () { for (let n = 0; n < event.mb; n += 1) yield Buffer.alloc(1 << 20, 97); })()), stream, { end: false });
    console.log('wrote for', Date.now() - began, 'ms');
    stream.end();
  },
};
exports.handler = awslambda.streamifyResponse((event, stream, context) => ways[event.way](stream, event, context));
"""


def events(function, event, **more):
    """The events of a stream, each with the time at which it came."""
    answer = function.client.invoke_with_response_stream(FunctionName=function.name, Payload=json.dumps(event).encode(), **more)
    began = time.monotonic()
    return answer, [(time.monotonic() - began, event) for event in answer["EventStream"]]


def body(found) -> bytes:
    return b"".join(event["PayloadChunk"]["Payload"] for _, event in found if "PayloadChunk" in event)


def end(found) -> dict:
    assert [next(iter(event)) for _, event in found].index("InvokeComplete") == len(found) - 1
    return found[-1][1]["InvokeComplete"]


@pytest.fixture
def streams(deploy, node):
    return deploy(STREAMS, node, Timeout=10, MemorySize=256)


def test_chunks_come_while_the_function_runs(streams):
    list(events(streams, {"way": "parts", "parts": ["warm"]})[1])
    answer, found = events(streams, {"way": "parts", "parts": ["one", "two", "three"], "pause": 300}, LogType="Tail")
    assert answer["StatusCode"] == 200 and answer["ExecutedVersion"] == "$LATEST"
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "application/vnd.amazon.eventstream"
    assert body(found) == b"onetwothree"
    assert found[1][0] - found[0][0] > 0.15 and found[2][0] - found[0][0] > 0.4, "each when it was written"
    assert "REPORT RequestId" in base64.b64decode(end(found)["LogResult"]).decode()
    assert not end(found).get("ErrorCode")


def test_failures_before_and_after_the_first_byte(streams):
    for way, told, error_type in (("early", b"", "TypeError"), ("late", b"half", "TypeError"), ("exits", b"half", "Runtime.ExitError")):
        answer, found = events(streams, {"way": way})
        assert (answer["StatusCode"], body(found)) == (200, told), way
        assert end(found)["ErrorCode"] == "Unhandled" and json.loads(end(found)["ErrorDetails"])["errorType"] == error_type
    _, found = events(streams, {"way": "parts", "parts": ["and on"]})
    assert body(found) == b"and on", "the function is of use after all of them"


def test_a_stream_ends_with_the_functions_time(deploy, node):
    function = deploy(STREAMS, node, Timeout=1)
    _, found = events(function, {"way": "silent"})
    assert body(found) == b"half" and json.loads(end(found)["ErrorDetails"])["errorType"] == "Sandbox.Timedout"


def test_functions_and_callers_that_do_not_stream(streams, deploy, python):
    answer = streams.invoke({"way": "parts", "parts": ["one", "two"]})
    assert answer["Raw"] == b"onetwo", "collected for a caller who wants it whole"
    assert streams.fail({"way": "late"})["errorType"] == "TypeError"
    assert streams.fail({"way": "bytes", "mb": 7})["errorType"] == "Function.ResponseSizeTooLarge"
    plain = deploy("def handler(event, context):\n    return {'n': 1 / event['n']}\n", python)
    _, found = events(plain, {"n": 2})
    assert json.loads(body(found)) == {"n": 0.5} and not end(found).get("ErrorCode")
    _, found = events(plain, {"n": 0})
    assert json.loads(end(found)["ErrorDetails"])["errorType"] == "ZeroDivisionError" and body(found) == b""


def test_what_is_refused_is_told_by_the_status(streams):
    client = streams.client
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke_with_response_stream(FunctionName="nobody")
    with pytest.raises(client.exceptions.InvalidRequestContentException):
        client.invoke_with_response_stream(FunctionName=streams.name, Payload=b"{")
    assert client.invoke_with_response_stream(FunctionName=streams.name, InvocationType="DryRun")["StatusCode"] == 204


def test_more_than_a_buffered_answer_may_have(streams):
    _, found = events(streams, {"way": "bytes", "mb": 20})
    assert len(body(found)) == 20 << 20 and not end(found).get("ErrorCode")
    assert len(found) > 20, "in many chunks"


def test_a_reader_that_waits_makes_the_function_wait(server, streams, logs):
    path = f"/2021-11-15/functions/{streams.name}/response-streaming-invocations"
    request = json.dumps({"way": "bytes", "mb": 32}).encode()
    signed = dict(Raw(server).sign("POST", path, request).headers.items())
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", path, body=request, headers=signed)
    answer = connection.getresponse()
    answer.read(1000)
    time.sleep(1)
    assert len(answer.read()) > 32 << 20
    connection.close()
    line = until(lambda: [line for line in log_messages(logs, streams.name) if "wrote for" in line], "the function's own word")[0]
    assert int(line.split("wrote for ")[1].split(" ")[0]) > 700, line


def test_a_reader_that_leaves_does_not_stop_the_function(server, streams, logs):
    path = f"/2021-11-15/functions/{streams.name}/response-streaming-invocations"
    request = json.dumps({"way": "bytes", "mb": 32}).encode()
    signed = dict(Raw(server).sign("POST", path, request).headers.items())
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", path, body=request, headers=signed)
    answer = connection.getresponse()
    answer.read(1000)
    answer.close()
    connection.close()
    until(lambda: [line for line in log_messages(logs, streams.name) if "wrote for" in line], "the function to end")
    assert streams.invoke({"way": "parts", "parts": ["next"]})["Raw"] == b"next"


PROVIDED = '''#!/usr/bin/python3
import base64, http.client, os, time
host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
def chunk(data):
    return b"%x\\r\\n%s\\r\\n" % (len(data), data)
while True:
    connection = http.client.HTTPConnection(host, int(port))
    connection.request("GET", "/2018-06-01/runtime/invocation/next")
    event = connection.getresponse()
    way, id = event.read().decode().strip('"'), event.headers["Lambda-Runtime-Aws-Request-Id"]
    send = connection.sock.sendall
    send((f"POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\\r\\nHost: x\\r\\nLambda-Runtime-Function-Response-Mode: streaming\\r\\n"
          "Content-Type: text/event-stream\\r\\nTransfer-Encoding: chunked\\r\\n"
          "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\\r\\n\\r\\n").encode())
    send(chunk(b"one"))
    time.sleep(0.3)
    send(chunk(b"two"))
    if way == "fail":
        told = base64.b64encode(b'{"errorType":"Late","errorMessage":"m"}').decode()
        send(f"0\\r\\nLambda-Runtime-Function-Error-Type: Function.Late\\r\\nLambda-Runtime-Function-Error-Body: {told}\\r\\n\\r\\n".encode())
    elif way == "cut":
        os._exit(1)
    else:
        send(b"0\\r\\n\\r\\n")
    connection.sock.recv(10000)
    connection.close()
'''


def test_runtimes_of_ones_own_stream_over_the_runtime_api(deploy):
    if not Path("/usr/bin/python3").exists():
        pytest.skip("no /usr/bin/python3 for the bootstrap")
    function = deploy({"bootstrap": PROVIDED}, "provided.al2023", "x", Timeout=10)
    list(events(function, "warm")[1])
    _, found = events(function, "well")
    assert body(found) == b"onetwo" and found[1][0] - found[0][0] > 0.15
    _, found = events(function, "fail")
    assert body(found) == b"onetwo" and json.loads(end(found)["ErrorDetails"])["errorType"] == "Late"
    _, found = events(function, "cut")
    assert body(found) == b"onetwo" and end(found)["ErrorCode"] == "Unhandled"
    assert function.invoke("well")["Raw"] == b"onetwo"


def test_amazons_node_client_unmodified(deploy):
    """aws-lambda-ric from npm, which streams over the Runtime API."""
    package = NODE_MODULES / "aws-lambda-ric"
    if not (package / "index.mjs").exists():
        pytest.skip("npm has not installed aws-lambda-ric (./test does)")
    if not (package / "rapid-client.node").exists():
        pytest.skip("aws-lambda-ric's native client is not built (npm rebuild aws-lambda-ric in tests/)")
    if not Path("/usr/bin/node").exists():
        pytest.skip("node is not under /usr/bin, where functions can see it")
    files = {"bootstrap": "#!/bin/sh\nexec /usr/bin/node /var/task/node_modules/aws-lambda-ric/index.mjs \"$_HANDLER\"\n", "index.js": STREAMS}
    for path in [*package.glob("*.mjs"), *package.glob("*.node"), package / "package.json", *(NODE_MODULES / "@aws" / "lambda-invoke-store").rglob("*")]:
        if path.is_file():
            files[str(Path("node_modules") / path.relative_to(NODE_MODULES))] = path.read_bytes()
    function = deploy(files, "provided.al2023", "index.handler", Timeout=15, MemorySize=512)
    list(events(function, {"way": "parts", "parts": ["warm"]})[1])
    _, found = events(function, {"way": "parts", "parts": ["one", "two"], "pause": 300}, LogType="Tail")
    assert body(found) == b"onetwo", base64.b64decode(end(found)["LogResult"]).decode()
    assert found[1][0] - found[0][0] > 0.15
    _, found = events(function, {"way": "late"})
    assert body(found) == b"half" and json.loads(end(found)["ErrorDetails"])["errorType"] == "TypeError"
    _, found = events(function, {"way": "bytes", "mb": 8})
    assert len(body(found)) == 8 << 20 and not end(found).get("ErrorCode")


def test_the_javascript_sdk(server, streams, tmp_path):
    if not (NODE_MODULES / "@aws-sdk" / "client-lambda").exists():
        pytest.skip("npm has not installed the SDK (./test does)")
    found = server.credentials()
    env = plain_environment(AWS_ENDPOINT_URL=server.endpoint, AWS_REGION="us-east-1", AWS_ACCESS_KEY_ID=found["aws_access_key_id"],
                            AWS_SECRET_ACCESS_KEY=found["aws_secret_access_key"])
    done = subprocess.run([tool("node") or "node", str(TESTS / "javascript_stream.mjs"), streams.name], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["body"] == "onetwo" and seen["chunks"] == 2 and "REPORT" in base64.b64decode(seen["complete"]["LogResult"]).decode()
    assert seen["late"]["body"] == "half" and seen["late"]["complete"]["ErrorCode"] == "Unhandled"


def test_many_streams_at_once(streams):
    failures = []

    def one(number):
        parts = [f"{number}-{part} " for part in range(20)]
        _, found = events(streams, {"way": "parts", "parts": parts, "pause": 5})
        if body(found).decode() != "".join(parts) or end(found).get("ErrorCode"):
            failures.append(found)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
