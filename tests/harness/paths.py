"""Where the things under test are, and which of the optional ones this machine has."""

import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
EXAMPLES = ROOT / "examples"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
NODE_MODULES = TESTS / "node_modules"


def martlet_binary() -> Path:
    """The binary under test: MARTLET_BINARY, or the newest of the debug and release builds."""
    if named := os.environ.get("MARTLET_BINARY"):
        return Path(named)
    builds = [path for profile in ("debug", "release") if (path := TARGET / profile / "martlet").exists()]
    if not builds:
        raise FileNotFoundError(f"no martlet under {TARGET}: run `cargo build` (or ./test, which does)")
    return max(builds, key=lambda path: path.stat().st_mtime)


@lru_cache
def tool(name: str) -> str | None:
    """The path of a program of this machine, or None."""
    return shutil.which(name)


@lru_cache
def build_example(name: str) -> Path:
    """Builds the Go or Rust example once a run and gives its directory, with `bootstrap` in it."""
    source, out = EXAMPLES / name, TARGET / "examples" / name
    out.mkdir(parents=True, exist_ok=True)
    if name == "go":
        command = ["go", "build", "-tags", "lambda.norpc", "-o", str(out / "bootstrap"), "."]
        environment = os.environ | {"CGO_ENABLED": "0"}
    else:
        command = ["cargo", "build", "--locked", "--target-dir", str(out / "target")]
        environment = dict(os.environ)
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        raise RuntimeError(f"examples/{name} does not build:\n{done.stdout}{done.stderr}")
    if name != "go":
        shutil.copy2(out / "target" / "debug" / "bootstrap", out / "bootstrap")
    return out
