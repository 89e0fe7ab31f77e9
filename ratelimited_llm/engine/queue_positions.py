"""Where a waiting call stands in the queue: counted for all of them at once, since a table shows many."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..core.limiter import Survey

if TYPE_CHECKING:
    from ..core.request import QueuedRequest
    from ..stores import Budget
    from .engine import Engine

__all__ = ["QueuePositions"]

FRESH = 0.5  # seconds that a count serves, so that ten thousand futures in a table are counted once
MOST_POOLS = 100
MOST = 100_000  # waiting calls that are still counted; beyond, a repr would take a noticeable time


class QueuePositions:
    """The order of a queue by priority and age, as of a moment ago."""

    __slots__ = ("_at", "_places", "_surveys")

    def __init__(self) -> None:
        self._at = float("-inf")
        self._places: dict[int, tuple[int, int]] = {}
        self._surveys: dict[Any, tuple[float, Survey]] = {}

    def of(self, engine: Engine, job: QueuedRequest) -> tuple[int, int, int] | None:
        """Its place, how many wait, and its place among those of its pool; 1 is next.

        Never blocks: None when it cannot be told now.
        """
        now = time.monotonic()
        if now - self._at > FRESH:
            self._count(engine, now)
        place = self._places.get(job.sequence)
        return None if place is None else (place[0], len(self._places), place[1])

    def survey(self, budget: Budget, pool: Any, now: float) -> Survey:
        """The limits of a pool, as old as the count at most."""
        known = self._surveys.get(pool)
        if known is None or now - known[0] > FRESH:
            if len(self._surveys) > MOST_POOLS:
                self._surveys.clear()
            known = self._surveys[pool] = now, budget.survey(pool, now)
        return known[1]

    def _count(self, engine: Engine, now: float) -> None:
        scheduler = engine.machine.scheduler
        if len(scheduler) > MOST or engine.core.locked():
            return
        with engine.core:  # not acquire(): a Ctrl-C right behind it would leave the lock taken
            waiting = sorted(scheduler, key=lambda job: (job.priority, job.sequence))
        engine.look_at_inbox()
        seen: Counter[Any] = Counter()
        places = {}
        for place, job in enumerate(waiting, 1):
            seen[job.pool] += 1
            places[job.sequence] = place, seen[job.pool]
        self._places = places
        self._at = now
