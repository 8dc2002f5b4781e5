"""Command lines under test, run as a user would: ours, and Amazon's."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .paths import martlet_binary
from .server import plain_environment


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


def run(command, env=None, stdin="", cwd=None, timeout=60) -> Ran:
    done = subprocess.run(command, env=env, input=stdin, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    return Ran(done.returncode, done.stdout, done.stderr)


def martlet(server, *arguments, stdin="", cwd=None, env=None, timeout=60) -> Ran:
    """`martlet ARGUMENTS`, told of the server by environment variables."""
    found = {} if server is None else {"MARTLET_ENDPOINT": server.endpoint,
                                       "AWS_SHARED_CREDENTIALS_FILE": str(server.data_dir / "credentials")}
    return run([str(martlet_binary()), *arguments], plain_environment(**found | (env or {})), stdin, cwd, timeout)


def aws(server, *arguments, timeout=60, program=None) -> Ran:
    """Amazon's command line, from the same virtual environment as these tests unless another is named."""
    program = program or Path(sys.executable).with_name("aws")
    env = plain_environment(AWS_ENDPOINT_URL=server.endpoint, AWS_REGION="us-east-1", AWS_DEFAULT_REGION="us-east-1", AWS_PAGER="",
                            AWS_SHARED_CREDENTIALS_FILE=str(server.data_dir / "credentials"), AWS_MAX_ATTEMPTS="1",
                            AWS_CONFIG_FILE=os.devnull)
    return run([str(program), *arguments], env, timeout=timeout)
