"""The first byte of a streamed response, against a plain warm call of the same runtime."""

from tools.places import say
from tools.server import Server

from .code import ECHO_NODE, STREAM_NODE

# What the first byte may take, as a ratio to the whole of a plain call.
MOST = 2


def measure(bench, base, flags):
    with Server(base, flags) as server:
        server.deploy("echo-node", ECHO_NODE, "index.mjs")
        server.deploy("stream-node", STREAM_NODE, "index.mjs")
        for callers, text in (([], "1 caller"), (["--concurrency", "16"], "16 callers")):
            say(f"first byte of a stream, {text}")
            plain, stream = server.load("echo-node", *callers), server.load("stream-node", "--stream", *callers)
            bench.duel(f"first byte of a stream (floor: a plain warm call), {text}", f"stream-{text[:2].strip()}", plain, stream, MOST)
