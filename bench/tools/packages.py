"""The heavy function: numpy, pandas and boto3, installed once with the interpreter that functions run on."""

import shutil
import subprocess
from pathlib import Path

from .places import CACHE, Skipped, say

WANTED = ("numpy", "pandas", "boto3")
# Services whose descriptions boto3 keeps; all of them would be twice as much as a package may hold.
SERVICES = {"s3", "dynamodb", "sts", "sqs"}


def heavy(path, name):
    """The directory with the packages for the interpreter at `path`; `name` tells interpreters apart."""
    directory = CACHE / f"heavy-{name}"
    if (directory / "done").exists():
        return directory / "packages"
    say(f"installing {', '.join(WANTED)} into {directory}")
    shutil.rmtree(directory, ignore_errors=True)
    packages = directory / "packages"
    done = subprocess.run([path, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--target",
                           str(packages), *WANTED], capture_output=True, text=True, timeout=200)
    if done.returncode != 0:
        raise Skipped(f"the packages could not be installed: {done.stderr.strip()[-300:]}")
    _slim(packages)
    # Compiled once, and valid whatever times the archive keeps: an ordinary start is to cost the imports, not the compiler.
    subprocess.run([path, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(packages)], stdout=subprocess.DEVNULL)
    (directory / "done").touch()
    return packages


def _slim(packages: Path):
    for unwanted in [*packages.glob("*/**/tests"), packages / "bin"]:
        shutil.rmtree(unwanted, ignore_errors=True)
    for service in (packages / "botocore" / "data").iterdir():
        if service.is_dir() and service.name not in SERVICES:
            shutil.rmtree(service)
