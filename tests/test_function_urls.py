"""Function URLs: plain HTTP to functions, by host name and by path."""

import base64
import http.client
import json
import shutil
import socket
import subprocess
import time

import pytest
from harness import aws, lab
from harness.aws import Answer, Raw

ECHO = "def handler(event, context):\n    return event.get('answer') or event\n"
ANSWERS = """
import json
def handler(event, context):
    return json.loads(event["body"])
"""


class Url:
    """A function URL, called without an SDK."""

    def __init__(self, server, client, name, auth="NONE", mode="BUFFERED", public=True, qualifier=None, **more):
        target = {"FunctionName": name} | ({"Qualifier": qualifier} if qualifier else {})
        made = client.create_function_url_config(AuthType=auth, InvokeMode=mode, **target, **more)
        self.server, self.url = server, made["FunctionUrl"]
        self.host = self.url.removeprefix("http://").rstrip("/")
        self.id = self.host.split(".")[0]
        if public:
            client.add_permission(StatementId="url", Principal="*", Action="lambda:InvokeFunctionUrl", FunctionUrlAuthType=auth, **target)
            client.add_permission(StatementId="invoke", Principal="*", Action="lambda:InvokeFunction", InvokedViaFunctionUrl=True, **target)

    def open(self, method="GET", path="/", body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        connection.request(method, path, body=body, headers={"Host": self.host} | (headers or {}))
        return connection, connection.getresponse()

    def call(self, method="GET", path="/", body=None, headers=None) -> Answer:
        connection, answer = self.open(method, path, body, headers)
        try:
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()


@pytest.fixture
def url(server, lam, deploy):
    def make(code, runtime, **more):
        config = more.pop("config", {})
        return Url(server, lam, deploy(code, runtime, **config).name, **more)

    return make


def test_an_event_in_format_2(url, python):
    echo = url(ECHO, python)
    answer = echo.call("POST", "/a%20b/c?p=1&p=2&q=x%20y", body=b'{"n": 1}',
                       headers={"Content-Type": "application/json", "Cookie": "a=1; b=2", "X-Upper": "Case", "User-Agent": "me"})
    assert answer.status == 200 and answer.headers["content-type"] == "application/json" and answer.headers["x-amzn-requestid"]
    event = answer.json
    assert event["version"] == "2.0" and event["routeKey"] == "$default" and event["rawPath"] == "/a%20b/c"
    assert event["rawQueryString"] == "p=1&p=2&q=x%20y" and event["queryStringParameters"] == {"p": "1,2", "q": "x y"}
    assert event["cookies"] == ["a=1", "b=2"] and "cookie" not in event["headers"] and event["headers"]["x-upper"] == "Case"
    assert (event["body"], event["isBase64Encoded"]) == ('{"n": 1}', False)
    context = event["requestContext"]
    assert context["accountId"] == "anonymous" and context["apiId"] == context["domainPrefix"] == echo.id
    assert context["domainName"] == echo.host.split(":")[0] and context["stage"] == "$default"
    assert context["http"] == {"method": "POST", "path": "/a%20b/c", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "me"}
    assert abs(context["timeEpoch"] / 1000 - time.time()) < 30 and "authorizer" not in context
    form = echo.call("POST", body=b"\xff\x00", headers={"Content-Type": "application/octet-stream"}).json
    assert form["isBase64Encoded"] and base64.b64decode(form["body"]) == b"\xff\x00"
    bare = echo.call().json
    assert "body" not in bare and "cookies" not in bare and "queryStringParameters" not in bare


def test_by_path(url, python, server):
    echo = url(ECHO, python)
    answer = Raw(server).exchange("GET", f"/_martlet/url/{echo.id}/x/y?a=b")
    assert answer.json["rawPath"] == "/x/y" and answer.json["requestContext"]["apiId"] == echo.id
    assert Raw(server).exchange("GET", f"/_martlet/url/{echo.id}").json["rawPath"] == "/"


def test_curl_reaches_it_by_its_name(url, python):
    if not shutil.which("curl"):
        pytest.skip("no curl on this machine")
    echo = url(ECHO, python)
    done = subprocess.run(["curl", "-sS", "--resolve", f"{echo.host}:127.0.0.1", "--noproxy", "*", echo.url + "by/curl"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rawPath"] == "/by/curl"


def test_answers(url, python):
    answers = url(ANSWERS, python)

    def told(document):
        return answers.call("POST", body=json.dumps(document).encode(), headers={"Content-Type": "application/json"})

    full = told({"statusCode": 418, "headers": {"X-Tea": "yes", "Content-Type": "text/plain"}, "cookies": ["a=1; HttpOnly"], "body": "short"})
    assert (full.status, full.body, full.headers["x-tea"]) == (418, b"short", "yes")
    assert full.headers["set-cookie"] == "a=1; HttpOnly" and full.headers["content-type"] == "text/plain"
    binary = told({"statusCode": 200, "body": base64.b64encode(bytes(range(256))).decode(), "isBase64Encoded": True})
    assert binary.body == bytes(range(256))
    assert (told({"message": "hi"}).json, told("text").body, told([1]).json) == ({"message": "hi"}, b"text", [1])
    broken = told({"statusCode": "no"})
    assert (broken.status, broken.body) == (502, b"Internal Server Error")


def test_failures(url, lam, python):
    failing = url("def handler(event, context):\n    raise ValueError('secret')\n", python)
    answer = failing.call()
    assert (answer.status, answer.body) == (502, b"Internal Server Error")
    unknown = Url.__new__(Url)
    unknown.server, unknown.host = failing.server, failing.host.replace(failing.id, "nobody")
    assert unknown.call().status == 403
    large = failing.call("POST", body=b"x" * (6 * 1024 * 1024 + 1))
    assert large.status == 413


def test_both_permissions_are_needed(server, lam, deploy, python):
    function = deploy(ECHO, python)
    url = Url(server, lam, function.name, public=False)
    assert url.call().status == 403 and url.call().json == {"Message": "Forbidden"}
    lam.add_permission(FunctionName=function.name, StatementId="a", Principal="*", Action="lambda:InvokeFunctionUrl", FunctionUrlAuthType="NONE")
    assert url.call().status == 403
    lam.add_permission(FunctionName=function.name, StatementId="b", Principal="*", Action="lambda:InvokeFunction", InvokedViaFunctionUrl=True)
    assert url.call().status == 200
    lam.delete_function_url_config(FunctionName=function.name)
    assert url.call().status == 403


def test_signed_callers(server, lam, deploy, python):
    function = deploy(ECHO, python)
    url = Url(server, lam, function.name, auth="AWS_IAM", public=False)
    assert url.call().status == 403
    raw = Raw(server)
    headers = {"Host": url.host, "Content-Type": "text/plain"}
    answer = raw.send("POST", "/p?a=1", b"hello", headers)
    assert answer.status == 200, answer.body
    iam = answer.json["requestContext"]["authorizer"]["iam"]
    assert iam["accountId"] == "000000000000" and iam["userArn"].startswith("arn:aws:iam::") and iam["accessKey"]
    assert "authorization" not in answer.json["headers"] and answer.json["body"] == "hello"
    assert raw.send("POST", "/p", b"hello", headers, bend=lambda _, body: b"other").status == 403


def test_cors(url, python):
    cors = {"AllowOrigins": ["https://a.example"], "AllowMethods": ["GET"], "AllowHeaders": ["x-a"], "ExposeHeaders": ["x-b"], "MaxAge": 60}
    echo = url(ECHO, python, Cors=cors)
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
    preflight = echo.call("OPTIONS", headers=asked)
    assert (preflight.status, preflight.body) == (200, b"")
    assert preflight.headers["access-control-allow-origin"] == "https://a.example" and preflight.headers["access-control-max-age"] == "60"
    assert echo.call(headers={"Origin": "https://a.example"}).headers["access-control-expose-headers"] == "x-b"
    assert "access-control-allow-origin" not in echo.call(headers={"Origin": "https://b.example"}).headers


def test_an_alias_has_a_url_of_its_own(server, lam, deploy, python):
    function = deploy("def handler(event, context):\n    return context.invoked_function_arn\n", python)
    version = lam.publish_version(FunctionName=function.name)["Version"]
    lab.settled(lam, function.name, Qualifier=version)
    lam.create_alias(FunctionName=function.name, Name="live", FunctionVersion=version)
    url = Url(server, lam, function.name, qualifier="live")
    assert url.call().body.decode().endswith(f":{function.name}:live")


STREAM = """
const later = (ms) => new Promise((done) => setTimeout(done, ms));
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  const way = event.rawPath.slice(1);
  if (way === 'early') throw new Error('early');
  if (way === 'plain') { stream.setContentType('text/plain'); stream.write('plain'); return stream.end(); }
  const headers = { 'Content-Type': 'text/event-stream', 'X-Way': way };
  stream = awslambda.HttpResponseStream.from(stream, { statusCode: way === 'sse' ? 200 : 202, headers, cookies: ['a=1'] });
  for (let n = 0; n < 3; n += 1) { stream.write(`data: ${n}\\n\\n`); await later(200); }
  if (way === 'late') throw new Error('late');
  if (way === 'silent') await later(60000);
  stream.end();
});
"""


@pytest.fixture
def stream(url, node):
    return url(STREAM, node, mode="RESPONSE_STREAM", config={"Timeout": 10})


def test_server_sent_events(stream):
    stream.call(path="/plain")
    connection, answer = stream.open(path="/sse")
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/event-stream" and answer.headers["Set-Cookie"] == "a=1"
    assert answer.headers["Transfer-Encoding"] == "chunked"
    came = []
    for number in range(3):
        assert answer.readline() == f"data: {number}\n".encode() and answer.readline() == b"\n"
        came.append(time.monotonic())
    assert came[2] - came[0] > 0.25, "each when it was written"
    assert answer.read() == b""
    connection.close()
    plain = stream.call(path="/plain")
    assert (plain.body, plain.headers["content-type"]) == (b"plain", "text/plain")


def test_streams_that_fail(stream):
    assert stream.call(path="/early").status == 502
    _, answer = stream.open(path="/late")
    assert answer.status == 202
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    assert stream.call(path="/plain").body == b"plain"


def test_a_buffered_url_of_a_function_that_streams(url, node):
    answer = url(STREAM, node, config={"Timeout": 10}).call(path="/way")
    assert (answer.status, answer.body, answer.headers["x-way"]) == (202, b"data: 0\n\ndata: 1\n\ndata: 2\n\n", "way")


def test_a_streaming_url_of_a_function_that_does_not(url, python):
    answer = url(ECHO, python, mode="RESPONSE_STREAM").call(path="/p")
    assert answer.status == 200 and answer.json["rawPath"] == "/p"


def test_silence_ends_a_stream_before_the_functions_time(new_server, node):
    server = new_server(flags=["--stream-idle-seconds", "1"]).start()
    client = aws.client(server)
    function = lab.create(client, STREAM, node, "index.handler", Timeout=8)
    stream = Url(server, client, function.name, mode="RESPONSE_STREAM")
    began = time.monotonic()
    _, answer = stream.open(path="/silent")
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    assert time.monotonic() - began < 6


@pytest.mark.slow
def test_a_stream_of_minutes(server, lam, deploy, node, request):
    """Ten minutes with --full-soak, some seconds without."""
    seconds = 600 if request.config.getoption("--full-soak") else 12
    code = ("exports.handler = awslambda.streamifyResponse(async (event, stream) => {\n"
            f"  for (let n = 0; n < {seconds}; n += 1) {{ stream.write(`data: ${{n}}\\n\\n`); await new Promise((done) => setTimeout(done, 1000)); }}\n"
            "  stream.end();\n});\n")
    url = Url(server, lam, deploy(code, node, Timeout=min(900, seconds + 60)).name, mode="RESPONSE_STREAM")
    _, answer = url.open()
    lines = [line for line in answer.read().decode().split("\n\n") if line]
    assert lines == [f"data: {number}" for number in range(seconds)]


def test_a_client_of_http_1_0_gets_it_without_chunks(stream):
    with socket.create_connection(("127.0.0.1", stream.server.port), timeout=30) as connection:
        connection.sendall(f"GET /plain HTTP/1.0\r\nHost: {stream.host}\r\n\r\n".encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.0 200") and answer.endswith(b"\r\n\r\nplain") and b"chunked" not in answer
