"""How calls get into a queue that has a cap: who submits waits for room, or is refused."""

from __future__ import annotations

import threading
from typing import Any

from ..core.queue_caps import QueueCaps
from ..core.request import QueuedRequest
from ..exceptions import WorkerStopped
from .gates import sleep_at
from .plain_answers import IN_QUEUE

__all__ = ["Admission"]


class Admission:
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
