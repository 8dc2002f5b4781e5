"""Where attacks are run from: the same code in each place that runs code of a function.

    handler   an ordinary environment, as without templates
    init      init code of a template
    fork      the handler of an environment that was forked from a template
    restore   an after-restore hook of such an environment
    capable   the handler of a forked environment that has kept every capability which joining its namespaces gave it
"""

import json

from . import lab
from .aws import Raw, function_path
from .hostile import HOSTILE

PLACES = ("handler", "init", "fork", "restore", "capable")

# Runs the code that came in the package, once, at the time that the place asks for.
ONCE = """
import json
def attack():
    with open("/var/task/attack.json") as file:
        given = json.load(file)
    scope = {"event": given["event"]}
    try:
        exec(given["code"], scope)
    except Exception as error:
        return {"error": repr(error)}
    return {"result": scope.get("result")}
"""
AT_INIT = ONCE + """
ANSWER = attack()
def handler(event, context):
    return ANSWER
"""
AT_RESTORE = ONCE + """
from snapshot_restore_py import register_after_restore
ANSWER = {"error": "the hook did not run"}
@register_after_restore
def restored():
    global ANSWER
    ANSWER = attack()
def handler(event, context):
    return ANSWER
"""


def start_of(server, name: str) -> dict:
    """How environments of a function start, as GetFunctionConfiguration tells; boto3 drops members that it does not know."""
    return Raw(server).call("GET", function_path(name, "configuration")).json["Martlet"]


def why_not_forked(server, name: str) -> str | None:
    """Why a function that was called, and has nothing against it, does not start by fork; None when it does."""
    start = start_of(server, name)
    return None if start["Start"] == "fork" else f"nothing starts by fork here: {start}"


class Place:
    """Runs code in one of the places; as a lab's function does, each time from the beginning where there is a beginning."""

    def __init__(self, server, client, runtime, name):
        self.server, self.client, self.runtime, self.name = server, client, runtime, name
        self.function = self.missing = None
        if name in ("handler", "fork", "capable"):
            files = {"lambda_function.py": lab.PYTHON_LAB}
            variables = {}
            if name == "handler":
                variables["MARTLET_FORK_START"] = "off"
            if name == "capable":
                files = {"lambda_function.py": "import hostile\n" + lab.PYTHON_LAB, "hostile.py": HOSTILE}
                variables["HOSTILE"] = "capable"
            self.function = lab.create(client, files, runtime, name=f"attack-{name}", Timeout=10, MemorySize=256,
                                       Environment={"Variables": variables})
            self.function.run("result = 1")
        if name != "handler":
            probe = self.function or lab.create(client, lab.PYTHON_LAB, runtime, name=f"attack-{name}")
            probe.run("result = 1")
            self.missing = why_not_forked(server, probe.name)

    def run(self, code, event=None):
        if self.function:
            return self.function.run(code, event)
        source = AT_INIT if self.name == "init" else AT_RESTORE
        given = json.dumps({"code": lab.textwrap.dedent(code), "event": event})
        function = lab.create(self.client, {"lambda_function.py": source, "attack.json": given}, self.runtime,
                              Timeout=10, MemorySize=256)
        try:
            answer = function.call()
            if "error" in answer:
                raise lab.Failed(answer["error"], answer)
            return answer["result"]
        finally:
            self.client.delete_function(FunctionName=function.name)
