"""Functions that run the code which the test sends them: what a test does stands in the test itself."""

import itertools
import json
import textwrap
from dataclasses import dataclass

from .aws import ROLE
from .paths import EXAMPLES
from .waiting import until
from .zips import NAME_FILE, make_zip

PYTHON_LAB = """
def handler(event, context):
    scope = {"context": context, "event": event.get("event")}
    exec(event["code"], scope)
    return scope.get("result")
"""

NODE_LAB = """
const AsyncFunction = (async () => {}).constructor;
const { createRequire } = require("node:module");
exports.handler = async (event, context) =>
  new AsyncFunction("event", "context", "require", event.code)(event.event, context, createRequire(__filename));
"""

SHELL_LAB = (EXAMPLES / "shell" / "bootstrap").read_text()
SHELL_LAB_FUNCTION = """
handler() { # the event is {"code": "..."} with the code in base64
  local code=${1#*\\"code\\": \\"}
  code=$(printf '%s' "${code%%\\"*}" | base64 -d)
  printf '"%s"' "$(bash -c "$code" 2>&1 | base64 -w0)"
}
"""

_numbers = itertools.count(1)


def unique(prefix: str = "t") -> str:
    return f"{prefix}-{next(_numbers)}"


class Failed(AssertionError):
    """The function answered with a function error; `.error` is its document."""

    def __init__(self, error, response):
        super().__init__(f"the function failed: {error}")
        self.error, self.response = error, response


@dataclass
class Function:
    """A deployed function, called through boto3."""

    client: object
    name: str

    def invoke(self, event=None, **more) -> dict:
        """The response of boto3 with the payload read and parsed under "Answer"."""
        payload = more.pop("Payload", None)
        response = self.client.invoke(FunctionName=self.name,
                                      Payload=json.dumps(event).encode() if payload is None else payload, **more)
        raw = response["Payload"].read()
        response["Raw"] = raw
        try:
            response["Answer"] = json.loads(raw) if raw else None
        except ValueError:
            response["Answer"] = None
        return response

    def call(self, event=None, **more):
        """The answer; raises `Failed` on a function error."""
        response = self.invoke(event, **more)
        if "FunctionError" in response:
            raise Failed(response["Answer"], response)
        return response["Answer"]

    def run(self, code: str, event=None, **more):
        """Runs `code` in a Python or Node lab and gives its result."""
        return self.call({"code": textwrap.dedent(code), "event": event}, **more)

    def fail(self, event=None, **more) -> dict:
        """The error document of an invocation that must end in a function error."""
        response = self.invoke(event, **more)
        assert response.get("FunctionError"), f"no function error but {response['Raw'][:500]!r}"
        assert response["StatusCode"] == 200
        return response["Answer"]

    def run_failing(self, code: str, event=None, **more) -> dict:
        return self.fail({"code": textwrap.dedent(code), "event": event}, **more)


def create(client, code, runtime: str, handler: str = "lambda_function.handler", name: str | None = None, **config):
    """Creates a function from source text, a dict of files or zip bytes, and waits until it is active."""
    if isinstance(code, str):
        file = {"p": "lambda_function.py", "n": "index.js"}.get(runtime[0], "bootstrap")
        code = {file if runtime.startswith(("python3", "nodejs")) else "bootstrap": textwrap.dedent(code)}
    name = name or unique()
    if isinstance(code, dict):
        code = make_zip(code | {NAME_FILE: name})
    created = client.create_function(FunctionName=name, Runtime=runtime, Handler=handler, Role=ROLE,
                                     Code={"ZipFile": code}, **config)
    if created.get("State") != "Active":
        settled(client, name)
    return Function(client, name)


def change(client, operation: str, **arguments) -> dict:
    """Calls an operation that changes a function, and gives its answer once the change has arrived."""
    answer = getattr(client, operation)(**arguments)
    if answer.get("LastUpdateStatus") == "InProgress":
        settled(client, arguments["FunctionName"])
    return answer


def settled(client, name: str, **qualifier) -> dict:
    """The configuration of a function once nothing of it is in motion; boto3's waiters ask but once a second."""
    def done():
        now = client.get_function_configuration(FunctionName=name, **qualifier)
        return now if now["State"] != "Pending" and now.get("LastUpdateStatus") != "InProgress" else None

    now = until(done, f"{name} to be ready", 30)
    assert now["State"] == "Active" and now["LastUpdateStatus"] == "Successful", now
    return now
