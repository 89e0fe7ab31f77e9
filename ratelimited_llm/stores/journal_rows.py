"""The rows that a journal writes, and what writing them decides: who has a call, and what became of it."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from .database import is_locked
from .journal_commit import Write
from .journal_values import Claimed, Elsewhere, Place, Recorded

__all__ = ["FIND", "OWNER", "ClaimWrite", "EndWrite", "RecordWrite", "recorded", "write_all", "write_alone"]

FIND = """SELECT a.status, a.headers, a.body, a.seconds, a.at FROM calls c JOIN answers a ON a.id = c.answer
WHERE c.key = ? AND c.occurrence = ?"""
OWNER = "SELECT answer, run FROM calls WHERE key = ? AND occurrence = ?"
INSERT_CLAIMS = "INSERT INTO calls (key, occurrence, run, at) VALUES {} ON CONFLICT DO NOTHING"
CLAIM = """INSERT INTO calls (key, occurrence, run, at) VALUES (?, ?, ?, ?)
ON CONFLICT (key, occurrence) DO UPDATE SET run = excluded.run, at = excluded.at"""
INSERT_ANSWERS = """INSERT INTO answers (key, occurrence, at, status, seconds, headers, body, request) VALUES {}"""
FAIL = "UPDATE calls SET run = NULL, at = ?, error = ? WHERE key = ? AND occurrence = ? AND run = ?"
CANCEL = "UPDATE calls SET run = NULL, at = NULL WHERE key = ? AND occurrence = ? AND run = ?"
FORGET = """DELETE FROM calls WHERE key = ? AND occurrence = ? AND run IS NULL AND answer IS NULL AND error IS NULL"""

_HEADERS = json.JSONEncoder(separators=(",", ":"))


class ClaimWrite(Write):
    """A call is about to be sent; `result` tells whether it is ours."""

    __slots__ = ("at", "not_before", "place", "result")

    def __init__(self, place: Place, at: float, not_before: float) -> None:
        super().__init__()
        self.place = place
        self.at = at
        self.not_before = not_before  # answers that are older do not count
        self.result: Claimed | Recorded | Elsewhere = Claimed()


class RecordWrite(Write):
    """The answer of a call, and its request where requests are kept."""

    __slots__ = ("answer", "place", "request")

    def __init__(self, place: Place, answer: Recorded, request: bytes | None) -> None:
        super().__init__(len(answer.body) + len(request or b"") + 1_000)
        self.place = place
        self.answer = answer
        self.request = request


class EndWrite(Write):
    """A call has ended without an answer: it failed with `error`, or was cancelled (None)."""

    __slots__ = ("at", "error", "place")

    def __init__(self, place: Place, at: float, error: str | None) -> None:
        super().__init__()
        self.place = place
        self.at = at
        self.error = error


def write_alone(writer: sqlite3.Connection, row: Write, run: int | None) -> bool:
    """One row that one statement can write is its own transaction, for half the work; False when it is not."""
    try:
        if isinstance(row, RecordWrite):
            _insert(writer, INSERT_ANSWERS, [_answer_values(row)])
            return True
        if isinstance(row, ClaimWrite) and _insert(writer, INSERT_CLAIMS, [(*row.place, run, row.at)]):
            row.result = Claimed()  # a try that was rolled back may have left something else
            return True
    except sqlite3.OperationalError as error:
        if not is_locked(error):
            raise
    return False


def write_all(writer: sqlite3.Connection, rows: list[Write], run: int | None, alive: Callable[[int], bool]) -> None:
    """Write rows in their order, inside a transaction.

    In few statements: each one gives the interpreter away, and a busy process gives it back late.

    Args:
        writer: where to.
        rows: any of the classes of this file.
        run: the run that claims.
        alive: whether the process of a run lives.
    """
    for kind, group in itertools.groupby(rows, type):
        same: list[Any] = list(group)
        if kind is RecordWrite:
            _insert(writer, INSERT_ANSWERS, [_answer_values(row) for row in same])
        elif kind is ClaimWrite:
            known = _insert(writer, INSERT_CLAIMS, [(*row.place, run, row.at) for row in same]) < len(same)
            for row in same:
                if known:
                    _claim(writer, row, run, alive)
                else:
                    row.result = Claimed()  # as above
        else:
            for row in same:
                _end(writer, row, run)


def _claim(writer: sqlite3.Connection, row: ClaimWrite, run: int | None, alive: Callable[[int], bool]) -> None:
    """Claim a call that is known already, perhaps because it was inserted a moment ago."""
    answer, owner = writer.execute(OWNER, row.place).fetchone()
    if owner == run:
        return
    if owner is not None and alive(owner):
        row.result = Elsewhere()
        return
    if answer is not None and owner is None:
        found = recorded(writer.execute(FIND, row.place).fetchone())
        if found.at >= row.not_before:
            row.result = found
            return
    row.result = Claimed(perhaps_paid=owner is not None)
    writer.execute(CLAIM, (*row.place, run, row.at))


def _insert(writer: sqlite3.Connection, statement: str, rows: list[tuple[Any, ...]]) -> int:
    """Insert many rows, in powers of two, so that a handful of compiled statements serves for all numbers."""
    inserted = begun = 0
    while begun < len(rows):
        size = 1 << ((len(rows) - begun).bit_length() - 1)
        part = rows[begun : begun + size]
        values = ", ".join([f"({', '.join('?' * len(part[0]))})"] * size)
        inserted += writer.execute(statement.format(values), _flat(part)).rowcount
        begun += size
    return inserted


def _answer_values(row: RecordWrite) -> tuple[Any, ...]:
    answer = row.answer
    headers = _HEADERS.encode(answer.headers)
    return (*row.place, answer.at, answer.status, answer.seconds, headers, answer.body, row.request)


def _flat(rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    return list(itertools.chain.from_iterable(rows))


def _end(writer: sqlite3.Connection, row: EndWrite, run: int | None) -> None:
    if row.error is not None:
        writer.execute(FAIL, (row.at, row.error, *row.place, run))
        return
    writer.execute(CANCEL, (*row.place, run))
    writer.execute(FORGET, row.place)


def recorded(row: tuple[Any, ...]) -> Recorded:
    """An answer out of the columns of `FIND`."""
    status, headers, body, seconds, at = row
    return Recorded(status, tuple((name, value) for name, value in json.loads(headers)), body, seconds, at)
