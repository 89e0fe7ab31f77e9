"""Threads that send: started when there is something to send and none is free, gone soon after there is nothing."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Callable

__all__ = ["SenderPool"]

IDLE_SECONDS = 2.0  # how long a thread waits for more before it goes
KEPT = 4  # threads that stay while anything is pending: at interpreter exit no new one can be started (Python 3.12)

_log = logging.getLogger("ratelimited_llm.worker")
_numbers = itertools.count()

Work = Callable[[], None]


class SenderPool:
    """Runs work on as many threads as there is work at once; thread-safe.

    Args:
        pending: answers how much is still to come, so that a few threads stay for it.
    """

    def __init__(self, pending: Callable[[], int]) -> None:
        self._pending = pending
        self._work: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._free = threading.Semaphore(0)  # threads that wait for work, less the work that is on its way to them
        self._lock = threading.Lock()
        self._alive = 0
        self._owed = 0  # work that was left for whoever comes free, when no thread could be had for it

    @property
    def alive(self) -> int:
        """Threads that exist."""
        return self._alive

    def prepare(self, wanted: int) -> None:
        """Have at least so many threads (no more than are kept), for the work that is about to come."""
        if self._alive < wanted <= KEPT:
            self._start(free=True)

    def run(self, work: Work) -> bool:
        """Run `work` on a thread of its own; False when no thread could be had, now or ever."""
        if not self._free.acquire(blocking=False) and not self._start(free=False):
            with self._lock:
                if self._alive == 0:
                    return False
                self._owed += 1
        self._work.put(work)
        return True

    def _start(self, *, free: bool) -> bool:
        with self._lock:
            self._alive += 1
        thread = threading.Thread(
            target=self._serve, args=(free,), name=f"ratelimited-llm-sender-{next(_numbers)}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is ending: the threads there are take turns
            with self._lock:
                self._alive -= 1
            _log.debug("thread_refused", exc_info=True)
            return False
        return True

    def _serve(self, free: bool) -> None:
        if free:
            self._free.release()
        while True:
            try:
                work = self._work.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                if self._may_go():
                    return
                continue
            try:
                work()
            except BaseException:
                # Work reports its own errors; what arrives here is a fault of ours, and must not cost the thread.
                _log.exception("sender_failed")
            del work  # a thread that waits must not keep the last call's body alive
            self._come_free()

    def _come_free(self) -> None:
        with self._lock:
            if self._owed:
                self._owed -= 1
                return
        self._free.release()

    def _may_go(self) -> bool:
        """Leave, unless work is on its way to us or will be soon."""
        with self._lock:
            if self._pending() and self._alive <= KEPT:
                return False
            if not self._free.acquire(blocking=False):
                return False  # somebody counted on us: the work arrives any moment
            self._alive -= 1
            return True
