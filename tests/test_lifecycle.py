"""Execution environments: init, deadline, crash, memory, reuse, freezing, concurrency."""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import aws, lab
from harness.aws import tail
from harness.waiting import until

# Who an environment is cannot be drawn by init code, which may have run once for all of them.
ID = """
import uuid
MINE = None
def handler(event, context):
    global MINE
    MINE = MINE or uuid.uuid4().hex
    return MINE
"""


def report(log):
    line = next(line for line in log.splitlines() if line.startswith("REPORT "))
    return dict(part.split(": ", 1) for part in line.split("\t") if ": " in part)


def test_init_happens_once_an_environment(deploy, python):
    function = deploy("print('init')\nn = 0\ndef handler(e, c):\n    global n\n    n += 1\n    return n\n", python)
    first, second = function.invoke(LogType="Tail"), function.invoke(LogType="Tail")
    assert (first["Answer"], second["Answer"]) == (1, 2)
    assert "Init Duration: " in tail(first) and "Init Duration: " not in tail(second)
    assert "init\n" not in tail(second)


def test_an_init_of_more_than_ten_seconds_runs_again_in_the_first_invoke(deploy, python, logs):
    function = deploy("import time\ntime.sleep(11)\ndef handler(event, context):\n    return 'after all'\n", python, Timeout=20)
    began = time.monotonic()
    assert function.call() == "after all"
    assert 20.5 < time.monotonic() - began < 26
    messages = "".join(aws.log_messages(logs, function.name))
    assert re.search(r"INIT_REPORT Init Duration: 1\d{4}\.\d\d ms\tPhase: init\tStatus: timeout", messages), messages


def test_a_crashing_init_is_reported_and_tried_again_within_the_invoke(deploy, python, logs):
    function = deploy("import os\nos._exit(9)\n", python)
    response = function.invoke(LogType="Tail")
    assert response["FunctionError"] and response["Answer"]["errorType"] == "Runtime.ExitError"
    assert "exit status 9" in response["Answer"]["errorMessage"]
    messages = aws.log_messages(logs, function.name)
    assert any(m.startswith("INIT_REPORT") and "Status: error" in m and "Error Type: Runtime.ExitError" in m for m in messages), messages


def test_an_init_longer_than_the_function_s_timeout(deploy, python):
    function = deploy("import time\nif True:\n    time.sleep(60)\ndef handler(e, c):\n    return 1\n", python, Timeout=1)
    began = time.monotonic()
    error = function.fail()
    assert error["errorType"] == "Sandbox.Timedout" and "Task timed out after 1.00 seconds" in error["errorMessage"]
    assert 10 < time.monotonic() - began < 14, "the init phase, then the re-run under the function's own timeout"


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "while True: pass",
                                  "import ctypes; ctypes.CDLL(None).pause()",
                                  "import re; re.match(r'(a+)+$', 'a' * 60 + 'b')"],
                         ids=["sleep", "loop", "native", "native-loop"])
def test_the_deadline_stops_anything(deploy, python, code):
    function = deploy(f"def handler(event, context):\n    if event.get('ok'):\n        return 'ok'\n    {code}\n", python, Timeout=1)
    function.call({"ok": True})
    began = time.monotonic()
    response = function.invoke({}, LogType="Tail")
    took = time.monotonic() - began
    request_id = response["ResponseMetadata"]["RequestId"]
    assert response["FunctionError"] == "Unhandled"
    assert response["Answer"] == {"errorType": "Sandbox.Timedout",
                                  "errorMessage": f"RequestId: {request_id} Error: Task timed out after 1.00 seconds"}
    assert 0.95 < took < 2.5
    log = tail(response)
    assert re.search(rf"^\S+Z {request_id} Task timed out after 1\.00 seconds$", log, re.M) or "Status: timeout" in log
    assert function.call({"ok": True}) == "ok"


def test_signals_do_not_save_a_function_from_its_deadline(deploy, python):
    function = deploy("import signal, time\nfor n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n    signal.signal(n, signal.SIG_IGN)\n"
                      "def handler(e, c):\n    end = time.time() + 60\n    while time.time() < end: time.sleep(1)\n", python, Timeout=1)
    assert function.fail()["errorType"] == "Sandbox.Timedout"


def test_the_remaining_time_counts_down(pylab):
    first, second = pylab.run("import time\na = context.get_remaining_time_in_millis()\ntime.sleep(0.2)\nresult = [a, context.get_remaining_time_in_millis()]")
    assert 9000 < first <= 10_000 and 150 <= first - second <= 2000


