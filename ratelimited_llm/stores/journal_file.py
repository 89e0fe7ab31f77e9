"""The file of a journal: an SQLite database that holds every answer, and every call that is on its way to one.

    runs     number, pid, started                       a process that has sent calls; a lock tells whether it lives
    calls    key, occurrence -> answer, run, at, error  one row for each call that was ever sent
    answers  id -> key, occurrence, at, status, seconds, headers, body, request

A row of `calls` says what became of a call, in this order of weight:

    run      it is in flight: this run has sent it, `at` this moment. If the run is dead, it is perhaps paid.
    answer   it is answered, by that row of `answers`. (A call that is sent again because its answer is too old has
             both.)
    error    it failed like this, `at` this moment, and nobody has tried it since.

`headers` is a JSON list of pairs, `body` the bytes as they came. `request` is the body that was sent, where the
journal keeps requests; equal requests keep it once, with occurrence 0.

What is promised:

1. `record` returns after its row is on the disk (synchronous=FULL): neither kill -9 nor a power cut loses it.
2. `claim` returns after its row is committed (synchronous=NORMAL): it survives kill -9. A power cut may take the last
   claims along; then a later run does not know that those calls are perhaps paid.
3. A call is claimed by one living run at a time, over all processes on this machine: the claim is a row, and the run
   that it names is alive as long as the kernel holds its lock (`journal_owners`).
4. Whatever happens to the file in the middle of a run, nothing is raised and no answer is held back: rows wait in
   memory until they can be written (`journal_commit`), and are found there meanwhile.
5. No connection lives through a fork: SQLite forbids it. All are closed before it, and opened again when needed.

The write-ahead log needs shared memory, which network file systems lack; there the classic journal is used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from ..forks import at_fork
from .database import is_locked
from .journal_commit import REST, GroupCommit, Trouble, Write
from .journal_opening import open_for_reading, open_for_writing
from .journal_owners import Owners, owners_of
from .journal_rows import FIND, OWNER, ClaimWrite, RecordWrite, recorded, write_all, write_alone
from .journal_values import Place, Recorded

__all__ = ["JournalFile"]

_log = logging.getLogger("ratelimited_llm.journal")
FORK_PATIENCE = 5.0  # seconds that a fork waits for a commit to end
READ_PATIENCE = 1.0  # seconds that a reader waits where there is no write-ahead log

_files: weakref.WeakSet[JournalFile] = weakref.WeakSet()


class JournalFile:
    """One journal's file, as this process has it open. Thread-safe; see the module for what is promised.

    Args:
        path: as `real_path` answered it.
        wall_clock: seconds since 1970.
        vfs: SQLite's way to this file system; None for its default.

    Raises:
        JournalError: the file cannot be used as a journal.
    """

    def __init__(self, path: str, wall_clock: Callable[[], float], vfs: str | None = None) -> None:
        self.path = path
        self.trouble = Trouble(path)
        self.commits = GroupCommit(self._transact, self.trouble, self._forget)
        self.unwritten: dict[Place, Recorded] = {}
        self.closed = False
        self._clock = wall_clock
        self._vfs = vfs
        self._reading = threading.RLock()  # a finalizer in the middle of a read may close, or read itself
        self._reader: sqlite3.Connection | None = None
        self._next_read = 0.0  # not before, after one that failed
        self._writer: sqlite3.Connection | None = None
        self._durable: bool | None = None  # how the writer commits at present
        self._inode = 0
        self._run: int | None = None
        self._owners: Owners = owners_of(path + "-lock")
        try:
            self._open(thorough=True)
        except sqlite3.Error as error:
            self.trouble.began(error)
        except BaseException:
            self._owners.close()
            raise
        _files.add(self)

    # -- reading ------------------------------------------------------------------------------------------------------

    def find(self, place: Place) -> Recorded | None:
        """The answer of a call, however old."""
        if self.unwritten and (answer := self.unwritten.get(place)):
            return answer
        row = self.read(lambda reader: reader.execute(FIND, place).fetchone())
        return None if row is None else recorded(row)

    def owner(self, place: Place) -> tuple[int | None, int | None]:
        """The number of a call's answer, and of the run that has it in flight."""
        return self.read(lambda reader: reader.execute(OWNER, place).fetchone()) or (None, None)

    def alive(self, run: int) -> bool:
        """Whether the process of a run lives."""
        return self._owners.alive(run)

    def version(self) -> int:
        """A number that changes when anybody has committed something; -1 when that cannot be told."""
        row = self.read(lambda reader: reader.execute("PRAGMA data_version").fetchone())
        return -1 if row is None else int(row[0])

    def read(self, query: Callable[[sqlite3.Connection], Any]) -> Any:
        """Ask something; None when the file cannot be read, and the trouble is said."""
        if self.closed or (self._reader is None and time.monotonic() < self._next_read):
            return None
        end = 0.0
        while True:
            try:
                with self._reading:
                    if self._reader is None:
                        self._reader = open_for_reading(self.path, self._vfs)
                    return query(self._reader)
            except (sqlite3.Error, OSError, ValueError, TypeError) as error:
                end = end or time.monotonic() + READ_PATIENCE
                if not is_locked(error) or time.monotonic() > end:
                    self._close_reader()
                    self._next_read = time.monotonic() + REST
                    if not self.closed:
                        self.trouble.began(f"it cannot be read: {error}")
                    return None

    # -- writing ------------------------------------------------------------------------------------------------------

    def record(self, row: RecordWrite) -> None:
        """Block until an answer is on the disk; while the file is in trouble it is kept in memory."""
        if self.closed:
            return
        self.commits.write(row)
        if not row.written:
            self.unwritten[row.place] = row.answer
            if row.written or row.lost:
                self._forget(row)

    def _forget(self, row: Write) -> None:
        """A row need not be remembered any more: it is in the file, or will never be."""
        if isinstance(row, RecordWrite):
            self.unwritten.pop(row.place, None)

    def exclusively(self, step: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do something in one transaction while nobody else writes.

        Raises:
            sqlite3.Error, OSError: it could not be done.
        """
        with self.commits.leading, self._transaction(FORK_PATIENCE) as writer:
            return step(writer)

    def outside_transactions(self, step: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do something that no transaction may be around, while nobody else in this process writes."""
        with self.commits.leading:
            self._look_at_file()
            return step(self._open_writer())

    def _transact(self, rows: list[Write], patience: float) -> None:
        self._look_at_file()
        if self._run is None and any(isinstance(row, ClaimWrite) for row in rows):
            self._begin_run(patience)
        durable = any(isinstance(row, RecordWrite) for row in rows)
        if len(rows) > 1 or not write_alone(self._ready_writer(durable=durable), rows[0], self._run):
            with self._transaction(patience, durable=durable) as writer:
                write_all(writer, rows, self._run, self.alive)
        if self.unwritten:
            for row in rows:
                self._forget(row)

    def _ready_writer(self, *, durable: bool) -> sqlite3.Connection:
        """The writer outside of any transaction, and committing as it should."""
        writer = self._open_writer()
        if writer.in_transaction:  # a Ctrl-C came between a rollback and its reason
            writer.rollback()
        if durable is not self._durable:
            self._durable = None
            # Not execute(): this works when it is compiled, and a compiled statement out of the cache does nothing.
            writer.executescript(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        return writer

    @contextlib.contextmanager
    def _transaction(self, patience: float, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        writer = self._ready_writer(durable=durable)
        try:
            _begin(writer, patience)
            yield writer
            writer.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if writer.in_transaction:
                    writer.rollback()
            raise

    def _begin_run(self, patience: float) -> None:
        while True:
            with self._transaction(patience, durable=False) as writer:
                row = (os.getpid(), self._clock())
                run = writer.execute("INSERT INTO runs (pid, started) VALUES (?, ?)", row).lastrowid
            assert run is not None
            try:
                held = self._owners.hold(run)
            except OSError as error:
                _log.warning(
                    "journal %s: no locks here (%s), so another process on this file may send the same calls",
                    self.path, error.strerror, extra={"event": "journal_without_locks"},
                )  # fmt: skip
                held = True
            if held:
                self._run = run
                return

    # -- opening and closing ------------------------------------------------------------------------------------------

    def _open(self, *, thorough: bool) -> sqlite3.Connection:
        self._writer, self._inode = open_for_writing(self.path, self._vfs, thorough=thorough)
        self._durable = None
        return self._writer

    def _open_writer(self) -> sqlite3.Connection:
        if self.closed:
            raise sqlite3.ProgrammingError("it is closed")
        return self._writer or self._open(thorough=False)

    def _look_at_file(self) -> None:
        """If the file was deleted or replaced, go on with what is there now, or with a new one."""
        if self.trouble.text is not None:
            self._close_writer()  # what was in its way may be gone; a new connection finds out
        if self._writer is None and not self._inode:
            return
        try:
            inode = os.stat(self.path).st_ino
        except FileNotFoundError:
            inode = 0
        if inode == self._inode:
            return
        self._close_writer()  # before a new one: the two would share the index of the log
        self._close_reader()
        self._leave_run()
        self._owners.forget_dead()
        if inode:
            self.trouble.began("the file was replaced by another; from here on that one is written")
        else:
            self.trouble.began("the file was deleted while it was in use; a new one is begun")
        self._inode = inode

    def _leave_run(self) -> None:
        if self._run is not None:
            self._owners.drop(self._run)
            self._run = None

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(sqlite3.Error):
                writer.close()

    def _close_reader(self) -> None:
        with self._reading:
            reader, self._reader = self._reader, None
            if reader is not None:
                with contextlib.suppress(sqlite3.Error):
                    reader.close()

    def close(self) -> None:
        """Commit what is left, and close the file. Doing it twice does nothing."""
        if not self.closed:
            self.commits.close()
            with self.commits.leading:
                self.closed = True
                self._close_reader()
                self._close_writer()
                self._leave_run()
                self._owners.close()
        _files.discard(self)

    # -- forks --------------------------------------------------------------------------------------------------------

    def before_fork(self) -> bool:
        """Hold everything still and close the connections; False when a commit does not end in time."""
        if not self.commits.leading.acquire(timeout=FORK_PATIENCE):
            return False
        if not self._reading.acquire(timeout=FORK_PATIENCE):
            self.commits.leading.release()
            return False
        self._close_reader()
        self._close_writer()
        return True

    def after_fork_in_parent(self) -> None:
        """In the parent of a fork: let go of what `before_fork` held."""
        self._reading.release()
        self.commits.leading.release()

    def after_fork_in_child(self, *, usable: bool) -> None:
        """Begin a run of its own when one is needed; a connection that could not be closed is never touched."""
        self._reading = threading.RLock()
        self.commits.reset()
        self.unwritten.clear()
        self._run = None
        if not usable:
            _inherited.append((self._reader, self._writer))
            self._reader = self._writer = None
            self.closed = True
            self.trouble.began("forked in the middle of a commit; this process does not use it")


_inherited: list[object] = []
_held: list[JournalFile] = []
_torn: list[JournalFile] = []


def _before_fork() -> None:
    for file in list(_files):
        (_held if file.before_fork() else _torn).append(file)


def _after_fork_in_parent() -> None:
    _torn.clear()
    while _held:
        _held.pop().after_fork_in_parent()


def _after_fork_in_child() -> None:
    while _held:
        _held.pop().after_fork_in_child(usable=True)
    while _torn:
        _torn.pop().after_fork_in_child(usable=False)


at_fork(_after_fork_in_child, before=_before_fork, in_parent=_after_fork_in_parent)


def _begin(writer: sqlite3.Connection, patience: float) -> None:
    """Begin to write, waiting for other processes; a Ctrl-C is heard in between."""
    end = time.monotonic() + patience
    while True:
        try:
            writer.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() > end:
                raise
