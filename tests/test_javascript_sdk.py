"""The JavaScript SDK, version 3, against the running server: one script that does what an application does."""

import json

import pytest
from harness import lab
from harness.cli import run
from harness.paths import NODE_MODULES, TESTS, tool
from harness.server import plain_environment
from harness.zips import make_zip

CODE = """exports.handler = async (event) => {
  if (event.fail) throw new TypeError('as asked');
  console.log('greeted');
  return { greeting: process.env.GREETING, event };
};"""


def test_the_javascript_sdk(server, node, tmp_path):
    if not tool("node"):
        pytest.skip("no node on this machine")
    if not (NODE_MODULES / "@aws-sdk" / "client-lambda").exists():
        pytest.skip("npm has not installed the SDK (./test does)")
    (tmp_path / "a.zip").write_bytes(make_zip({"index.js": CODE}))
    (tmp_path / "b.zip").write_bytes(other := make_zip({"index.js": "exports.handler = async () => 'other';"}))
    found = server.credentials()
    env = plain_environment(AWS_ENDPOINT_URL=server.endpoint, AWS_REGION="us-east-1", AWS_ACCESS_KEY_ID=found["aws_access_key_id"],
                            AWS_SECRET_ACCESS_KEY=found["aws_secret_access_key"])
    name = lab.unique("js")
    done = run(["node", str(TESTS / "javascript_sdk.mjs"), name, node, str(tmp_path / "a.zip"), str(tmp_path / "b.zip")], env, timeout=60)
    assert done.code == 0, done.err
    seen = json.loads(done.out)
    assert seen["missing"]["name"] == "ResourceNotFoundException" and seen["missing"]["status"] == 404 and seen["missing"]["requestId"]
    assert seen["created"]["FunctionName"] == name and seen["active"] == "SUCCESS"
    assert seen["twice"]["name"] == "ResourceConflictException" and seen["twice"]["status"] == 409
    assert seen["answer"]["payload"] == {"greeting": "hi", "event": {"n": 1}} and seen["answer"]["version"] == "$LATEST"
    assert "greeted" in seen["answer"]["log"] and "REPORT RequestId" in seen["answer"]["log"]
    assert seen["failed"]["error"] == "Unhandled" and seen["failed"]["payload"]["errorType"] == "TypeError"
    assert (seen["event"], seen["dryRun"]) == (202, 204)
    assert seen["invalid"]["name"] == "ValidationException" and seen["invalid"]["status"] == 400
    assert seen["updated"] == "SUCCESS" and seen["published"] == "1" and seen["versions"] == ["$LATEST", "1"]
    assert seen["other"] == '"other"' and seen["code"] == len(other)
    assert name in seen["listed"] and seen["logged"] >= 1
    assert seen["gone"]["name"] == "ResourceNotFoundException"
