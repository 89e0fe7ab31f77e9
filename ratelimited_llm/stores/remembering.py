"""The budget of one process that remembers, for the next script, what it has learned of limits (`budget="auto"`)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from ..core.feedback import Feedback
from ..core.limiter import Limiter
from ..core.limits import PERIODS
from ..core.request import Cost
from ..exceptions import BudgetExceeded
from . import LimitedPool
from .memory import MemoryBudget

__all__ = ["RememberingBudget"]

_log = logging.getLogger("ratelimited_llm")
ASK_AGAIN = 0.25  # seconds, while answers are on their way that will tell whether a limit is still what it was


class Memory(Protocol):
    """A store that remembers limits (units per period by dimension) for pools by name."""

    def remember(self, pool: str, limits: Mapping[str, float]) -> None: ...

    def recall(self, pool: str) -> dict[str, float]: ...

    def close(self) -> None: ...


def _usual() -> Memory:
    from .sqlite_store import SqliteStore

    return SqliteStore()


class RememberingBudget(MemoryBudget):
    """Keeps limits in memory, begins with those that earlier scripts have learned, and keeps what this one learns.

    A file that cannot be opened or read is no trouble: everything is learned anew then.

    Args:
        open_memory: makes the store; called at the first reservation.
    """

    def __init__(self, open_memory: Callable[[], Memory] = _usual) -> None:
        super().__init__()
        self._open = open_memory
        self._memory: Memory | None = None
        self._failed = False
        self._recalled: set[LimitedPool] = set()  # pools of which no answer has told anything yet
        self._asking = threading.RLock()

    def reserve(self, pool: LimitedPool, key: int, cost: Cost, now: float, *, urgent: bool = False) -> float:
        try:
            return super().reserve(pool, key, cost, now, urgent=urgent)
        except BudgetExceeded:
            if pool not in self._recalled:
                raise
        with self._lock:  # a limit that was remembered is no reason to refuse a call: it may have grown
            if self._limiters[pool].in_flight:
                return ASK_AGAIN
            self._recalled.discard(pool)
            self._limiters[pool] = pool.limiter()
        return super().reserve(pool, key, cost, now, urgent=urgent)

    def _new_limiter(self, pool: LimitedPool, now: float) -> Limiter:
        limiter = super()._new_limiter(pool, now)
        name = getattr(pool, "shared_name", None)
        if name is not None and limiter.learn:
            limits: dict[str, float] = self._ask(lambda memory: memory.recall(name)) or {}
            for dimension, limit in limits.items():
                if dimension in PERIODS:
                    limiter.tell(dimension, limit, now)
                    self._recalled.add(pool)
        return limiter

    def observe(self, pool: LimitedPool, key: int, feedback: Feedback, now: float) -> None:
        super().observe(pool, key, feedback, now)
        with self._lock:
            limiter = self._limiters.get(pool)
            heard = set() if limiter is None else limiter.news()[0]
            name = getattr(pool, "shared_name", None)
            if not heard or limiter is None or name is None:
                return
            self._recalled.discard(pool)
            limits = {each: limiter.told(each) for each in heard}
        self._ask(lambda memory: memory.remember(name, {each: limit for each, limit in limits.items() if limit}))

    def _ask(self, what: Callable[[Memory], Any]) -> Any:
        with self._asking:
            if self._failed:
                return None
            try:
                if self._memory is None:
                    self._memory = self._open()
                return what(self._memory)
            except Exception as error:
                self._failed = True
                _log.debug("limits are not remembered: %s", error, extra={"event": "budget_memory_failed"})
                return None

    def clear(self) -> None:
        with self._lock:
            super().clear()
            self._recalled.clear()

    def close(self) -> None:
        """Let go of the file; it is opened again when it is needed."""
        with self._asking:
            memory, self._memory, self._failed = self._memory, None, False
        if memory is not None:
            with suppress(Exception):
                memory.close()

    def after_fork(self) -> None:
        super().after_fork()
        self._asking = threading.RLock()
        self._memory = None
