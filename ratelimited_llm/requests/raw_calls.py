"""One raw request as a queued call: what it costs, one attempt at it, and its two faces, as the calls of the SDKs have.

Where the SDKs end a call by an exception, requests returns the Response with its status; so does this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import requests as _requests
from requests.auth import AuthBase
from requests.utils import rewind_body

from ..accounts import account_for
from ..books.call_records import CallRecord
from ..calls.call_job import CallJob
from ..calls.queued_call import QueuedCall
from ..calls.stream_end import StreamEnd
from ..calls.sync_async import Sent, Steps
from ..core.estimate import prompt_bytes
from ..core.feedback import ANSWERED, Feedback, Kind, Outcome, Reading
from ..core.retry import RetryPolicy
from ..engine.jobs import Answer, AttemptFailed, in_call
from ..engine.steps import NEVER_AGAIN
from ..exceptions import RequestExpired
from .exchange import HTTPStatus, exchange, within
from .hosts import Target, identity_of
from .live_answers import BodyWatch, is_open, usage_of

if TYPE_CHECKING:
    from .queued_session import Session
    from .settings import RequestsRuntime

__all__ = ["RawCall", "SessionCall", "must_wait"]

_MODEL_FIELD = re.compile(rb'name="model"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,200})\r\n')
FORM_START = 65_536  # bytes of a form in which its model is looked for: requests writes fields before files


class _Body:
    """What the estimates ask of a request, under the names that the SDKs' options have for it."""

    __slots__ = ("json_data", "url")

    def __init__(self, request: Any, target: Target) -> None:
        self.url = target.path
        self.json_data: dict[str, Any] = _body_of(request.body)
        if target.model:
            self.json_data = {"model": target.model, **self.json_data}


class RawCall(QueuedCall):
    """A prepared request that waits its turn in front of an adapter.

    Args:
        runtime: options and queue.
        target: where it goes.
        transmit: the `send` of the adapter that it goes through.
        request, kwargs: what that takes.
    """

    __slots__ = ("kwargs", "policy", "request", "transmit")

    runtime: RequestsRuntime

    def __init__(
        self, runtime: RequestsRuntime, target: Target, transmit: Callable[..., _requests.Response], request: Any,
        kwargs: dict[str, Any],
    ) -> None:  # fmt: skip
        self.options = _Body(request, target)
        model = self.options.json_data.get("model")
        self.model = model if isinstance(model, str) else ""
        self.account = account_for(
            target.provider, target.base_url, identity_of(request), runtime.limits, target.dialect
        )
        CallRecord.__init__(self, self.account.pool(self.model), self.model, prompt_bytes(self.options.json_data))
        self.runtime = runtime
        self.key = (self.pool.family, target.path)
        self.deadline_at = None
        self.entry = None
        self.transmit = transmit
        self.request = request
        self.kwargs = kwargs
        self.policy: RetryPolicy = runtime.policy if _can_be_sent_again(request) else NEVER_AGAIN

    def traced_by_sdk(self) -> bool:
        return False  # there is none

    def in_own_thread(self) -> Any:
        """Wait for its turn, send it in this thread, and return the Response."""
        if in_call() and self.runtime.limits.max_concurrency is not None:
            return self.transmit(self.request, **self.kwargs)  # its outer call may hold the only place
        try:
            return super().in_own_thread()
        except HTTPStatus as told:
            return told.response

    # -- sending it ---------------------------------------------------------------------------------------------------

    def attempt_steps(self, job: Any, rest: object = None) -> Steps[Answer]:
        """Send it once.

        Raises:
            AttemptFailed: no answer below 400; it says whether there may be another attempt.
        """
        told: list[tuple[Reading, ...]] = []
        try:
            send = partial(self._send, partial(self._transmit, job, told))
            response = yield Sent(send if self.trace is None else partial(self.trace.around, self, send))
        except AttemptFailed as failure:
            outcome = failure.feedback.outcome
            if self.policy.rest(outcome, job.attempts + 1, job.refusals + 1, 0.0) is not None:
                self.came_back(failure)
            else:
                self.runtime.ledger.gave_up(self, perhaps_paid=outcome.kind is Kind.DROPPED)
            raise
        except BaseException as error:  # a hook's
            self.runtime.ledger.gave_up(self, perhaps_paid=True)
            failed = Feedback(Outcome(Kind.REJECTED, status=200), told[-1] if told else ())
            raise AttemptFailed(failed, NEVER_AGAIN, error) from None
        return self._answered(job, response, told[-1] if told else ())

    def _send(self, transmit: Callable[..., _requests.Response]) -> _requests.Response:
        return transmit(self.request, **self.kwargs)

    def _transmit(self, job: Any, told: list[tuple[Reading, ...]], request: Any, **kwargs: Any) -> _requests.Response:
        if self.deadline_at is not None:
            kwargs["timeout"] = within(self._left(job), kwargs.get("timeout"))
        if (job.attempts or job.refusals) and isinstance(getattr(request, "_body_position", None), int):
            rewind_body(request)
        response, readings = exchange(self.transmit, request, kwargs, self.account.dialect, self.policy)
        told.append(readings)
        return response

    def _left(self, job: Any) -> float:
        """Seconds until its deadline.

        Raises:
            AttemptFailed: it is over.
        """
        assert self.deadline_at is not None
        left: float = self.deadline_at - job.worker.clock()
        if left <= 0:
            allowed = self.deadline_at - job.submitted_at
            expired = RequestExpired(allowed - left, allowed, request_id=job.sequence)
            raise AttemptFailed(Feedback(Outcome(Kind.REJECTED)), NEVER_AGAIN, expired)
        job.expires_at = self.deadline_at  # max_wait was for the first time only
        return left

    def _answered(self, job: Any, response: _requests.Response, readings: tuple[Reading, ...]) -> Answer:
        self.account.news.answered(self.pool.family, readings)
        ledger = self.runtime.ledger
        if is_open(response):
            BodyWatch.over(response, self.account.dialect, StreamEnd(self, job, None))
            ledger.opened(self)
            return Answer(response, Feedback(ANSWERED, readings), open=True)
        usage = usage_of(response, self.account.dialect)
        if usage is not None:
            self.learn(usage)
        ledger.answered(self, usage)
        if self.trace is not None:
            self.trace.answered(self, None, usage, response)
        return Answer(response, Feedback(ANSWERED, readings, usage))


