"""The journal: every answer is kept in a file before anybody sees it, and found there by the next run.

    client = OpenAI(journal="run.db")

Run the script again, or the cell after a kernel restart, and the calls that were answered are answered from the file,
at once and for nothing; only the rest is sent. A call is known again by its request (`call_key`) and by how many equal
ones came before it in the same run (`Journal.number`).

The life of a call: `number`, then `find`. If that finds nothing, `enlist`: of equal calls with equal numbers one works
for the answer, the others `follow` it. Just before it is sent, `claim`; and in the end `record` or `release`. A stream
is handed out in between (`hand_out`): its reader may never go on, so from then on nobody of this process follows it.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..exceptions import JournalError
from ..forks import at_fork
from .journal_file import JournalFile
from .journal_keys import Occurrences, call_key
from .journal_opening import real_path
from .journal_rows import ClaimWrite, EndWrite, RecordWrite
from .journal_upkeep import prune, stats
from .journal_values import Claimed, Elsewhere, JournalStats, Place, Recorded, harmless
from .journal_watch import Watch
from .journal_work import Callback, Work

__all__ = ["Claimed", "Elsewhere", "Journal", "JournalStats", "Recorded", "call_key", "open_journal"]

_log = logging.getLogger("ratelimited_llm.journal")
STORES = ("all", "responses")


class Journal:
    """Keeps answers in a file, and finds them again in the next run. Thread-safe; survives forks.

    It never stands in the way of an answer: when the file cannot be written (a full disk, a read-only directory), that
    is said once through logging and by `trouble`, calls go on, and what is not written yet is tried again.

    Args:
        path: the file; "~" is expanded. It is made (0600) if it is missing, but its directory is not.
        max_age: seconds after which an answer no longer counts; None for never.
        store: "all" keeps requests too, "responses" only answers.
        wall_clock: seconds since 1970; for tests.

    Raises:
        JournalError: the file cannot be used as a journal; says why and what to do. It was not changed.
        TypeError, ValueError: an argument makes no sense.
    """

    def __init__(
        self, path: Any, *, max_age: float | None = None, store: str = "all",
        wall_clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.path = Path(real_path(path))
        self.max_age = _age("max_age", max_age)
        if store not in STORES:
            raise ValueError(f"store= must be 'all' or 'responses', not {store!r}")
        self.store = store
        if not callable(wall_clock):
            raise TypeError(f"wall_clock must be a function that answers seconds, not {wall_clock!r}")
        self._clock = wall_clock
        self._file = JournalFile(str(self.path), wall_clock)
        self._occurrences = Occurrences()
        self._working: dict[Place, Work] = {}
        self._watch = Watch(self._file, self._heard)
        self._counting = threading.Lock()
        self._counts = {"reused": 0, "recorded": 0, "perhaps_paid": 0}  # as in `JournalStats`
        self._close = weakref.finalize(self, self._file.close)
        _journals.add(self)

    # -- the life of a call -------------------------------------------------------------------------------------------

    def number(self, key: bytes) -> int:
        """How many calls with this key came before in this run (in IPython: in this execution of the cell)."""
        return self._occurrences.next(key)

    def find(self, key: bytes, occurrence: int) -> Recorded | None:
        """The answer of a call, if there is one that is not too old; takes some 20 microseconds."""
        answer = self._file.find((key, occurrence))
        if answer is None or answer.at < self._not_before():
            return None
        self._count("reused")
        return answer

    def enlist(self, key: bytes, occurrence: int) -> bool:
        """Be the one call of this process that works for an answer, until `record` or `release`.

        False, and nothing has changed, when another one does: `follow` it.
        """
        work = Work()
        return self._working.setdefault((key, occurrence), work) is work

    def claim(
        self, key: bytes, occurrence: int, request: Callable[[], bytes] | None = None
    ) -> Claimed | Recorded | Elsewhere:
        """Say that an enlisted call is about to be sent; blocks until that is committed (about 0.1 ms).

        Doing it again, for another attempt at the same call, costs nothing.

        Args:
            key, occurrence: the call.
            request: gives the body that is sent, to be kept with the answer; called at most once, by `record`.

        Returns:
            Claimed: send it. Recorded: somebody else has its answer, and that ends the enlistment. Elsewhere: another
            process is sending it; `follow` it, and claim again if it fails there.
        """
        place = (key, occurrence)
        work = self._working.get(place) or self._working.setdefault(place, Work())
        if work.claimed or self._file.closed:
            return Claimed()
        work.asked = True
        row = ClaimWrite(place, self._clock(), self._not_before())
        work.request = request if self.store == "all" and not occurrence else None
        self._file.commits.write(row)
        result = row.result
        if isinstance(result, Recorded):
            self._end(place, result)
            self._count("reused")
        elif isinstance(result, Elsewhere):
            work.waits = True
        else:
            work.claimed, work.waits = True, False
            if result.perhaps_paid:
                self._count("perhaps_paid")
        return result

    def hand_out(self, key: bytes, occurrence: int) -> Work | None:
        """The answer of an enlisted call is a stream that goes to its reader now. Ends the enlistment.

        Who follows is told None, and the next equal call may enlist: a reader who was interrupted, or keeps the stream
        for later, would let them wait for ever. Never blocks.

        Returns:
            What `record` or `release` want to be given when the stream has ended.
        """
        place = (key, occurrence)
        work = self._working.get(place)
        self._end(place, None)
        return work

    def record(self, key: bytes, occurrence: int, answer: Recorded, handed_out: Work | None = None) -> None:
        """Keep an answer; blocks until it is on the disk. Ends the enlistment and tells who follows.

        Headers that could tell whose account it is are left out.

        Args:
            key, occurrence: the call.
            answer: to be kept.
            handed_out: what `hand_out` returned, for a stream; its enlistment is over already.
        """
        place = (key, occurrence)
        if not isinstance(answer.body, bytes):
            raise TypeError(f"the body of an answer is bytes, not {type(answer.body).__name__}")
        at = answer.at or self._clock()
        answer = Recorded(answer.status, harmless(answer.headers), answer.body, answer.seconds, at)
        try:
            request = self._request(handed_out or self._working.get(place))
            self._file.record(RecordWrite(place, answer, request))
            self._count("recorded")
        finally:
            if handed_out is None:
                self._end(place, answer)

    def _request(self, work: Work | None) -> bytes | None:
        if work is None or work.request is None:
            return None
        try:
            return work.request()
        except Exception:  # the answer was paid for, and is kept without it
            _log.exception("a request could not be kept", extra={"event": "journal_request_failed"})
            return None

    def release(self, key: bytes, occurrence: int, error: str | None = None, handed_out: Work | None = None) -> None:
        """An enlisted call has ended without an answer: it is nobody's now, and who follows is told None.

        Never blocks, and may be called from a finalizer. Without an enlistment it does nothing. Only
        who has enlisted may do it, and once: a second time it could end the enlistment of another call.

        Args:
            key, occurrence: the call.
            error: a short name of what it failed with; None when it was cancelled.
            handed_out: what `hand_out` returned, for a stream that was cut.
        """
        place = (key, occurrence)
        work = self._working.get(place)
        if handed_out is not None:
            if work is not None:
                return  # another call works for the answer now, and the claim in the file is for that one
            work = handed_out
        if work is None:
            return
        if work.asked and not self._file.closed:
            self._file.commits.hand_over(EndWrite(place, self._clock(), error))
        if handed_out is None:
            self._end(place, None)

    def follow(self, key: bytes, occurrence: int, callback: Callback) -> None:
        """Have the answer of a call that somebody else works for, when it is there.

        Args:
            key, occurrence: the call.
            callback: called once, from another thread: with the answer, or with None when it ended without one or its
                process died. Within a process that is at once, from another one after 0.2 s at most.
        """
        place = (key, occurrence)
        work = self._working.get(place)
        if work is None or work.waits:
            self._watch.add(place, callback)
            return
        work.followers.append(callback)
        if work.ended:
            work.tell()

    def _end(self, place: Place, answer: Recorded | None) -> None:
        work = self._working.pop(place, None)
        if work is not None:
            work.answer = answer
            work.ended = True
            work.tell()

    def _heard(self, place: Place, answer: Recorded | None) -> Recorded | None:
        """The watch has seen the end of a call of another process; what it may tell those who follow."""
        if answer is not None and answer.at < self._not_before():
            answer = None
        if answer is not None:
            self._count("reused")
            work = self._working.get(place)
            if work is not None and work.waits:
                self._end(place, answer)
        return answer

    def _count(self, what: str) -> None:
        with self._counting:
            self._counts[what] += 1

    def _not_before(self) -> float:
        return -math.inf if self.max_age is None else self._clock() - self.max_age

    # -- everything else ----------------------------------------------------------------------------------------------

    @property
    def trouble(self) -> str | None:
        """What is wrong with the file at present; None when nothing is."""
        return self._file.trouble.text

    def stats(self) -> JournalStats:
        """What is in the file, and what this process did with it. Looks at every call: a second for millions.

        Raises:
            JournalError: the file cannot be read.
        """
        return dataclasses.replace(stats(self._file), **dict[str, Any](self._counts))

    def prune(self, older_than: float | None = None, *, failed: bool = True) -> int:
        """Delete old answers, give the space back to the file system, and say how many rows are gone.

        Args:
            older_than: seconds; None for `max_age`, and if that is None too, no answer is deleted.
            failed: delete what is known of failed calls too, if it is as old.

        Raises:
            JournalError: the file cannot be written.
        """
        age = self.max_age if older_than is None else _age("older_than", older_than, zero=True)
        try:
            return prune(self._file, None if age is None else self._clock() - age, failed=failed)
        except (sqlite3.Error, OSError) as error:
            raise JournalError(f"the journal {self.path} cannot be pruned: {error}") from None

    def close(self) -> None:
        """Close the file; what comes later is not kept. Doing it twice does nothing."""
        self._close()
        self._watch.look()
        _journals.discard(self)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._file.closed else "{reused} reused, {recorded} recorded".format(**self._counts)
        return f"<Journal {str(self.path)!r}: {state}{', in trouble' if self.trouble else ''}>"

    def _after_fork_in_child(self) -> None:
        self._working.clear()
        self._counting = threading.Lock()
        self._occurrences.after_fork()
        self._watch = Watch(self._file, self._heard)


# -- one object per file ----------------------------------------------------------------------------------------------

_journals: weakref.WeakSet[Journal] = weakref.WeakSet()
_opening = threading.RLock()
_shared: weakref.WeakValueDictionary[str, Journal] = weakref.WeakValueDictionary()


def open_journal(path_or_journal: Any, *, max_age: float | None = None, store: str | None = None) -> Journal:
    """The journal of a file; the same object for everybody in this process who asks for the same file.

    Args:
        path_or_journal: a path, or a journal, which is given back.
        max_age, store: as for `Journal`; None for what it has already, or the default.

    Raises:
        ValueError: it is open with other options; and as `Journal`.
    """
    with _opening:
        if isinstance(path_or_journal, Journal):
            journal: Journal | None = path_or_journal
        else:
            path = real_path(path_or_journal)
            journal = _shared.get(path)
            if journal is None or journal._file.closed:
                journal = _shared[path] = Journal(path, max_age=max_age, store="all" if store is None else store)
        assert journal is not None
        for name, asked, has in (("max_age", max_age, journal.max_age), ("store", store, journal.store)):
            if asked is not None and asked != has:
                raise ValueError(
                    f"the journal {journal.path} is open with {name}={has!r}; give every client the same, not {asked!r}"
                )
        return journal


def _age(name: str, value: Any, *, zero: bool = False) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}= takes seconds, not {type(value).__name__}")
    if not (0 < value < sys.float_info.max or (zero and value == 0)):
        raise ValueError(f"{name}={value!r} is no age; give seconds above 0, or None")
    return float(value)


def _after_fork_in_child() -> None:
    global _opening
    _opening = threading.RLock()
    for journal in list(_journals):
        journal._after_fork_in_child()


at_fork(_after_fork_in_child)
