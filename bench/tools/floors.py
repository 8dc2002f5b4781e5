"""Floors below which no start of an environment can be: the bare interpreter's start, and a bare fork of it once initialised."""

import json
import os
import subprocess
import time

from .places import BENCH, TARGET, Unmeasured

# The child's first line notes the time; the parent noted it right before the fork.
PYTHON_FORK = """
import os, sys, time, gc, struct
{imports}
gc.freeze()
rounds, out = int(sys.argv[1]), []
for _ in range(rounds):
    reader, writer = os.pipe()
    began = time.monotonic_ns()
    pid = os.fork()
    if pid == 0:
        os.write(writer, struct.pack("q", time.monotonic_ns()))
        os._exit(0)
    out.append(struct.unpack("q", os.read(reader, 8))[0] - began)
    os.waitpid(pid, 0)
    os.close(reader), os.close(writer)
print(*out)
"""

# All are forked at once; each waits as long as a call takes.
PYTHON_BURST = """
import os, sys, time, gc
{imports}
gc.freeze()
rounds, count, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
for _ in range(rounds):
    began = time.monotonic_ns()
    for _ in range(count):
        if os.fork() == 0:
            time.sleep(seconds)
            os._exit(0)
    for _ in range(count):
        os.wait()
    print(time.monotonic_ns() - began - int(seconds * 1e9))
"""

# V8 keeps its heap from being copied to children; the library undoes that, forks, and waits for the child's end.
NODE_FORK = """
const library = { exports: {} };
process.dlopen(library, process.argv[2]);
for (let round = 0; round < Number(process.argv[1]); round++) {
  library.exports.keepHeap();
  const began = process.hrtime.bigint();
  library.exports.probe();
  console.log(Number(process.hrtime.bigint() - began));
}
"""


def interpreter_start(path, arguments, rounds):
    """Milliseconds from start to end of the interpreter that has nothing to do."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([path, *arguments], stdin=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]}, check=True)
        found.append((time.perf_counter() - began) * 1000)
    return found


def _numbers(command, environment):
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]} | environment, timeout=120)
    if done.returncode != 0:
        raise Unmeasured(f"the floor {command[0]} failed: {done.stderr[-500:]}")
    return [int(number) / 1e6 for number in done.stdout.split()]


def python_fork(path, imports, packages, rounds):
    """Milliseconds of a fork of a Python that has run `imports`, to the child's first line."""
    return _numbers([path, "-c", PYTHON_FORK.format(imports=imports), str(rounds)], {"PYTHONPATH": str(packages or "")})


def python_burst(path, imports, count, seconds, rounds):
    """Milliseconds until so many forks of such a Python, made at once, have ended, without the `seconds` that each waits."""
    return _numbers([path, "-c", PYTHON_BURST.format(imports=imports), str(rounds), str(count), str(seconds)], {})


def park_library():
    """The library that templates park in, as the build left it; None where there is none yet."""
    found = sorted(TARGET.glob("build/martlet-sandbox-*/out/**/*.so"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def node_fork(path, rounds):
    """Milliseconds of a fork of a Node that has started, to the child's end."""
    library = park_library()
    if library is None:
        raise Unmeasured("the build has left no park library")
    return _numbers([path, "--v8-pool-size=0", "--single-threaded", "-e", NODE_FORK, str(rounds), str(library)], {})


def ping(seconds, prefix=()):
    """Microseconds of a few bytes over a Unix socket, to another process and back."""
    done = subprocess.run([*prefix, str(BENCH), "ping", "--seconds", str(seconds)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)
