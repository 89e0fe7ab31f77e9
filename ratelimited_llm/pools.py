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
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

from .books.news import News
from .budgets import budget_for, checked_on_lost, forget_budgets
from .core.checks import amount, whole
from .core.estimate import TokenEstimator
from .core.glance import Glance
from .core.limiter import Limiter
from .core.limits import RateLimits
from .core.size_classes import SizeClasses
from .providers import Dialect
from .stores.spelling import checked_budget
from .worker import RateLimitedWorker

__all__ = ["Account", "CallPool", "QueueSettings", "account_for", "canonical", "forget", "worker_for"]

MOST_NAMES = 1_000  # of models, which somebody may make up

_lock = threading.Lock()
_workers: weakref.WeakValueDictionary[QueueSettings, RateLimitedWorker] = weakref.WeakValueDictionary()


def _after_fork_in_child() -> None:
    # Threads that are not there may have held these.
    global _lock
    _lock = threading.Lock()


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
    _hash: int = field(init=False, repr=False, compare=False)

    def limiter(self) -> Limiter:
        return Limiter(
            self.limits,
            charge=self.dialect.charge,
            smoothing=self.dialect.request_smoothing,
        )

    @property
    def shared_name(self) -> str | None:
        """What these limits are called where other processes share them; the key is in it as a digest only.

        None when nobody knows whose they are.
        """
        return f"{self.base_url}|{self.key_digest}|{self.family}" if self.base_url else None

    def __hash__(self) -> int:  # the generated one would hash every limit at every look-up, of which a call has a dozen
        return self._hash

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.base_url, self.key_digest, self.family)))


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
        self._glances: dict[str, Glance] = {}

    def glance(self, pool: CallPool) -> Glance:
        """When the limits of a pool were read last; thread-safe, as two that were made at once do no harm."""
        found = self._glances.get(pool.family)
        if found is None:
            if len(self._glances) > MOST_NAMES:
                self._glances.clear()
            found = self._glances[pool.family] = Glance()
        return found

    def pool(self, model: str) -> CallPool:
        """The pool of a model; thread-safe, since two that were made at once are equal."""
        pool = self._pools.get(model)
        if pool is None:
            family = self.dialect.family(model)
            pool = CallPool(self.provider, self.base_url, self._digest, self.limits, family, self.dialect)
            if len(self._pools) > MOST_NAMES:
                self._pools.clear()
            self._pools[model] = pool
        return pool


def account_for(provider: str, base_url: str, key: str, limits: RateLimits, dialect: Dialect) -> Account:
    """The account of a key at a base URL; the same object for the same arguments. The key itself is not kept in it."""
    return _account(provider, canonical(base_url), key, limits, dialect)


@lru_cache(maxsize=1024)
def canonical(base_url: str) -> str:
    """A base URL as all who mean the same write it: scheme and host in lower case, no slash at the end, no query."""
    with suppress(ValueError):
        url = urlsplit(base_url)
        place = url.netloc.rpartition("@")[2].lower()
        return urlunsplit((url.scheme.lower(), place, url.path.rstrip("/"), "", ""))
    return base_url.rstrip("/")


@lru_cache(maxsize=1024)
def _account(provider: str, base_url: str, key: str, limits: RateLimits, dialect: Dialect) -> Account:
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
    budget: str | None = field(default=None, repr=False)  # a URL may hold a password
    on_budget_lost: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_queue", "max_queue_per_tenant"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 1, ", or None for no cap")
        if self.on_full not in ("block", "raise"):  # here, since what makes no sense may not be hashable
            raise ValueError(f'on_full must be "block" or "raise", not {self.on_full!r}')
        if self.ageing is not None:
            amount("ageing", self.ageing, "a number of seconds")
        object.__setattr__(self, "size_classes", SizeClasses.read(self.size_classes))
        # As it is checked, so that equal ones are equal, and what the environment says counts as of now.
        object.__setattr__(self, "budget", checked_budget(self.budget))
        object.__setattr__(self, "on_budget_lost", checked_on_lost(self.on_budget_lost))


def worker_for(settings: QueueSettings) -> RateLimitedWorker:
    """The worker of these settings, which lives as long as somebody holds it or calls are pending."""
    with _lock:
        worker = _workers.get(settings)
        if worker is None or worker.closed:
            worker = _workers[settings] = RateLimitedWorker(
                budget=budget_for(settings.budget or "memory", settings.on_budget_lost or "local"),
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
    forget_budgets()
    _account.cache_clear()
