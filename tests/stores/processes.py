"""Several processes in virtual time, each with its own queue and limiter, on one pure store and one provider."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from pure_store import PureStore

from ratelimited_llm.core.feedback import Feedback, Kind
from ratelimited_llm.core.limiter import Limiter, Survey
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.core.request import Cost, Usage
from ratelimited_llm.core.retry import RetryPolicy
from ratelimited_llm.core.shared_pool import Asked, SharedPool
from ratelimited_llm.testing import Call, Run, VirtualClock
from ratelimited_llm.testing.simulation import Simulation

SOON = 0.05


class OneProcess:
    """The budget of one process: what `SharedBudget` does, with events of the simulation in the place of a thread."""

    def __init__(self, store: PureStore, member: str) -> None:
        self.store = store
        self.member = member
        self.number = itertools.count(1).__next__
        self.parts: dict[Any, SharedPool] = {}
        self.at: Any = None  # schedules an event of the simulation
        self.freed: Any = None  # has a pool looked at again
        self.reserved = self.trips = 0

    def reserve(self, pool: Any, key: int, cost: Cost, now: float, *, urgent: bool = False) -> float:
        part = self.parts.get(pool)
        if part is None:
            part = self.parts[pool] = SharedPool(pool.limiter(), self.member, self.number, now)
        wait = part.ask(key, cost, now, urgent=urgent)
        while isinstance(wait, Asked):
            asked, self.trips = wait, self.trips + 1
            wait = part.answered(asked, self.store.book(pool.name, asked.order), now)
            if not asked.for_call:
                wait = part.ask(key, cost, now, urgent=urgent)
        self.reserved += wait == 0.0
        if part.booked:
            self.at(part.stale_at(), lambda moment: self.flush(pool, moment))
        return wait

    def flush(self, pool: Any, now: float) -> None:
        part = self.parts[pool]
        part.give_back(now)
        asked = part.flush(now)
        if asked is not None:
            part.answered(asked, self.store.book(pool.name, asked.order), now)
            if part.sooner:
                part.sooner = False
                self.freed(pool)

    def observe(self, pool: Any, key: int, feedback: Feedback, now: float) -> None:
        self.parts[pool].observe(key, feedback, now)
        self._owing(pool, now)

    def settle(self, pool: Any, key: int, usage: Usage | None, now: float, kind: Kind = Kind.OK) -> None:
        self.parts[pool].settle(key, usage, now, kind)
        self._owing(pool, now)

    def _owing(self, pool: Any, now: float) -> None:
        part = self.parts[pool]
        if part.owes:
            self.at(now if part.in_a_hurry else now + SOON, lambda moment: self.flush(pool, moment))

    def after_fork(self) -> None: ...

    def survey(self, pool: Any, now: float) -> Survey:
        return self.parts[pool].survey(now)


def together(
    limits: RateLimits,
    traffic: Sequence[Sequence[Call]],
    *,
    provider: Any,
    until: float,
    charge: str | None = "reserve",
    learn: bool = True,
    ramp: bool = True,
    tells: str = "everything",
    latency: tuple[float, float] = (1.0, 1.0),
    network: tuple[float, float] = (0.02, 0.02),
    events: Sequence[tuple[float, Any]] = (),
) -> tuple[list[Run], list[OneProcess], PureStore]:
    """Run one process for each list of calls, until that moment."""
    clock = VirtualClock()
    store = PureStore(clock)

    def make() -> Limiter:
        return Limiter(limits, charge=charge, learn=learn, ramp=ramp)

    simulations, processes = [], []
    for number, calls in enumerate(traffic):
        each = Simulation(
            list(calls), make, provider, tells, latency, network, number, None, RetryPolicy(), None, None
        )  # fmt: skip
        process = OneProcess(store, f"process {number}")
        process.at, process.freed = each.at, each.machine.scheduler.release
        each.machine.budget = process
        for index, one in enumerate(each.calls):
            each.at(one.at, lambda now, each=each, index=index: each._submit(index, now))  # type: ignore[misc]
        simulations.append(each)
        processes.append(process)
    for moment, change in events:
        simulations[0].at(moment, lambda now, change=change: change(provider, now))  # type: ignore[misc]
    while True:
        next_one = min(simulations, key=lambda each: each.events[0][0] if each.events else math.inf)
        if not next_one.events or next_one.events[0][0] > until:
            break
        clock.now = max(clock.now, next_one.events[0][0])
        next_one.advance()
    for each in simulations:
        each.close()
    return [each.result for each in simulations], processes, store
