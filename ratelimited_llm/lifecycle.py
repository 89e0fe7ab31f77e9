"""What happens to every worker of the process when it forks or ends.

A script that ends with calls pending drains them, as `concurrent.futures.ThreadPoolExecutor` does; after an unhandled
Ctrl-C only what is in flight is waited for, briefly, and the queue is dropped. The child of a fork starts with empty
queues: the parent's calls are answered in the parent.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .worker import RateLimitedWorker

__all__ = ["register"]

SILENT = 1.0  # seconds of draining before a word is said about it
LAST_ANSWERS = 5.0  # seconds that what is in flight has after Ctrl-C

_workers: weakref.WeakSet[RateLimitedWorker] = weakref.WeakSet()
_lock = threading.Lock()  # two threads may make clients at once
_held: list[RateLimitedWorker] = []  # between the two halves of a fork


def register(worker: RateLimitedWorker) -> None:
    """Have this worker drained at exit, and emptied in the child of a fork."""
    with _lock:
        _workers.add(worker)


def _all() -> list[RateLimitedWorker]:
    with _lock:
        return list(_workers)


def _drain() -> None:
    workers = [worker for worker in _all() if worker.pending]
    interrupted = isinstance(_last_error(), KeyboardInterrupt)
    try:
        if interrupted:
            for worker in workers:
                worker.cancel_queued()
        _wait(workers, SILENT)
        left = sum(worker.pending for worker in workers)
        if left and interrupted:
            _wait(workers, LAST_ANSWERS)
        elif left:
            _say(f"waiting for {left:,} queued requests (Ctrl-C to drop them)")
            _wait(workers, None)
    except KeyboardInterrupt:
        for worker in workers:
            worker.cancel_queued()
    for worker in workers:
        worker.shutdown(wait=False)


def _wait(workers: list[RateLimitedWorker], seconds: float | None) -> None:
    for worker in workers:
        worker.wait(seconds)


def _last_error() -> BaseException | None:
    """What the script died of, if it did: the interpreter leaves it in `sys` when it prints the traceback."""
    return getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)


def _say(text: str) -> None:
    with suppress(Exception):
        print(f"ratelimited_llm: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the main thread, at exit


# Before threading joins its threads, which is while threads can still work; atexit is too late for new connections.
_register_atexit = getattr(threading, "_register_atexit", atexit.register)
_register_atexit(_drain)


def _before_fork() -> None:
    # Held across the fork, so that the child inherits no machine that is half way through a step.
    for worker in _all():
        worker._core.acquire()
        _held.append(worker)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop()._core.release()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _held.clear()
    for worker in _all():
        worker.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
