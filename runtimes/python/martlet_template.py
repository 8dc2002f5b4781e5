"""How a Python interpreter becomes a template: what keeps it from being forked, the fork, and what differs after it.

The bootstrap imports this when it is told to become a template, after the function's code was loaded.
"""

import os
import sys
import time

# How long a library may take to end the threads that its fork handlers have told to end.
PATIENCE = 0.05

# Variables that keep libraries from starting threads which no function needs: a sandbox has no network to report to.
QUIET = {"ORT_DISABLE_TELEMETRY": "1"}

PRIVATE_FOLDERS = ("/tmp", "/dev/shm")
OTHERS = {
    "anon_inode:[eventpoll]": "an event loop (epoll)",
    "anon_inode:inotify": "a file watch (inotify)",
    "anon_inode:[eventfd]": "an eventfd",
    "anon_inode:[timerfd]": "a timerfd",
    "anon_inode:[signalfd]": "a signalfd",
}


class Template:
    """One interpreter on its way to being parked. To be made before the function's code is loaded: it looks at what is there
    then."""

    def __init__(self):
        self.own = set(open_descriptors())
        self.empty = [folder for folder in PRIVATE_FOLDERS if os.path.isdir(folder) and not os.listdir(folder)]
        for name, setting in QUIET.items():
            os.environ.setdefault(name, setting)
        self.library = None
        self.steps = []
        self.forked = False
        # Number, path and flags of the files that are open; each child gets its own position in them.
        self.files = []

    def obstacle(self):
        """Why this process cannot be forked, in one sentence; None when it can. A library's threads that end at a fork have
        ended after this."""
        try:
            return self._load() or self._threads() or self._children() or self._descriptors() or self._written()
        except OSError as error:
            return "looking for what a fork would break failed: %s" % error

    def _load(self):
        if "t" in getattr(sys, "abiflags", ""):
            return "a free-threaded Python cannot be forked here yet"
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "park.so")
        try:
            import _frozen_importlib
            import _imp

            # By its path, and not left in sys.modules: it is no module that a function should find.
            spec = _frozen_importlib.ModuleSpec("martlet_park", None, origin=path)
            self.library = _imp.create_dynamic(spec)
        except ImportError as error:
            return "the library that forks cannot be loaded: %s" % error
        return None

    def _threads(self):
        import _thread

        if _thread._count() > 0:
            names = ["one without a name"]
            if "threading" in sys.modules:
                threading = sys.modules["threading"]
                main = threading.main_thread()
                names = [repr(thread.name) for thread in threading.enumerate() if thread is not main] or names
            return "init code has started threads, which a fork would lose: %s" % ", ".join(names)
        status = self.library.probe()
        if status < 0:
            return "a fork is refused: %s" % os.strerror(-status)
        deadline = time.monotonic() + PATIENCE
        while len(os.listdir("/proc/self/task")) > 1:
            if time.monotonic() > deadline:
                others = [task for task in os.listdir("/proc/self/task") if int(task) != os.getpid()]
                names = sorted(read("/proc/self/task/%s/comm" % task) for task in others)
                return "a library has started threads, which a fork would lose: %s" % ", ".join(names)
            os.sched_yield()
        return None

    def _children(self):
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return None
        return "init code has started processes, which would not be there after a fork"

    def _descriptors(self):
        for number, target in open_descriptors().items():
            if number in self.own:
                continue
            if target.startswith("socket:"):
                return "init code has left a socket open (descriptor %d), which a fork would share" % number
            if target.startswith(("pipe:", "/memfd:")) or target in OTHERS:
                what = OTHERS.get(target, target.partition(":")[0].lstrip("/"))
                return "init code has left %s open (descriptor %d), which a fork would share" % (what, number)
            if target.endswith(" (deleted)"):
                return "init code has a file open that is deleted: %s" % target[:-10]
            if os.path.isfile(target):
                self.files.append((number, target, flags(number)))
        return None

    def _written(self):
        for folder in self.empty:
            found = sorted(os.listdir(folder))
            if found:
                return "init code has left files in %s, which each environment has for itself: %s" % (
                    folder,
                    ", ".join(found[:3]),
                )
        return None

    def park(self, socket, rehearse):
        """Returns 0 in each child, and a negative errno in this process when the server is out of reach. `rehearse` goes through
        what each child will do."""
        import gc

        # What is there now stays: a collection in a child need not touch it, which would copy its pages.
        gc.collect()
        self.steps = self._steps()
        rehearse()
        gc.freeze()
        status = self.library.park(socket)
        self.forked = status == 0
        return status

    def is_early(self, control):
        """Whether this process is a fork that was made ahead of need: no event comes soon after it is ready."""
        return self.forked and not self.library.wait(control)

    def differ(self):
        """Makes a child differ from its siblings in all that should be unique, and touch nothing that they share."""
        for step in self.steps:
            step()

    def _steps(self):
        """What that takes in each child, for what is loaded. What can be done once and for all is done here."""
        steps = []
        # The generator of `random` is seeded by a handler of its own, and OpenSSL's by the new pid.
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:
            steps.append(reseed(numpy_random))
        uuid = sys.modules.get("uuid")
        if uuid is not None:
            # Both remember a sequence number in the time-based kinds; without them it is drawn from `random`.
            uuid._generate_time_safe = None
            for name in ("_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7"):
                if hasattr(uuid, name):
                    setattr(uuid, name, None)
        if self.files:
            steps.append(self._reopen)
        return steps

    def _reopen(self):
        for number, path, mode in self.files:
            position = os.lseek(number, 0, os.SEEK_CUR)
            fresh = os.open(path, mode)
            os.lseek(fresh, position, os.SEEK_SET)
            inheritable = os.get_inheritable(number)
            os.dup2(fresh, number, inheritable)
            os.close(fresh)


def reseed(numpy_random):
    """What gives numpy's global generator a state of its own. Its `seed` computes with arrays to that end, which costs a fork
    some 120 copied pages; random bytes in the place of what `seed` has made do the same."""
    numpy_random.seed()
    try:
        import ctypes

        name, key, _, gauss = numpy_random.get_state()[:4]
        generator = numpy_random.mtrand._rand._bit_generator
        state = memoryview((ctypes.c_ubyte * key.nbytes).from_address(generator.ctypes.state_address)).cast("B")
        # What is drawn is made of the key alone, from whichever place in it.
        if name == "MT19937" and not gauss and bytes(state) == key.tobytes():

            def overwrite(_whose=generator):
                state[:] = os.urandom(len(state))

            return overwrite
    except Exception:
        # A numpy that is laid out otherwise, or a generator that the function has put in its place.
        pass
    return numpy_random.seed


def open_descriptors():
    """What each number stands for."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink("/proc/self/fd/" + name)
        except FileNotFoundError:
            # What the listing itself was read from.
            continue
    return found


def flags(number):
    """With which `number` was opened, those aside that only matter then."""
    for line in read("/proc/self/fdinfo/%d" % number).splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC)
    return os.O_RDONLY


def read(path):
    with open(path) as file:
        return file.read().strip()


def hooks(name):
    """The calls that were registered with the package of Lambda's hooks, ours or the function's own copy."""
    module = sys.modules.get("snapshot_restore_py")
    return getattr(module, name)() if hasattr(module, name) else []


def run_before_hooks():
    for function, positional, named in reversed(hooks("get_before_snapshot")):
        function(*positional, **named)


def after_hooks():
    """Function, arguments and named arguments of each; looked up ahead, because a forked process pays for every look."""
    return hooks("get_after_restore")
