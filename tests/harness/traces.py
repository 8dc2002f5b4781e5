"""What a server leaves on the machine: processes, mounts, cgroups, loop devices."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from .zips import NAME_FILE


def _stat(pid: int) -> tuple[int, int] | None:
    """Parent and start time of a living (not zombie) process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else (int(fields[1]), int(fields[19]))


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(root: int) -> set[tuple[int, int]]:
    """(pid, start time) of every process below `root`, which is left out."""
    children: dict[int, list[tuple[int, int]]] = {}
    for pid in pids():
        if found := _stat(pid):
            children.setdefault(found[0], []).append((pid, found[1]))
    result, queue = set(), [root]
    while queue:
        for child in children.get(queue.pop(), []):
            result.add(child)
            queue.append(child[0])
    return result


def alive(processes: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Those of `processes` that still run: same pid, same start time."""
    return {(pid, start) for pid, start in processes if (found := _stat(pid)) and found[1] == start}


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def environment_of(pid: int) -> dict[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    return dict(pair.split("=", 1) for pair in raw.decode(errors="replace").split("\0") if "=" in pair)


def function_of(pid: int) -> str | None:
    """The function that a process runs: by the variables that it was started with, or, where it was started before that was
    known, by what the tests put into each package."""
    variables = environment_of(pid)
    if variables.get("_MARTLET_TEMPLATE") != "runtime":
        return variables.get("AWS_LAMBDA_FUNCTION_NAME")
    try:
        return Path(f"/proc/{pid}/root/var/task/{NAME_FILE}").read_text()
    except OSError:
        return None


def cgroups_of(pid: int) -> set[str]:
    """Paths of the cgroup directories that a process is in, by the mounts under /sys/fs/cgroup."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return set()
    result = set()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if path == "/":
            continue
        for name in ([controllers.removeprefix("name=")] if controllers else ["", "unified"]):
            directory = Path("/sys/fs/cgroup") / name / path.lstrip("/")
            if directory.is_dir():
                result.add(str(directory))
    return result


def mounts_about(text: str) -> list[str]:
    """Lines of this process's mount table that mention `text`."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if text in line]


def loops_about(text: str) -> list[str]:
    """Loop devices whose backing file's path has `text` in it."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            path = backing.read_text().strip()
        except OSError:
            continue
        if text in path:
            found.append(f"{backing.parts[3]}: {path}")
    return found


@dataclass
class Traces:
    """What one server was seen to have while it ran."""

    processes: set[tuple[int, int]] = field(default_factory=set)
    commands: dict[int, str] = field(default_factory=dict)
    cgroups: set[str] = field(default_factory=set)
    own_cgroups: set[str] = field(default_factory=lambda: cgroups_of(os.getpid()))

    def look(self, pid: int) -> None:
        """Adds what is below `pid` now."""
        for process in descendants(pid):
            self.processes.add(process)
            self.commands[process[0]] = command_line(process[0])
            self.cgroups |= cgroups_of(process[0]) - self.own_cgroups

    def left(self, directory: str) -> list[str]:
        """What of it is still there; `directory` is the server's data directory."""
        left = [f"process {pid}: {self.commands.get(pid)}" for pid, _ in alive(self.processes)]
        left += [f"cgroup {path}" for path in sorted(self.cgroups) if os.path.isdir(path)]
        left += [f"mount {line}" for line in mounts_about(directory)]
        left += [f"loop device {line}" for line in loops_about(directory)]
        return left
