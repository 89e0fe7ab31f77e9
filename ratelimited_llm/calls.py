"""One call of a client: what it costs, one attempt at it, and its two faces, a future or a turn to take."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from .attempt import Attempt
from .core.estimate import body_of, prompt_bytes
from .core.feedback import ANSWERED, Feedback, Kind
from .core.request import Cost, Lane, Usage
from .exceptions import RequestExpired
from .future import ResponseFuture, submitted_at
from .jobs import SENDING, Answer, AttemptFailed, FutureJob, TurnJob, in_call
from .light_future import begin
from .pools import Account, CallPool
from .snapshot import snapshot
from .streams import StreamWatch

if TYPE_CHECKING:
    from .client import Runtime, Tally
    from .light_future import LightFuture

__all__ = ["QueuedCall"]

RAW_HEADER = "x-stainless-raw-response"  # "true" or "raw" by with_raw_response, "stream" by with_streaming_response
CAST_HEADER = "____stainless_override_cast_to"
# What must be there when the call returns: C code and identity checks would meet the future instead.
PLAIN_TYPES = frozenset({str, bytes, bytearray, int, float, bool, dict, list, tuple, type(None), object})


class QueuedCall:
    """The arguments of one `request()` and all that has to be known to queue it.

    Args:
        client: the door that it was made through; it is kept until the call ends.
        send: the SDK's own `request`, bound to that client.
        runtime: the client's options and queue.
        account: whose limits it spends.
        cast_to, options, stream, stream_cls: as the SDK gave them.
    """

    __slots__ = (
        "account", "cast_to", "client", "deadline_at", "key", "options", "pool", "runtime", "send", "size", "stream",
        "stream_cls",
    )  # fmt: skip

    def __init__(
        self, client: Any, send: Callable[..., Any], runtime: Runtime, account: Account, cast_to: Any, options: Any,
        stream: bool, stream_cls: Any,
    ) -> None:  # fmt: skip
        self.client = client
        self.send = send
        self.runtime = runtime
        self.account = account
        self.cast_to = cast_to
        self.options = options
        self.stream = stream
        self.stream_cls = stream_cls
        body = body_of(options.json_data)
        model = body.get("model")
        self.pool: CallPool = account.pool(model if isinstance(model, str) else "")
        self.key = (self.pool.family, options.url)
        self.size = prompt_bytes(body)
        self.deadline_at: float | None = None

    # -- before it is sent --------------------------------------------------------------------------------------------

    def consumed_at_once(self) -> bool:
        """Whether what the call returns is used by something that cannot be made to wait for it."""
        options = self.options
        if options.files or getattr(options, "content", None) is not None:
            return True  # the caller may close its files as soon as the call returns
        headers = _headers(options)
        if headers and any(name.lower() == CAST_HEADER for name in headers):
            return True
        raw = _raw(headers)
        if raw is not None:
            return raw == "stream"  # a context manager takes the answer
        if self.stream:
            return False
        origin = getattr(self.cast_to, "__origin__", self.cast_to)
        if origin in PLAIN_TYPES:
            return True
        return not isinstance(origin, type) or not hasattr(origin, "model_fields")  # binary content, httpx.Response

    def cost(self) -> Cost:
        """What it will probably be charged, by what is known now."""
        estimator = self.account.estimator
        body = body_of(self.options.json_data)
        prompt = self._own_estimate(body)
        if prompt is None:
            prompt = estimator.prompt_tokens(self.key, self.size)
        return self.account.dialect.cost(self.options.url, body, prompt, estimator.output_tokens(self.key))

    def _own_estimate(self, body: Any) -> int | None:
        estimate = self.runtime.estimator
        if estimate is None:
            return None
        tokens = estimate(body)
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
            raise ValueError(f"estimator= must answer a whole number of tokens from 0 up, not {tokens!r}")
        return tokens

    def _job_options(self, now: float) -> dict[str, Any]:
        options = self.runtime.options
        if options.deadline is not None:
            self.deadline_at = now + options.deadline
        wait = options.allowed_wait
        return {
            "priority": options.rank,
            "tenant": options.tenant,
            "submitted_at": now,
            "expires_at": None if wait is None else now + wait,
        }

    def as_future(self) -> Any:
        """Queue it, and return at once the future that is its response."""
        worker = self.runtime.worker
        options = self.options.model_copy() if hasattr(self.options, "model_copy") else self.options.copy()
        options.json_data = snapshot(options.json_data)
        if options.extra_json is not None:
            options.extra_json = snapshot(options.extra_json)
        if isinstance(options.headers, dict):
            options.headers = dict(options.headers)
        if options.idempotency_key is None:
            options.idempotency_key = self.client._idempotency_key()  # one for all attempts, as within the SDK
        self.options = options
        cost = self.cost()
        self.runtime.limits.check(cost)
        job = _CallJob(worker.next_sequence(), self.pool, cost, **self._job_options(worker.clock()))
        where = submitted_at(3)
        future: ResponseFuture[Any] = ResponseFuture.of(self._declared())(job, _OWNER, where)
        job.worker, job.future, job.call, job.lane = worker, future, self, self.runtime.lane
        job.context, job.tally = contextvars.copy_context(), self.runtime.tally
        job.prepare()
        job.tally.add()
        try:
            worker.submit(job)
        except BaseException:
            job.tally.drop()
            raise
        self.runtime.hint.submitted()
        return future

    def _declared(self) -> Any:
        raw = _raw(_headers(self.options))
        if raw is not None:
            return _raw_class(type(self.client)._sdk, raw)
        return self.stream_cls if self.stream else self.cast_to

    def in_own_thread(self) -> Any:
        """Wait for its turn, send it in this thread, and return the SDK's plain object."""
        worker = self.runtime.worker
        cost = self.cost()
        self.runtime.limits.check(cost)
        nested = in_call()
        job = TurnJob(worker, worker.next_sequence(), self.pool, cost, **self._job_options(worker.clock()))
        if not nested:
            job.lane = self.runtime.lane
        elif self.runtime.limits.max_concurrency is not None:
            # Its outer call may hold the only place: it would wait for itself.
            with Attempt(self.account.dialect):
                return self.send(self.cast_to, self.options, stream=self.stream, stream_cls=self.stream_cls)
        worker.submit(job, nested=nested)
        while True:
            job.wait()
            try:
                with SENDING:
                    answer = self.attempt(job, None if self.deadline_at is not None else partial(_next_turn, job))
            except AttemptFailed as failure:
                worker.failed(job, failure.feedback, failure.policy, failure.error)
                del failure
                continue
            if answer.open:
                worker.streaming(job, answer.feedback)
            else:
                worker.answered(job, answer.feedback)
            return answer.value

    # -- sending it ---------------------------------------------------------------------------------------------------

    def attempt(self, job: Any, rest: Callable[[AttemptFailed], None] | None = None) -> Answer:
        """Pass once through the SDK, in this thread.

        Args:
            job: the call as the worker has it.
            rest: see `Attempt`.

        Raises:
            AttemptFailed: no answer; it says whether there may be another attempt, and the SDK's own error.
            BaseException: while it rested, it was given up with this.
        """
        attempt = Attempt(self.account.dialect, job.attempts, job.refusals, rest)
        options = self._options_for(job)
        try:
            with attempt:
                value = self.send(self.cast_to, options, stream=self.stream, stream_cls=self.stream_cls)
        except AttemptFailed as failure:
            if failure.feedback.outcome.kind is Kind.LIMITED:
                self.account.news.refused(self.pool.family, failure.feedback.outcome)
            raise
        except BaseException as error:
            if attempt.given_up:
                raise
            raise attempt.over(error) from None
        return self._answer(job, attempt, value)

    def _answer(self, job: Any, attempt: Attempt, value: Any) -> Answer:
        self.account.news.answered(self.pool.family, attempt.readings)
        response = attempt.stream_response
        if response is not None and not response.is_closed:
            watch = StreamWatch(self.account.dialect, _StreamEnd(self, job))
            watch.over_response(response)
            if self.stream and _raw(_headers(self.options)) is None:
                watch.over_stream(value)
            return Answer(value, Feedback(ANSWERED, attempt.readings), open=True)
        usage = self.account.dialect.usage(value)
        if usage is not None:
            self.learn(usage)
        return Answer(value, Feedback(ANSWERED, attempt.readings, usage))

    def learn(self, usage: Usage) -> None:
        """Let the next estimates be better."""
        self.account.estimator.learn(self.key, self.size, usage)

    def _options_for(self, job: Any) -> Any:
        """The SDK's options for one more pass: fewer retries left, and no longer than the deadline allows."""
        options = self.options
        if not job.attempts and self.deadline_at is None:
            return options
        options = options.model_copy() if hasattr(options, "model_copy") else options.copy()
        if job.attempts:
            options.max_retries = max(0, options.get_max_retries(self.client.max_retries) - job.attempts)
        if self.deadline_at is not None:
            left = self.deadline_at - job.worker.clock()
            if left <= 0:
                allowed = self.deadline_at - job.submitted_at
                raise RequestExpired(allowed - left, allowed, request_id=job.sequence)
            job.expires_at = self.deadline_at  # max_wait was for the first time only
            options.timeout = _within(left, options.timeout, self.client.timeout)
        return options


