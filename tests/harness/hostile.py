"""A function whose init code takes the platform's side of its template over: what hostile code can do anyway, made easy.

The variable HOSTILE says what it does once it is asked to fork.
"""

HOSTILE = r'''
import _imp, array, ctypes, os, signal, socket, struct, sys

MODE = os.environ["HOSTILE"]
libc = ctypes.CDLL(None, use_errno=True)
# What came with the last request, for whoever looks for something to do with it.
KEPT = {"namespaces": [], "doors": []}


def joined(namespaces):
    """Joins the namespaces in a process of its own; gives True in a grandchild that was born there."""
    helper = os.fork()
    if helper:
        os.waitpid(helper, 0)
        return False
    for number in namespaces:
        if libc.setns(number, 0) != 0:
            os._exit(1)
    midwife = os.fork()
    if midwife:
        os.waitpid(midwife, 0)
        os._exit(0)
    if os.fork():
        os._exit(0)
    return True


def request(door):
    """The next request: (namespaces, doors, descriptors, the numbers that these are to have)."""
    data, ancillary, _, _ = door.recvmsg(4096, socket.CMSG_SPACE(64 * 4))
    if not data:
        os._exit(0)
    fds = array.array("i")
    for _, _, content in ancillary:
        fds.frombytes(content)
    namespaces, doors, descriptors = data[1], data[2], data[3]
    numbers = struct.unpack_from("<%di" % descriptors, data, 48)
    return fds[:namespaces], fds[namespaces:namespaces + doors], fds[namespaces + doors:], numbers


def settle(door, doors, descriptors, numbers):
    """What the platform's library does, but for giving up capabilities, and the rules of Landlock."""
    for number in doors:
        os.write(number, b"0")
    libc.prctl(4, 1, 0, 0, 0)
    os.setsid()
    moved = [os.dup(number) for number in descriptors]
    high = [libc.fcntl(number, 1030, 100) for number in moved]
    for number, wanted in zip(high, numbers):
        os.dup2(number, wanted)
    door.send(struct.pack("<iI", 0, 0))


def capable(door):
    while True:
        namespaces, doors, descriptors, numbers = request(door)
        KEPT.update(namespaces=list(namespaces), doors=list(doors))
        if joined(namespaces):
            settle(door, doors, descriptors, numbers)
            return 0
        for number in (*namespaces, *doors, *descriptors):
            os.close(number)


def meddling(door):
    """As a good one; and then joins what it made and kills everything that it finds there."""
    while True:
        namespaces, doors, descriptors, numbers = request(door)
        if joined(namespaces):
            settle(door, doors, descriptors, numbers)
            return 0
        if joined(namespaces):
            try:
                os.kill(-1, signal.SIGKILL)
            finally:
                os._exit(0)


def silent(door):
    while True:
        request(door)


def gone(door):
    request(door)
    os._exit(3)


def garbage(door):
    while True:
        request(door)
        for answer in (b"", b"x", b"\xff" * 8, struct.pack("<iI", -2147483648, 4294967295), struct.pack("<iI", 7, 0), os.urandom(4096)):
            try:
                door.send(answer)
            except OSError:
                pass


def lying(door):
    """Says that it has forked, and has not."""
    while True:
        request(door)
        door.send(struct.pack("<iI", 0, 0))


def early(door):
    """Answers before it is asked, again and again."""
    door.setblocking(False)
    for _ in range(10_000):
        try:
            door.send(struct.pack("<iI", 0, 0))
        except OSError:
            break
    door.setblocking(True)
    while True:
        request(door)


def flooding(door):
    """Sends descriptors by the hundred over both of its sockets, until these are full."""
    control = socket.socket(fileno=os.dup(3))
    while True:
        request(door)
        for target in (door, control):
            target.setblocking(False)
            for _ in range(200):
                null = [os.open("/dev/null", os.O_RDONLY) for _ in range(64)]
                try:
                    target.sendmsg([b"\x00" * 8], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", null))])
                except OSError:
                    break
                finally:
                    for number in null:
                        os.close(number)
            target.setblocking(True)


def breeding(door):
    """Forks by itself as much as it can, and answers nothing."""
    request(door)
    while True:
        try:
            if os.fork() == 0:
                while True:
                    signal.pause()
        except OSError:
            signal.pause()


class Library:
    """Stands for the platform's own."""

    def probe(self):
        return 0

    def wait(self, number):
        return 1

    def park(self, number):
        return globals()[MODE](socket.socket(fileno=os.dup(number)))


create = _imp.create_dynamic
_imp.create_dynamic = lambda spec, *more: Library() if spec.name == "martlet_park" else create(spec, *more)
'''
