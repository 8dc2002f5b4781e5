"""The log: the platform's lines as Lambda prints them, the function's in order, and every way to read them."""

import math
import re

import pytest
from harness.aws import log_messages, tail
from harness.waiting import until


def test_the_exact_shape_of_start_end_and_report(deploy, python):
    function = deploy("def handler(e, c):\n    return 1\n", python)
    for cold in (True, False):
        response = function.invoke(LogType="Tail")
        request_id = response["ResponseMetadata"]["RequestId"]
        log = tail(response)
        start, end, report = [line for line in log.split("\n") if line.startswith(("START", "END", "REPORT"))]
        assert start == f"START RequestId: {request_id} Version: $LATEST"
        assert end == f"END RequestId: {request_id}"
        number = r"(\d+\.\d\d)"
        shape = (rf"REPORT RequestId: {request_id}\tDuration: {number} ms\tBilled Duration: (\d+) ms\t"
                 rf"Memory Size: 128 MB\tMax Memory Used: (\d+) MB\t" + (rf"Init Duration: {number} ms\t" if cold else ""))
        found = re.fullmatch(shape, report)
        assert found, report
        duration, billed, used = float(found[1]), int(found[2]), int(found[3])
        init = float(found[4]) if cold else 0
        assert billed in (math.ceil(duration), math.ceil(duration + init)), "whole milliseconds, with the init if it is billed"
        assert cold or billed == math.ceil(duration)
        assert 1 <= used <= 128


def test_start_output_end_report_in_this_order(pylab, logs):
    response = pylab.invoke({"code": "for n in range(50): print('line', n)"})
    request_id = response["ResponseMetadata"]["RequestId"]

    def whole():
        found = log_messages(logs, pylab.name)
        starts = [index for index, m in enumerate(found) if m.startswith(f"START RequestId: {request_id}")]
        reports = [index for index, m in enumerate(found) if m.startswith(f"REPORT RequestId: {request_id}")]
        return starts and reports and found[starts[0]:reports[0] + 1]

    found = until(whole, "the invocation in the log")
    assert [m.rstrip("\n") for m in found[1:-2]] == [f"line {n}" for n in range(50)]
    assert found[-2].startswith(f"END RequestId: {request_id}")


def test_records_of_several_lines_stay_whole(pylab, logs):
    pylab.run("import logging\nlogging.getLogger().error('first\\nsecond\\n  third')\nprint('after')")

    def whole():
        return [m for m in log_messages(logs, pylab.name) if "first" in m and "\tfirst" in m]

    record = until(whole, "the record")[-1]
    assert record.rstrip("\n").endswith("first\nsecond\n  third")


def test_a_traceback_is_one_record(deploy, python, logs):
    function = deploy("def handler(e, c):\n    raise ValueError('boom')\n", python)
    function.fail()
    record = until(lambda: [m for m in log_messages(logs, function.name) if "ValueError: boom" in m], "the error")[0]
    assert "Traceback (most recent call last):" in record and 'File "/var/task/lambda_function.py"' in record


def test_output_without_an_end_of_line_and_in_other_encodings(pylab):
    log = tail(pylab.invoke({"code": "import sys\nsys.stdout.write('no newline')"}, LogType="Tail"))
    assert "no newline" in log and "END RequestId" in log
    log = tail(pylab.invoke({"code": "import os\nos.write(1, b'\\xff\\xfe raw \\x00 bytes\\n')"}, LogType="Tail"))
    assert " raw " in log and "END RequestId" in log


def test_much_output_does_not_stop_the_function_nor_lose_the_end(deploy, python, logs):
    function = deploy("def handler(e, c):\n    for n in range(20000): print(n, 'x' * 80)\n    return 'ok'\n", python, Timeout=30)
    assert function.call() == "ok"
    found = until(lambda: (f := log_messages(logs, function.name)) and f[-1].startswith("REPORT") and f, "the report", 20)
    assert sum(1 for m in found if m.rstrip().endswith("x" * 80)) == 20000


def test_output_of_children_belongs_to_the_invocation(pylab):
    log = tail(pylab.invoke({"code": "import subprocess\nsubprocess.run(['echo', 'from a child'])"}, LogType="Tail"))
    assert log.index("START") < log.index("from a child") < log.index("END")


