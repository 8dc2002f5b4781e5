"""The command line: data to stdout, the rest to stderr, exit codes, errors that say what to do."""

import io
import json
import signal
import subprocess
import zipfile

import pytest
from harness import aws, lab
from harness.cli import martlet, run
from harness.paths import EXAMPLES, martlet_binary
from harness.server import free_port, plain_environment
from harness.waiting import until
from harness.zips import make_zip


@pytest.fixture
def removed(lam):
    """Names to delete at the end."""
    names = []
    yield names
    for name in names:
        try:
            lam.delete_function(FunctionName=name)
        except lam.exceptions.ResourceNotFoundException:
            pass


@pytest.mark.parametrize("example", ["hello-python", "hello-node"])
def test_deploy_and_invoke_the_examples(server, removed, example, request):
    request.getfixturevalue("python" if example.endswith("python") else "node")
    removed.append(example)
    done = martlet(server, "deploy", str(EXAMPLES / example))
    assert done.code == 0, done
    assert example in done.out and done.err, "progress to stderr"
    answer = martlet(server, "invoke", example, "--payload", '{"name": "Ada"}', "--tail")
    assert answer.code == 0
    assert json.loads(answer.out)["message"] == "Hello, Ada!"
    assert "REPORT RequestId: " in answer.err and "greeting Ada" in answer.err
    again = martlet(server, "deploy", str(EXAMPLES / example))
    assert again.code == 0, "deploying again updates"


def test_deploy_the_shell_example(server, removed):
    removed.append("shell")
    assert martlet(server, "deploy", str(EXAMPLES / "shell")).code == 0
    assert json.loads(martlet(server, "invoke", "shell", "--payload", "[1]").out)["event"] == [1]


LAYOUTS = [({"lambda_function.py": "def lambda_handler(e, c):\n    return 1\n"}, "lambda_function.lambda_handler"),
           ({"app.py": "def handler(event, context):\n    return 1\n"}, "app.handler"),
           ({"main.py": "async def x(): pass\ndef handler(event, context):\n    return 1\n"}, "main.handler"),
           ({"index.mjs": "export const handler = async () => 1;"}, "index.handler"),
           ({"index.js": "exports.handler = async () => 1;"}, "index.handler"),
           ({"app.mjs": "export async function handler() { return 1; }"}, "app.handler")]


@pytest.mark.parametrize("files,handler", LAYOUTS, ids=[next(iter(files)) + "-" + handler for files, handler in LAYOUTS])
def test_runtime_and_handler_are_guessed(server, removed, lam, tmp_path, files, handler, python, node):
    name = lab.unique("guess")
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    removed.append(name)
    assert martlet(server, "deploy", str(tmp_path), "--name", name).code == 0
    assert lam.get_function_configuration(FunctionName=name)["Handler"] == handler
    assert martlet(server, "invoke", name).out.strip() == "1"


def test_deploy_a_zip_with_settings(server, removed, lam, tmp_path, python):
    path = tmp_path / "packed.zip"
    path.write_bytes(make_zip({"lambda_function.py": "import os\ndef handler(e, c):\n    return os.environ['AA']\n"}))
    removed.append("packed")
    done = martlet(server, "deploy", str(path), "--memory", "256", "--timeout", "9", "--env", "AA=b=c", "--output", "json")
    assert done.code == 0, done
    shown = json.loads(done.out)
    assert (shown["FunctionName"], shown["MemorySize"], shown["Timeout"]) == ("packed", 256, 9)
    assert martlet(server, "invoke", "packed").out.strip() == '"b=c"'
    assert martlet(server, "deploy", str(path)).code == 0
    assert lam.get_function_configuration(FunctionName="packed")["MemorySize"] == 256, "what is not named stays"


