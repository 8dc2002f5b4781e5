"""The real binary as a process of its own, on a free port, with its own data directory."""

import configparser
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from functools import lru_cache
from pathlib import Path

from . import traces
from .paths import martlet_binary
from .waiting import until

READY_SECONDS = 20.0
STOP_SECONDS = 30.0
UNEXPECTED = re.compile(r"(^|\s)ERROR(\s|:)|panicked at|RUST_BACKTRACE")
ANSI = re.compile(r"\x1b\[[0-9;]*m")

# What of the tests' own environment a server may see; the rest (AWS_*, MARTLET_*) would make runs differ.
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "USER", "XDG_RUNTIME_DIR")


@lru_cache
def isolation_flags() -> tuple[str, ...]:
    """The flags that this machine needs to run functions at all, as `martlet doctor` tells; none where it isolates fully.

    Martlet never weakens itself; a user who is told so by the doctor gives these flags, and so do the tests.
    """
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run([str(martlet_binary()), "doctor", "--data-dir", f"{directory}/data", "--output", "json"],
                              capture_output=True, text=True, env=plain_environment(), timeout=30)
    if done.returncode == 0:
        return ()
    try:
        return tuple((json.loads(done.stdout).get("weaker_flags") or "").split())
    except ValueError:
        return ()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def plain_environment(**more: str) -> dict[str, str]:
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | more


class Server:
    """One `martlet up`. Start it with `start()`; `close()` stops it and removes its directory."""

    def __init__(self, flags=(), env=None, config: str | None = None, data_dir: Path | None = None, prefix=(),
                 owner: int | None = None, isolation: tuple[str, ...] | None = None):
        self.base = Path(tempfile.mkdtemp(prefix="martlet-test-"))
        self.base.chmod(0o755)
        if owner is not None:
            os.chown(self.base, owner, owner)
        self.data_dir = Path(data_dir) if data_dir else self.base / "data"
        self.port = free_port()
        self.flags = [*(isolation_flags() if isolation is None else isolation), *flags]
        self.env = dict(env or {})
        self.prefix = list(prefix)
        self.log_path = self.base / "server.log"
        self.process: subprocess.Popen | None = None
        self.traces = traces.Traces()
        self.checked = 0
        self.ready_ms = 0.0
        if config is not None:
            (self.base / "martlet.toml").write_text(config)
            self.flags += ["--config", str(self.base / "martlet.toml")]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def spawn(self) -> "Server":
        """Starts the process without waiting for it to be ready."""
        command = [*self.prefix, str(martlet_binary()), "up", "--data-dir", str(self.data_dir), "--listen",
                   f"127.0.0.1:{self.port}", *self.flags]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.base, env=plain_environment(**self.env))
        return self

    def start(self) -> "Server":
        began = time.monotonic()
        self.spawn()
        until(self._ready_or_dead, f"{self.endpoint}/_martlet/health to answer 200", READY_SECONDS, every=0.005)
        self.ready_ms = (time.monotonic() - began) * 1000
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode} at its start:\n{self.log()}")
        return self

    def _ready_or_dead(self):
        return self.process.poll() is not None or self.health() is not None

    def health(self) -> dict | None:
        """The health document, or None while the server does not answer 200."""
        try:
            with urllib.request.urlopen(f"{self.endpoint}/_martlet/health", timeout=2) as answer:
                return json.load(answer)
        except (OSError, urllib.error.URLError, ValueError):
            return None

    def runtimes(self) -> list[str]:
        """Names of the runtimes that the server says it found."""
        return sorted(set(re.findall(r"python3\.\d+|nodejs\d+\.x|provided\.al\d+", json.dumps(self.health()))))

    def credentials(self) -> dict[str, str]:
        """The default profile of the credentials file that the first start wrote."""
        parser = configparser.ConfigParser()
        assert parser.read(self.data_dir / "credentials"), "there is no credentials file"
        return dict(parser["default"])

    def log(self) -> str:
        return ANSI.sub("", self.log_path.read_text(errors="replace")) if self.log_path.exists() else ""

    def unexpected(self, allowed: str | None = None) -> list[str]:
        """New lines of the log that speak of an error or a panic, but for those that match `allowed`."""
        text = self.log()
        new, self.checked = text[self.checked:], len(text)
        lines = [line for line in new.splitlines() if UNEXPECTED.search(line)]
        return [line for line in lines if not (allowed and re.search(allowed, line))]

    def below(self) -> set[tuple[int, int]]:
        return traces.descendants(self.pid)

    def environments_of(self, function: str) -> list[int]:
        """Pids of the processes that run `function` now, as the host sees them."""
        return [pid for pid, _ in self.below() if traces.function_of(pid) == function]

    def terminate(self, number: int = signal.SIGTERM, seconds: float = STOP_SECONDS) -> int:
        """Sends a signal, waits for the end, and checks that nothing is left; gives the exit code."""
        self.traces.look(self.pid)
        self.process.send_signal(number)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end within {seconds} s of {signal.Signals(number).name}") from None
        self.check_nothing_left()
        return code

    def kill(self) -> None:
        """kill -9, and nothing may be left after it."""
        self.terminate(signal.SIGKILL)

    def check_nothing_left(self) -> None:
        try:
            until(lambda: not self.traces.left(str(self.data_dir)), "nothing to be left of the server", 5)
        except AssertionError:
            raise AssertionError("left behind: " + "; ".join(self.traces.left(str(self.data_dir)))) from None

    def restart(self) -> "Server":
        """Stops it if it runs and starts it again on the same directory and port."""
        if self.process and self.process.poll() is None:
            self.terminate()
        return self.start()

    def close(self) -> None:
        """Stops the server if it still runs and removes everything it had."""
        try:
            if self.process and self.process.poll() is None:
                self.terminate()
        finally:
            if os.environ.get("MARTLET_KEEP"):
                print(f"kept: {self.base}")
            else:
                shutil.rmtree(self.base, ignore_errors=True)
