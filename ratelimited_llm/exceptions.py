"""Every error that is ours; the provider's errors stay the provider's own objects.

    RateLimitedLLMError
    +-- QueueFull            (queue.Full)              the queue, or this tenant's share of it, is at its cap
    +-- BudgetExceeded       (ValueError)              one call alone asks for more than a whole limit
    +-- RequestExpired       (TimeoutError)            it waited longer than its deadline or max_wait
    +-- WorkerStopped        (RuntimeError)            submitted after close(), or dropped by it, or by a fork
    +-- CostLimitReached     (RuntimeError)            sending this call could have cost more than max_cost
    +-- JournalError         (OSError)                 the file of a journal cannot be used as one
    +-- SharedStoreLost      (OSError)                 the limits that several processes share are out of reach

Each also subclasses what an old `except` line would catch, carries its numbers as attributes, and ends its
message with what to change.
"""

from __future__ import annotations

import queue
import sys
from concurrent.futures import TimeoutError as FutureTimeoutError

__all__ = [
    "BudgetExceeded",
    "CostLimitReached",
    "JournalError",
    "QueueFull",
    "RateLimitedLLMError",
    "RequestExpired",
    "SharedStoreLost",
    "WorkerStopped",
]


class RateLimitedLLMError(Exception):
    """The base of every error that this package raises on its own account.

    Attributes:
        request_id: the number of the call in this process, or None when it never became one.
    """

    def __init__(self, message: str, *, request_id: int | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


class QueueFull(RateLimitedLLMError, queue.Full):
    """The queue is at its cap and `on_full="raise"` was asked for.

    Attributes:
        limit: the cap that was reached, in calls.
        tenant: whose share is full, or None when it is the whole queue.
    """

    def __init__(self, limit: int, *, tenant: str | None = None, request_id: int | None = None) -> None:
        whose, parameter = (
            ("the queue", "max_queue")
            if tenant is None
            else (f"the share of tenant {tenant!r}", "max_queue_per_tenant")
        )
        super().__init__(
            f"{whose} holds {limit} calls, which is its cap; raise {parameter}=, wait for answers first, "
            'or use on_full="block"',
            request_id=request_id,
        )
        self.limit = limit
        self.tenant = tenant


class BudgetExceeded(RateLimitedLLMError, ValueError):
    """One call alone asks for more than a whole limit, so no waiting could ever let it go.

    Attributes:
        dimension: the limit that it cannot fit ("tpm", "itpm", ...).
        limit: that limit, per its period.
        requested: what the call asks for, in the same unit.
    """

    def __init__(self, dimension: str, limit: float, requested: float, *, request_id: int | None = None) -> None:
        super().__init__(
            f"this call asks for {requested:,.0f} of {dimension}, and the whole limit is {limit:,.0f}: it can never "
            f"fit; shorten the prompt, lower max_tokens, or raise {dimension}= if the account allows more",
            request_id=request_id,
        )
        self.dimension = dimension
        self.limit = limit
        self.requested = requested


if sys.version_info >= (3, 11):
    _Timeout = TimeoutError  # the two are one class
else:

    class _Timeout(FutureTimeoutError, TimeoutError):
        """What catches either of the two."""


class RequestExpired(RateLimitedLLMError, _Timeout):
    """The call waited longer than its own deadline (or max_wait) before it could be answered.

    Attributes:
        waited: seconds from submit to giving up.
        allowed: the seconds that were allowed.
    """

    def __init__(self, waited: float, allowed: float, *, request_id: int | None = None) -> None:
        super().__init__(
            f"not answered within the {allowed:g} s that it was given (waited {waited:.1f} s); raise deadline= or "
            "max_wait=, the limits, or its priority",
            request_id=request_id,
        )
        self.waited = waited
        self.allowed = allowed


class WorkerStopped(RateLimitedLLMError, RuntimeError):
    """The queue was closed before the call could be sent, or the call was made after close()."""


class CostLimitReached(RateLimitedLLMError, RuntimeError):
    """Sending one more call could have cost more than `max_cost`, so it was not sent.

    Attributes:
        max_cost: the cap, US dollars.
        spent: what the calls before it cost.
        needed: what this one could have cost at most.
    """

    def __init__(self, max_cost: float, spent: float, needed: float, *, request_id: int | None = None) -> None:
        super().__init__(
            f"max_cost is ${max_cost:.4g}, ${spent:.4g} are spent, and this call could cost up to ${needed:.4g}: it "
            "was not sent; raise max_cost=, or set or lower max_tokens so that a call can cost less",
            request_id=request_id,
        )
        self.max_cost = max_cost
        self.spent = spent
        self.needed = needed


class JournalError(RateLimitedLLMError, OSError):
    """The file that was given as journal cannot be used as one; nothing in it was changed."""


class SharedStoreLost(RateLimitedLLMError, OSError):
    """The server or file of `budget=` that keeps what several processes share cannot be used at present.

    The message names a host and port, or a path, and never a user, a password or a query.
    """
