"""A client's call whose caller waits for its turn and sends it itself: a thread in its own, or a task on its loop."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any

from ..engine.jobs import AttemptFailed, NotNeeded
from ..engine.turn_jobs import TurnJob
from .client_job import ClientJob
from .sync_async import Others, Quick, Sent, Steps, Turn

if TYPE_CHECKING:
    from ..queues.answers import Delivered
    from ..queues.entry import RemoteEntry
    from ..stores.journal import Recorded
    from .journaled import Entry
    from .queued_call import QueuedCall

__all__ = ["CallTurn", "take_turn"]


class CallTurn(ClientJob, TurnJob):
    """A call whose caller is a thread."""

    __slots__ = ("call",)

    def again(self, failure: AttemptFailed) -> None:
        """Give the place back after a failed attempt, and wait for another."""
        self.call.came_back(failure)
        self.worker.failed(self, failure.feedback, failure.policy, failure.error)
        self.wait()


def take_turn(call: QueuedCall, make: Callable[..., Any], *, nested: bool) -> Steps[Any]:
    """Have the call answered, here when it has to be sent; the steps return the SDK's plain object.

    Args:
        call: its `sent_with` answers in the way of whoever drives the steps.
        make: a job of the kind that its caller can wait for.
        nested: it is made from inside another call.
    """
    steps = _send_here if call.entry is None else _answer_here
    return steps(call, make, nested)


def _begin(call: QueuedCall) -> dict[str, Any]:
    """It is this client's call from now on; answers how it is queued."""
    call.number, options = call.runtime.worker.next_sequence(), call.job_options()
    call.runtime.ledger.submitted(call, call.estimated)
    return options


def _end(call: QueuedCall, error: BaseException) -> None:
    """It has ended without an answer."""
    ledger = call.runtime.ledger
    if isinstance(error, Exception) and not isinstance(error, CancelledError):
        ledger.failed(call, error)
    else:
        ledger.cancelled(call)


def _answer_here(call: QueuedCall, make: Callable[..., Any], nested: bool) -> Steps[Any]:
    """Take the answer out of the journal, or wait for others who are at it, or send it."""
    entry = call.entry
    options = _begin(call)
    try:
        while True:
            found = None if entry is None else (yield from _find(entry, options))
            if found is None:
                try:
                    return (yield from _send_here(call, make, nested, options))
                except NotNeeded as other:
                    found = other.answer
                    if found is None:
                        assert entry is not None
                        yield _others(entry, options)
                        continue
            try:
                value = yield Sent(partial(call.replayed, found))
            except Exception as error:
                entry = call.unreadable(error, found)
                continue
            call.over(found)
            return value
    except BaseException as error:
        if entry is not None:
            entry.release(error if isinstance(error, Exception) else None)
        _end(call, error)
        raise


def _find(entry: Entry | RemoteEntry, options: dict[str, Any]) -> Steps[Recorded | Delivered | None]:
    """The answer in the journal, however long somebody else still takes for it; None when it is this call's turn."""
    while True:
        found = entry.find()
        if found is not None:
            return found
        if (yield Quick(entry.enlist)) if entry.elsewhere else entry.enlist():
            return None
        yield _others(entry, options)


def _others(entry: Entry | RemoteEntry, options: dict[str, Any]) -> Others:
    return Others(entry, options["expires_at"], options["submitted_at"])


def _send_here(
    call: QueuedCall, make: Callable[..., Any], nested: bool, options: dict[str, Any] | None = None
) -> Steps[Any]:
    """Wait for turns until it is answered.

    One generator, not two around each other, and nothing that it does not need while it waits: see `sync_async`.

    Args:
        call, make, nested: see `take_turn`.
        options: how it is queued; None for a call that begins and ends here.

    Raises:
        NotNeeded: somebody else is at it, or has its answer.
    """
    whole = options is None
    if options is None:
        options = _begin(call)
    try:
        job = _job(call, make, nested, options)
        del options
        worker = job.worker
        if worker.bounded and not nested:
            try:
                yield Quick(partial(worker.submit, job))  # it may have to wait for room
            except BaseException:
                worker.unsent(job)  # it was submitted all the same when it is the task that was cancelled
                raise
        else:
            worker.submit(job, nested=nested)
        while True:
            if not job.taken():
                yield Turn(job)
            try:
                answer = yield from call.attempt_steps(job, None if call.deadline_at is not None else job)
            except AttemptFailed as failure:
                worker.failed(job, failure.feedback, failure.policy, failure.error)
                if not isinstance(failure.error, Exception):
                    raise failure.error from None  # the caller is torn away, and its turn will not be waited for
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
    except BaseException as error:
        if whole:
            _end(call, error)
        raise


def _job(call: QueuedCall, make: Callable[..., Any], nested: bool, options: dict[str, Any]) -> Any:
    worker = call.runtime.worker
    job = make(worker, worker.next_sequence(), call.pool, call.estimated, **options)
    job.call = call
    if not nested:
        job.lane = call.runtime.lane
    return job
