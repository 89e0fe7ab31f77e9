"""The thread that ends spans: what an exporter does with one, and how long it takes, is no call's affair.

A processor that exports at once (OpenTelemetry's simple one) talks to its collector while a span ends. So spans are
ended here, one after the other, with the moments that they ended at.

The thread is there from the first call that is traced, and stays: calls end while their script does, and then no thread
can be started any more (Python 3.12.0 to 3.12.2).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from ..forks import at_fork

__all__ = ["SpanThread", "finish", "prepare", "tell"]

MOST = 8_192  # spans that wait: four times what OpenTelemetry's batch processor keeps before it drops
LAST_WORDS = 2.0  # seconds that the end of a script waits for an exporter

_log = logging.getLogger("ratelimited_llm.metrics")


class SpanThread:
    """Does what it is given, in order, on a thread of its own.

    Attributes:
        dropped: how much it was given while `MOST` were waiting.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._todo: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None

    def prepare(self) -> None:
        """Have the thread, for what is to be told later; where none can be started, whoever tells next tries again."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = thread = threading.Thread(target=self._work, name="ratelimited-llm-spans", daemon=True)
                try:
                    thread.start()
                except BaseException as error:
                    if not thread.is_alive():
                        self._thread = None
                    if not isinstance(error, RuntimeError):
                        raise

    def tell(self, what: Callable[[], None]) -> None:
        """Have it done soon; returns at once, and drops it when too much waits. Not for finalizers."""
        if self._todo.qsize() >= MOST:
            self._drop()
            return
        self._todo.put(what)
        self.prepare()

    def _drop(self) -> None:
        self.dropped += 1
        if self.dropped == 1:
            _log.warning(
                "spans_dropped: %d wait for an exporter that is slow, or hangs; the calls go on", MOST,
                extra={"event": "spans_dropped"},
            )  # fmt: skip

    def _work(self) -> None:
        while True:
            what = self._todo.get()
            what()
            del what

    def finish(self, seconds: float = LAST_WORDS) -> bool:
        """Block until all is done, at most so many seconds; True when it is."""
        if self._thread is None:
            return self._todo.empty()
        done = threading.Event()
        self._todo.put(done.set)
        return done.wait(seconds)


_thread_of_process = SpanThread()


def prepare() -> None:
    """Have the thread of this process; see `SpanThread.prepare`."""
    _thread_of_process.prepare()


def tell(what: Callable[[], None]) -> None:
    """Have the thread of this process do it; see `SpanThread.tell`."""
    _thread_of_process.tell(what)


def finish() -> None:
    """Block until the thread of this process has done all it was given; see `SpanThread.finish`."""
    _thread_of_process.finish()


def _after_fork_in_child() -> None:
    global _thread_of_process  # its thread is the parent's, and so are its spans
    _thread_of_process = SpanThread()


at_fork(_after_fork_in_child)