def _next_turn(job: TurnJob, failure: AttemptFailed) -> None:
    """Give the place back after a failed attempt, and wait for another."""
    job.worker.failed(job, failure.feedback, failure.policy, failure.error)
    job.wait()


class _CallJob(FutureJob):
    """A call on its way to a future."""

    __slots__ = ("call", "context", "costed", "lane", "tally")

    call: QueuedCall
    context: contextvars.Context
    lane: Lane | None
    tally: Tally

    def recost(self) -> None:
        version = self.call.account.estimator.version
        if getattr(self, "costed", 0) == 0 and version:
            self.costed = version
            if self.call.runtime.estimator is None:
                self.cost = self.call.cost()

    def send(self) -> Answer:
        return self.context.run(self.call.attempt, self)

    def _resolve(self, future: LightFuture[Any], answer: Answer) -> None:
        super()._resolve(future, answer)
        self.tally.drop()

    def _fail(self, error: BaseException) -> None:
        future = self.future
        super()._fail(error)
        if future is not None and not future.cancelled():  # a cancelled one was counted by its owner
            self.tally.drop()

    def abandon(self, error: BaseException) -> None:
        super().abandon(error)
        self.tally.open = 0


class _StreamEnd:
    """What happens when a stream has ended; may run in a finalizer."""

    __slots__ = ("call", "job")

    def __init__(self, call: QueuedCall, job: Any) -> None:
        self.call = call
        self.job = job

    def __call__(self, usage: Usage | None, error: BaseException | None) -> None:
        trouble = None
        body = getattr(error, "body", None)
        if body:
            trouble = Feedback(self.call.account.dialect.classify_event(body))
        if usage is not None:
            self.call.learn(usage)
        self.job.worker.stream_ended(self.job, usage, trouble)


