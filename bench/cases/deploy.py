"""Deploys under a steady load: new code, a new version, and the alias moved to it, again and again."""

import base64
import io
import threading
import time
import zipfile

from tools.places import Unmeasured, say
from tools.server import Server

from .code import ECHO

RATE, CALLERS = 1_000, 16
SLOWER = 3
# A deploy every so many seconds.
EVERY = 1.0
ALIAS = "live"


def measure(bench, base, flags):
    seconds = bench.seconds * 5
    with Server(base, flags) as server:
        server.deploy("deployed", ECHO, "app.py")
        with server.client() as client:
            point(client, publish(client), "POST")
        port, arguments = server.load(f"deployed:{ALIAS}", "--concurrency", str(CALLERS), "--rate", str(RATE))
        for what, function in (("function", "deployed"), ("alias", f"deployed:{ALIAS}")):
            at_rest = bench.once(f"deploy-one-{what}", 0, *flat(server.load(function)), seconds=bench.seconds)
            bench.row(f"warm Python by {what}, 1 caller", f"p50 {at_rest['p50_us']:.0f} us")
        runs = {"steady": [], "deploys": []}
        for number in range(bench.rounds(3, 1)):
            say(f"{RATE} requests a second, without and with deploys")
            runs["steady"].append(bench.once("deploy-steady", number, port, *arguments, seconds=seconds))
            with Deploys(server) as deploys:
                runs["deploys"].append(bench.once("deploy-deploys", number, port, *arguments, seconds=seconds))
            if deploys.problem:
                raise Unmeasured(f"a deploy failed: {deploys.problem}")
            bench.raw.setdefault("deploys", []).append(deploys.done)
        # The run in the middle by its slowest hundredth; `once` has refused any with an error.
        steady, deploying = (sorted(runs[name], key=lambda run: run["p99_us"])[len(runs[name]) // 2] for name in ("steady", "deploys"))
        ratio = deploying["p99_us"] / steady["p99_us"]
        count = sum(bench.raw["deploys"])
        bench.row(f"{RATE:,} calls a second of an alias, a deploy each second",
                  f"p99 {deploying['p99_us'] / 1000:.2f} ms, worst {deploying['max_us'] / 1000:.1f} ms; {count} deploys, "
                  f"{sum(run['requests'] for run in runs['deploys'])} calls, none lost",
                  f"without deploys: p99 {steady['p99_us'] / 1000:.2f} ms, worst {steady['max_us'] / 1000:.1f} ms", ratio, f"<= {SLOWER}x", ratio <= SLOWER)


def flat(load):
    port, arguments = load
    return (port, *arguments)


def publish(client):
    return client.call("POST", "/2015-03-31/functions/deployed/versions", {})["Version"]


def point(client, version, method="PUT"):
    path = "/2015-03-31/functions/deployed/aliases" + (f"/{ALIAS}" if method == "PUT" else "")
    client.call(method, path, {"FunctionVersion": version} | ({"Name": ALIAS} if method == "POST" else {}))


class Deploys:
    """Deploys until it is left; `done` counts them."""

    def __init__(self, server):
        self.server, self.done, self.problem, self.stop = server, 0, None, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            with self.server.client() as client:
                while not self.stop.wait(EVERY):
                    archive = io.BytesIO()
                    with zipfile.ZipFile(archive, "w") as package:
                        package.writestr(zipfile.ZipInfo("app.py"), f"# {time.monotonic_ns()}\n{ECHO}")
                    client.call("PUT", "/2015-03-31/functions/deployed/code", {"ZipFile": base64.b64encode(archive.getvalue()).decode()})
                    while client.call("GET", "/2015-03-31/functions/deployed/configuration")["LastUpdateStatus"] == "InProgress":
                        time.sleep(0.01)
                    point(client, publish(client))
                    self.done += 1
        except Exception as why:  # told by whoever started the thread
            self.problem = why

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(60)
