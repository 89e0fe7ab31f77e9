"""A client's call on its way to a future: what the worker holds, and who owns the future."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ..books.status import Ratelimit
from ..core.request import State
from ..display.number_text import span
from ..engine.jobs import Answer, FutureJob, NotNeeded, forget_frames
from ..engine.light_future import LightFuture, Watch, begin, pass_on, pause
from ..exceptions import RequestExpired
from ..future import ResponseFuture
from .client_job import ClientJob

if TYPE_CHECKING:
    from ..queues.answers import Delivered
    from ..runtime import Runtime
    from ..stores.journal import Recorded
    from .queued_call import QueuedCall

__all__ = ["OWNER", "CallJob", "launch", "make_job"]


class CallJob(ClientJob, FutureJob):
    """A call on its way to a future."""

    __slots__ = ("call", "context", "costed", "lane")

    context: contextvars.Context
    costed: int | None  # what the estimator had learned by then; None when it was estimated again

    def recost(self) -> None:
        if self.costed is not None and self.costed != self.call.account.estimator.version:
            self.costed = None
            if self.call.runtime.estimator is None:
                self.cost = self.call.cost()

    @property
    def ends_at(self) -> float | None:
        return self.call.deadline_at

    def late(self, now: float) -> BaseException:
        """Its attempt is stuck where no timeout reaches it, in the look-up of a name or an answer that trickles."""
        allowed = (self.call.deadline_at or now) - self.submitted_at
        return RequestExpired(now - self.submitted_at, allowed, request_id=self.sequence)

    def send(self) -> Answer:
        return self.context.run(self.call.attempt, self)

    def not_needed(self, found: NotNeeded) -> None:
        future, self.future = self.future, None
        call = self.call
        if future is None:
            return
        if found.answer is None:
            _queue(call, future, self.context, _follow)
        else:
            _take_over(call, future, self.context, found.answer)

    def give_up(self, error: BaseException) -> None:
        if self.state is State.SENDING:  # an attempt is under way, and what comes of it nobody will hear
            self.call.runtime.ledger.gave_up(self.call, perhaps_paid=True)
        super().give_up(error)

    def _resolve(self, future: LightFuture[Any], answer: Answer) -> None:
        call = self.call
        if self.future is None:
            return
        _tell(future, call, "done")
        super()._resolve(future, answer)
        call.runtime.ledger.resolved(call)

    def _fail(self, error: BaseException) -> None:
        future, call = self.future, self.call
        if future is not None:
            _tell(future, call, "failed")
        super()._fail(error)
        if call.entry is not None:
            call.entry.release(error)
        if future is not None and not future.cancelled():  # a cancelled one was counted by its owner
            call.runtime.ledger.failed(call, error)


def make_job(call: QueuedCall, context: contextvars.Context) -> CallJob:
    """The job of a call, as of now."""
    worker = call.runtime.worker
    job = call.job_kind(worker.next_sequence(), call.pool, call.estimated, **call.job_options())
    job.worker, job.call, job.lane, job.context = worker, call, call.runtime.lane, context
    job.costed = call.account.estimator.version
    return job


def launch(call: QueuedCall, job: CallJob, future: LightFuture[Any], *, nested: bool = False) -> None:
    """Have the call answered: by the journal, by another call that is at the same, or by the provider.

    Raises:
        QueueFull, WorkerStopped: it was not accepted.
    """
    entry = call.entry
    if entry is not None:
        found = entry.find()
        if found is not None:
            _take_over(call, future, job.context, found)
            return
        if not entry.enlist():
            try:
                _follow(call, job, future)
            except BaseException:
                entry.release()
                raise
            return
    job.future = future
    job.prepare()
    try:
        job.worker.submit(job, nested=nested)
    except BaseException:
        if entry is not None:
            entry.release()
        raise


def _follow(call: QueuedCall, job: CallJob, future: LightFuture[Any]) -> None:
    """Wait for whoever works for the same answer: as part of the queue, but never sent.

    Raises:
        WorkerStopped: it was not accepted.
    """
    assert call.entry is not None
    job.future = future
    pause(future)
    job.prepare()
    job.worker.follow(job)
    call.entry.follow(partial(_followed, call, job, future))


def _followed(call: QueuedCall, job: CallJob, future: LightFuture[Any], found: Recorded | Delivered | None) -> None:
    """Who was at it is done; on the journal's or a sending thread, which has other things to do."""
    job.worker.engine.senders.run(partial(_go_on, call, job, future, found))


