"""Amazon's own command line against the running server."""

import json

import pytest
from harness import lab
from harness.cli import aws, run
from harness.paths import tool
from harness.waiting import until
from harness.zips import make_zip


@pytest.fixture
def call(server):
    def run(*arguments):
        done = aws(server, *arguments)
        assert done.code == 0, done
        return json.loads(done.out) if done.out.strip().startswith(("{", "[")) else done.out
    return run


def test_a_function_s_life(server, call, tmp_path, python):
    (tmp_path / "f.zip").write_bytes(make_zip({"lambda_function.py": "def handler(e, c):\n    print('by the cli')\n    return e\n"}))
    name = lab.unique("cli")
    made = call("lambda", "create-function", "--function-name", name, "--runtime", python, "--role", "arn:aws:iam::000000000000:role/x",
                "--handler", "lambda_function.handler", "--zip-file", f"fileb://{tmp_path}/f.zip", "--tags", "a=b")
    assert made["FunctionName"] == name
    call("lambda", "wait", "function-active-v2", "--function-name", name)
    shown = call("lambda", "invoke", "--function-name", name, "--payload", '{"n": 1}', "--log-type", "Tail", str(tmp_path / "out.json"))
    assert shown["StatusCode"] == 200 and shown["ExecutedVersion"] == "$LATEST"
    assert json.loads((tmp_path / "out.json").read_text()) == {"n": 1}
    call("lambda", "update-function-configuration", "--function-name", name, "--timeout", "7")
    call("lambda", "wait", "function-updated-v2", "--function-name", name)
    assert call("lambda", "get-function", "--function-name", name)["Configuration"]["Timeout"] == 7
    assert call("lambda", "publish-version", "--function-name", name)["Version"] == "1"
    assert name in [f["FunctionName"] for f in call("lambda", "list-functions")["Functions"]]
    assert call("lambda", "list-tags", "--resource", made["FunctionArn"])["Tags"] == {"a": "b"}
    until(lambda: "by the cli" in aws(server, "logs", "filter-log-events", "--log-group-name", f"/aws/lambda/{name}").out, "the log", 15, every=0.5)
    found = call("logs", "filter-log-events", "--log-group-name", f"/aws/lambda/{name}", "--filter-pattern", "REPORT")["events"]
    assert found and all("REPORT RequestId: " in event["message"] for event in found)
    assert call("logs", "describe-log-groups", "--log-group-name-prefix", f"/aws/lambda/{name}")["logGroups"]
    call("lambda", "delete-function", "--function-name", name)
    done = aws(server, "lambda", "get-function", "--function-name", name)
    assert done.code in (254, 255) and "An error occurred (ResourceNotFoundException) when calling the GetFunction operation: Function not found" in done.err


def test_account_settings(call):
    assert call("lambda", "get-account-settings")["AccountLimit"]["ConcurrentExecutions"] == 1000


def test_logs_tail(server, deploy, python):
    """Only version 2 of the command line has `aws logs tail`, and no package registry carries that; it is used where it is installed."""
    program = tool("aws")
    if not program or "aws-cli/2" not in run([program, "--version"]).out:
        pytest.skip("no AWS CLI version 2 on this machine")
    function = deploy("def handler(e, c):\n    print('by the cli')\n", python)
    function.call()
    group = f"/aws/lambda/{function.name}"
    until(lambda: "by the cli" in aws(server, "logs", "tail", group, program=program).out, "the log", 15, every=0.5)
    short = aws(server, "logs", "tail", group, "--format", "short", "--since", "5m", "--filter-pattern", "REPORT", program=program).out
    assert "REPORT RequestId: " in short and "by the cli" not in short
