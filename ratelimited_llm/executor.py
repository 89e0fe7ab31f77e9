"""RateLimitedExecutor: `concurrent.futures.Executor` under rate limits, for any callable."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from .core.feedback import ANSWERED, Feedback, Kind, Outcome
from .core.limiter import Limiter
from .core.limits import RateLimits
from .core.request import Cost, Priority, Usage
from .core.retry import RetryPolicy
from .jobs import Answer, AttemptFailed, FutureJob
from .light_future import LightFuture
from .options import CallOptions, split_limits
from .worker import RateLimitedWorker

__all__ = ["RateLimitedExecutor", "report_usage"]

T = TypeVar("T")
_reported = threading.local()


def report_usage(tokens: int | None = None, *, input_tokens: int = 0, output_tokens: int = 0) -> None:
    """Say, from inside a function that an executor runs, what the call really cost.

    Args:
        tokens: all model tokens together; or tell them apart with the next two.
        input_tokens: tokens of the prompt.
        output_tokens: tokens of the answer.

    Outside of such a function it does nothing, so that the function can be called directly too. The last report of a
    call counts. Without one, a call counts as what it was estimated to cost.
    """
    if tokens is not None:
        input_tokens, output_tokens = tokens, 0
    for name, value in (("input_tokens", input_tokens), ("output_tokens", output_tokens)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} must be a whole number from 0 up, not {value!r}")
    if hasattr(_reported, "usage"):
        _reported.usage = Usage(input_tokens, output_tokens)


class RateLimitedExecutor(Executor):
    """Runs any callable on threads, each when the limits allow; a drop-in for ThreadPoolExecutor.

    Args:
        limits: the limits as a value; or give them one by one (`rpm=`, `tpm=`, `max_concurrency=`, ...).
        tokens: model tokens that a call costs: a number, or a function of the call's own arguments. Needed for limits
            on tokens; None counts every call as none.
        max_retries: how often a call is tried again after an exception in `retry_on`; a refusal with status 429 waits
            for the limit and is no attempt.
        retry_on: exception classes that are worth another try; none by default, as in the standard library.
        max_queue, max_queue_per_tenant, on_full, ageing, weights: see `RateLimitedWorker`.
        priority, tenant, deadline: of calls that do not say otherwise by `with_options`.
        worker: a worker to share; None for one of its own.

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
        retry_on: tuple[type[BaseException], ...] = (),
        max_queue: int | None = None,
        max_queue_per_tenant: int | None = None,
        on_full: str = "block",
        ageing: float | None = None,
        weights: dict[str, float] | None = None,
        priority: int | str = Priority.NORMAL,
        tenant: str = "",
        deadline: float | None = None,
        worker: RateLimitedWorker | None = None,
        **limit_options: Any,
    ) -> None:
        self._limits = split_limits(limits, limit_options)
        self._worker = worker or RateLimitedWorker(
            max_queue=max_queue,
            max_queue_per_tenant=max_queue_per_tenant,
            on_full=on_full,
            ageing=ageing,
            weights=weights,
        )
        self._pool = _OwnLimits(self._limits)
        self._options = CallOptions(priority=priority, tenant=tenant, deadline=deadline)
        self._tokens = _checked_tokens(tokens)
        self._policy = RetryPolicy(max_retries=max_retries)
        self._retry_on = retry_on
        self._mine: weakref.WeakSet[Future[Any]] = weakref.WeakSet()

    @property
    def limits(self) -> RateLimits:
        """What may be spent."""
        return self._limits

    def with_options(
        self,
        *,
        tokens: int | Callable[..., int] | None = None,
        priority: int | str | None = None,
        tenant: str | None = None,
        deadline: float | None = None,
    ) -> RateLimitedExecutor:
        """The same executor, queue and limits, with other options for the calls submitted through it.

        Args:
            tokens: what each call costs; None keeps what was set.
            priority: "high", "normal", "low", a `Priority`, or 0 (first) to 10 (last).
            tenant: whose turn it takes.
            deadline: seconds from submit after which a call is not worth starting.
        """
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._options = self._options.replace(priority=priority, tenant=tenant, deadline=deadline)
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
        cost = _NO_TOKENS
        tokens = self._tokens
        if tokens is not None:
            if callable(tokens):
                amount = _checked_amount(tokens(*args, **kwargs))
                cost = Cost(amount, amount, amount, 0)
            else:
                cost = tokens
            self._limits.check(cost)
        worker, options = self._worker, self._options
        now = worker.clock()
        job = _FunctionJob(
            worker.next_sequence(), self._pool, cost, priority=options.rank, tenant=options.tenant, submitted_at=now,
            expires_at=None if options.deadline is None else now + options.deadline,
        )  # fmt: skip
        future: LightFuture[T] = LightFuture(job, _OWNER)
        job.worker, job.future, job.work = worker, future, (fn, args, kwargs, self._policy, self._retry_on)
        job.prepare()
        worker.submit(job)
        return future

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
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize must be 1 or more, or None, not {buffersize!r}")
        end = None if timeout is None else self._worker.clock() + timeout
        items = zip(*iterables, strict=False)
        first = [self.submit(fn, *item) for item in itertools.islice(items, buffersize)]
        return self._answers(fn, first, items, end)

    def _answers(self, fn: Callable[..., T], waiting: list[Future[T]], items: Any, end: float | None) -> Iterator[T]:
        waiting.reverse()
        try:
            while waiting:
                for item in itertools.islice(items, 1):
                    waiting.insert(0, self.submit(fn, *item))
                future = waiting.pop()
                yield future.result(None if end is None else end - self._worker.clock())
        finally:
            for future in waiting:
                future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; see `concurrent.futures.Executor.shutdown`."""
        self._worker.shutdown(wait, cancel_futures=cancel_futures)

    def __repr__(self) -> str:
        return f"<RateLimitedExecutor {self._limits!r} queued={self._worker.queued} in_flight={self._worker.in_flight}>"


class _OwnLimits:
    """The pool of an executor: limits that are the caller's own."""

    __slots__ = ("limits",)

    def __init__(self, limits: RateLimits) -> None:
        self.limits = limits

    def limiter(self) -> Limiter:
        return Limiter(self.limits, charge="settle", learn=False, ramp=False)

    def __repr__(self) -> str:
        return repr(self.limits)


