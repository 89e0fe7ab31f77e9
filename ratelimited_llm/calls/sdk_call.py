"""One `request()` of an SDK: its arguments, and one attempt to send it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..accounts import Account
from ..books.call_records import CallRecord
from ..core.estimate import body_of, prompt_bytes
from ..core.feedback import ANSWERED, Feedback, Kind
from ..core.request import Usage
from ..engine.jobs import Answer, AttemptFailed, NotNeeded
from ..exceptions import RequestExpired
from ..telemetry.reasons import reason_of
from .attempt import Attempt
from .sdk_options import copied, raw_form, shorter_timeout
from .stream_end import StreamEnd
from .streams import StreamWatch
from .sync_async import Quick, Steps, block

if TYPE_CHECKING:
    from ..queues.entry import RemoteEntry
    from ..runtime import Runtime
    from .async_turn import AsyncTurn
    from .call_turn import CallTurn
    from .journaled import Entry

__all__ = ["SDKCall"]


class SDKCall(CallRecord):
    """The arguments of one `request()`, and how it is sent.

    Args:
        client: the door that it was made through; it is kept until the call ends.
        send: the SDK's own `request`, bound to that client.
        runtime: the client's options and queue.
        account: whose limits it spends.
        cast_to, options, stream, stream_cls: as the SDK gave them.
    """

    __slots__ = (
        "account", "cast_to", "client", "deadline_at", "entry", "key", "options", "runtime", "send",
        "stream", "stream_cls",
    )  # fmt: skip

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
            self.entry = runtime.remote.entry(self, self.entry)

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
            passed = attempt.bind(self, self._options_for(job))
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
            raise attempt.final_failure(error) from None
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
        if self.stream and raw_form(self.options) is None:
            watch.over_stream(value)

    def _options_for(self, job: Any) -> Any:
        """The SDK's options for one more pass: fewer retries left, and no longer than the deadline allows."""
        options = self.options
        if not job.attempts and self.deadline_at is None:
            return options
        options = copied(options)
        if job.attempts:
            options.max_retries = max(0, options.get_max_retries(self.client.max_retries) - job.attempts)
        if self.deadline_at is not None:
            left = self.deadline_at - job.worker.clock()
            if left <= 0:
                allowed = self.deadline_at - job.submitted_at
                raise RequestExpired(allowed - left, allowed, request_id=job.sequence)
            job.expires_at = self.deadline_at  # max_wait was for the first time only
            options.timeout = shorter_timeout(left, options.timeout, self.client.timeout)
        return options

    def learn(self, usage: Usage) -> None:
        """Let the next estimates be better."""
        self.account.estimator.learn(self.key, self.size, usage)
