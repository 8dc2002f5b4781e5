"""Asynchronous invocations: how many durable events a second are accepted, and whether their runs keep pace."""

import json
import threading
import time

from tools.places import Unmeasured, say, wait
from tools.server import Server

from .code import ECHO, ECHO_NODE

CALLERS = 64
LEAST_A_SECOND = 5_000
# All that was accepted shall have run after so many times the time that accepting it took.
SLOWEST = 2


def measure(bench, base, flags):
    seconds = bench.seconds * 3
    with Server(base, flags) as server, server.client() as client:
        for language, name, source, file in (("Python", "later-python", ECHO, "app.py"), ("Node", "later-node", ECHO_NODE, "index.mjs")):
            server.deploy(name, source, file)
            client.invoke(name)
            say(f"accepted events, {language}")
            port, arguments = server.load(name, "--concurrency", str(CALLERS), "--header", "X-Amz-Invocation-Type:Event")
            run = bench.once(f"events-{language}", 0, port, *arguments, seconds=seconds)
            wait(lambda: backlog(client) == 0, "every event to have run", seconds * 20 + 60, every=0.02)
            bench.row(f"durable events a second, {language}, {CALLERS} callers",
                      f"{run['per_second']:.0f}/s, p50 {run['p50_us'] / 1000:.1f} ms, p99 {run['p99_us'] / 1000:.1f} ms",
                      target=f">= {LEAST_A_SECOND}/s", met=run["per_second"] >= LEAST_A_SECOND)
            watch = Backlog(client)
            began = time.monotonic()
            # The number that waits is asked for while the load runs, so that its highest is known.
            with watch:
                paced = bench.once(f"events-paced-{language}", 0, port, *arguments, "--rate", str(LEAST_A_SECOND), seconds=seconds)
            accepting = time.monotonic() - began
            wait(lambda: backlog(client) == 0, "every event to have run", seconds * 20 + 60, every=0.02)
            all_run = time.monotonic() - began
            pace = all_run / accepting
            bench.raw.setdefault("events-pace", []).append({"language": language, "accepting": accepting, "all_run": all_run, "backlog": watch.seen})
            bench.row(f"until all of {LEAST_A_SECOND} a second have run, {language}",
                      f"{pace:.2f} times as long as accepting them ({paced['requests'] / all_run:.0f} runs/s; at most {max(watch.seen, default=0)} waited)",
                      target=f"<= {SLOWEST}x", met=pace <= SLOWEST)


def backlog(client):
    request = client.bytes_of("GET", "/_martlet/events", service="martlet")
    return json.loads(client.receive(client.send(request)).good().body)["Backlog"]


class Backlog:
    """Asks how many events wait, a few times a second."""

    def __init__(self, client):
        self.client, self.seen, self.over = client, [], threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        while not self.over.wait(0.25):
            try:
                self.seen.append(backlog(self.client))
            except (OSError, Unmeasured):
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
