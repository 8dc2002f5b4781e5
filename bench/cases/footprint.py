"""Memory of an idle environment that was forked, and a thousand of them."""

import time

from tools.memory import below, functions_process, is_keeper, pid_namespace, resident_kb, rollup_kb
from tools.places import Skipped, Unmeasured, say, wait
from tools.server import Server, interpreters
from tools.table import part

from .code import WHO, WHO_NODE

UNIQUE_MB = {"Python": 2, "Node": 10}
IDLE = {"short": 20, "usual": 1_000}
# What of a thousand environments is called again afterwards.
AGAIN = 200


def measure(bench, base, flags):
    here = " ".join(interpreters())
    with Server(base, [*flags, "--dev", "--account-concurrency", "5000"]) as server:
        for language, source, file in (("Python", WHO, "app.py"), ("Node", WHO_NODE, "index.mjs")):
            if language.lower()[:4] in here:
                server.deploy(language, source, file, memory=256)
                unique(bench, server, language)
    with Server(base / "idle", [*flags, "--dev", "--account-concurrency", "5000", "--idle-timeout-seconds", "3600"]) as server:
        server.deploy("idle", WHO, "app.py", memory=128)
        idle(bench, server, IDLE["short" if bench.short else "usual"])


def forked(client, name):
    """Starts an environment by fork and gives its pid namespace."""
    answer = client.invoke(name, cold="fork")
    if answer.start != "fork":
        raise Skipped(f"{name} starts by {answer.start}, not by fork")
    return int(answer.body)


def unique(bench, server, language):
    say(f"memory of an idle environment, {language}")
    with server.client() as client:
        client.invoke(language)
        namespaces = {forked(client, language) for _ in range(bench.rounds(10, 2))}
        time.sleep(0.2)  # they are to be idle, and frozen
    environments = {}
    for pid in below(server.process.pid):
        if (namespace := pid_namespace(pid)) in namespaces:
            private, share = rollup_kb(pid)
            found = environments.setdefault(namespace, {"private": 0, "share": 0, "keeper": 0})
            if is_keeper(pid):
                found["keeper"] += private
            else:
                found["private"] += private
                found["share"] += share
    if not environments:
        raise Unmeasured("no process of the environments was found")
    middle = {what: part([found[what] for found in environments.values()], 0.5) / 1024 for what in ("private", "share", "keeper")}
    bench.raw[f"memory-{language}-kb"] = list(environments.values())
    bench.row(f"unique memory of an idle forked environment, {language}", f"{middle['private']:.2f} MB (PSS {middle['share']:.1f} MB; its pid 1 {middle['keeper']:.2f} MB)",
              target=f"<= {UNIQUE_MB[language]} MB", met=middle["private"] <= UNIQUE_MB[language])


def idle(bench, server, count):
    say(f"{count} idle environments")
    began = time.monotonic()
    with server.client() as client:
        client.invoke("idle")
        namespaces = {forked(client, "idle") for _ in range(count)}
        took = time.monotonic() - began
        alive = wait(lambda: living(server, namespaces), "the environments", 5)
        shares = sum(rollup_kb(pid)[1] for pid in below(server.process.pid)) / 1024
        again = [client.invoke("idle").millis for _ in range(AGAIN)]
    bench.raw["idle"] = {"count": count, "alive": alive, "seconds": took, "pss_mb": shares}
    bench.row(f"{count} idle environments, Python", f"{alive} alive after {took:.1f} s; all processes together {shares:.0f} MB (PSS), server {resident_kb(server.process.pid) / 1024:.0f} MB; "
              f"a warm call p50 {part(again, 0.5):.2f} ms", target=f"{count} alive", met=alive == count)


def living(server, namespaces):
    return len({pid_namespace(pid) for pid in below(server.process.pid) if functions_process(pid)} & namespaces)
