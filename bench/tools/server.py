"""The server under test, and the bare one beside it."""

import json
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from .client import Client
from .places import BENCH, MARTLET, Unmeasured, clean_environment, free_port, say, wait


def healthy(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"GET /_martlet/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


class Server:
    """`martlet up` of the release build in a directory that it shares with nobody."""

    def __init__(self, base, flags, prefix=()):
        self.base, self.flags, self.prefix = Path(base), list(flags), list(prefix)
        self.base.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.credentials = self.base / "data" / "credentials"

    def __enter__(self):
        self.log = (self.base / "server.log").open("ab")
        began = time.monotonic()
        self.process = subprocess.Popen(
            [*self.prefix, str(MARTLET), "up", "--data-dir", str(self.base / "data"), "--listen", f"127.0.0.1:{self.port}", *self.flags],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=clean_environment())
        try:
            wait(lambda: healthy(self.port) or self.process.poll() is not None, "the server to be ready", 60)
            if self.process.poll() is not None:
                raise Unmeasured("the server ended at its start: " + (self.base / "server.log").read_text()[-2000:])
        except BaseException:
            self.__exit__()
            raise
        self.ready_ms = (time.monotonic() - began) * 1000
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def martlet(self, *arguments):
        environment = clean_environment() | {"MARTLET_ENDPOINT": f"http://127.0.0.1:{self.port}",
                                             "AWS_SHARED_CREDENTIALS_FILE": str(self.credentials)}
        done = subprocess.run([str(MARTLET), *arguments], env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise Unmeasured(f"martlet {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def deploy(self, name, source, file, memory=1769):
        """Deploys a function of one file."""
        directory = self.base / "code" / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / file).write_text(source)
        self.deploy_directory(name, directory, memory)

    def deploy_executable(self, name, program, memory=1769):
        """Deploys a program that speaks the Runtime API itself."""
        directory = self.base / "code" / name
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(program, directory / "bootstrap")
        self.deploy_directory(name, directory, memory)

    def deploy_directory(self, name, directory, memory=1769):
        self.martlet("deploy", str(directory), "--name", name, "--memory", str(memory), "--timeout", "30")

    def client(self):
        """A connection of its own, that signs as the default profile."""
        return Client(self.port, self.credentials)

    def load(self, function, *more):
        """Where the load generator is to go, and what it is to call."""
        return self.port, ["--invoke", function, "--credentials", str(self.credentials), *more]


class Floor:
    """The bare hyper server."""

    def __init__(self, prefix=()):
        self.prefix = list(prefix)

    def __enter__(self):
        self.process = subprocess.Popen([*self.prefix, str(BENCH), "floor"], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def isolation_flags(base):
    """The flags that this machine needs, as `martlet doctor` tells; none where full isolation is possible."""
    done = subprocess.run([str(MARTLET), "doctor", "--data-dir", str(base / "data"), "--output", "json"], capture_output=True, text=True)
    if done.returncode == 0:
        return []
    flags = (json.loads(done.stdout).get("weaker_flags") or "").split()
    say(f"this machine cannot isolate fully; measuring with {' '.join(flags) or 'nothing'} (see martlet doctor)")
    return flags


def newest():
    """Name and row of the newest runtime of each language that Martlet finds."""
    found = json.loads(subprocess.run([str(MARTLET), "runtimes", "--output", "json"], capture_output=True, text=True).stdout)
    result = {}
    for row in found if isinstance(found, list) else found.get("runtimes", []):
        name = row.get("runtime") or row.get("name") or ""
        number = [int(part) for part in re.findall(r"\d+", name)]
        for language in ("python", "nodejs"):
            if name.startswith(language) and number > result.get(language, ([],))[0]:
                result[language] = (number, name, row)
    return {language: (name, row) for language, (_, name, row) in result.items()}


def interpreters():
    """Paths of the newest Python and Node that Martlet finds."""
    return {language: row.get("path") or row.get("interpreter") for language, (_, row) in newest().items()}


def runtime_names():
    """The names of the newest runtimes: python3.11, nodejs20.x."""
    return {language: name for language, (name, _) in newest().items()}
