"""What the processes of one machine share, in a file: SQLite, one short transaction for each question.

A pool is one row, with its lines as JSON (see `core.booking_pool`). The clock is the machine's, which all of them
share; should somebody set it, the arithmetic copes. Nothing in the file is worth more than a minute of waiting, but
for the limits that providers have told, so nothing waits for the disk.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..core.booking import Answer, Order
from ..core.booking_bucket import finite
from ..core.booking_pool import book, look
from ..exceptions import SharedStoreLost
from ..forks import at_fork
from .control_lines import LIMIT, checked, control_of, facts_of, facts_text, wishes_of
from .shared_store import Control, Member, PoolFacts
from .sqlite_opening import default_path, identity, open_file, trouble

__all__ = ["SqliteStore", "default_path"]

PATIENCE = 0.4  # seconds that a question waits for other processes; one of theirs takes some 100 us
FIRST_STEP, LAST_STEP = 0.0001, 0.002  # seconds between two looks whether they are done; grows
SEEN = 60.0  # seconds that a process which reports no more is still shown
DAY = 86_400.0
REMEMBERED = 30 * DAY  # seconds that learned limits are kept
KEPT_TAGS = 100
FORK_PATIENCE = 1.0  # seconds that a fork waits for a question to end
READ = "SELECT (SELECT lines FROM pools WHERE name = ?), (SELECT json_group_object(name, value) FROM wishes)"


class SqliteStore:
    """A `SharedStore` in a file. Thread-safe; opened here, and opened again when it was deleted or after a fork.

    Args:
        path: the file; None for the usual one. It is made when it is not there.
        clock: the present moment in seconds, for tests; None for the machine's wall clock.

    Raises:
        SharedStoreLost: the file is another application's, a newer version's or a damaged one, or cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, clock: Callable[[], float] | None = None) -> None:
        self.path = os.path.realpath(os.path.expanduser(default_path() if path is None else path))
        self._clock = clock or time.time
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._connection: sqlite3.Connection | None = open_file(self.path)
        self._identity = identity(self.path)
        _stores.add(self)

    def __repr__(self) -> str:
        return f"<SqliteStore {self.path}>"

    # -- the seam -----------------------------------------------------------------------------------------------------

    def book(self, pool: str, order: Order) -> Answer:
        """See `SharedStore.book`."""
        name = _key(pool)
        with self._transaction() as connection:
            now = self._clock()
            text, wishes = connection.execute(READ, (name,)).fetchone()
            state, orders = _lines(text)
            answer = book(state, orders, order, now, wishes_of(_object(wishes)))
            connection.execute("REPLACE INTO pools VALUES (?, ?, ?)", (name, now, json.dumps([state, orders])))
        return answer

    def report(self, member: str, facts: Mapping[str, Any]) -> Control:
        """See `SharedStore.report`."""
        text = facts_text(facts)
        with self._transaction() as connection:
            now = self._clock()
            connection.execute("REPLACE INTO members VALUES (?, ?, ?)", (member, now, text))
            connection.execute("DELETE FROM members WHERE seen NOT BETWEEN ? AND ?", (now - SEEN, now + SEEN))
            return self._control(connection, now)

    def leave(self, member: str) -> None:
        """See `SharedStore.leave`."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM members WHERE name = ?", (member,))
            for name, used, text in connection.execute("SELECT name, used, lines FROM pools").fetchall():
                state, orders = _lines(text)
                if orders.pop(member, None) is not None:
                    row = (name, used, json.dumps([state, orders]))
                    connection.execute("REPLACE INTO pools VALUES (?, ?, ?)", row)

    def members(self) -> list[Member]:
        """See `SharedStore.members`."""
        with self._transaction() as connection:
            now = self._clock()
            rows = connection.execute(
                "SELECT name, seen, facts FROM members WHERE seen BETWEEN ? AND ? ORDER BY seen",
                (now - SEEN, now + SEEN),
            ).fetchall()
        return [Member(name, max(0.0, now - seen), facts_of(facts)) for name, seen, facts in rows]

    def pools(self) -> list[PoolFacts]:
        """See `SharedStore.pools`."""
        with self._transaction() as connection:
            now = self._clock()
            connection.execute("DELETE FROM pools WHERE used < ?", (now - DAY,))
            rows = connection.execute("SELECT name, lines FROM pools ORDER BY used DESC").fetchall()
            wishes = wishes_of(_wishes(connection))
        return [PoolFacts(_name(name), *look(_lines(text)[0], now, wishes)) for name, text in rows]

    def control(
        self, *, paused: bool | None = None, limits: Mapping[str, float | None] | None = None, cancel: str | None = None
    ) -> Control:
        """See `SharedStore.control`.

        Raises:
            ValueError, TypeError: a limit or a tag cannot be.
        """
        lowered = checked(limits, cancel)
        with self._transaction() as connection:
            now = self._clock()
            if paused is None and cancel is None and not lowered:
                return self._control(connection, now)
            news = max(wishes_of(_wishes(connection)).news + 1, math.floor(now * 1000))
            values = {"news": str(news), **({} if paused is None else {"paused": str(int(paused))})}
            values |= {LIMIT + name: repr(float(limit)) for name, limit in lowered.items() if limit is not None}
            connection.executemany("REPLACE INTO wishes VALUES (?, ?)", values.items())
            lifted = [(LIMIT + name,) for name, limit in lowered.items() if limit is None]
            connection.executemany("DELETE FROM wishes WHERE name = ?", lifted)
            if cancel is not None:
                connection.execute("INSERT INTO cancelled VALUES (?, ?, ?)", (news, now, cancel))
            return self._control(connection, now)

    def _control(self, connection: sqlite3.Connection, now: float) -> Control:
        tags = connection.execute(
            "SELECT news, moment, tag FROM cancelled WHERE moment > ? ORDER BY news DESC LIMIT ?",
            (now - DAY, KEPT_TAGS),
        ).fetchall()
        return control_of(_wishes(connection), tags)

    # -- limits that providers have told ------------------------------------------------------------------------------

    def remember(self, pool: str, limits: Mapping[str, float]) -> None:
        """Keep limits (units per period by dimension) for processes to come, for 30 days."""
        with self._transaction() as connection:
            now = self._clock()
            rows = [
                (_key(pool), name, float(limit), now) for name, limit in limits.items() if 0.0 < limit < math.inf
            ]  # fmt: skip
            connection.executemany("REPLACE INTO learned VALUES (?, ?, ?, ?)", rows)
            connection.execute("DELETE FROM learned WHERE at < ?", (now - REMEMBERED,))

    def recall(self, pool: str) -> dict[str, float]:
        """The limits that were kept for a pool in the last 30 days."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT dimension, value FROM learned WHERE pool = ? AND at >= ?",
                (_key(pool), self._clock() - REMEMBERED),
            ).fetchall()
        return {name: limit for name, value in rows if (limit := finite(value, 0.0)) > 0.0}

    # -- the file -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if os.getpid() != self._pid:
            self.after_fork()
        lost: SharedStoreLost | None = None
        with self._lock:
            try:
                connection = self._opened()
                _begin(connection)
                yield connection
                connection.execute("COMMIT")
            except (sqlite3.Error, OSError) as error:
                lost = error if isinstance(error, SharedStoreLost) else trouble(self.path, error)
            finally:
                self._end_transaction()
        if lost is not None:
            raise lost

    def _opened(self) -> sqlite3.Connection:
        """The connection, to the file that is there now."""
        if self._connection is None or identity(self.path) != self._identity:
            self._disconnect()
            self._connection = open_file(self.path)
            self._identity = identity(self.path)
        return self._connection

    def _end_transaction(self) -> None:
        """Nothing is left open, whatever has happened; a connection that does not even do that is given up."""
        if self._connection is not None and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def after_fork(self) -> None:
        """See `SharedStore.after_fork`; a child that is not told finds out by itself."""
        if os.getpid() != self._pid:
            self._pid = os.getpid()
            self._lock = threading.Lock()
            if self._connection is not None:
                _inherited.append(self._connection)  # SQLite forbids to touch it, even to close it
                self._connection = None

    def close(self) -> None:
        """See `SharedStore.close`. What is used again is opened again."""
        with self._lock:
            self._disconnect()

    # -- forks --------------------------------------------------------------------------------------------------------

    def hold_still(self) -> bool:
        """Before a fork: let the question that is being asked end; False when it does not in time."""
        if not self._lock.acquire(timeout=FORK_PATIENCE):
            return False
        self._disconnect()
        return True

    def go_on(self) -> None:
        """In the parent of a fork: let go of what `hold_still` held."""
        self._lock.release()


