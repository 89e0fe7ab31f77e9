"""The driver in virtual time, as the worker thread is the one in real time: both drive the core's `Dispatcher`."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.dispatcher import Dispatcher, Impossible, Send, Wait
from ..core.feedback import ANSWERED, Feedback, Kind, Outcome, Reading
from ..core.limiter import Limiter
from ..core.queue_caps import QueueCaps
from ..core.request import Cost, Priority, QueuedRequest, State, Usage
from ..core.retry import RetryBudget, RetryPolicy
from ..core.scheduler import Scheduler
from ..stores.memory import MemoryBudget
from .traffic import Call, Run

__all__ = ["Simulation"]


@dataclass(frozen=True)
class _Pool:
    """A pool of a simulated run, which makes its limiter as it was told to."""

    name: str
    make: Callable[[], Limiter] = field(compare=False)

    def limiter(self) -> Limiter:
        return self.make()


class Simulation:
    """One run: a heap of things that will happen, and the machine that they happen to."""

    def __init__(
        self,
        calls: list[Call],
        make: Callable[[], Limiter],
        provider: Any,
        tells: str,
        latency: tuple[float, float],
        network: tuple[float, float],
        seed: int,
        scheduler: Scheduler | None,
        policy: RetryPolicy,
        bounds: QueueCaps | None,
        faults: Callable[[float, QueuedRequest, float], Outcome | None] | None,
    ) -> None:
        self.calls = calls
        self.make = make
        self.provider = provider
        self.providers: dict[str, Any] = {}
        self.tells = tells
        self.latency = latency
        self.network = network
        self.random = random.Random(seed)
        self.machine = Dispatcher(
            Scheduler() if scheduler is None else scheduler, MemoryBudget(), retries=RetryBudget()
        )
        self.policy = policy
        self.bounds = bounds or QueueCaps()
        self.faults = faults
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.order = itertools.count()
        self.requests: list[QueuedRequest | None] = [None] * len(calls)
        nan = [math.nan] * len(calls)
        self.result = Run(list(nan), list(nan), [State.FAILED] * len(calls), [0] * len(calls))

    def at(self, moment: float, action: Callable[[float], None]) -> None:
        heapq.heappush(self.events, (moment, next(self.order), action))

    def run(self, until: float, events: Sequence[tuple[float, Callable[[Any, float], None]]]) -> Run:
        for moment, change in events:
            self.at(moment, lambda now, change=change: change(self._provider("model"), now))  # type: ignore[misc]
        for index, each in enumerate(self.calls):
            self.at(each.at, lambda now, index=index: self._submit(index, now))  # type: ignore[misc]
        while self.events and self.events[0][0] <= until:
            self.advance()
        return self.close()

    def advance(self) -> None:
        """Have everything happen that happens next."""
        now = self.events[0][0]
        while self.events and self.events[0][0] <= now:
            heapq.heappop(self.events)[2](now)
        self._step(now)

    def close(self) -> Run:
        """Fill in the final states and attempts, and answer the run."""
        for index, request in enumerate(self.requests):
            if request is not None:
                self.result.states[index] = request.state
                self.result.attempts[index] = request.attempts + request.refusals + (request.state is State.DONE)
        return self.result

    def _submit(self, index: int, now: float) -> None:
        given = self.calls[index]
        if self.bounds.enter(index, given.tenant) is not None:
            return
        most = given.output if given.max_tokens is None else given.max_tokens
        expected = given.prompt + given.output
        cost = Cost(given.prompt + most, expected, given.prompt, given.output)
        request = QueuedRequest(
            index,
            _Pool(given.pool, self.make),
            cost,
            priority=Priority.parse(given.priority),
            tenant=given.tenant,
            submitted_at=now,
            expires_at=None if given.deadline is None else now + given.deadline,
        )
        self.requests[index] = request
        self.machine.submit(request)
        if given.cancel_at is not None:
            self.at(max(now, given.cancel_at), lambda moment: self._cancel(request, moment))

    def _cancel(self, request: QueuedRequest, now: float) -> None:
        if self.machine.cancel(request):
            self.bounds.leave(request.sequence, request.tenant)

    def _step(self, now: float) -> None:
        for request in self.machine.expired(now):
            self.bounds.leave(request.sequence, request.tenant)
        while True:
            found = self.machine.next(now)
            if isinstance(found, Wait):
                if found.until < math.inf:
                    self.at(found.until, lambda now: None)
                return
            if isinstance(found, Impossible):
                self.bounds.leave(found.request.sequence, found.request.tenant)
                continue
            assert isinstance(found, Send)
            self._send(found.request, now)

    def _send(self, request: QueuedRequest, now: float) -> None:
        index = request.sequence
        if math.isnan(self.result.started_at[index]):
            self.result.started_at[index] = now
            self.bounds.leave(request.sequence, request.tenant)
        self.result.sends.append((now, index))
        self.at(now + self._trip(), lambda moment: self._arrive(request, moment))

    def _trip(self) -> float:
        fixed, share = self.network
        return fixed + (self.random.expovariate(1.0 / share) if share else 0.0)

    def _provider(self, pool: str) -> Any:
        if pool not in self.providers:
            made = self.provider
            self.providers[pool] = made(pool) if callable(made) else made
        return self.providers[pool]

    def _arrive(self, request: QueuedRequest, now: float) -> None:
        given = self.calls[request.sequence]
        fault = self.faults(now, request, self.random.random()) if self.faults is not None else None
        if fault is not None:
            back = now + self._trip()
            self.at(back, lambda moment: self._failed(request, Feedback(fault), moment))
            return
        provider = self._provider(given.pool)
        ticket = None
        readings: tuple[Reading, ...] = ()
        if provider is not None:
            reserved = request.cost.reserved
            verdict = provider.admit(now, reserved=reserved, input_tokens=given.prompt)
            if not verdict.admitted:
                self.result.refused += 1
                refusal = Feedback(self._refusal(verdict), self._readings(provider, now))
                self.at(now + self._trip(), lambda moment: self._failed(request, refusal, moment))
                return
            ticket = verdict.ticket
            readings = self._readings(provider, now)
        lasts = given.latency if given.latency is not None else self.random.uniform(*self.latency)
        self.at(now + lasts, lambda moment: self._answer(request, provider, ticket, readings, moment))

    def _answer(
        self, request: QueuedRequest, provider: Any, ticket: Any, readings: tuple[Reading, ...], now: float
    ) -> None:
        given = self.calls[request.sequence]
        if ticket is not None:
            provider.settle(ticket, now, input_tokens=given.prompt, output_tokens=given.output)
        usage = Usage(given.prompt, given.output)
        answer = Feedback(ANSWERED, readings, usage)
        self.at(now + self._trip(), lambda moment: self._answered(request, answer, moment))

    def _answered(self, request: QueuedRequest, answer: Feedback, now: float) -> None:
        self.machine.answered(request, answer, now)
        self.machine.finished(request, answer.usage, now)
        self.result.finished_at[request.sequence] = self.result.ended_at = now

    def _failed(self, request: QueuedRequest, feedback: Feedback, now: float) -> None:
        if not self.machine.failed(request, feedback, now, self.policy, self.random.random()):
            self.result.finished_at[request.sequence] = self.result.ended_at = now

    def _refusal(self, verdict: Any) -> Outcome:
        kind = Kind.TOO_LARGE if verdict.too_large else Kind.LIMITED
        wait = verdict.retry_after
        if self.tells in ("nothing", "headers"):
            return Outcome(kind, status=429)
        if self.tells in ("seconds", "wait"):
            whole = None if wait is None else float(math.ceil(wait)) if self.tells == "seconds" else wait
            return Outcome(kind, retry_after=whole, status=429)
        return Outcome(kind, wait, verdict.dimension, verdict.limit, verdict.used, verdict.requested, 429)

    def _readings(self, provider: Any, now: float) -> tuple[Reading, ...]:
        if self.tells not in ("everything", "headers"):
            return ()
        return tuple(Reading(name, *numbers) for name, numbers in provider.reading(now).items())
