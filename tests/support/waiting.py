"""Waiting for what a test needs, however slow the machine is."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], timeout_s: float = 60.0, every_s: float = 0.001) -> None:
    """Until the condition holds; fails after timeout_s, which only ends a test that is wrong.

    every_s: pause between two looks, for conditions that take time from what is waited for.
    """
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(every_s)
