"""A warm invocation through the whole HTTP path, against bare hyper."""

import shutil

from tools.floors import ping
from tools.places import CORES, say
from tools.programs import example
from tools.server import Floor, Server

from .code import ECHO, ECHO_NODE

ZERO, ONE = ["taskset", "-c", "0"], ["taskset", "-c", "1"]
# How server and load are started, and what one warm caller may take: as a ratio to the floor, and in microseconds.
PLACES = {"free": ([], [], 3.5, None), "pinned": (ZERO, ZERO, 8, 80), "apart": (ZERO, ONE, None, None)}
# The functions, and the least rate that sixteen callers shall reach.
LANGUAGES = {"Python": ("echo-python", 12_000), "Node": ("echo-node", 15_000), "provided Rust": ("echo-rust", None)}
# Those that payloads are sent to.
ECHOES = ("Python", "provided Rust")
SIZES = ((1024, "1 KB"), (102_400, "100 KB"), (6_000_000, "6 MB"))


def measure(bench, base, flags):
    rust = example(bench, "echo")
    for name, (server_prefix, prefix, ratio, most_us) in PLACES.items():
        if prefix and not shutil.which("taskset"):
            say(f"taskset is not here: nothing is measured {name}")
            continue
        if name == "apart" and CORES < 2:
            continue
        with Floor(server_prefix) as floor, Server(base, flags, server_prefix) as server:
            server.deploy("echo-python", ECHO, "app.py")
            server.deploy("echo-node", ECHO_NODE, "index.mjs")
            server.deploy_executable("echo-rust", rust)
            say(f"warm, {name}")
            if name != "apart":
                # A call wakes the function's process and is woken by it: no server has less to do than this beside the floor.
                bare = ping(bench.seconds, prefix)
                bench.raw[f"ping-{name}"] = bare
                bench.row(f"ping-pong over a Unix socket, {name}", f"p50 {bare['p50_us']:.1f} us")
            for language, (function, rate) in LANGUAGES.items():
                one = server.load(function)
                bench.duel(f"warm {language}, 1 caller, {name}", f"{function}-{name}", (floor.port, []), one, ratio, prefix, most_us)
            if name != "free":
                continue
            many = ["--concurrency", "16"]
            for language, (function, rate) in LANGUAGES.items():
                calls = server.load(function, *many)
                bench.duel(f"warm {language}, 16 callers", f"{function}-16", (floor.port, many), calls, least_rate=rate)
            for size, text in SIZES:
                payload = ["--payload", str(size)]
                echo = (floor.port, ["--invoke", "echo", *payload])
                for language in ECHOES:
                    function, _ = LANGUAGES[language]
                    bench.duel(f"warm {language}, echo of {text}", f"{function}-{size}", echo, server.load(function, *payload))
