"""Configuration: four layers, errors that name the nearest key, and the start and stop of a server."""

import os
import signal
import socket
import time

import pytest
from harness import aws, lab
from harness.cli import run
from harness.paths import martlet_binary
from harness.server import free_port, plain_environment
from harness.waiting import until


def refused(*flags, env=None, config=None, tmp_path=None):
    """How `martlet up` ends that must not start."""
    if config is not None:
        (tmp_path / "m.toml").write_text(config)
        flags = (*flags, "--config", str(tmp_path / "m.toml"))
    return run([str(martlet_binary()), "up", "--data-dir", str(tmp_path / "data"), "--listen", f"127.0.0.1:{free_port()}", *flags],
               plain_environment(**env or {}), timeout=20)


@pytest.mark.parametrize("how,says", [
    (dict(config="lisen = '127.0.0.1:1'\n"), "listen"),
    (dict(config="[gateway]\nmax_header = 9\n"), "max_headers"),
    (dict(env={"MARTLET_ACOUNT_ID": "1"}), "MARTLET_ACCOUNT_ID"),
    (dict(config="account_id = 12\n"), "account_id"),
    (dict(config="listen = 'nowhere'\n", env={}), "listen"),
    (dict(config="this is no toml"), "m.toml:1"),
    (dict(config="idle_timeout_seconds = 0\n"), "idle_timeout_seconds"),
])
def test_a_wrong_key_or_value_is_an_error_that_helps(tmp_path, how, says):
    done = refused(tmp_path=tmp_path, **how)
    assert done.code == 2 and says in done.err, done


@pytest.mark.parametrize("flag,says", [(["--lisen", "x"], "--listen"), (["--account-id", "12"], "12"), (["--region", "Bad Region"], "egion"),
                                       (["--isolation", "none"], "no-cgroups"), (["--config", "/no/such.toml"], "/no/such.toml")])
def test_a_wrong_flag_is_an_error_that_helps(tmp_path, flag, says):
    done = refused(*flag, tmp_path=tmp_path)
    assert done.code == 2 and says in done.err, done


def test_layers_from_default_to_flag(tmp_path):
    config = tmp_path / "m.toml"
    config.write_text("region = 'eu-west-1'\naccount_id = '111111111111'\nidle_timeout_seconds = 7\n")
    done = run([str(martlet_binary()), "up", "--print-config", "--config", str(config), "--account-id", "333333333333"],
               plain_environment(MARTLET_REGION="eu-west-2", MARTLET_ACCOUNT_ID="222222222222"))
    assert done.code == 0, done
    text = done.out
    assert "333333333333" in text and "eu-west-2" in text and "222222222222" not in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "7" in lines["idle_timeout_seconds"] and "m.toml:3" in lines["idle_timeout_seconds"]


def test_account_and_region_are_in_force(new_server, python):
    server = new_server(flags=["--account-id", "123456789012", "--region", "eu-central-1"]).start()
    client = aws.client(server, region="eu-central-1")
    function = lab.create(client, "import os\ndef handler(e, c):\n    return [c.invoked_function_arn, os.environ['AWS_REGION']]\n", python, name="f")
    assert function.call() == ["arn:aws:lambda:eu-central-1:123456789012:function:f", "eu-central-1"]


def test_health_tells_version_isolation_and_runtimes(server, runtimes):
    health = server.health()
    assert health["version"] and health["isolation"] and health["runtimes"]
    assert runtimes


def test_ready_soon_after_its_start(new_server):
    server = new_server().start()
    again = new_server().start()
    assert min(server.ready_ms, again.ready_ms) < 2000, "a debug build on a busy machine; the bench has the real figure"


def test_a_second_server_on_the_same_directory_is_refused(server):
    before = server.health()
    done = run([str(martlet_binary()), "up", "--data-dir", str(server.data_dir), "--listen", f"127.0.0.1:{free_port()}"],
               plain_environment(), timeout=20)
    assert done.code == 1
    assert str(server.data_dir) in done.err and str(server.pid) in done.err or "another" in done.err.lower(), done.err
    assert server.health() == before