@pytest.mark.parametrize("memory", [128, 256])
@pytest.mark.usefixtures("full_isolation")
def test_out_of_memory_is_reported_as_such(deploy, python, memory):
    function = deploy("def handler(e, c):\n    if e.get('ok'):\n        return 'ok'\n    x = bytearray(1)\n    while True: x += b'x' * (8 << 20)\n",
                      python, MemorySize=memory, Timeout=20)
    assert function.call({"ok": True}) == "ok"
    response = function.invoke({}, LogType="Tail")
    assert response["FunctionError"] == "Unhandled"
    assert "OutOfMemory" in response["Answer"]["errorType"] or "MemoryError" in response["Answer"]["errorType"], response["Answer"]
    used = int(report(tail(response))["Max Memory Used"].split()[0])
    assert used <= memory and (used > memory * 0.7 or "MemoryError" in response["Answer"]["errorType"])
    assert function.call({"ok": True}) == "ok"


@pytest.mark.parametrize("code,text", [("import os; os._exit(3)", "exit status 3"),
                                       ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal: killed"),
                                       ("import ctypes; ctypes.string_at(0)", "signal: segmentation fault"),
                                       ("import os; os.abort()", "signal: aborted")])
def test_a_crash_in_the_middle(pylab, code, text):
    response = pylab.invoke({"code": code}, LogType="Tail")
    request_id = response["ResponseMetadata"]["RequestId"]
    assert response["FunctionError"] == "Unhandled"
    assert response["Answer"]["errorType"] == "Runtime.ExitError"
    assert response["Answer"]["errorMessage"].startswith(f"RequestId: {request_id} Error: Runtime exited with error: {text}")
    assert "REPORT RequestId" in tail(response)
    assert pylab.run("result = 'fine'") == "fine"


def test_a_crash_hurts_only_its_own_environment(deploy, python):
    function = deploy("""
        import os, time, uuid
        MINE = uuid.uuid4().hex
        def handler(event, context):
            if event.get("crash"):
                os._exit(1)
            time.sleep(event.get("hold", 0))
            return MINE
    """, python, Timeout=10)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(function.call, {"hold": 1})
        until(lambda: not slow.done(), "the slow call to start")
        assert function.invoke({"crash": True})["FunctionError"]
        assert slow.result()


def test_killing_a_warm_environment_never_hurts_the_next_call(server, deploy, python, is_root):
    function = deploy(ID, python)
    first = function.call()
    pids = server.environments_of(function.name)
    if not pids:
        pytest.skip("the environment's processes cannot be told from outside here")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    second = function.call()
    assert second != first


def test_killing_again_and_again(server, deploy, python):
    function = deploy(ID, python)
    seen = set()
    for _ in range(10):
        seen.add(function.call())
        for pid in server.environments_of(function.name):
            os.kill(pid, signal.SIGKILL)
    assert function.call() not in seen


def test_an_environment_is_used_again_and_the_newest_first(deploy, python):
    function = deploy("""
        import time
        def handler(event, context):
            time.sleep(event.get("hold", 0))
            return context.log_stream_name
    """, python, Timeout=10)
    with ThreadPoolExecutor(3) as pool:
        three = set(pool.map(lambda _: function.call({"hold": 0.5}), range(3)))
    assert len(three) == 3, "one event at a time each"
    again = [function.call({}) for _ in range(5)]
    assert len(set(again)) == 1 and again[0] in three, "the one that was used last"


@pytest.mark.usefixtures("full_isolation")
def test_an_idle_environment_is_frozen(deploy, python, pylab):
    function = deploy("""
        import threading, time
        ticks = 0
        def tick():
            global ticks
            while True:
                ticks += 1
                time.sleep(0.01)
        threading.Thread(target=tick, daemon=True).start()
        def handler(event, context):
            before = ticks
            time.sleep(event.get("hold", 0))
            return [before, ticks]
    """, python, Timeout=10)
    _, after = function.call({"hold": 0.2})
    pylab.run("import time; time.sleep(1.5)")
    before, _ = function.call({})
    assert before - after < 15, f"{before - after} ticks of 10 ms went by while it was idle for 1.5 s"


def test_updating_the_code_reaches_the_next_call(lam, deploy, python):
    from harness.zips import make_zip
    function = deploy("def handler(e, c):\n    return 0\n", python)
    for number in range(5):
        function.call()
        lab.change(lam, "update_function_code", FunctionName=function.name, ZipFile=make_zip(
            {"lambda_function.py": f"def handler(e, c):\n    return {number}\n"}))
        assert function.call() == number


