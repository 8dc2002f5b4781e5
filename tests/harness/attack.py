"""Where attacks are run from: the same code in each place that runs code of a function.

    handler   an ordinary environment, as without templates
    init      init code of a template
    fork      the handler of an environment that was forked from a template
    restore   an after-restore hook of such an environment
    capable   the handler of a forked environment that has kept every capability which joining its namespaces gave it

Each in Python and in Node. An attack is written in Python, which has ctypes; from Node it is run by a Python that the function
executes, with all that a child inherits. What is JavaScript's own to try is in test_attacks_node.py.
"""

import json
from functools import lru_cache
from pathlib import Path

from . import lab
from .aws import Raw, function_path
from .hostile import HOSTILE
from .hostile_node import hostile_files

PLACES = ("handler", "init", "fork", "restore", "capable")
PYTHON_OF_NODE = "/usr/bin/python3"

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

ONCE_NODE = """
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
const AsyncFunction = (async () => {}).constructor;
async function attack() {
  const { code, event } = JSON.parse(readFileSync("/var/task/attack.json", "utf8"));
  try {
    return { result: await new AsyncFunction("event", "context", "require", code)(event, {}, createRequire(import.meta.url)) };
  } catch (error) {
    return { error: String(error) };
  }
}
"""
AT_INIT_NODE = ONCE_NODE + """
const answer = await attack();
export const handler = async () => answer;
"""
AT_RESTORE_NODE = ONCE_NODE + """
let answer = { error: "the hook did not run" };
globalThis.martlet.afterRestore(async () => { answer = await attack(); });
export const handler = async () => answer;
"""

# Runs Python from Node. Namespaces that a hostile template was given are handed on.
BY_PYTHON = """
const fs = require("fs"), { spawnSync } = require("child_process");
const kept = fs.readdirSync("/proc/self/fd").filter((fd) => {
  try { return /^(cgroup|ipc|mnt|net|pid|time|user|uts):/.test(fs.readlinkSync(`/proc/self/fd/${fd}`)); } catch { return false; }
}).map(Number);
const done = spawnSync(event.python, ["-c", event.wrapper], {
  input: JSON.stringify({ code: event.code, event: event.event, kept: kept.length }), encoding: "utf8", maxBuffer: 1 << 26,
  stdio: ["pipe", "pipe", "pipe", ...kept] });
if (done.error) throw done.error;
if (done.status !== 0) throw new Error(`${done.signal || done.status}: ${done.stderr}`);
return JSON.parse(done.stdout);
"""
WRAPPER = """
import json, os, sys, types
given = json.load(sys.stdin)
kept = {"namespaces": range(3, 3 + given["kept"]), "processes": [os.getppid()]}
sys.modules["hostile"] = types.SimpleNamespace(KEPT=kept)
scope = {"event": given["event"]}
exec(given["code"], scope)
print(json.dumps(scope.get("result")))
"""


def start_of(server, name: str) -> dict:
    """How environments of a function start, as GetFunctionConfiguration tells; boto3 drops members that it does not know."""
    return Raw(server).call("GET", function_path(name, "configuration")).json["Martlet"]


def why_not_forked(server, name: str) -> str | None:
    """Why a function that was called, and has nothing against it, does not start by fork; None when it does."""
    start = start_of(server, name)
    return None if start["Start"] == "fork" else f"nothing starts by fork here: {start}"


@lru_cache
def python_of_node() -> str | None:
    return PYTHON_OF_NODE if Path(PYTHON_OF_NODE).exists() else None


class Place:
    """Runs code in one of the places; as a lab's function does, each time from the beginning where there is a beginning."""

    def __init__(self, server, client, runtime, name):
        self.server, self.client, self.runtime, self.name = server, client, runtime, name
        self.is_node = runtime.startswith("node")
        self.handler = "index.handler" if self.is_node else "lambda_function.handler"
        self.function = self.missing = None
        label = f"attack-{name}-{runtime[0]}"
        if name in ("handler", "fork", "capable"):
            files, variables = self._lab(hostile=name == "capable"), {}
            if name == "handler":
                variables["MARTLET_FORK_START"] = "off"
            if name == "capable":
                variables["HOSTILE"] = "capable"
            self.function = self._create(files, name=label, Environment={"Variables": variables})
            self.function.run("return 1" if self.is_node else "result = 1")
        if name != "handler":
            probe = self.function or self._create(self._lab(), name=label)
            probe.run("return 1" if self.is_node else "result = 1")
            self.missing = why_not_forked(server, probe.name)
        if self.is_node and not python_of_node():
            self.missing = self.missing or f"no {PYTHON_OF_NODE} for what JavaScript cannot try"

    def _lab(self, hostile=False):
        if self.is_node:
            return hostile_files(lab.NODE_LAB, True) if hostile else {"index.js": lab.NODE_LAB}
        if hostile:
            return {"lambda_function.py": "import hostile\n" + lab.PYTHON_LAB, "hostile.py": HOSTILE}
        return {"lambda_function.py": lab.PYTHON_LAB}

    def _create(self, files, **more):
        return lab.create(self.client, files, self.runtime, self.handler, Timeout=10, MemorySize=256, **more)

    def run(self, code, event=None):
        """Runs Python."""
        if self.is_node:
            given = {"code": lab.textwrap.dedent(code), "event": event, "python": python_of_node(), "wrapper": WRAPPER}
            return self.run_own(BY_PYTHON, given)
        return self.run_own(code, event)

    def run_own(self, code, event=None):
        """Runs code in the language of the place."""
        if self.function:
            return self.function.run(code, event)
        given = json.dumps({"code": lab.textwrap.dedent(code), "event": event})
        source = {("p", "init"): AT_INIT, ("p", "restore"): AT_RESTORE, ("n", "init"): AT_INIT_NODE, ("n", "restore"): AT_RESTORE_NODE}
        file = "index.mjs" if self.is_node else "lambda_function.py"
        function = self._create({file: source[self.runtime[0], self.name], "attack.json": given})
        try:
            answer = function.call()
            if "error" in answer:
                raise lab.Failed(answer["error"], answer)
            return answer["result"]
        finally:
            self.client.delete_function(FunctionName=function.name)
