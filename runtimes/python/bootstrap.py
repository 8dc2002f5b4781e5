"""The bootstrap of the managed Python runtimes: loads the handler, then answers events.

It runs on Python 3.8 and later, is started as `python -s -S -u`, and speaks with the server as ../PROTOCOL.md says.
A cold start waits for every import made here, so what only some functions need is imported when they need it.
"""

import json
import os
import sys
import time

CONTROL_FD, PARK_FD = 3, 5
INVOKE, RESTORE, FUNCTION = 1, 2, 3
READY, INIT_ERROR, RESPONSE, ERROR, TOO_LARGE, PARKED = 16, 17, 18, 19, 20, 21
RESPONSE_LIMIT = 6 * 1024 * 1024 + 100
RECEIVE_BYTES = 64 * 1024
# The interpreter adapts code to what it sees after a few runs.
REHEARSALS = 12
STREAM_VARIABLE = "AWS_LAMBDA_LOG_STREAM_NAME"
TRACE_VARIABLE = "_X_AMZN_TRACE_ID"
TRACE_KEY = TRACE_VARIABLE.encode()

NO_BREAK_SPACE = "\u00a0"
# Since 3.12 the managed runtimes leave characters beyond ASCII as they are.
ENSURE_ASCII = sys.version_info < (3, 12)

# Lambda's own runtime has these in memory before the function's code runs, so a file of the function with such a name
# never takes their place. Here they are imported late, or never; the rule is the same.
STANDARD_FIRST = frozenset(
    "__future__ _weakrefset _decimal _pydecimal _stat _string atexit collections contextlib copyreg decimal enum "
    "functools genericpath heapq importlib io keyword linecache logging math numbers operator posixpath re reprlib "
    "sre_compile sre_constants sre_parse stat string textwrap threading token tokenize traceback types warnings "
    "weakref".split()
)


class Fault(Exception):
    """A failure that has one of Lambda's own error types."""

    def __init__(self, error_type, message, stack_trace=None):
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.stack_trace = stack_trace or []


class Current:
    """What the event at hand is; read by log records of any thread. An instance, since whoever writes to a class has the
    interpreter forget what it knows about it."""

    def __init__(self):
        self.request_id = None
        self.tenant_id = None
        # Whether the environment of child processes has a trace id.
        self.trace_is_outside = False
        # What was read beyond the frame at hand.
        self.unread = b""
        # What contexts say for as long as the environment lives.
        self.fixed = (None,) * 5


CURRENT = Current()


# --- Import path -----------------------------------------------------------------------------------------------------


class StandardFinder:
    """Finds the modules of STANDARD_FIRST in the standard library, and sets logging up when it is first imported."""

    def __init__(self, standard_path):
        self.standard_path = standard_path

    def find_spec(self, name, path=None, target=None):
        if path is not None or name not in STANDARD_FIRST:
            return None
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, self.standard_path, target)
                if spec is not None:
                    if name == "logging":
                        spec.loader = LoggingLoader(spec.loader)
                    return spec
        return None


class LoggingLoader:
    """Loads the logging module as usual, then gives its root logger the handler that Lambda functions expect."""

    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        set_up_logging(module)


def set_up_imports(task_root):
    """The order of Lambda: the function, its layers, the runtime, the standard library, what is installed beside it."""
    version = "python%d.%d" % sys.version_info[:2]
    own = os.path.dirname(os.path.abspath(__file__))
    rest = [entry for entry in sys.path if entry not in ("", own, task_root)]
    prefixes = ("/usr/local", "/usr") if sys.prefix == "/usr" else (sys.prefix,)
    names = (version + "/site-packages", version + "/dist-packages", "python3/dist-packages")
    installed = [os.path.join(prefix, "lib", name) for prefix in prefixes for name in names]
    standard = [entry for entry in rest if entry.startswith((sys.prefix, sys.base_prefix, sys.exec_prefix))]
    sys.path[:] = [task_root, "/opt/python/lib/%s/site-packages" % version, "/opt/python", own]
    sys.path += rest + [entry for entry in installed if entry not in rest and os.path.isdir(entry)]
    sys.meta_path.insert(0, StandardFinder(standard))
    if os.environ.get("PYTHONPATH"):
        # The one thing that `site` would have done for a function that brings such a path: it is how tracers hook in.
        try:
            import sitecustomize  # noqa: F401
        except ImportError:
            pass