def _go_on(call: QueuedCall, job: CallJob, future: LightFuture[Any], found: Recorded | Delivered | None) -> None:
    """End it with the answer; or nobody is at it any more, and there is none: it is this call's turn."""
    try:
        if found is not None:
            _take_over(call, future, job.context, found)
        elif not future.done():
            _queue(call, future, job.context, partial(launch, nested=True))
    finally:
        job.future = None  # the queue keeps a dropped call for a while, and it would keep a stream that is forgotten
        job.worker.cancel(job)  # only now: without one or the other nothing would be pending


def _take_over(
    call: QueuedCall, future: LightFuture[Any], context: contextvars.Context, found: Recorded | Delivered
) -> None:
    """End the future with an answer out of the journal, or of a worker elsewhere."""
    if not begin(future):
        return
    try:
        value = context.run(call.replayed, found)
    except Exception as error:
        try:
            call.unreadable(error, found)
        except Exception as final:
            _end(call, future, final)
        else:
            _queue(call, future, context, partial(launch, nested=True))
        return
    _tell(future, call, "done", replayed=not found.elsewhere)
    call.over(found)
    with suppress(InvalidStateError):  # its time was over just now
        future.set_result(value)


def _queue(
    call: QueuedCall, future: LightFuture[Any], context: contextvars.Context, how: Callable[[Any, Any, Any], None]
) -> None:
    """Make another job of the call, which answers the future from now on."""
    job = make_job(call, context)
    pass_on(future, job)
    try:
        how(call, job, future)
    except Exception as error:
        job.future = future
        job.give_up(error)


def _end(call: QueuedCall, future: LightFuture[Any], error: Exception) -> None:
    """End the future with what somebody else's attempt at it failed with."""
    forget_frames(error)
    _tell(future, call, "failed")
    call.runtime.ledger.failed(call, error)
    if call.entry is not None:
        call.entry.release(error)
    with suppress(InvalidStateError):  # its time was over just now
        future.set_exception(error)


def _tell(future: LightFuture[Any], call: QueuedCall, state: str, *, replayed: bool = False) -> None:
    """Leave with the future how it fared, as it is about to forget its call."""
    if isinstance(future, ResponseFuture):
        future._ratelimit = call.fared(state, replayed=replayed)


class _Owner:
    """Hears of the futures of all clients."""

    def cancelled(self, future: LightFuture[Any]) -> None:
        job = future._call
        job.worker.cancel(job)
        _tell(future, job.call, "cancelled")
        begin(future)
        if job.call.entry is not None:
            job.call.entry.release()
        job.call.runtime.ledger.cancelled(job.call)

    def waiting(self, future: LightFuture[Any]) -> Watch | None:
        job = future._call
        if job is None:
            return None
        runtime: Runtime = job.call.runtime
        runtime.hint.waiting()
        return runtime.watch

    def ratelimit(self, future: LightFuture[Any]) -> Ratelimit | None:
        """How its call fares; None when it has just ended."""
        job = future._call
        if job is None:
            return None
        return job.call.fares(job, running=future.running())  # type: ignore[no-any-return]

    def describe(self, future: LightFuture[Any]) -> str:
        fares = self.ratelimit(future)
        if fares is None:
            return "queued"
        if fares.state == "queued":
            place = "" if fares.place is None else f" {fares.place}/{fares.of}"
            return f"queued{place}" + ("" if fares.eta is None else f" ~{span(fares.eta)}")
        return f"running {fares.sent_s or 0.0:.1f}s" + (f" try {fares.attempts}" if fares.attempts > 1 else "")


OWNER = _Owner()
