"""Hands out the lines of an input as they can be had, without ever waiting for a pipe that is slow to fill."""

from __future__ import annotations

import os
import queue
import stat
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from .lines import BadLine, Line

__all__ = ["Lines", "count_lines", "may_block"]

AHEAD = 256  # lines that the thread reads on before they are asked for


def may_block(source: Any) -> bool:
    """Whether reading it may wait for somebody else: stdin, a FIFO, a socket; not a file on a disk."""
    try:
        if isinstance(source, (str, os.PathLike)) and source != "-":
            mode = os.stat(source).st_mode
        else:
            mode = os.fstat((sys.stdin if source == "-" else source).fileno()).st_mode
    except (OSError, AttributeError, ValueError):  # it is not there, or is in memory: reading will tell
        return False
    return not stat.S_ISREG(mode)


def count_lines(source: Any) -> int | None:
    """How many lines a file of JSON lines has; None when that is not cheap to know."""
    if not isinstance(source, (str, os.PathLike)) or source == "-" or may_block(source):
        return None
    if not os.fspath(source).lower().endswith((".jsonl", ".ndjson")):
        return None
    with open(source, "rb") as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(2**20), b""))


class Lines:
    """The lines of an input, taken one by one.

    Args:
        lines: reads them.
        events: where a reading thread leaves a None each time it has read one.
        threaded: whether to read in a thread of its own.

    Attributes:
        ended: whether the last was taken.
    """

    def __init__(self, lines: Iterator[Line | BadLine], events: queue.SimpleQueue[Any], threaded: bool) -> None:
        self.ended = False
        self._lines = lines
        self._events = events
        self._read: deque[Any] = deque()
        self._room: threading.Semaphore | None = None
        if threaded:
            self._room = threading.Semaphore(AHEAD)
            # A daemon: one that waits in a read cannot be told to stop.
            threading.Thread(target=self._read_on, name="ratelimited-llm-batch-input", daemon=True).start()

    def take(self) -> Line | BadLine | None:
        """The next line, or None: there is none yet, or (`ended`) none any more.

        Raises:
            OSError, InputError: it could not be read.
        """
        if self._room is None:
            item = next(self._lines, None)
        else:
            if not self._read:
                return None
            item = self._read.popleft()
            self._room.release()
        if isinstance(item, BaseException):
            raise item
        self.ended = item is None
        return item

    def _read_on(self) -> None:
        room = self._room
        assert room is not None
        try:
            for line in self._lines:
                room.acquire()
                self._put(line)
            self._put(None)
        except Exception as error:
            self._put(error)

    def _put(self, item: Any) -> None:
        self._read.append(item)
        self._events.put(None)
