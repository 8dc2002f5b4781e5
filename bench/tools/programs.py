"""Programs of ours that only some cases need: built when one does."""

import subprocess

from .places import ROOT, TARGET, Unmeasured


def example(bench, name):
    """The release build of an example of crates/bench."""
    path = TARGET / "examples" / name
    if not bench.options.no_build:
        subprocess.run(["cargo", "build", "--release", "--locked", "-p", "martlet-bench", "--example", name], cwd=ROOT, check=True)
    if not path.exists():
        raise Unmeasured(f"{path} is not there; run once without --no-build")
    return path