_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
_held: list[SqliteStore] = []
_inherited: list[sqlite3.Connection] = []


def _before_fork() -> None:
    _held.extend([store for store in list(_stores) if store.hold_still()])


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().go_on()


def _after_fork_in_child() -> None:
    _held.clear()
    for store in list(_stores):
        store.after_fork()


at_fork(_after_fork_in_child, before=_before_fork, in_parent=_after_fork_in_parent)


def _begin(connection: sqlite3.Connection) -> None:
    """Begin to write, waiting for other processes in steps that are short enough to share evenly."""
    end = time.monotonic() + PATIENCE
    step = FIRST_STEP
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(step)
        step = min(1.2 * step, LAST_STEP)


def _key(pool: str) -> bytes:
    return pool.encode("utf-8", "surrogatepass")


def _name(key: bytes) -> str:
    return bytes(key).decode("utf-8", "surrogatepass")


def _object(text: Any) -> dict[str, str]:
    """A JSON object of texts; what is none is left out."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return _texts(found)


def _texts(found: Any) -> dict[str, str]:
    return {name: text for name, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}


def _lines(text: Any) -> tuple[dict[str, str], dict[str, str]]:
    """The lines of a pool and of its orders; none for what was spoilt."""
    try:
        state, orders = json.loads(text)
    except (TypeError, ValueError):
        return {}, {}
    return _texts(state), _texts(orders)


def _wishes(connection: sqlite3.Connection) -> dict[str, str]:
    return _texts(dict(connection.execute("SELECT name, value FROM wishes")))
