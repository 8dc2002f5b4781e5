"""A warm invocation through the whole HTTP path, against bare hyper."""

import shutil

from tools.places import CORES, say
from tools.server import Floor, Server

from .code import ECHO, ECHO_NODE

# How server and load are started, and the ratio that a warm Python invocation may reach.
PLACES = {"free": ([], [], 5), "pinned": (["taskset", "-c", "0"], ["taskset", "-c", "0"], 20), "apart": (["taskset", "-c", "0"], ["taskset", "-c", "1"], None)}


def measure(bench, base, flags):
    for name, (server_prefix, prefix, target) in PLACES.items():
        if prefix and not shutil.which("taskset"):
            say(f"taskset is not here: nothing is measured {name}")
            continue
        if name == "apart" and CORES < 2:
            continue
        with Floor(server_prefix) as floor, Server(base, flags, server_prefix) as server:
            server.deploy("echo-python", ECHO, "app.py")
            server.deploy("echo-node", ECHO_NODE, "index.mjs")
            say(f"warm, {name}")
            bench.duel(f"warm Python, 1 caller, {name}", f"python-{name}", (floor.port, []), server.load("echo-python"), target, prefix)
            bench.duel(f"warm Node, 1 caller, {name}", f"node-{name}", (floor.port, []), server.load("echo-node"), prefix=prefix)
            if name != "free":
                continue
            many = ["--concurrency", "16"]
            bench.duel("warm Python, 16 callers", "python-16", (floor.port, many), server.load("echo-python", *many))
            bench.duel("warm Node, 16 callers", "node-16", (floor.port, many), server.load("echo-node", *many))
            for size, text in ((1024, "1 KB"), (102400, "100 KB")):
                payload = ["--payload", str(size)]
                bench.duel(f"warm Python, echo of {text}", f"python-{size}", (floor.port, ["--invoke", "echo", *payload]), server.load("echo-python", *payload))