class _FunctionJob(FutureJob):
    """One call of a function."""

    __slots__ = ("work",)

    work: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], RetryPolicy, tuple[type[BaseException], ...]]

    def send(self) -> Answer:
        fn, args, kwargs, policy, retry_on = self.work
        _reported.usage = None
        try:
            value = fn(*args, **kwargs)
        except Exception as error:
            outcome = _outcome(error, retry_on)
            if outcome is None:
                raise
            raise AttemptFailed(Feedback(outcome, usage=_reported.usage), policy, error) from None
        finally:
            usage = _reported.__dict__.pop("usage", None)
        return Answer(value, Feedback(ANSWERED, usage=usage))


def _outcome(error: Exception, retry_on: tuple[type[BaseException], ...]) -> Outcome | None:
    """What an exception means for another try; None when it is the function's own affair."""
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if status == 429:
        from .providers import dialect_for  # only a call that was refused needs it

        response = getattr(error, "response", None)
        headers = getattr(response, "headers", None) or {}
        body = getattr(error, "body", None) or getattr(response, "content", b"")
        outcome = dialect_for(None, "").classify(429, headers, body)
        if outcome.kind is not Kind.OVERLOADED or isinstance(error, retry_on):
            return outcome if outcome.kind is Kind.LIMITED else None
    return Outcome(Kind.OVERLOADED, status=status) if isinstance(error, retry_on) else None


class _Owner:
    """Hears of the futures of all executors."""

    def cancelled(self, future: LightFuture[Any]) -> None:
        job = future._call
        job.worker.cancel(job)

    def waiting(self, future: LightFuture[Any]) -> None:
        pass

    def describe(self, future: LightFuture[Any]) -> str:
        return "running" if future.running() else "queued"


_OWNER = _Owner()
_NO_TOKENS = Cost()


def _checked_amount(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"tokens must be a whole number from 0 up, not {value!r}")
    return value


def _checked_tokens(tokens: int | Callable[..., int] | None) -> Cost | Callable[..., int] | None:
    if tokens is None or callable(tokens):
        return tokens
    amount = _checked_amount(tokens)
    return Cost(amount, amount, amount, 0)
