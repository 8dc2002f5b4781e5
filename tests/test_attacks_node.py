"""Attacks in JavaScript itself, from the five places (harness/attack.py).

What JavaScript has no call for is tried by a Python that the function executes, in the other files: mount, ptrace, setns, raw and
unusual sockets, device nodes, system calls by number.
"""

import os
import re
import socket

import pytest
from harness import attack, lab


@pytest.fixture
def attacker(attacker):
    """Runs JavaScript: the body of an asynchronous function."""
    return attacker.run_own


pytestmark = pytest.mark.parametrize("attacker", [f"node-{place}" for place in attack.PLACES], indirect=True)

# What each attempt begins with: `tried` notes what did not fail.
TRIED = """
const fs = require("fs"), cp = require("child_process"), net = require("net"), dgram = require("dgram"), os = require("os");
const done = [];
const tried = (name, action) => { try { action(); done.push(name); } catch {} };
const pids = fs.readdirSync("/proc").filter((name) => /^\\d+$/.test(name)).map(Number);
const pid = Number(fs.readlinkSync("/proc/self"));
"""


def test_files_and_folders_outside_tmp(attacker, server):
    assert attacker(TRIED + """
        for (const folder of ["/", "/etc", "/usr", "/usr/bin", "/var/task", "/var/runtime", "/var", "/opt", "/root", "/home", "/dev", "/proc", "/sys", "/lib", "/run", "/var/tmp"]) {
          tried(`write in ${folder}`, () => fs.writeFileSync(`${folder}/x`, "x"));
          tried(`mkdir in ${folder}`, () => fs.mkdirSync(`${folder}/made`));
          tried(`link in ${folder}`, () => fs.symlinkSync("/etc/passwd", `${folder}/link`));
        }
        const package_ = fs.readdirSync("/var/task").map((name) => `/var/task/${name}`);
        for (const path of ["/etc/passwd", "/bin/sh", process.execPath, ...package_].filter(Boolean)) {
          tried(`write ${path}`, () => fs.closeSync(fs.openSync(path, "r+")));
          tried(`remove ${path}`, () => fs.rmSync(path));
          tried(`chmod ${path}`, () => fs.chmodSync(path, 0o777));
          tried(`chown ${path}`, () => fs.chownSync(path, 0, 0));
          tried(`rename ${path}`, () => fs.renameSync(path, "/tmp/taken"));
          tried(`truncate ${path}`, () => fs.truncateSync(path, 0));
          tried(`hard link ${path}`, () => fs.linkSync(path, "/tmp/hard"));
          tried(`times ${path}`, () => fs.utimesSync(path, 0, 0));
        }
        for (const path of event) for (const root of ["", "/proc/1/root", "/proc/self/root", "/var/task/../.."])
          tried(`read ${root}${path}`, () => fs.statSync(root + path));
        tried("shadow", () => fs.readFileSync("/etc/shadow"));
        return done;
    """.replace('__filename ?? ""', '""'), [str(server.data_dir), str(server.data_dir / "credentials"), str(server.base)]) == []


def test_processes_by_proc_and_by_signals(attacker, server):
    done, seen = attacker(TRIED + """
        const threads = new Set(pids.filter((other) => other !== 1).flatMap((other) => fs.readdirSync(`/proc/${other}/task`).map(Number)));
        for (const other of [...Array(3000).keys(), event].filter((other) => other > 1 && !threads.has(other)))
          tried(`signal ${other}`, () => process.kill(other, 0));
        for (const other of pids.filter((other) => other !== pid)) {
          for (const name of ["environ", "mem", "maps", "stack", "syscall", "auxv"])
            tried(`${name} of ${other}`, () => { if (!fs.readFileSync(`/proc/${other}/${name}`).length) throw 0; });
          for (const name of ["root", "cwd", "exe", "ns/mnt", "ns/pid", "ns/net", "ns/user"])
            tried(`${name} of ${other}`, () => fs.closeSync(fs.openSync(`/proc/${other}/${name}`)));
          tried(`descriptors of ${other}`, () => fs.readdirSync(`/proc/${other}/fd`));
          tried(`write to ${other}`, () => fs.closeSync(fs.openSync(`/proc/${other}/mem`, "r+")));
          tried(`priority of ${other}`, () => os.setPriority(other, -20));
        }
        return [done, pids];
    """, server.pid)
    assert done == [] and len(seen) <= 3, (done, seen)
    assert server.process.poll() is None


