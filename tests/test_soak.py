"""Many invocations at concurrency 50: no errors, and nothing grows.

The short form runs everywhere; `./test --full-soak test_soak.py` runs the 10,000.
"""

import os
import threading
from pathlib import Path

import pytest
from harness import aws, lab, traces
from harness.waiting import until

CONCURRENCY = 50


def growth_of(server):
    """What must not grow: processes below the server, its descriptors, this machine's mounts, cgroups."""
    readable = os.access(f"/proc/{server.pid}/fd", os.R_OK)
    cgroups = set()
    for process in server.below():
        cgroups |= traces.cgroups_of(process[0])
    return {
        "processes": len(server.below()),
        "descriptors": len(os.listdir(f"/proc/{server.pid}/fd")) if readable else 0,
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "cgroups": len(cgroups),
        "threads": len(os.listdir(f"/proc/{server.pid}/task")),
    }


def at_rest(server):
    """The same, once all that is made ahead has been made: as soon as nothing changes any more."""
    seen = []

    def rests():
        seen.append(growth_of(server))
        return len(seen) > 10 and all(later == seen[-1] for later in seen[-10:])

    until(rests, "the server to come to rest", 30, every=0.1)
    return seen[-1]


def hammer(server, functions, total):
    """Invokes the functions in turn from 50 threads; gives the errors."""
    errors, left, lock = [], iter(range(total)), threading.Lock()

    def work():
        client = aws.client(server)
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                return
            name = functions[number % len(functions)]
            try:
                answer = client.invoke(FunctionName=name, Payload=str(number).encode())
                if answer.get("FunctionError") or answer["Payload"].read() != str(number).encode():
                    errors.append(f"{number}: {answer}")
            except Exception as error:
                errors.append(f"{number}: {error!r}")

    threads = [threading.Thread(target=work) for _ in range(CONCURRENCY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_soak(new_server, python, node, request):
    total = 10_000 if request.config.getoption("--full-soak") else 1_500
    # Kept by their history, functions that were just called so often would stay for minutes.
    server = new_server(flags=["--idle-timeout-seconds", "2", "--keep-alive", "fixed"]).start()
    client = aws.client(server)
    functions = [lab.create(client, "def handler(e, c):\n    return e\n", python, name="p", Timeout=60).name,
                 lab.create(client, "exports.handler = async (e) => e;", node, "index.handler", name="n", Timeout=60).name]
    for name in functions:
        lab.Function(client, name).call(1)
    until(lambda: not server.environments_of("p") and not server.environments_of("n"), "idle environments to be reclaimed", 30, every=0.2)
    before = growth_of(server)
    errors = hammer(server, functions, total)
    assert errors == [], f"{len(errors)} of {total}: {errors[:5]}"
    until(lambda: not server.environments_of("p") and not server.environments_of("n"), "idle environments to be reclaimed", 60, every=0.2)

    def settled():
        now = growth_of(server)
        return now["processes"] <= before["processes"] and now["mounts"] <= before["mounts"] and now["cgroups"] <= before["cgroups"] \
            and now["descriptors"] <= before["descriptors"] + 10 and now["threads"] <= before["threads"] + 8

    try:
        until(settled, "everything to be given back", 15, every=0.2)
    except AssertionError:
        pytest.fail(f"before {before}, after {growth_of(server)}")


def test_environments_come_and_go_without_a_trace(new_server, python):
    """Cold starts in a row: each crash needs a new environment."""
    server = new_server().start()
    function = lab.create(aws.client(server), "import os\ndef handler(e, c):\n    if e: os._exit(1)\n    return 'ok'\n", python, name="dies")
    def die(times):
        for _ in range(times):
            assert function.invoke(1)["FunctionError"]

    # So many that what is kept for the next starts is there before as well as after.
    die(40)
    assert function.call(0) == "ok"
    before = at_rest(server)
    die(100)
    assert function.call(0) == "ok"

    def settled():
        # Two starts more or less may be prepared, each with its processes, cgroups and pipes; a hundred that had left one thing each
        # would show.
        now = growth_of(server)
        return all(now[what] <= before[what] + slack for what, slack in
                   (("processes", 6), ("mounts", 0), ("cgroups", 20), ("descriptors", 70), ("threads", 8)))

    try:
        until(settled, "everything to be given back", 10)
    except AssertionError:
        pytest.fail(f"before {before}, after {growth_of(server)}")
