"""Starts by fork: what is shared between the environments of a template, what must not be, and what happens when one dies."""

import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import aws, cli, lab, traces
from harness.attack import start_of, why_not_forked
from harness.aws import Raw, function_path, tail
from harness.waiting import until

MANY = 12


def depth(pid: int) -> int:
    """In how many pid namespaces a process stands; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return len(re.search(r"NSpid:\t(.*)", status)[1].split())


def templates_of(server, name: str) -> list[int]:
    """Main processes of the function's templates: an environment that was forked stands one namespace deeper."""
    shallow = depth(server.pid) + 1
    return [pid for pid in server.environments_of(name)
            if depth(pid) == shallow and "_MARTLET_TEMPLATE" in traces.environment_of(pid)]


def forked_of(server, name: str) -> list[int]:
    deep = depth(server.pid) + 2
    return [pid for pid in server.environments_of(name) if depth(pid) == deep]


def at_once(function, count, code, seconds=0.7, event=None):
    """Runs `code` in `count` environments: each call keeps its own until all have one."""
    hold = {"p": f"import time\ntime.sleep({seconds})\n", "n": f"await new Promise(done => setTimeout(done, {seconds * 1000}));\n"}
    text = hold["n" if "return " in code else "p"] + lab.textwrap.dedent(code)
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: function.run(text, event), range(count)))


@pytest.fixture
def forks(server):
    """Skips the test where a function that has nothing against it does not start by fork."""
    def check(function):
        if why := why_not_forked(server, function.name):
            pytest.skip(why)
        return function
    return check


@pytest.fixture
def pyforks(deploy, python, forks):
    """A Python lab of this test alone, called once."""
    function = deploy("import random, uuid, secrets, tempfile, ssl, hashlib\nrandom.random(), uuid.uuid4(), secrets.token_hex(), ssl.RAND_bytes(8)\n"
                      "UNTOUCHED = random.Random()\n" + lab.PYTHON_LAB, python, Timeout=10, MemorySize=256)
    function.run("result = 1")
    return forks(function)


@pytest.fixture
def nodeforks(deploy, node, forks):
    function = deploy("const crypto = require('crypto'); Math.random(); crypto.randomUUID(); crypto.randomBytes(8); crypto.randomInt(9);\n" + lab.NODE_LAB,
                      node, "index.handler", Timeout=10, MemorySize=256)
    function.run("return 1")
    return forks(function)


# What is unique

PYTHON_UNIQUE = """
    import os, random, secrets, ssl, tempfile, uuid
    result = {
        "random": random.random(), "bits": random.getrandbits(64), "choice": random.sample(range(10**9), 3), "system": random.SystemRandom().random(),
        "uuid4": str(uuid.uuid4()), "uuid1": str(uuid.uuid1()), "secrets": secrets.token_hex(), "urandom": os.urandom(8).hex(),
        "file": tempfile.NamedTemporaryFile().name, "directory": tempfile.mkdtemp(), "tls": ssl.RAND_bytes(8).hex(),
    }
"""
NODE_UNIQUE = """
    const crypto = require("crypto"), fs = require("fs");
    return {
        random: Math.random(), uuid: crypto.randomUUID(), web: globalThis.crypto ? globalThis.crypto.randomUUID() : crypto.webcrypto.randomUUID(),
        bytes: crypto.randomBytes(8).toString("hex"), int: crypto.randomInt(2 ** 40), values: [...crypto.webcrypto.getRandomValues(new Uint32Array(2))],
        directory: fs.mkdtempSync("/tmp/x"), key: crypto.generateKeyPairSync("x25519").publicKey.export({ type: "spki", format: "der" }).toString("hex"),
    };
"""


@pytest.mark.parametrize("lab_name, code", [("pyforks", PYTHON_UNIQUE), ("nodeforks", NODE_UNIQUE)], ids=["python", "node"])
def test_no_two_environments_draw_the_same(request, lab_name, code):
    function = request.getfixturevalue(lab_name)
    drawn = at_once(function, MANY, code)
    for kind in drawn[0]:
        seen = [str(one[kind]) for one in drawn]
        assert len(set(seen)) == MANY, f"{kind} repeats: {sorted(seen)}"


def test_a_generator_of_the_function_s_own_is_shared(pyforks):
    """What init code seeded for itself is what it is in every environment, as with any snapshot; docs/templates.md says so."""
    drawn = at_once(pyforks, 4, "import sys\nresult = sys.modules['lambda_function'].UNTOUCHED.random()")
    assert len(set(drawn)) == 1


