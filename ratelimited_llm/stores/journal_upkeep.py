"""Looking after the file of a journal: counting what is in it, and deleting what is old."""

from __future__ import annotations

import os
import sqlite3
from functools import partial
from typing import Any

from ..exceptions import JournalError
from .journal_file import JournalFile
from .journal_values import JournalStats

__all__ = ["prune", "stats"]

CHUNK = 2_000  # answers that are deleted in one transaction: others write in between
PAGES = 2_000  # pages that are given back in one transaction

COUNT = """SELECT count(answer), total(answer IS NULL AND run IS NULL AND error IS NOT NULL),
total(answer IS NULL AND run IS NOT NULL) FROM calls"""
OLDEST = "SELECT at FROM answers ORDER BY id LIMIT 1"
NEWEST = "SELECT at FROM answers ORDER BY id DESC LIMIT 1"
OLD = "SELECT id, key, occurrence FROM answers WHERE id > ? AND at < ? ORDER BY id LIMIT ?"
FORGET_CALL = "DELETE FROM calls WHERE key = ? AND occurrence = ? AND answer = ? AND run IS NULL"
FORGET_FAILED = "DELETE FROM calls WHERE answer IS NULL AND run IS NULL AND error IS NOT NULL AND at < ?"
FORGET_DEAD = "DELETE FROM calls WHERE answer IS NULL AND run = ? AND at < ?"
RUNS = "SELECT number FROM runs"
FORGET_RUN = "DELETE FROM runs WHERE number = ? AND NOT EXISTS (SELECT 1 FROM calls WHERE run = ?)"


def stats(file: JournalFile) -> JournalStats:
    """Count what is in the file; raises JournalError when it cannot be read."""
    file.commits.flush()
    found = file.read(_count)
    if found is None:
        why = file.trouble.text or "it is closed"
        raise JournalError(f"the journal {file.path} cannot be counted: {why}")
    answered, failed, unfinished, oldest, newest = found
    size = sum(os.path.getsize(part) for part in (file.path, file.path + "-wal") if os.path.exists(part))
    return JournalStats(
        answered, int(failed), int(unfinished), size, oldest, newest,
        unwritten=len(file.unwritten), trouble=file.trouble.text,
    )  # fmt: skip


def _count(reader: sqlite3.Connection) -> tuple[Any, ...]:
    ends = [(reader.execute(query).fetchone() or (None,))[0] for query in (OLDEST, NEWEST)]
    return (*reader.execute(COUNT).fetchone(), *ends)


def prune(file: JournalFile, before: float | None, *, failed: bool) -> int:
    """Delete answers from before a moment (None: no answers), and failed calls, and give the space back.

    Calls that a living run has in flight stay, with the old answers that they are to replace.

    Raises:
        sqlite3.Error, OSError: the file cannot be written.
    """
    file.commits.flush()
    gone = 0
    last: int | None = -1
    while before is not None and last is not None:
        deleted, last = file.exclusively(partial(_delete_old, last=last, before=before))
        gone += deleted
    rest: int = file.exclusively(lambda writer: _delete_rest(file, writer, before, failed=failed))
    gone += rest
    if gone:
        file.outside_transactions(_give_back)
    return gone


def _delete_old(writer: sqlite3.Connection, *, last: int, before: float) -> tuple[int, int | None]:
    """Delete one chunk; answers how many, and where to go on, or None."""
    rows = writer.execute(OLD, (last, before, CHUNK)).fetchall()
    deleted = 0
    for number, key, occurrence in rows:
        if writer.execute(FORGET_CALL, (key, occurrence, number)).rowcount:
            writer.execute("DELETE FROM answers WHERE id = ?", (number,))
            deleted += 1
    return deleted, rows[-1][0] if len(rows) == CHUNK else None


def _delete_rest(file: JournalFile, writer: sqlite3.Connection, before: float | None, *, failed: bool) -> int:
    """Delete failed calls, what dead runs have left, and the rows of dead runs that nothing refers to."""
    gone = writer.execute(FORGET_FAILED, (float("inf") if before is None else before,)).rowcount if failed else 0
    for (run,) in writer.execute(RUNS).fetchall():
        if not file.alive(run):
            if before is not None:
                gone += writer.execute(FORGET_DEAD, (run, before)).rowcount
            writer.execute(FORGET_RUN, (run, run))
    return gone


def _give_back(writer: sqlite3.Connection) -> None:
    [free] = writer.execute("PRAGMA freelist_count").fetchone()
    for _ in range(0, free, PAGES):
        writer.executescript(f"PRAGMA incremental_vacuum({PAGES})")  # execute() would take one step, which is one page
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
