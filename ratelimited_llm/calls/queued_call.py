"""One call of a client on its way through the queue: what it costs, how it is queued, and how it fares."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..books.spending import most_output
from ..books.status import Ratelimit
from ..core.estimate import body_of
from ..core.request import Cost
from ..engine.jobs import in_call
from ..engine.submission_site import submitted_at
from ..future import ResponseFuture
from ..telemetry.genai import request_attributes
from ..telemetry.meters import operation_of
from .attempt import Attempt, current_attempt
from .call_job import OWNER, CallJob, launch, make_job
from .call_turn import CallTurn, take_turn
from .sdk_call import SDKCall
from .sdk_options import copied, raw_class, raw_form
from .snapshot import snapshot
from .sync_async import block, run

if TYPE_CHECKING:
    from ..queues.answers import Delivered
    from ..queues.entry import RemoteEntry
    from ..stores.journal import Recorded
    from .async_turn import AsyncTurn
    from .journaled import Entry

__all__ = ["QueuedCall"]

_log = logging.getLogger("ratelimited_llm")

WORKERS_GRACE = 60.0  # seconds beyond max_wait after which it is clear that no worker will tell of its end


class QueuedCall(SDKCall):
    """A call of a client on its way through the queue; its arguments are those of `SDKCall`."""

    __slots__ = ("estimated",)

    job_kind: ClassVar[type[CallJob]] = CallJob
    estimated: Cost  # when it was submitted

    # -- what it costs, and what is told of it -------------------------------------------------------------------------

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

    # -- how it is queued ----------------------------------------------------------------------------------------------

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
        self.options = copied(options, **kept)

    def _declared(self) -> Any:
        raw = raw_form(self.options)
        if raw is not None:
            return raw_class(type(self.client)._sdk, raw)
        if not self.stream:
            return self.cast_to
        return self.stream_cls or getattr(self.client, "_default_stream_cls", None)

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

    # -- answered by somebody else -------------------------------------------------------------------------------------

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

    # -- how it fares --------------------------------------------------------------------------------------------------

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
