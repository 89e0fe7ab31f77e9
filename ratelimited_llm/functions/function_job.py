"""One call of a function on an executor: what runs it, what all of them share, and what they really cost."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..books.tally import Tally
from ..core.feedback import ANSWERED, Feedback
from ..core.limiter import Limiter
from ..core.limits import RateLimits
from ..core.request import Cost, State, Usage
from ..core.retry import RetryPolicy
from ..engine.jobs import Answer, AttemptFailed, FutureJob
from ..engine.light_future import LightFuture, begin
from ..options import CallOptions
from ..telemetry.genai import FUNCTION
from ..worker import RateLimitedWorker
from .error_outcomes import outcome_of

__all__ = [
    "FUNCTION_CALL",
    "NO_TOKENS",
    "OWNER",
    "FunctionJob",
    "OwnLimits",
    "Terms",
    "checked_classes",
    "checked_worker",
    "name_of",
    "report_usage",
]

FUNCTION_CALL = "function"  # what the conventions have no word for

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


class OwnLimits:
    """The pool of an executor: limits that are the caller's own. Equal only to itself.

    Args:
        limits: what may be spent.
        name: what they are called where other processes share them; None for limits of this process alone.
    """

    __slots__ = ("limits", "shared_name")

    provider = "other"  # in metrics: nobody knows whom the functions ask
    family = ""

    def __init__(self, limits: RateLimits, name: str | None = None) -> None:
        self.limits = limits
        self.shared_name = name

    def limiter(self) -> Limiter:
        return Limiter(self.limits, charge="settle", learn=False, ramp=False)

    def __repr__(self) -> str:
        return repr(self.limits)


class Terms:
    """What all calls through one executor (or one `with_options` of it) have in common, so that each holds it once."""

    __slots__ = ("deadline", "kind", "now", "options", "policy", "pool", "retry_on", "tally")

    def __init__(
        self, options: CallOptions, pool: OwnLimits, policy: RetryPolicy, retry_on: tuple[type[BaseException], ...],
        tally: Tally,
    ) -> None:  # fmt: skip
        self.options = options
        self.deadline = options.deadline
        self.pool = pool
        self.policy = policy
        self.retry_on = retry_on
        self.tally = tally
        self.kind = ("", FUNCTION_CALL, options.rank)
        self.now = -math.inf  # when the latest call was submitted


class FunctionJob(FutureJob):
    """One call of a function, with the future that it ends."""

    __slots__ = ("args", "fn", "note", "terms")

    def __init__(
        self, worker: RateLimitedWorker, terms: Terms, cost: Cost, now: float, fn: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:  # fmt: skip
        # Not by way of the base: it is called a million times in a few seconds.
        options = terms.options
        self.sequence = worker.next_sequence()
        self.pool = terms.pool
        self.cost = cost
        self.priority = options.rank
        self.tenant = options.tenant
        self.submitted_at = now
        self.expires_at = None if terms.deadline is None else now + terms.deadline
        self.state = State.NEW
        self.attempts = self.refusals = 0
        self.worker = worker
        self.terms = terms
        self.fn = fn
        self.args = args

    @property
    def tag(self) -> str:
        return self.terms.options.tag

    @property
    def tally(self) -> Tally:
        return self.terms.tally

    def kind(self) -> tuple[str, str, int]:
        return self.terms.kind

    def asked(self) -> Mapping[str, Any]:
        return {FUNCTION: name_of(self.fn)}

    def send(self) -> Answer:
        _reported.usage = None
        try:
            value = self.fn(*self.args)
        except Exception as error:
            outcome = outcome_of(error, self.terms.retry_on)
            if outcome is None:
                raise
            raise AttemptFailed(Feedback(outcome, usage=_reported.usage), self.terms.policy, error) from None
        finally:
            usage = _reported.__dict__.pop("usage", None)
        return Answer(value, PLAINLY_ANSWERED if usage is None else Feedback(ANSWERED, usage=usage))

    def _resolve(self, future: LightFuture[Any], answer: Answer) -> None:
        del self.fn, self.args  # before anybody is told: what the caller has forgotten is gone then
        super()._resolve(future, answer)


def name_of(fn: Callable[..., Any]) -> str:
    """What a function is called, with its module; of an object that can be called, its class."""
    if isinstance(fn, partial):
        fn = fn.func
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    return f"{getattr(named, '__module__', None) or ''}.{named.__qualname__}".lstrip(".")


class _Owner:
    """Hears of the futures of all executors."""

    def cancelled(self, future: LightFuture[Any]) -> None:
        job = future._call
        job.worker.cancel(job)
        begin(future)
        job.dropped()

    def waiting(self, future: LightFuture[Any]) -> None:
        return None

    def describe(self, future: LightFuture[Any]) -> str:
        return "running" if future.running() else "queued"


OWNER = _Owner()
NO_TOKENS = Cost()
PLAINLY_ANSWERED = Feedback(ANSWERED)


def checked_classes(value: Any) -> tuple[type[BaseException], ...]:
    """`retry_on`, as a tuple of exception classes."""
    classes = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
        raise TypeError(f"retry_on must be an exception class or a tuple of them, not {value!r}")
    return classes


def checked_worker(worker: Any) -> RateLimitedWorker | None:
    """The value, when it is a RateLimitedWorker or None."""
    if worker is not None and not isinstance(worker, RateLimitedWorker):
        raise TypeError(f"worker must be a RateLimitedWorker or None, not {worker!r}")
    return worker
