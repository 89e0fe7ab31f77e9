"""Where a waiting call stands in the queue: counted for all of them at once, since a table shows many."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .core.request import QueuedRequest
    from .engine import Engine

__all__ = ["Places"]

FRESH = 0.5  # seconds that a count serves, so that ten thousand futures in a table are counted once
MOST = 100_000  # waiting calls that are still counted; beyond, a repr would take a noticeable time


class Places:
    """The order of a queue by priority and age, as of a moment ago."""

    __slots__ = ("_at", "_places")

    def __init__(self) -> None:
        self._at = float("-inf")
        self._places: dict[int, int] = {}

    def status(self, engine: Engine, job: QueuedRequest) -> str:
        """Say "queued 812/1990", or just "queued" where that cannot be told without waiting. Never blocks."""
        now = time.monotonic()
        if now - self._at > FRESH:
            self._count(engine, now)
        place = self._places.get(job.sequence)
        return "queued" if place is None else f"queued {place}/{len(self._places)}"

    def _count(self, engine: Engine, now: float) -> None:
        scheduler = engine.machine.scheduler
        if len(scheduler) > MOST or engine.core.locked():
            return
        with engine.core:  # not acquire(): a Ctrl-C right behind it would leave the lock taken
            waiting = sorted((job.priority, job.sequence) for job in scheduler)
        engine.look_at_inbox()
        self._places = {sequence: place for place, (_, sequence) in enumerate(waiting, 1)}
        self._at = now
