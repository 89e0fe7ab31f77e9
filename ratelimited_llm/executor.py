"""RateLimitedExecutor: `concurrent.futures.Executor` under rate limits, for any callable."""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .books.tally import Tally
from .budgets import own_budget
from .core.checks import number, whole
from .core.limits import RateLimits
from .core.request import Cost, Priority
from .core.retry import RetryPolicy
from .core.size_classes import SizeClasses
from .engine import lifecycle
from .engine.jobs import in_call
from .engine.light_future import LightFuture
from .functions.function_job import (
    NO_TOKENS,
    OWNER,
    FunctionJob,
    OwnLimits,
    Terms,
    checked_classes,
    checked_worker,
    report_usage,
)
from .options import CallOptions, split_limits
from .telemetry.autostart import serve_if_configured
from .worker import RateLimitedWorker

if TYPE_CHECKING:
    from .functions.executor_journal import Memory

__all__ = ["RateLimitedExecutor", "report_usage"]

T = TypeVar("T")


class RateLimitedExecutor(Executor):
    """Runs any callable on threads, each when the limits allow; a drop-in for ThreadPoolExecutor.

    Args:
        limits: the limits as a value; or give them one by one (`rpm=`, `tpm=`, `max_concurrency=`, ...).
        tokens: model tokens that a call costs: a number, or a function of the call's own arguments. Needed for limits
            on tokens; None counts every call as none.
        max_retries: how often a call is tried again after an exception in `retry_on`; a refusal with status 429 waits
            for the limit and is no attempt.
        retry_on: exception classes that are worth another try; none by default, as in the standard library.
        max_queue, max_queue_per_tenant, on_full, ageing, weights, size_classes: see `RateLimitedWorker`.
        priority, tenant, deadline: of calls that do not say otherwise by `with_options`.
        worker: a worker to share; None for one of its own.
        budget: "sqlite", "redis://..." and the like to share the limits with other processes (see `budgets`); None
            or "memory" for this process alone.
        budget_name: what the limits are called there: who states the same name spends the same limits. None for a name
            made of the limits, so that equal ones are the same.
        on_budget_lost: without that store, "local" goes on with a part of the limits, "local/8" with an eighth at most
            (say how many share them, since a store that was never reached cannot), "raise" fails the calls. None for
            what RATELIMITED_LLM_ON_BUDGET_LOST says, or "local".
        tag: a name by which calls can be cancelled together, from anywhere that shares the budget.
        journal: path of a file that keeps results (JSON values) for the next run; needs `key`.
        key: a function of the call's own arguments: what tells it from other calls of the same function, as JSON.

    `submit` returns at once with a Future (unless the queue is full and `on_full="block"`); all methods are
    thread-safe. The limits are yours, so nothing is learned, guarded or started slowly.

    Raises:
        ValueError, TypeError: for an argument that makes no sense, at once.
    """

    def __init__(
        self,
        limits: RateLimits | None = None,
        *,
        tokens: int | Callable[..., int] | None = None,
        max_retries: int = 2,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        max_queue: int | None = None,
        max_queue_per_tenant: int | None = None,
        on_full: str = "block",
        ageing: float | None = None,
        weights: dict[str, float] | None = None,
        size_classes: SizeClasses | bool | None = None,
        priority: int | str = Priority.NORMAL,
        tenant: str = "",
        deadline: float | None = None,
        worker: RateLimitedWorker | None = None,
        budget: str | None = None,
        budget_name: str | None = None,
        on_budget_lost: str | None = None,
        tag: str = "",
        journal: Any = None,
        key: Callable[..., Any] | None = None,
        **limit_options: Any,
    ) -> None:
        self._limits = split_limits(limits, limit_options)
        if worker is not None and budget is not None:
            raise TypeError("give worker= or budget=, not both: a worker has its budget")
        shared, name = own_budget(budget, budget_name, on_budget_lost, repr(self._limits))
        self._worker = checked_worker(worker) or RateLimitedWorker(
            budget=shared,
            max_queue=max_queue,
            max_queue_per_tenant=max_queue_per_tenant,
            on_full=on_full,
            ageing=ageing,
            weights=weights,
            size_classes=size_classes,
        )
        self._tokens = _checked_tokens(tokens)
        self._memory = None if journal is None and key is None else _memory(journal, key)
        policy = RetryPolicy(max_retries=whole("max_retries", max_retries, 0))
        options = CallOptions(priority=priority, tenant=tenant, deadline=deadline, tag=tag)
        tally = Tally(self._worker.budget, self._worker.clock)
        self._terms = Terms(options, OwnLimits(self._limits, name), policy, checked_classes(retry_on), tally)
        serve_if_configured()

    @property
    def limits(self) -> RateLimits:
        """The limits that it was made with."""
        return self._limits

    def with_options(
        self,
        *,
        tokens: int | Callable[..., int] | None = None,
        priority: int | str | None = None,
        tenant: str | None = None,
        deadline: float | None = None,
        tag: str | None = None,
    ) -> RateLimitedExecutor:
        """The same executor, queue and limits, with other options for the calls submitted through it.

        Args:
            tokens: what each call costs; None keeps what was set.
            priority: "high", "normal", "low", a `Priority`, or 0 (first) to 10 (last).
            tenant: whose turn it takes.
            deadline: seconds from submit after which a call is not worth starting.
            tag: a name by which calls can be cancelled together.
        """
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        options = self._terms.options.replace(priority=priority, tenant=tenant, deadline=deadline, tag=tag)
        terms = self._terms
        twin._terms = Terms(options, terms.pool, terms.policy, terms.retry_on, terms.tally)
        if tokens is not None:
            twin._tokens = _checked_tokens(tokens)
        return twin

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue `fn(*args, **kwargs)`; returns at once with its Future.

        Raises:
            BudgetExceeded: it asks for more tokens than a whole limit.
            QueueFull: the queue is at its cap and `on_full="raise"`.
            WorkerStopped: after `shutdown` (a RuntimeError, as the standard library raises).
        """
        tokens = self._tokens
        cost = NO_TOKENS if tokens is None else self._cost(tokens, args, kwargs)
        worker, terms = self._worker, self._terms
        # Calls of the same millisecond share one number: of a million, that is 32 MB.
        now = worker.clock()
        if now - terms.now < 0.001:
            now = terms.now
        else:
            terms.now = now
        if self._memory is not None:
            return self._remembered(self._memory, fn, args, kwargs, cost, now)
        job = FunctionJob(worker, terms, cost, now, partial(fn, **kwargs) if kwargs else fn, args)
        future: LightFuture[T] = LightFuture(job, OWNER)
        job.future = future
        worker.submit(job, nested=worker.bounded and in_call())
        job.prepare()
        return future

    def _remembered(
        self,
        memory: Memory,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        cost: Cost,
        now: float,
    ) -> Future[T]:
        from .functions.executor_journal import JournaledJob, launch

        entry = memory.entry(fn, args, kwargs)
        job = JournaledJob(self._worker, self._terms, cost, now, partial(fn, **kwargs) if kwargs else fn, args)
        job.entry, job.memory = entry, memory
        future: LightFuture[T] = LightFuture(job, OWNER)
        launch(job, future, nested=self._worker.bounded and in_call())
        return future

    def _cost(self, tokens: Cost | Callable[..., int], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Cost:
        if callable(tokens):
            amount = whole("tokens", tokens(*args, **kwargs), 0)
            tokens = Cost(amount, amount, amount, 0)
        self._limits.check(tokens)
        return tokens

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Any,
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Queue `fn` for each set of items; answers come in the order of the items.

        Args:
            fn: called with one item of each iterable.
            *iterables: as for the built-in map; read at once, or as far ahead as `buffersize`.
            timeout: seconds from now in which every answer has to be there; None for no bound.
            chunksize: accepted and ignored, as by ThreadPoolExecutor.
            buffersize: how many calls may be submitted and not yet asked for; None for all. (As in Python 3.14.)

        Raises:
            TimeoutError: while iterating, when an answer is not there in time.
        """
        if buffersize is not None:
            if isinstance(buffersize, bool) or not isinstance(buffersize, int):
                raise TypeError(f"buffersize must be a whole number or None, not {buffersize!r}")
            if buffersize < 1:
                raise ValueError(f"buffersize must be 1 or more, or None, not {buffersize!r}")
            buffersize = min(buffersize, sys.maxsize)
        end = None if timeout is None else self._worker.clock() + number("timeout", timeout, "a number of seconds")
        items = zip(*iterables, strict=False)
        first = deque(self.submit(fn, *item) for item in itertools.islice(items, buffersize))
        return self._answers(fn, first, items, end)

    def _answers(self, fn: Callable[..., T], waiting: deque[Future[T]], items: Any, end: float | None) -> Iterator[T]:
        try:
            while waiting:
                for item in itertools.islice(items, 1):
                    waiting.append(self.submit(fn, *item))
                # Nothing here holds the future, or its answer, while the caller works on that.
                yield _result(waiting.popleft(), None if end is None else end - self._worker.clock())
        finally:
            for future in waiting:
                future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; see `concurrent.futures.Executor.shutdown`."""
        self._worker.shutdown(wait, cancel_futures=cancel_futures)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            over = lifecycle.leave(self._worker.cancel_queued, self._worker.wait)
            self.shutdown(wait=over)
        else:
            self.shutdown()
        return None

    def __repr__(self) -> str:
        return f"<RateLimitedExecutor {self._limits!r} queued={self._worker.queued} in_flight={self._worker.in_flight}>"


def _result(future: Future[T], timeout: float | None) -> T:
    try:
        return future.result(timeout)
    finally:
        future.cancel()  # when it was not there in time
        del future  # else a failure holds it: exception -> traceback -> this frame -> future


def _memory(journal: Any, key: Callable[..., Any] | None) -> Memory:
    if journal is None:
        raise TypeError("key= needs journal=, the path of the file that keeps the results")
    from .functions.executor_journal import Memory  # sqlite3 is for those who use it

    return Memory(journal, key)


def _checked_tokens(tokens: int | Callable[..., int] | None) -> Cost | Callable[..., int] | None:
    if tokens is None or callable(tokens):
        return tokens
    amount = whole("tokens", tokens, 0)
    return Cost(amount, amount, amount, 0)
