"""A client's call whose caller waits for its turn, and sends it in its own thread."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any

from .jobs import SENDING, AttemptFailed, NotNeeded, TurnJob, in_call
from .room import sleep_at

if TYPE_CHECKING:
    from .calls import QueuedCall
    from .journaled import Entry
    from .stores.journal import Recorded

__all__ = ["CallTurn", "take_turn"]


class CallTurn(TurnJob):
    """A call whose caller waits."""

    __slots__ = ("call",)

    call: QueuedCall

    @property
    def on_interrupt(self) -> str | None:
        return self.call.runtime.on_interrupt

    def hindered(self) -> bool:
        return self.call.runtime.ledger.too_dear(self.call, self.cost)

    def reserved(self) -> None:
        self.call.runtime.ledger.sent(self.call, self.cost)


def take_turn(call: QueuedCall) -> Any:
    """Have the call answered, in this thread when it has to be sent, and return the SDK's plain object."""
    runtime, entry = call.runtime, call.entry
    ledger = runtime.ledger
    call.number, options = runtime.worker.next_sequence(), call.job_options()
    ledger.submitted(call, call.estimated)
    try:
        while True:
            found = None if entry is None else _find(entry)
            if found is None:
                try:
                    return _send_here(call, options)
                except NotNeeded as other:
                    ledger.unsent(call)
                    found = other.answer
                    if found is None:
                        if entry is not None:
                            _wait_for_others(entry)
                        continue
            try:
                value = call.replayed(found)
            except Exception as error:
                call.unreadable(error)
                call.entry = entry = None
                continue
            ledger.replayed(call)
            return value
    except BaseException as error:
        if entry is not None:
            entry.release(error if isinstance(error, Exception) else None)
        if isinstance(error, Exception) and not isinstance(error, CancelledError):
            ledger.failed(call, error)
        else:
            ledger.cancelled(call)
        raise


def _find(entry: Entry) -> Recorded | None:
    """The answer in the journal, however long somebody else still takes for it; None when it is this call's turn."""
    while True:
        found = entry.find()
        if found is not None or entry.enlist():
            return found
        _wait_for_others(entry)


def _wait_for_others(entry: Entry) -> None:
    gate = threading.Lock()
    gate.acquire()
    entry.follow(lambda found: gate.release())
    sleep_at(gate)


def _send_here(call: QueuedCall, options: dict[str, Any]) -> Any:
    """Wait for turns until it is answered.

    Raises:
        NotNeeded: somebody else is at it, or has its answer.
    """
    worker, nested = call.runtime.worker, in_call()
    job = CallTurn(worker, worker.next_sequence(), call.pool, call.estimated, **options)
    job.call = call
    if not nested:
        job.lane = call.runtime.lane
    worker.submit(job, nested=nested)
    while True:
        job.wait()
        try:
            with SENDING:
                answer = call.attempt(job, None if call.deadline_at is not None else partial(_next_turn, job))
        except AttemptFailed as failure:
            worker.failed(job, failure.feedback, failure.policy, failure.error)
            del failure
            continue
        except NotNeeded:
            worker.unsent(job)
            raise
        if answer.open:
            worker.streaming(job, answer.feedback)
        else:
            worker.answered(job, answer.feedback)
        return answer.value


def _next_turn(job: CallTurn, failure: AttemptFailed) -> None:
    """Give the place back after a failed attempt, and wait for another."""
    job.call.came_back(failure)
    job.worker.failed(job, failure.feedback, failure.policy, failure.error)
    job.wait()
