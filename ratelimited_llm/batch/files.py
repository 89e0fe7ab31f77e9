"""The files that a run writes: the answers, and the rows that failed."""

from __future__ import annotations

import os
from collections.abc import Hashable
from contextlib import ExitStack
from typing import Any

from .ids import IdSet
from .lines import Line
from .output import Past, Sink, past_of, rewrite

__all__ = ["Files"]

PIECE = 2**18  # bytes after which is written without waiting for a pause


class Files:
    """Takes the rows of a run, in a `with` block; not thread-safe. Rows are on their way after `flush`.

    Args:
        target: a path, "-" or a file object.
        path: the target, if it is a path.
        errors_path: where failures go; None for the target too.

    Attributes:
        past: what earlier runs left.

    Raises:
        OSError, OutputError: see `Sink` and `past_of`.
    """

    def __init__(self, target: Any, path: str | None, errors_path: str | None) -> None:
        self.path, self.errors_path = path, errors_path
        self._pieces: list[bytes] = []
        self._error_pieces: list[bytes] = []
        self._size = 0
        self._superseded = IdSet()  # failures of earlier runs that this run has something newer about
        self._old_errors = 0  # bytes of them
        self._errors: Sink | None = None
        with ExitStack() as opened:
            self._answers = Sink(target)
            opened.callback(self._answers.close)
            if errors_path is not None and os.path.exists(errors_path):
                self._errors = Sink(errors_path)
                opened.callback(self._errors.close)
            self.past: Past = past_of(path, errors_path)
            if path is not None:
                self._answers.mend(path)
            if errors_path is not None and self._errors is not None:
                self._errors.mend(errors_path)
                self._old_errors = self._errors.size
            opened.pop_all()

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if self._errors is not None:
                self._errors.close()
            if self.errors_path is not None and (len(self._superseded) or self.past.stale):
                rewrite(self.errors_path, self._old_errors, self._is_outdated)
        finally:
            self._answers.close()

    def _is_outdated(self, key: Hashable) -> bool:
        return key in self._superseded or key in self.past.answered

    def answer(self, row: bytes, line: Line) -> None:
        """Take the row of an answer; it is written by the next flush, or sooner when many are kept."""
        self._supersede(line)
        self._put(self._pieces, row)

    def failure(self, row: bytes, key: Hashable, line: Line | None = None) -> None:
        """Take the row of a failure; `line` is the call, if it was one."""
        if line is not None:
            self._supersede(line)
        elif key in self.past.failed:
            self._superseded.add(key)
        self._put(self._pieces if self.errors_path is None else self._error_pieces, row)

    def _supersede(self, line: Line) -> None:
        for key in (line.custom_id, ("line", line.number)):  # it was a bad line, and was put right
            if key in self.past.failed:
                self._superseded.add(key)

    def _put(self, pieces: list[bytes], row: bytes) -> None:
        pieces.append(row)
        self._size += len(row)
        if self._size >= PIECE:
            self.flush()

    def flush(self) -> None:
        """Write what has come.

        Raises:
            OSError: it cannot be written.
        """
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            self._answers.append(b"".join(pieces))
        if self._error_pieces and self.errors_path is not None:
            if self._errors is None:
                self._errors = Sink(self.errors_path)
            pieces, self._error_pieces = self._error_pieces, []
            self._errors.append(b"".join(pieces))
        self._size = 0
