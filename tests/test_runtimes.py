"""Every interpreter that the server says it found: a function of it runs, with its standard library."""

import pytest
from harness.lab import create
from harness.zips import make_zip

PYTHON = """
import bz2, ctypes, hashlib, json, lzma, sqlite3, ssl, sys, zlib
def handler(event, context):
    return ["python%d.%d" % sys.version_info[:2], sqlite3.connect(":memory:").execute("select 1").fetchone()[0],
            hashlib.sha256(b"x").hexdigest()[:4], sys.executable]
"""
NODE = "exports.handler = async () => ['nodejs' + process.versions.node.split('.')[0] + '.x', require('zlib').gzipSync('x').length > 0];"


def test_every_runtime_that_is_listed_runs(server, lam, runtimes):
    wrong = []
    for name in runtimes:
        if name.startswith("provided"):
            continue
        code, handler = ({"lambda_function.py": PYTHON}, "lambda_function.handler") if name.startswith("python") else ({"index.js": NODE}, "index.handler")
        function = create(lam, make_zip(code), name, handler, name="runs-" + name.replace(".", "-"), MemorySize=512)
        try:
            answer = function.call()
            if answer[0] != name:
                wrong.append(f"{name} ran {answer}")
        except Exception as error:
            wrong.append(f"{name}: {error}")
        finally:
            lam.delete_function(FunctionName=function.name)
    assert wrong == []


def test_the_runtimes_are_those_of_the_command_line_and_of_the_error(server, loose, runtimes):
    from harness.cli import martlet
    shown = martlet(None, "runtimes").out
    assert all(name in shown for name in runtimes)
    with pytest.raises(loose.exceptions.ClientError) as refused:
        create(loose, {"x": "y"}, "ruby3.3", "x.y")
    assert all(name in refused.value.response["Error"]["Message"] for name in runtimes)


def test_updating_to_a_runtime_that_is_not_here_is_refused_too(deploy, lam, python):
    function = deploy("def handler(e, c):\n    return 1\n", python)
    with pytest.raises(lam.exceptions.InvalidParameterValueException):
        lam.update_function_configuration(FunctionName=function.name, Runtime="java21")
    assert function.call() == 1
