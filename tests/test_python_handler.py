"""Python functions: Lambda's contract between handler and runtime."""

import json
import re

import pytest
from harness.aws import ACCOUNT, REGION, tail
from harness.zips import make_zip


def test_the_context_object_has_every_attribute(pylab, python):
    seen = pylab.run("""
        result = {name: getattr(context, name) for name in (
            "function_name", "function_version", "invoked_function_arn", "memory_limit_in_mb", "aws_request_id",
            "log_group_name", "log_stream_name", "client_context")}
        result["identity"] = [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id]
        result["remaining"] = context.get_remaining_time_in_millis()
        result["remaining_type"] = type(result["remaining"]).__name__
        result["has"] = [hasattr(context, name) for name in ("log", "get_remaining_time_in_millis", "tenant_id")]
    """)
    assert seen["function_name"] == "python-lab" and seen["function_version"] == "$LATEST"
    assert seen["invoked_function_arn"] == f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:python-lab"
    assert seen["memory_limit_in_mb"] == "256", "a string, as in Lambda"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", seen["aws_request_id"])
    assert seen["log_group_name"] == "/aws/lambda/python-lab"
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", seen["log_stream_name"])
    assert seen["client_context"] is None and seen["identity"] == [None, None]
    assert 0 < seen["remaining"] <= 10_000 and seen["remaining_type"] == "int"
    assert seen["has"] == [True, True, True]