def test_killing_everything_it_can(attacker):
    try:
        attacker('try { process.kill(1, "SIGKILL"); } catch {}\nprocess.kill(-1, "SIGKILL");\nawait new Promise(() => setTimeout(() => {}, 60000));')
    except lab.Failed:
        pass
    assert attacker("return 'next'") == "next"


def test_identity_and_programs_that_would_change_it(attacker):
    assert attacker(TRIED + """
        tried("setuid", () => process.setuid(0));
        tried("setgid", () => process.setgid(0));
        tried("seteuid", () => process.seteuid(0));
        tried("setgroups", () => process.setgroups([0]));
        tried("initgroups", () => process.initgroups(0, 0));
        tried("spawn as root", () => cp.execFileSync("/bin/true", { uid: 0, gid: 0 }));
        tried("priority", () => os.setPriority(0, -20));
        const run = (name, ...words) => tried(name, () => cp.execFileSync(name, words, { stdio: "ignore", timeout: 5000 }));
        run("unshare", "-Ur", "true");
        run("mount", "-t", "tmpfs", "x", "/tmp");
        run("umount", "-l", "/proc");
        run("nsenter", "-t", "1", "-a", "true");
        run("chroot", "/tmp", "/bin/true");
        run("su", "-c", "id");
        run("mknod", "/tmp/node", "b", "8", "0");
        return done;
    """) == []


