"""Whose limits a call spends, and which worker queues it: shared by all clients of the process that mean the same.

Scripts make clients carelessly, even one for each call. So what counts is not the client: calls with the same
provider, base URL, key and configured limits share one set of limits per model, and clients with the same queue
settings share one worker. The memory of the limits outlives both.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from dataclasses import dataclass, field
from functools import lru_cache

from .core.estimate import TokenEstimator
from .core.limiter import Limiter
from .core.limits import RateLimits
from .core.sizes import SizeClasses
from .news import News
from .providers import Dialect
from .stores.memory import MemoryBudget
from .worker import RateLimitedWorker

__all__ = ["Account", "CallPool", "QueueSettings", "account_for", "forget", "worker_for"]

_lock = threading.Lock()
_budget = MemoryBudget()
_workers: weakref.WeakValueDictionary[QueueSettings, RateLimitedWorker] = weakref.WeakValueDictionary()


def _after_fork_in_child() -> None:
    # Threads that are not there may have held these.
    global _lock
    _lock = threading.Lock()
    _budget.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


@dataclass(frozen=True)
class CallPool:
    """One set of limits: an account's, for one model family. Its repr names no key."""

    provider: str
    base_url: str
    key_digest: str = field(repr=False)
    limits: RateLimits
    family: str
    dialect: Dialect = field(repr=False, compare=False)

    def limiter(self) -> Limiter:
        return Limiter(
            self.limits,
            charge=self.dialect.charge,
            smoothing=self.dialect.request_smoothing,
        )

    def __hash__(self) -> int:  # the generated one would hash every limit at every look-up
        return hash((self.base_url, self.key_digest, self.family))


class Account:
    """A provider, a base URL, a key and the limits given for them: makes the pools, and learns what tokens cost."""

    def __init__(self, provider: str, base_url: str, digest: str, limits: RateLimits, dialect: Dialect) -> None:
        self.provider = provider
        self.base_url = base_url
        self.limits = limits
        self.dialect = dialect
        self.estimator = TokenEstimator()
        self.news = News(base_url)
        self._digest = digest
        self._pools: dict[str, CallPool] = {}

    def pool(self, model: str) -> CallPool:
        """The pool of a model; thread-safe, since two that were made at once are equal."""
        pool = self._pools.get(model)
        if pool is None:
            family = self.dialect.family(model)
            pool = CallPool(self.provider, self.base_url, self._digest, self.limits, family, self.dialect)
            if len(self._pools) > 1_000:  # names that somebody makes up
                self._pools.clear()
            self._pools[model] = pool
        return pool


@lru_cache(maxsize=1024)
def account_for(provider: str, base_url: str, key: str, limits: RateLimits, dialect: Dialect) -> Account:
    """The account of a key at a base URL; the same object for the same arguments. The key itself is not kept in it."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Account(provider, base_url, digest, limits, dialect)


@dataclass(frozen=True, kw_only=True)
class QueueSettings:
    """What makes two clients share a queue, or not."""

    max_queue: int | None = None
    max_queue_per_tenant: int | None = None
    on_full: str = "block"
    ageing: float | None = None
    weights: tuple[tuple[str, float], ...] = ()
    size_classes: SizeClasses | bool | None = None


def worker_for(settings: QueueSettings) -> RateLimitedWorker:
    """The worker of these settings, which lives as long as somebody holds it or calls are pending."""
    with _lock:
        worker = _workers.get(settings)
        if worker is None or worker.closed:
            worker = _workers[settings] = RateLimitedWorker(
                budget=_budget,
                max_queue=settings.max_queue,
                max_queue_per_tenant=settings.max_queue_per_tenant,
                on_full=settings.on_full,
                ageing=settings.ageing,
                weights=dict(settings.weights),
                size_classes=settings.size_classes,
            )
        return worker


def forget() -> None:
    """Forget all limits that were learned and all budget that was spent, as after a new start of the process."""
    _budget.clear()
    account_for.cache_clear()
