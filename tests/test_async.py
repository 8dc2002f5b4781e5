"""Asynchronous invocations: retries, ages, destinations, dead letters and loops, as Lambda has them.

Minutes between attempts are a second here, by `async_retry_seconds`.
"""

import json
import threading

import pytest
from botocore.exceptions import ClientError
from harness import aws, lab
from harness.waiting import until

ARN = f"arn:aws:lambda:{aws.REGION}:{aws.ACCOUNT}:function:"

# Fails as often as its event says, by what it has printed before: the log of a function is what all its environments share.
SINK = "import json\ndef handler(event, context):\n    print('got ' + json.dumps(event))\n"
FAILING = """
import time
def handler(event, context):
    print('attempt', context.aws_request_id, time.time())
    raise ValueError('no ' + str(event))
"""
ECHO = "def handler(event, context):\n    print('ran', event)\n    return {'echo': event}\n"


@pytest.fixture
def quick(new_server):
    """A server that retries after one and two seconds."""
    return new_server(config="async_retry_seconds = 1\n").start()


@pytest.fixture
def client(quick):
    return aws.client(quick)


def received(server, name, count=1, seconds=20):
    """The events that a sink has got."""
    logs = aws.client(server, "logs")

    def got():
        found = [json.loads(m.split("got ", 1)[1]) for m in aws.log_messages(logs, name, '"got "') if "got " in m]
        return found if len(found) >= count else None

    return until(got, f"{count} events at {name}", seconds, every=0.1)


def attempts(server, name):
    return [m.split()[1:] for m in aws.log_messages(aws.client(server, "logs"), name, "attempt") if m.startswith("attempt")]


def metrics(server, name):
    """What the server counts of a function's events."""
    answer = aws.Raw(server, service="martlet").send("GET", "/_martlet/events")
    assert answer.status == 200, answer.body
    return answer.json["Functions"].get(ARN + name, {})


