"""Fixtures: one server for most tests, servers of their own for those that stop, break or configure one.

Every test fails when its server's log gained a line of level ERROR or a panic meanwhile (mark
`@pytest.mark.allow_errors("regular expression")` for the tests that provoke one), and every server must leave no
process, mount, cgroup or loop device behind.
"""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import attack, aws, lab  # noqa: E402
from harness.paths import martlet_binary  # noqa: E402
from harness.server import Server, isolation_flags  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--full-soak", action="store_true", help="10,000 invocations instead of the short soak")
    parser.addoption("--write-table", action="store_true", help="write SPECIFICATION.md's table of operations")


def pytest_configure(config):
    config.addinivalue_line("markers", "allow_errors(pattern): lines of the server's log that this test may cause")
    config.addinivalue_line("markers", "slow: left out by ./test quick")


def pytest_report_header():
    flags = " ".join(isolation_flags())
    return [f"martlet: {martlet_binary()}", f"isolation: {f'NOT full on this machine, servers get {flags}' if flags else 'full'}"]


@pytest.fixture
def full_isolation():
    """For tests of what only full isolation promises: limits of memory, CPU and disk that cannot be passed."""
    if isolation_flags():
        pytest.skip(f"this machine cannot isolate fully (servers get {' '.join(isolation_flags())})")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for server in item.stash.get(SERVERS, []):
            lines = server.log()[server.checked:].splitlines()[-30:]
            report.sections.append((f"log of the server in {server.base}", "\n".join(line[:300] for line in lines)))


SERVERS = pytest.StashKey[list]()
SLOW_FILES = ("test_soak.py", "test_crash.py", "test_rootless.py", "test_bad_input.py", "test_validation.py",
              "test_service_model.py")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name in SLOW_FILES:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _logs_are_clean(request):
    """After each test: no unexpected error in the log of any server that the test used."""
    request.node.stash[SERVERS] = servers = []
    yield
    marker = request.node.get_closest_marker("allow_errors")
    for server in servers:
        if lines := server.unexpected(marker.args[0] if marker else None):
            pytest.fail("the server's log has errors:\n" + "\n".join(lines[:20]))


@pytest.fixture(scope="session")
def _shared_server():
    server = Server().start()
    yield server
    server.close()


@pytest.fixture
def server(_shared_server, request):
    """The server that most tests share, started with no options."""
    request.node.stash[SERVERS].append(_shared_server)
    if _shared_server.process.poll() is not None:
        pytest.fail(f"the shared server is dead (exit {_shared_server.process.returncode})")
    return _shared_server


@pytest.fixture
def new_server(request):
    """Makes servers that belong to this test alone: `new_server(flags=[...], config="...")`, not yet started."""
    made = []

    def make(**options) -> Server:
        server = Server(**options)
        made.append(server)
        request.node.stash[SERVERS].append(server)
        return server

    yield make
    problems = []
    for server in made:
        marker = request.node.get_closest_marker("allow_errors")
        lines = server.unexpected(marker.args[0] if marker else None)
        problems += lines
        try:
            server.close()
        except AssertionError as problem:
            problems.append(str(problem))
    if problems:
        pytest.fail("\n".join(problems))


@pytest.fixture
def lam(server):
    """boto3's Lambda client of the shared server."""
    return _client(server, "lambda", True)


@pytest.fixture
def loose(server):
    """The same without client-side validation: what is wrong reaches the server."""
    return _client(server, "lambda", False)


@pytest.fixture
def logs(server):
    """boto3's CloudWatch Logs client of the shared server."""
    return _client(server, "logs", True)


@pytest.fixture
def raw(server):
    """Hand-signed requests to the shared server."""
    return aws.Raw(server)


_clients: dict = {}


def _client(server, service, validate):
    key = (id(server), service, validate)
    if key not in _clients:
        _clients[key] = aws.client(server, service, validate=validate)
    return _clients[key]


@pytest.fixture(scope="session")
def runtimes(_shared_server):
    """The runtimes that the shared server found on this machine."""
    found = _shared_server.runtimes()
    assert found, f"health names no runtimes: {_shared_server.health()}"
    return found


@pytest.fixture(scope="session")
def python(runtimes):
    """The newest Python runtime here; tests that need it are skipped by name without one."""
    found = sorted((name for name in runtimes if name.startswith("python")), key=lambda name: int(name.split(".")[1]))
    if not found:
        pytest.skip("no Python runtime on this machine")
    return found[-1]


@pytest.fixture(scope="session")
def node(runtimes):
    """The newest Node runtime here."""
    found = sorted((name for name in runtimes if name.startswith("nodejs")), key=lambda name: int(name[6:-2]))
    if not found:
        pytest.skip("no Node runtime on this machine")
    return found[-1]


@pytest.fixture
def deploy(lam, request):
    """Deploys on the shared server and removes at the end: `deploy(code, runtime, handler=..., **configuration)`."""
    made = []

    def make(code, runtime, handler=None, **config) -> lab.Function:
        handler = handler or ("index.handler" if runtime.startswith("node") else "lambda_function.handler")
        function = lab.create(lam, code, runtime, handler, **config)
        made.append(function.name)
        return function

    yield make
    for name in made:
        try:
            lam.delete_function(FunctionName=name)
        except lam.exceptions.ResourceNotFoundException:
            pass


@pytest.fixture(scope="session")
def _labs():
    return {}


def _lab(labs, key, make):
    if key not in labs:
        labs[key] = make()
    return labs[key]


@pytest.fixture
def pylab(_labs, lam, python):
    """A Python function that runs the code it is sent; shared, so its global state is anybody's."""
    return _lab(_labs, "python", lambda: lab.create(lam, lab.PYTHON_LAB, python, name="python-lab", Timeout=10,
                                                    MemorySize=256))


@pytest.fixture
def nodelab(_labs, lam, node):
    """The same in Node: an async function body."""
    return _lab(_labs, "node", lambda: lab.create(lam, lab.NODE_LAB, node, "index.handler", name="node-lab", Timeout=10,
                                                  MemorySize=256))


@pytest.fixture(params=[*attack.PLACES, *(f"node-{place}" for place in attack.PLACES)])
def attacker(request, _labs, server, lam):
    """Runs code as `pylab` does, from each place where code of a function runs, in Python and in Node; see harness/attack.py."""
    language, _, name = request.param.rpartition("-")
    runtime = request.getfixturevalue(language or "python")
    place = _lab(_labs, f"attack {request.param}", lambda: attack.Place(server, lam, runtime, name))
    if place.missing:
        pytest.skip(place.missing)
    return place


@pytest.fixture
def is_root():
    return os.geteuid() == 0
