"""Attacks, run as functions. Each tries to get out of its sandbox and must not.

An attack answers with what it achieved; a test passes when that is nothing, and when the next call works. `attacker` runs it from
each place where code of a function runs: a handler, a template's init code, a forked environment, a hook after the fork,
and a forked environment that has kept the capabilities which it got on the way.
test_attacks_limits.py takes too much, test_attacks_network.py reaches out.
"""

import os
import re
import socket

import pytest
from harness import lab
from harness.zips import make_zip, zip_with_symlink


@pytest.fixture
def secret(server, deploy, python):
    """Another function that holds a secret in its code, its memory, its variables and its /tmp, and stays warm."""
    function = deploy("""
        import os, time
        SECRET = "s3cr3t-" + "in-memory"
        open("/tmp/secret", "w").write(SECRET)
        def handler(event, context):
            return [os.getpid(), SECRET]
    """, python, Environment={"Variables": {"SECRET_VARIABLE": "s3cr3t-variable"}})
    function.call()
    return function


def test_reading_another_function_s_files(secret, attacker, server):
    found = attacker.run("""
        import os
        found = []
        for top, dirs, files in os.walk("/", onerror=lambda e: None):
            if top.startswith(("/proc", "/sys", "/usr", "/lib", "/nix")):
                dirs[:] = []
                continue
            for file in files:
                path = os.path.join(top, file)
                try:
                    if os.path.isfile(path) and os.path.getsize(path) < 1_000_000 and b"s3cr3t-" in open(path, "rb").read():
                        found.append(path)
                except OSError:
                    pass
        result = found
    """)
    assert [path for path in found if not path.startswith("/var/task/")] == []


def test_reading_another_function_s_memory_and_variables(secret, attacker):
    result = attacker.run("""
        import ctypes, os
        got = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                for what in ("environ", "mem", "maps"):
                    try:
                        with open(f"/proc/{name}/{what}", "rb") as f:
                            if b"s3cr3t" in f.read(1 << 20):
                                got.append(f"{name} {what}")
                    except OSError:
                        pass
        libc = ctypes.CDLL(None, use_errno=True)
        class Vec(ctypes.Structure):
            _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
        buffer = ctypes.create_string_buffer(64)
        for pid in range(1, 5000):
            if pid != os.getpid() and libc.process_vm_readv(pid, ctypes.byref(Vec(ctypes.addressof(buffer), 64)), 1,
                                                            ctypes.byref(Vec(0x400000, 64)), 1, 0) > 0:
                got.append(f"process_vm_readv {pid}")
        result = got
    """)
    assert result == []


def test_seeing_or_signalling_processes_of_the_host(attacker, server):
    pids, killed, own = attacker.run("""
        import os, signal
        pids = sorted(int(n) for n in os.listdir("/proc") if n.isdigit())
        killed = []
        # A thread of its own can be signalled as well.
        own = {int(n) for pid in pids if pid != 1 for n in os.listdir(f"/proc/{pid}/task")}
        for pid in list(range(2, 3000)) + [%d]:
            if pid not in own:
                try:
                    os.kill(pid, 0)
                    killed.append(pid)
                except OSError:
                    pass
        result = [pids, killed, os.getpid()]
    """ % server.pid)
    assert len(pids) <= 5 and max(pids) < 100, f"sees {pids}"
    assert killed == []
    assert own in pids
    assert server.process.poll() is None


def test_killing_everything_it_can(attacker, server):
    try:
        attacker.run("import os, signal\nos.kill(-1, signal.SIGKILL)\nos.kill(1, signal.SIGKILL)\nresult = 1")
    except lab.Failed:
        pass
    assert attacker.run("result = 'next'") == "next"


def test_writing_outside_tmp(attacker):
    assert attacker.run("""
        result = []
        for path in event:
            try:
                open(path, "w").write("mine")
                result.append(path)
            except OSError as error:
                pass
    """, ["/x", "/etc/x", "/usr/x", "/usr/bin/x", "/var/task/x", "/var/x", "/opt/x", "/root/x", "/home/x", "/dev/x", "/proc/x", "/sys/x",
          "/var/runtime/x", "/lib/x", "/bin/x", "/run/x", "/var/tmp/x", "/mnt/x", "/srv/x"]) == []