def test_the_environment_variables(pylab, python):
    env = pylab.run("import os; result = dict(os.environ)")
    assert env["_HANDLER"] == "lambda_function.handler"
    assert env["LAMBDA_TASK_ROOT"] == "/var/task" and env["LAMBDA_RUNTIME_DIR"] == "/var/runtime"
    assert env["AWS_EXECUTION_ENV"] == f"AWS_Lambda_{python}"
    assert env["AWS_LAMBDA_FUNCTION_NAME"] == "python-lab" and env["AWS_LAMBDA_FUNCTION_VERSION"] == "$LATEST"
    assert env["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "256"
    assert env["AWS_LAMBDA_LOG_GROUP_NAME"] == "/aws/lambda/python-lab"
    assert env["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    assert env["AWS_REGION"] == env["AWS_DEFAULT_REGION"] == REGION
    assert env["TZ"] == ":UTC" and env["LANG"] == "en_US.UTF-8"
    assert env["AWS_XRAY_DAEMON_ADDRESS"] and env["_X_AMZN_TRACE_ID"].startswith("Root=1-")
    assert "HOME" not in env or env["HOME"] not in ("/root",)
    assert not [name for name in env if name.startswith("MARTLET")], "what is ours stays ours"


def test_the_function_s_own_variables(deploy, python):
    function = deploy("import os\ndef handler(e, c):\n    return [os.environ['MINE'], os.environ.get('TZ')]\n", python,
                      Environment={"Variables": {"MINE": "ü=1;\n2", "TZ": "Europe/Berlin"}})
    assert function.call() == ["ü=1;\n2", "Europe/Berlin"]


def test_where_the_code_runs(pylab):
    cwd, path, files = pylab.run("import os, sys; result = [os.getcwd(), sys.path, sorted(os.listdir('/var/task'))]")
    assert cwd == "/var/task" and "/var/task" in path
    assert "lambda_function.py" in files


def test_modules_in_packages_and_slashes_in_the_handler(deploy, python):
    package = make_zip({"app/__init__.py": "", "app/main.py": "from app.helper import x\ndef run(e, c):\n    return x\n",
                        "app/helper.py": "x = 'from a package'\n"})
    assert deploy(package, python, "app.main.run").call() == "from a package"
    assert deploy(package, python, "app/main.run").call() == "from a package"


def test_an_exception(pylab):
    error = pylab.run_failing("""
        def deeper():
            raise ValueError("boom")
        deeper()
    """)
    assert error["errorMessage"] == "boom" and error["errorType"] == "ValueError"
    assert re.fullmatch(r"[0-9a-f-]{36}", error["requestId"])
    trace = error["stackTrace"]
    assert isinstance(trace, list) and all(isinstance(line, str) for line in trace)
    assert trace[0].startswith('  File "/var/task/lambda_function.py", line ') and "in handler" in trace[0]
    assert not [line for line in trace if "bootstrap" in line], "the runtime's own frames are not shown"


def test_an_exception_of_the_function_s_own_class_and_with_no_message(pylab):
    assert pylab.run_failing("class Mine(Exception): pass\nraise Mine()")["errorType"] == "Mine"
    assert pylab.run_failing("raise RuntimeError")["errorMessage"] == ""


def test_an_exception_is_in_the_log(pylab):
    response = pylab.invoke({"code": "raise ValueError('see the log')"}, LogType="Tail")
    assert "[ERROR] ValueError: see the log" in tail(response)
    assert "Traceback (most recent call last):" in tail(response)


@pytest.mark.parametrize("handler,files,kind,message", [
    ("nope.handler", {"lambda_function.py": ""}, "Runtime.ImportModuleError", "Unable to import module 'nope': No module named 'nope'"),
    ("lambda_function.nope", {"lambda_function.py": ""}, "Runtime.HandlerNotFound", "Handler 'nope' missing on module 'lambda_function'"),
    ("nodots", {"lambda_function.py": ""}, "Runtime.MalformedHandlerName", "Bad handler 'nodots': "),
    ("lambda_function.handler", {"lambda_function.py": "import not_here_at_all\n"}, "Runtime.ImportModuleError",
     "Unable to import module 'lambda_function': No module named 'not_here_at_all'"),
    ("lambda_function.handler", {"lambda_function.py": "def handler(:\n"}, "Runtime.UserCodeSyntaxError",
     "Syntax error in module 'lambda_function': "),
], ids=["module", "handler", "malformed", "import", "syntax"])
def test_what_goes_wrong_before_the_handler(deploy, python, handler, files, kind, message):
    error = deploy(make_zip(files), python, handler).fail()
    assert error["errorType"] == kind and error["errorMessage"].startswith(message), error


def test_an_exception_while_importing(deploy, python):
    error = deploy("raise LookupError('at import')\n", python).fail()
    assert (error["errorType"], error["errorMessage"]) == ("LookupError", "at import")


def test_exit_while_importing(deploy, python):
    error = deploy("import sys\nsys.exit(4)\n", python).fail()
    assert error["errorType"] in ("Runtime.ExitError", "Runtime.SystemExit", "SystemExit"), error


def test_results_that_json_cannot_hold(pylab):
    error = pylab.run_failing("result = {1, 2}")
    assert error["errorType"] == "Runtime.MarshalError"
    assert error["errorMessage"] == "Unable to marshal response: Object of type set is not JSON serializable"


def test_json_details_are_those_of_lambda(pylab, python):
    response = pylab.invoke({"code": "import decimal\nresult = {'n': None, 'u': 'ü', 't': (1, 2), 'd': decimal.Decimal('1.5')}"})
    assert response["Answer"] == {"n": None, "u": "ü", "t": [1, 2], "d": 1.5}
    escaped = int(python.split(".")[1]) < 12
    assert (b"\\u00fc" if escaped else "ü".encode()) in response["Raw"], "escaped to ASCII up to Python 3.11, as in Lambda"
    assert pylab.run("result = None") is None
    assert pylab.invoke({"code": "result = None"})["Raw"] == b"null"


def test_nan_does_not_make_broken_json(pylab):
    response = pylab.invoke({"code": "result = float('nan')"})
    assert response.get("FunctionError") or response["Raw"] == b"NaN", "an error, or what Lambda itself sends"


def test_sys_exit_inside_the_handler(pylab):
    error = pylab.run_failing("import sys; sys.exit(3)")
    assert error["errorType"] in ("Runtime.ExitError", "SystemExit")
    assert pylab.run("result = 'next call fine'") == "next call fine"


def test_print_and_logging_in_order_with_the_request_id(pylab):
    response = pylab.invoke({"code": """
import logging, sys
print("one")
logging.getLogger().warning("two %s", "with arguments")
print("three", file=sys.stderr)
logging.getLogger("named").error("four")
logging.getLogger().info("below the level")
"""}, LogType="Tail")
    request_id = response["ResponseMetadata"]["RequestId"]
    lines = tail(response).splitlines()
    assert lines[0].startswith("START ") and lines[1] == "one"
    assert re.fullmatch(rf"\[WARNING\]\t\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z\t{request_id}\ttwo with arguments", lines[2])
    assert lines[3] == "three"
    assert re.fullmatch(rf"\[ERROR\]\t\S+Z\t{request_id}\tfour", lines[4])
    assert lines[5].startswith("END ")


def test_levels_that_the_function_sets(pylab):
    response = pylab.invoke({"code": """
import logging
logging.getLogger().setLevel(logging.DEBUG)
logging.debug("fine grained")
logging.getLogger().setLevel(logging.WARNING)
"""}, LogType="Tail")
    assert "[DEBUG]" in tail(response) and "fine grained" in tail(response)


def test_json_logging(deploy, python):
    function = deploy("""
        import logging
        def handler(event, context):
            print("plain")
            logging.getLogger().info("an info", extra={"more": 7})
            logging.getLogger().debug("hidden")
            try:
                raise ValueError("inside")
            except ValueError:
                logging.getLogger("mine").exception("caught")
            return 1
    """, python, LoggingConfig={"LogFormat": "JSON"})
    response = function.invoke(LogType="Tail")
    request_id = response["ResponseMetadata"]["RequestId"]
    lines = tail(response).splitlines()
    assert "plain" in lines
    records = [json.loads(line) for line in lines if line.startswith("{")]
    start = next(record for record in records if record.get("type") == "platform.start")
    assert start["record"]["requestId"] == request_id and start["record"]["version"] == "$LATEST" and start["time"]
    report = next(record for record in records if record.get("type") == "platform.report")["record"]
    assert report["requestId"] == request_id and report["status"] == "success"
    assert {"durationMs", "billedDurationMs", "memorySizeMB", "maxMemoryUsedMB"} <= report["metrics"].keys()
    info = next(record for record in records if record.get("message") == "an info")
    assert info["level"] == "INFO" and info["requestId"] == request_id and info["logger"] == "root" and info["more"] == 7
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", info["timestamp"])
    caught = next(record for record in records if record.get("message") == "caught")
    assert caught["errorType"] == "ValueError" and caught["errorMessage"] == "inside" and caught["stackTrace"]
    assert not [record for record in records if record.get("message") == "hidden"]


def test_json_logging_filters_by_the_configured_level(deploy, python):
    code = """
        import logging
        def handler(event, context):
            for level in ("debug", "info", "warning", "error"):
                getattr(logging.getLogger(), level)("at %s", level)
    """
    function = deploy(code, python, LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "WARN", "SystemLogLevel": "WARN"})
    log = tail(function.invoke(LogType="Tail"))
    assert "at warning" in log and "at error" in log
    assert "at info" not in log and "platform.report" not in log
    function = deploy(code, python, LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG"})
    assert "at debug" in tail(function.invoke(LogType="Tail"))


def test_an_uncaught_error_in_json_logging_is_one_record(deploy, python):
    function = deploy("def handler(e, c):\n    raise ValueError('boom')\n", python, LoggingConfig={"LogFormat": "JSON"})
    response = function.invoke(LogType="Tail")
    records = [json.loads(line) for line in tail(response).splitlines() if line.startswith("{")]
    error = next(record for record in records if record.get("errorType") == "ValueError")
    assert error["errorMessage"] == "boom" and error["requestId"] == response["ResponseMetadata"]["RequestId"]
    assert error["level"] == "ERROR"


def test_threads_children_and_imports_of_the_standard_library(pylab):
    assert pylab.run("""
        import asyncio, concurrent.futures, ctypes, hashlib, multiprocessing, sqlite3, ssl, subprocess, tempfile, zoneinfo
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            threads = list(pool.map(lambda x: x * x, range(4)))
        child = subprocess.run(["/bin/sh", "-c", "echo child $((6 * 7))"], capture_output=True, text=True).stdout
        async def later():
            await asyncio.sleep(0)
            return "async"
        with tempfile.NamedTemporaryFile() as f:
            f.write(b"x")
            where = f.name
        one, two = multiprocessing.Pipe()
        p = multiprocessing.Process(target=lambda: two.send("forked"))
        p.start()
        forked = one.recv()
        p.join()
        result = [threads, child, asyncio.run(later()), where.startswith("/tmp/"), sqlite3.connect(":memory:").execute("select 1").fetchone()[0], forked]
    """) == [[0, 1, 4, 9], "child 42\n", "async", True, 1, "forked"]


def test_what_a_function_writes_to_tmp_stays_for_the_next_call(deploy, python):
    function = deploy("""
        import os
        def handler(event, context):
            seen = os.path.exists("/tmp/mark")
            open("/tmp/mark", "w").close()
            return seen
    """, python)
    assert function.call() is False
    assert function.call() is True


def test_boto3_free_functions_get_credentials(pylab):
    env = pylab.run("import os; result = {k: os.environ.get(k) for k in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY')}")
    assert env["AWS_ACCESS_KEY_ID"] is None or len(env["AWS_ACCESS_KEY_ID"]) >= 16
