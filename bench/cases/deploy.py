"""A deploy under a steady load: new code, a new version, and the alias moved to it."""

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
# When in a run the deploy begins, as a part of it.
BEGINS = 0.4
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
        runs = {"steady": [], "deploy": []}
        for number in range(bench.rounds(3, 1)):
            say(f"{RATE} requests a second, without and with a deploy")
            runs["steady"].append(bench.once("deploy-steady", number, port, *arguments, seconds=seconds))
            with Deploy(server, seconds * BEGINS) as deploy:
                runs["deploy"].append(bench.once("deploy-deploy", number, port, *arguments, seconds=seconds))
            if deploy.problem or not deploy.done:
                raise Unmeasured(f"the deploy failed: {deploy.problem}")
        # The run in the middle by its slowest hundredth; `once` has refused any with an error.
        steady, deploying = (sorted(runs[name], key=lambda run: run["p99_us"])[len(runs[name]) // 2] for name in ("steady", "deploy"))
        ratio = deploying["p99_us"] / steady["p99_us"]
        calls = sum(run["requests"] for run in runs["deploy"])
        bench.row(f"{RATE:,} calls a second of an alias for {seconds:.0f} s, a deploy among them",
                  f"p99 {deploying['p99_us'] / 1000:.2f} ms, worst {deploying['max_us'] / 1000:.1f} ms; {calls:,} calls, none lost",
                  f"without a deploy: p99 {steady['p99_us'] / 1000:.2f} ms, worst {steady['max_us'] / 1000:.1f} ms", ratio, f"<= {SLOWER}x", ratio <= SLOWER)


def flat(load):
    port, arguments = load
    return (port, *arguments)


def publish(client):
    return client.call("POST", "/2015-03-31/functions/deployed/versions", {})["Version"]


def point(client, version, method="PUT"):
    path = "/2015-03-31/functions/deployed/aliases" + (f"/{ALIAS}" if method == "PUT" else "")
    client.call(method, path, {"FunctionVersion": version} | ({"Name": ALIAS} if method == "POST" else {}))


class Deploy:
    """Deploys once, after some seconds."""

    def __init__(self, server, after):
        self.server, self.after, self.done, self.problem, self.stop = server, after, False, None, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            if self.stop.wait(self.after):
                return
            archive = io.BytesIO()
            with zipfile.ZipFile(archive, "w") as package:
                package.writestr(zipfile.ZipInfo("app.py"), f"# {time.monotonic_ns()}\n{ECHO}")
            with self.server.client() as client:
                client.call("PUT", "/2015-03-31/functions/deployed/code", {"ZipFile": base64.b64encode(archive.getvalue()).decode()})
                while client.call("GET", "/2015-03-31/functions/deployed/configuration")["LastUpdateStatus"] == "InProgress":
                    time.sleep(0.01)
                point(client, publish(client))
            self.done = True
        except Exception as why:  # told by whoever started the thread
            self.problem = why

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(60)