def set_up_builtins():
    """`site` is not run; these are all that programs miss of it."""
    import _sitebuiltins
    import builtins

    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
    builtins.help = _sitebuiltins._Helper()


# --- Log -------------------------------------------------------------------------------------------------------------


class LogSink:
    """Writes whole records to the telemetry descriptor."""

    TEXT, JSON = 3, 2

    def __init__(self, descriptor):
        self.descriptor = descriptor

    def log(self, message, level=0, form=TEXT):
        """Writes one record. `level` is logging's number; one that is no multiple of ten counts as the one below."""
        steps = min(50, max(0, level)) // 10
        kind = form | (steps + 1 if steps else 0) << 2
        data = message.encode("utf-8", "backslashreplace")
        head = b"\xa5\x5a\x00" + bytes((kind,)) + len(data).to_bytes(4, "big")
        data = head + (time.time_ns() // 1000).to_bytes(8, "big") + data
        while data:
            data = data[os.write(self.descriptor, data) :]


def log_level():
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    return "DEBUG" if level == "TRACE" else level


def logs_json():
    return os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"


def utc(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def set_up_logging(logging):
    """Adds Lambda's handler to the root logger of the freshly loaded module."""
    in_json = logs_json()

    class LambdaLoggerHandler(logging.Handler):
        def __init__(self, log_sink):
            super().__init__()
            self.log_sink = log_sink

        def emit(self, record):
            form = LogSink.JSON if in_json else LogSink.TEXT
            self.log_sink.log(self.format(record), record.levelno, form)

    class LambdaLoggerFilter(logging.Filter):
        def filter(self, record):
            record.aws_request_id = CURRENT.request_id or ""
            record.tenant_id = CURRENT.tenant_id
            return True

    class JsonFormatter(logging.Formatter):
        def format(self, record):
            return json_record(logging, self, record)

    logging.Formatter.converter = time.gmtime
    if in_json:
        formatter = JsonFormatter(datefmt="%Y-%m-%dT%H:%M:%SZ")
    else:
        line = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n"
        formatter = logging.Formatter(line, "%Y-%m-%dT%H:%M:%S")
    handler = LambdaLoggerHandler(SINK)
    handler.setFormatter(formatter)
    handler.addFilter(LambdaLoggerFilter())
    root = logging.getLogger()
    if log_level() in logging._nameToLevel:
        root.setLevel(log_level())
    root.addHandler(handler)


def json_record(logging, formatter, record):
    """One record as the JSON object that Lambda's log format asks for; what has no value is left out."""
    level = min(50, max(0, record.levelno)) // 10 * 10
    plain = isinstance(record.msg, dict) and not record.args
    fields = {
        "timestamp": formatter.formatTime(record, formatter.datefmt),
        "level": logging.getLevelName(level),
        "message": record.msg if plain else record.getMessage(),
        "logger": record.name,
    }
    if record.exc_info:
        import traceback

        kind, value, trace = record.exc_info
        fields["stackTrace"] = traceback.format_tb(trace)
        fields["errorType"] = kind.__name__ if kind else None
        fields["errorMessage"] = str(value) if kind else None
    fields["requestId"] = getattr(record, "aws_request_id", None)
    if record.exc_info:
        fields["location"] = "%s:%s:%d" % (record.pathname, record.funcName, record.lineno)
    known = set(logging.makeLogRecord({}).__dict__) - {"taskName"} | {"aws_request_id", "tenant_id"}
    for name, value in record.__dict__.items():
        if name not in known:
            fields.setdefault(name, value)
    fields = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(fields, ensure_ascii=False, default=str) + "\n"


def log_error(document):
    """Logs an error document the way it is shown to the reader of a log, stack trace and all."""
    if logs_json():
        record = {"timestamp": utc(time.time()), "level": "ERROR"}
        record.update(document)
        SINK.log(json.dumps(record, ensure_ascii=False) + "\n", 40, LogSink.JSON)
        return
    head = ": ".join(part for part in (document["errorType"], document["errorMessage"]) if part)
    lines = [("[ERROR] " + head).rstrip(), "Traceback (most recent call last):"]
    for entry in document["stackTrace"]:
        for line in entry.splitlines() or [""]:
            text = line.lstrip(" ")
            lines.append(NO_BREAK_SPACE * (len(line) - len(text)) + text)
    SINK.log("\n".join(lines), 40)


# --- Errors ----------------------------------------------------------------------------------------------------------


def error_document(error_type, message, stack_trace, request_id):
    return {
        "errorMessage": message,
        "errorType": error_type,
        "requestId": request_id or "",
        "stackTrace": stack_trace,
    }


def describe(error, request_id):
    """The error document of an exception; the frames of this file are left out of its trace."""
    if isinstance(error, Fault):
        return error_document(error.error_type, error.message, error.stack_trace, request_id)
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    while frames and frames[0].filename == describe.__code__.co_filename:
        del frames[0]
    # Only these four: the marks under the failing expression are no part of Lambda's format.
    frames = [(frame.filename, frame.lineno, frame.name, frame.line) for frame in frames]
    try:
        message = str(error)
    except Exception:
        message = "the exception's own __str__ failed"
    return error_document(type(error).__name__, message, traceback.format_list(frames), request_id)


# --- Handler ---------------------------------------------------------------------------------------------------------


def load(name):
    """Imports the handler `package/module.function`."""
    module_name, dot, function_name = name.rpartition(".")
    if not dot:
        # Lambda quotes what unpacking the split name says.
        reason = "not enough values to unpack (expected 2, got 1)"
        raise Fault("Runtime.MalformedHandlerName", "Bad handler '%s': %s" % (name, reason))
    if module_name.split(".")[0] in sys.builtin_module_names:
        message = "Cannot use built-in module %s as a handler module" % module_name
        raise Fault("Runtime.BuiltInModuleConflict", message)
    try:
        dotted = module_name.replace("/", ".")
        __import__(dotted)
        module = sys.modules[dotted]
    except ImportError as error:
        message = "Unable to import module '%s': %s" % (module_name, error)
        raise Fault("Runtime.ImportModuleError", message)
    except SyntaxError as error:
        message = "Syntax error in module '%s': %s" % (module_name, error)
        where = '  File "%s" Line %s\n    %s' % (error.filename, error.lineno, error.text)
        raise Fault("Runtime.UserCodeSyntaxError", message, [where])
    try:
        return getattr(module, function_name)
    except AttributeError:
        message = "Handler '%s' missing on module '%s'" % (function_name, module_name)
        raise Fault("Runtime.HandlerNotFound", message)


class Attributes:
    """An object with a fixed list of attributes, each None until a mapping gives it a value."""

    __slots__ = ()

    def __init__(self, values):
        for name in self.__slots__:
            setattr(self, name, values.get(name))

    def __repr__(self):
        inner = ",".join("%s=%s" % (name, getattr(self, name)) for name in self.__slots__)
        return "%s([%s])" % (type(self).__name__, inner)


class CognitoIdentity(Attributes):
    __slots__ = ["cognito_identity_id", "cognito_identity_pool_id"]

    def __init__(self):
        self.cognito_identity_id = self.cognito_identity_pool_id = None


class Client(Attributes):
    __slots__ = ["installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name"]


class ClientContext(Attributes):
    __slots__ = ["custom", "env", "client"]


class LambdaContext:
    """The second argument of a handler."""

    SHOWN = (
        "aws_request_id log_group_name log_stream_name function_name memory_limit_in_mb function_version "
        "invoked_function_arn client_context identity tenant_id".split()
    )

    def __init__(self, meta):
        self.aws_request_id = meta["id"]
        self.log_group_name, self.log_stream_name, self.function_name, *rest = CURRENT.fixed
        self.memory_limit_in_mb, self.function_version = rest
        self.invoked_function_arn = meta["arn"]
        self.tenant_id = meta.get("tenant")
        self.client_context = None
        self.identity = CognitoIdentity()
        self._trace_fields = {}
        self._deadline = meta["deadline"]
        if meta.get("client"):
            self._read_client_context(meta["client"])

    def _read_client_context(self, text):
        try:
            values = json.loads(text)
            trace = values.pop("w3c", None)
            self.client_context = ClientContext(values)
            if self.client_context.client is not None:
                self.client_context.client = Client(self.client_context.client)
        except Exception as error:
            message = "Unable to parse Client Context JSON: %s" % error
            raise Fault("Runtime.LambdaContextUnmarshalError", message)
        if isinstance(trace, dict):
            for name in ("traceparent", "tracestate", "baggage"):
                if isinstance(trace.get(name), str):
                    self._trace_fields[name] = trace[name]

    def get_remaining_time_in_millis(self):
        return max(0, self._deadline - int(time.time() * 1000))

    def w3c(self):
        """The W3C trace context that came with the client context."""
        return dict(self._trace_fields)

    def log(self, message):
        SINK.log(str(message))

    def __repr__(self):
        inner = ",".join("%s=%s" % (name, getattr(self, name)) for name in self.SHOWN)
        return "LambdaContext([%s])" % inner


# --- Results ---------------------------------------------------------------------------------------------------------

PLAIN = frozenset((str, int, float, bool, type(None)))
KEYS = (str, int, float, type(None))


def is_special(value):
    """True when Lambda's encoder treats some part differently than the standard one: named tuples and byte keys."""
    if type(value) in PLAIN:
        return False
    seen = set()
    pending = [value]
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind in PLAIN:
            continue
        if kind is not dict and kind is not list:
            if callable(getattr(item, "_asdict", None)):
                return True
            if not isinstance(item, (dict, list, tuple)):
                continue
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            for key in item:
                if type(key) is not str and isinstance(key, bytes):
                    return True
            pending += item.values()
        else:
            pending += item
    return False


def simplify(value):
    """Replaces named tuples by objects and byte keys by text."""
    if type(value) in PLAIN:
        return value
    as_dict = getattr(value, "_asdict", None)
    if callable(as_dict):
        value = as_dict()
    if isinstance(value, dict):
        return {k.decode() if isinstance(k, bytes) else k: simplify(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [simplify(item) for item in value]
    return value


class Encoder(json.JSONEncoder):
    """Writes what the standard encoder does not know. Decimals become numbers with all their digits, byte strings text."""

    mark = None

    def default(self, item):
        if isinstance(item, bytes):
            return item.decode()
        decimal = sys.modules.get("decimal")
        if decimal and isinstance(item, decimal.Decimal):
            if item.is_nan():
                return float("nan")
            if self.mark is None:
                self.mark = os.urandom(12).hex()
            # The standard encoder cannot write a number it does not know; a marked string is unquoted afterwards.
            return self.mark + str(item) + self.mark
        raise TypeError("Object of type %s is not JSON serializable" % type(item).__name__)


ENCODER = Encoder(ensure_ascii=ENSURE_ASCII)


def encode(value):
    """The result as JSON text."""
    if is_special(value):
        value = simplify(value)
    encoder = ENCODER
    text = encoder.encode(value)
    mark = encoder.mark
    if mark is not None:
        encoder.mark = None
        text = text.replace('"' + mark, "").replace(mark + '"', "")
    return text


# The decoder without the search for white space around the text, which there rarely is.
SCAN = json.JSONDecoder().scan_once


def parse(text):
    try:
        value, end = SCAN(text, 0)
    except StopIteration:
        return json.loads(text)
    return value if end == len(text) else json.loads(text)


def marshal(value):
    if isinstance(value, bytes):
        return value
    try:
        return encode(value).encode("utf-8")
    except Exception as error:
        raise Fault("Runtime.MarshalError", "Unable to marshal response: %s" % error)


# --- Events ----------------------------------------------------------------------------------------------------------


def send(kind, sequence=0, meta=b"", payload=b""):
    head = (kind << 120 | sequence << 64 | len(meta) << 32 | len(payload)).to_bytes(16, "big") + meta
    written = os.writev(CONTROL_FD, (head, payload)) if payload else os.write(CONTROL_FD, head)
    if written < len(head) + len(payload):
        rest = memoryview(head + payload)[written:]
        while rest:
            rest = rest[os.write(CONTROL_FD, rest) :]


def receive(kind=INVOKE):
    """The next event: its sequence, meta and payload. Does not return when the server is gone."""
    data = CURRENT.unread or os.read(CONTROL_FD, RECEIVE_BYTES)
    while data and len(data) < 16:
        more = os.read(CONTROL_FD, RECEIVE_BYTES)
        data = more and data + more
    if not data or data[0] != kind:
        os._exit(0)
    numbers = int.from_bytes(data[4:16], "big")
    start = 16 + (numbers >> 32 & 0xFFFFFFFF)
    total = start + (numbers & 0xFFFFFFFF)
    if len(data) < total:
        filled = len(data)
        whole = bytearray(total)
        whole[:filled] = data
        view = memoryview(whole)
        while filled < total:
            count = os.readv(CONTROL_FD, (view[filled:],))
            if not count:
                os._exit(0)
            filled += count
        data = whole
    # The first event may come right behind what a forked process is told.
    CURRENT.unread = data[total:] if len(data) > total else b""
    view = memoryview(data)
    return numbers >> 64, parse(str(view[16:start], "utf-8")), view[start:total]


def send_error(kind, sequence, document, error_type=None):
    log_error(document)
    meta = json.dumps({"errorType": error_type or document["errorType"]}).encode()
    payload = json.dumps(document).encode()
    if len(payload) > RESPONSE_LIMIT:
        document = dict(document, errorMessage=document["errorMessage"][:10000], stackTrace=[])
        payload = json.dumps(document).encode()
    send(kind, sequence, meta, payload)


def handle(handler, meta, payload):
    context = LambdaContext(meta)
    try:
        event = parse(str(payload, "utf-8"))
    except Exception as error:
        raise Fault("Runtime.UnmarshalError", "Unable to unmarshal input: %s" % error)
    return marshal(handler(event, context))


def show_trace(trace):
    """Sets the variable that tracers read. The C library never gives back a value that it was given, 150 bytes an event; so
    child processes and native code see it only where somebody samples the trace."""
    if "Sampled=1" in trace:
        os.environ[TRACE_VARIABLE] = trace
        CURRENT.trace_is_outside = True
        return
    if CURRENT.trace_is_outside:
        os.environ.pop(TRACE_VARIABLE, None)
        CURRENT.trace_is_outside = False
    try:
        data = os.environ._data
    except AttributeError:
        # The function has put something else in its place.
        os.environ[TRACE_VARIABLE] = trace
        return
    if trace:
        data[TRACE_KEY] = trace.encode()
    else:
        data.pop(TRACE_KEY, None)


def serve(handler):
    """Answers events for as long as the server sends them."""
    while True:
        answer_next(handler)


def answer_next(handler):
    sequence, meta, payload = receive()
    CURRENT.request_id = meta["id"]
    CURRENT.tenant_id = meta.get("tenant")
    show_trace(meta["trace"])
    try:
        result = handle(handler, meta, payload)
    except Exception as error:
        send_error(ERROR, sequence, describe(error, meta["id"]))
        return
    del payload
    if len(result) > RESPONSE_LIMIT:
        send(TOO_LARGE, sequence)
    else:
        send(RESPONSE, sequence, payload=result)


# --- Start -----------------------------------------------------------------------------------------------------------


def read_fixed():
    """Reads what the variables of this environment say."""
    names = "LOG_GROUP_NAME LOG_STREAM_NAME FUNCTION_NAME FUNCTION_MEMORY_SIZE FUNCTION_VERSION".split()
    CURRENT.fixed = tuple(os.environ.get("AWS_LAMBDA_" + name) for name in names)


def become_template(hooks, template):
    """Parks this process. Returns in each environment that is forked from it, and here if that cannot be; what it returns
    is the meta of `ready`."""
    try:
        hooks.run_before_hooks()
    except Exception as error:
        # Type and exit code, here and below, are those of Lambda's own runtime.
        send_error(INIT_ERROR, 0, describe(error, None), "Runtime.BeforeSnapshotError")
        sys.exit(64)
    obstacle = template.obstacle()
    after = hooks.after_hooks()
    read_fixed()
    if obstacle is None:
        send(PARKED)
        if template.park(PARK_FD, lambda: rehearse(REHEARSALS)) < 0:
            os._exit(1)
        restore()
        template.differ()
    else:
        os.close(PARK_FD)
    try:
        for hook, positional, named in after:
            hook(*positional, **named)
    except Exception as error:
        send_error(INIT_ERROR, 0, describe(error, None), "Runtime.AfterRestoreError")
        sys.exit(65)
    return b"" if obstacle is None else json.dumps({"unforkable": obstacle}).encode()


def learn_function():
    """Waits to be told which function this interpreter is for. Its files are there from then on."""
    send(READY)
    variables = receive(FUNCTION)[1]["env"]
    for name in set(os.environ) - set(variables):
        del os.environ[name]
    os.environ.update(variables)
    os.environ.pop(SINK_VARIABLE, None)
    time.tzset()
    os.chdir(os.environ.get("LAMBDA_TASK_ROOT", "/var/task"))


def restore():
    """Takes over what differs from the template: the log stream, for one."""
    env = receive(RESTORE)[1]["env"]
    group, stream, *rest = CURRENT.fixed
    CURRENT.fixed = (group, env.get(STREAM_VARIABLE, stream), *rest)
    for name, value in env.items():
        try:
            # As assigning to os.environ does, but for its checks.
            name, value = name.encode(), value.encode()
            os.environ._data[name] = value
            os.putenv(name, value)
        except AttributeError:
            # The function has put something else in its place.
            os.environ[name.decode()] = value.decode()


def rehearse(times=1):
    """Goes through what each forked process does until it has answered its first event. Before the fork often enough that the
    interpreter has nothing left to learn: what it notes about code, types and variables there, no fork has to, and pay with the
    copy of a page. After it once, with nobody waiting: the first event then finds its pages copied."""
    global CONTROL_FD
    own, fixed, trace = CONTROL_FD, CURRENT.fixed, os.environ.get(TRACE_VARIABLE, "")
    meta = {"id": "", "deadline": 0, "arn": "", "trace": "Root=1-0-0;Parent=0;Sampled=0"}
    try:
        out, into = os.pipe()
        # Both ends in one, since what is sent comes back; and one that never waits, whatever has become of `os`.
        CONTROL_FD = os.open("/proc/self/fd/%d" % out, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        os.close(out)
        os.close(into)
        for _ in range(times):
            send(RESTORE, 0, json.dumps({"env": {STREAM_VARIABLE: fixed[1] or ""}}).encode())
            restore()
            send(READY)
            os.read(CONTROL_FD, RECEIVE_BYTES)
            send(INVOKE, 0, json.dumps(meta).encode(), b'{"of":[1,2.5,"text",null,true]}')
            answer_next(lambda event, context: event)
            os.read(CONTROL_FD, RECEIVE_BYTES)
    except Exception:
        # Function code has replaced something on the way; events will show whether that works.
        pass
    finally:
        if CONTROL_FD != own:
            os.close(CONTROL_FD)
        CONTROL_FD, CURRENT.fixed, CURRENT.request_id, CURRENT.unread = own, fixed, None, b""
        show_trace(trace)


def main():
    template_of = os.environ.pop("_MARTLET_TEMPLATE", None)
    for descriptor in (CONTROL_FD, SINK.descriptor) + ((PARK_FD,) if template_of else ()):
        os.set_inheritable(descriptor, False)
    set_up_builtins()
    if template_of:
        # Before the function's folders come to the import path.
        import martlet_template
    if template_of == "runtime":
        learn_function()
    set_up_imports(os.environ.get("LAMBDA_TASK_ROOT", "/var/task"))
    template = martlet_template.Template() if template_of else None
    try:
        handler = load(os.environ.get("_HANDLER", ""))
    except Exception as error:
        send_error(INIT_ERROR, 0, describe(error, None))
        sys.exit(1)
    if template_of:
        send(READY, meta=become_template(martlet_template, template))
        if not CURRENT.unread and template.is_early(CONTROL_FD):
            rehearse()
    else:
        read_fixed()
        send(READY)
    serve(handler)


SINK_VARIABLE = "_LAMBDA_TELEMETRY_LOG_FD"
SINK = LogSink(int(os.environ.pop(SINK_VARIABLE, "1")))

if __name__ == "__main__":
    main()
