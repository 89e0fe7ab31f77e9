"""Scheduler, budget and retries as one machine, which a thread, an asyncio task or a simulation drives.

A driver's whole loop is: `expired`, then `next` until it answers `Wait`, then sleep until then or until somebody has
something to say (`submit`, `answered`, `finished`, `failed`, `cancel`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..exceptions import BudgetExceeded
from .feedback import Feedback, Kind
from .request import Priority, QueuedRequest, State, Usage
from .retry import RetryBudget, RetryPolicy
from .scheduler import Candidate, Scheduler, Wait

if TYPE_CHECKING:
    from ..stores import Budget

__all__ = ["Dispatcher", "Impossible", "Send", "Wait"]


@dataclass(frozen=True, slots=True)
class Send:
    """Everything is reserved: send this call now."""

    request: QueuedRequest


@dataclass(frozen=True, slots=True)
class Impossible:
    """This call can never be sent (it asks for more than a whole limit, or its limits fail); it has failed."""

    request: QueuedRequest
    error: Exception


class Dispatcher:
    """Decides what is sent and when, and what becomes of it.

    Args:
        scheduler: who is next.
        budget: when it may go.
        retries: the retries that all calls to a provider share; None for no bound but each call's own.

    Not thread-safe: one driver owns it. Every `now` is in seconds of the same monotonic clock.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        budget: Budget,
        *,
        retries: RetryBudget | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.budget = budget
        self.retries = retries
        self._narrow: set[object] = set()  # pools whose best call waits for another call to end

    def submit(self, request: QueuedRequest, *, first: bool = False) -> None:
        """Take in a call; `first` puts it before its equals (a call made from inside another)."""
        self.scheduler.add(request, first=first)

    def next(self, now: float) -> Send | Impossible | Wait:
        """Answer a call to send (reserved, and out of the queue), one that never can be, or when to ask again."""
        while True:
            found = self.scheduler.next(now)
            if not isinstance(found, Candidate):
                return found
            request = found.request
            try:
                wait = self._reserve(request, now)
            except Exception as error:  # BudgetExceeded; or a broken store, which must not stop the other pools
                if isinstance(error, BudgetExceeded):
                    error.request_id = request.sequence
                self.scheduler.drop(request, State.FAILED)
                return Impossible(request, error)
            if wait > 0.0:
                self.scheduler.deferred(request, now + wait)
                continue
            self.scheduler.started(request)
            if self.retries is not None and not request.attempts:
                self.retries.earn(request.pool)
            return Send(request)

    def at_once(self, request: QueuedRequest, now: float) -> bool:
        """Reserve for a new call that need not queue, since nobody waits; False: submit it.

        Should this be torn in two (Ctrl-C), `unsent` puts everything right, however far it came.

        Raises:
            Exception: its limits fail; submit it, to have it fail in its turn.
        """
        scheduler = self.scheduler
        if len(scheduler) or scheduler.paused or request.state is not State.NEW or self._reserve(request, now) > 0.0:
            return False
        request.move(State.SENDING)
        if self.retries is not None:
            self.retries.earn(request.pool)
        return True

    def _reserve(self, request: QueuedRequest, now: float) -> float:
        lane = request.lane
        if lane is not None and len(lane.carried) >= lane.width:
            self._narrow.add(request.pool)
            return math.inf
        request.recost()
        if request.hindered():
            self._narrow.add(request.pool)
            return math.inf
        urgent = request.priority <= Priority.HIGH
        wait = self.budget.reserve(request.pool, request.sequence, request.cost, now, urgent=urgent)
        if wait <= 0.0:
            if lane is not None:
                lane.carried.add(request.sequence)
            request.reserved()
        return wait

    def answered(self, request: QueuedRequest, feedback: Feedback, now: float) -> None:
        """The headers of an answer are there; what they tell about the limits is taken in at once."""
        self.budget.observe(request.pool, request.sequence, feedback, now)
        self.scheduler.release(request.pool)

    def streaming(self, request: QueuedRequest) -> None:
        """The answer is an open stream: it keeps its place until `finished`."""
        request.move(State.STREAMING)

    def finished(self, request: QueuedRequest, usage: Usage | None, now: float, state: State = State.DONE) -> None:
        """A call that was sent has ended, with the tokens it used as far as anybody told."""
        kind = Kind.OK if state is State.DONE else Kind.REJECTED
        self._settle(request, usage, now, kind)
        request.move(state)

    def failed(
        self, request: QueuedRequest, feedback: Feedback, now: float, policy: RetryPolicy, jitter: float
    ) -> bool:
        """An attempt brought no answer; True when the call is in the queue again, False when it has failed for good.

        Args:
            request: the call, which was sent.
            feedback: how it ended and what that told.
            now: the present moment.
            policy: whether such an outcome is tried again.
            jitter: a random number in [0, 1).
        """
        kind = feedback.outcome.kind
        self.budget.observe(request.pool, request.sequence, feedback, now)
        self._settle(request, feedback.usage, now, kind)
        if kind is Kind.LIMITED:
            request.refusals += 1
        else:
            request.attempts += 1
        rest = policy.rest(feedback.outcome, request.attempts, request.refusals, jitter)
        retries = self.retries
        if rest is not None and kind is not Kind.LIMITED and retries is not None and not retries.spend(request.pool):
            rest = None
        if rest is None:
            request.move(State.FAILED)
            return False
        self.scheduler.put_back(request, now + rest)
        return True

    def unsent(self, request: QueuedRequest, now: float) -> None:
        """A call that was to be sent was not, since its caller has left: everything is given back."""
        self._settle(request, None, now, Kind.LIMITED)
        if request.state is not State.CANCELLED:
            request.move(State.CANCELLED)

    def _settle(self, request: QueuedRequest, usage: Usage | None, now: float, kind: Kind) -> None:
        self.budget.settle(request.pool, request.sequence, usage, now, kind)
        self.scheduler.release(request.pool)
        if request.lane is not None:
            request.lane.carried.discard(request.sequence)
        self.look_again()

    def look_again(self) -> None:
        """What held calls back beside the limits has changed: ask them again."""
        if self._narrow:
            for pool in self._narrow:
                self.scheduler.release(pool)
            self._narrow.clear()

    def cancel(self, request: QueuedRequest) -> bool:
        """Take a waiting call out; False when it was sent already, or has ended."""
        return self.scheduler.drop(request)

    def expired(self, now: float) -> list[QueuedRequest]:
        """Take out, and answer, the waiting calls whose deadline has passed; each has failed."""
        return self.scheduler.expired(now)
