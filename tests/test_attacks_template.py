"""Attacks by a hostile template: one that speaks the platform's protocol itself, and keeps every capability that it gets on the
way into its environments' namespaces.

What it does to environments of its own function is that function's affair. Nothing of it may reach the platform, another
function or the host.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import lab
from harness.hostile import HOSTILE
from harness.hostile_node import hostile_files
from harness.waiting import until

FILES = {"lambda_function.py": "import hostile\n" + lab.PYTHON_LAB, "hostile.py": HOSTILE}
# What runs in each language where the template lets something run.
RUN = {"python": "result = 'ran'", "node": "return 'ran'"}


@pytest.fixture
def capable(attacker):
    """Runs code in a forked environment that has kept its capabilities, in all namespaces of its sandbox."""
    return attacker


@pytest.fixture(params=RUN)
def hostile(request, deploy):
    """`(make, code)`: deploys a function whose template behaves as it is told; and what its handler is to be sent."""
    runtime = request.getfixturevalue(request.param)
    files = FILES if request.param == "python" else hostile_files(lab.NODE_LAB, True)

    def make(mode, **more):
        return deploy(files, runtime, Timeout=5, MemorySize=256, Environment={"Variables": {"HOSTILE": mode}}, **more)
    return make, {"code": RUN[request.param]}


@pytest.fixture
def bystander(deploy, python):
    """Another function, which has to be served as if nothing were the matter."""
    function = deploy(lab.PYTHON_LAB, python, Timeout=5, MemorySize=512)

    def serves():
        began = time.monotonic()
        assert function.run("result = 'served'") == "served"
        assert time.monotonic() - began < 3
    serves()
    return serves


only_capable = pytest.mark.parametrize("attacker", ["capable", "node-capable"], indirect=True)


@only_capable
def test_the_attacker_has_capabilities(capable):
    """Or the tests below would prove nothing."""
    effective, bounding = capable.run("""
        fields = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
        result = [fields["CapEff"].strip(), fields["CapBnd"].strip()]
    """)
    assert int(effective, 16).bit_count() > 35 and int(bounding, 16).bit_count() > 35


@only_capable
def test_capabilities_open_nothing(capable):
    assert capable.run("""
        import ctypes, os, socket, struct
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall.restype = ctypes.c_long
        done = []

        def tried(name, value):
            if value >= 0:
                done.append(name)

        def attempt(name, action):
            try:
                action()
                done.append(name)
            except OSError:
                pass

        os.makedirs("/tmp/m", exist_ok=True)
        for kind in (b"proc", b"tmpfs", b"sysfs", b"overlay", b"devpts", b"mqueue", b"cgroup2", b"bpf", b"nfs"):
            tried(f"mount {kind}", libc.mount(b"none", b"/tmp/m", kind, 0, None))
        for flags, name in ((4096, "bind"), (4096 | 16384, "recursive bind"), (32, "remount"), (1 << 20, "shared"), (1 << 18, "private"), (8192, "move")):
            tried(name, libc.mount(b"/", b"/tmp/m", None, flags, None))
        for path in (b"/", b"/proc", b"/tmp", b"/var/task", b"/dev", b"/sys"):
            tried(f"umount {path}", libc.umount2(path, 2))
        tried("chroot", libc.chroot(b"/tmp"))
        for name, number, arguments in (("pivot_root", 155, (b"/tmp", b"/tmp/m")), ("open_tree", 428, (-100, b"/", 1)), ("fsopen", 430, (b"tmpfs", 0)),
                                        ("fspick", 433, (-100, b"/", 0)), ("mount_setattr", 442, (-100, b"/", 0, 0, 0)), ("move_mount", 429, (-100, b"/", -100, b"/tmp/m", 0)),
                                        ("bpf", 321, (0, b"\\0" * 128, 128)), ("perf_event_open", 298, (b"\\0" * 128, 0, -1, -1, 0)), ("keyctl", 250, (0, -3, 1)),
                                        ("add_key", 248, (b"user", b"x", b"x", 1, -3)), ("request_key", 249, (b"user", b"x", None, -3)), ("unshare", 272, (0x10000000,)),
                                        ("kcmp", 312, (1, 1, 0, 0, 0)), ("userfaultfd", 323, (1,)), ("io_uring", 425, (8, b"\\0" * 128)), ("pidfd_getfd", 438, (3, 0, 0)),
                                        ("open_by_handle_at", 304, (-100, b"\\0" * 64, 0)), ("reboot", 169, (0xfee1dead, 672274793, 0x1234567, 0)),
                                        ("setdomainname", 171, (b"x", 1)), ("sethostname", 170, (b"x", 1)), ("acct", 163, (b"/tmp/acct",)), ("swapon", 167, (b"/tmp/m", 0)),
                                        ("quotactl", 179, (0x800002, b"/dev/null", 0, 0)), ("fanotify_init", 300, (0, 0)), ("settimeofday", 164, (b"\\0" * 16, None)),
                                        ("memfd_secret", 447, (0,)), ("nfsservctl", 180, (0, 0, 0)), ("vhangup", 153, ())):
            tried(name, libc.syscall(number, *arguments))
        for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
            pid = libc.syscall(56, ctypes.c_ulong(flag | 17), 0, 0, 0, 0)
            if pid == 0:
                os._exit(0)
            tried(f"clone {flag:x}", pid)
            tried(f"unshare {flag:x}", libc.unshare(flag))
        tried("unshare the clock", libc.unshare(0x80))

        def write(path, text):
            number = os.open(path, os.O_WRONLY)
            try:
                os.write(number, text)
            finally:
                os.close(number)

        attempt("mknod", lambda: os.mknod("/tmp/memory", 0o600 | 0o20000, os.makedev(1, 1)))
        attempt("setuid", lambda: os.setuid(0))
        attempt("setgroups", lambda: os.setgroups([0]))
        attempt("chown", lambda: os.chown("/tmp", 0, 0))
        attempt("write to /var/task", lambda: open("/var/task/lambda_function.py", "r+").close())
        attempt("core_pattern", lambda: open("/proc/sys/kernel/core_pattern", "w").close())
        attempt("ip_forward", lambda: open("/proc/sys/net/ipv4/ip_forward", "w").close())
        attempt("uid_map", lambda: write("/proc/self/uid_map", b"0 0 1"))
        attempt("oom_score_adj", lambda: write("/proc/self/oom_score_adj", b"-1000"))
        attempt("real-time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
        attempt("nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, -20))
        result = done
    """) == []


@only_capable
def test_capabilities_over_the_network_namespace(capable):
    """It owns a network namespace. Nothing of the kernel's tables, filters and devices may be within its reach all the same."""
    assert capable.run("""
        import ctypes, fcntl, os, socket, struct
        libc = ctypes.CDLL(None, use_errno=True)
        done = []
        for family, kind, protocol in ((16, socket.SOCK_RAW, 0), (16, socket.SOCK_RAW, 12), (16, socket.SOCK_RAW, 6), (16, socket.SOCK_DGRAM, 16), (17, socket.SOCK_RAW, 768),
                                       (socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_INET, socket.SOCK_RAW, 255), (socket.AF_INET6, socket.SOCK_RAW, 58), (40, socket.SOCK_STREAM, 0),
                                       (44, socket.SOCK_RAW, 0), (38, socket.SOCK_SEQPACKET, 0), (15, socket.SOCK_RAW, 2)):
            try:
                socket.socket(family, kind, protocol).close()
                done.append(f"socket {family} {protocol}")
            except OSError:
                pass
        # Packet filters: replace (64), add counters (65); arp and ip6 tables have the same numbers, ebtables 128.
        for family, level in ((socket.AF_INET, socket.IPPROTO_IP), (socket.AF_INET6, socket.IPPROTO_IPV6)):
            s = socket.socket(family, socket.SOCK_DGRAM)
            for option in (64, 65, 96, 97, 128, 129):
                try:
                    s.setsockopt(level, option, b"\\0" * 128)
                    done.append(f"setsockopt {level} {option}")
                except OSError as error:
                    # Refused by the filter, or by a kernel that has no such option; not by the code behind it.
                    if error.errno not in (1, 92):
                        done.append(f"setsockopt {level} {option}: errno {error.errno}")
            s.close()
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        name = lambda text: struct.pack("16s24x", text)
        # Bridges, tunnels, VLANs, addresses, routes, names: what ip, brctl and vconfig ask for.
        for number, argument in ((0x89a0, name(b"br0")), (0x8916, struct.pack("16sHH4s16x", b"lo", 2, 0, socket.inet_aton("10.0.0.1"))), (0x8914, struct.pack("16sH22x", b"lo", 0)),
                                 (0x890b, b"\\0" * 120), (0x8923, name(b"lo")), (0x89f1, name(b"tunl0")), (0x8983, b"\\0" * 64), (0x8922, struct.pack("16si20x", b"lo", 70000))):
            try:
                fcntl.ioctl(s, number, bytearray(argument))
                done.append(f"ioctl {number:x}")
            except OSError:
                pass
        result = done
    """) == []


@only_capable
def test_capabilities_over_other_processes(capable, server):
    """It sees its sandbox and nothing else, and the keeper of its sandbox is the platform's."""
    done, pids = capable.run("""
        import ctypes, os, sys
        libc = ctypes.CDLL(None, use_errno=True)
        own = {os.getpid(), *sys.modules["hostile"].KEPT.get("processes", [])}
        class Vec(ctypes.Structure):
            _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
        buffer = ctypes.create_string_buffer(64)
        local = Vec(ctypes.addressof(buffer), 64)
        done = []
        pids = sorted(int(n) for n in os.listdir("/proc") if n.isdigit())
        for pid in set(pids + list(range(1, 200))) - own:
            for request in (16, 0x4206):  # attach, seize
                if libc.ptrace(request, pid, 0, 0) == 0: done.append(f"ptrace {pid}")
            if libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(Vec(0x400000, 64)), 1, 0) > 0: done.append(f"readv {pid}")
            if libc.process_vm_writev(pid, ctypes.byref(local), 1, ctypes.byref(Vec(0x400000, 64)), 1, 0) > 0: done.append(f"writev {pid}")
            for what in ("mem", "environ", "maps", "syscall", "stack", "auxv"):
                for mode in ("rb", "r+b"):
                    try:
                        with open(f"/proc/{pid}/{what}", mode) as file:
                            if what != "mem" and file.read(1): done.append(f"{what} {pid}")
                            if what == "mem": done.append(f"{mode} mem {pid}")
                    except OSError:
                        pass
            for link in ("root", "cwd", "exe", "ns/mnt", "ns/user", "ns/pid", "ns/net"):
                try:
                    os.close(os.open(f"/proc/{pid}/{link}", os.O_RDONLY))
                    done.append(f"{link} {pid}")
                except OSError:
                    pass
            try:
                done += [f"{fd} of {pid}" for fd in os.listdir(f"/proc/{pid}/fd")]
            except OSError:
                pass
        result = [done, pids]
    """)
    assert done == [] and len(pids) <= 3, (done, pids)
    assert server.process.poll() is None


@only_capable
def test_namespace_descriptors_lead_nowhere(capable):
    """Those it was given name its own sandbox. Neither they nor what can be asked of them lead above its template."""
    done = capable.run("""
        import ctypes, fcntl, os, sys
        libc = ctypes.CDLL(None, use_errno=True)
        hostile = sys.modules["hostile"]
        kept = [fd for fd in hostile.KEPT["namespaces"]]
        mine = {os.stat(f"/proc/self/ns/{name}").st_ino for name in os.listdir("/proc/self/ns")}
        done = []
        for name in os.listdir("/proc/self/ns"):
            kept.append(os.open(f"/proc/self/ns/{name}", os.O_RDONLY))
        for fd in kept:
            if os.fstat(fd).st_ino not in mine:
                done.append(f"was given {os.readlink('/proc/self/fd/%d' % fd)}")
            for number in (0xb701, 0xb702):  # the namespace that owns it, its parent
                try:
                    found = fcntl.ioctl(fd, number)
                except OSError:
                    continue
                if os.fstat(found).st_ino not in mine:
                    done.append(f"ioctl {number:x} gave {os.readlink('/proc/self/fd/%d' % found)}")
        result = done
    """)
    assert done == []


MODES = ["silent", "gone", "garbage", "lying", "early", "flooding", "breeding"]


def test_templates_that_do_not_do_as_they_are_told(hostile, bystander, server):
    """Each call is answered in the end, however the template behaves, and nobody else notices."""
    hostile, event = hostile
    open_before = len(os.listdir(f"/proc/{server.pid}/fd"))
    functions = [hostile(mode) for mode in MODES]

    def call(function):
        began = time.monotonic()
        return function.invoke(event), time.monotonic() - began

    with ThreadPoolExecutor(len(MODES)) as pool:
        calls = [pool.submit(call, function) for function in functions]
        while not all(call.done() for call in calls):
            bystander()
            time.sleep(0.1)
    for mode, call in zip(MODES, calls):
        response, took = call.result()
        assert response["StatusCode"] == 200 and took < 30, f"{mode}: answered after {took:.1f} s"
        assert response.get("FunctionError") or response["Answer"] == "ran", f"{mode}: {response['Raw'][:300]}"
    for mode, function in zip(MODES, functions):
        function.client.delete_function(FunctionName=function.name)
        until(lambda: not server.environments_of(function.name), f"the processes of the {mode} one to be gone", 15)
    until(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) < open_before + 64, "the descriptors that they sent to be closed")
    bystander()


def test_a_template_that_meddles_with_its_own_environments(hostile, bystander):
    """It may join what it owns and kill there: then its own calls fail or find another environment, and that is all."""
    hostile, event = hostile
    function = hostile("meddling")
    for _ in range(3):
        response = function.invoke(event)
        assert response.get("FunctionError") or response["Answer"] == "ran"
        bystander()


@pytest.mark.usefixtures("full_isolation")
@pytest.mark.parametrize("language, init", [
    ("python", "held = []\nwhile True:\n    held.append(bytearray(1 << 20))\ndef handler(event, context):\n    return 1\n"),
    ("python", "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\ndef handler(event, context):\n    return 1\n"),
    ("node", "const held = [];\nfor (;;) held.push(Buffer.alloc(1 << 20, 1));"),
    ("node", "const { spawn } = require('child_process');\nfor (;;) try { spawn(process.execPath, [__filename]).on('error', () => {}); } catch {}"),
], ids=["memory", "forks", "node-memory", "node-processes"])
def test_init_code_that_takes_everything(request, deploy, bystander, server, language, init):
    function = deploy(init, request.getfixturevalue(language), Timeout=3, MemorySize=128)
    assert function.invoke({}).get("FunctionError")
    bystander()
    function.client.delete_function(FunctionName=function.name)
    until(lambda: not server.environments_of(function.name), "its processes to be gone", 15)
