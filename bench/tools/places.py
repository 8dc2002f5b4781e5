"""Where things are, and how the bench speaks."""

import os
import socket
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
MARTLET, BENCH = TARGET / "martlet", TARGET / "martlet-bench"
CACHE = ROOT / "bench" / "cache"
CORES = os.cpu_count() or 1


class Unmeasured(Exception):
    """A case could not be measured; the text says why. The others go on."""


class Skipped(Unmeasured):
    """This machine cannot do what the case measures; no fault of anybody."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(condition, what, seconds=20, every=0.001):
    """Gives the first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Unmeasured(f"waited {seconds} s in vain for {what}")
        time.sleep(every)
    return value


def clean_environment():
    """The environment without what would make runs differ."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MARTLET_"))}
