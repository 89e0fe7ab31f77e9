"""The steps of an engine: what happens to calls, one at a time, while somebody holds the engine's `core`."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from ..core.dispatcher import Dispatcher, Impossible, Wait
from ..core.feedback import Feedback
from ..core.request import QueuedRequest, State, Usage
from ..core.retry import RetryPolicy
from ..exceptions import RequestExpired, WorkerStopped
from .admission import Admission
from .inbox import Message
from .light_future import callbacks_later
from .senders import SenderPool

__all__ = ["NEVER_AGAIN", "Handler", "Job", "Steps"]

_log = logging.getLogger("ratelimited_llm.worker")
OVERTIME = 0.25  # seconds that an attempt has to end by its own timeout, which knows better what was the matter
FEW = 64  # entries that are not worth a clean-up
NEVER_AGAIN = RetryPolicy(max_retries=0, max_refusals=0)

_ticks = itertools.count()

Handler = Callable[[Any, Any, float], None]


class Job(QueuedRequest):
    """A call as the worker holds it: how it goes out, and who hears of its end.

    Attributes:
        jumps: whether one that is made from inside another call goes before its equals, since that call waits for it.
        drives: whether who leaves a message about it takes the next steps too, rather than wake the worker's thread.
        tally: what counts it for operators (`books.tally`); None for a client's call, which its ledger counts. A job
            that has one has a slot `note` for it, says what `kind` it is, and how it was `asked`.
    """

    __slots__ = ()

    jumps = False
    drives = False
    tally: Any = None

    @property
    def ends_at(self) -> float | None:
        """The moment at which its caller is told that it takes too long, answered or not; None for none."""
        return None

    def late(self, now: float) -> BaseException:
        """What its caller is told then, though an attempt is still under way; under the engine's `core`."""
        raise NotImplementedError

    def kind(self) -> tuple[str, str, int]:
        """Its model, what it does with it ("chat", ...), and its priority; for its tally."""
        raise NotImplementedError

    def asked(self) -> Mapping[str, Any]:
        """Attributes of its span that say how it asks, and never what; for its tally."""
        return {}

    @property
    def traced_by_sdk(self) -> bool:
        """Whether what sends it makes a span of its own; for its tally."""
        return False

    def reserved(self) -> None:
        if self.tally is not None:
            self.tally.sent(self)

    def dispatch(self) -> None:
        """Everything is reserved: get it sent, on another thread than this one."""
        raise NotImplementedError

    def give_up(self, error: BaseException) -> None:
        """It will not be sent (again): let its caller know. Runs on a sending thread."""
        raise NotImplementedError

    def abandon(self, error: BaseException) -> None:
        """This is the child of a fork: the call goes on in the parent, and here it ends with this error."""
        raise NotImplementedError


