"""Cpu time, by who used it."""

import os
from pathlib import Path

from .memory import below

TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def _stat(pid):
    """(parent, milliseconds of its own, milliseconds of the children that it has reaped)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, 0, 0
    return int(fields[1]), (int(fields[11]) + int(fields[12])) * TICK_MS, (int(fields[13]) + int(fields[14])) * TICK_MS


def launcher(server):
    """The launcher of a server: its one child."""
    return next(pid for pid in below(server) if _stat(pid)[0] == server)


def sandboxes(launching):
    """Milliseconds so far of all sandboxes together: what their cgroup tells, since a keeper that is killed tells nothing of what
    ran below it. Without such a cgroup, only of those that ended by themselves and those that are."""
    below_it = [pid for pid in below(launching) if pid != launching]
    for pid in below_it:
        for line in _lines(f"/proc/{pid}/cgroup"):
            _, controllers, path = line.split(":", 2)
            together = Path("/sys/fs/cgroup/cpuacct" + path).parent / "cpuacct.usage"
            if controllers == "cpuacct" and "/martlet-" in path and together.exists():
                return int(together.read_text()) / 1e6
    return sum(sum(_stat(pid)[1:]) for pid in below_it)


def _lines(path):
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def used(server):
    """Milliseconds so far of a server's processes, and of all threads of the kernel, whomever those worked for."""
    launching = launcher(server)
    _, own, apart = _stat(launching)
    every = [_stat(int(name)) for name in os.listdir("/proc") if name.isdigit()]
    return {
        "server": _stat(server)[1],
        "launcher": own,
        "its helpers": apart,
        "sandboxes": sandboxes(launching),
        "kernel threads": sum(own for parent, own, _ in every if parent == 2),
    }
