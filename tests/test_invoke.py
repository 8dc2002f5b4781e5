"""The Invoke operation: its types, headers, limits and errors."""

import base64
import json
import uuid

import pytest
from harness import aws
from harness.aws import ACCOUNT, REGION, log_messages, tail
from harness.waiting import until

ECHO = "def handler(event, context):\n    return event\n"


@pytest.fixture
def echo(deploy, python):
    return deploy(ECHO, python, Timeout=30)


@pytest.mark.parametrize("event", [{}, [], "text", 0, 1.5, True, None, {"ü": "\U0001f426", "deep": [[[{}]]]}],
                         ids=lambda event: json.dumps(event)[:20])
def test_any_json_goes_in_and_out(pylab, event):
    assert pylab.run("result = event", event) == event


def test_the_answer_s_headers(raw, echo):
    answer = raw.send("POST", aws.function_path(echo.name, "invocations"), b'{"a":1}')
    assert answer.status == 200 and answer.json == {"a": 1}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-amz-executed-version"] == "$LATEST"
    assert uuid.UUID(answer.headers["x-amzn-requestid"])
    assert "x-amz-function-error" not in answer.headers and "x-amz-log-result" not in answer.headers
    assert answer.headers.get("content-length") == str(len(answer.body))


def test_no_payload_is_an_empty_object(lam, raw, deploy, python):
    function = deploy(ECHO, python)
    assert json.load(lam.invoke(FunctionName=function.name)["Payload"]) == {}
    assert raw.send("POST", aws.function_path(function.name, "invocations"), b"").json == {}


def test_the_request_id_is_the_same_everywhere(pylab):
    response = pylab.invoke({"code": "result = context.aws_request_id"}, LogType="Tail")
    request_id = response["ResponseMetadata"]["RequestId"]
    assert response["Answer"] == request_id
    assert f"START RequestId: {request_id} " in tail(response)


def test_dry_run_runs_nothing(lam, echo):
    response = lam.invoke(FunctionName=echo.name, InvocationType="DryRun")
    assert response["StatusCode"] == 204 and response["Payload"].read() == b""
    with pytest.raises(lam.exceptions.ResourceNotFoundException):
        lam.invoke(FunctionName="no-such", InvocationType="DryRun")


def test_an_event_is_accepted_at_once_and_runs(lam, pylab, logs):
    mark = uuid.uuid4().hex
    response = pylab.invoke({"code": f"print('ran {mark}')"}, InvocationType="Event")
    assert response["StatusCode"] == 202 and response["Raw"] == b""
    request_id = response["ResponseMetadata"]["RequestId"]

    def found():
        return [m for m in log_messages(logs, pylab.name, f'"{mark}"') if m.startswith("ran")]

    until(found, "the event to have run")
    assert any(m.startswith(f"START RequestId: {request_id}") for m in log_messages(logs, pylab.name, f'"{request_id}"'))


def test_an_event_for_nothing_is_refused(lam):
    with pytest.raises(lam.exceptions.ResourceNotFoundException):
        lam.invoke(FunctionName="no-such", InvocationType="Event", Payload=b"{}")


def test_the_tail_of_the_log(pylab):
    response = pylab.invoke({"code": "print('x' * 10000)\nprint('the end')"}, LogType="Tail")
    log = base64.b64decode(response["LogResult"])
    assert 0 < len(log) <= 4096
    assert b"the end\n" in log and b"REPORT RequestId: " in log
    assert "LogResult" not in pylab.invoke({"code": "print(1)"})
    assert "LogResult" not in pylab.invoke({"code": "print(1)"}, LogType="None")


def test_the_client_context_arrives(pylab):
    context = base64.b64encode(json.dumps({"custom": {"k": "v"}, "client": {"app_title": "t"}, "env": {"e": "1"}}).encode()).decode()
    code = "c = context.client_context\nresult = [c.custom, c.client.app_title, c.env]"
    assert pylab.run(code, ClientContext=context) == [{"k": "v"}, "t", {"e": "1"}]
    assert pylab.run("result = context.client_context") is None


def test_a_client_context_that_is_too_long_or_broken(raw, echo):
    path = aws.function_path(echo.name, "invocations")
    too_long = base64.b64encode(json.dumps({"custom": {"k": "v" * 3600}}).encode()).decode()
    for value in (too_long, "%%%", base64.b64encode(b"not json").decode()):
        answer = raw.send("POST", path, b"{}", {"X-Amz-Client-Context": value})
        assert answer.status == 400 and answer.error in ("InvalidRequestContentException", "ValidationException",
                                                         "InvalidParameterValueException"), (value[:20], answer)


