"""What becomes of the calls of one client and its copies: counted as it happens, told as a `Status`.

Everything here is bookkeeping: no call waits for it, and a fault in it would stop none. A note costs about a
microsecond. Notes of streams may come from a finalizer, in the middle of another note on the same thread: they are left
in a deque, and taken in by the next who looks.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable

from .books import ENDED, FLYING, STREAMING, WAITING, ModelBook, Noted, PoolBook
from .chronicle import Chronicle, Slice
from .core.feedback import Kind
from .core.request import Cost, Usage
from .pools import CallPool
from .spending import Quote, Spending

__all__ = ["Ledger"]

_log = logging.getLogger("ratelimited_llm.journal")
MOST_ERRORS = 50  # kinds of failures told apart
LATEST = 1_000
RECENT = 0.05  # the weight of one answer in the mean latency


class Ledger:
    """Counts calls, tokens and time. Thread-safe.

    Args:
        spending: keeps the books of what they cost.
        clock: monotonic seconds.

    Attributes:
        open: calls with a future that have not ended.
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
        self.errors: Counter[str] = Counter()
        self.latest: deque[float] = deque(maxlen=LATEST)
        self.mean_latency: float | None = None
        self.chronicle = Chronicle()
        self.waiting = self.flying = 0
        self._late: deque[tuple[Noted, Usage | None]] = deque()
        self._renew()
        _ledgers.add(self)

    def _renew(self) -> None:
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._again: Callable[[], None] | None = None  # see `too_dear`

    # -- the life of a call -------------------------------------------------------------------------------------------

    def submitted(self, call: Noted, cost: Cost) -> None:
        """It was accepted, or is about to be: then `withdrawn` takes it back.

        Raises:
            ValueError: there is a cap on the cost, and nobody knows what this call costs.
        """
        if call.model not in self.models:
            # The first look takes long, so it happens without the lock.
            self.spending.prices.rate(call.model, call.pool.dialect.name)
        with self.lock:
            self.spending.planned(self._quote(call, cost))
            self.submitted_calls += 1
            first = call.counted and not self.open
            self.open += call.counted
            if self.since is None:
                self.since = call.submitted_at
            self._enter(call, cost)
            self._slice(call.submitted_at)
        if first:
            _wake_panels()

    def _enter(self, call: Noted, cost: Cost) -> None:
        book = self.pools.get(call.pool)
        if book is None:
            book = self.pools[call.pool] = PoolBook(call.pool)
        call.stage, call.planned = WAITING, cost
        book.wait(cost, 1)
        self.waiting += 1

    def withdrawn(self, call: Noted) -> None:
        """It was not accepted after all."""
        with self.lock:
            if self._give_up(call):
                self.submitted_calls -= 1
                self._drop(call)

    def _give_up(self, call: Noted) -> bool:
        """It will cost nothing (more); False when it had ended."""
        if call.stage == WAITING:
            self.spending.dropped(self._quote(call, call.planned))
        elif call.stage == FLYING:
            self.spending.failed(call.number, again=False)
        return self._leave(call)

    def too_dear(self, call: Noted, cost: Cost, again: Callable[[], None] | None) -> bool:
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
        spending = self.spending
        if spending.max_cost is None:
            return False
        quote = self._quote(call, cost)
        with self.lock:
            self.take_in()
            if spending.may_start(quote):
                return False
            if spending.idle or again is None:
                raise spending.refusal(quote)
            self._again = again
            return True

    def _quote(self, call: Noted, cost: Cost) -> Quote:
        most = None if self.spending.max_cost is None else call.most_output()
        return Quote(call.model, call.pool.dialect.name, cost, call.size, most)

    def sent(self, call: Noted, cost: Cost) -> None:
        """Everything is reserved, and an attempt begins."""
        now = self.clock()
        quote = self._quote(call, cost)
        with self.lock:
            if call.stage != WAITING:
                return
            self.spending.started(call.number, quote)
            self._leave(call)
            call.stage, call.planned, call.sent_at = FLYING, cost, now
            if not call.tries:
                call.dispatched_at = now
            call.tries += 1
            book = self.pools[call.pool]
            book.flying += 1
            self.flying += 1
            book.requests += 1
            tokens = book.charge(cost)
            book.tokens += tokens
            book.minute.add(now, 1, tokens, cost.input_tokens, cost.output_tokens)
            self._slice(now).sent += 1

    def perhaps_paid_again(self) -> None:
        """A call is sent that was in flight when an earlier run ended; said once, and counted."""
        with self.lock:
            self.perhaps_paid += 1
            first = self.perhaps_paid == 1
        if first:
            _log.warning(
                "perhaps_paid: calls that were in flight when an earlier run ended are sent again, and may be paid "
                "twice; status().perhaps_paid counts them",
                extra={"event": "perhaps_paid"},
            )

    def unsent(self, call: Noted) -> None:
        """What was about to be sent need not be, for now: it waits again."""
        now = self.clock()
        with self.lock:
            if call.stage != FLYING:
                return
            self.spending.failed(call.number, again=True)
            self._leave(call)
            call.tries -= 1
            self._unspend(call, now)
            self._enter(call, call.planned)
            self._slice(now).sent -= 1

    def _unspend(self, call: Noted, now: float) -> None:
        """Nothing was spent on the attempt: the limit has it again."""
        book, planned = self.pools[call.pool], call.planned
        tokens = book.charge(planned)
        book.requests -= 1
        book.tokens -= tokens
        book.minute.add(now, -1, -tokens, -planned.input_tokens, -planned.output_tokens)

    def back(self, call: Noted, kind: Kind) -> None:
        """An attempt failed, and the call waits for another; or for its end, which is told by `failed`."""
        now = self.clock()
        with self.lock:
            if call.stage != FLYING:
                return
            self.spending.failed(call.number, again=True, perhaps_paid=kind is Kind.DROPPED)
            self._leave(call)
            if kind is Kind.LIMITED:
                self._unspend(call, now)
                self.refused += 1
            else:
                self.retries += 1
            self._enter(call, call.planned)
            self._slice(now).refused += kind is Kind.LIMITED

    def gave_up(self, call: Noted, *, perhaps_paid: bool) -> None:
        """Its last attempt failed; its end is told by `failed`."""
        with self.lock:
            if call.stage == FLYING:
                self.spending.failed(call.number, again=True, perhaps_paid=perhaps_paid)
                self._leave(call)
                self._enter(call, call.planned)

    def answered(self, call: Noted, usage: Usage | None) -> None:
        """Its answer is there, in full."""
        now = self.clock()
        with self.lock:
            if call.stage == FLYING:
                self._answer(call, now)
                self._leave(call)
                self._use(call, usage, now)
                self._slice(now)

    def opened(self, call: Noted) -> None:
        """Its answer has begun, and is a stream."""
        now = self.clock()
        with self.lock:
            if call.stage == FLYING:
                self._answer(call, now)
                call.stage = STREAMING

    def _answer(self, call: Noted, now: float) -> None:
        self.answered_calls += 1
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

    def stream_ended(self, call: Noted, usage: Usage | None) -> None:
        """Its stream is over; may be called from a finalizer."""
        self._late.append((call, usage))

    def take_in(self) -> None:
        """Note the streams that have ended. Under the lock."""
        while self._late:
            call, usage = self._late.popleft()
            if call.stage == STREAMING:
                self._leave(call)
                self._use(call, usage, self.clock())

    def replayed(self, call: Noted) -> None:
        """It has ended: the journal had its answer."""
        with self.lock:
            if self._give_up(call):
                self.replayed_calls += 1
                self.spending.replayed()
                self._drop(call)

    def failed(self, call: Noted, error: BaseException) -> None:
        """It has ended, without an answer."""
        now = self.clock()
        with self.lock:
            if not self._give_up(call):
                return
            self.failed_calls += 1
            self._model(call).failed += 1
            text = _describe(error)
            if text in self.errors or len(self.errors) < MOST_ERRORS:
                self.errors[text] += 1
            self._slice(now).failed += 1
            self._drop(call)

    def cancelled(self, call: Noted) -> None:
        """Its caller does not want it any more."""
        with self.lock:
            if self._give_up(call):
                self.cancelled_calls += 1
                self._slice(self.clock())
                self._drop(call)

    def resolved(self, call: Noted) -> None:
        """Its future has its answer: whoever waits for all may go."""
        with self.lock:
            self._drop(call)

    def _leave(self, call: Noted) -> bool:
        """Take it out of where it is; False when it has left, or never came."""
        stage = call.stage
        if stage == ENDED:
            return False
        book = self.pools[call.pool]
        if stage == WAITING:
            book.wait(call.planned, -1)
            self.waiting -= 1
        else:
            book.flying -= 1
            self.flying -= 1
            if self._again is not None:
                again, self._again = self._again, None
                again()
        call.stage = ENDED
        return True

    def _drop(self, call: Noted) -> None:
        if call.counted:
            call.counted = False
            self.open -= 1
            if not self.open:
                self._changed.notify_all()

    def _use(self, call: Noted, usage: Usage | None, now: float) -> None:
        """Correct what it was charged to what it used."""
        self.spending.answered(call.number, usage)
        if usage is None:
            return
        book, planned, model = self.pools[call.pool], call.planned, self._model(call)
        model.input_tokens += usage.input_tokens
        model.output_tokens += usage.output_tokens
        book.input_tokens += usage.input_tokens
        book.output_tokens += usage.output_tokens
        more = 0 if book.pool.dialect.charge == "reserve" else usage.total_tokens - planned.expected
        book.tokens += more
        book.minute.add(
            now, 0, more, usage.input_tokens - planned.input_tokens, usage.output_tokens - planned.output_tokens
        )
        self._slice(now).tokens += usage.total_tokens

    def _model(self, call: Noted) -> ModelBook:
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
            book.waiting = book.flying = book.reserved = book.waiting_input = book.waiting_output = 0


def _after_fork_in_child() -> None:
    for ledger in list(_ledgers):
        ledger.after_fork()


_ledgers: weakref.WeakSet[Ledger] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _wake_panels() -> None:
    """Have the panels of a notebook that are shown go on."""
    notebook = sys.modules.get("ratelimited_llm.display.notebook")
    if notebook is not None:
        notebook.wake()


def _describe(error: BaseException) -> str:
    """Name a failure without its text, which may quote the prompt."""
    status, code = getattr(error, "status_code", None), getattr(error, "code", None)
    parts = [type(error).__name__]
    if isinstance(status, int):
        parts.append(str(status))
    if isinstance(code, str) and len(code) <= 40:
        parts.append(code)
    return " ".join(parts)