def test_environments_share_nothing_that_they_write(pyforks):
    """Memory, /tmp, System V objects, host name: what one writes no other sees."""
    seen = at_once(pyforks, 6, """
        import lambda_function, os, socket
        before = [getattr(lambda_function, "WRITTEN", None), sorted(os.listdir("/tmp")), sorted(os.listdir("/dev/shm"))]
        lambda_function.WRITTEN = 1
        open("/tmp/mine", "w").close()
        open("/dev/shm/mine", "w").close()
        result = [before, os.getpid(), socket.gethostname()]
    """)
    for before, pid, host in seen:
        assert before in ([None, [], []], [1, ["mine"], ["mine"]]) and pid == seen[0][1]
    assert sum(before[0] is None for before, _, _ in seen) >= 5


def test_variables_and_log_streams_are_each_environment_s_own(pyforks, logs):
    seen = at_once(pyforks, 6, """
        import os
        print("I am", os.environ["AWS_LAMBDA_LOG_STREAM_NAME"])
        result = [os.environ["AWS_LAMBDA_LOG_STREAM_NAME"], context.log_stream_name, os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"],
                  sorted(name for name in os.environ if "MARTLET" in name)]
    """)
    assert len({stream for stream, *_ in seen}) >= 6
    for stream, told, kind, ours in seen:
        assert stream == told and kind == "on-demand" and ours == []
        events = logs.get_log_events(logGroupName=f"/aws/lambda/{pyforks.name}", logStreamName=stream, startFromHead=True)["events"]
        said = [event["message"].strip() for event in events if event["message"].startswith("I am")]
        assert said and set(said) == {f"I am {stream}"}


def test_each_environment_s_first_report_has_its_init_duration(pyforks):
    """The template's own init is told with the first; a fork's is the time that it took."""
    hold = "import time\ntime.sleep(0.3)\nresult = context.log_stream_name"
    with ThreadPoolExecutor(6) as pool:
        responses = list(pool.map(lambda _: pyforks.invoke({"code": hold}, LogType="Tail"), range(6)))
    first = [response for response in responses if "Init Duration: " in tail(response)]
    assert len(first) >= 5, "all but the one that was there"
    for response in first:
        assert 0 < float(re.search(r"Init Duration: ([\d.]+) ms", tail(response))[1]) < 1000


# Hooks

def test_hooks_of_python(deploy, python, forks):
    function = forks_called(deploy, forks, """
        from snapshot_restore_py import register_after_restore, register_before_snapshot
        seen = []
        register_before_snapshot(lambda word: seen.append(word), "before 1")
        register_before_snapshot(seen.append, "before 2")
        register_after_restore(seen.append, "after 1")
        register_after_restore(seen.append, "after 2")
        def handler(event, context):
            return seen
    """, python)
    for _ in range(2):
        assert function.call() == ["before 2", "before 1", "after 1", "after 2"]


def test_hooks_of_node(deploy, node, forks):
    function = forks_called(deploy, forks, """
        const seen = [];
        globalThis.martlet.beforeSnapshot(async () => seen.push("before"));
        globalThis.martlet.afterRestore(() => seen.push("after"));
        exports.handler = async () => seen;
    """, node, "index.handler")
    assert function.call() == ["before", "after"]


def forks_called(deploy, forks, code, runtime, handler=None, **config):
    function = deploy(code, runtime, handler, **config)
    function.invoke()
    return forks(function)


def with_a_broken_hook(deploy, python, register):
    """A function that was called; `register` names what takes the hook."""
    function = deploy(f"""
        from snapshot_restore_py import {register}
        def broken():
            raise ValueError("not today")
        {register}(broken)
        def handler(event, context):
            return 1
    """, python)
    assert function.call() == 1
    return function


def test_a_hook_that_fails_before_the_snapshot_is_told_in_the_log(deploy, python, pyforks, logs):
    """The function starts ordinarily then, and without its hooks."""
    function = with_a_broken_hook(deploy, python, "register_before_snapshot")
    messages = until(lambda: [m for m in aws.log_messages(logs, function.name) if m.startswith("INIT_REPORT")], "the report")
    assert "Status: error" in messages[0] and "Runtime.BeforeSnapshotError" in messages[0]
    assert any("not today" in message for message in aws.log_messages(logs, function.name))


def test_a_hook_that_fails_after_the_restore_fails_that_environment_s_init(deploy, python, pyforks, logs):
    """It starts anew inside its first invocation, ordinarily."""
    function = with_a_broken_hook(deploy, python, "register_after_restore")
    until(lambda: any("Runtime.AfterRestoreError" in m for m in aws.log_messages(logs, function.name)), "the report")


