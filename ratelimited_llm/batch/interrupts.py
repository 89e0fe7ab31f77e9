"""Ctrl-C as a word to the batch instead of an exception in the middle of whatever it does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["told_of_interrupts"]


@contextmanager
def told_of_interrupts(tell: Callable[[], None]) -> Iterator[None]:
    """Have `tell` called, in the main thread, at Ctrl-C in a `with` block; it may raise.

    Where Ctrl-C raises no KeyboardInterrupt, because somebody handles it, or in another thread, nothing changes.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        tell()

    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