def test_changing_its_own_code_or_the_system(attacker):
    assert attacker.run("""
        import glob, os
        done = []
        targets = ["/etc/passwd", "/etc/hosts", "/bin/sh", *glob.glob("/var/task/*"), *glob.glob("/var/runtime/*"), *glob.glob("/opt/*")]
        for path in targets:
            for what, action in (("write", lambda: open(path, "r+").write("x")), ("unlink", lambda: os.unlink(path)),
                                 ("chmod", lambda: os.chmod(path, 0o777)), ("rename", lambda: os.rename(path, "/tmp/taken")),
                                 ("truncate", lambda: os.truncate(path, 0))):
                try:
                    action()
                    done.append(f"{what} {path}")
                except OSError:
                    pass
        result = done
    """) == []


def test_mounts_and_the_root(attacker):
    assert attacker.run("""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        os.makedirs("/tmp/m", exist_ok=True)
        done = []
        for kind, source in ((b"tmpfs", b"none"), (b"proc", b"proc"), (b"sysfs", b"none"), (b"overlay", b"o"), (b"devpts", b"d"), (b"cgroup2", b"c"), (b"cgroup", b"c")):
            if libc.mount(source, b"/tmp/m", kind, 0, b"") == 0:
                done.append(f"mount {kind}")
        if libc.mount(b"/", b"/tmp/m", None, 4096, None) == 0: done.append("bind")
        if libc.mount(None, b"/", None, 32 | 4096, None) == 0: done.append("remount rw")
        if libc.umount2(b"/proc", 2) == 0: done.append("umount")
        if libc.chroot(b"/tmp") == 0: done.append("chroot")
        if libc.syscall(155, b"/tmp", b"/tmp/m") == 0: done.append("pivot_root")
        for number, name in ((428, "open_tree"), (430, "fsopen"), (429, "move_mount"), (442, "mount_setattr"), (165, "mount")):
            if libc.syscall(number, 0, 0, 0, 0, 0) >= 0: done.append(name)
        result = done
    """) == []


def test_namespaces_and_capabilities(attacker):
    done, status, identity = attacker.run("""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        done = []
        for name, flag in (("user", 0x10000000), ("mount", 0x20000), ("pid", 0x20000000), ("net", 0x40000000), ("ipc", 0x08000000), ("uts", 0x04000000), ("cgroup", 0x02000000)):
            pid = os.fork()
            if pid == 0:
                os._exit(0 if libc.unshare(flag) == 0 else 1)
            if os.waitpid(pid, 0)[1] == 0:
                done.append(f"unshare {name}")
        for path in ("/proc/1/ns/mnt", "/proc/1/ns/pid", "/proc/1/ns/net"):
            try:
                if libc.setns(os.open(path, os.O_RDONLY), 0) == 0: done.append(f"setns {path}")
            except OSError:
                pass
        for attempt in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgroups([0]), lambda: os.chown("/tmp", 0, 0)):
            try:
                attempt()
                done.append("changed identity")
            except OSError:
                pass
        if libc.sethostname(b"mine", 4) == 0: done.append("sethostname")
        result = [done, open("/proc/self/status").read(), [os.getuid(), os.geteuid(), os.getgid(), os.getgroups()]]
    """)
    assert done == []
    if attacker.name == "capable":
        return  # It has them, and they open nothing: that is what it is for.
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 0, f"{name} {fields[name]}"
    assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"
    assert 0 not in identity[:3] and 0 not in identity[3]


def test_setuid_programs_do_not_help(attacker):
    assert attacker.run("""
        import glob, os, subprocess
        gained = []
        for path in glob.glob("/usr/bin/*") + glob.glob("/bin/*") + glob.glob("/usr/sbin/*"):
            try:
                if os.stat(path).st_mode & 0o6000 and os.path.basename(path) in ("su", "mount", "newgrp", "passwd"):
                    r = subprocess.run([path, "-c", "id -u"] if path.endswith("su") else [path], capture_output=True, text=True, timeout=5, stdin=subprocess.DEVNULL)
                    if r.stdout.strip() == "0":
                        gained.append(path)
            except (OSError, subprocess.TimeoutExpired):
                pass
        result = gained
    """) == []