def test_deploy_keeps_modes_and_skips_what_is_no_code(server, removed, lam, tmp_path):
    (tmp_path / "bootstrap").write_text((EXAMPLES / "shell" / "bootstrap").read_text())
    (tmp_path / "bootstrap").chmod(0o755)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("secret")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data.txt").write_text("x")
    removed.append("modes")
    assert martlet(server, "deploy", str(tmp_path), "--name", "modes").code == 0
    import urllib.request
    location = lam.get_function(FunctionName="modes")["Code"]["Location"]
    archive = zipfile.ZipFile(io.BytesIO(urllib.request.urlopen(location, timeout=10).read()))
    names = archive.namelist()
    assert "sub/data.txt" in names and not [name for name in names if name.startswith(".git/")]
    assert archive.getinfo("bootstrap").external_attr >> 16 & 0o111


@pytest.mark.parametrize("arguments,says", [
    (["/no/such/path"], "/no/such/path"),
    (["{empty}"], "handler"),
    (["{code}", "--name", "bad name"], "bad name"),
    (["{code}", "--env", "NOEQUALS"], "NOEQUALS"),
    (["{code}", "--memory", "1"], "memorySize"),
    (["{code}", "--runtime", "java21", "--handler", "a.b"], "java21"),
])
def test_deploy_refuses_and_says_why(server, tmp_path, arguments, says, python):
    (tmp_path / "empty").mkdir()
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text("def handler(e, c):\n    return 1\n")
    filled = [argument.format(empty=tmp_path / "empty", code=tmp_path / "code") for argument in arguments]
    done = martlet(server, "deploy", *filled)
    assert done.code == 1 and says in done.err and done.out == "", done
    assert "error" in done.err.lower()


def test_payloads_from_a_file_and_from_stdin(server, pylab, tmp_path):
    event = {"code": "result = event", "event": [1, "ü"]}
    (tmp_path / "event.json").write_text(json.dumps(event))
    assert json.loads(martlet(server, "invoke", "python-lab", "--payload", f"@{tmp_path}/event.json").out) == [1, "ü"]
    assert json.loads(martlet(server, "invoke", "python-lab", "--payload", "-", stdin=json.dumps(event)).out) == [1, "ü"]


def test_payloads_that_are_wrong(server, pylab):
    for payload, says in (("{", "JSON"), ("@/no/such", "/no/such"), ("Ada", "JSON")):
        done = martlet(server, "invoke", "python-lab", "--payload", payload)
        assert done.code == 1 and says in done.err, done


def test_a_function_error_goes_to_stderr_with_code_1(server, pylab):
    payload = json.dumps({"code": "raise ValueError('boom')"})
    done = martlet(server, "invoke", "python-lab", "--payload", payload)
    assert done.code == 1 and done.out == "" and "ValueError" in done.err and "boom" in done.err
    done = martlet(server, "invoke", "python-lab", "--payload", payload, "--output", "json")
    assert done.code == 1 and json.loads(done.out)["functionError"] == "Unhandled"


def test_invoke_event_qualifier_and_json(server, pylab):
    done = martlet(server, "invoke", "python-lab", "--event", "--payload", '{"code": "pass"}', "--output", "json")
    assert done.code == 0 and json.loads(done.out)["statusCode"] == 202
    done = martlet(server, "invoke", "python-lab", "--qualifier", "77", "--payload", "{}")
    assert done.code == 1 and "python-lab:77" in done.err
    done = martlet(server, "invoke", "python-lab", "--payload", '{"code": "result = 1"}', "--output", "json")
    shown = json.loads(done.out)
    assert shown["payload"] == 1 and shown["executedVersion"] == "$LATEST" and "REPORT" in shown["logTail"]


def test_a_function_that_is_not_there(server):
    for command in (["invoke", "nobody"], ["rm", "nobody"], ["logs", "nobody"]):
        done = martlet(server, *command)
        assert done.code == 1 and "nobody" in done.err, (command, done)


def test_ls(server, pylab):
    done = martlet(server, "ls")
    assert done.code == 0 and "python-lab" in done.out and "NAME" in done.out
    listed = json.loads(martlet(server, "ls", "--output", "json").out)
    assert "python-lab" in [function["FunctionName"] for function in listed]
    assert "arn:aws:lambda" in martlet(server, "ls", "-v").out