def test_updating_the_configuration_reaches_the_next_call(lam, deploy, python):
    function = deploy("import os\ndef handler(e, c):\n    return [os.environ.get('VALUE'), c.memory_limit_in_mb]\n", python)
    function.call()
    lab.change(lam, "update_function_configuration", FunctionName=function.name, Environment={"Variables": {"VALUE": "new"}}, MemorySize=192)
    assert function.call() == ["new", "192"]


def test_deleting_a_function_ends_its_environments(server, lam, deploy, python):
    function = deploy(ID, python)
    function.call()
    pids = server.environments_of(function.name)
    lam.delete_function(FunctionName=function.name)
    until(lambda: not [pid for pid in pids if os.path.exists(f"/proc/{pid}")], "its processes to end")


def test_an_environment_is_reclaimed_after_its_idle_time(new_server, python):
    server = new_server(flags=["--idle-timeout-seconds", "1"]).start()
    function = lab.create(aws.client(server), ID, python, name="idle")
    first = function.call()
    until(lambda: not server.environments_of("idle"), "it to be reclaimed", 10)
    assert function.call() != first


def test_idle_environments_make_room_for_others(new_server, python):
    server = new_server(flags=["--memory-budget-mb", "600"]).start()
    client = aws.client(server)
    holder = "held = bytearray(150 << 20)\nfor n in range(0, len(held), 4096):\n    held[n] = 1\ndef handler(e, c):\n    return len(held)\n"
    functions = [lab.create(client, holder, python, name=f"f{number}", MemorySize=256) for number in range(5)]
    for function in functions * 2:
        assert function.call() == 150 << 20
    until(lambda: sum(bool(server.environments_of(f.name)) for f in functions) <= 3, "the budget to be kept")


def test_a_burst_of_first_calls(deploy, python):
    function = deploy("import time\ndef handler(e, c):\n    time.sleep(0.2)\n    return e\n", python, Timeout=30)
    with ThreadPoolExecutor(40) as pool:
        assert sorted(pool.map(function.call, range(40))) == list(range(40))


def limited(new_server, limit):
    """A server whose account may run `limit` environments at once."""
    return new_server(config=f"account_concurrency = {limit}\n").start()


def test_more_calls_than_the_account_may_run(new_server, python):
    server = limited(new_server, 2)
    client = aws.client(server)
    function = lab.create(client, "import time\ndef handler(e, c):\n    time.sleep(e)\n    return 'done'\n", python, Timeout=10)
    function.call(0)
    raw = aws.Raw(server)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: raw.send("POST", aws.function_path(function.name, "invocations"), b"1.5"), range(6)))
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [200, 200, 429, 429, 429, 429]
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.error == "TooManyRequestsException"
    assert refused.json["Reason"] == "ConcurrentInvocationLimitExceeded" and refused.message == "Rate Exceeded."
    assert int(refused.headers["retry-after"]) >= 0
    assert function.call(0) == "done"
    assert client.get_account_settings()["AccountLimit"]["ConcurrentExecutions"] == 2


def test_events_wait_when_the_account_is_full_and_none_is_lost(new_server, python):
    server = limited(new_server, 2)
    client, logs = aws.client(server), aws.client(server, "logs")
    function = lab.create(client, "import time\ndef handler(e, c):\n    time.sleep(0.2)\n    print('ran', e)\n", python, Timeout=10)
    for number in range(12):
        assert function.invoke(number, InvocationType="Event")["StatusCode"] == 202

    def ran():
        return {m.strip() for m in aws.log_messages(logs, function.name, "ran")} >= {f"ran {n}" for n in range(12)}

    until(ran, "all twelve events to have run", 60)


def test_a_caller_who_goes_away_does_not_stop_the_function(server, deploy, python, logs):
    import socket
    function = deploy("import time\ndef handler(e, c):\n    print('began', flush=True)\n    time.sleep(1)\n    print('came to its end')\n",
                      python, Timeout=5)
    function.call()
    raw = aws.Raw(server)
    path = aws.function_path(function.name, "invocations")
    signed = raw.sign("POST", path, b"{}").headers.items()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 2\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in signed if name.lower() not in ("host", "content-length"))
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + b"\r\n{}")
        until(lambda: len(aws.log_messages(logs, function.name, "began")) == 2, "the invocation to begin")

    def ended():
        return len(aws.log_messages(logs, function.name, '"came to its end"')) == 2

    until(ended, "the abandoned invocation to end and to be logged", 10)
