"""Crew: the threads of one `map`, as many as the limits can use.

One thread more than those that are busy stands ready: the scout. It takes part when all others are busy and none of
them waits for its turn in a queue; then it is one of them, and the next scout is started. So one thread waits in the
queue, which keeps the limits used up, and not two hundred. No thread is shared with another `map`: one inside of
another never waits for threads that the other holds.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from ..engine import lifecycle
from ..engine.gates import slices
from ..engine.plain_answers import answers_here, crowd_here

__all__ = ["Crew", "Item"]

# How long a scout waits for the others to reach the queue, which takes a millisecond, but for the first call of an SDK.
SLOW_SCOUT = 0.02
QUICK_SCOUT = 0.001  # the same, when the function was seen to make no calls: 256 threads in half a second

_log = logging.getLogger("ratelimited_llm")
_numbers = itertools.count()


class Item:
    """One set of arguments, and what became of it.

    Attributes:
        index: its place, from 0.
        over: whether `value` or `error` says how it ended.
    """

    __slots__ = ("args", "context", "error", "index", "over", "value")

    def __init__(self, index: int, args: tuple[Any, ...]) -> None:
        self.index = index
        self.args = args
        self.context = contextvars.copy_context()
        self.value: Any = None
        self.error: BaseException | None = None
        self.over = False


class Crew:
    """Runs a function on items, on threads of its own.

    Args:
        fn: called with an item's arguments; calls of our clients in it return plain objects.
        most: threads at most.

    Attributes:
        left_over: items that an interrupt kept from being started, as far as their number is known.
    """

    def __init__(self, fn: Callable[..., Any], most: int) -> None:
        self._fn = fn
        self._most = most
        self._lock = threading.Lock()  # only ever taken by whoever feeds, and by the threads
        self._todo: SimpleQueue[Item | None] = SimpleQueue()
        self._ended: SimpleQueue[Item | None] = SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._running: set[Item] = set()
        self._free = 0  # threads that wait for an item
        self._queued = 0  # threads that wait for their turn
        self._scouting = False
        self._patience = SLOW_SCOUT
        self._callers: set[int] = set()  # threads whose function has made a call
        self._outer = crowd_here()  # this one is inside of another
        self._gate: Any = threading.Lock()  # a scout waits here until nobody of us stands in a queue
        self._gate.acquire()
        self._stopped = False
        self.left_over = 0

    # -- for the one who feeds it -------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Threads that exist, busy or not."""
        return len(self._threads)

    def feed(self, item: Item) -> None:
        """Have it done; the threads start with the first.

        Raises:
            RuntimeError: no thread can be started.
        """
        if not self._threads:
            lifecycle.watch_crew(self)
            self._start(self._serve)
        self._todo.put(item)

    def next_ended(self, timeout: float | None) -> Item | None:
        """Wait for any item to end, at most `timeout` seconds; None when none did, or after `wake`."""
        for seconds in slices(timeout):
            with suppress(Empty):
                return self._ended.get(timeout=seconds)
        return None

    def wake(self) -> None:
        """Have whoever waits in `next_ended` return. Safe in a finalizer."""
        self._ended.put(None)

    def stop(self) -> int:
        """Start nothing more; answers how many items were dropped. What runs goes on, and the threads end after it.

        Safe in a finalizer: it takes no lock.
        """
        self._stopped = True
        dropped = 0
        with suppress(Empty):
            while True:
                dropped += self._todo.get_nowait() is not None
        self._todo.put(None)  # whoever finds it puts it back for the next
        self._wake_scout()
        return dropped

    def wait(self, timeout: float | None) -> bool:
        """After `stop`: block until the threads have ended, at most `timeout` seconds; True when they have."""
        end = None if timeout is None else time.monotonic() + timeout
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                _join(thread, end)
        return not self._threads

    @property
    def running(self) -> int:
        """Items that have begun and not ended."""
        return len(self._running)

    # -- the crowd, see `plain_answers` -------------------------------------------------------------------------------

    def joins_queue(self) -> None:
        """One of the threads waits for its turn."""
        with self._lock:
            self._queued += 1
            self._callers.add(threading.get_ident())
        self._wake_scout()
        if self._outer is not None:
            self._outer.joins_queue()

    def leaves_queue(self) -> None:
        """A thread that waited for its turn has it, or has given up."""
        with self._lock:
            self._queued -= 1
        self._wake_scout()
        if self._outer is not None:
            self._outer.leaves_queue()

    def _wake_scout(self) -> None:
        with suppress(RuntimeError):  # it is open already
            self._gate.release()

    # -- the threads --------------------------------------------------------------------------------------------------

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=f"ratelimited-llm-map-{next(_numbers)}", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            if not thread.is_alive():
                self._threads.discard(thread)
            raise

    def _scout(self) -> None:
        self._gate.acquire(blocking=False)  # what happened before is no news
        self._gate.acquire(timeout=self._patience)
        while self._queued and not self._stopped:
            self._gate.acquire()
        with self._lock:
            self._scouting = False
        self._serve()

    def _serve(self) -> None:
        try:
            with answers_here(self):
                while (item := self._take()) is not None:
                    self._run(item)
                    del item  # its answer is the caller's now, and need not stay while this thread waits
        finally:
            self._threads.discard(threading.current_thread())

    def _take(self) -> Item | None:
        with self._lock:
            self._free += 1
        item = self._todo.get()
        with self._lock:
            self._free -= 1
            if item is None:  # it was stopped, and nothing comes after this
                self._todo.put(None)
                return None
            self._running.add(item)
            wanted = not self._scouting and not self._free and len(self._threads) < self._most
            self._scouting = self._scouting or wanted
        if wanted:
            self._grow()
        return item

    def _grow(self) -> None:
        try:
            self._start(self._scout)
        except RuntimeError:  # no more threads, or the interpreter is ending: those that are there do the rest
            _log.debug("thread_refused", exc_info=True)
            with self._lock:
                self._scouting = False

    def _run(self, item: Item) -> None:
        try:
            item.value = item.context.run(self._fn, *item.args)
        except BaseException as error:  # whatever it is, it is the caller's
            item.error = error
        finally:
            item.args = ()
            item.over = True
            self._running.discard(item)
            if threading.get_ident() not in self._callers:
                self._patience = QUICK_SCOUT
            self._ended.put(item)
            del item  # else an error holds its item: exception -> traceback -> this frame -> item


def _join(thread: threading.Thread, end: float | None) -> None:
    """Join it, in slices where Ctrl-C needs that."""
    for seconds in slices(None if end is None else end - time.monotonic()):
        if not thread.is_alive():
            return
        thread.join(seconds)
