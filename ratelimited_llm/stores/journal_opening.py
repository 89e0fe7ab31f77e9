"""Opening the file of a journal: making a new one, and looking hard at an old one before anything is written to it.

What cannot be used as a journal is left exactly as it is, and the error says what to do. See `journal_file` for what
is inside.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from ..core.checks import path_of
from ..exceptions import JournalError
from .database import SMALLEST, create_private, look_once, make_tables, retried, set_log, whose

__all__ = ["open_for_reading", "open_for_writing", "real_path"]

T = TypeVar("T")

APPLICATION_ID = 0x524C4C4A  # "RLLJ"
VERSION = 1
TABLES = frozenset({"answers", "calls", "runs"})
SCHEMA = (
    "CREATE TABLE runs (number INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL, started REAL NOT NULL)",
    """
CREATE TABLE calls (
    key BLOB NOT NULL, occurrence INTEGER NOT NULL, answer INTEGER, run INTEGER, at REAL, error TEXT,
    PRIMARY KEY (key, occurrence)
) WITHOUT ROWID
""",
    """
CREATE TABLE answers (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, occurrence INTEGER NOT NULL, at REAL NOT NULL, status INTEGER NOT NULL,
    seconds REAL NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL, request BLOB
)
""",
    # An answer ends its call's being in flight, and takes the place of an older answer, whoever inserts it.
    """
CREATE TRIGGER recorded AFTER INSERT ON answers BEGIN
    DELETE FROM answers WHERE id = (SELECT answer FROM calls WHERE key = new.key AND occurrence = new.occurrence);
    INSERT INTO calls (key, occurrence, answer) VALUES (new.key, new.occurrence, new.id)
        ON CONFLICT (key, occurrence) DO UPDATE SET answer = excluded.answer, run = NULL, at = NULL, error = NULL;