def test_deploy_to_an_alias_and_back(server, lam, removed, tmp_path, python):
    removed.append("aliased")

    def deploy(value):
        (tmp_path / "app.py").write_text(f"def handler(event, context):\n    return {value!r}\n")
        done = martlet(server, "deploy", str(tmp_path), "--name", "aliased", "--alias", "live")
        assert done.code == 0 and done.out.strip().endswith(":function:aliased:live"), done

    def called():
        return json.loads(martlet(server, "invoke", "aliased:live").out)

    deploy("one")
    assert called() == "one"
    deploy("two")
    assert called() == "two"
    listed = martlet(server, "alias", "aliased")
    assert listed.code == 0 and [line.split() for line in listed.out.splitlines()[1:]] == [["live", "2"]]
    back = martlet(server, "alias", "aliased", "live", "1")
    assert back.code == 0 and called() == "one"
    canary = martlet(server, "alias", "aliased", "live", "1", "--canary", "2=100")
    assert "2 (100%)" in canary.out and called() == "two"
    shown = json.loads(martlet(server, "alias", "aliased", "live", "--output", "json").out)
    assert shown["RoutingConfig"] == {"AdditionalVersionWeights": {"2": 1.0}}
    wrong = martlet(server, "alias", "aliased", "live", "1", "--canary", "2")
    assert wrong.code == 1 and "VERSION=PERCENT" in wrong.err
    assert martlet(server, "alias", "aliased", "live", "7").code == 1
    assert martlet(server, "alias", "aliased", "live", "--rm").code == 0
    assert martlet(server, "alias", "aliased", "live").code == 1
    assert "no aliases yet" in martlet(server, "alias", "aliased").err
    assert json.loads(martlet(server, "alias", "aliased", "--output", "json").out) == []


def test_rm(server, lam, python):
    for name in ("gone-1", "gone-2"):
        lab.create(lam, "def handler(e, c):\n    return 1\n", python, name=name)
    assert martlet(server, "rm", "gone-1", "gone-2").code == 0
    assert "gone" not in martlet(server, "ls").out


def test_logs(server, pylab):
    response = pylab.invoke({"code": "print('needle in the log')"})
    request_id = response["ResponseMetadata"]["RequestId"]
    done = martlet(server, "logs", "python-lab", "--request-id", request_id)
    lines = done.out.splitlines()
    assert done.code == 0 and lines[0].startswith(f"START RequestId: {request_id}")
    assert lines[1] == "needle in the log" and lines[-1].startswith("REPORT")
    assert "needle" in martlet(server, "logs", "python-lab", "--since", "5m").out
    document = json.loads(martlet(server, "logs", "python-lab", "--request-id", request_id, "--output", "json").out.splitlines()[0])
    assert document["message"].startswith("START")
    assert martlet(server, "logs", "python-lab", "--since", "yesterday").code == 1


def test_logs_of_a_function_with_a_group_of_its_own(server, deploy, python):
    function = deploy("def handler(e, c):\n    print('in my own group')\n", python, LoggingConfig={"LogGroup": "/elsewhere"})
    function.call()
    assert "in my own group" in martlet(server, "logs", function.name).out


def test_logs_followed(server, pylab, tmp_path):
    env = plain_environment(MARTLET_ENDPOINT=server.endpoint, AWS_SHARED_CREDENTIALS_FILE=str(server.data_dir / "credentials"))
    printed = tmp_path / "printed"
    with printed.open("w") as out:
        follower = subprocess.Popen([str(martlet_binary()), "logs", "python-lab", "-f"], stdout=out, env=env)
    try:
        pylab.run("print('followed needle')")
        until(lambda: "followed needle" in printed.read_text(), "the follower to print it")
        assert printed.read_text().count("followed needle") == 1
    finally:
        follower.send_signal(signal.SIGINT)
        follower.wait(10)


