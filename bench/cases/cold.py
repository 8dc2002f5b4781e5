"""A first invocation of a new function, environment and all, against the bare interpreter."""

import json
import os
import statistics
import subprocess
import time
from pathlib import Path

from tools.places import BENCH, Unmeasured, say
from tools.server import Server, interpreters

from .code import ECHO, ECHO_NODE

PAUSE = 0.4


def measure(bench, base, flags):
    rounds = bench.rounds(15, 2)
    paths = interpreters()
    with Server(base, flags) as server:
        for language, bare, source, file in (("python", ["-c", "import json"], ECHO, "app.py"), ("nodejs", ["-e", "0"], ECHO_NODE, "index.mjs")):
            path = paths.get(language)
            if not path:
                say(f"no {language} here")
                continue
            say(f"cold, {language}")
            floors, colds = [], []
            for number in range(rounds):
                server.deploy(f"cold-{language}-{number}", source, file)
            for number in range(rounds):
                # Each is to meet a machine that has nothing else to do: what is kept started ahead has been replaced by then.
                time.sleep(PAUSE)
                began = time.perf_counter()
                subprocess.run([path, *bare], stdin=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]}, check=True)
                floors.append((time.perf_counter() - began) * 1000)
                port, arguments = server.load(f"cold-{language}-{number}")
                done = subprocess.run([str(BENCH), "load", "--address", f"127.0.0.1:{port}", *arguments, "--count", "1"],
                                      capture_output=True, text=True, check=True)
                result = json.loads(done.stdout)
                if result["errors"]:
                    raise Unmeasured(f"cold {language}: {result}")
                colds.append(result["p50_us"] / 1000)
            bench.raw[f"cold-{language}"] = {"floor_ms": floors, "cold_ms": colds}
            floor, value = statistics.median(floors), statistics.median(colds)
            bench.row(f"cold {'Python' if language == 'python' else 'Node'}, first invocation", f"median {value:.1f} ms, worst {max(colds):.1f} ms",
                      f"{Path(path).name} {' '.join(bare)}: {floor:.1f} ms", value / floor, "<= 2.5x", value / floor <= 2.5)