def test_the_invoked_arn_has_the_caller_s_qualifier(lam, pylab):
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{pylab.name}"
    code = {"code": "result = [context.invoked_function_arn, context.function_version]"}
    assert pylab.call(code) == [arn, "$LATEST"]
    assert pylab.call(code, Qualifier="$LATEST") == [arn + ":$LATEST", "$LATEST"]


@pytest.mark.parametrize("form", ["{name}", "{account}:function:{name}", "arn:aws:lambda:{region}:{account}:function:{name}",
                                  "{name}:$LATEST"])
def test_any_form_of_the_name(lam, echo, form):
    name = form.format(name=echo.name, account=ACCOUNT, region=REGION)
    assert json.load(lam.invoke(FunctionName=name, Payload=b"[1]")["Payload"]) == [1]


def test_the_caller_s_trace_is_passed_on(raw, pylab):
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    answer = raw.send("POST", aws.function_path(pylab.name, "invocations"), b'{"code": "import os; result = os.environ[\'_X_AMZN_TRACE_ID\']"}',
                      {"X-Amzn-Trace-Id": trace})
    assert answer.json.startswith("Root=1-5759e988-bd862e3fe1be46a994272793")
    assert pylab.run("import os; result = os.environ['_X_AMZN_TRACE_ID']") != pylab.run("import os; result = os.environ['_X_AMZN_TRACE_ID']")


def test_a_function_error_is_still_200(raw, pylab):
    answer = raw.send("POST", aws.function_path(pylab.name, "invocations"), json.dumps({"code": "raise KeyError('k')"}).encode())
    assert answer.status == 200
    assert answer.headers["x-amz-function-error"] == "Unhandled"
    assert answer.headers["x-amz-executed-version"] == "$LATEST"
    assert answer.json["errorType"] == "KeyError"


@pytest.mark.parametrize("payload", [b"{", b"nonsense", b"{'a': 1}", b"\xff\xfe", b"{} {}", b"[1,]"], ids=repr)
def test_a_payload_that_is_no_json(raw, echo, payload):
    for kind in ("RequestResponse", "Event"):
        answer = raw.send("POST", aws.function_path(echo.name, "invocations"), payload, {"X-Amz-Invocation-Type": kind})
        assert (answer.status, answer.error) == (400, "InvalidRequestContentException"), (kind, answer)
        assert answer.message.startswith("Could not parse request body into json")


def text_of(size):
    """JSON text of exactly `size` bytes."""
    return b'"' + b"x" * (size - 2) + b'"'


def test_six_megabytes_in_and_out(lam, echo):
    payload = text_of(6 * 1024 * 1024)
    assert lam.invoke(FunctionName=echo.name, Payload=payload)["Payload"].read() == payload


def test_a_request_over_six_megabytes(raw, echo):
    answer = raw.send("POST", aws.function_path(echo.name, "invocations"), text_of(6 * 1024 * 1024 + 1))
    assert (answer.status, answer.error) == (413, "RequestTooLargeException")
    assert answer.message == "Request must be smaller than 6291456 bytes for the InvokeFunction operation"
    assert echo.call("still there") == "still there"


def test_an_event_over_its_limit(raw, echo):
    path = aws.function_path(echo.name, "invocations")
    answer = raw.send("POST", path, text_of(1024 * 1024 + 1), {"X-Amz-Invocation-Type": "Event"})
    assert (answer.status, answer.error) == (413, "RequestTooLargeException")
    assert raw.send("POST", path, text_of(1024 * 1024), {"X-Amz-Invocation-Type": "Event"}).status == 202


def test_a_response_over_six_megabytes(pylab):
    pid = pylab.run("import os; result = os.getpid()")
    error = pylab.run_failing("result = 'x' * (6 * 1024 * 1024 + 200)")
    assert error["errorType"] == "Function.ResponseSizeTooLarge"
    assert "exceeded maximum allowed payload size (6291556 bytes)" in error["errorMessage"]
    assert pylab.run("import os; result = os.getpid()") == pid, "the environment survives it"


def test_every_invocation_type_spelt_wrong(raw, echo):
    answer = raw.send("POST", aws.function_path(echo.name, "invocations"), b"{}", {"X-Amz-Invocation-Type": "Sync"})
    assert answer.status == 400 and answer.error in ("ValidationException", "InvalidParameterValueException")


def test_headers_that_are_not_built_are_refused_by_name(raw, echo):
    path = aws.function_path(echo.name, "invocations")
    for header, member in (("X-Amz-Tenant-Id", "tenant"), ("X-Amz-Durable-Execution-Name", "durable")):
        answer = raw.send("POST", path, b"{}", {header: "x"})
        assert answer.status in (400, 501) and member in answer.message.lower(), (header, answer)
