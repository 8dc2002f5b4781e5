"""Started as an ordinary user: the same promises, by unprivileged user namespaces.

As root these tests start the binary as another uid with setpriv; as a user every other test is one of these.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import aws, lab
from harness.aws import tail
from harness.paths import martlet_binary, tool

UID = 64321  # nobody's


@pytest.fixture
def user_server(new_server, tmp_path_factory):
    """Makes a server that a plain uid starts, from a copy of the binary that this uid can read."""
    if os.geteuid() != 0:
        pytest.skip("not root: the other tests run as a user already")
    if not tool("setpriv"):
        pytest.skip("setpriv is not here to change the user with")
    probe = subprocess.run(["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "unshare", "-Ur", "true"], capture_output=True)
    if probe.returncode != 0:
        pytest.skip("unprivileged user namespaces are off here")
    directory = Path("/tmp") / f"martlet-test-bin-{os.getpid()}"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    binary = directory / "martlet"
    if not binary.exists():
        shutil.copy2(martlet_binary(), binary)
    os.environ["MARTLET_BINARY"], before = str(binary), os.environ.get("MARTLET_BINARY")

    def make(*flags):
        server = new_server(isolation=flags, owner=UID, prefix=("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--"))
        server.env["HOME"] = str(server.base)
        return server

    yield make
    if before is None:
        del os.environ["MARTLET_BINARY"]
    else:
        os.environ["MARTLET_BINARY"] = before
    shutil.rmtree(directory, ignore_errors=True)


RELAXED = ("--isolation", "no-cgroups", "--tmp", "memory")


def test_less_isolation_than_configured_is_refused(user_server):
    """Without delegated cgroups full isolation is impossible: the server says so and how to mend it, or runs no function."""
    server = user_server().spawn()
    try:
        code = server.process.wait(5)
    except subprocess.TimeoutExpired:
        client = aws.client(server)
        with pytest.raises(client.exceptions.ClientError):
            lab.create(client, {"bootstrap": "#!/bin/sh\n"}, "provided.al2023", "x", name="f").call()
        return
    assert code == 1
    log = server.log()
    assert "isolation" in log and "no-cgroups" in log and "doctor" in log, log
    server.checked = len(server.log())


def newest(server, language):
    """A user may see fewer interpreters than root does."""
    found = [name for name in server.runtimes() if name.startswith(language)]
    if not found:
        pytest.skip(f"no {language} that a user can run")
    return max(found, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])


def test_functions_run_for_a_user(user_server):
    server = user_server(*RELAXED).start()
    python, node = newest(server, "python"), newest(server, "nodejs")
    client = aws.client(server)
    function = lab.create(client, "import os\ndef handler(e, c):\n    print('as a user')\n    return [e, os.getuid()]\n", python, name="p")
    response = function.invoke({"n": 1}, LogType="Tail")
    assert response["Answer"][0] == {"n": 1} and response["Answer"][1] != 0
    assert "as a user" in tail(response)
    assert lab.create(client, "exports.handler = async (e) => e;", node, "index.handler", name="n").call([2]) == [2]


def test_the_sandbox_is_as_closed(user_server):
    server = user_server(*RELAXED).start()
    python = newest(server, "python")
    function = lab.create(aws.client(server), lab.PYTHON_LAB, python, name="lab", Timeout=10)
    done = function.run("""
        import ctypes, os, socket
        libc = ctypes.CDLL(None, use_errno=True)
        done = []
        for path in ("/x", "/etc/x", "/var/task/x", "/usr/x"):
            try:
                open(path, "w")
                done.append("wrote " + path)
            except OSError:
                pass
        if libc.mount(b"none", b"/tmp", b"tmpfs", 0, b"") == 0: done.append("mount")
        if libc.unshare(0x10000000) == 0: done.append("unshare")
        if len([n for n in os.listdir("/proc") if n.isdigit()]) > 5: done.append("sees processes")
        for path in event["paths"]:
            if os.path.exists(path): done.append("sees " + path)
        s = socket.socket()
        s.settimeout(1)
        try:
            s.connect(("127.0.0.1", event["port"]))
            done.append("host loopback")
        except OSError:
            pass
        if int([l for l in open("/proc/self/status") if l.startswith("CapEff")][0].split()[1], 16): done.append("capabilities")
        result = done
    """, {"paths": [str(server.data_dir), "/root/.bashrc"], "port": server.port})
    assert done == []


def test_crash_deadline_and_restart_for_a_user(user_server):
    server = user_server(*RELAXED).start()
    python = newest(server, "python")
    function = lab.create(aws.client(server), lab.PYTHON_LAB, python, name="lab", Timeout=2)
    assert function.run_failing("while True: pass")["errorType"] == "Sandbox.Timedout"
    assert function.run_failing("import os; os._exit(1)")["errorType"] == "Runtime.ExitError"
    assert function.run("result = 1") == 1
    server.kill()
    server.start()
    assert lab.Function(aws.client(server), "lab").run("result = 2") == 2


def test_doctor_tells_a_user_what_is_missing(user_server):
    server = user_server()
    done = subprocess.run(["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--", os.environ["MARTLET_BINARY"], "doctor",
                           "--data-dir", str(server.data_dir)], capture_output=True, text=True, env={"HOME": str(server.base), "PATH": os.environ["PATH"]})
    assert done.returncode in (0, 1) and "cgroup" in done.stdout.lower() and "namespace" in done.stdout.lower(), done
