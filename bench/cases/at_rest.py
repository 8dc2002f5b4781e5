"""Start, memory and size of a server that has nothing to do."""

import statistics

from tools.memory import resident_kb
from tools.places import MARTLET, say
from tools.server import Server

from .code import ECHO


def measure(bench, base, flags):
    count = bench.rounds(100, 10)
    with Server(base, flags) as server:
        say(f"{count} functions at rest")
        for number in range(count):
            server.deploy(f"rest-{number}", ECHO, "app.py")
    ready = []
    for _ in range(bench.rounds(10, 2)):
        with Server(base, flags) as server:
            ready.append(server.ready_ms)
            resident = resident_kb(server.process.pid) / 1024
    bench.raw["ready_ms"] = ready
    bench.row(f"ready after its start, {count} functions", f"median {statistics.median(ready):.0f} ms, worst {max(ready):.0f} ms", target="<= 150 ms",
              met=statistics.median(ready) <= 150)
    bench.raw["resident_mb"] = resident
    bench.row(f"resident, idle, {count} functions", f"{resident:.1f} MB", target="<= 40 MB", met=resident <= 40)
    size = MARTLET.stat().st_size / 1e6
    bench.raw["binary_mb"] = size
    bench.row("release binary", f"{size:.1f} MB", target="<= 40 MB", met=size <= 40)