def test_ptrace(attacker):
    assert attacker.run("""
        import ctypes, os, time
        libc = ctypes.CDLL(None, use_errno=True)
        done = []
        if libc.ptrace(16, 1, 0, 0) == 0: done.append("attach to pid 1")
        pid = os.fork()
        if pid == 0:
            os._exit(0 if libc.ptrace(0, 0, 0, 0) == 0 else 1)
        if os.waitpid(pid, 0)[1] == 0: done.append("traceme")
        result = done
    """) == []


# Syscalls that no function needs: number on x86_64, and arguments that would get past the first checks.
FORBIDDEN = {"bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "keyctl": 250, "add_key": 248, "request_key": 249, "kexec_load": 246,
             "init_module": 175, "finit_module": 313, "delete_module": 176, "reboot": 169, "swapon": 167, "acct": 163, "settimeofday": 164,
             "clock_settime": 227, "iopl": 172, "ioperm": 173, "quotactl": 179, "open_by_handle_at": 304, "name_to_handle_at": 303,
             "process_vm_writev": 311, "kcmp": 312, "io_uring_setup": 425, "pidfd_getfd": 438, "syslog": 103, "vhangup": 153,
             "lookup_dcookie": 212, "move_pages": 279, "fanotify_init": 300}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86_64")
def test_system_calls_that_no_function_needs(attacker):
    answers = attacker.run("""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall.restype = ctypes.c_long
        result = {}
        for name, number in event.items():
            value = libc.syscall(number, 0, 0, 0, 0, 0, 0)
            result[name] = [value, ctypes.get_errno()]
    """, FORBIDDEN)
    # Anything else came from the kernel's own code, past the filter.
    assert {name: answer for name, answer in answers.items() if answer not in ([-1, 1], [-1, 38])} == {}
    assert len(answers) == len(FORBIDDEN)


