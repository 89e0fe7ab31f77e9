"""The door of a queue that has a cap: who submits waits there for room, or is refused."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from ..core.queue_caps import QueueCaps
from ..core.request import QueuedRequest
from ..exceptions import WorkerStopped
from .plain_answers import IN_QUEUE

__all__ = ["Room", "sleep_at", "slices"]

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


class Room:
    """Lets calls in as long as there is room. Thread-safe; built of plain locks only, which Ctrl-C cannot leave taken.

    Args:
        bounds: the caps.
        blocks: whether who finds it full waits (True) or is refused.
    """

    def __init__(self, bounds: QueueCaps, blocks: bool) -> None:
        self._bounds = bounds
        self._blocks = blocks
        self._lock = threading.RLock()  # a finalizer may submit
        self._gates: list[Any] = []  # of those who wait
        self._closed = False

    def enter(self, call: QueuedRequest, *, force: bool = False) -> None:
        """Count a call that will wait; with `force`, full or not.

        Raises:
            QueueFull: there is no room.
            WorkerStopped: the queue was closed meanwhile.
        """
        while True:
            gate = threading.Lock()
            gate.acquire()
            with self._lock:
                if self._closed:
                    raise WorkerStopped("this client was closed while the call waited for room in the queue")
                full = self._bounds.enter(call.sequence, call.tenant)
                if full is not None and force:
                    self._bounds.force(call.sequence, call.tenant)
                    full = None
                if full is None:
                    return
                if not self._blocks:
                    raise full
                self._gates.append(gate)
            with IN_QUEUE:
                sleep_at(gate)

    def leave(self, call: QueuedRequest) -> None:
        """It waits no more; saying so twice counts once."""
        with self._lock:
            if self._bounds.leave(call.sequence, call.tenant):
                self._open_gates()

    def close(self) -> None:
        """Send away everybody who waits for room."""
        with self._lock:
            self._closed = True
            self._open_gates()

    def _open_gates(self) -> None:
        gates, self._gates = self._gates, []
        for gate in gates:
            gate.release()
