"""One call of a client: what it costs, one attempt at it, and its two faces, a future or a turn to take."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..accounts import Account
from ..books.call_records import CallRecord
from ..books.spending import most_output
from ..books.status import Ratelimit
from ..core.estimate import body_of, prompt_bytes
from ..core.feedback import ANSWERED, Feedback, Kind
from ..core.request import Cost, Usage
from ..engine.jobs import Answer, AttemptFailed, NotNeeded, in_call
from ..exceptions import RequestExpired
from ..future import ResponseFuture, submitted_at
from ..telemetry.genai import request_attributes
from ..telemetry.meters import operation_of
from ..telemetry.reasons import reason_of
from .attempt import Attempt, current_attempt
from .call_job import OWNER, CallJob, launch, make_job
from .call_turn import CallTurn, take_turn
from .snapshot import snapshot
from .streams import StreamWatch
from .waits import Quick, Steps, block, run

if TYPE_CHECKING:
    from ..queues.answers import Delivered
    from ..queues.entry import RemoteEntry
    from ..runtime import Runtime
    from ..stores.journal import Recorded
    from .async_turn import AsyncTurn
    from .journaled import Entry, Tape

__all__ = ["QueuedCall", "StreamEnd"]

_log = logging.getLogger("ratelimited_llm")

RAW_HEADER = "x-stainless-raw-response"  # "true" or "raw" by with_raw_response, "stream" by with_streaming_response
CAST_HEADER = "____stainless_override_cast_to"
WORKERS_GRACE = 60.0  # seconds beyond max_wait after which it is clear that no worker will tell of its end
# What must be there when the call returns: C code and identity checks would meet the future instead.
PLAIN_TYPES = frozenset({str, bytes, bytearray, int, float, bool, dict, list, tuple, type(None), object})


class QueuedCall(CallRecord):
    """The arguments of one `request()` and all that has to be known to queue it.

    Args:
        client: the door that it was made through; it is kept until the call ends.
        send: the SDK's own `request`, bound to that client.
        runtime: the client's options and queue.
        account: whose limits it spends.
        cast_to, options, stream, stream_cls: as the SDK gave them.
    """

    __slots__ = (
        "account", "cast_to", "client", "deadline_at", "entry", "estimated", "key", "options", "runtime", "send",
        "stream", "stream_cls",
    )  # fmt: skip

    job_kind: ClassVar[type[CallJob]] = CallJob
    estimated: Cost  # when it was submitted

    def __init__(
        self, client: Any, send: Callable[..., Any], runtime: Runtime, account: Account, cast_to: Any, options: Any,
        stream: bool, stream_cls: Any,
    ) -> None:  # fmt: skip
        body = body_of(options.json_data)
        model = body.get("model")
        model = model if isinstance(model, str) else ""
        super().__init__(account.pool(model), model, prompt_bytes(body))
        self.client = client
        self.send = send
        self.runtime = runtime
        self.account = account
        self.cast_to = cast_to
        self.options = options
        self.stream = stream
        self.stream_cls = stream_cls
        self.key = (self.pool.family, options.url)
        self.deadline_at: float | None = None
        self.entry: Entry | RemoteEntry | None = None
        journal = runtime.journal
        if journal is not None:
            from .journaled import entry_for  # it knows sqlite3, which costs nothing to those who keep no journal

            self.entry = entry_for(journal, runtime.provider, account.base_url, options)
        if runtime.remote is not None:
            from ..queues.entry import RemoteEntry

            self.entry = RemoteEntry(self, runtime.remote, self.entry)

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

    def kind(self) -> tuple[str, str, int]:
        return self.model, operation_of(self.key[1]), self.runtime.options.rank

    def asked(self) -> Mapping[str, Any]:
        return request_attributes(body_of(self.options.json_data))

    def traced_by_sdk(self) -> bool:
        return getattr(self.client, "_tracer", None) is not None

    def most_output(self) -> int | None:
        return most_output(self.options.url, body_of(self.options.json_data))

    def _own_estimate(self, body: Any) -> int | None:
        estimate = self.runtime.estimator
        if estimate is None:
            return None
        tokens = estimate(body)
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
            raise ValueError(f"estimator= must answer a whole number of tokens from 0 up, not {tokens!r}")
        return tokens

    def job_options(self) -> dict[str, Any]:
        """How it is queued, from this moment on."""
        options = self.runtime.options
        if not self.submitted_at:
            self.submitted_at = self.runtime.worker.clock()
        if options.deadline is not None:
            self.deadline_at = self.submitted_at + options.deadline
        bounded = options.max_wait is not None or options.deadline is not None
        wait = options.allowed_wait if bounded else None
        if wait is not None and self.runtime.remote is not None:
            wait = options.deadline or wait + WORKERS_GRACE  # max_wait is for the workers, who know when they send it
        return {
            "priority": options.rank,
            "tenant": options.tenant,
            "submitted_at": self.submitted_at,
            "expires_at": None if wait is None else self.submitted_at + wait,
        }

    def as_future(self) -> Any:
        """Queue it, and return at once the future that is its response."""
        runtime, ledger = self.runtime, self.runtime.ledger
        self._snapshot()
        self.estimated = self.cost()
        runtime.limits.check(self.estimated)
        job = make_job(self, contextvars.copy_context())
        self.number, self.counted = job.sequence, True
        where = submitted_at(3)
        future: ResponseFuture[Any] = ResponseFuture.of(self._declared())(job, OWNER, where)
        ledger.submitted(self, self.estimated)
        try:
            launch(self, job, future)
        except BaseException:
            ledger.withdrawn(self)
            raise
        runtime.hint.submitted()
        return future

    def _snapshot(self) -> None:
        """Keep the request as it is now, whatever the caller does with it later."""
        options = self.options
        prepare = getattr(self.client, "_copy_and_prepare", None)  # anthropic's own: iterators and files are read once
        if prepare is not None:
            options = prepare(options)
        kept = {"json_data": snapshot(options.json_data)}
        if options.extra_json is not None:
            kept["extra_json"] = snapshot(options.extra_json)
        if isinstance(options.headers, dict):
            kept["headers"] = dict(options.headers)
        if options.idempotency_key is None:
            kept["idempotency_key"] = self.client._idempotency_key()  # one for all attempts, as within the SDK
        self.options = options.model_copy(update=kept) if hasattr(options, "model_copy") else options.copy(update=kept)

    def _declared(self) -> Any:
        raw = _raw(_headers(self.options))
        if raw is not None:
            return _raw_class(type(self.client)._sdk, raw)
        return self.stream_cls if self.stream else self.cast_to

    def in_own_thread(self) -> Any:
        """Wait for its turn, send it in this thread, and return the SDK's plain object."""
        self.estimated = self.cost()
        self.runtime.limits.check(self.estimated)
        if in_call() and self.runtime.limits.max_concurrency is not None and self.runtime.remote is None:
            # Its outer call may hold the only place: it would wait for itself.
            with Attempt(self.account.dialect):
                return self.sent_with(self.options)
        return block(take_turn(self, CallTurn, nested=in_call()))

    def in_own_task(self, turn: type[AsyncTurn]) -> Coroutine[Any, Any, Any]:
        """The same for a task, which sends it on its event loop; answers what to await.

        Args:
            turn: the kind of job; whoever calls this knows asyncio.
        """
        self.estimated = self.cost()
        self.runtime.limits.check(self.estimated)
        nested = current_attempt() is not None
        if nested and self.runtime.limits.max_concurrency is not None and self.runtime.remote is None:
            return self._past_the_queue()
        return run(take_turn(self, turn, nested=nested))

    async def _past_the_queue(self) -> Any:
        with Attempt(self.account.dialect):
            return await self.sent_with(self.options)

    # -- sending it ---------------------------------------------------------------------------------------------------

    def sent_with(self, options: Any) -> Any:
        """What the SDK answers, or for a client of asyncio something to await for it."""
        return self.send(self.cast_to, options, stream=self.stream, stream_cls=self.stream_cls)

    def attempt(self, job: Any) -> Answer:
        """Pass once through the SDK, in this thread; raises as `attempt_steps`."""
        return block(self.attempt_steps(job))

    def attempt_steps(self, job: Any, rest: CallTurn | AsyncTurn | None = None) -> Steps[Answer]:
        """Pass once through the SDK.

        Args:
            job: the call as the worker has it.
            rest: see `Attempt`.

        Raises:
            AttemptFailed: no answer; it says whether there may be another attempt, and the SDK's own error.
            BaseException: while it rested, it was given up with this.
        """
        attempt, ledger = Attempt(self.account.dialect, job.attempts, job.refusals, rest), self.runtime.ledger
        try:
            entry = None if self.entry is None or self.entry.elsewhere else self.entry
            if entry is not None and (yield Quick(entry.claim)):
                ledger.perhaps_paid_again()
            passed = attempt.of(self, self._options_for(job))
            if self.trace is not None:
                self.trace.sending(self)
            attempt.begin()
            try:
                value = yield passed
            finally:
                attempt.end()
                if self.trace is not None:
                    self.trace.sent()
        except AttemptFailed as failure:
            self.came_back(failure)
            raise
        except NotNeeded:
            ledger.unsent(self)
            raise
        except BaseException as error:
            if attempt.given_up:
                raise
            unheard = isinstance(error, self.client._sdk.APIConnectionError)
            ledger.gave_up(self, perhaps_paid=unheard or attempt.outcome is ANSWERED)
            raise attempt.over(error) from None
        answer = self._answer(job, attempt, value)
        if self.trace is not None and not answer.open:
            self.trace.answered(self, answer.value, answer.feedback.usage, attempt.accepted)
        if entry is not None and attempt.accepted is not None and not answer.open:
            from .replay import recorded_answer

            response = attempt.accepted
            yield Quick(partial(entry.record, recorded_answer(response, response.content, self.sent_at)))
        return answer

    def came_back(self, failure: AttemptFailed) -> None:
        """An attempt failed, and there may be another."""
        outcome = failure.feedback.outcome
        self.runtime.ledger.back(self, outcome.kind, reason_of(failure))
        if self.trace is not None:
            self.trace.came_back(failure)
        if outcome.kind is Kind.LIMITED:
            self.account.news.refused(self.pool.family, outcome)

    def _answer(self, job: Any, attempt: Attempt, value: Any) -> Answer:
        if attempt.readings:
            self.account.news.answered(self.pool.family, attempt.readings)
        ledger, response = self.runtime.ledger, attempt.accepted
        if response is not None and not response.is_closed:
            self._watch(job, response, value)
            ledger.opened(self)
            return Answer(value, Feedback(ANSWERED, attempt.readings), open=True)
        usage = self.account.dialect.usage(value)
        if usage is not None:
            self.learn(usage)
        ledger.answered(self, usage)
        return Answer(value, Feedback(ANSWERED, attempt.readings, usage))

    def _watch(self, job: Any, response: Any, value: Any) -> None:
        entry = self.entry
        tape = None if entry is None or entry.elsewhere else entry.tape(response, self.sent_at)
        end = StreamEnd(self, job, tape)
        watch = StreamWatch(self.account.dialect, end, end.saw)
        watch.over_response(response, tape)
        if self.stream and _raw(_headers(self.options)) is None:
            watch.over_stream(value)

    def replayed(self, found: Recorded | Delivered) -> Any:
        """What the SDK makes of an answer out of the journal, or of a worker's; raises what that failed with."""
        recorded = found.accepted(self) if found.elsewhere else found
        with Attempt(self.account.dialect):  # so that none of the hooks takes it for a call of its own
            from .replay import replay

            return replay(self.client, self.cast_to, self.options, self.stream, self.stream_cls, recorded)

    def unreadable(self, error: Exception, found: Recorded | Delivered) -> Entry | RemoteEntry | None:
        """The SDK makes nothing of it (it was made by another version, say): it is asked for again.

        Answers the call's new place in the queue. What a worker answered is not asked for again: `error` is raised.
        """
        if found.elsewhere:
            raise error
        _log.warning("journal_unreadable: %s; the call is sent again", type(error).__name__)
        if self.entry is not None:
            self.entry.release()
            self.entry = self.entry.afresh()
        return self.entry

    def over(self, found: Recorded | Delivered) -> None:
        """It has ended with an answer that it did not have to fetch itself."""
        if found.elsewhere:
            self.runtime.ledger.resolved(self)
        else:
            self.runtime.ledger.replayed(self)

    # -- how it fares -------------------------------------------------------------------------------------------------

    def fared(self, state: str, *, replayed: bool = False) -> Ratelimit:
        """How it fared, now that it has ended."""
        now = self.runtime.ledger.clock()
        if not self.tries or replayed:
            return Ratelimit(state, now - self.submitted_at, replayed=replayed)
        return Ratelimit(state, self.dispatched_at - self.submitted_at, now - self.sent_at, self.tries)

    def fares(self, job: Any, *, running: bool) -> Ratelimit:
        """How it fares now; never blocks."""
        now = self.runtime.ledger.clock()
        queued = (self.dispatched_at if self.tries else now) - self.submitted_at
        if running:
            return Ratelimit("running", queued, now - self.sent_at if self.tries else 0.0, self.tries)
        place = job.worker.place(job)
        if place is None:
            return Ratelimit("queued", queued, attempts=self.tries)
        outlook = self.runtime.outlook(self.pool)
        held_by = outlook.wait(place[2])[1]
        return Ratelimit("queued", queued, None, self.tries, place[0], place[1], outlook.answered_in(place[2]), held_by)

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


class StreamEnd:
    """What happens when a stream has ended; may run in a finalizer."""

    __slots__ = ("begun", "call", "job", "tape")

    def __init__(self, call: QueuedCall, job: Any, tape: Tape | None) -> None:
        self.call = call
        self.job = job
        self.tape = tape
        self.begun = False

    def saw(self, chunk: Any) -> bool:
        """A chunk was read; answers whether the next one matters too."""
        call = self.call
        if not self.begun:
            self.begun = True
            call.runtime.ledger.first_chunk(call)
        if call.trace is None:
            return False
        call.trace.chunk(call, chunk)
        return True

    def __call__(self, usage: Usage | None, error: BaseException | None) -> None:
        trouble = None
        body = getattr(error, "body", None)
        if body:
            trouble = Feedback(self.call.account.dialect.classify_event(body))
        if usage is not None:
            self.call.learn(usage)
        if self.tape is not None:
            self.tape.ended()
        self.call.runtime.ledger.stream_ended(self.call, usage)
        if self.call.trace is not None:
            self.call.trace.stream_over(self.call, self.job.worker.engine, usage, error)
        self.job.worker.stream_ended(self.job, usage, trouble)


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
