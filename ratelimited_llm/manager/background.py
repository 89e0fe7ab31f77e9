"""An event loop in a thread of its own, for async processors and callbacks: made when needed, ended with its owner."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import weakref
from collections.abc import Awaitable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["Background"]

T = TypeVar("T")
_numbers = itertools.count()
_inherited: list[Any] = []  # loops of the parent process, in the child of a fork: closing them there would disturb it


class Background:
    """Runs awaitables on one loop. Thread-safe. Its thread is a daemon: what matters is waited for by who needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._finalizer: Any = None
        self._process = os.getpid()

    def submit(self, awaitable: Awaitable[T]) -> Future[T]:
        """Have it awaited on the loop; answers a future of its result."""
        with self._lock:
            if self._process != os.getpid():
                self._forget_parents()
            if self._loop is None:
                self._start()
            assert self._loop is not None
            return asyncio.run_coroutine_threadsafe(_wait_for(awaitable), self._loop)

    @property
    def is_here(self) -> bool:
        """Whether the current thread is the loop's."""
        return threading.current_thread() is self._thread

    def close(self, wait: bool = True) -> None:
        """End the loop when what it runs has ended; with `wait`, block until then. It starts again when needed."""
        with self._lock:
            thread, self._thread, self._loop = self._thread, None, None
            if self._finalizer is not None and self._process == os.getpid():
                self._finalizer()
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def reset_after_fork(self) -> None:
        """In the child of a fork: the loop's thread is not here."""
        self._lock = threading.Lock()
        self._forget_parents()

    def _forget_parents(self) -> None:
        if self._finalizer is not None:
            self._finalizer.detach()
            _inherited.append(self._loop)
        self._loop = self._thread = self._finalizer = None
        self._process = os.getpid()

    def _start(self) -> None:
        loop = asyncio.new_event_loop()
        name = f"ratelimited-llm-loop-{next(_numbers)}"
        self._thread = threading.Thread(target=_run, args=(loop,), name=name, daemon=True)
        self._loop = loop
        self._finalizer = weakref.finalize(self, _end, loop)
        self._finalizer.atexit = False  # at exit the process ends it
        self._thread.start()


async def _wait_for(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Safe in a finalizer: it leaves a message, and takes no lock."""
    with suppress(RuntimeError):  # it is closed
        loop.call_soon_threadsafe(loop.stop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        while tasks := asyncio.all_tasks(loop):
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
