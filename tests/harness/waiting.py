"""Waiting on a condition, with a bound; nothing here waits for time to pass for its own sake."""

import threading
import time
from collections.abc import Callable


def until(condition: Callable[[], object], what: str, seconds: float = 10.0, every: float = 0.02):
    """Gives the first true value of `condition`; fails with `what` in the message after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        pause.wait(every)
