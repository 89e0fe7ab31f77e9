"""RateLimitedWorker: a priority queue of calls and the threads that send them; how it works inside is in `engine`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from .core.checks import amount, number, weights_of, whole
from .core.dispatcher import Dispatcher
from .core.feedback import Feedback, Kind
from .core.limiter import Survey
from .core.queue_caps import QueueCaps
from .core.request import State, Usage
from .core.retry import RetryBudget, RetryPolicy
from .core.scheduler import Scheduler
from .core.size_classes import SizeClasses
from .engine import lifecycle
from .engine.admission import Admission
from .engine.engine import Engine
from .engine.queue_positions import QueuePositions
from .engine.steps import Job
from .exceptions import WorkerStopped
from .stores import Budget
from .stores.memory import MemoryBudget
from .telemetry import span_thread

__all__ = ["RateLimitedWorker"]

_numbers = itertools.count()
_sequence = itertools.count().__next__  # of all workers: they may share a budget, which tells calls apart by number
lifecycle.when_drained(span_thread.finish)  # the spans of the last calls


class RateLimitedWorker:
    """Consumes a priority queue of calls, sends each when its limits allow, and retries what can be retried.

    The thread starts with the first call (on Python 3.12.0 to 3.12.2 with the worker) and ends with `shutdown`, or when
    nobody holds the worker any more and nothing is pending. All methods are thread-safe.

    Args:
        budget: who remembers what was spent; None for this worker's own memory.
        max_queue: calls that may wait at once; None for no cap.
        max_queue_per_tenant: the same for one tenant; None for no cap.
        on_full: what a submit to a full queue does: "block" until there is room, or "raise" QueueFull.
        ageing: seconds of waiting that improve a call's priority by one number; None for strict priority.
        weights: shares of the tenants that are not 1.0.
        size_classes: turns between small and large calls, see `SizeClasses`; True for the usual ones, None for none.
        clock: monotonic seconds.

    Attributes:
        bounded: whether there is a cap.

    Raises:
        ValueError: for an argument that makes no sense.
    """

    def __init__(
        self,
        *,
        budget: Budget | None = None,
        max_queue: int | None = None,
        max_queue_per_tenant: int | None = None,
        on_full: str = "block",
        ageing: float | None = None,
        weights: dict[str, float] | None = None,
        size_classes: SizeClasses | bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if on_full not in ("block", "raise"):
            raise ValueError(f'on_full must be "block" or "raise", not {on_full!r}')
        for name, cap in (("max_queue", max_queue), ("max_queue_per_tenant", max_queue_per_tenant)):
            if cap is not None:
                whole(name, cap, 1, ", or None for no cap")
        if ageing is not None:
            amount("ageing", ageing, "a number of seconds")
        if budget is not None and not hasattr(budget, "reserve"):
            raise TypeError(f"budget must be a Budget (see ratelimited_llm.stores) or None, not {budget!r}")
        if not callable(clock):
            raise TypeError(f"clock must be a function that answers seconds, not {clock!r}")
        self.budget: Budget = budget if budget is not None else MemoryBudget()
        self.clock = clock
        self.number = next(_numbers)
        self._ageing = ageing
        self._weights = weights_of(weights)
        self._sizes = SizeClasses.read(size_classes)
        self._caps = (max_queue, max_queue_per_tenant)
        self._blocks = on_full == "block"
        self.bounded = self._caps != (None, None)
        self.engine = self._new_engine()
        self._positions = QueuePositions()
        lifecycle.register(self)
        self.engine.stand_by()

    def _new_engine(self) -> Engine:
        scheduler = Scheduler(ageing=self._ageing, weights=self._weights, sizes=self._sizes)
        machine = Dispatcher(scheduler, self.budget, retries=RetryBudget())
        admission = Admission(QueueCaps(*self._caps), self._blocks) if self.bounded else None
        engine = Engine(machine, admission, self.clock, _sequence, f"ratelimited-llm-worker-{self.number}")
        if isinstance(self.budget, MemoryBudget):
            self.budget.listen(engine)
        return engine

    # -- submitting ---------------------------------------------------------------------------------------------------

    def submit(self, job: Job, *, nested: bool = False) -> None:
        """Accept a call; it will end exactly once, by way of its own methods.

        Args:
            job: the call, numbered by `next_sequence`.
            nested: it is made from inside another call, so no cap refuses it, and if the other waits for it
                (`job.jumps`), it goes before its equals.

        Raises:
            QueueFull: the queue is at its cap and `on_full="raise"`.
            WorkerStopped: after `shutdown`.
            RuntimeError: the worker's thread cannot be started.
        """
        engine, tally = self.engine, job.tally
        if tally is not None:
            tally.submitted(job)
        try:
            if engine.admission is not None:
                engine.admission.enter(job, force=nested)
            if not engine.accept(job, nested):
                raise WorkerStopped("this client is closed: make a new one, or submit before close()")
        except BaseException:  # Ctrl-C in the middle of it, among others: whoever asked for the call has not got it
            engine.forget(job)
            if tally is not None:
                tally.withdrawn(job)
            raise

    def follow(self, job: Job) -> None:
        """Accept a call that waits for another one to end, outside of this queue, and is never sent.

        It counts as queued, and can be cancelled, expire and be inherited by a fork, until `cancel`. No cap refuses it.

        Raises:
            WorkerStopped: after `shutdown`.
            RuntimeError: the worker's thread cannot be started.
        """
        if not self.engine.accept_follower(job):
            raise WorkerStopped("this client is closed: make a new one, or submit before close()")

    def next_sequence(self) -> int:
        """The number of the next call."""
        return _sequence()

    # -- what jobs say, from any thread -------------------------------------------------------------------------------

    def cancel(self, job: Job) -> None:
        """Its caller does not want it any more and knows so; a call that was sent goes on."""
        engine = self.engine
        engine.post(engine.on_cancelled, job)

    def look_again(self) -> None:
        """What held calls back beside the limits (`hindered`) has changed."""
        engine = self.engine
        engine.post(engine.on_look_again)

    def unsent(self, job: Job) -> None:
        """Its caller has left, whatever became of it: it is not sent, or was not, and its budget is given back."""
        self.engine.forget(job)

    def answered(self, job: Job, feedback: Feedback) -> None:
        """It was answered in full."""
        self.engine.tell(self.engine.on_answered, job, feedback)

    def streaming(self, job: Job, feedback: Feedback) -> None:
        """Its answer has begun and is an open stream, which keeps its place until `stream_ended`."""
        self.engine.tell(self.engine.on_streaming, job, feedback)

    def stream_ended(self, job: Job, usage: Usage | None, trouble: Feedback | None = None) -> None:
        """Its stream was read to the end, closed, collected, or broke off; may be called from a finalizer.

        Args:
            job: the call.
            usage: what it used, as far as the stream said.
            trouble: what the error that ended it taught, if one did.
        """
        engine = self.engine
        engine.post(engine.on_stream_ended, job, (usage, trouble))

    def leave_streams(self) -> None:
        """The script ends: nobody reads open streams any more, nor those that open from now on; none is waited for."""
        engine = self.engine
        if engine.thread is not None:
            engine.post(engine.on_streams_left)

    def failed(self, job: Job, feedback: Feedback, policy: RetryPolicy, error: BaseException) -> None:
        """An attempt failed: it is dispatched again when its time comes, or given up with this error."""
        self.engine.tell(self.engine.on_failed, job, (feedback, policy, error))

    # -- a pause ------------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """From now on nothing is sent, until `resume`; what was sent goes on, calls are accepted, deadlines pass."""
        self.engine.hold(True)

    def resume(self) -> None:
        """End a pause: what waits goes on at once, as far as the limits allow."""
        self.engine.hold(False)

    @property
    def paused(self) -> bool:
        """Whether it is held by `pause`."""
        return self.engine.machine.scheduler.paused and not self.closed

    def first(self) -> Any:
        """The waiting call that is next by its rank, whatever it waits for; None when none waits."""
        return self.engine.first()

    # -- looking at it ------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it accepts no more calls."""
        return self.engine.inbox.closed

    @property
    def pending(self) -> int:
        """Calls that were accepted and have not ended."""
        return self.engine.pending

    @property
    def queued(self) -> int:
        """Of these, the ones that wait and are not sent."""
        return self.engine.waiting

    def place(self, job: Job) -> tuple[int, int, int] | None:
        """Its place in the queue, how many wait, and its place among those of its pool; None when that cannot be told.

        Never blocks.
        """
        return self._positions.of(self.engine, job)

    def survey(self, pool: Any) -> Survey:
        """The limits of a pool as of the last half second; never blocks for long."""
        return self._positions.survey(self.budget, pool, self.clock())

    @property
    def in_flight(self) -> int:
        """Calls that were sent and have not ended, open streams included."""
        return len(self.engine.flying)

    def __repr__(self) -> str:
        state = "closed " if self.closed else ""
        return f"<RateLimitedWorker {self.number} {state}queued={self.queued} in_flight={self.in_flight}>"

    # -- the end ------------------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> bool:
        """Block until no call is pending, at most `timeout` seconds; True when none is."""
        return self.engine.wait(None if timeout is None else number("timeout", timeout, "a number of seconds"))

    def cancel_queued(self, which: Callable[[Any], bool] = lambda job: True) -> int:
        """Cancel every waiting call that `which` (fast, and ours) accepts; answers how many. What was sent goes on."""
        if not callable(which):
            raise TypeError(f"which must be a function of a call, not {which!r}")
        return self.engine.cancel_queued(which)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; as `concurrent.futures.Executor.shutdown`. May be called more than once. Ends a pause.

        Args:
            wait: block until the pending calls have ended.
            cancel_futures: cancel those that wait; those in flight still end, and are not tried again.
        """
        if cancel_futures and self.paused:
            self.engine.cancel_queued(lambda job: True)  # before the pause ends
        self.engine.close(final=cancel_futures)
        if cancel_futures:
            self.engine.cancel_queued(lambda job: True)
        if wait:
            self.engine.wait(None)

    # -- forks: see `lifecycle` ---------------------------------------------------------------------------------------

    def reset_after_fork(self) -> Callable[[], None]:
        """In the child of a fork: start again with nothing.

        Returns:
            ends the parent's calls, which are the parent's; their callbacks are called then.
        """
        parents, self.engine = self.engine, self._new_engine()
        self.engine.machine.scheduler.paused = parents.machine.scheduler.paused
        if parents.inbox.closed:
            self.engine.close(final=True)
        self.budget.after_fork()
        now = self.clock()
        for job in parents.flying:
            # Its place is free here, and what it costs is spent all the same.
            self.budget.settle(job.pool, job.sequence, None, now, Kind.REJECTED)
        return partial(self._end_inherited, parents.inherited())

    def _end_inherited(self, jobs: set[Job]) -> None:
        error = "this call was made before fork(): only the parent process gets its answer"
        for job in jobs:
            if job.lane is not None:
                job.lane.carried.discard(job.sequence)
            # Nobody takes it out of a queue again in which it never was, when its task or its stream ends here.
            job.state = State.FAILED
            job.abandon(WorkerStopped(error, request_id=job.sequence))
