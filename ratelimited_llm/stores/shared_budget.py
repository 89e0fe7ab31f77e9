"""The budget of several processes: what is left is counted in a shared store, everything else here.

What a pool asks of the store, and what it makes of the answers, is in `core.shared_pool`; this file has the locks and
the round trips, `shared_upkeep` the thread that looks after what no call does.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..core.feedback import Feedback, Kind
from ..core.limiter import Survey
from ..core.request import Cost, Usage
from ..core.shared_pool import Asked, SharedPool
from ..exceptions import SharedStoreLost
from . import LimitedPool
from .memory import MOST_POOLS, NOTHING_KNOWN, MemoryBudget
from .shared_link import Link
from .shared_store import SharedStore
from .shared_upkeep import Upkeep

__all__ = ["SharedBudget"]

ON_LOST = ("local", "raise")
AGAIN = 0.01  # seconds after which a finalizer that came in between may ask
SOON = 0.05  # seconds that a correction waits for an order that takes it along


class SharedBudget(MemoryBudget):
    """Shares the limits of every pool that has a `shared_name` with other processes; see `Budget` for the promises.

    A reservation costs one round trip to the store, which blocks no longer than the store's own timeouts (well below a
    second), and none where this process itself says wait. Thread-safe; several workers of one process may share it.

    Args:
        open_store: makes the store; called at the first reservation, not here.
        on_lost: without the store, "local" goes on with this process's part of every known limit, as many as shared it
            last, and one when it was never reached; "raise" fails the calls with SharedStoreLost.
        at_least: how many share it at least, as the user says: without the store, no part is larger than one of these.
        clock: monotonic seconds, the same as the drivers'.
    """

    def __init__(
        self,
        open_store: Callable[[], SharedStore],
        *,
        on_lost: str = "local",
        at_least: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if on_lost not in ON_LOST:
            raise ValueError(f'on_budget_lost must be "local" or "raise", not {on_lost!r}')
        super().__init__()
        self._raises = on_lost == "raise"
        self._clock = clock
        self._number = itertools.count(1).__next__
        self._pools: dict[LimitedPool, tuple[str, SharedPool]] = {}
        self._ordering = threading.RLock()  # one order at a time: the store answers a repeated one by its number
        self._inside = False
        self._link = Link(open_store, at_least)
        self._upkeep = Upkeep(self, self._link)

    def facts_from(self, facts: Callable[[SharedBudget], Mapping[str, Any]]) -> None:
        """Report what this function answers (see `shared_store.Member`); called on a thread of the budget's own."""
        self._upkeep.facts = facts

    # -- the seam -----------------------------------------------------------------------------------------------------

    def reserve(self, pool: LimitedPool, key: int, cost: Cost, now: float, *, urgent: bool = False) -> float:
        name = getattr(pool, "shared_name", None)
        if name is None:
            return super().reserve(pool, key, cost, now, urgent=urgent)
        with self._ordering:
            if self._inside:
                return AGAIN  # a finalizer of this very thread, in the middle of an order
            try:
                self._inside = True
                return self._reserve(pool, name, key, cost, now, urgent)
            finally:
                self._inside = False

    def _reserve(self, pool: LimitedPool, name: str, key: int, cost: Cost, now: float, urgent: bool) -> float:
        with self._lock:
            part = self._part(pool, name, now)
            self._upkeep.used(now)
            if self._link.lost and self._raises:
                raise SharedStoreLost("the shared budget is lost, and on_budget_lost is 'raise': nothing is sent")
            if self._link.lost and not part.lost:
                now = max(now, self._clock())
                part.lose(self._link.sharers, now)
            asked = part.ask(key, cost, now, urgent=urgent)
        while isinstance(asked, Asked):
            asked = self._order(part, name, asked, key, cost, now, urgent)
        with self._lock:
            if part.booked:
                self._upkeep.look_at(pool, part.stale_at(), now)
            self._note(pool, asked)
            return asked

    def _order(
        self, part: SharedPool, name: str, asked: Asked, key: int, cost: Cost, now: float, urgent: bool
    ) -> float | Asked:
        """Take an order to the store; answers what `reserve` does, or another order."""
        try:
            answer = self._link.book(name, asked.order, now)
        except SharedStoreLost:
            at = max(now, self._clock())  # it took a while to find out, in which nothing is given to anybody
            self.lose(at)
            if self._raises:
                raise
            with self._lock:
                wait = part.ask(key, cost, at, urgent=urgent)
            return wait if isinstance(wait, Asked) or wait == 0.0 else wait + at - now
        at = max(now, self._clock())  # the answer is about the moment at which it was given, no earlier
        with self._lock:
            if self._link.news != answer.news:
                self._link.news = answer.news
                self._upkeep.hurry()
            wait = part.answered(asked, answer, at)
            if not asked.for_call:
                return part.ask(key, cost, now, urgent=urgent)
            return wait if wait == 0.0 else wait + at - now

    def _part(self, pool: LimitedPool, name: str, now: float) -> SharedPool:
        found = self._pools.get(pool)
        if found is None:
            self._forget_pools()
            part = SharedPool(pool.limiter(), self._link.member, self._number, now)
            if self._link.lost:
                part.lose(self._link.sharers, now)
            found = self._pools[pool] = name, part
        return found[1]

    def observe(self, pool: LimitedPool, key: int, feedback: Feedback, now: float) -> None:
        with self._lock:
            found = self._pools.get(pool)
            if found is None:
                super().observe(pool, key, feedback, now)
                return
            found[1].observe(key, feedback, now)
            self._owing(pool, found[1], now)

    def settle(self, pool: LimitedPool, key: int, usage: Usage | None, now: float, kind: Kind = Kind.OK) -> None:
        with self._lock:
            found = self._pools.get(pool)
            if found is not None:
                found[1].settle(key, usage, now, kind)
                self._owing(pool, found[1], now)
        super().settle(pool, key, usage, now, kind)  # tells who waits for an end

    def _owing(self, pool: LimitedPool, part: SharedPool, now: float) -> None:
        if part.owes:
            self._upkeep.look_at(pool, now if part.in_a_hurry else now + SOON, now)

    def survey(self, pool: LimitedPool, now: float) -> Survey:
        with self._lock:
            found = self._pools.get(pool)
            if found is not None:
                return found[1].survey(now)
            return NOTHING_KNOWN if getattr(pool, "shared_name", None) else super().survey(pool, now)

    # -- what the thread that looks after it does ---------------------------------------------------------------------

    def flush(self, pool: LimitedPool, now: float) -> None:
        """Give back what nobody uses, and tell the store what is owed; answers nothing, and does nothing when lost."""
        with self._ordering:
            with self._lock:
                found = self._pools.get(pool)
                if found is None or self._link.lost:
                    return
                name, part = found
                part.give_back(now)
                asked = part.flush(now)
                if part.booked:
                    self._upkeep.look_at(pool, part.stale_at(), now)
            if asked is None:
                return
            try:
                answer = self._link.book(name, asked.order, now)
            except SharedStoreLost:
                self.lose(max(now, self._clock()))
                return
            with self._lock:
                part.answered(asked, answer, max(now, self._clock()))
                sooner, part.sooner = part.sooner, False
        if sooner:
            self._tell(pool)

    def lose(self, now: float) -> None:
        """The store was found to be gone: every pool goes on by itself."""
        with self._lock:
            for _, part in self._pools.values():
                if not part.lost:
                    part.lose(self._link.sharers, now)
            self._upkeep.hurry()
        for pool in self.pools():
            self._tell(pool)

    def regain(self, now: float) -> None:
        """The store was found to be there again."""
        with self._ordering, self._lock:
            lost = [(pool, part) for pool, (_, part) in self._pools.items() if part.lost]
            for pool, part in lost:
                part.regain(now)
                self._upkeep.look_at(pool, now, now)
        for pool, _ in lost:
            self._tell(pool)

    def _tell(self, pool: LimitedPool) -> None:
        """What waits has to wait for something else now."""
        with self._lock:
            listeners = list(self._listeners)
        for each in listeners:
            each.freed(pool)

    def pools(self) -> list[LimitedPool]:
        """Every pool that this process shares with others."""
        with self._lock:
            return list(self._pools)

    @property
    def lost(self) -> bool:
        """Whether the store cannot be reached, so that this process keeps to its own part of the limits."""
        return self._link.lost

    def waiting(self) -> int:
        """Calls that wait in the queues that spend it."""
        return sum(each.waiting for each in list(self._listeners))

    def in_flight(self) -> int:
        """Calls that are reserved and not settled, of the pools that are shared."""
        with self._lock:
            return sum(part.limiter.in_flight for _, part in self._pools.values())

    # -- the end, and new beginnings ----------------------------------------------------------------------------------

    def clear(self) -> None:
        with self._ordering:
            super().clear()
            with self._lock:
                self._pools.clear()

    def close(self) -> None:
        """Tell what is owed, and leave the store; the next reservation begins anew.

        Blocks no longer than three of the store's timeouts. May be called more than once.
        """
        self._upkeep.stop()
        now = self._clock()
        with self._ordering:
            for pool in self.pools():
                self.flush(pool, now)
            self._link.end()

    def after_fork(self) -> None:
        super().after_fork()
        self._ordering = threading.RLock()
        self._inside = False
        self._link.after_fork()
        for _, part in self._pools.values():
            part.member = self._link.member
            part.forget_debts()
        self._upkeep.after_fork()

    def _forget_pools(self) -> None:
        if len(self._pools) >= MOST_POOLS:
            idle = [pool for pool, (_, part) in self._pools.items() if not part.limiter.in_flight and not part.owes]
            for pool in idle[: MOST_POOLS // 4]:
                del self._pools[pool]
