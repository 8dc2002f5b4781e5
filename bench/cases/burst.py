"""50 concurrent first calls of a function that was never called before."""

import contextlib

from tools.client import together
from tools.floors import node_fork, python_burst
from tools.places import say
from tools.server import Server, interpreters
from tools.table import part

from .code import ECHO, ECHO_NODE, SECONDS_EACH, SLOW, SLOW_NODE

CALLS = 50
ALL_WITHIN_MS = 150


def measure(bench, base, flags):
    here = interpreters()
    for language, key, instant, slow, file in (("Python", "python", ECHO, SLOW, "app.py"), ("Node", "nodejs", ECHO_NODE, SLOW_NODE, "index.mjs")):
        if key not in here:
            say(f"no {language} here")
            continue
        say(f"{CALLS} first calls, {language}")
        with Server(base / language, flags) as server:
            rounds = bench.rounds(7, 1)
            # The first call of one of these makes ready what belongs to the runtime alone.
            server.deploy("before", instant, file)
            with server.client() as client:
                client.invoke("before")
            for what, source, apart in (("that answers at once", instant, 0), (f"that takes {SECONDS_EACH * 1000:.0f} ms, each in an environment of its own", slow, SECONDS_EACH * 1000)):
                name = "slow" if apart else "instant"
                for number in range(rounds):
                    server.deploy(f"{name}-{number}", source, file)
                lasts, medians = [], []
                for number in range(rounds):
                    with contextlib.ExitStack() as stack:
                        clients = [stack.enter_context(server.client()) for _ in range(CALLS)]
                        requests = [client.invocation(f"{name}-{number}") for client in clients]
                        answers = together(clients, requests)
                    took = [(answer.answered_ns - min(other.sent_ns for other in answers)) / 1e6 - apart for answer in answers]
                    lasts.append(max(took))
                    medians.append(part(took, 0.5))
                bench.raw[f"burst-{language}-{name}"] = {"last_ms": lasts, "median_ms": medians}
                last = part(lasts, 0.5)
                floor = bare(language, here[key], rounds) if apart else None
                bench.row(f"{CALLS} concurrent first calls, {language} {what}", f"last answered after {last:.0f} ms (worst run {max(lasts):.0f}), half after {part(medians, 0.5):.0f} ms",
                          floor and f"{CALLS} bare forks {floor:.0f} ms", floor and last / floor, target=f"<= {ALL_WITHIN_MS} ms", met=last <= ALL_WITHIN_MS)


def bare(language, path, rounds):
    """Milliseconds that as many forks of the bare interpreter take, to the last one's end and without what each waits."""
    if language == "Python":
        return part(python_burst(path, "import json, asyncio", CALLS, SECONDS_EACH, rounds), 0.5)
    return CALLS * part(node_fork(path, rounds), 0.5)