# What cannot be forked

THREADS = """
import threading
stop = threading.Event()
threading.Thread(target=stop.wait, name="poller", daemon=True).start()
def handler(event, context):
    return threading.active_count()
"""


def test_threads_of_init_code_mean_an_ordinary_start_which_is_said(deploy, python, server, logs):
    function = deploy(THREADS, python)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: function.call(), range(4))) == [2] * 4, "the thread is there in each"
    start = start_of(server, function.name)
    assert start["Start"] == "ordinary" and "threads" in start["Reason"] and "poller" in start["Reason"], start
    said = until(lambda: [m for m in aws.log_messages(logs, function.name) if "poller" in m], "the reason in the log")
    assert len(said) == 1, said
    listed = cli.martlet(server, "ls", "-v")
    row = next(line for line in listed.out.splitlines() if line.startswith(f"{function.name} "))
    assert "ordinary: " in row and "poller" in row


def test_a_function_can_turn_it_off(deploy, python, server):
    function = deploy(lab.PYTHON_LAB, python, Environment={"Variables": {"MARTLET_FORK_START": "off"}})
    assert function.run("import os\nresult = os.environ['MARTLET_FORK_START']") == "off"
    start = start_of(server, function.name)
    assert start["Start"] == "ordinary" and "MARTLET_FORK_START" in start["Reason"]
    assert templates_of(server, function.name) == [] and forked_of(server, function.name) == []


def test_a_server_can_turn_it_off(new_server, python):
    server = new_server(flags=["--fork-start=false"]).start()
    function = lab.create(aws.client(server), lab.PYTHON_LAB, python)
    assert function.run("result = 1") == 1
    assert start_of(server, function.name) == {"Start": "ordinary", "Reason": "fork_start is off on this server"}
    assert templates_of(server, function.name) == []


def test_what_is_not_forked_says_why(deploy, server):
    function = deploy({"bootstrap": "#!/bin/sh\n"}, "provided.al2023")
    start = start_of(server, function.name)
    assert start["Start"] == "ordinary" and "provided.al2023" in start["Reason"]


def test_nothing_is_known_before_the_first_call(deploy, python, server):
    function = deploy(lab.PYTHON_LAB, python)
    assert start_of(server, function.name) == {"Start": "unknown"}
    listed = Raw(server).call("GET", "/2015-03-31/functions").json["Functions"]
    assert all("Martlet" not in one for one in listed), "a list does not tell"


# Deaths

def test_killing_a_template_touches_no_environment_and_loses_no_call(pyforks, server):
    template, = until(lambda: templates_of(server, pyforks.name), "the template")
    running = threading.Thread(target=lambda: answers.append(pyforks.run("import time\ntime.sleep(1)\nresult = 'ran on'")))
    answers = []
    alive = set(forked_of(server, pyforks.name))
    running.start()
    until(lambda: len(forked_of(server, pyforks.name)) >= 1, "an environment")
    os.kill(template, signal.SIGKILL)
    running.join()
    assert answers == ["ran on"] and alive <= set(forked_of(server, pyforks.name))
    assert at_once(pyforks, 6, "result = 'served'") == ["served"] * 6
    again = until(lambda: templates_of(server, pyforks.name), "another template")
    assert template not in again


def test_killing_templates_while_calls_arrive(pyforks, server):
    """Each call gets its answer, however often the template dies under it."""
    stop = threading.Event()
    killed = []

    def kill():
        while not stop.wait(0.05):
            for pid in templates_of(server, pyforks.name):
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                except ProcessLookupError:
                    pass

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for _ in range(4):
            assert at_once(pyforks, 6, "result = 'served'", 0.1) == ["served"] * 6
    finally:
        stop.set()
        killer.join()
    assert killed


