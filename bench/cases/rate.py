"""Forks a second, sustained; and a day's churn, after which server and launcher must be no larger than before."""

from tools.cpu import launcher, used
from tools.memory import resident_kb
from tools.places import CORES, Skipped, say
from tools.server import Server

from .code import ECHO

STARTS_A_SECOND = 400
CHURN = {"short": 200, "usual": 5_000, "long": 100_000}
# What buffers, caches and the allocator may take beyond what they had when the first fifth was over.
GROWTH_KB = 4096
PARTS = 5


def measure(bench, base, flags):
    # Environments have to go as fast as they come.
    with Server(base, [*flags, "--dev", "--idle-timeout-seconds", "1"]) as server:
        server.deploy("forked", ECHO, "app.py", memory=128)
        with server.client() as client:
            client.invoke("forked")
            start = client.invoke("forked", cold="fork").start
        if start != "fork":
            raise Skipped(f"the function starts by {start}, not by fork")
        say("forks a second")
        rate(bench, server)
        say("churn of cold starts")
        churn(bench, server)


def forced(server, *more):
    port, arguments = server.load("forked", "--header", "X-Martlet-Cold-Start:fork", "--expect", "X-Martlet-Start:fork", *more)
    return port, arguments


def rate(bench, server):
    callers, each = 4, 25 if bench.short else 500
    port, arguments = forced(server, "--concurrency", str(callers), "--count", str(each))
    before = used(server.process.pid)
    run = bench.once("forks", 0, port, *arguments, seconds=60)
    after = used(server.process.pid)
    forks = run["per_second"] * (1 - run["others"] / run["requests"])
    bench.row("forks a second, sustained, 4 callers", f"{forks:.0f}/s, each p50 {run['p50_us'] / 1000:.1f} ms, p99 {run['p99_us'] / 1000:.1f} ms",
              target=f">= {STARTS_A_SECOND}/s", met=forks >= STARTS_A_SECOND)
    spent = {who: (after[who] - before[who]) / run["requests"] for who in after}
    bench.raw["forks-cpu-ms"] = spent
    total = sum(spent.values())
    bench.row("cpu time of one of them", f"{total:.2f} ms: " + ", ".join(f"{who} {ms:.2f}" for who, ms in spent.items()),
              f"{CORES} cores have it for {CORES * 1000 / total:.0f}/s")


def churn(bench, server):
    total = CHURN["short" if bench.short else "long" if bench.long else "usual"]
    each, callers = total // PARTS, 4
    sizes, others = [], 0
    for number in range(PARTS):
        port, arguments = forced(server, "--concurrency", str(callers), "--count", str(each // callers))
        others += bench.once("churn", number, port, *arguments, seconds=3600)["others"]
        sizes.append({who: resident_kb(pid) for who, pid in (("server", server.process.pid), ("launcher", launcher(server.process.pid)))})
    bench.raw["churn-resident-kb"] = sizes
    growth = {who: sizes[-1][who] - sizes[0][who] for who in sizes[0]}
    text = ", ".join(f"{who} {sizes[0][who] / 1024:.1f} to {sizes[-1][who] / 1024:.1f} MB" for who in growth)
    bench.row(f"churn of {total:,} cold starts, resident memory after a fifth and at the end", f"{text} ({others} of another kind)",
              target=f"<= {GROWTH_KB // 1024} MB more", met=max(growth.values()) <= GROWTH_KB)
