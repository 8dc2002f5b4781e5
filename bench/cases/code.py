"""The functions that are measured."""

ECHO = "def handler(event, context):\n    return event\n"
ECHO_NODE = "export const handler = async (event) => event;\n"

STREAM_NODE = "export const handler = awslambda.streamifyResponse(async (event, stream) => { stream.write('{}'); stream.end(); });\n"

# The handler's first line reads the clock that the client reads as well.
FIRST_LINE = "import time\n{imports}\ndef handler(event, context):\n    return time.monotonic_ns()\n"
FIRST_LINE_NODE = "export const handler = async () => Number(process.hrtime.bigint());\n"
HEAVY_IMPORTS = "import numpy, pandas, boto3"

# As the first two, and each call keeps its environment for itself for so long.
SECONDS_EACH = 0.1
SLOW = f"import time\ndef handler(event, context):\n    time.sleep({SECONDS_EACH})\n"
SLOW_NODE = f"export const handler = () => new Promise((done) => setTimeout(done, {SECONDS_EACH * 1000}));\n"

# Who it is: the host finds its processes by the namespace of their pids. The event says for how many seconds the call keeps its
# environment for itself.
WHO = "import os, time\ndef handler(event, context):\n    time.sleep(event)\n    return os.stat('/proc/self/ns/pid').st_ino\n"
WHO_NODE = ("""import fs from 'node:fs';
export const handler = (seconds) => new Promise((done) => setTimeout(() => done(fs.statSync('/proc/self/ns/pid').ino), seconds * 1000));
""")