@pytest.mark.allow_errors("in use|cannot listen|listen")
def test_a_port_that_is_taken_is_an_error_that_names_it(new_server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = new_server()
        server.port = taken.getsockname()[1]
        server.spawn()
        assert server.process.wait(20) == 1
        assert str(server.port) in server.log()


def test_a_data_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    done = run([str(martlet_binary()), "up", "--data-dir", str(tmp_path / "file" / "data"), "--listen", f"127.0.0.1:{free_port()}"],
               plain_environment(), timeout=20)
    assert done.code in (1, 2) and str(tmp_path / "file") in done.err, done


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_running_invocations_end(new_server, python, number):
    server = new_server().start()
    function = lab.create(aws.client(server), "import time\ndef handler(e, c):\n    time.sleep(1)\n    return 'to the end'\n", python, Timeout=10)
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(function.call)
        until(lambda: server.environments_of(function.name) or running.done(), "the invocation to run")
        assert server.terminate(number) == 0
        assert running.result() == "to the end"


def test_a_stop_waits_no_longer_than_it_may(new_server, python):
    server = new_server(flags=["--drain-seconds", "1"]).start()
    function = lab.create(aws.client(server), "import time\ndef handler(e, c):\n    time.sleep(60)\n", python, Timeout=90)
    function.invoke(InvocationType="Event")
    until(lambda: server.environments_of(function.name), "the invocation to run")
    began = time.monotonic()
    server.terminate()
    assert time.monotonic() - began < 6


def test_a_second_signal_means_now(new_server, python):
    server = new_server().start()
    function = lab.create(aws.client(server), "import time\ndef handler(e, c):\n    time.sleep(60)\n", python, Timeout=90)
    function.invoke(InvocationType="Event")
    until(lambda: server.environments_of(function.name), "the invocation to run")
    server.traces.look(server.pid)
    server.process.send_signal(signal.SIGTERM)
    until(lambda: "stop" in server.log().lower() or "drain" in server.log().lower(), "the drain to be said")
    began = time.monotonic()
    server.terminate(signal.SIGTERM)
    assert time.monotonic() - began < 5


def test_a_new_connection_during_the_drain_is_refused_or_told(new_server, python):
    server = new_server().start()
    function = lab.create(aws.client(server), "import time\ndef handler(e, c):\n    time.sleep(2)\n", python, Timeout=10)
    function.invoke(InvocationType="Event")
    until(lambda: server.environments_of(function.name), "the invocation to run")
    server.process.send_signal(signal.SIGTERM)
    until(lambda: server.health() is None, "health to stop saying 200", 10)
    server.process.wait(20)


def test_dev_mode_accepts_any_signature_and_says_so(new_server):
    server = new_server(flags=["--dev"]).start()
    until(lambda: "DEVELOPMENT MODE" in server.log(), "it to say so")
    for key, account in (("test", "000000000000"), ("123456789012", "123456789012"), ("anything", "000000000000")):
        client = aws.client(server, key=key, secret="whatever")
        client.list_functions()
        arn = client.create_function(FunctionName=f"f-{key}", Runtime="provided.al2023", Handler="x", Role=aws.ROLE,
                                     Code={"ZipFile": lab.make_zip({"bootstrap": "x"})})["FunctionArn"]
        assert arn.split(":")[4] == account
    server.restart()
    until(lambda: server.log().count("DEVELOPMENT MODE") == 2, "it to say so at every start")


def test_dev_mode_refuses_to_listen_beyond_loopback(tmp_path):
    done = run([str(martlet_binary()), "up", "--dev", "--data-dir", str(tmp_path / "d"), "--listen", f"0.0.0.0:{free_port()}"],
               plain_environment(), timeout=20)
    assert done.code in (1, 2) and "loopback" in done.err


def test_the_credentials_stay_the_same_over_a_restart(new_server):
    server = new_server().start()
    before = server.credentials()
    server.restart()
    assert server.credentials() == before
    assert set(before) == {"aws_access_key_id", "aws_secret_access_key"} or "region" in before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_started_as_root_the_server_runs_as_somebody_else(server):
    owner = os.stat(server.data_dir).st_uid
    status = open(f"/proc/{server.pid}/status").read()
    uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
    assert set(uids) == {str(owner)} and owner != 0
    caps = next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1]
    assert int(caps, 16) == 0
