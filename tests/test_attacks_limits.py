"""Attacks, run as functions: taking more than the configuration grants.

Processes, threads, files, memory, disk and CPU; each time the machine stays well and the next call works.
"""

import textwrap

import pytest
from harness.waiting import until


@pytest.fixture
def greedy(deploy, python):
    """Runs `code`, which leaves in `result` how much of something it got; gives its answer, or None if it was stopped. The function
    must be well afterwards."""
    def run(code, **config):
        function = deploy("""
            def handler(event, context):
                scope = {}
                if event.get("take"):
                    exec(event["take"], scope)
                return scope.get("result", "ok")
        """, python, Timeout=30, **config)
        response = function.invoke({"take": textwrap.dedent(code)})
        assert function.call({}) == "ok"
        return None if response.get("FunctionError") else response["Answer"]
    return run


def test_a_fork_bomb(server, deploy, python):
    function = deploy("""
        import os
        def handler(event, context):
            if event.get("ok"):
                return "ok"
            if event.get("count"):
                pids, n = [], 0
                try:
                    while n < 5000:
                        pid = os.fork()
                        if pid == 0:
                            os.read(os.pipe()[0], 1)
                        pids.append(pid)
                        n += 1
                except OSError:
                    pass
                for pid in pids:
                    os.kill(pid, 9)
                    os.waitpid(pid, 0)
                return n
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
    """, python, Timeout=10, MemorySize=1769)
    n = function.call({"count": True})
    assert 20 < n <= 1024, f"{n} processes"
    response = function.invoke({})
    assert response["FunctionError"]
    assert function.call({"ok": True}) == "ok"
    until(lambda: len(server.environments_of(function.name)) <= 3, "the bomb's processes to be gone")


def test_too_many_threads(attacker):
    n = attacker.run("""
        import threading
        stop, threads = threading.Event(), []
        threading.stack_size(64 * 1024)
        try:
            while len(threads) < 3000:
                thread = threading.Thread(target=stop.wait, daemon=True)
                thread.start()
                threads.append(thread)
        except RuntimeError:
            pass
        n = len(threads)
        stop.set()
        result = n
    """)
    assert n <= 1024
    assert attacker.run("result = 1") == 1


@pytest.mark.parametrize("size", [512, 640])
@pytest.mark.usefixtures("full_isolation")
def test_filling_tmp(deploy, python, size):
    function = deploy("""
        import errno, os
        def handler(event, context):
            written = 0
            try:
                with open("/tmp/big", "wb") as f:
                    while written < 2 << 30:
                        f.write(b"x" * (1 << 20))
                        written += 1 << 20
                return ["no limit", written]
            except OSError as error:
                return [errno.errorcode[error.errno], written]
            finally:
                os.path.exists("/tmp/big") and os.unlink("/tmp/big")
    """, python, EphemeralStorage={"Size": size}, Timeout=60, MemorySize=1024)
    for _ in range(2):
        kind, written = function.call()
        assert kind == "ENOSPC"
        assert size * 0.93 <= written / (1 << 20) <= size


@pytest.mark.usefixtures("full_isolation")
def test_filling_shared_memory(greedy):
    """/dev/shm is there for multiprocessing; what lies in it is memory of the function."""
    written = greedy("""
        written = 0
        try:
            with open("/dev/shm/big", "wb", buffering=0) as f:
                while written < 1 << 30:
                    written += f.write(b"x" * (1 << 20))
        except OSError:
            pass
        result = written >> 20
    """, MemorySize=256)
    assert written is None or written <= 256


def test_very_many_small_files_in_tmp(deploy, python):
    function = deploy("""
        import errno, os
        def handler(event, context):
            os.makedirs("/tmp/many", exist_ok=True)
            n = 0
            try:
                for n in range(event):
                    os.close(os.open(f"/tmp/many/{n}", os.O_CREAT | os.O_WRONLY))
                return ["done", n + 1]
            except OSError as error:
                return [errno.errorcode[error.errno], n]
    """, python, Timeout=60, MemorySize=1769)
    kind, n = function.call(10_000)
    assert (kind, n) == ("done", 10_000), "ten thousand files are no attack"


def test_ten_thousand_open_files(attacker):
    kind, n = attacker.run("""
        import errno, os
        fds = []
        try:
            while len(fds) < 10_000:
                fds.append(os.open("/dev/null", os.O_RDONLY))
            result = ["no limit", len(fds)]
        except OSError as error:
            result = [errno.errorcode[error.errno], len(fds)]
        for fd in fds:
            os.close(fd)
    """)
    assert kind == "EMFILE" and 900 < n <= 1024


def test_raising_its_own_limits(attacker):
    assert attacker.run("""
        import resource
        raised = []
        for name in ("RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_CORE", "RLIMIT_MEMLOCK"):
            which = getattr(resource, name)
            soft, hard = resource.getrlimit(which)
            if hard == resource.RLIM_INFINITY:
                continue
            try:
                resource.setrlimit(which, (hard + 1, hard + 1))
                raised.append(name)
            except (ValueError, OSError):
                pass
        result = raised
    """) == []


@pytest.mark.usefixtures("full_isolation")
def test_exhausting_memory_in_a_child(greedy):
    code = greedy("""
        import subprocess, sys
        p = subprocess.run([sys.executable, "-S", "-c", "x = []\\nwhile True: x.append(bytearray(1 << 20))"], capture_output=True)
        result = p.returncode
    """, MemorySize=256)
    assert code is None or code != 0, "the child was stopped, or all of it"


@pytest.mark.usefixtures("full_isolation")
def test_memory_by_other_ways_than_malloc(greedy):
    """Shared memory, pipes and page cache count against the function, not the machine."""
    got = greedy("""
        import os
        got = 0
        try:
            fd = os.memfd_create("big")
            while got < 1 << 30:
                got += os.write(fd, b"x" * (1 << 20))
        except OSError:
            pass
        result = got >> 20
    """, MemorySize=128)
    assert got is None or got < 128, got


@pytest.mark.usefixtures("full_isolation")
def test_cpu_is_shared_in_proportion(deploy, python):
    """At 128 MB a function has 72 thousandths of a CPU; it cannot have a whole one."""
    function = deploy("""
        import time
        def handler(event, context):
            wall, cpu = time.monotonic(), time.process_time()
            while time.monotonic() - wall < 2:
                pass
            return time.process_time() - cpu
    """, python, Timeout=20, MemorySize=128)
    used = function.call()
    assert used < 0.6, f"{used:.2f} s of CPU in 2 s with 128 MB"