END
""",
)

BUSY = 0.05  # seconds that SQLite itself waits for another process: a Ctrl-C is heard only in between
PATIENCE = 5.0  # seconds that an opening waits for others
LOG_LIMIT = 16 << 20  # bytes of a write-ahead log that are kept after a checkpoint
CHECKED_WHOLE = 8 << 20  # bytes up to which a file is checked page by page, which takes some 10 ms


def real_path(path: Any) -> str:
    """The file that is meant, without symlinks and "~".

    Raises:
        TypeError: it is no path.
        ValueError: it is empty, or names no file (":memory:").
        JournalError: nothing can be there: its directory is missing, or it is one.
    """
    text = path_of("journal", path)
    if not text.strip() or text.startswith((":memory:", "file:")):
        raise ValueError(f"journal= takes the path of a file, not {text!r}: a journal is there for the next run")
    real = os.path.realpath(os.path.expanduser(text))
    try:
        mode = os.stat(real).st_mode
    except FileNotFoundError:
        _directory_of(real)
        return real
    except OSError as error:
        raise JournalError(f"the journal {real} cannot be used: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise JournalError(f"the journal {real} is {kind}; give the path of a file, such as {Path(real) / 'run.db'}")
    return real


def _directory_of(real: str) -> None:
    parent = os.path.dirname(real)
    if not os.path.isdir(parent):
        raise JournalError(f"the journal {real} cannot be made: there is no directory {parent}; make it first")


def open_for_writing(path: str, vfs: str | None = None, *, thorough: bool = True) -> tuple[sqlite3.Connection, int]:
    """A connection for one writer, and the number of the file that it writes to (its inode).

    Args:
        path: as `real_path` answered it.
        vfs: SQLite's way to this file system; None for its default.
        thorough: check a small file page by page.

    Raises:
        JournalError: the file is no journal, a newer one or a damaged one, or it cannot be made.
        sqlite3.Error: it is a good journal, and cannot be written at present.
    """
    made = _make(path)
    new = made or _is_new(path, vfs, thorough=thorough)
    connection = _connect(path, "rw", vfs)
    try:
        if new:
            try:
                _retried(lambda: connection.execute("PRAGMA auto_vacuum = INCREMENTAL"))
                _retried(lambda: set_log(connection))
                _retried(
                    lambda: make_tables(
                        connection, lambda: _look(connection, path, thorough=False), SCHEMA, APPLICATION_ID, VERSION
                    )
                )
            except sqlite3.Error as error:
                raise JournalError(f"the journal {path} cannot be made: {error}") from None
        else:
            _retried(lambda: set_log(connection))
        connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
        return connection, os.stat(path).st_ino
    except BaseException:
        connection.close()
        raise


def open_for_reading(path: str, vfs: str | None = None) -> sqlite3.Connection:
    """A connection for readers; works on a read-only file system too."""
    connection = _connect(path, "ro", vfs)
    try:
        _retried(lambda: connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone())
    except sqlite3.OperationalError:
        connection.close()
        if _size(path + "-wal"):
            raise
        return _connect(path, "ro&immutable=1", vfs)  # a log cannot be shared here, and there is none to read
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: str, mode: str, vfs: str | None) -> sqlite3.Connection:
    where = f"{Path(path).as_uri()}?mode={mode}" + (f"&vfs={vfs}" if vfs else "")
    return sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY)


def _make(path: str) -> bool:
    """Make sure that there is a file; True when it is empty. SQLite gives its log and index the same permissions."""
    try:
        create_private(path)
    except FileExistsError:
        if _size(path):
            return False
        with suppress(OSError):
            os.chmod(path, 0o600)
        return True
    except OSError as error:
        _directory_of(path)
        raise JournalError(f"the journal {path} cannot be made: {error.strerror}") from None
    return True


def _is_new(path: str, vfs: str | None, *, thorough: bool) -> bool:
    """Look at a file that somebody made; True when nothing is in it yet. Nothing is changed, or left beside it."""
    if _size(path) < SMALLEST:  # SQLite would take it as empty, and write over what is in it
        raise _no_database(path)
    still = not any(_size(path + end) for end in ("-wal", "-journal"))
    before = _stamp(path)
    try:
        return _looked(path, vfs, still=still, thorough=thorough)
    except JournalError:
        if not still or (_stamp(path) == before and not _size(path + "-wal")):
            raise
        return _looked(path, vfs, still=False, thorough=thorough)  # somebody began to write meanwhile


def _looked(path: str, vfs: str | None, *, still: bool, thorough: bool) -> bool:
    thorough = thorough and _size(path) <= CHECKED_WHOLE
    try:
        # A reader of a file that nobody writes needs no log and no index, and would leave them behind.
        with closing(_connect(path, "ro&immutable=1", vfs) if still else open_for_reading(path, vfs)) as connection:
            return _retried(lambda: look_once(connection, lambda: _look(connection, path, thorough=thorough)))
    except sqlite3.OperationalError as error:
        raise JournalError(f"the journal {path} cannot be read: {error}") from None
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise _no_database(path) from None
        raise _damaged(path, str(error)) from None


def _look(connection: sqlite3.Connection, path: str, *, thorough: bool) -> bool:
    application, version, tables = whose(connection)
    if not application and not version and not tables:
        return True
    if application != APPLICATION_ID:
        raise JournalError(
            f"{path} is an SQLite database of another application, no journal; give another path. "
            "Nothing in it was changed"
        )
    if version > VERSION:
        raise JournalError(
            f"the journal {path} was written by a newer ratelimited_llm (its format is {version}, this one knows "
            f"{VERSION}); upgrade, or give another path. Nothing in it was changed"
        )
    if version != VERSION or not tables >= TABLES:
        raise _damaged(path, "its tables are missing")
    if thorough:
        [verdict] = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _damaged(path, verdict.splitlines()[-1])
    return False


def _no_database(path: str) -> JournalError:
    return JournalError(
        f"{path} is no journal, and no SQLite database at all; give another path. Nothing in it was changed"
    )


def _damaged(path: str, what: str) -> JournalError:
    return JournalError(
        f"the journal {path} is damaged ({what}); move it away, or give another path (sqlite3's .recover may save "
        "answers out of it). Nothing in it was changed"
    )


def _retried(step: Callable[[], T]) -> T:
    return retried(step, PATIENCE)


def _stamp(path: str) -> tuple[int, int]:
    """What tells that a file was changed."""
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
