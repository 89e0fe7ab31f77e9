"""Which runs of a journal are alive: each holds an operating system's lock on a byte of its own.

The locks are in a file beside the journal (`run.db-lock`), byte N for run N. The kernel releases them when a process
ends, however it ends, so there are no heartbeats, and a killed run is known as dead at once. Two rules of POSIX locks
shape this file: closing *any* descriptor of a file drops every lock that the process has on it, so a process opens
each lock file once; and a process never meets its own locks, so its own runs are remembered beside them.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from contextlib import suppress

from ..forks import at_fork

__all__ = ["Owners", "owners_of"]

if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int, byte: int, *, shared: bool) -> None:
        os.lseek(fd, byte, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

    def _unlock(fd: int, byte: int) -> None:
        os.lseek(fd, byte, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _lock(fd: int, byte: int, *, shared: bool) -> None:
        # Who only looks takes a shared lock for a moment, so that two who look do not take each other for the owner.
        fcntl.lockf(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, byte)

    def _unlock(fd: int, byte: int) -> None:
        fcntl.lockf(fd, fcntl.LOCK_UN, 1, byte)


_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}

_guard = threading.RLock()
_open: dict[str, Owners] = {}


class Owners:
    """The lock file of one journal, as this process has it open. Thread-safe; made by `owners_of` only."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.users = 0
        self._fd: int | None = None
        self._ours: set[int] = set()
        self._dead: set[int] = set()  # numbers are never given again

    def hold(self, run: int) -> bool:
        """Take the lock of a new run; False when another process has it (its journal was deleted meanwhile).

        Raises:
            OSError: there can be no lock file here.
        """
        with _guard:
            if run in self._ours or not self._try(run, shared=False):
                return False
            self._ours.add(run)
            self._dead.discard(run)
            return True

    def drop(self, run: int) -> None:
        """Release the lock of a run of ours, which has ended."""
        with _guard:
            if run in self._ours and self._fd is not None:
                self._ours.discard(run)
                _unlock(self._fd, run)

    def alive(self, run: int) -> bool:
        """Whether a run's process lives. Where the file system knows no locks, nobody but ourselves does."""
        with _guard:
            if run in self._ours:
                return True
            if run in self._dead:
                return False
            try:
                if not self._try(run, shared=True):
                    return True
                _unlock(self._descriptor(), run)
            except OSError:
                return False
            self._dead.add(run)
            return False

    def forget_dead(self) -> None:
        """Another file is in the journal's place, and counts its runs anew."""
        self._dead.clear()

    def close(self) -> None:
        """One user less; the last one closes the file."""
        with _guard:
            self.users -= 1
            if self.users <= 0:
                if _open.get(self.path) is self:
                    del _open[self.path]
                self._close()

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _try(self, run: int, *, shared: bool) -> bool:
        try:
            _lock(self._descriptor(), run, shared=shared)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        return True

    def _descriptor(self) -> int:
        if self._fd is None:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
            fd = os.open(self.path, flags, 0o600)
            if hasattr(os, "fchmod") and not os.fstat(fd).st_size:
                with suppress(OSError):
                    os.fchmod(fd, 0o600)  # whatever the umask has taken away
            self._fd = fd
        return self._fd


def owners_of(path: str) -> Owners:
    """The lock file at this path, opened once per process however many ask."""
    with _guard:
        owners = _open.get(path)
        if owners is None:
            owners = _open[path] = Owners(path)
        owners.users += 1
        return owners


def _after_fork() -> None:
    """A child has none of its parent's locks, and must not close what it may open again under the same path."""
    global _guard
    _guard = threading.RLock()
    for owners in _open.values():
        owners._close()
        owners._ours.clear()


at_fork(_after_fork)
