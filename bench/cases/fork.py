"""A cold start, request accepted to handler's first line: from a spare, by a real fork, and ordinary.

The client notes the time right before it sends, the handler's first line answers with the time it read: the clock is the
same on both sides of the sandbox, and no answer's way back is in the figure. Starts are forced by a header, which the server
takes in development mode; a signature less to check is the only difference (under 10 us).
"""

import base64
import contextlib
import os
import shutil
import time

from tools import floors
from tools.packages import heavy
from tools.places import Skipped, Unmeasured, say
from tools.server import Server, interpreters, runtime_names
from tools.table import part, spread

from .code import FIRST_LINE, FIRST_LINE_NODE, HEAVY_IMPORTS

# Most milliseconds of a real fork at p50; p99 may be five times as much.
FORK_MS = {"Python": 1.5, "Python with numpy, pandas, boto3": 4.5, "Node": 6.0}
SPARE_MS, SPARE_P99_MS = 0.5, 3.0
TIMES_FASTER = 50
# Between two starts, so that each meets a machine that has nothing else to do.
PAUSE = 0.03


def measure(bench, base, flags):
    paths, names = interpreters(), runtime_names()
    ping = floors.ping(0.2)
    bench.raw["ping"] = ping
    bench.row("a Unix-socket ping-pong between two processes", "", f"p50 {ping['p50_us']:.1f} us")
    for place, prefix in (("free", []), ("pinned", ["taskset", "-c", "0"])):
        if prefix and not shutil.which("taskset"):
            continue
        with Server(base / place, [*flags, "--dev"], prefix) as server, pinned(place == "pinned"):
            for what, deploy, floor in functions(bench, server.base, paths, names):
                say(f"cold by fork, {what}, {place}")
                try:
                    deploy(server)
                    one(bench, server, what, place, floor)
                except Unmeasured as why:
                    bench.failure(f"cold by fork, {what}, {place}", why)


@contextlib.contextmanager
def pinned(wanted):
    """The client, and floors that it starts, on core 0 as well."""
    before = os.sched_getaffinity(0)
    if wanted:
        os.sched_setaffinity(0, {0})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def functions(bench, base, paths, names):
    """(what it is, how it is deployed, its floor) of each function."""
    rounds = bench.rounds(100, 5)
    if path := paths.get("python"):
        yield ("Python", lambda server: server.deploy("light", FIRST_LINE.format(imports=""), "app.py"),
               lambda: ("a fork of the bare interpreter", floors.python_fork(path, "import json, asyncio", None, rounds)))
        if not bench.short:
            yield ("Python with numpy, pandas, boto3", lambda server: deploy_heavy(server, base, path, names["python"]),
                   lambda: ("a fork of it with the imports", floors.python_fork(path, HEAVY_IMPORTS, heavy(path, names["python"]), rounds)))
    if path := paths.get("nodejs"):
        yield ("Node", lambda server: server.deploy("light-node", FIRST_LINE_NODE, "index.mjs"),
               lambda: ("a fork of the bare interpreter and its end", floors.node_fork(path, rounds)))


def deploy_heavy(server, base, path, name):
    """With what Python has compiled, which `martlet deploy` leaves out: an ordinary start is to cost the imports, not the compiler."""
    code = base / "code" / "heavy"
    shutil.copytree(heavy(path, name), code)
    (code / "app.py").write_text(FIRST_LINE.format(imports=HEAVY_IMPORTS))
    package = shutil.make_archive(str(base / "heavy"), "zip", code)
    with open(package, "rb") as file, server.client() as client:
        client.call("POST", "/2015-03-31/functions", {
            "FunctionName": "heavy", "Runtime": name, "Handler": "app.handler", "Role": "arn:aws:iam::000000000000:role/bench", "MemorySize": 1769,
            "Timeout": 30, "Code": {"ZipFile": base64.b64encode(file.read()).decode()}})
        while client.call("GET", "/2015-03-31/functions/heavy/configuration")["State"] == "Pending":
            time.sleep(0.05)


def one(bench, server, what, place, floor):
    """The three starts of one function, and its floor. Targets are for those that the scheduler places."""
    name = {"Python": "light", "Node": "light-node"}.get(what, "heavy")
    floor_name, floor_ms = "", None
    with contextlib.suppress(Unmeasured):
        floor_name, floor_ms = floor()
        bench.raw[f"fork-floor-{name}-{place}"] = floor_ms
    with server.client() as client:
        client.invoke(name)
        seen = {kind: starts(client, name, kind, bench.rounds(*rounds)) for kind, rounds in
                (("spare", (200, 3)), ("fork", (200, 3)), ("ordinary", (10, 1))) if kind != "ordinary" or place == "free"}
    for kind, (found, others) in seen.items():
        bench.raw[f"start-{kind}-{name}-{place}"] = {"ms": found, "others": others}
        if not found:
            bench.failure(f"cold, {what}, {kind}, {place}", Skipped(f"all {others} starts were of another kind"))
            continue
        p50, p99 = part(found, 0.5), part(found, 0.99)
        target, met = "", None
        if place == "free" and kind == "spare":
            target, met = f"<= {SPARE_MS} ms, p99 {SPARE_P99_MS} ms", p50 <= SPARE_MS and p99 <= SPARE_P99_MS
        elif place == "free" and kind == "fork":
            limit = FORK_MS[what]
            target, met = f"<= {limit} ms, p99 {limit * 5} ms", p50 <= limit and p99 <= limit * 5
        text = spread(found) + (f" ({others} of another kind left out)" if others else "")
        against = kind == "fork" and floor_ms
        bench.row(f"cold, {what}, {kind}, {place}", text, f"{floor_name}: {part(floor_ms, 0.5):.2f} ms" if against else None,
                  p50 / part(floor_ms, 0.5) if against else None, target, met)
    if "numpy" in what and seen["fork"][0] and seen.get("ordinary", [None])[0]:
        times = part(seen["ordinary"][0], 0.5) / part(seen["fork"][0], 0.5)
        bench.row(f"{what}: a fork is faster than an ordinary start", f"{times:.0f} times", target=f">= {TIMES_FASTER} times", met=times >= TIMES_FASTER)


def starts(client, name, kind, rounds):
    """Milliseconds to the first line of each start of that kind, and how many were of another. The first is not one of them: what it
    would take, a spare or a sandbox, is made only when it asks."""
    found, others = [], 0
    client.invoke(name, cold=kind)
    for _ in range(rounds):
        time.sleep(PAUSE)
        answer = client.invoke(name, cold=kind)
        if answer.start == kind:
            found.append((int(answer.body) - answer.sent_ns) / 1e6)
        else:
            others += 1
    return found, others
