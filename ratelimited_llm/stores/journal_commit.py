"""Group commit: many threads write, one of them commits for all, and nobody needs a thread of its own.

Who writes leaves its row in a queue. If nobody is committing, it commits what is there, its own row included; else it
waits until somebody has done so. Rows leave the queue only after their commit, so a Ctrl-C, an error or a full disk in
the middle loses none: they are tried again with the next ones, and every write may be applied twice.
"""

from __future__ import annotations

import _thread
import itertools
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

__all__ = ["GroupCommit", "Trouble", "Write"]

_log = logging.getLogger("ratelimited_llm.journal")
MOST = 64  # rows of one commit
TURN = 0.02  # seconds after which a waiting row sees to itself: who should have called it may have been interrupted
REST = 0.25  # seconds between two tries while the file is in trouble
MOST_KEPT = 256 << 20  # bytes of answers that wait in memory for a full disk; beyond, the oldest are given up
PATIENCE = 10.0  # seconds that a commit waits for other processes before it counts as trouble

UNWRITABLE = (sqlite3.Error, OSError)  # of the file; the rows are kept
BAD_ROW = (sqlite3.DataError, sqlite3.InterfaceError, sqlite3.IntegrityError, OverflowError, TypeError, ValueError)


class Write:
    """One row on its way into the file.

    Attributes:
        done: nobody has to wait for it any more.
        written: it is committed.
        lost: it never will be: it cannot be written, or too many wait.
        waits: a thread waits for it.
        size: bytes that it keeps in memory.
    """

    __slots__ = ("done", "gate", "lost", "size", "waits", "written")

    def __init__(self, size: int = 0) -> None:
        self.done = self.written = self.lost = self.waits = False
        self.size = size
        self.gate = threading.Lock()
        self.gate.acquire()

    def open_gate(self) -> None:
        """Let the thread that waits for it go on and look."""
        if self.gate.locked():
            with suppress(RuntimeError):  # opened meanwhile
                self.gate.release()


class Trouble:
    """What is wrong with the file at present: said once, and a reason to try only now and then."""

    def __init__(self, path: str) -> None:
        self.text: str | None = None
        self._path = path
        self._said: set[str] = set()
        self._next_try = 0.0

    def began(self, error: object) -> None:
        """The file cannot be written, or read."""
        self.text = str(error) or type(error).__name__
        self._next_try = time.monotonic() + REST
        if self.text not in self._said:
            self._said.add(self.text)
            _log.warning(
                "journal %s: %s. Answers are delivered all the same; what is not written yet is tried again",
                self._path, self.text, extra={"event": "journal_trouble"},
            )  # fmt: skip

    def over(self) -> None:
        """A commit went well."""
        if self.text is not None:
            self.text = None
            _log.info("journal %s: written again", self._path, extra={"event": "journal_written_again"})

    def resting(self) -> bool:
        """Whether it is too early to try again."""
        return self.text is not None and time.monotonic() < self._next_try


class GroupCommit:
    """The queue of one file. Thread-safe.

    Args:
        transact: commits some rows, all or none; takes the seconds that it may wait for other processes too. It is
            never called by two threads at once.
        trouble: where it is said that it cannot.
        forget: told of each row that is lost.
    """

    def __init__(
        self, transact: Callable[[list[Write], float], None], trouble: Trouble, forget: Callable[[Write], None]
    ) -> None:
        self._transact = transact
        self._forget = forget
        self._trouble = trouble
        self._queue: deque[Write] = deque()
        self.leading = threading.Lock()

    def write(self, row: Write) -> None:
        """Block until it is committed (or, while the file is in trouble, known not to be: see `written`)."""
        row.waits = True
        self._queue.append(row)
        if self._trouble.resting():
            row.done = True
            return
        if self.leading.locked():  # else nobody would open the gate
            row.gate.acquire(timeout=TURN)
        while not row.done:
            with self.leading:
                if not row.done:
                    self._commit(PATIENCE)
        self._call_next()

    def hand_over(self, row: Write) -> None:
        """Have it committed soon by somebody else. Never blocks and takes no lock, so a finalizer may call it."""
        self._queue.append(row)
        if not self.leading.locked():  # else who leads looks into the queue when it has finished
            with suppress(RuntimeError):  # the interpreter ends; closing commits what is left
                _thread.start_new_thread(self.flush, ())

    def flush(self) -> None:
        """Commit what is waiting, if it can be."""
        while self._queue and not self._trouble.resting():
            with self.leading:
                self._commit(PATIENCE)

    def close(self) -> None:
        """Try once more to commit what is left; what cannot be is lost, and that is said."""
        with self.leading:
            while self._queue and self._commit(1.0):
                pass
            left = sum(1 for row in self._head(len(self._queue)) if row.size)
            while self._queue:
                self._lose(self._queue[0])
        if left:
            _log.warning(
                "%d answers could not be written to the journal: %s", left, self._trouble.text,
                extra={"event": "journal_answers_lost"},
            )  # fmt: skip

    def reset(self) -> None:
        """In the child of a fork: the queue is the parent's."""
        self.leading = threading.Lock()
        self._queue = deque()

    def _call_next(self) -> None:
        while not self._trouble.resting() and not self.leading.locked():
            try:
                head = self._queue[0]
            except IndexError:
                return
            if head.waits and not head.done:
                head.open_gate()
                return
            with self.leading:  # nobody waits for this row
                self._commit(PATIENCE)

    def _commit(self, patience: float) -> bool:
        """Commit the head of the queue; False when the file is in trouble, and then nobody waits any more."""
        most = MOST
        if self._trouble.text is not None:
            patience = min(patience, REST)
        while rows := self._head(most):
            try:
                self._transact(rows, patience)
            except BAD_ROW as error:
                if len(rows) > 1:
                    most = 1  # find it
                    continue
                self._trouble.began(f"a row cannot be written ({error})")
                self._trouble.text = None
                self._lose(rows[0])
                return True
            except UNWRITABLE as error:
                self._trouble.began(error)
                self._let_all_go()
                return False
            else:
                self._trouble.over()
                for row in rows:
                    row.written = True
            for row in rows:
                row.done = True
                self._queue.popleft()
                row.open_gate()
            break
        return True

    def _head(self, most: int) -> list[Write]:
        while True:
            try:
                return list(itertools.islice(self._queue, most))
            except RuntimeError:  # somebody has just added one
                continue

    def _let_all_go(self) -> None:
        kept = 0
        for row in reversed(self._head(len(self._queue))):
            row.done = True
            row.open_gate()
            kept += row.size
        while kept > MOST_KEPT:
            kept -= self._queue[0].size
            self._lose(self._queue[0])

    def _lose(self, row: Write) -> None:
        """Give up the head of the queue."""
        row.lost = row.done = True
        self._queue.popleft()
        self._forget(row)
        row.open_gate()