class RawJob(CallJob):
    """A raw request on its way to a future."""

    __slots__ = ()

    call: SessionCall

    def give_up(self, error: BaseException) -> None:
        if not isinstance(error, HTTPStatus):
            super().give_up(error)
            return
        try:
            response = self.context.run(self.call.conclude, error.response)
        except Exception as raised:  # by a hook: `raise_for_status`, most likely
            super().give_up(raised)
            return
        future, self.future = self.future, None
        if future is None:
            return
        future._ratelimit = self.call.fared("failed")  # type: ignore[attr-defined]
        with suppress(InvalidStateError):  # this is the child of a fork, where it was abandoned
            future.set_result(response)
        self.call.runtime.ledger.failed(self.call, error)


class SessionCall(RawCall):
    """A request that a session was given, and whose future is its Response.

    Args:
        session: whose hooks, cookies and redirects apply to the answer.
        The others are as for `RawCall`; `kwargs` are those of `Session.send`.
    """

    __slots__ = ("session",)

    job_kind = RawJob

    def __init__(self, session: Session, *args: Any) -> None:
        super().__init__(*args)
        self.session = session

    def _snapshot(self) -> None:
        """It was prepared for this, and nobody else has it."""

    def _declared(self) -> Any:
        return _requests.Response

    def _send(self, transmit: Callable[..., _requests.Response]) -> _requests.Response:
        return self.session._send_through(transmit, self.request, self.kwargs)

    def conclude(self, response: _requests.Response) -> _requests.Response:
        """What the session makes of an answer that was kept from it so far."""
        return self.session._send_through(lambda request, **kwargs: response, self.request, self.kwargs)


def must_wait(request: Any) -> bool:
    """Whether a request has to be sent before the call that makes it returns."""
    if not isinstance(request.body, (bytes, str, type(None))):
        return True  # the caller may close its file as soon as the call returns
    # An answer to a challenge (digest, say) is made by an object that knows the thread that asked.
    return any(isinstance(getattr(hook, "__self__", None), AuthBase) for hook in request.hooks.get("response", ()))


def _can_be_sent_again(request: Any) -> bool:
    if isinstance(request.body, (bytes, str, type(None))):
        return True
    return isinstance(getattr(request, "_body_position", None), int)  # a file, which can be rewound


def _body_of(body: object) -> dict[str, Any]:
    """The JSON of a request; of a form, its model; {} for anything else."""
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogatepass")
    if not isinstance(body, bytes):
        return {}
    if body[:2] == b"--":
        found = _MODEL_FIELD.search(body[:FORM_START])
        return {"model": found[1].decode("utf-8", "replace")} if found else {}
    with suppress(ValueError, RecursionError):  # whoever gets it will say so
        value = json.loads(body)
        return value if isinstance(value, dict) else {}
    return {}
