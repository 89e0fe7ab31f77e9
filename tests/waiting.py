"""Waiting for what nobody announces."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

__all__ = ["wait_until", "wait_until_collected"]


def wait_until(true: Callable[[], Any], timeout: float = 10.0) -> None:
    """Block until something that another thread or process does has become true; fail after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.002)


def wait_until_collected(true: Callable[[], Any], timeout: float = 10.0) -> None:
    """The same for what garbage collection does: the thread that brought an answer holds it a moment longer."""
    wait_until(lambda: gc.collect() >= 0 and true(), timeout)
