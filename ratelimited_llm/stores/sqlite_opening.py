"""The file in which the processes of one machine share their limits: where it is, and how it is opened.

A file that cannot be used is left exactly as it is, and the error says what to do.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from contextlib import suppress
from pathlib import Path

from ..exceptions import SharedStoreLost
from .database import SMALLEST, create_private, is_locked, look_once, make_tables, retried, set_log, whose

__all__ = ["default_path", "identity", "open_file", "trouble"]

APPLICATION_ID = 0x524C4C42  # "RLLB"
VERSION = 1
PATIENCE = 0.4  # seconds for others who are opening it too: not all of that is under SQLite's own timeout
LOG_LIMIT = 4 << 20  # bytes of a write-ahead log that are kept after a checkpoint
SCHEMA = (
    "CREATE TABLE pools (name BLOB PRIMARY KEY, used REAL NOT NULL, lines TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE members (name TEXT PRIMARY KEY, seen REAL NOT NULL, facts TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE wishes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE cancelled (news INTEGER PRIMARY KEY, moment REAL NOT NULL, tag TEXT NOT NULL)",
    """
CREATE TABLE learned (
    pool BLOB NOT NULL, dimension TEXT NOT NULL, value REAL NOT NULL, at REAL NOT NULL, PRIMARY KEY (pool, dimension)
) WITHOUT ROWID
""",
)


def default_path(kind: str = "budget") -> Path:
    """Where the file of a kind is when nobody says: in the user's folder for such things; nothing is made here.

    RATELIMITED_LLM_STATE names another folder. Else it is `ratelimited-llm` in XDG_STATE_HOME (~/.local/state), on
    macOS in ~/Library/Application Support, on Windows in %LOCALAPPDATA%.
    """
    given = os.environ.get("RATELIMITED_LLM_STATE")
    if given:
        return Path(given).expanduser() / f"{kind}.db"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        stated = os.environ.get("XDG_STATE_HOME", "")
        base = Path(stated) if os.path.isabs(stated) else Path.home() / ".local" / "state"
    return base / "ratelimited-llm" / f"{kind}.db"


def identity(path: str) -> tuple[int, int] | None:
    """Which file is there at the moment; None when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def trouble(path: str, error: BaseException) -> SharedStoreLost:
    """What an error of SQLite or of the system means for whoever wanted to use the file."""
    text = str(error)
    if is_locked(error):
        return SharedStoreLost(f"{path}: another process holds it")
    if "malformed" in text or "not a database" in text:
        return SharedStoreLost(f"{path}: it is damaged ({text}); move it away, and a new one is made")
    return SharedStoreLost(f"{path}: {getattr(error, 'strerror', None) or text}")


def open_file(path: str) -> sqlite3.Connection:
    """A connection to the file, which is made when it is not there: 0600, in a folder of 0700.

    Raises:
        SharedStoreLost: it is another application's, a newer version's or a damaged one, or it cannot be made.
    """
    try:
        _make(path)
        connection = sqlite3.connect(
            f"{Path(path).as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, timeout=0.0
        )
    except (OSError, sqlite3.Error) as error:
        raise trouble(path, error) from None
    try:
        connection.execute("PRAGMA busy_timeout = 250")
        retried(lambda: _prepare(connection, path), PATIENCE)
        connection.execute("PRAGMA synchronous = NORMAL")  # a power cut takes the last bookings, and spoils nothing
        connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
        connection.execute("PRAGMA busy_timeout = 0")  # from now on the store itself waits, in shorter steps
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise trouble(path, error) from None
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    if look_once(connection, lambda: _look(connection, path)):
        make_tables(connection, lambda: _look(connection, path), SCHEMA, APPLICATION_ID, VERSION)
    set_log(connection)


def _make(path: str) -> None:
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
    try:
        create_private(path)
    except FileExistsError:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise SharedStoreLost(f"{path}: it is no file") from None
        if 0 < found.st_size < SMALLEST:  # SQLite would take it as empty, and write over what is in it
            raise SharedStoreLost(f"{path}: it is no database; give another path. It was not changed") from None


def _look(connection: sqlite3.Connection, path: str) -> bool:
    """Whether the file is still empty; it is not changed.

    Raises:
        SharedStoreLost: it is not ours.
    """
    application, version, tables = whose(connection)
    if not application and not version and not tables:
        return True
    if application != APPLICATION_ID:
        raise SharedStoreLost(f"{path}: it is another application's database; give another path. It was not changed")
    if version > VERSION:
        raise SharedStoreLost(
            f"{path}: a newer ratelimited_llm has made it (its format is {version}, this one knows {VERSION}); "
            "upgrade, or give another path. It was not changed"
        )
    if version != VERSION or not tables >= {"pools", "members", "wishes", "cancelled", "learned"}:
        raise SharedStoreLost(f"{path}: its tables are missing; move it away, and a new one is made")
    return False
