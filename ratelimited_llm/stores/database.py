"""What opening an SQLite file of ours takes, whatever is kept in it: a private file, one look, the tables, the log."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ["SMALLEST", "create_private", "is_locked", "look_once", "make_tables", "retried", "set_log", "whose"]

T = TypeVar("T")
SMALLEST = 512  # bytes of an SQLite database, if it is not empty; it would write over anything smaller


def is_locked(error: BaseException) -> bool:
    """Whether it is only that another process is writing."""
    return isinstance(error, sqlite3.OperationalError) and ("locked" in str(error) or "busy" in str(error))


def retried(step: Callable[[], T], patience: float) -> T:
    """Do it again while others hold the file, for so many seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            return step()
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() > end:
                raise
            time.sleep(0.005)


def create_private(path: str) -> None:
    """Create an empty file that nobody else can read (0600), whatever the umask.

    Raises:
        FileExistsError: it is there.
        OSError: it cannot be created.
    """
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        if hasattr(os, "fchmod"):
            os.fchmod(fd, 0o600)  # whatever the umask has taken away
    finally:
        os.close(fd)  # nobody in this process can have a lock on it yet, so none is lost by this


def whose(connection: sqlite3.Connection) -> tuple[int, int, set[str]]:
    """The application id, the version and the tables of a database; (0, 0, set()) for one that is still empty."""
    [application], [version] = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return application, version, tables


def look_once(connection: sqlite3.Connection, look: Callable[[], T]) -> T:
    """Look in one transaction: another process may be making the tables, and half of them look like a stranger's."""
    connection.execute("BEGIN")
    try:
        return look()
    finally:
        if connection.in_transaction:  # a damaged file may have ended it
            connection.execute("ROLLBACK")


def make_tables(
    connection: sqlite3.Connection, is_empty: Callable[[], bool], schema: Iterable[str], application: int, version: int
) -> None:
    """Make the tables, unless another process has just done so."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if is_empty():
            for statement in schema:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {application}")
            connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def set_log(connection: sqlite3.Connection) -> None:
    """A write-ahead log where the file system can have one (no network does); else the classic journal.

    Raises:
        sqlite3.OperationalError: others hold the file, or it is read-only.
    """
    try:
        [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    except sqlite3.OperationalError as error:
        if is_locked(error) or "readonly" in str(error):
            raise
        mode = "refused"
    if mode != "wal":
        connection.execute("PRAGMA journal_mode = TRUNCATE").fetchone()
