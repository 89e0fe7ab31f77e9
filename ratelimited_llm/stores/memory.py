"""The budget of one process: a limiter for each pool."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from ..core.feedback import Feedback, Kind
from ..core.limiter import Limiter, Survey
from ..core.request import Cost, Usage
from . import LimitedPool

__all__ = ["MemoryBudget"]

NOTHING_KNOWN = Survey()
LONG = 1.0  # seconds; who was told to wait longer hears of it when another worker's call may have made it shorter
MOST_POOLS = 4_096  # beyond that, pools with nothing in flight are forgotten, the oldest first


class Listener(Protocol):
    """A driver that may be told to wait for a call which another driver has sent."""

    @property
    def waiting(self) -> int:
        """Calls that wait in this driver, of any pool."""

    def freed(self, pool: LimitedPool) -> None:
        """A call of this pool has ended, which may have shortened a wait. Must not block, nor call back."""

    def cancel_queued(self, which: Callable[[Any], bool]) -> int:
        """Cancel every waiting call that `which` accepts; answers how many. Called without a lock of the budget's."""


class MemoryBudget:
    """Keeps every pool's limits in memory; see `Budget` for what each method promises.

    Thread-safe, since several workers of one process may share it.
    """

    def __init__(self) -> None:
        self._limiters: dict[LimitedPool, Limiter] = {}
        self._lock = threading.RLock()  # a finalizer may run inside
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._full: set[LimitedPool] = set()  # pools of which somebody waits for a call to end, or long

    def listen(self, listener: Listener) -> None:
        """Tell this driver, as long as it lives, when a call ends that it may wait for and that another has sent."""
        with self._lock:
            self._listeners.add(listener)

    def reserve(self, pool: LimitedPool, key: int, cost: Cost, now: float, *, urgent: bool = False) -> float:
        with self._lock:
            limiter = self._limiters.get(pool)
            if limiter is None:
                self._make_room()
                limiter = self._limiters[pool] = self._new_limiter(pool, now)
            wait = limiter.reserve(key, cost, now, urgent=urgent)
            self._note(pool, wait)
            return wait

    def _note(self, pool: LimitedPool, wait: float) -> None:
        """Remember who has to hear of the next end of a call: what its answer tells is told to its own worker only."""
        if wait > LONG and len(self._listeners) > 1:
            self._full.add(pool)

    def _new_limiter(self, pool: LimitedPool, now: float) -> Limiter:
        return pool.limiter()

    def observe(self, pool: LimitedPool, key: int, feedback: Feedback, now: float) -> None:
        with self._lock:
            limiter = self._limiters.get(pool)
            if limiter is not None:
                limiter.observe(key, feedback, now)

    def settle(self, pool: LimitedPool, key: int, usage: Usage | None, now: float, kind: Kind = Kind.OK) -> None:
        with self._lock:
            limiter = self._limiters.get(pool)
            if limiter is not None:
                limiter.settle(key, usage, now, kind)
            if pool not in self._full:
                return
            self._full.discard(pool)
            listeners = list(self._listeners)
        for each in listeners:
            each.freed(pool)

    def survey(self, pool: LimitedPool, now: float) -> Survey:
        with self._lock:
            limiter = self._limiters.get(pool)
            return NOTHING_KNOWN if limiter is None else limiter.survey(now)

    def clear(self) -> None:
        """Forget everything that was spent and learned."""
        with self._lock:
            self._limiters.clear()
            self._full.clear()

    def after_fork(self) -> None:
        # A thread that is not there may have held it.
        self._lock = threading.RLock()

    def _make_room(self) -> None:
        if len(self._limiters) >= MOST_POOLS:
            idle = [pool for pool, limiter in self._limiters.items() if not limiter.in_flight]
            for pool in idle[: MOST_POOLS // 4]:
                del self._limiters[pool]
