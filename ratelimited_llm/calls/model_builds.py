"""Forks while pydantic builds a model of an SDK: the child finds the lock of all builds free, and no model half built.

Most models are built when an answer first needs them, on whichever thread has that answer. The lock is pydantic's, and
a child that found it taken by a thread of its parent would wait at its own first answer for ever.
"""

from __future__ import annotations

import sys
from typing import Any

from ..forks import at_fork

__all__: list[str] = []

PATIENCE = 5.0  # seconds that a fork waits for a build, which lasts milliseconds

_held: list[Any] = []  # between the two halves of a fork


def _hold() -> None:
    lock: Any = getattr(sys.modules.get("pydantic.main"), "_rebuild_lock", None)  # since 2.14; before, there is none
    if hasattr(lock, "acquire") and lock.acquire(timeout=PATIENCE):
        _held.append(lock)


def _let_go() -> None:
    while _held:
        _held.pop().release()  # in the child too: the thread that forked is its only one, and has the lock


at_fork(_let_go, before=_hold, in_parent=_let_go)
