"""A shared store in this process's memory, on a clock that the test turns: what servers and files do, without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ratelimited_llm.core.booking import Answer, Order, Shared
from ratelimited_llm.core.booking_pool import Wishes, book, look
from ratelimited_llm.exceptions import SharedStoreLost
from ratelimited_llm.stores.shared_store import Control, Member, PoolFacts


@dataclass
class Lines:
    """What is kept of one pool."""

    state: dict[str, str] = field(default_factory=dict)
    orders: dict[str, str] = field(default_factory=dict)


class PureStore:
    """Keeps the promises of `SharedStore`; counts what it is asked, and can be gone.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.kept: dict[str, Lines] = {}
        self.wishes = Control()
        self.booked = self.reports = 0
        self.left: list[str] = []
        self.closed = self.forks = 0
        self.gone = False
        self.orders: list[tuple[str, Order]] = []

    def book(self, pool: str, order: Order) -> Answer:
        self._reach()
        self.booked += 1
        self.orders.append((pool, order))
        kept = self.kept.setdefault(pool, Lines())
        return book(kept.state, kept.orders, order, self.clock(), self._wishes())

    def _wishes(self) -> Wishes:
        return Wishes(self.wishes.news, self.wishes.paused, self.wishes.limits)

    def shared(self, pool: str, dimension: str) -> Shared:
        """One limit at present."""
        shared = look(self.kept[pool].state, self.clock(), self._wishes())[1]
        return next(each for each in shared if each.dimension == dimension)

    def report(self, member: str, facts: Mapping[str, Any]) -> Control:
        self._reach()
        self.reports += 1
        return self.wishes

    def leave(self, member: str) -> None:
        self._reach()
        self.left.append(member)
        for pool in self.kept.values():
            pool.orders.pop(member, None)

    def members(self) -> list[Member]:
        return []

    def pools(self) -> list[PoolFacts]:
        return []

    def control(
        self, *, paused: bool | None = None, limits: Mapping[str, float | None] | None = None, cancel: str | None = None
    ) -> Control:
        wishes, news = self.wishes, self.wishes.news + 1
        if paused is not None:
            wishes = replace(wishes, paused=paused)
        if cancel is not None:
            wishes = replace(wishes, cancelled=(*wishes.cancelled, (cancel, self.clock(), news)))
        self.wishes = replace(wishes, news=news)
        return self.wishes

    def after_fork(self) -> None:
        self.forks += 1

    def close(self) -> None:
        self.closed += 1

    def _reach(self) -> None:
        if self.gone:
            raise SharedStoreLost("no answer from the store")
