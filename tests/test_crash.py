"""kill -9 at the wrong moment: what was promised is kept, and nothing stays behind."""

import os
import random
import signal
import threading

import pytest
from harness import aws, lab, traces
from harness.waiting import until
from harness.zips import make_zip

CODE = "def handler(event, context):\n    print('ran', event)\n    return event\n"


def ran(server, name):
    """The events whose run the log shows, however often."""
    return [m.split(None, 1)[1].strip() for m in aws.log_messages(aws.client(server, "logs"), name, "ran")]


def test_functions_versions_and_tags_survive(new_server, python):
    server = new_server().start()
    client = aws.client(server)
    function = lab.create(client, CODE, python, name="kept", Tags={"a": "b"})
    client.publish_version(FunctionName="kept")
    lab.change(client, "update_function_configuration", FunctionName="kept", Timeout=33)
    client.delete_function(FunctionName=lab.create(client, CODE, python, name="deleted").name)
    server.kill()
    server.start()
    client = aws.client(server)
    assert [f["FunctionName"] for f in client.list_functions()["Functions"]] == ["kept"]
    whole = client.get_function(FunctionName="kept")
    assert whole["Configuration"]["Timeout"] == 33 and whole["Tags"] == {"a": "b"}
    assert client.get_function_configuration(FunctionName="kept", Qualifier="1")["Timeout"] == 3
    function = lab.Function(client, "kept")
    assert function.call([1]) == [1] and function.call([2], Qualifier="1") == [2]


def test_an_event_between_the_202_and_its_run_is_run_after_the_restart(new_server, python):
    server = new_server(config="account_concurrency = 1\n").start()
    client = aws.client(server)
    blocker = lab.create(client, "import time\ndef handler(e, c):\n    time.sleep(4)\n", python, name="blocker", Timeout=5)
    function = lab.create(client, CODE, python, name="promised")
    blocker.invoke(InvocationType="Event")
    until(lambda: server.environments_of("blocker"), "the only place to be taken")
    accepted = [f"event-{n}" for n in range(5)]
    for event in accepted:
        assert function.invoke(event, InvocationType="Event")["StatusCode"] == 202
    assert ran(server, "promised") == []
    server.kill()
    server.start()
    until(lambda: set(ran(server, "promised")) == set(accepted), "every accepted event to have run", 60, every=0.2)


def test_an_event_that_was_running_runs_again(new_server, python):
    server = new_server().start()
    function = lab.create(aws.client(server), "import time\ndef handler(e, c):\n    print('ran', e, flush=True)\n    time.sleep(e)\n",
                          python, name="cut", Timeout=5)
    function.invoke(1.5, InvocationType="Event")
    until(lambda: server.environments_of("cut"), "it to run")
    server.kill()
    server.start()
    until(lambda: "REPORT" in "".join(aws.log_messages(aws.client(server, "logs"), "cut")),
          "it to have run to its end", 30, every=0.2)


def test_an_event_that_has_run_does_not_run_again(new_server, python):
    server = new_server().start()
    function = lab.create(aws.client(server), CODE, python, name="once")
    for number in range(5):
        function.invoke(f"o-{number}", InvocationType="Event")
    until(lambda: len(ran(server, "once")) == 5, "all to run")
    server.restart()
    lab.Function(aws.client(server), "once").call("marker")
    until(lambda: "marker" in ran(server, "once"), "the marker")
    assert sorted(ran(server, "once")) == ["marker", *[f"o-{number}" for number in range(5)]]


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_points_of_the_control_plane(new_server, python, seed):
    """Whatever was answered is there after the restart, and what is there works."""
    server = new_server().start()
    chance = random.Random(seed)
    answered = {}

    def work():
        client = aws.client(server)
        try:
            for number in range(1000):
                name = f"f{number % 7}"
                value = f"{number}"
                package = make_zip({"lambda_function.py": f"def handler(e, c):\n    return {value!r}\n"})
                if name in answered:
                    answered[name] = ("either", answered[name][1], value)
                    lab.change(client, "update_function_code", FunctionName=name, ZipFile=package)
                else:
                    client.create_function(FunctionName=name, Runtime=python, Role=aws.ROLE, Handler="lambda_function.handler",
                                           Code={"ZipFile": package})
                answered[name] = ("is", value)
        except Exception:  # the server was killed
            return

    worker = threading.Thread(target=work)
    worker.start()
    until(lambda: len(answered) >= 2, "some work")
    threading.Event().wait(chance.uniform(0, 0.5))
    server.process.send_signal(signal.SIGKILL)
    worker.join(30)
    server.process.wait()
    client = aws.client(server.start())
    for name, state in answered.items():
        got = lab.Function(client, name).call()
        assert got in state[1:], f"{name} answers {got}, expected one of {state[1:]}"


def test_nothing_is_left_after_kill_9_with_environments_running(new_server, python):
    server = new_server(flags=["--drain-seconds", "1"]).start()
    client = aws.client(server)
    idle = lab.create(client, CODE, python, name="idle")
    busy = lab.create(client, "import time, subprocess\ndef handler(e, c):\n    subprocess.Popen(['sleep', '300'])\n    time.sleep(60)\n", python, name="busy", Timeout=90)
    idle.call(1)
    busy.invoke(InvocationType="Event")
    until(lambda: server.environments_of("busy"), "it to run")
    server.kill()  # looks for what is left
    server.start()
    assert lab.Function(aws.client(server), "idle").call(1) == 1


@pytest.mark.allow_errors("launcher")
def test_nothing_is_left_when_the_launcher_is_killed(new_server, python):
    """Without its launcher the server cannot start sandboxes; it says so and ends.

    No sandbox outlives its launcher; empty cgroups stay until the next start, since only a launcher may remove them.
    """
    server = new_server().start()
    function = lab.create(aws.client(server), CODE, python, name="f")
    function.call(1)
    server.traces.look(server.pid)
    launchers = [(start, pid) for pid, start in server.below() if "__launcher" in server.traces.commands.get(pid, "")]
    if not launchers:
        pytest.skip("no launcher process is to be told by its command line")
    # The others are what it has forked: keepers of sandboxes.
    os.kill(min(launchers)[1], signal.SIGKILL)

    until(lambda: server.process.poll() is not None, "the server to end", 20)
    until(lambda: not traces.alive(server.traces.processes), "every process to end")
    server.start()

    def old():
        """What is still there and not in use again: names are given anew by each launcher."""
        in_use = set().union(*(traces.cgroups_of(pid) for pid, _ in server.below()))
        return [path for path in server.traces.cgroups - in_use if os.path.isdir(path)]

    until(lambda: not old(), "the old cgroups to go")
    assert lab.Function(aws.client(server), "f").call(3) == 3