def test_runtimes_and_doctor(server, runtimes):
    done = martlet(None, "runtimes")
    assert done.code == 0 and all(name in done.out for name in runtimes if not name.startswith("provided"))
    assert isinstance(json.loads(martlet(None, "runtimes", "--output", "json").out), (list, dict))


def test_doctor_beside_a_running_server_does_it_no_harm(new_server, python):
    server = new_server().start()
    client = aws.client(server)
    lab.create(client, "def handler(e, c):\n    return 1\n", python, name="before").call()
    done = martlet(None, "doctor", "--data-dir", str(server.data_dir))
    assert done.code in (0, 1) and done.out
    assert json.loads(martlet(None, "doctor", "--data-dir", str(server.data_dir), "--output", "json").out)["findings"]
    assert lab.create(client, "def handler(e, c):\n    return 2\n", python, name="after").call() == 2
    assert lab.Function(client, "before").call() == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(shell):
    done = martlet(None, "completions", shell)
    assert done.code == 0 and "martlet" in done.out and "invoke" in done.out


def test_help_version_and_wrong_commands():
    assert "martlet" in martlet(None, "--version").out
    done = martlet(None, "--help")
    assert done.code == 0 and all(word in done.out for word in ("up", "deploy", "invoke", "logs", "ls", "rm", "runtimes", "doctor"))
    assert "__launcher" not in done.out
    for command in ("up", "deploy", "invoke", "logs", "alias", "ls", "rm", "runtimes", "doctor"):
        assert martlet(None, command, "--help").code == 0
    done = martlet(None, "deplyo")
    assert done.code == 2 and "deploy" in done.err
    assert martlet(None, "invoke").code == 2


def test_no_server_there():
    done = martlet(None, "ls", "--endpoint", f"http://127.0.0.1:{free_port()}")
    assert done.code == 1 and "martlet up" in done.err, done


def test_how_the_server_is_found(server, pylab):
    credentials = {"AWS_SHARED_CREDENTIALS_FILE": str(server.data_dir / "credentials")}
    wrong = "http://127.0.0.1:9"
    assert martlet(None, "ls", env=credentials | {"AWS_ENDPOINT_URL": server.endpoint}).code == 0
    assert martlet(None, "ls", env=credentials | {"AWS_ENDPOINT_URL": wrong, "MARTLET_ENDPOINT": server.endpoint}).code == 0
    assert martlet(None, "ls", "--endpoint", server.endpoint, env=credentials | {"MARTLET_ENDPOINT": wrong}).code == 0


def test_which_credentials_are_used(server, pylab, tmp_path):
    found = server.credentials()
    right = {"AWS_ACCESS_KEY_ID": found["aws_access_key_id"], "AWS_SECRET_ACCESS_KEY": found["aws_secret_access_key"]}
    assert martlet(None, "ls", "--endpoint", server.endpoint, env=right).code == 0
    wrong = right | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    done = martlet(None, "ls", "--endpoint", server.endpoint, env=wrong)
    assert done.code == 1 and "InvalidSignatureException" in done.err or "signature" in done.err.lower()
    file = tmp_path / "credentials"
    file.write_text(f"[other]\naws_access_key_id={right['AWS_ACCESS_KEY_ID']}\naws_secret_access_key={right['AWS_SECRET_ACCESS_KEY']}\n")
    environment = wrong | {"AWS_SHARED_CREDENTIALS_FILE": str(file)}
    assert martlet(None, "ls", "--endpoint", server.endpoint, "--profile", "other", env=environment).code == 0
    done = martlet(None, "ls", "--endpoint", server.endpoint, "--profile", "nope", env=environment)
    assert done.code == 1 and "nope" in done.err


def test_output_to_a_closed_pipe_is_no_crash(server, pylab):
    shell = f"{martlet_binary()} ls --verbose | head -c 1"
    env = plain_environment(MARTLET_ENDPOINT=server.endpoint, AWS_SHARED_CREDENTIALS_FILE=str(server.data_dir / "credentials"))
    done = run(["bash", "-c", shell], env)
    assert "panicked" not in done.err