class Steps:
    """Where the calls of one worker are, and how they get from there to the next place.

    Every method but `over` and `_end` runs under the engine's `core`.
    """

    senders: SenderPool

    def __init__(self, machine: Dispatcher, admission: Admission | None, clock: Callable[[], float]) -> None:
        self.machine = machine
        self.admission = admission
        self.clock = clock
        self.flying: set[Job] = set()  # sent, and not settled
        self.ending: set[Job] = set()  # the thread that sent them is about to end their futures and to call back
        self.lost: set[Job] = set()  # given up: another thread is about to do that
        self.final = False  # nothing is tried again any more
        self.unread = False  # nobody reads streams any more
        self._overdue: list[tuple[float, int, Job]] = []  # a heap: when callers stop to wait for calls that were sent
        self._given_up: list[tuple[Job, BaseException]] = []  # in this turn

    def _say_if_over(self) -> None:
        """Called when a call has ended; perhaps it was the last."""
        raise NotImplementedError

    # -- a turn -------------------------------------------------------------------------------------------------------

    def _handle(self, message: Message) -> None:
        handler, job, extra = message[2:]
        try:
            if handler is not None:
                handler(job, extra, self.clock())
            elif job is not None:
                self.machine.submit(job, first=extra)
        except Exception as error:  # a fault of ours, or of a store: this call suffers, the others do not
            _log.exception("worker_failed on %r", job)
            if job is not None:
                self._rescue(job, error)

    def _rescue(self, job: Job, error: Exception) -> None:
        """A step with this call failed half way: end it, whatever else fails."""
        try:
            self.on_forgotten(job, None, self.clock())
        except Exception:
            job.state = State.FAILED  # by force: the table has no line for what must not happen
        self._give_up(job, error)

    def _dispatch(self, now: float) -> float:
        """Send everything that may go; answer when to look again."""
        machine = self.machine
        for request in cast("list[Job]", machine.expired(now)):
            waited, allowed = now - request.submitted_at, (request.expires_at or now) - request.submitted_at
            self._give_up(request, RequestExpired(waited, allowed, request_id=request.sequence))
        while True:
            found = machine.next(now)
            if isinstance(found, Wait):
                return found.until
            job = cast("Job", found.request)
            if isinstance(found, Impossible):
                self._give_up(job, found.error)
                continue
            if self.admission is not None:
                self.admission.leave(job)
            self.flying.add(job)
            self._watch(job)
            try:
                job.dispatch()
            except Exception as error:
                _log.exception("dispatch_failed on %r", job)
                self._finish(job, None, now, State.FAILED)
                self._give_up(job, error)

    def _watch(self, job: Job) -> None:
        """It is sent: see to it that its caller waits no longer than it said, whatever its thread is stuck in."""
        if job.ends_at is None:
            return
        if len(self._overdue) > 2 * len(self.flying) + FEW:  # the rest have ended, and are kept here for nothing
            self._overdue = [each for each in self._overdue if each[2] in self.flying]
            heapq.heapify(self._overdue)
        heapq.heappush(self._overdue, (job.ends_at + OVERTIME, next(_ticks), job))

    def _end_overdue(self, now: float) -> float:
        """Tell those whose time is over; answer when to look again. What is sent keeps its place until it ends."""
        overdue = self._overdue
        while overdue and (overdue[0][0] <= now or overdue[0][2].state is not State.SENDING):
            job = heapq.heappop(overdue)[2]
            if job in self.flying and job.state is State.SENDING and job.ends_at is not None:
                self.ending.discard(job)
                self._give_up(job, job.late(now))
        return overdue[0][0] if overdue else math.inf

    def _deliver(self) -> None:
        """Have the callers of the calls that were given up in this turn told."""
        if self._given_up:
            given_up, self._given_up = self._given_up, []
            self.senders.run(partial(self._end, given_up))

    # -- ends ---------------------------------------------------------------------------------------------------------

    def over(self, job: Job) -> None:
        """Its future is over, and its callbacks have run. Called by the thread that sent it."""
        self.ending.discard(job)
        self._say_if_over()

    def _give_up(self, job: Job, error: BaseException) -> None:
        """Have its caller told, on a sending thread."""
        self.flying.discard(job)
        if self.admission is not None:
            self.admission.leave(job)
        self.lost.add(job)
        self._given_up.append((job, error))

    def _end(self, given_up: list[tuple[Job, BaseException]], gate: Any = None) -> None:
        """On a sending thread: end these calls, and only then call back, as a callback may wait for another of them."""
        with callbacks_later() as later:
            for job, error in given_up:
                try:
                    job.give_up(error)
                except Exception:
                    _log.exception("give_up_failed on %r", job)
        if gate is not None:
            gate.release()
        later.call()
        self.lost.difference_update(job for job, _ in given_up)
        self._say_if_over()

    def _finish(self, job: Job, usage: Usage | None, now: float, state: State = State.DONE) -> None:
        try:
            self.machine.finished(job, usage, now, state)
        finally:
            self.flying.discard(job)

    # -- what the messages say ----------------------------------------------------------------------------------------

    def on_following(self, job: Job, extra: None, now: float) -> None:
        """It rests until it is taken out again, or its time is over."""
        if job.state is State.NEW:
            self.machine.scheduler.put_back(job, math.inf)

    def on_look_again(self, job: None, extra: None, now: float) -> None:
        self.machine.look_again()

    def on_cancelled(self, job: Job, extra: None, now: float) -> None:
        if self.machine.cancel(job) and self.admission is not None:
            self.admission.leave(job)

    def on_forgotten(self, job: Job, extra: None, now: float) -> None:
        """Nobody waits for it any more: it is not sent, or counts as not sent."""
        if self.admission is not None:
            self.admission.leave(job)
        self.machine.cancel(job)
        if job.state in (State.CANCELLED, State.SENDING):
            self.machine.unsent(job, now)  # a torn step may have reserved before it said so
            self.flying.discard(job)

    def on_answered(self, job: Job, feedback: Feedback, now: float) -> None:
        if job.state is State.SENDING:  # if not, its stream was over before anybody could say that it was one
            self.machine.answered(job, feedback, now)
            self._finish(job, feedback.usage, now)

    def on_streaming(self, job: Job, feedback: Feedback, now: float) -> None:
        if job.state is State.SENDING:
            self.machine.answered(job, feedback, now)
            self.machine.streaming(job)
            if self.unread:
                self._finish(job, None, now)

    def on_streams_left(self, job: None, extra: None, now: float) -> None:
        self.unread = True
        for each in [each for each in self.flying if each.state is State.STREAMING]:
            self._finish(each, None, now)

    def on_stream_ended(self, job: Job, what: tuple[Usage | None, Feedback | None], now: float) -> None:
        usage, trouble = what
        if job.state in (State.SENDING, State.STREAMING):
            if trouble is not None:
                self.machine.answered(job, trouble, now)
            self._finish(job, usage, now)

    def on_failed(self, job: Job, what: tuple[Feedback, RetryPolicy, BaseException], now: float) -> None:
        feedback, policy, error = what
        if job.state is not State.SENDING:
            return
        if self.final:
            policy = NEVER_AGAIN
        self.flying.discard(job)
        if not self.machine.failed(job, feedback, now, policy, random.random()):
            self._give_up(job, error)

    def on_cancel_queued(self, job: None, what: tuple[Callable[[Any], bool], list[Any], Any], now: float) -> None:
        which, reply, gate = what
        try:
            dropped = cast("list[Job]", self.machine.scheduler.drop_all(which))
        except Exception as fault:  # of whoever asks: nothing is dropped
            reply.append(fault)
            gate.release()
            return
        given_up: list[tuple[Job, BaseException]] = []
        for each in dropped:
            if self.admission is not None:
                self.admission.leave(each)
            error = WorkerStopped("cancelled while it waited in the queue", request_id=each.sequence)
            given_up.append((each, error))
        self.lost.update(dropped)
        reply.append(len(dropped))
        if dropped:
            self.senders.run(partial(self._end, given_up, gate))
        else:  # nobody to call back, and perhaps no thread any more, which the end of the last call would bring
            gate.release()

    def on_hold(self, job: None, paused: bool, now: float) -> None:
        self.machine.scheduler.paused = paused

    def on_freed(self, job: None, pool: Any, now: float) -> None:
        self.machine.scheduler.release(pool)

    def on_first(self, job: None, what: tuple[None, list[Any], Any], now: float) -> None:
        _, reply, gate = what
        try:
            reply.append(self.machine.scheduler.peek(now))
        except Exception as error:
            reply.append(error)
        finally:
            gate.release()
