"""Memory of an idle environment that was forked, and a thousand of them."""

import contextlib
import time

from tools.client import together
from tools.memory import below, functions_process, is_keeper, pid_namespace, resident_kb, rollup_kb
from tools.places import Skipped, Unmeasured, say
from tools.server import Server, interpreters
from tools.table import part

from .code import WHO, WHO_NODE

UNIQUE_MB = {"Python": 2, "Node": 10}
IDLE = {"short": 20, "usual": 1_000}
# How many starts tell how fast this machine is, and the most seconds that a call may then keep its environment.
TRIED, LONGEST_HOLD = 20, 28
# How often one of them is called again afterwards.
AGAIN = 200
# An environment at work counts with all that it may use; a thousand of them work at once only because this says so.
FLAGS = ["--dev", "--account-concurrency", "5000", "--memory-budget-mb", "1000000", "--idle-timeout-seconds", "3600"]


def measure(bench, base, flags):
    here = " ".join(interpreters())
    for language, source, file in (("Python", WHO, "app.py"), ("Node", WHO_NODE, "index.mjs")):
        if language.lower()[:4] in here:
            with Server(base / language, [*flags, *FLAGS]) as server:
                server.deploy(language, source, file, memory=256)
                unique(bench, server, language)
    with Server(base / "idle", [*flags, *FLAGS]) as server:
        server.deploy("idle", WHO, "app.py", memory=128)
        idle(bench, server)


def environments(server, name, count, hold):
    """Has so many environments forked, by as many calls at once; gives their pid namespaces."""
    with server.client() as client:
        client.invoke(name, b"0")
        if (start := client.invoke(name, b"0", cold="fork").start) != "fork":
            raise Skipped(f"{name} starts by {start}, not by fork")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(count)]
        requests = [client.invocation(name, str(hold).encode()) for client in clients]
        return {int(answer.body) for answer in together(clients, requests)}


def unique(bench, server, language):
    say(f"memory of an idle environment, {language}")
    namespaces = environments(server, language, bench.rounds(10, 2), 0.5)
    time.sleep(0.2)  # they are to be idle, and frozen
    found = {}
    for pid in below(server.process.pid):
        if (namespace := pid_namespace(pid)) in namespaces:
            private, share = rollup_kb(pid)
            sizes = found.setdefault(namespace, {"private": 0, "share": 0, "keeper": 0})
            if is_keeper(pid):
                sizes["keeper"] += private
            else:
                sizes["private"] += private
                sizes["share"] += share
    if not found:
        raise Unmeasured("no process of the environments was found")
    middle = {what: part([sizes[what] for sizes in found.values()], 0.5) / 1024 for what in ("private", "share", "keeper")}
    bench.raw[f"memory-{language}-kb"] = list(found.values())
    bench.row(f"unique memory of an idle forked environment, {language}", f"{middle['private']:.2f} MB (PSS {middle['share']:.1f} MB; its pid 1 {middle['keeper']:.2f} MB)",
              target=f"<= {UNIQUE_MB[language]} MB", met=middle["private"] <= UNIQUE_MB[language])


def idle(bench, server):
    length = "short" if bench.short else "usual"
    count = IDLE[length]
    say(f"{count} idle environments")
    # Each call keeps its environment until all have one of their own: twice the time that so many starts should take.
    began = time.monotonic()
    environments(server, "idle", TRIED, 0.5)
    each = (time.monotonic() - began - 0.5) / TRIED
    began = time.monotonic()
    namespaces = environments(server, "idle", count, min(1 + 2 * each * count, LONGEST_HOLD))
    took = time.monotonic() - began
    time.sleep(0.5)  # they are to be idle, and frozen
    processes = below(server.process.pid)
    alive = len({pid_namespace(pid) for pid in processes if functions_process(pid)} & namespaces)
    shares = sum(rollup_kb(pid)[1] for pid in processes) / 1024
    with server.client() as client:
        again = [client.invoke("idle", b"0").millis for _ in range(AGAIN)]
    bench.raw["idle"] = {"asked": count, "alive": alive, "seconds": took, "pss_mb": shares}
    bench.row(f"{count} idle environments, Python", f"{alive} alive after {took:.1f} s; all processes together {shares:.0f} MB (PSS), server {resident_kb(server.process.pid) / 1024:.0f} MB; "
              f"a warm call p50 {part(again, 0.5):.2f} ms", target=f"{count} alive", met=alive == count)