def test_a_failing_event_is_tried_three_times_and_then_told(quick, client, python):
    sink, dead = (lab.create(client, SINK, python, name=name).name for name in ("sink", "dead"))
    failing = lab.create(client, FAILING, python, name="failing", DeadLetterConfig={"TargetArn": ARN + dead})
    client.put_function_event_invoke_config(FunctionName="failing", DestinationConfig={"OnFailure": {"Destination": ARN + sink}})
    accepted = failing.invoke({"n": 1}, InvocationType="Event")
    request_id = accepted["ResponseMetadata"]["RequestId"]
    [record] = received(quick, sink)
    [letter] = received(quick, dead)

    tried = attempts(quick, "failing")
    assert [one[0] for one in tried] == [request_id] * 3, "the same id on every attempt"
    first, second, third = (float(one[1]) for one in tried)
    assert 1 <= second - first < 3 and 2 <= third - second < 4

    assert record.pop("timestamp")[10] == "T"
    assert record.pop("responsePayload")["errorMessage"] == "no {'n': 1}"
    assert record == {
        "version": "1.0",
        "requestContext": {"requestId": request_id, "functionArn": ARN + "failing:$LATEST", "condition": "RetriesExhausted",
                           "approximateInvokeCount": 3},
        "requestPayload": {"n": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
    }
    [message] = letter["Records"]
    assert json.loads(message["body"]) == {"n": 1}
    attributes = {name: (a["dataType"], a["stringValue"]) for name, a in message["messageAttributes"].items()}
    assert attributes == {"RequestID": ("String", request_id), "ErrorCode": ("Number", "200"), "ErrorMessage": ("String", "no {'n': 1}")}

    until(lambda: metrics(quick, "failing").get("AsyncEventsDropped") == 1, "the drop to be counted")
    counted = metrics(quick, "failing")
    assert counted["AsyncEventsReceived"] == 1 and counted["AsyncEventAge"]["SampleCount"] == 3
    assert 3_000 <= counted["AsyncEventAge"]["Maximum"] < 20_000
    assert counted["DeadLetterErrors"] == 0 and counted["DestinationDeliveryFailures"] == 0


def test_success_is_told_and_nothing_is_retried(quick, client, python):
    sink = lab.create(client, SINK, python, name="sink").name
    echo = lab.create(client, ECHO, python, name="echo")
    client.put_function_event_invoke_config(FunctionName="echo", DestinationConfig={"OnSuccess": {"Destination": ARN + sink},
                                                                                   "OnFailure": {"Destination": ARN + "sink:$LATEST"}})
    echo.invoke([1, "ü"], InvocationType="Event")
    [record] = received(quick, sink)
    assert record["requestContext"]["condition"] == "Success" and record["requestContext"]["approximateInvokeCount"] == 1
    assert record["requestPayload"] == [1, "ü"] and record["responsePayload"] == {"echo": [1, "ü"]}
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST"}
    # A synchronous call is told nowhere.
    echo.call("sync")
    assert len(received(quick, sink)) == 1


def test_settings_hold_for_the_qualifier_that_was_called(quick, client, python):
    sink = lab.create(client, SINK, python, name="sink").name
    failing = lab.create(client, FAILING, python, name="failing", Publish=True)
    client.put_function_event_invoke_config(FunctionName="failing", Qualifier="1", MaximumRetryAttempts=0,
                                            DestinationConfig={"OnFailure": {"Destination": ARN + sink}})
    failing.invoke("by number", InvocationType="Event", Qualifier="1")
    [record] = received(quick, sink)
    context = record["requestContext"]
    assert context["functionArn"] == ARN + "failing:1" and context["approximateInvokeCount"] == 1
    assert record["responseContext"]["executedVersion"] == "1"
    failing.invoke("unqualified", InvocationType="Event")
    until(lambda: len(attempts(quick, "failing")) == 4, "one attempt of the first and three of the second", 20)
    assert len(received(quick, sink)) == 1


def test_an_event_whose_next_attempt_would_come_too_late_is_given_up(new_server, python):
    server = new_server(config="async_retry_seconds = 60\n").start()
    client = aws.client(server)
    sink = lab.create(client, SINK, python, name="sink").name
    lab.create(client, FAILING, python, name="failing")
    client.put_function_event_invoke_config(FunctionName="failing", MaximumEventAgeInSeconds=60,
                                            DestinationConfig={"OnFailure": {"Destination": ARN + sink}})
    lab.Function(client, "failing").invoke(1, InvocationType="Event")
    [record] = received(server, sink)
    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == 1 and record["responsePayload"]["errorType"] == "ValueError"


def test_throttled_turns_are_no_attempts(new_server, python):
    server = new_server(config="account_concurrency = 1\nasync_retry_seconds = 1\n").start()
    client = aws.client(server)
    blocker = lab.create(client, "import time\ndef handler(e, c):\n    time.sleep(e)\n", python, name="blocker", Timeout=10)
    sink = lab.create(client, SINK, python, name="sink").name
    failing = lab.create(client, FAILING, python, name="failing")
    client.put_function_event_invoke_config(FunctionName="failing", MaximumRetryAttempts=1,
                                            DestinationConfig={"OnFailure": {"Destination": ARN + sink}})
    caller = threading.Thread(target=lambda: blocker.call(2.5))
    caller.start()
    until(lambda: server.environments_of("blocker"), "the only place to be taken")
    failing.invoke(1, InvocationType="Event")
    caller.join()
    [record] = received(server, sink, seconds=30)
    assert record["requestContext"]["approximateInvokeCount"] == 2 and len(attempts(server, "failing")) == 2
    # The first attempt had to wait for its turn: 0, 1, 3 s after.
    assert metrics(server, "failing")["AsyncEventAge"]["SampleCount"] >= 3


def test_a_loop_through_destinations_is_stopped(quick, client, python):
    for name in ("ping", "pong", "sink"):
        lab.create(client, "def handler(event, context):\n    print('ran')\n    return 1\n" if name != "sink" else SINK, python, name=name)
    for name, other in (("ping", "pong"), ("pong", "ping")):
        client.put_function_event_invoke_config(FunctionName=name, DestinationConfig={
            "OnSuccess": {"Destination": ARN + other}, "OnFailure": {"Destination": ARN + "sink"}})
    lab.Function(client, "ping").invoke("{}", InvocationType="Event")
    [record] = received(quick, "sink", seconds=30)
    assert record["requestContext"]["condition"] == "RecursiveInvocation"
    assert record["requestContext"]["functionArn"] == ARN + "ping:$LATEST"
    assert record["requestContext"]["approximateInvokeCount"] == 0 and record["responseContext"] == {"statusCode": 400}
    assert metrics(quick, "ping")["RecursiveInvocationsDropped"] == 1
    ran = [len(aws.log_messages(aws.client(quick, "logs"), name, "ran")) for name in ("ping", "pong")]
    assert ran == [16, 16]


def test_a_caller_that_passes_its_trace_on_is_stopped_too(quick, client, python):
    lab.create(client, "import os\ndef handler(event, context):\n    return os.environ['_X_AMZN_TRACE_ID']\n", python, name="f")
    raw, path = aws.Raw(quick), aws.function_path("f", "invocations")
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    for _ in range(16):
        answer = raw.send("POST", path, b"{}", {"X-Amzn-Trace-Id": trace})
        assert answer.status == 200
        trace = answer.json
    stopped = raw.send("POST", path, b"{}", {"X-Amzn-Trace-Id": trace})
    assert (stopped.status, stopped.error) == (400, "RecursiveInvocationException")
    assert client.get_function_recursion_config(FunctionName="f")["RecursiveLoop"] == "Terminate"
    assert client.put_function_recursion_config(FunctionName="f", RecursiveLoop="Allow")["RecursiveLoop"] == "Allow"
    assert client.get_function_recursion_config(FunctionName="f")["RecursiveLoop"] == "Allow"
    assert raw.send("POST", path, b"{}", {"X-Amzn-Trace-Id": trace}).status == 200
    with pytest.raises(ClientError) as missing:
        client.get_function_recursion_config(FunctionName="none")
    assert missing.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_invoke_async_is_the_old_path_of_the_same(quick, client, python):
    lab.create(client, ECHO, python, name="echo")
    assert client.invoke_async(FunctionName="echo", InvokeArgs=b'"old"')["Status"] == 202
    until(lambda: "ran old" in "".join(aws.log_messages(aws.client(quick, "logs"), "echo", "ran")), "it to run", every=0.1)
    path = "/2014-11-13/functions/echo/invoke-async"
    assert aws.Raw(quick).send("POST", path, b'"' + b"x" * (256 * 1024) + b'"').status == 413
    with pytest.raises(ClientError) as wrong:
        client.invoke_async(FunctionName="echo", InvokeArgs=b"{")
    assert wrong.value.response["Error"]["Code"] == "InvalidRequestContentException"
    with pytest.raises(ClientError) as missing:
        client.invoke_async(FunctionName="none", InvokeArgs=b"{}")
    assert missing.value.response["Error"]["Code"] == "ResourceNotFoundException"


def code(call, **arguments):
    with pytest.raises(ClientError) as refused:
        call(**arguments)
    error = refused.value.response["Error"]
    return error["Code"], error["Message"]


def test_configurations_are_put_updated_shown_listed_and_deleted(quick, client, python):
    for name in ("f", "other"):
        lab.create(client, ECHO, python, name=name, Publish=True)
    missing = ("ResourceNotFoundException", f"The function {ARN}f:$LATEST doesn't have an EventInvokeConfig")
    for call in (client.get_function_event_invoke_config, client.delete_function_event_invoke_config):
        assert code(call, FunctionName="f") == missing
    assert code(client.update_function_event_invoke_config, FunctionName="f", MaximumRetryAttempts=1) == missing

    put = client.put_function_event_invoke_config(FunctionName="f", MaximumRetryAttempts=1, MaximumEventAgeInSeconds=61)
    assert put["FunctionArn"] == ARN + "f:$LATEST" and (put["MaximumRetryAttempts"], put["MaximumEventAgeInSeconds"]) == (1, 61)
    assert put["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {}} and put["LastModified"].year >= 2026
    updated = client.update_function_event_invoke_config(FunctionName="f", DestinationConfig={"OnSuccess": {"Destination": ARN + "other"}})
    assert (updated["MaximumRetryAttempts"], updated["DestinationConfig"]["OnSuccess"]) == (1, {"Destination": ARN + "other"})
    shown = client.get_function_event_invoke_config(FunctionName="f", Qualifier="$LATEST")
    assert {k: v for k, v in shown.items() if k != "ResponseMetadata"} == {k: v for k, v in updated.items() if k != "ResponseMetadata"}
    # Put forgets what it does not name; an empty ARN takes a destination away.
    assert "MaximumEventAgeInSeconds" not in client.put_function_event_invoke_config(FunctionName="f:1", MaximumRetryAttempts=0)
    emptied = client.update_function_event_invoke_config(FunctionName="f", DestinationConfig={"OnSuccess": {"Destination": ""}})
    assert emptied["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {}} and emptied["MaximumEventAgeInSeconds"] == 61

    pages = client.get_paginator("list_function_event_invoke_configs").paginate(FunctionName="f", PaginationConfig={"PageSize": 1})
    assert [c["FunctionArn"] for page in pages for c in page["FunctionEventInvokeConfigs"]] == [ARN + "f:$LATEST", ARN + "f:1"]
    client.delete_function_event_invoke_config(FunctionName="f", Qualifier="1")
    assert code(client.get_function_event_invoke_config, FunctionName="f", Qualifier="1")[0] == "ResourceNotFoundException"


def test_what_a_configuration_cannot_be_is_refused(quick, client, python):
    lab.create(client, ECHO, python, name="f")
    put = client.put_function_event_invoke_config
    invalid = "InvalidParameterValueException"
    assert code(put, FunctionName="f") == (invalid, "You must specify at least one of error handling or destination setting.")
    for name, more in (("none", {}), ("f", {"Qualifier": "7"}), ("f", {"Qualifier": "alias"})):
        assert code(put, FunctionName=name, MaximumRetryAttempts=1, **more) == ("ResourceNotFoundException", "The function doesn't exist.")

    def to(arn, end="OnFailure"):
        return code(put, FunctionName="f", DestinationConfig={end: {"Destination": arn}})

    assert to(ARN + "f") == (invalid, "You can't specify the function as a destination for itself.")
    assert to(ARN + "none") == (invalid, f"The destination ARN {ARN}none is invalid.")
    for arn, service in ((f"arn:aws:sqs:us-east-1:{aws.ACCOUNT}:q", "Amazon SQS"), (f"arn:aws:sns:us-east-1:{aws.ACCOUNT}:t", "Amazon SNS"),
                         (f"arn:aws:events:us-east-1:{aws.ACCOUNT}:event-bus/b", "Amazon EventBridge"), ("arn:aws:s3:::bucket", "Amazon S3")):
        found, message = to(arn)
        assert found == invalid and service in message and "not implemented" in message
        if service != "Amazon S3":
            found, message = code(client.update_function_configuration, FunctionName="f", DeadLetterConfig={"TargetArn": arn})
            assert found == invalid and service in message
    assert code(client.get_function_event_invoke_config, FunctionName="f")[0] == "ResourceNotFoundException"


def test_a_dead_letter_target_is_part_of_the_configuration(quick, client, python):
    dead = lab.create(client, SINK, python, name="dead").name
    lab.create(client, FAILING, python, name="f")
    target = {"TargetArn": ARN + dead}
    assert "DeadLetterConfig" not in client.get_function_configuration(FunctionName="f")
    assert lab.change(client, "update_function_configuration", FunctionName="f", DeadLetterConfig=target)["DeadLetterConfig"] == target
    client.publish_version(FunctionName="f")
    lab.change(client, "update_function_configuration", FunctionName="f", DeadLetterConfig={"TargetArn": ""})
    assert "DeadLetterConfig" not in client.get_function_configuration(FunctionName="f")
    assert client.get_function_configuration(FunctionName="f", Qualifier="1")["DeadLetterConfig"] == target
    # It holds for the version that has it.
    client.put_function_event_invoke_config(FunctionName="f", Qualifier="1", MaximumRetryAttempts=0)
    lab.Function(client, "f").invoke("dead", InvocationType="Event", Qualifier="1")
    [letter] = received(quick, dead)
    assert letter["Records"][0]["eventSourceARN"] == ARN + "f:1"


def test_attempts_are_counted_across_kill_9(new_server, python):
    server = new_server(config="async_retry_seconds = 3\n").start()
    client = aws.client(server)
    sink = lab.create(client, SINK, python, name="sink").name
    lab.create(client, FAILING, python, name="failing")
    client.put_function_event_invoke_config(FunctionName="failing", DestinationConfig={"OnFailure": {"Destination": ARN + sink}})
    lab.Function(client, "failing").invoke(1, InvocationType="Event")
    for number in (1, 2):
        until(lambda: len(attempts(server, "failing")) == number, f"attempt {number}", 30, every=0.1)
        # Whether or not the wait is stored by now: the attempt was, before it was made.
        server.kill()
        server.start()
    [record] = received(server, sink, seconds=30)
    assert record["requestContext"]["approximateInvokeCount"] == 3 and len(attempts(server, "failing")) == 3
