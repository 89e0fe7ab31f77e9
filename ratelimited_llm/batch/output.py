"""The output of a batch: files that whole lines are appended to, and what earlier runs have left in them.

1. Only whole lines are written, each batch of them in one `write`, so a process that is killed leaves no half line but
   by a full disk or a power cut; the next run cuts that off.
2. A file that is no batch output is never changed.
3. One process at a time writes to a file.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from typing import Any

from .ids import IdSet

__all__ = ["OutputError", "Past", "Sink", "errors_path", "past_of", "rewrite"]

# Our own lines, told at a glance: a million of them are read in two seconds, where parsing would take ten.
_ANSWERED = re.compile(
    rb'\{"id": "batch_req_\w*", "custom_id": ("(?:[^"\\]|\\.)*"), "response": \{"status_code": 2\d\d, '
)
_ANSWERED_END = b'"error": null}\n'
_BEGINNING = b'{"id": "batch_req_'
_BINARY = getattr(os, "O_BINARY", 0)


class OutputError(ValueError):
    """This file cannot take the output of a batch, and was not changed; says why."""


def errors_path(path: str) -> str:
    """Where the rows that failed go: OUT.errors.jsonl."""
    return path.removesuffix(".jsonl") + ".errors.jsonl"


class Past:
    """What earlier runs left: which calls were answered and which failed.

    Bad lines may have no name, and count by their number: `("line", 7)`.
    """

    def __init__(self) -> None:
        self.answered = IdSet()
        self.failed = IdSet()
        self.stale = False  # some row tells of a failure that was made good


def past_of(path: str | None, errors: str | None) -> Past:
    """Read what earlier runs wrote; files that do not exist are empty.

    Raises:
        OSError: one cannot be read.
        OutputError: one is no batch output.
    """
    past = Past()
    for name in (path, errors):
        if name is not None and os.path.isfile(name):
            for _, key, answered in _rows(name):
                (past.answered if answered else past.failed).add(key)
                past.stale |= not answered and key in past.answered
    return past


def _rows(path: str, start: int = 0) -> Iterator[tuple[bytes, Hashable, bool]]:
    """Each whole line, the key of its call, and whether it is an answer."""
    with open(path, "rb") as file:
        if not start and file.read(1) not in (b"", b"{", b"\0"):
            raise OutputError(f"{path} is no output of a batch: it does not begin with a JSON object; choose another")
        file.seek(start)
        for number, line in enumerate(file, 1):
            if line[-1:] != b"\n" and not _is_whole(line, path):
                return
            found = _ANSWERED.match(line)
            if found is not None and line.endswith(_ANSWERED_END):
                yield line, json.loads(found[1]), True
            elif line.strip():
                yield line, *_parse(line, path, number)


def _is_whole(line: bytes, path: str) -> bool:
    """Whether the last line, which has no end, lacks nothing else.

    Raises:
        OutputError: it is no beginning of one of ours either.
    """
    with suppress(ValueError, RecursionError):
        if isinstance(json.loads(line), dict):
            return True
    text = line.strip(b"\0")  # a power cut leaves zeros where data was to be
    if text.startswith(_BEGINNING) or _BEGINNING.startswith(text):
        return False
    raise OutputError(f"{path} is no output of a batch: its last line is no JSON; choose another")


def _parse(line: bytes, path: str, number: int) -> tuple[Hashable, bool]:
    with suppress(ValueError, RecursionError):
        row = json.loads(line)
        if isinstance(row, dict) and "response" in row and "error" in row and "custom_id" in row:
            if isinstance(row.get("line"), int):
                return ("line", row["line"]), False
            response = row["response"]
            good = isinstance(response, dict) and str(response.get("status_code")).startswith("2")
            return row["custom_id"], good and row["error"] is None
    raise OutputError(f"{path} is no output of a batch: line {number} has no custom_id and response; choose another")


class Sink:
    """Where lines go to: a file that is appended to, a pipe, or a file object. Not thread-safe.

    Args:
        target: a path; "-" for stdout; or an object with `write`, of bytes or of text, which is not closed.

    Attributes:
        size: bytes of a file, up to the end of its last whole line; known once it was mended.

    Raises:
        OSError: it cannot be opened.
        OutputError: another batch is writing to it.
    """

    def __init__(self, target: Any) -> None:
        self._write: Callable[[bytes], None] | None = None
        self._fd = -1
        self.size = 0
        self._opened = self._is_file = False
        if isinstance(target, (str, os.PathLike)) and target != "-":
            self._open(os.fspath(target))
        else:
            self._take(sys.stdout if target == "-" else target)

    def _open(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY, 0o600)
        self._opened = True
        try:
            self._is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
            if self._is_file:
                _lock(self._fd, path)
        except BaseException:
            self.close()
            raise

    def _take(self, file: Any) -> None:
        file.flush()
        with suppress(AttributeError, OSError, ValueError):  # in a notebook stdout has no file behind it
            self._fd = file.fileno()
            return
        binary = getattr(file, "buffer", None)
        if binary is None and hasattr(file, "encoding"):
            self._write = lambda data: file.write(data.decode())
        else:
            self._write = (binary or file).write

    def mend(self, path: str) -> None:
        """Cut off what is left of a line that was not written to its end, or end it; the rest was looked through."""
        if not self._is_file:
            return
        self.size = os.fstat(self._fd).st_size
        tail = _last_line(path, self.size)
        if not tail or tail.endswith(b"\n"):
            return
        if _is_whole(tail, path):
            self.append(b"\n")
        else:
            self.size -= len(tail)
            os.ftruncate(self._fd, self.size)

    def append(self, data: bytes) -> None:
        """Write whole lines.

        Raises:
            OSError: they could not be written; in a file, those that were not written whole are not there at all.
        """
        if self._write is not None:
            self._write(data)
            return
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            if self._is_file:
                done = data.rfind(b"\n", 0, len(data) - len(left)) + 1
                with suppress(OSError):
                    os.ftruncate(self._fd, self.size + done)
            raise
        self.size += len(data)

    def close(self) -> None:
        """Have it on the disk, and let others write."""
        if self._opened:
            self._opened = False
            if self._is_file:
                with suppress(OSError):
                    os.fsync(self._fd)
            os.close(self._fd)


def _last_line(path: str, size: int) -> bytes:
    """The bytes after the last line end but one."""
    with open(path, "rb") as file:
        tail, step = b"", 65536
        while size > 0 and b"\n" not in tail[:-1]:
            start = max(0, size - step)
            file.seek(start)
            tail = file.read(size - start) + tail
            size, step = start, step * 2
    return tail[tail.rfind(b"\n", 0, -1) + 1 :]


def _lock(fd: int, path: str) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            # A byte that no file has, since on Windows a lock keeps others from reading what is locked.
            os.lseek(fd, 2**40, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            raise OutputError(
                f"{path} is being written by another batch: wait for it, or choose another file"
            ) from None
        # A file system without locks: better no protection than no batch.


def rewrite(path: str, old_size: int, outdated: Callable[[Hashable], bool]) -> None:
    """Drop those of the first `old_size` bytes' rows that are outdated, all at once or not at all.

    A file of which nothing is left is removed.
    """
    fresh = path + ".new"
    kept = read = 0
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            for line, key, _ in _rows(path):
                if read >= old_size or not outdated(key):
                    file.write(line)
                    kept += 1
                read += len(line)
            file.flush()
            os.fsync(fd)
        if kept:
            os.replace(fresh, path)
        else:
            os.remove(path)
    finally:
        with suppress(FileNotFoundError):
            os.remove(fresh)
