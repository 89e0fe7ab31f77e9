"""What becomes of the calls of a door that keeps no ledger: counted for operators, and told to whoever listens.

The SDKs' doors and that of requests have a `Ledger`, which notes money and time for their users, too. An executor, a
manager's processors, `queued()` and coroutines have this; what a scrape or a trace shows of them is the same. A job
that has a tally says so by `Job.tally`, and worker and jobs bring it here: no door does it by itself.

A waiting call costs no memory here, unless somebody traces: a million of them may wait.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from ..core.feedback import Kind
from ..core.request import Usage
from ..exceptions import WorkerStopped
from ..forks import at_fork
from ..telemetry.meters import Meter, Meters
from ..telemetry.reasons import reason_of
from ..telemetry.registry import dialect_name, meter_for, watch
from ..telemetry.tracing import CallTrace, new_trace
from .call_records import ENDED, FLYING, WAITING
from .prices import Prices

__all__ = ["Tally"]

T = TypeVar("T")

_all: weakref.WeakSet[Tally] = weakref.WeakSet()


class _Book:
    """The calls to one pool of limits."""

    __slots__ = ("flying", "meters", "pool")

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.flying = 0
        self.meters: dict[tuple[str, str, int], Meter] = {}


class _Note:
    """A call that was sent, or that somebody traces.

    Attributes:
        stage: where it is.
        book, meter: where it is counted.
        dispatched_at, sent_at: when it was first and last sent.
        trace: who tells OpenTelemetry about it; None when nobody listens.
    """

    __slots__ = ("book", "dispatched_at", "job", "meter", "sent_at", "stage", "trace")

    def __init__(self, job: Any, book: _Book, meter: Meter, trace: CallTrace | None = None) -> None:
        self.job = job
        self.book = book
        self.meter = meter
        self.stage = WAITING
        self.dispatched_at = self.sent_at = 0.0
        self.trace = trace

    @property
    def pool(self) -> Any:
        return self.job.pool

    @property
    def submitted_at(self) -> float:
        return float(self.job.submitted_at)

    def kind(self) -> tuple[str, str, int]:
        return self.job.kind()  # type: ignore[no-any-return]

    def asked(self) -> Mapping[str, Any]:
        return self.job.asked()  # type: ignore[no-any-return]

    def traced_by_sdk(self) -> bool:
        return bool(self.job.traced_by_sdk)


# Of those that wait untraced, and of those that have ended: two for all.
_WAITS = _Note(None, _Book(None), Meter())
_OVER = _Note(None, _Book(None), Meter())
_OVER.stage = ENDED


class Tally:
    """Counts the calls of one door. Thread-safe; nothing here blocks for longer than a note takes, nor raises.

    Args:
        budget: what knows how the limits of its pools stand (`survey`).
        clock: monotonic seconds, of the worker.

    Attributes:
        meters: what operators are told, by kinds of calls.
    """

    def __init__(self, budget: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.meters = Meters()
        self.lock = threading.RLock()  # a finalizer may run inside, and cancel a call
        self._books: dict[Any, _Book] = {}
        self._prices = Prices()
        _all.add(self)
        watch(self, budget)

    # -- what the registry asks ---------------------------------------------------------------------------------------

    def take_in(self) -> None:
        """Nothing is left for later here."""

    def in_flight(self) -> dict[Any, int]:
        """How many calls of each pool were sent and have not ended. Under the lock."""
        return {pool: book.flying for pool, book in self._books.items()}

    def after_fork(self) -> None:
        """In the child: the calls that are open are the parent's, and so is the lock if another thread held it."""
        self.lock = threading.RLock()
        for book in self._books.values():
            book.flying = 0

    # -- the life of a call -------------------------------------------------------------------------------------------

    def submitted(self, job: Any) -> None:
        """It is about to be accepted, by its caller's thread; else `withdrawn` takes it back."""
        kind = job.kind()
        if kind[0]:
            self._prices.rate(kind[0], dialect_name(job.pool))  # a first look takes long, so it has no lock
        trace = new_trace()
        with self.lock:
            book, meter = self._place(job.pool, kind)
            meter.waiting += 1
            job.note = _WAITS if trace is None else _Note(job, book, meter, trace)

    def withdrawn(self, job: Any) -> None:
        """It was not accepted after all."""
        with self.lock:
            self._leave(job)

    def sent(self, job: Any) -> None:
        """Everything is reserved, and an attempt begins. Called under the engine's `core`."""
        now = self.clock()
        with self.lock:
            note = getattr(job, "note", None)
            if note is None or note.stage != WAITING:
                return
            if note is _WAITS:
                note = job.note = _Note(job, *self._place(job.pool, job.kind()))
            meter = note.meter
            meter.waiting -= 1
            meter.flying += 1
            note.book.flying += 1
            note.stage, note.sent_at = FLYING, now
            if not note.dispatched_at:
                note.dispatched_at = now
                meter.wait.add(now - job.submitted_at)

    def around(self, job: Any, send: Callable[[], T]) -> T:
        """One attempt from its beginning to its end, on this thread; answers and raises as `send` does.

        Args:
            job: whose.
            send: makes it; answers an `Answer`.
        """
        self.sending(job)
        try:
            answer = send()
        except BaseException as error:
            self.came_back(job, error)
            raise
        self.answered(job, answer)
        return answer

    def sending(self, job: Any) -> None:
        """An attempt begins, in this context."""
        trace = job.note.trace
        if trace is not None:
            trace.sending(job.note)

    def came_back(self, job: Any, error: BaseException) -> None:
        """It brought no answer; in the context that it began in.

        Args:
            job: whose.
            error: an `AttemptFailed` when there may be another attempt; anything else, and its end is told later.
        """
        failure: Any = error if _may_go_again(job, error) else None
        note = job.note
        if note.trace is not None:
            note.trace.sent()
        with self.lock:
            if note.stage != FLYING:
                return
            meter = note.meter
            meter.flying -= 1
            meter.waiting += 1
            note.book.flying -= 1
            note.stage = WAITING
            if failure is not None:
                meter.came_back(reason_of(failure), limited=failure.feedback.outcome.kind is Kind.LIMITED)
        if failure is not None and note.trace is not None:
            note.trace.came_back(failure)

    def answered(self, job: Any, answer: Any) -> None:
        """It has its answer; in the context that it began in."""
        now, note, usage = self.clock(), job.note, answer.feedback.usage
        if note.trace is not None:
            note.trace.sent()
        dollars = None if usage is None else self._dollars(job, usage)
        with self.lock:
            if not self._leave(job):
                return
            meter = note.meter
            meter.answered += 1
            meter.duration.add(now - note.sent_at)
            if usage is not None:
                meter.input_tokens += usage.input_tokens
                meter.output_tokens += usage.output_tokens
                meter.cost += dollars or 0.0
        if note.trace is not None:
            note.trace.answered(note, answer.value, usage)

    def _dollars(self, job: Any, usage: Usage) -> float | None:
        model = job.kind()[0]
        return self._prices.cost(model, dialect_name(job.pool), usage) if model else None

    def replayed(self, job: Any) -> None:
        """It has ended without being sent: the journal had its answer."""
        with self.lock:
            self._leave(job)
            self._place(job.pool, job.kind())[1].replayed += 1

    def failed(self, job: Any, error: BaseException) -> None:
        """It has ended without an answer; one that was cancelled, by whomever, counts as that."""
        cancelled = isinstance(error, (CancelledError, WorkerStopped)) or not isinstance(error, Exception)
        note = getattr(job, "note", None)
        with self.lock:
            if not self._leave(job):
                return
            meter = self._place(job.pool, job.kind())[1]
            meter.cancelled += cancelled
            meter.failed += not cancelled
        if note is not None and note.trace is not None:
            note.trace.failed(note, error)

    # -- under the lock -----------------------------------------------------------------------------------------------

    def _leave(self, job: Any) -> bool:
        """Take it out of where it is; False when it has left, or never came."""
        note = getattr(job, "note", None)
        if note is None or note.stage == ENDED:
            return False
        job.note = _OVER
        if note is _WAITS:
            self._place(job.pool, job.kind())[1].waiting -= 1
            return True
        if note.stage == WAITING:
            note.meter.waiting -= 1
        else:
            note.meter.flying -= 1
            note.book.flying -= 1
        note.stage = ENDED
        return True

    def _place(self, pool: Any, kind: tuple[str, str, int]) -> tuple[_Book, Meter]:
        book = self._books.get(pool)
        if book is None:
            book = self._books[pool] = _Book(pool)
        return book, book.meters.get(kind) or meter_for(self.meters, book, *kind)


def _may_go_again(job: Any, error: BaseException) -> bool:
    feedback, policy = getattr(error, "feedback", None), getattr(error, "policy", None)
    if feedback is None or policy is None:
        return False
    return policy.rest(feedback.outcome, job.attempts + 1, job.refusals + 1, 0.0) is not None


def _after_fork_in_child() -> None:
    for tally in list(_all):
        tally.after_fork()


at_fork(_after_fork_in_child)