def test_describe_groups_and_streams(logs, deploy, python):
    function = deploy("def handler(e, c):\n    return 1\n", python)
    function.call()
    group = f"/aws/lambda/{function.name}"
    until(lambda: logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"], "the group")
    found = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert [g["logGroupName"] for g in found] == [group]
    assert found[0]["arn"].startswith("arn:aws:logs:us-east-1:000000000000:log-group:" + group)
    assert found[0]["creationTime"] > 1_700_000_000_000
    streams = logs.describe_log_streams(logGroupName=group, orderBy="LastEventTime", descending=True)["logStreams"]
    assert 1 <= len(streams) <= 2, "of the environment, and of its template where there is one"
    for stream in streams:
        assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", stream["logStreamName"])
        assert stream["lastEventTimestamp"] >= stream["firstEventTimestamp"]


def test_get_log_events_pages_in_both_directions(logs, pylab, deploy, python):
    function = deploy("def handler(e, c):\n    for n in range(30): print('n', n)\n", python)
    function.call()
    group = f"/aws/lambda/{function.name}"
    until(lambda: any(m.startswith("REPORT") for m in log_messages(logs, function.name)), "the report")
    stream = logs.describe_log_streams(logGroupName=group, orderBy="LastEventTime", descending=True)["logStreams"][0]["logStreamName"]
    seen, token = [], None
    for _ in range(20):
        page = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, limit=10,
                                   **({"nextToken": token} if token else {}))
        seen += page["events"]
        if page["nextForwardToken"] == token:
            break
        token = page["nextForwardToken"]
    said = [event["message"].strip() for event in seen]
    assert [line for line in said if line.startswith("n ")] == [f"n {n}" for n in range(30)]
    last = logs.get_log_events(logGroupName=group, logStreamName=stream, limit=5)["events"]
    assert [e["message"] for e in last] == [e["message"] for e in seen[-5:]]


def test_filters_by_time_stream_and_pattern(logs, pylab):
    mark = f"needle-{id(logs)}"
    pylab.run(f"print('{mark} one')\nprint('hay')\nprint('{mark} two')")
    group = f"/aws/lambda/{pylab.name}"
    found = until(lambda: len(f := logs.filter_log_events(logGroupName=group, filterPattern=f'"{mark}"')["events"]) == 2 and f, "both")
    assert all({"timestamp", "ingestionTime", "eventId", "logStreamName", "message"} <= event.keys() for event in found)
    later = logs.filter_log_events(logGroupName=group, filterPattern=f'"{mark}"', startTime=found[-1]["timestamp"] + 1)
    assert later["events"] == []
    assert not logs.filter_log_events(logGroupName=group, filterPattern=f'"{mark}" -two -one')["events"]
    one = logs.filter_log_events(logGroupName=group, filterPattern=f'"{mark}" -two')["events"]
    assert len(one) == 1
    by_stream = logs.filter_log_events(logGroupName=group, logStreamNames=[found[0]["logStreamName"]], filterPattern=f'"{mark}"')
    assert len(by_stream["events"]) == 2


def test_what_aws_logs_tail_asks_for(logs, pylab):
    """Version 2 of the AWS command line follows a log by these calls."""
    import time
    since = int(time.time() * 1000) - 600_000
    pylab.run("print('tailed')")
    group = f"/aws/lambda/{pylab.name}"

    def asked():
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, interleaved=True, startTime=since)
        return [event for page in pages for event in page["events"] if event["message"].startswith("tailed")]

    event = until(asked, "the line")[0]
    assert event["logStreamName"] and event["eventId"] and event["timestamp"] >= since


def test_a_group_that_is_not_there(logs):
    for attempt in (lambda: logs.describe_log_streams(logGroupName="/aws/lambda/no-such"),
                    lambda: logs.filter_log_events(logGroupName="/aws/lambda/no-such"),
                    lambda: logs.get_log_events(logGroupName="/aws/lambda/no-such", logStreamName="x")):
        with pytest.raises(logs.exceptions.ResourceNotFoundException) as refused:
            attempt()
        assert "log group does not exist" in refused.value.response["Error"]["Message"]


def test_other_operations_of_the_logs_service_are_named_as_not_built(logs):
    from botocore.exceptions import ClientError
    for attempt, name in ((lambda: logs.create_log_group(logGroupName="x"), "CreateLogGroup"),
                          (lambda: logs.start_query(logGroupName="x", startTime=1, endTime=2, queryString="x"), "StartQuery")):
        with pytest.raises(ClientError) as refused:
            attempt()
        assert name in refused.value.response["Error"]["Message"]


def test_wrong_members_of_the_logs_service(server):
    from botocore.exceptions import ClientError
    from harness import aws
    loose = aws.client(server, "logs", validate=False)
    with pytest.raises(ClientError) as refused:
        loose.describe_log_streams(logGroupName="bad name with blanks!")
    assert refused.value.response["Error"]["Code"] in ("InvalidParameterException", "ValidationException")
    with pytest.raises(ClientError) as refused:
        loose.get_log_events(logGroupName="/aws/lambda/python-lab", logStreamName="x", limit=10001)
    assert refused.value.response["Error"]["Code"] in ("InvalidParameterException", "ValidationException")


def test_a_group_of_the_function_s_choice(logs, deploy, python):
    function = deploy("def handler(e, c):\n    print('chosen', c.log_group_name)\n", python, LoggingConfig={"LogGroup": "/my/own"})
    function.call()
    until(lambda: logs.filter_log_events(logGroupName="/my/own", filterPattern='"chosen /my/own"')["events"], "the line")


def test_the_log_survives_a_restart(new_server, python):
    from harness import aws, lab
    server = new_server().start()
    function = lab.create(aws.client(server), "def handler(e, c):\n    print('before the restart')\n", python, name="kept")
    function.call()
    server.restart()
    logs = aws.client(server, "logs")
    found = log_messages(logs, "kept")
    assert [m.split()[0] for m in found if m.split()[0] in ("START", "before", "END", "REPORT")] == ["START", "before", "END", "REPORT"]
