"""What harness/hostile.py is for Python, for Node: init code that takes the platform's side of its template over.

JavaScript has no words for namespaces, capabilities and descriptors in messages, so some modes (`capable`, `meddling`, `flooding`)
have a small library in C, which is built for the tests and comes in the package. The variable HOSTILE says what it does once it is asked to fork.
"""

import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import pytest

from .paths import tool

HOSTILE_NODE = r"""
const fs = require("fs"), { spawn } = require("child_process");
const mode = process.env.HOSTILE;
const answer = (status, pid = 0) => { const b = Buffer.alloc(8); b.writeInt32LE(status, 0); b.writeUInt32LE(pid, 4); return b; };
const request = (door) => { if (!fs.readSync(door, Buffer.alloc(4096))) process.exit(0); };
const send = (door, bytes) => { try { fs.writeSync(door, bytes); } catch {} };
const modes = {
  silent(door) { for (;;) request(door); },
  gone(door) { request(door); process.exit(3); },
  garbage(door) {
    for (;;) {
      request(door);
      for (const bytes of [Buffer.from("x"), Buffer.alloc(8, 255), answer(-2147483648, 4294967295), answer(7), require("crypto").randomBytes(4096)]) send(door, bytes);
    }
  },
  lying(door) { for (;;) { request(door); send(door, answer(0)); } },
  early(door) { for (let n = 0; n < 100; n++) send(door, answer(0)); for (;;) request(door); },
  breeding(door) {
    request(door);
    for (let refused = 0; refused < 10;) {
      try {
        const child = spawn("/bin/sh", ["-c", "while :; do :; done"], { stdio: "ignore" });
        child.on("error", () => {});
        if (!child.pid) refused += 1;
      } catch { refused += 1; }
    }
    for (;;) request(door);
  },
};
const dlopen = process.dlopen;
process.dlopen = function (holder, path, ...more) {
  dlopen.call(process, holder, path, ...more);
  if (!path.endsWith("park.so")) return;
  const own = { exports: {} };
  if (!modes[mode]) dlopen.call(process, own, "/var/task/hostile.node");
  holder.exports = { ...holder.exports, probe: () => 0, park: modes[mode] || own.exports[mode] };
};
"""

ADDON = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct env *napi_env;
typedef struct value *napi_value;
typedef struct info *napi_info;
extern int napi_create_function(napi_env, const char *, size_t, napi_value (*)(napi_env, napi_info), void *, napi_value *);
extern int napi_set_named_property(napi_env, napi_value, const char *, napi_value);
extern int napi_get_cb_info(napi_env, napi_info, size_t *, napi_value *, napi_value *, void **);
extern int napi_get_value_int32(napi_env, napi_value, int *);
extern int napi_create_int32(napi_env, int, napi_value *);

static unsigned char data[4096];
static int fds[64], count;

static void request(int door) {
    char room[CMSG_SPACE(sizeof fds)];
    struct iovec vector = {data, sizeof data};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    if (recvmsg(door, &message, 0) <= 0) _exit(0);
    count = 0;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        int number = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds + count, CMSG_DATA(part), number * sizeof(int));
        count += number;
    }
}

/* Joins the namespaces in a process of its own; 1 in a grandchild that was born there. */
static int joined(void) {
    int helper = fork();
    if (helper) return waitpid(helper, NULL, 0), 0;
    for (int at = 0; at < data[1]; at++)
        if (setns(fds[at], 0) != 0) _exit(1);
    int midwife = fork();
    if (midwife) waitpid(midwife, NULL, 0), _exit(0);
    if (fork()) _exit(0);
    return 1;
}

/* What the platform's library does, but for giving up capabilities, which are made to outlive exec, and the rules of Landlock. */
static void settle(int door) {
    int doors = data[1], own = doors + data[2], high[64], numbers[64];
    for (int at = doors; at < own; at++) (void)!write(fds[at], "0", 1);
    prctl(PR_SET_DUMPABLE, 1);
    setsid();
    memcpy(numbers, data + 48, data[3] * sizeof(int));
    for (int at = 0; at < data[3]; at++) high[at] = fcntl(fds[own + at], F_DUPFD_CLOEXEC, 100);
    for (int at = 0; at < data[3]; at++) dup2(high[at], numbers[at]);
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct set[2];
    if (syscall(SYS_capget, &head, set) == 0) {
        set[0].inheritable = set[0].permitted;
        set[1].inheritable = set[1].permitted;
        syscall(SYS_capset, &head, set);
    }
    for (int at = 0; at < 64; at++) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, at, 0, 0);
    (void)!send(door, "\0\0\0\0\0\0\0\0", 8, 0);
}

static int serve(int door, int meddles) {
    for (;;) {
        request(door);
        if (joined()) return settle(door), 0;
        if (meddles && joined()) kill(-1, SIGKILL), _exit(0);
        for (int at = 0; at < count; at++) close(fds[at]);
    }
}

static int capable(int door) { return serve(door, 0); }
static int meddling(int door) { return serve(door, 1); }

/* Sends descriptors by the hundred over both of its sockets, until these are full. */
static int flooding(int door) {
    int targets[2] = {door, 3};
    for (;;) {
        request(door);
        for (int target = 0; target < 2; target++)
            for (int times = 0; times < 200; times++) {
                char room[CMSG_SPACE(64 * sizeof(int))] = {0};
                struct iovec vector = {"\0\0\0\0\0\0\0\0", 8};
                struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
                struct cmsghdr *part = CMSG_FIRSTHDR(&message);
                part->cmsg_level = SOL_SOCKET, part->cmsg_type = SCM_RIGHTS, part->cmsg_len = CMSG_LEN(64 * sizeof(int));
                int null = open("/dev/null", O_RDONLY);
                for (int at = 0; at < 64; at++) memcpy(CMSG_DATA(part) + at * sizeof(int), &null, sizeof(int));
                long sent = sendmsg(targets[target], &message, MSG_DONTWAIT);
                close(null);
                if (sent < 0) break;
            }
    }
}

static napi_value called(napi_env env, napi_info info) {
    napi_value argument, result;
    size_t most = 1;
    int door = -1;
    void *mode;
    napi_get_cb_info(env, info, &most, &argument, NULL, &mode);
    napi_get_value_int32(env, argument, &door);
    napi_create_int32(env, ((int (*)(int))mode)(door), &result);
    return result;
}

napi_value napi_register_module_v1(napi_env env, napi_value exports) {
    struct { const char *name; int (*mode)(int); } modes[] = {{"capable", capable}, {"meddling", meddling}, {"flooding", flooding}};
    for (int at = 0; at < 3; at++) {
        napi_value function;
        napi_create_function(env, modes[at].name, strlen(modes[at].name), called, modes[at].mode, &function);
        napi_set_named_property(env, exports, modes[at].name, function);
    }
    return exports;
}
"""


@lru_cache
def addon() -> bytes:
    """The library, built once a run; skips the test where there is no C compiler."""
    compiler = tool("cc") or pytest.skip("no C compiler on this machine")
    with tempfile.TemporaryDirectory() as directory:
        source, built = Path(directory, "hostile.c"), Path(directory, "hostile.node")
        source.write_text(ADDON)
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", built, source], check=True)
        return built.read_bytes()


def hostile_files(lab: str, needs_addon: bool) -> dict[str, str | bytes]:
    """The package of a function whose template is hostile."""
    files = {"index.js": 'require("./hostile.js");\n' + lab, "hostile.js": HOSTILE_NODE}
    return files | ({"hostile.node": addon()} if needs_addon else {})