class _Owner:
    """Hears of the futures of all clients."""

    def cancelled(self, future: LightFuture[Any]) -> None:
        job = future._call
        job.worker.cancel(job)
        begin(future)
        job.tally.drop()

    def waiting(self, future: LightFuture[Any]) -> None:
        job = future._call
        if job is not None:
            job.call.runtime.hint.waiting()

    def describe(self, future: LightFuture[Any]) -> str:
        job = future._call
        if job is None:
            return "queued"
        if not future.running():
            return str(job.worker.place(job))
        tries = job.attempts + job.refusals + 1
        return f"running {time.monotonic() - job.submitted_at:.1f}s" + (f" try {tries}" if tries > 1 else "")


_OWNER = _Owner()


def _headers(options: Any) -> Any:
    return options.headers if hasattr(options.headers, "items") else None


def _raw(headers: Any) -> str | None:
    """How the answer was asked for raw, or None when it was not."""
    if headers:
        for name, value in headers.items():
            if name.lower() == RAW_HEADER and isinstance(value, str):
                return value
    return None


def _raw_class(sdk: Any, raw: str) -> Any:
    if raw == "true":
        with suppress(AttributeError):
            return sdk._legacy_response.LegacyAPIResponse
    return sdk._response.APIResponse


def _within(left: float, timeout: Any, default: Any) -> Any:
    """An attempt's timeout, no longer than what is left of the deadline."""
    if timeout is None or isinstance(timeout, (int, float)):
        return left if timeout is None else min(left, timeout)
    if not hasattr(timeout, "connect"):  # not given: the client's
        return _within(left, default, None)
    parts = {name: getattr(timeout, name) for name in ("connect", "read", "write", "pool")}
    return type(timeout)(**{name: left if value is None else min(left, value) for name, value in parts.items()})
