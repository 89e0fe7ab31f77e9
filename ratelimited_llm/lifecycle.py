"""What happens to every worker of the process when it forks or ends.

A script that ends with calls pending drains them, as `concurrent.futures.ThreadPoolExecutor` does. After an unhandled
Ctrl-C only what is in flight is waited for, briefly, and the queue is dropped; another Ctrl-C gives up that too. The
child of a fork starts with empty queues: the parent's calls are answered in the parent.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .worker import RateLimitedWorker

__all__ = ["register"]

SILENT = 1.0  # seconds of draining before a word is said about it
LAST_ANSWERS = 5.0  # seconds that what is in flight has after Ctrl-C
FORK_PATIENCE = 5.0  # seconds that a fork waits for a step to end, which lasts microseconds

_workers: weakref.WeakSet[RateLimitedWorker] = weakref.WeakSet()
_lock = threading.RLock()  # two threads may make clients at once
_held: list[threading.Lock] = []  # between the two halves of a fork
_dropped = False  # Ctrl-C has ended the draining


def register(worker: RateLimitedWorker) -> None:
    """Have this worker drained at exit, and emptied in the child of a fork."""
    with _lock:
        _workers.add(worker)


def _all() -> list[RateLimitedWorker]:
    with _lock:
        return list(_workers)


# -- the end of the process -------------------------------------------------------------------------------------------


def _drain() -> None:
    """Wait for what is pending. The workers stay open: threads that outlive the main one may still use them."""
    workers = [worker for worker in _all() if worker.pending]
    if not workers:
        return
    try:
        if not isinstance(_last_error(), KeyboardInterrupt):
            if not _wait(workers, SILENT):
                left = sum(worker.pending for worker in workers)
                _say(f"waiting for {left:,} queued requests (Ctrl-C to drop them)")
                _wait(workers, None)
            return
    except KeyboardInterrupt:
        pass
    with suppress(KeyboardInterrupt):
        _drop(workers)


def _drop(workers: list[RateLimitedWorker]) -> None:
    global _dropped
    _dropped = True
    for worker in workers:
        worker.engine.close(final=True)
    cancelled = sum(worker.cancel_queued() for worker in workers)
    try:
        _wait(workers, LAST_ANSWERS)
    finally:
        abandoned = sum(worker.in_flight for worker in workers)
        _say(f"interrupted: {cancelled:,} cancelled, {abandoned:,} abandoned")


def _wait(workers: list[RateLimitedWorker], seconds: float | None) -> bool:
    """Wait for all of them, at most so long; True when nothing is pending."""
    end = None if seconds is None else time.monotonic() + seconds
    return all(worker.wait(None if end is None else max(0.0, end - time.monotonic())) for worker in workers)


def _close() -> None:
    """The very last: nothing can be sent from here on."""
    if not _dropped:
        _drain()
    for worker in _all():
        worker.shutdown(wait=False)


def _last_error() -> BaseException | None:
    """What the script died of, if it did: the interpreter leaves it in `sys` when it prints the traceback."""
    return getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)


def _say(text: str) -> None:
    with suppress(Exception):
        print(f"ratelimited_llm: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the main thread, at exit


# Before threading joins its threads, which is while threads can still work; atexit is too late for new connections.
_register_atexit = getattr(threading, "_register_atexit", atexit.register)
_register_atexit(_drain)
atexit.register(_close)


# -- forks ------------------------------------------------------------------------------------------------------------


def _before_fork() -> None:
    # Held across the fork, so that the child inherits no machine that is half way through a step. If a step should
    # hang, the child gets what there is rather than the parent no child.
    for worker in _all():
        core = worker.engine.core
        if core.acquire(timeout=FORK_PATIENCE):
            _held.append(core)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().release()
    for worker in _all():
        worker.engine.inbox.ring()  # who found the core taken has left a message


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    _held.clear()
    for worker in _all():
        worker.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
