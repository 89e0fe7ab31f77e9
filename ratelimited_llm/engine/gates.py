"""A gate is a plain lock that a thread sleeps at until somebody releases it: Ctrl-C cannot leave it taken for ever."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["sleep_at", "slices"]

# Windows cannot interrupt what waits for a lock before Python 3.14 (cpython #125541): Ctrl-C is heard between slices.
_LONGEST_WAIT = 0.2 if sys.platform == "win32" and sys.version_info < (3, 14) else math.inf


def slices(timeout: float | None) -> Iterable[float | None]:
    """The seconds of each wait of a sleep that Ctrl-C ends on every system: wait so long, and again, until it is there.

    `timeout` is that of all waits together. None, given or answered, is as long as it takes; so is an infinite timeout.
    """
    whole = math.inf if timeout is None else max(0.0, timeout)
    if whole > _LONGEST_WAIT:
        return _shares(time.monotonic() + whole)
    return (None if whole == math.inf else min(whole, threading.TIMEOUT_MAX),)


def _shares(end: float) -> Iterator[float]:
    while (left := end - time.monotonic()) > 0:
        yield min(left, _LONGEST_WAIT)


def sleep_at(gate: Any, timeout: float | None = None) -> bool:
    """Wait until somebody releases this lock, at most `timeout` seconds; False when nobody did."""
    for seconds in slices(timeout):  # noqa: SIM110 - any() would take twice the time
        if gate.acquire(True, -1 if seconds is None else seconds):
            return True
    return False