def test_devices(attacker):
    devices, made, opened = attacker.run("""
        import os, stat
        made, opened = [], []
        for kind, major, minor in ((stat.S_IFBLK, 8, 0), (stat.S_IFBLK, 254, 0), (stat.S_IFCHR, 1, 1)):
            try:
                os.mknod("/tmp/node", 0o600 | kind, os.makedev(major, minor))
                made.append([major, minor])
            except OSError:
                pass
        for name in ("mem", "kmem", "kvm", "fuse", "net/tun", "loop0", "loop-control", "vda", "sda", "nvme0n1", "kmsg", "port"):
            try:
                os.close(os.open(f"/dev/{name}", os.O_RDONLY))
                opened.append(name)
            except OSError:
                pass
        result = [sorted(os.listdir("/dev")), made, opened]
    """)
    assert made == [] and opened == []
    assert set(devices) <= {"null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "tty", "shm", "pts", "ptmx", "mqueue", ".proc"}, devices


def test_the_view_of_proc_that_only_the_kernel_may_see(attacker):
    """A sandbox that is forked into keeps one behind a closed door, since the kernel asks for it."""
    assert attacker.run("""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        reached = []
        door = "/dev/.proc"
        for path in (door, door + "/view", door + "/view/1", door + "/view/sys", "/dev/fd/../../dev/.proc/view", "/proc/self/root/dev/.proc/view"):
            for name, action in (("list", os.listdir), ("enter", os.chdir), ("open", lambda path: os.close(os.open(path, os.O_RDONLY))),
                                 ("chmod", lambda path: os.chmod(path, 0o777)), ("rename", lambda path: os.rename(path, "/tmp/x")), ("rmdir", os.rmdir),
                                 ("link", lambda path: os.stat(path + "/."))):
                try:
                    action(path)
                    reached.append(f"{name} {path}")
                except OSError:
                    pass
        number = libc.open(door.encode(), 0o10000000)
        if number >= 0:
            for name in (b"view", b".", b"view/1/environ"):
                inside = libc.openat(number, name, os.O_RDONLY)
                if inside >= 0:
                    reached.append(f"openat {name}")
                    os.close(inside)
            os.close(number)
        result = reached
    """) == []


def test_what_of_proc_and_sys_is_masked(attacker):
    readable, writable = attacker.run("""
        import glob, os
        readable, writable = [], []
        for path in ("/proc/kcore", "/proc/kallsyms", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/sched_debug", "/proc/keys", "/proc/latency_stats",
                     "/proc/kmsg", "/proc/config.gz", "/proc/1/root/etc/shadow", "/sys/kernel/debug", "/sys/firmware", "/sys/fs/cgroup"):
            try:
                if os.path.isdir(path):
                    if os.listdir(path): readable.append(path)
                elif open(path, "rb").read(64).strip(b"\\0\\n "):
                    readable.append(path)
            except OSError:
                pass
        for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger", "/proc/self/oom_score_adj", "/proc/sys/kernel/hostname",
                     "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cgroup.procs", "/sys/kernel/uevent_helper"):
            try:
                with open(path, "r+") as f:
                    f.write("-1000" if "oom" in path else "x")
                writable.append(path)
            except OSError:
                pass
        result = [readable, writable]
    """)
    assert readable == []
    assert [path for path in writable if "oom_score" not in path] == []
    assert writable == [] or "oom" in writable[0]


def test_reaching_the_server_s_data_directory(attacker, server):
    assert attacker.run("""
        import os
        found = []
        for path in event:
            for p in (path, "/proc/1/root" + path, "/proc/self/root" + path, "/var/task/../.." + path):
                if os.path.exists(p):
                    found.append(p)
        result = found
    """, [str(server.data_dir), str(server.data_dir / "credentials"), str(server.base)]) == []


def test_descriptors_that_lead_outside(attacker):
    """No descriptor was left open to a directory or file of the host, and /proc/self/exe is not our binary."""
    links = attacker.run("""
        import os
        links = {}
        for fd in os.listdir("/proc/self/fd"):
            try:
                links[fd] = os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                pass
        result = [links, os.readlink("/proc/self/exe"), [os.readlink(f"/proc/{p}/exe") for p in os.listdir("/proc") if p.isdigit() and os.access(f"/proc/{p}/exe", os.R_OK)]]
    """)
    outside = {fd: target for fd, target in links[0].items()
               if not re.match(r"pipe:|socket:|anon_inode:|/dev/null|/proc/|/var/task|/memfd", target)}
    if attacker.name == "capable":
        # What it was given to join its own sandbox: those namespaces, and the files that take it into its own groups.
        outside = {fd: target for fd, target in outside.items() if not re.match(r"[a-z]+:\[\d+\]|/sys/fs/cgroup/.*/(tasks|cgroup\.procs)$", target)}
    assert outside == {}
    assert "martlet" not in links[1]


def test_the_environment_tells_nothing_of_the_host(attacker, server):
    seen = attacker.run("""
        import os, socket
        result = [socket.gethostname(), os.listdir("/home") if os.path.isdir("/home") else [], os.listdir("/root") if os.path.isdir("/root") and os.access("/root", os.R_OK) else [],
                  open("/etc/passwd").read(), open("/proc/1/cmdline").read(), open("/proc/self/cgroup").read()]
    """)
    hostname, home, root, passwd, init, cgroup = seen
    assert hostname != socket.gethostname() and home == [] and root == []
    assert len(passwd.splitlines()) <= 4 and "sbx_user1051" in passwd
    assert str(server.data_dir) not in init + cgroup


def test_sandboxes_do_not_see_each_other_s_tmp_or_ipc(attacker, deploy, python):
    other = deploy(lab.PYTHON_LAB, python)
    other.run("""
        import os
        open("/tmp/left-by-other", "w").write("x")
        try:
            os.makedirs("/dev/shm/left-by-other")
        except OSError:
            pass
    """)
    assert attacker.run("import os\nresult = [os.path.exists('/tmp/left-by-other'), os.path.exists('/dev/shm/left-by-other')]") == [False, False]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "/proc/self/environ", ".."])
def test_a_symlink_out_of_the_package(lam, python, loose, target):
    """Refused at the door, or harmless inside: it may only lead to what the sandbox shows anyway."""
    package = zip_with_symlink("link", target, {"lambda_function.py": "def handler(e, c):\n    return open('/var/task/link').read()\n"})
    with pytest.raises(loose.exceptions.ClientError) as refused:
        loose.create_function(FunctionName=lab.unique("link"), Runtime=python, Role="arn:aws:iam::000000000000:role/x",
                              Handler="lambda_function.handler", Code={"ZipFile": package})
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValueException"