def test_devices_and_what_only_the_kernel_may_see(attacker):
    devices, done = attacker(TRIED + """
        for (const name of ["mem", "kmem", "kvm", "fuse", "net/tun", "loop0", "loop-control", "vda", "sda", "kmsg", "port"])
          tried(name, () => fs.closeSync(fs.openSync(`/dev/${name}`)));
        for (const path of ["/dev/.proc", "/dev/.proc/view", "/dev/.proc/view/1", "/proc/self/root/dev/.proc/view"]) {
          tried(`list ${path}`, () => fs.readdirSync(path));
          tried(`enter ${path}`, () => process.chdir(path));
          tried(`chmod ${path}`, () => fs.chmodSync(path, 0o777));
          tried(`remove ${path}`, () => fs.rmdirSync(path));
        }
        for (const path of ["/proc/kcore", "/proc/kallsyms", "/proc/timer_list", "/proc/keys", "/proc/kmsg", "/proc/1/root/etc/shadow"])
          tried(path, () => {
            const number = fs.openSync(path), bytes = Buffer.alloc(64);
            if (!bytes.subarray(0, fs.readSync(number, bytes)).toString().replace(/[\\0\\n ]/g, "")) throw 0;
          });
        for (const path of ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger", "/proc/self/uid_map", "/proc/sys/net/ipv4/ip_forward", "/sys/fs/cgroup/cgroup.procs"])
          tried(path, () => fs.writeFileSync(path, "0 0 1"));
        tried("less often killed for memory", () => fs.writeFileSync("/proc/self/oom_score_adj", "-1000"));
        return [fs.readdirSync("/dev"), done];
    """)
    assert done == []
    assert set(devices) <= {"null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "tty", "shm", "pts", "ptmx", "mqueue", ".proc"}, devices


def test_sockets(attacker, server):
    name = f"martlet-node-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as abstract, socket.create_server(("127.0.0.1", 0)) as listener:
        abstract.bind("\0" + name)
        abstract.listen()
        listener.setblocking(False)
        assert attacker(TRIED + """
            const reach = (options) => new Promise((resolve) => {
              const connection = net.connect(options, () => { done.push(options); connection.destroy(); resolve(); });
              connection.on("error", resolve);
              connection.setTimeout(1000, () => { done.push(["a packet went out", options]); connection.destroy(); resolve(); });
            });
            for (const port of event.ports) for (const host of ["127.0.0.1", "::1"]) await reach({ host, port });
            for (const host of ["192.0.2.1", "169.254.169.254", "198.51.100.1"]) await reach({ host, port: 80 });
            for (const path of ["\\0" + event.name, "/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket"]) await reach({ path });
            await new Promise((resolve) => {
              const udp = dgram.createSocket("udp4");
              udp.on("error", () => {});
              udp.send("x", 53, "192.0.2.1", (error) => { if (!error) done.push("udp"); udp.close(resolve); });
            });
            const interfaces = fs.readFileSync("/proc/net/dev", "utf8").split("\\n").filter((line) => line.includes(":")).map((line) => line.split(":")[0].trim());
            return [...done, ...interfaces.filter((name) => name !== "lo")];
        """, {"ports": [server.port, listener.getsockname()[1], 22, 80], "name": name}) == []
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_descriptors_that_lead_outside(attacker, request):
    links, executable = attacker(TRIED + """
        const links = fs.readdirSync("/proc/self/fd").map((fd) => { try { return fs.readlinkSync(`/proc/self/fd/${fd}`); } catch { return ""; } });
        return [links, fs.readlinkSync("/proc/self/exe")];
    """)
    harmless = r"$|pipe:|socket:|anon_inode:|/dev/null|/proc/|/var/task|/memfd"
    if "node-capable" in request.node.name:
        # What it was given to join its own sandbox: those namespaces, and the files that take it into its own groups.
        harmless += r"|[a-z]+:\[\d+\]|/sys/fs/cgroup/.*/(tasks|cgroup\.procs)$"
    assert [target for target in links if not re.match(harmless, target)] == []
    assert "martlet" not in executable


def test_writing_to_every_descriptor(attacker, nodelab):
    """It may end its own environment with that."""
    other = nodelab.run("return process.pid + ' ' + (globalThis.mark ??= Math.random())")
    for code in ('for (let fd = 3; fd < 64; fd++) try { fs.writeSync(fd, Buffer.alloc(4096, 255)); } catch {}',
                 'for (let fd = 3; fd < 64; fd++) try { fs.closeSync(fd); } catch {}'):
        try:
            attacker('const fs = require("fs");\n' + code)
        except lab.Failed:
            pass
        assert attacker("return 'fine'") == "fine"
    assert nodelab.run("return process.pid + ' ' + globalThis.mark") == other


def test_threads_and_open_files_without_end(attacker):
    threads, files = attacker("""
        const { Worker } = require("worker_threads"), fs = require("fs");
        const open = [];
        try { while (open.length < 5000) open.push(fs.openSync("/dev/null")); } catch {}
        open.forEach((number) => fs.closeSync(number));
        const workers = [];
        let refused = false;
        while (!refused && workers.length < 12) {
          const worker = new Worker("require('worker_threads').parentPort.on('message', () => {})", { eval: true, resourceLimits: { maxOldGenerationSizeMb: 4 } });
          workers.push(worker);
          refused = !await new Promise((resolve) => worker.once("online", () => resolve(true)).once("error", () => resolve(false)));
        }
        const count = fs.readdirSync("/proc/self/task").length;
        await Promise.all(workers.map((worker) => worker.terminate()));
        return [count, open.length];
    """)
    assert threads <= 1024 and 900 < files <= 1024
    assert attacker("return 1") == 1


def test_worker_threads_are_in_the_same_sandbox(attacker, server):
    assert attacker("""
        const { Worker } = require("worker_threads");
        const source = `
          const fs = require("fs"), { workerData, parentPort } = require("worker_threads");
          const done = [];
          const tried = (name, action) => { try { action(); done.push(name); } catch {} };
          tried("write", () => fs.writeFileSync("/etc/x", "x"));
          tried("the data directory", () => fs.readdirSync(workerData.dir));
          tried("environ of 1", () => fs.readFileSync("/proc/1/environ"));
          tried("signal", () => process.kill(workerData.pid, 0));
          tried("mount", () => require("child_process").execFileSync("mount", ["-t", "tmpfs", "x", "/tmp"], { stdio: "ignore" }));
          parentPort.postMessage(done);
        `;
        return await new Promise((resolve, reject) => {
          const worker = new Worker(source, { eval: true, workerData: event });
          worker.once("message", (done) => worker.terminate().then(() => resolve(done))).once("error", reject);
        });
    """, {"dir": str(server.data_dir), "pid": server.pid}) == []