def test_killing_an_environment(pyforks, server):
    """An idle one is replaced without anybody noticing; a busy one fails its own call only."""
    for pid in forked_of(server, pyforks.name):
        os.kill(pid, signal.SIGKILL)
    assert pyforks.run("result = 'served'") == "served"
    response = pyforks.invoke({"code": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"})
    assert response["FunctionError"] and response["Answer"]["errorType"] in ("Runtime.ExitError", "Sandbox.SignalError"), response["Answer"]
    assert pyforks.run("result = 'served'") == "served"


def test_an_update_while_environments_are_forked(deploy, python, forks, lam):
    """Calls meet the old code or the new, never an error and never the old once the new has answered that it is there."""
    code = "import time\ntime.sleep(0.05)\ndef handler(event, context):\n    time.sleep(0.05)\n    return {}\n"
    function = forks_called(deploy, forks, code.format(0), python, Timeout=10)
    stop, seen, problems = threading.Event(), [], []

    def call():
        while not stop.is_set():
            try:
                seen.append(function.call())
            except Exception as problem:  # noqa: BLE001
                problems.append(problem)
                return

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        for number in range(1, 6):
            package = lab.make_zip({"lambda_function.py": code.format(number)})
            lab.change(lam, "update_function_code", FunctionName=function.name, ZipFile=package)
            assert function.call() == number
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert problems == [] and set(seen) <= set(range(6))


# Bursts, rest and ends

@pytest.mark.parametrize("runtime", ["python", "node"])
def test_fifty_concurrent_first_calls(request, deploy, server, runtime):
    code = {"python": "def handler(event, context):\n    return event\n", "node": "exports.handler = async (event) => event;\n"}[runtime]
    function = deploy(code, request.getfixturevalue(runtime))
    ready = threading.Barrier(50)

    def call(number):
        ready.wait()
        return function.call(number)

    began = time.monotonic()
    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(call, range(50))) == list(range(50))
    took = time.monotonic() - began
    # bench/run --only burst holds the time; this the stampede.
    assert took < 10
    assert len(forked_of(server, function.name)) <= 50


def test_idle_functions_give_their_memory_back(new_server, python):
    server = new_server(flags=["--idle-timeout-seconds", "1", "--keep-alive", "fixed"]).start()
    function = lab.create(aws.client(server), lab.PYTHON_LAB, python)
    assert at_once(function, 4, "result = 1") == [1] * 4
    assert server.environments_of(function.name)
    until(lambda: not forked_of(server, function.name), "the environments to go", 15)


def test_a_stop_leaves_nothing_behind(new_server, python, node):
    """Templates, shells and spares end with the server; `new_server` looks for what is left."""
    server = new_server().start()
    client = aws.client(server)
    for code, runtime, handler in ((lab.PYTHON_LAB, python, "lambda_function.handler"), (lab.NODE_LAB, node, "index.handler")):
        function = lab.create(client, code, runtime, handler)
        assert at_once(function, 3, "result = 1" if runtime is python else "return 1") == [1] * 3
    server.traces.look(server.pid)
    server.kill()
    server.start()
    assert lab.Function(aws.client(server), function.name).run("return 2") == 2
    assert server.terminate() == 0


# Development: asking for a start, and being told

@pytest.mark.parametrize("runtime", ["python", "node"])
def test_a_start_can_be_asked_for_in_development(request, new_server, runtime):
    name = request.getfixturevalue(runtime)
    server = new_server(flags=["--dev"]).start()
    code, handler = ("def handler(e, c):\n    return 1\n", "lambda_function.handler") if runtime == "python" else ("exports.handler = async () => 1;\n", "index.handler")
    function = lab.create(aws.client(server), code, name, handler)
    raw = Raw(server)

    def call(**headers):
        answer = raw.call("POST", function_path(function.name, "invocations"), 1, headers=headers)
        assert answer.status == 200 and answer.body == b"1"
        return answer.headers["x-martlet-start"]

    call()
    if why := why_not_forked(server, function.name):
        pytest.skip(why)
    assert call() == "warm"
    for kind in ("fork", "ordinary", "spare", "fork"):
        assert call(**{"X-Martlet-Cold-Start": kind}) == kind
    assert call() == "warm"
    refused = raw.call("POST", function_path(function.name, "invocations"), 1, headers={"X-Martlet-Cold-Start": "hot"})
    assert refused.status == 400 and "spare, fork or ordinary" in refused.message


def test_a_server_can_force_cold_starts(new_server, python):
    server = new_server(flags=["--cold"]).start()
    function = lab.create(aws.client(server), "import os\nN = []\ndef handler(e, c):\n    N.append(1)\n    return len(N)\n", python)
    assert [function.call() for _ in range(3)] == [1, 1, 1]
    answer = Raw(server).call("POST", function_path(function.name, "invocations"), 1)
    if why := why_not_forked(server, function.name):
        pytest.skip(why)
    assert answer.headers["x-martlet-start"] == "fork"


def test_starts_are_not_for_asking_otherwise(deploy, python, raw):
    function = deploy(lab.PYTHON_LAB, python)
    path = function_path(function.name, "invocations")
    asked = raw.call("POST", path, {"code": "result = 1"}, headers={"X-Martlet-Cold-Start": "fork"})
    assert asked.status == 400 and "--dev" in asked.message
    assert "x-martlet-start" not in raw.call("POST", path, {"code": "result = 1"}).headers
