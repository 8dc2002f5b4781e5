"""10,000 deployed functions: how long a start takes, what the server weighs, and what a call of one costs."""

import base64
import io
import shutil
import threading
import zipfile

from tools.memory import resident_kb
from tools.places import Unmeasured, say
from tools.server import Server, runtime_names

from .code import ECHO

FUNCTIONS = {"short": 50, "usual": 10_000}
SLOWER = 1.2
# Servers and load on one core: where the scheduler puts two servers decides more than what they do.
PINNED = ["taskset", "-c", "0"] if shutil.which("taskset") else []
CONNECTIONS = 8
ROLE = "arn:aws:iam::000000000000:role/bench"


def measure(bench, base, flags):
    runtime = runtime_names().get("python")
    if not runtime:
        raise Unmeasured("no Python here")
    count = FUNCTIONS["short" if bench.short else "usual"]
    with Server(base / "one", flags, PINNED) as one:
        create(one, runtime, ["f-0"])
        with Server(base / "many", flags) as many:
            say(f"creating {count} functions")
            create(many, runtime, [f"f-{number}" for number in range(count)])
        with Server(base / "many", flags, PINNED) as many:
            resident = resident_kb(many.process.pid) / 1024
            bench.row(f"ready after its start, {count:,} functions", f"{many.ready_ms:.0f} ms (one function: {one.ready_ms:.0f} ms)")
            bench.row(f"resident, idle, {count:,} functions", f"{resident:.1f} MB (one function: {resident_kb(one.process.pid) / 1024:.1f} MB)")
            bench.raw["many"] = {"functions": count, "ready_ms": many.ready_ms, "resident_mb": resident}
            runs = {"one": [], "many": []}
            for number in range(bench.rounds(5, 1)):
                for name, server, function in (("one", one, "f-0"), ("many", many, f"f-{count // 2}")):
                    port, arguments = server.load(function)
                    runs[name].append(bench.once(f"dispatch-{name}", number, port, *arguments, prefix=PINNED)["p50_us"])
            # The least of each: the question is what the table of functions costs.
            ratio = min(runs["many"]) / min(runs["one"])
            bench.row(f"warm Python, one of {count:,} functions", f"p50 {min(runs['many']):.0f} us", f"one function: p50 {min(runs['one']):.0f} us", ratio,
                      f"<= {SLOWER}x", ratio <= SLOWER)


def create(server, runtime, names):
    """Creates functions over a few connections and waits until all are active."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as package:
        package.writestr(zipfile.ZipInfo("app.py"), ECHO)
    code = base64.b64encode(archive.getvalue()).decode()
    waiting, problems = list(reversed(names)), []

    def work():
        try:
            with server.client() as client:
                while waiting:
                    try:
                        name = waiting.pop()
                    except IndexError:
                        return
                    client.call("POST", "/2015-03-31/functions", {"FunctionName": name, "Runtime": runtime, "Handler": "app.handler", "Role": ROLE,
                                                                  "MemorySize": 1769, "Code": {"ZipFile": code}})
        except Unmeasured as why:
            problems.append(why)

    threads = [threading.Thread(target=work) for _ in range(min(CONNECTIONS, len(names)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    with server.client() as client:
        while client.call("GET", f"/2015-03-31/functions/{names[-1]}/configuration")["State"] == "Pending":
            pass
