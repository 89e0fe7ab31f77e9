"""One attempt of a call through an SDK: what its hooks see, and what becomes of it.

The SDK's own loop still decides whether an attempt may be repeated (`max_retries`, `x-should-retry`, whether the body
can be rewound). Where it would sleep, the call goes back into the queue. A caller that sends in its own thread waits
there for its turn, and the loop goes on: middleware and traces see one call with its attempts. A sending thread leaves
the loop by an exception of ours, since others may need it, and the SDK is entered again when the turn has come, with
the attempts already made counted in.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core.feedback import ANSWERED, Feedback, Kind, Outcome, Reading
from ..core.retry import RetryPolicy
from ..engine.jobs import SENDING, AttemptFailed
from ..engine.steps import NEVER_AGAIN
from ..exceptions import RequestExpired
from ..providers import Dialect
from ..providers.parsing import telling

if TYPE_CHECKING:
    from ..core.header_sampler import HeaderSampler
    from .async_turn import AsyncTurn
    from .call_turn import CallTurn
    from .sdk_call import SDKCall

__all__ = ["Attempt", "current_attempt"]

_current: ContextVar[Attempt | None] = ContextVar("ratelimited_llm_attempt", default=None)
# How often the SDK may be entered again is its own decision; ours are the pauses and the patience with refusals.
POLICY = RetryPolicy(max_retries=1_000_000)
BEFORE_SENDING = "send_request_headers.started"


def current_attempt() -> Attempt | None:
    """The attempt that this thread, or this task, is making, if it is making one."""
    return _current.get()


class Attempt:
    """One pass through an SDK's `request()`, and what it saw; use as a context manager around it.

    It can be waited for (see `sync_async`) once it knows whose it is: thousands may be under way on one loop, and the
    fewer objects each of them holds the better.

    Args:
        dialect: how the provider talks.
        made: attempts of this call that failed before.
        refusals: how often a limit refused it before.
        rest: the job whose `again` waits for another turn in the middle of the SDK's loop, which then goes on as if it
            had slept; None to leave the loop instead. A coroutine function for `sleep_async`.
    """

    __slots__ = (
        "_outer", "accepted", "call", "deadline_at", "dialect", "given_up", "made", "options", "outcome", "readings",
        "refusals", "response", "rest", "sampler",
    )  # fmt: skip

    def __init__(
        self, dialect: Dialect, made: int = 0, refusals: int = 0, rest: CallTurn | AsyncTurn | None = None
    ) -> None:
        self.dialect = dialect
        self.sampler: HeaderSampler | None = None  # set by the call that it passes
        self.deadline_at: float | None = None  # likewise
        self.made = made
        self.refusals = refusals
        self.rest = rest
        self.given_up = False  # while it rested: the worker knows of it
        self.outcome: Outcome | None = None  # None until an answer was judged
        self.readings: tuple[Reading, ...] = ()
        self.response: Any = None
        self.accepted: Any = None  # the answer that the SDK accepts

    def __enter__(self) -> Attempt:
        self.begin()
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def begin(self) -> None:
        """From now on the hooks find it; `with` spelt out, which would hold one more object while the call waits."""
        self._outer = _current.get()
        _current.set(self)

    def end(self) -> None:
        """The hooks find the one before it again."""
        _current.set(self._outer)

    # -- the pass -----------------------------------------------------------------------------------------------------

    def bind(self, call: SDKCall, options: Any) -> Attempt:
        """Say whose attempt it is, with the SDK's options for this time; answers itself, which is what to wait for."""
        self.call = call
        self.sampler = call.account.sampler(call.pool)
        self.deadline_at = call.deadline_at
        self.options = options
        return self

    def block(self) -> Any:
        with SENDING:
            return self.call.sent_with(self.options)

    def wait(self) -> Awaitable[Any]:
        return self.call.sent_with(self.options)  # type: ignore[no-any-return]

    def keep_in_time(self, request: Any) -> None:
        """Have a request that its deadline has overtaken not go out, though the connection is there at last.

        No timeout of an HTTP client bounds the look-up of a host's name. httpcore calls what it finds as "trace" before
        each step, in the thread that sends.
        """
        deadline_at = self.deadline_at
        if deadline_at is None or "trace" in request.extensions:
            return
        began, number = self.call.submitted_at, self.call.number

        def step(name: str, info: Any) -> None:
            now = time.monotonic()
            if name.endswith(BEFORE_SENDING) and now >= deadline_at:
                raise RequestExpired(now - began, deadline_at - began, request_id=number)

        request.extensions["trace"] = step

    # -- what the hooks see -------------------------------------------------------------------------------------------

    def saw(self, response: Any) -> None:
        """An answer that the SDK accepts; its headers are read (see `sampler`), its body is not."""
        self.outcome = ANSWERED
        self.accepted = response
        now = time.monotonic()
        if self.sampler is None:
            self.readings = self.dialect.readings(telling(response.headers))
        elif self.sampler.due(now):
            self.readings = self.dialect.readings(telling(response.headers))
            self.sampler.read(self.readings, now)

    def judge(self, response: Any) -> Outcome:
        """An answer with an error status: read it whole, once, and say what it means."""
        if self.response is response and self.outcome is not None:
            return self.outcome
        body = b""
        with suppress(Exception):  # a connection that breaks here leaves the status and the headers to go by
            body = response.content if response.is_closed else response.read()
        self.response = response
        self.readings = self.dialect.readings(telling(response.headers))
        self.outcome = self.dialect.classify(response.status_code, response.headers, body)
        return self.outcome

    def may_wait(self, outcome: Outcome) -> bool:
        """Whether a refusal is waited out rather than handed on."""
        return outcome.kind is Kind.LIMITED and self.refusals < POLICY.max_refusals

    def sleep(self, error: BaseException) -> None:
        """Stand in for the SDK's pause before another attempt.

        Raises:
            AttemptFailed: to leave the SDK's loop; it is entered again when the call's turn has come.
        """
        rest, failure = self._resting(error)
        try:
            rest(failure)
        except BaseException:
            self.given_up = True
            raise

    async def sleep_async(self, error: BaseException) -> None:
        """The same in a task."""
        rest, failure = self._resting(error)
        try:
            await rest(failure)
        except BaseException:
            self.given_up = True
            raise

    def _resting(self, error: BaseException) -> tuple[Callable[[AttemptFailed], Any], AttemptFailed]:
        """How to rest, and with what; a fresh pass through the SDK's loop begins after it."""
        failure = self.failure_to_retry(error)
        if self.rest is None or failure.feedback.outcome.kind is Kind.LIMITED:
            raise failure  # the SDK's loop would count a refusal as an attempt
        self.outcome, self.readings, self.response = None, (), None
        return self.rest.again, failure

    def failure_to_retry(self, error: BaseException) -> AttemptFailed:
        """What to leave the SDK's loop with where it would sleep and try again."""
        outcome = self.outcome or Outcome(Kind.DROPPED)
        if outcome.kind not in (Kind.LIMITED, Kind.OVERLOADED, Kind.DROPPED):
            # The SDK knows better (a token that was refreshed, x-should-retry: true): it goes again.
            outcome = replace(outcome, kind=Kind.OVERLOADED)
        return AttemptFailed(Feedback(outcome, self.readings), POLICY, error)

    def final_failure(self, error: BaseException) -> AttemptFailed:
        """What to end the call with when the SDK raised its last word."""
        outcome = self.outcome or Outcome(Kind.REJECTED)
        if outcome is ANSWERED:
            outcome = Outcome(Kind.REJECTED, status=200)  # the answer came, and could not be used
        return AttemptFailed(Feedback(outcome, self.readings), NEVER_AGAIN, error)


def connection_error(sdk: Any, build_request: Any) -> BaseException:
    """The SDK's own exception for the transport error that is being handled, as the SDK would raise it at last."""
    cause = sys.exc_info()[1]
    if cause is None or isinstance(cause, getattr(sdk, "APIError", ())):
        return cause if cause is not None else RuntimeError("a retry without a reason")
    request = None
    with suppress(Exception):  # httpx raises when it was not set
        request = cause.request  # type: ignore[attr-defined]
    if request is None:
        request = build_request()
    timeout = any(base.__name__ == "TimeoutException" for base in type(cause).__mro__)
    error: BaseException = (sdk.APITimeoutError if timeout else sdk.APIConnectionError)(request=request)
    error.__cause__ = cause
    return error
