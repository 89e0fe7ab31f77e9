"""What becomes of the calls of one client and its copies: counted as it happens, told as a `Status`.

Everything here is bookkeeping: no call waits for it, and a fault in it would stop none. A note costs about a
microsecond. Notes of streams may come from a finalizer, in the middle of another note on the same thread: they are left
in a deque, and taken in by the next who looks.

Longer than most files here: every method is one step in the life of a call, and moves the same few counts.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError

from ..accounts import CallPool
from ..core.feedback import Kind
from ..core.request import Cost, Usage
from ..forks import at_fork
from ..notices import say_perhaps_paid
from ..telemetry.meters import Meters
from ..telemetry.registry import meter_for
from ..telemetry.tracing import new_trace
from .call_records import ENDED, FLYING, STREAMING, WAITING, CallRecord, Failures, ModelBook, PoolBook
from .chronicle import Chronicle, Slice
from .cost_cap import CostCap
from .spending import Spending

__all__ = ["Ledger"]

LATEST = 1_000  # answers that the median and the 95th percentile of the latency are of
RECENT = 0.05  # the weight of one answer in the mean latency

_all: weakref.WeakSet[Ledger] = weakref.WeakSet()


class Ledger:
    """Counts calls, tokens and time. Thread-safe.

    Args:
        spending: keeps the books of what they cost.
        clock: monotonic seconds.

    Attributes:
        open: calls with a future that have not ended.
        meters: what operators are told, by kinds of calls.
    """

    def __init__(self, spending: Spending, clock: Callable[[], float] = time.monotonic) -> None:
        self.spending = spending
        self.clock = clock
        self.open = 0
        self.since: float | None = None
        self.seen_at = 0.0  # when something happened last
        self.to_come = 0  # that a batch said it has
        self.submitted_calls = self.answered_calls = self.replayed_calls = 0
        self.failed_calls = self.cancelled_calls = 0
        self.refused = self.retries = self.perhaps_paid = 0
        self.pools: dict[CallPool, PoolBook] = {}
        self.models: dict[str, ModelBook] = {}
        self.errors = Failures()
        self.meters = Meters()
        self.latest: deque[float] = deque(maxlen=LATEST)
        self.mean_latency: float | None = None
        self.chronicle = Chronicle()
        self.waiting = self.flying = 0
        self._late: deque[tuple[CallRecord, Usage | None, float]] = deque()
        self._renew()
        _all.add(self)

    def _renew(self) -> None:
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._cost_cap = CostCap(self.spending)

    # -- the life of a call -------------------------------------------------------------------------------------------

    def submitted(self, call: CallRecord, cost: Cost) -> None:
        """It was accepted, or is about to be: then `withdrawn` takes it back.

        Raises:
            ValueError: there is a cap on the cost, and nobody knows what this call costs.
        """
        # A first look takes long, so it happens without the lock.
        call.group = self.spending.group(call.model, call.pool.dialect.name)
        call.trace = new_trace()
        with self.lock:
            self.spending.planned(call, cost)
            self.submitted_calls += 1
            first = call.counted and not self.open
            self.open += call.counted
            if self.since is None:
                self.since = call.submitted_at
            book = self.pools.get(call.pool)
            if book is None:
                book = self.pools[call.pool] = PoolBook(call.pool)
            call.book = book
            kind = call.kind()
            call.meter = book.meters.get(kind) or meter_for(self.meters, book, *kind)
            self._enter(call, cost)
            self._slice(call.submitted_at)
        if first:
            _wake_panels()

    def _enter(self, call: CallRecord, cost: Cost) -> None:
        call.stage, call.planned = WAITING, cost
        call.book.enter(cost)
        self.waiting += 1
        call.meter.waiting += 1

    def withdrawn(self, call: CallRecord) -> None:
        """Take `submitted` back: the call was not accepted after all."""
        with self.lock:
            if self._give_up(call):
                self.submitted_calls -= 1
                self._drop(call)

    def _give_up(self, call: CallRecord) -> bool:
        """It will cost nothing (more); False when it had ended."""
        if call.stage == WAITING:
            self.spending.dropped(call)
        elif call.stage == FLYING:
            self.spending.failed(call, again=False)
        return self._leave(call)

    def too_dear(self, call: CallRecord, cost: Cost, again: Callable[[], None] | None) -> bool:
        """Whether it must wait, as the calls in flight may use up what the cap on the cost leaves.

        Args:
            call: the call.
            cost: as estimated now.
            again: called when it is to be asked again, as a call in flight has ended. The worker may have looked
                before the ledger was told of that end. None for a call that cannot wait, since one in flight waits for
                it.

        Raises:
            CostLimitReached: nothing is in flight, so that it can never be sent; or it cannot wait.
        """
        if self.spending.max_cost is None:
            return False
        with self.lock:
            self.take_in()
            return self._cost_cap.too_dear(call, cost, again)

    def sent(self, call: CallRecord, cost: Cost, at: float | None = None) -> None:
        """Everything is reserved, and an attempt begins; or began at that moment, elsewhere."""
        now = self.clock() if at is None else at
        with self.lock:
            if call.stage != WAITING:
                return
            book, meter = call.book, call.meter
            self._cost_cap.started(call, cost)
            self._leave(call)
            call.stage, call.planned, call.sent_at = FLYING, cost, now
            if not call.tries:
                call.dispatched_at = now
                meter.wait.add(now - call.submitted_at)
            call.tries += 1
            book.flying += 1
            self.flying += 1
            meter.flying += 1
            book.spend(cost, now)
            self._slice(now).sent += 1

    def perhaps_paid_again(self) -> None:
        """A call is sent that was in flight when an earlier run ended; said once, and counted."""
        with self.lock:
            self.perhaps_paid += 1
            first = self.perhaps_paid == 1
        if first:
            say_perhaps_paid()

    def unsent(self, call: CallRecord) -> None:
        """What was about to be sent need not be, for now: it waits again."""
        now = self.clock()
        with self.lock:
            if call.stage != FLYING:
                return
            self.spending.failed(call, again=True)
            self._leave(call)
            call.tries -= 1
            call.book.spend(call.planned, now, -1)
            self._enter(call, call.planned)
            self._slice(now).sent -= 1

    def back(self, call: CallRecord, kind: Kind, reason: str) -> None:
        """An attempt failed, and the call waits for another; or for its end, which is told by `failed`.

        Args:
            call: whose it was.
            kind: how it failed.
            reason: which limit refused it; or what else was the matter, in a word.
        """
        now = self.clock()
        with self.lock:
            if call.stage != FLYING:
                return
            self.spending.failed(call, again=True, perhaps_paid=kind is Kind.DROPPED)
            self._leave(call)
            if kind is Kind.LIMITED:
                call.book.spend(call.planned, now, -1)
                self.refused += 1
            else:
                self.retries += 1
            call.meter.came_back(reason, limited=kind is Kind.LIMITED)
            self._enter(call, call.planned)
            self._slice(now).refused += kind is Kind.LIMITED

    def gave_up(self, call: CallRecord, *, perhaps_paid: bool) -> None:
        """Its last attempt failed; its end is told by `failed`."""
        with self.lock:
            if call.stage == FLYING:
                self.spending.failed(call, again=True, perhaps_paid=perhaps_paid)
                self._leave(call)
                self._enter(call, call.planned)

    def answered(self, call: CallRecord, usage: Usage | None) -> None:
        """A call was answered in full; `usage` None when the answer did not tell."""
        now = self.clock()
        with self.lock:
            if call.stage == FLYING:
                self._leave(call)
                model, current = self._answer(call, now)
                self._use(call, usage, now, model, current)
                call.meter.duration.add(now - call.sent_at)

    def opened(self, call: CallRecord) -> None:
        """Its answer has begun, and is a stream."""
        now = self.clock()
        with self.lock:
            if call.stage == FLYING:
                self._answer(call, now)
                call.stage = STREAMING

    def first_chunk(self, call: CallRecord) -> None:
        """The first piece of its stream is there."""
        now = self.clock()
        with self.lock:
            call.meter.first_chunk.add(now - call.sent_at)

    def _answer(self, call: CallRecord, now: float) -> tuple[ModelBook, Slice]:
        self.answered_calls += 1
        call.meter.answered += 1
        latency = now - call.sent_at
        self.latest.append(latency)
        mean = self.mean_latency
        self.mean_latency = latency if mean is None else mean + RECENT * (latency - mean)
        model = self._model(call)
        model.answered += 1
        model.latencies.append(latency)
        current = self._slice(now)
        current.answered += 1
        self.chronicle.latency(current, latency)
        return model, current

    def stream_ended(self, call: CallRecord, usage: Usage | None) -> None:
        """Its stream is over; may be called from a finalizer."""
        self._late.append((call, usage, self.clock()))

    def in_flight(self) -> dict[CallPool, int]:
        """How many calls of each pool were sent and have not ended. Under the lock."""
        return {pool: book.flying for pool, book in self.pools.items()}

    def take_in(self) -> None:
        """Note the streams that have ended. Under the lock."""
        while self._late:
            call, usage, at = self._late.popleft()
            if call.stage == STREAMING:
                self._leave(call)
                self._use(call, usage, at, self._model(call), self._slice(at))
                call.meter.duration.add(at - call.sent_at)

    def replayed(self, call: CallRecord) -> None:
        """It has ended: the journal had its answer."""
        now = self.clock()
        with self.lock:
            if self._give_up(call):
                self.replayed_calls += 1
                self.seen_at = now  # perhaps much later: it followed a call that was in flight
                call.meter.replayed += 1
                self.spending.replayed()
                self._drop(call)

    def failed(self, call: CallRecord, error: BaseException) -> None:
        """A call has ended with an error, and is not tried again."""
        now = self.clock()
        with self.lock:
            if not self._give_up(call):
                return
            self.failed_calls += 1
            call.meter.failed += 1
            self._model(call).failed += 1
            self.errors.note(error)
            self._slice(now).failed += 1
            self._drop(call)
        if call.trace is not None:
            call.trace.failed(call, error)

    def cancelled(self, call: CallRecord) -> None:
        """Its caller does not want it any more."""
        with self.lock:
            if self._give_up(call):
                self.cancelled_calls += 1
                call.meter.cancelled += 1
                self._slice(self.clock())
                self._drop(call)
        if call.trace is not None:
            call.trace.failed(call, CancelledError())

    def resolved(self, call: CallRecord) -> None:
        """Its future has its answer: whoever waits for all may go."""
        with self.lock:
            self._drop(call)

    def _leave(self, call: CallRecord) -> bool:
        """Take it out of where it is; False when it has left, or never came."""
        stage = call.stage
        if stage == ENDED:
            return False
        if stage == WAITING:
            call.book.leave(call.planned)
            self.waiting -= 1
            call.meter.waiting -= 1
        else:
            call.book.flying -= 1
            self.flying -= 1
            call.meter.flying -= 1
            self._cost_cap.call_ended()
        call.stage = ENDED
        return True

    def _drop(self, call: CallRecord) -> None:
        if call.counted:
            call.counted = False
            self.open -= 1
            if not self.open:
                self._changed.notify_all()

    def _use(self, call: CallRecord, usage: Usage | None, now: float, model: ModelBook, current: Slice) -> None:
        """Correct what it was charged to what it used; it has left."""
        meter = call.meter
        meter.cost += self.spending.answered(call, usage) or 0.0
        if usage is None:
            return
        prompt, output = usage.input_tokens, usage.output_tokens
        meter.input_tokens += prompt
        meter.output_tokens += output
        model.input_tokens += prompt
        model.output_tokens += output
        current.tokens += prompt + output
        call.book.use(call.planned, usage, now)

    def _model(self, call: CallRecord) -> ModelBook:
        model = self.models.get(call.model)
        if model is None:
            model = self.models[call.model] = ModelBook(call.pool.dialect.name)
        return model

    def _slice(self, now: float) -> Slice:
        self.seen_at = now
        return self.chronicle.slice(now, self.waiting, self.flying)

    # -- waiting ------------------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> bool:
        """Block until no call with a future is open, at most `timeout` seconds; True when none is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.open, timeout)

    def expect(self, total: int) -> None:
        """So many calls are to be made in all."""
        with self.lock:
            self.to_come = total
            self.spending.expect(total)

    def after_fork(self) -> None:
        """In the child: the calls that are open are the parent's, and so is the lock if another thread held it."""
        self._renew()
        self._late.clear()
        self.cancelled_calls += self.waiting + self.flying
        self.open = self.waiting = self.flying = 0
        for book in self.pools.values():
            book.forget_open()


def _wake_panels() -> None:
    """Have the panels of a notebook that are shown go on; where there is no notebook nothing is imported."""
    notebook = sys.modules.get("ratelimited_llm.display.notebook")
    if notebook is not None:
        notebook.wake()


def _after_fork_in_child() -> None:
    for ledger in list(_all):
        ledger.after_fork()


at_fork(_after_fork_in_child)
