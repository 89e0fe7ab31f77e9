"""The worker's inbox: a PriorityQueue that can be written to from anywhere, and the worker's alarm clock.

`queue.Queue.put` must not be called from a finalizer (it could find its own thread inside the queue's lock), and a
Ctrl-C in the middle of it can leave that lock taken for ever. Here a message arrives in one step of the interpreter
(`heappush` of a tuple), the lock around it is reentrant, and who waits, waits at a plain lock that anybody may open.
So `put` never blocks, is in order at every point where a finalizer, a signal handler or an exception can come in
between, and costs a quarter.
"""

from __future__ import annotations

import heapq
import math
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["AFTER_ALL", "CONTROL", "Inbox", "Message"]

CONTROL = -1  # the priority of messages about calls that are on their way: before every new call
AFTER_ALL = 1_000  # of what has to find everything that was posted before it already done

# (priority, sequence, handler or None for a new call, call, extra); no two have the same first two numbers
Message = tuple[int, int, "Callable[..., None] | None", Any, Any]


class Inbox(queue.PriorityQueue[Message]):
    """Messages, lowest first; any thread may put, and one at a time may wait.

    Attributes:
        closed: new calls are refused.
        keeps: whatever has to live as long as calls wait. The thread that waits here holds nothing but the inbox.
    """

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.keeps: object = None
        self._step = threading.RLock()
        self._alarm = threading.Lock()  # taken while nobody has rung
        self._alarm.acquire()

    def put(self, item: Message, block: bool = True, timeout: float | None = None, *, ring: bool = True) -> None:
        """Leave a message; never blocks, whoever calls it from wherever.

        Args:
            item: the message.
            block, timeout: as in the base class, and without meaning: there is no cap.
            ring: whether to wake who waits; if not, whoever puts it takes it out too.
        """
        with self._step:
            heapq.heappush(self.queue, item)
        if ring:
            self.ring()

    def put_call(self, item: Message, *, ring: bool = True) -> bool:
        """Leave a new call, `ring` as for `put`; False, and it is not accepted, when the inbox is closed."""
        with self._step:
            if self.closed:
                return False
            heapq.heappush(self.queue, item)
        if ring:
            self.ring()
        return True

    def close(self) -> None:
        """Accept no more calls; other messages still arrive."""
        with self._step:
            self.closed = True

    def ring(self) -> None:
        """End the wait that is going on, or else the next one."""
        if self._alarm.locked():
            with suppress(RuntimeError):  # somebody else was quicker
                self._alarm.release()

    def wait(self, until: float, now: float) -> None:
        """Sleep until somebody rings, or until the moment `until` (math.inf: only that)."""
        if self.queue:
            self._alarm.acquire(blocking=False)
        elif until == math.inf:
            self._alarm.acquire()
        elif until > now:
            self._alarm.acquire(timeout=min(until - now, threading.TIMEOUT_MAX))

    def take(self, most: int) -> list[Message]:
        """Take out the next messages in order, at most so many; an empty list when there are none."""
        with self._step:
            if len(self.queue) > most:
                return [heapq.heappop(self.queue) for _ in range(most)]
            taken, self.queue = self.queue, []
        taken.sort()
        return taken

    def get(self, block: bool = True, timeout: float | None = None) -> Message:
        """Take out the next message, waiting for one at most `timeout` seconds; raises queue.Empty in the end."""
        if block and not self.queue:
            self.wait(math.inf if timeout is None else timeout, 0.0)
        for message in self.take(1):
            return message
        raise queue.Empty
