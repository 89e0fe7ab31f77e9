"""The budget of one process: a limiter for each pool."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.feedback import Feedback, Kind
from ..core.limiter import Limiter, Standing
from ..core.request import Cost, Usage
from . import LimitedPool

__all__ = ["MemoryBudget"]


class MemoryBudget:
    """Keeps every pool's limits in memory; see `Budget` for what each method promises."""

    def __init__(self) -> None:
        self._limiters: dict[LimitedPool, Limiter] = {}

    def reserve(self, pool: LimitedPool, key: int, cost: Cost, now: float, *, urgent: bool = False) -> float:
        limiter = self._limiters.get(pool)
        if limiter is None:
            limiter = self._limiters[pool] = pool.limiter()
        return limiter.reserve(key, cost, now, urgent=urgent)

    def observe(self, pool: LimitedPool, key: int, feedback: Feedback, now: float) -> None:
        limiter = self._limiters.get(pool)
        if limiter is not None:
            limiter.observe(key, feedback, now)

    def settle(self, pool: LimitedPool, key: int, usage: Usage | None, now: float, kind: Kind = Kind.OK) -> None:
        limiter = self._limiters.get(pool)
        if limiter is not None:
            limiter.settle(key, usage, now, kind)

    def standings(self, pool: LimitedPool, now: float) -> Iterable[Standing]:
        limiter = self._limiters.get(pool)
        return () if limiter is None else limiter.standings(now)
