"""Processes of a server and the memory that they hold, as the kernel counts it."""

import os
from pathlib import Path


def _fields(path):
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {name: rest.strip() for name, _, rest in (line.partition(":") for line in lines) if rest}


def resident_kb(pid):
    return int(_fields(f"/proc/{pid}/status").get("VmRSS", "0").split()[0])


def rollup_kb(pid):
    """(private, PSS) of one process in KB: what only it has, and its share of what it has with others."""
    fields = _fields(f"/proc/{pid}/smaps_rollup")
    number = lambda name: int(fields.get(name, "0").split()[0])  # noqa: E731
    return number("Private_Dirty") + number("Private_Clean"), number("Pss")


def below(root):
    """Pids of everything below the process `root`."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    found, queue = [], [root]
    while queue:
        more = children.get(queue.pop(), [])
        found += more
        queue += more
    return found


def pid_namespace(pid):
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return None


def is_keeper(pid):
    """Whether it is pid 1 of its own namespace."""
    return _fields(f"/proc/{pid}/status").get("NSpid", "").split()[-1:] == ["1"]


def functions_process(pid):
    """Whether it runs a function, a template of one included."""
    try:
        started_as = Path(f"/proc/{pid}/environ").read_bytes()
        return b"AWS_LAMBDA_FUNCTION_NAME=" in started_as or b"_MARTLET_TEMPLATE=runtime" in started_as
    except OSError:
        return False
