"""Which worker queues a client's calls: clients with the same queue settings share one, however many are made."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .accounts import forget_accounts
from .budgets import budget_for, checked_on_lost, forget_budgets
from .core.checks import amount, weights_of, whole
from .core.size_classes import SizeClasses
from .forks import at_fork
from .stores.budget_spec import checked_budget
from .worker import RateLimitedWorker

__all__ = ["QueueSettings", "forget", "worker_for"]

_lock = threading.Lock()
_workers: weakref.WeakValueDictionary[QueueSettings, RateLimitedWorker] = weakref.WeakValueDictionary()


def _after_fork_in_child() -> None:
    # Threads that are not there may have held it.
    global _lock
    _lock = threading.Lock()


at_fork(_after_fork_in_child)


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

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> QueueSettings:
        """Those of these settings that are given and not None."""
        own = {each.name: given[each.name] for each in fields(cls) if given.get(each.name) is not None}
        if "weights" in own:
            own["weights"] = tuple(sorted(weights_of(own["weights"]).items()))
        return cls(**own)

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
    """Forget all limits that were learned and all budget that was spent, as after a new start of the process.

    Clients that exist keep their queues; those that are made from now on have others, with all retries in reserve.
    """
    with _lock:
        _workers.clear()
    forget_budgets()
    forget_accounts()