def test_a_symlink_inside_the_package_works(deploy, python):
    package = zip_with_symlink("alias.py", "lambda_function.py", {"lambda_function.py": "def handler(e, c):\n    return 'by a link'\n"})
    assert deploy(package, python, "alias.handler").call() == "by a link"


@pytest.mark.parametrize("name", ["../escaped.py", "/etc/escaped.py", "a/../../escaped.py", "..\\escaped.py"])
def test_a_name_that_climbs_out(server, loose, python, name):
    package = make_zip({"lambda_function.py": "def handler(e, c):\n    return 1\n", name: "x"})
    with pytest.raises(loose.exceptions.ClientError):
        loose.create_function(FunctionName=lab.unique("climb"), Runtime=python, Role="arn:aws:iam::000000000000:role/x",
                              Handler="lambda_function.handler", Code={"ZipFile": package})
    assert not list(server.base.rglob("escaped.py"))
    assert not os.path.exists("/etc/escaped.py")


def test_the_frame_to_the_platform_cannot_be_forged(deploy, python, pylab):
    """Writing rubbish to every descriptor hurts only the environment that does it."""
    other = pylab.run("import os; result = os.getpid()")
    function = deploy(lab.PYTHON_LAB, python, Timeout=10)
    for code in ("import os\nfor fd in range(3, 64):\n    try:\n        os.write(fd, b'\\xff' * 4096)\n    except OSError:\n        pass",
                 "import os\nos.closerange(3, 1024)",
                 "import os\nfor fd in range(0, 3): os.close(fd)"):
        try:
            function.run(code)
        except lab.Failed:
            pass
        assert function.run("result = 'fine'") == "fine"
    assert pylab.run("import os; result = os.getpid()") == other


# The key attacks again from the other runtimes, which have bootstraps and paths of their own.

def test_from_node(nodelab, server):
    assert nodelab.run("""
        const fs = require("fs"), net = require("net"), cp = require("child_process");
        const done = [];
        const tried = (name, f) => { try { f(); done.push(name); } catch {} };
        for (const path of ["/etc/x", "/var/task/x", "/usr/x", "/x", "/opt/x"]) tried("write " + path, () => fs.writeFileSync(path, "x"));
        tried("read the data directory", () => fs.readdirSync(event.dir));
        tried("shadow", () => fs.readFileSync("/etc/shadow"));
        tried("setuid", () => process.setuid(0));
        tried("unshare", () => cp.execSync("unshare -Ur true", { stdio: "ignore" }));
        tried("mount", () => cp.execSync("mount -t tmpfs x /tmp", { stdio: "ignore" }));
        if (fs.readdirSync("/proc").filter(n => /^\\d+$/.test(n)).length > 5) done.push("sees processes");
        const reached = await new Promise(resolve => {
          const socket = net.connect(event.port, "127.0.0.1", () => resolve(true));
          socket.on("error", () => resolve(false));
        });
        if (reached) done.push("host loopback");
        return done;
    """, {"dir": str(server.data_dir), "port": server.port}) == []


def test_from_a_custom_runtime(deploy, server):
    import base64
    function = deploy({"bootstrap": lab.SHELL_LAB, "lab.sh": lab.SHELL_LAB_FUNCTION}, "provided.al2023", "lab.handler", Timeout=10)

    def shell(code):
        return base64.b64decode(function.call({"code": base64.b64encode(code.encode()).decode()})).decode()

    assert "uid=993" in shell("id")
    out = shell(f"""
        for d in / /etc /usr /var/task /opt; do (echo x > $d/x) 2>/dev/null && echo "wrote $d"; done
        ls {server.data_dir} 2>/dev/null && echo "data directory"
        (exec 9<>/dev/tcp/127.0.0.1/{server.port}) 2>/dev/null && echo "host loopback"
        (exec 9<>/dev/tcp/192.0.2.1/80) 2>/dev/null && echo network
        mount -t tmpfs x /tmp 2>/dev/null && echo mounted
        unshare -Ur true 2>/dev/null && echo unshared
        cat /etc/shadow 2>/dev/null
        test $(ls -d /proc/[0-9]* | wc -l) -gt 9 && echo "sees processes"
        true
    """)
    assert out == "", out
    assert "/tmp" in shell("df /tmp | tail -1")
