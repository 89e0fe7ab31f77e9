"""AsyncRateLimitedWorker: any coroutine function under rate limits, in the queue of the process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, overload

from .books.tally import Tally
from .budgets import own_budget
from .calls.async_turn import TaskTurn
from .core.checks import whole
from .core.feedback import ANSWERED, Feedback
from .core.limits import RateLimits
from .core.request import Cost, Priority, Usage
from .core.retry import RetryPolicy
from .engine.jobs import UNTRIED, Answer, AttemptFailed
from .engine.steps import NEVER_AGAIN
from .functions.error_outcomes import outcome_of
from .functions.function_job import FUNCTION_CALL, OwnLimits, checked_classes, checked_worker, name_of
from .options import CallOptions, split_limits
from .telemetry.autostart import serve_if_configured
from .telemetry.genai import FUNCTION
from .worker import RateLimitedWorker

__all__ = ["AsyncRateLimitedWorker"]

T = TypeVar("T")


class TaggedTurn(TaskTurn):
    """A turn of a coroutine function."""

    __slots__ = ("fn", "note", "options", "tally")

    options: CallOptions
    fn: Callable[..., Any]

    @property
    def tag(self) -> str:
        return self.options.tag

    def kind(self) -> tuple[str, str, int]:
        return "", FUNCTION_CALL, self.priority

    def asked(self) -> Mapping[str, Any]:
        return {FUNCTION: name_of(self.fn)}


class AsyncRateLimitedWorker:
    """Runs coroutine functions, each when the limits allow; `await worker.run(fn, ...)` returns what it returns.

    Args:
        limits: the limits as a value; or give them one by one (`rpm=`, `tpm=`, `max_concurrency=`, ...).
        max_retries: how often a call is tried again after an exception in `retry_on`; a refusal with status 429 waits
            for the limit and is no attempt.
        retry_on: exception classes that are worth another try; none by default.
        priority, tenant, deadline: of calls that do not say otherwise.
        usage: makes the tokens that a call really used (a number, or a `Usage`) of its result; None to believe the
            estimate.
        worker: a worker to share; None for one of its own.
        budget, budget_name, on_budget_lost, tag: as for `RateLimitedExecutor`.
        **limit_options: limits by name.

    May be used from any event loop, and from several at once. Cancelling the task cancels the call.

    Raises:
        ValueError, TypeError: for an argument that makes no sense, at once.
    """

    def __init__(
        self,
        limits: RateLimits | None = None,
        *,
        max_retries: int = 2,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        priority: int | str = Priority.NORMAL,
        tenant: str = "",
        deadline: float | None = None,
        usage: Callable[[Any], int | Usage] | None = None,
        worker: RateLimitedWorker | None = None,
        budget: str | None = None,
        budget_name: str | None = None,
        on_budget_lost: str | None = None,
        tag: str = "",
        **limit_options: Any,
    ) -> None:
        self._limits = split_limits(limits, limit_options)
        if worker is not None and budget is not None:
            raise TypeError("give worker= or budget=, not both: a worker has its budget")
        shared, name = own_budget(budget, budget_name, on_budget_lost, repr(self._limits))
        self._pool = OwnLimits(self._limits, name)
        self._policy = RetryPolicy(max_retries=whole("max_retries", max_retries, 0))
        self._retry_on = checked_classes(retry_on)
        self._options = CallOptions(priority=priority, tenant=tenant, deadline=deadline, tag=tag)
        if usage is not None and not callable(usage):
            raise TypeError(f"usage must be a function of the result, or None, not {usage!r}")
        self._usage = usage
        self._worker = checked_worker(worker) or RateLimitedWorker(budget=shared)
        self._tally = Tally(self._worker.budget, self._worker.clock)
        serve_if_configured()

    @property
    def limits(self) -> RateLimits:
        """What may be spent."""
        return self._limits

    async def run(
        self,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        tokens: int = 0,
        priority: int | str | None = None,
        tenant: str | None = None,
        deadline: float | None = None,
        tag: str | None = None,
        **kwargs: Any,
    ) -> T:
        """Wait for a turn, and return what `await fn(*args, **kwargs)` returns.

        Args:
            fn: a coroutine function; called again for another attempt.
            *args, **kwargs: its own.
            tokens: model tokens that it will probably cost, for limits on tokens.
            priority, tenant, deadline, tag: of this call; None for the worker's own.

        Raises:
            BudgetExceeded: it asks for more than a whole limit.
            RequestExpired: its deadline passed while it waited.
            Exception: what `fn` raised last.
        """
        if not callable(fn):
            raise TypeError(f"fn must be a coroutine function, not {fn!r}")
        whole("tokens", tokens, 0)
        cost = Cost(tokens, tokens, tokens, 0)
        self._limits.check(cost)
        options = self._options.replace(priority=priority, tenant=tenant, deadline=deadline, tag=tag)
        job = self._job(fn, cost, options)
        self._worker.submit(job)
        while True:
            await job.wait()
            self._tally.sending(job)
            try:
                result = await fn(*args, **kwargs)
            except BaseException as error:
                self._failed(job, error)
                continue
            try:
                used = self._used(result)
            except BaseException:
                self._answered(job, Answer(result, Feedback(ANSWERED)))  # it was, whatever `usage` makes of it
                raise
            self._answered(job, Answer(result, Feedback(ANSWERED, usage=used)))
            return result

    def _answered(self, job: TaggedTurn, answer: Answer) -> None:
        self._tally.answered(job, answer)
        self._worker.answered(job, answer.feedback)

    def _job(self, fn: Callable[..., Any], cost: Cost, options: CallOptions) -> TaggedTurn:
        worker, now = self._worker, self._worker.clock()
        wait = options.allowed_wait
        job = TaggedTurn(
            worker,
            worker.next_sequence(),
            self._pool,
            cost,
            priority=options.rank,
            tenant=options.tenant,
            submitted_at=now,
            expires_at=None if wait is None else now + wait,
        )
        job.fn, job.options, job.tally = fn, options, self._tally
        return job

    def _failed(self, job: TaggedTurn, error: BaseException) -> None:
        """Have it tried again, if such an error is worth it; raises it otherwise."""
        outcome = outcome_of(error, self._retry_on) if isinstance(error, Exception) else None
        if outcome is None:
            self._tally.came_back(job, error)
            self._tally.failed(job, error)
            self._worker.failed(job, UNTRIED, NEVER_AGAIN, error)
            raise error
        failure = AttemptFailed(Feedback(outcome), self._policy, error)
        self._tally.came_back(job, failure)
        self._worker.failed(job, failure.feedback, failure.policy, error)

    def _used(self, result: Any) -> Usage | None:
        used = None if self._usage is None else self._usage(result)
        if used is None or isinstance(used, Usage):
            return used
        return Usage(whole("what usage= answers", used, 0, ", or a Usage"), 0)

    # fmt: off
    @overload
    async def map(
        self, fn: Callable[..., Awaitable[T]], *iterables: Iterable[Any], return_exceptions: Literal[False] = False,
        **options: Any,
    ) -> list[T]: ...
    @overload
    async def map(
        self, fn: Callable[..., Awaitable[T]], *iterables: Iterable[Any], return_exceptions: bool, **options: Any
    ) -> list[T | BaseException]: ...
    # fmt: on
    async def map(
        self,
        fn: Callable[..., Awaitable[Any]],
        *iterables: Iterable[Any],
        return_exceptions: bool = False,
        **options: Any,
    ) -> list[Any]:
        """`run` for each set of items, side by side; results in their order, as `asyncio.gather` gives them."""
        calls = (self.run(fn, *items, **options) for items in zip(*iterables, strict=False))
        return await asyncio.gather(*calls, return_exceptions=return_exceptions)

    def cancel(self) -> int:
        """Cancel the calls that still wait; answers how many. Each ends with `concurrent.futures.CancelledError`."""
        return self._worker.cancel_queued(lambda job: job.pool is self._pool)

    def __repr__(self) -> str:
        worker = self._worker
        return f"<AsyncRateLimitedWorker {self._limits!r} queued={worker.queued} in_flight={worker.in_flight}>"
