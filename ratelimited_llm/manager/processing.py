"""Requests that a `Processor` sends: jobs of one worker, under limits of the manager's own."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Mapping
from typing import Any

from ..books.status import Ratelimit
from ..books.tally import Tally
from ..core.estimate import TokenEstimator, body_of, prompt_bytes
from ..core.feedback import ANSWERED, Feedback, Kind, Outcome
from ..core.limiter import Limiter
from ..core.limits import RateLimits
from ..core.outlook import Flow, Outlook
from ..core.request import Cost, Usage
from ..core.retry import RetryPolicy
from ..engine.jobs import Answer, AttemptFailed, FutureJob, in_call
from ..engine.light_future import LightFuture
from ..engine.submission_site import submitted_at
from ..exceptions import RequestExpired
from ..functions.function_job import OWNER
from ..processors import Processor
from ..providers import dialect_for
from ..telemetry.autostart import serve_if_configured
from ..telemetry.genai import request_attributes
from ..telemetry.meters import operation_of
from ..worker import RateLimitedWorker
from .background import Background
from .records import WAITING, Record

__all__ = ["Processing"]

_log = logging.getLogger("ratelimited_llm")
_GENERIC = dialect_for(None, "")
DEEPEST = 200  # levels of a payload, as for request bodies
MOST_GROUPS = 1_000  # names that somebody makes up


class Group:
    """The pool of the requests that spend one set of limits. Equal only to itself."""

    __slots__ = ("_learns", "limits", "name", "provider", "shared_name")

    def __init__(
        self, name: str, limits: RateLimits, learns: bool, shared_name: str | None = None, provider: str = ""
    ) -> None:
        self.name = name
        self.provider = provider
        self.shared_name = shared_name
        self.limits = limits
        self._learns = learns

    @property
    def family(self) -> str:
        return self.name

    def limiter(self) -> Limiter:
        return Limiter(self.limits, charge="settle", learn=self._learns, ramp=self._learns)

    def __repr__(self) -> str:
        return f"<{self.name or 'all'}: {self.limits!r}>"


class Sender:
    """A processor, and what its `process` can be given."""

    __slots__ = ("processor", "takes")

    def __init__(self, processor: Processor) -> None:
        if not isinstance(processor, Processor):
            raise TypeError(f"processor must be a Processor (or a mapping from endpoint to one), not {processor!r}")
        self.processor = processor
        parameters = inspect.signature(processor.process).parameters.values()
        anything = any(each.kind is each.VAR_KEYWORD for each in parameters)
        self.takes = {name for name in ("timeout", "endpoint") if anything or any(name == p.name for p in parameters)}


class ProcessorJob(FutureJob):
    """One request on its way through a processor."""

    __slots__ = (
        "deadline_at",
        "dispatched_at",
        "endpoint",
        "group_tag",
        "key",
        "limit",
        "note",
        "payload",
        "sender",
        "sent_at",
        "size",
        "through",
        "used",
    )  # fmt: skip

    through: Processing
    sender: Sender
    payload: Any
    endpoint: str
    key: tuple[str, str]
    size: int
    limit: float | None  # seconds of one attempt
    deadline_at: float | None
    dispatched_at: float | None  # for the first time
    sent_at: float | None  # for the last time
    used: Usage | None
    group_tag: str  # by which it is cancelled with others

    @property
    def tag(self) -> str:
        return self.group_tag

    @property
    def tally(self) -> Tally:
        return self.through.tally

    def kind(self) -> tuple[str, str, int]:
        return self.key[1], operation_of(self.endpoint.replace(".", "/")), self.priority

    def asked(self) -> Mapping[str, Any]:
        return request_attributes(body_of(self.payload))

    def reserved(self) -> None:
        super().reserved()
        self.sent_at = self.worker.clock()
        if self.dispatched_at is None:
            self.dispatched_at = self.sent_at

    def send(self) -> Answer:
        try:
            value = self._process()
            usage = self.through.waited(self.sender.processor.usage(value))
        except Exception as error:
            outcome = self._judged(error)
            raise AttemptFailed(Feedback(outcome), self.through.policy, error) from None
        self.used = usage
        if usage is not None:
            self.through.learn(self.key, self.size, usage)
        return Answer(value, Feedback(ANSWERED, usage=usage))

    def _process(self) -> Any:
        options: dict[str, Any] = {}
        timeout = self._timeout()
        if "endpoint" in self.sender.takes:
            options["endpoint"] = self.endpoint
        if "timeout" in self.sender.takes:
            options["timeout"] = timeout
        value = self.sender.processor.process(self.payload, **options)
        return self.through.waited(value, None if "timeout" in options else timeout)

    def _timeout(self) -> float | None:
        """What an attempt may take, no longer than the deadline allows."""
        if self.deadline_at is None:
            return self.limit
        left = self.deadline_at - self.worker.clock()
        if left <= 0.0:
            allowed = self.deadline_at - self.submitted_at
            raise RequestExpired(allowed - left, allowed, request_id=self.sequence)
        return left if self.limit is None else min(left, self.limit)

    def _judged(self, error: Exception) -> Outcome:
        if isinstance(error, RequestExpired):
            return Outcome(Kind.REJECTED)
        try:
            outcome = self.through.waited(self.sender.processor.classify_error(error))
            if isinstance(outcome, Kind):
                return Outcome(outcome)
            if outcome is None or isinstance(outcome, Outcome):
                return outcome or Outcome(Kind.REJECTED)
            _log.error("classify_error of %r must answer an Outcome, a Kind or None", type(self.sender.processor))
        except Exception:
            _log.exception("classify_error_failed: %r", type(self.sender.processor))
        return Outcome(Kind.REJECTED)


class Processing:
    """The requests of one manager that processors send.

    Args:
        processors: one for all endpoints, or by endpoint.
        limits: for each limit group.
        policy: which failures are tried again.
        queue: arguments of the worker.
        background: where coroutines run.
        shared: a budget that other processes share, and what the limits are called there; None for neither.
    """

    def __init__(
        self,
        processors: Processor | Mapping[str, Processor],
        limits: RateLimits,
        policy: RetryPolicy,
        queue: Mapping[str, Any],
        background: Background,
        shared: tuple[Any, str | None] = (None, None),
    ) -> None:
        several = isinstance(processors, Mapping)
        self._senders = {name: Sender(each) for name, each in processors.items()} if several else {}  # type: ignore[union-attr]
        self._sender = None if several else Sender(processors)  # type: ignore[arg-type]
        if several and not self._senders:
            raise ValueError("the mapping from endpoint to processor is empty")
        self._queue = dict(queue)
        self._background = background
        self._lock = threading.Lock()
        self._groups: dict[tuple[int, str], Group] = {}
        self._estimator = TokenEstimator()
        self._latency: float | None = None
        self._expected = (0, 0)  # tokens, and requests that were expected to use them
        self.limits = limits
        self.policy = policy
        budget, self._shared_name = shared
        self.worker = RateLimitedWorker(budget=budget, **self._queue)
        self.tally = Tally(self.worker.budget, self.worker.clock)
        serve_if_configured()

    def shutdown(self, wait: bool, *, cancel_futures: bool) -> None:
        """See `RateLimitedWorker.shutdown`."""
        self.worker.shutdown(wait, cancel_futures=cancel_futures)

    def restart(self) -> None:
        """A worker for more requests, after the one before was shut down; what was spent stays spent."""
        self.worker = RateLimitedWorker(budget=self.worker.budget, **self._queue)

    def check(self, endpoint: str) -> None:
        """Refuse an endpoint that nobody processes.

        Raises:
            ValueError: with the known ones.
        """
        self._sender_for(endpoint)

    def submit(self, record: Record) -> LightFuture[Any]:
        """Accept a request.

        Raises:
            ValueError: its payload cannot be processed.
            QueueFull, WorkerStopped: see the worker.
        """
        sender, payload = self._sender_for(record.endpoint), _own(record.payload)
        processor = sender.processor
        if self.waited(processor.validate(payload)) is False:
            raise ValueError(f"{type(processor).__name__}.validate refused this payload")
        body = body_of(payload)
        model = body.get("model") or body.get("modelId")  # Bedrock
        key, size = (record.endpoint, model if isinstance(model, str) else ""), prompt_bytes(payload)
        cost = self._cost(processor, record, payload, key, size)
        self.limits.check(cost)
        worker = self.worker
        now = worker.clock()
        expires = None if record.deadline is None else now + record.deadline
        job = ProcessorJob(
            worker.next_sequence(), self._group(processor, payload), cost, priority=record.rank, tenant=record.tenant,
            submitted_at=now, expires_at=expires,
        )  # fmt: skip
        job.worker, job.through, job.sender, job.payload, job.endpoint = worker, self, sender, payload, record.endpoint
        job.key, job.size, job.limit, job.deadline_at = key, size, record.timeout, expires
        job.group_tag = record.tag
        job.dispatched_at = job.sent_at = job.used = None
        record.call, record.cost = job, cost
        future: LightFuture[Any] = LightFuture(job, OWNER, submitted_at(3))
        job.future = future
        worker.submit(job, nested=worker.bounded and in_call())
        job.prepare()
        return future

    def _sender_for(self, endpoint: str) -> Sender:
        sender = self._sender or self._senders.get(endpoint)
        if sender is None:
            raise ValueError(f"nobody processes {endpoint!r}: the endpoints are {', '.join(sorted(self._senders))}")
        return sender

    def _cost(self, processor: Processor, record: Record, payload: Any, key: tuple[str, str], size: int) -> Cost:
        told: Any = record.tokens
        if told is None:
            told = self.waited(processor.estimate_tokens(payload))
        if told is None:
            prompt, output = self._estimator.prompt_tokens(key, size), self._estimator.output_tokens(key)
            told = _GENERIC.cost(record.endpoint, body_of(payload), prompt, output)
        elif not isinstance(told, Cost):
            if isinstance(told, bool) or not isinstance(told, int) or told < 0:
                raise ValueError(f"estimate_tokens must answer a whole number from 0 up, a Cost or None, not {told!r}")
            told = Cost(told, told, told, 0)
        with self._lock:
            self._expected = self._expected[0] + told.reserved, self._expected[1] + 1
        return told  # type: ignore[no-any-return]

    def _group(self, processor: Processor, payload: Any) -> Group:
        name = processor.limit_group(payload)
        with self._lock:
            group = self._groups.get((id(processor), name))
            if group is None:
                if len(self._groups) > MOST_GROUPS:
                    self._groups.clear()
                group = self._groups[id(processor), name] = self._new_group(processor, name)
            return group

    def _new_group(self, processor: Processor, name: str) -> Group:
        shared = None if self._shared_name is None else f"{self._shared_name}|{type(processor).__name__}|{name}"
        provider = processor.provider or type(processor).__name__
        return Group(name, self.limits, processor.learn_limits, shared, provider)

    # -- what jobs need -----------------------------------------------------------------------------------------------

    def waited(self, value: Any, timeout: float | None = None) -> Any:
        """What a method of a processor answered; what an async one answers is waited for, on the background's loop."""
        if not inspect.isawaitable(value):
            return value
        return self._background.submit(value if timeout is None else asyncio.wait_for(value, timeout)).result()

    def learn(self, key: tuple[str, str], size: int, usage: Any) -> None:
        """Teach the estimator what an answer really used."""
        with self._lock:
            self._estimator.learn(key, size, usage)

    # -- how requests fare --------------------------------------------------------------------------------------------

    def fares(self, record: Record) -> Ratelimit:
        """How an open request fares; never blocks."""
        job, now = record.job, self.worker.clock()
        if not isinstance(job, ProcessorJob):  # it ends just now
            return Ratelimit("queued", 0.0)
        tries = job.attempts + job.refusals
        queued = (now if job.dispatched_at is None else job.dispatched_at) - job.submitted_at
        if job.state not in WAITING:
            sent = now if job.sent_at is None else job.sent_at
            return Ratelimit("running", queued, now - sent, tries + 1)
        place = job.worker.place(job)
        if place is None:
            return Ratelimit("queued", queued, attempts=tries)
        outlook = self._outlook(job.pool)
        held_by = outlook.wait(place[2])[1]
        return Ratelimit("queued", queued, None, tries, place[0], place[1], outlook.answered_in(place[2]), held_by)

    def fared(self, record: Record, state: str) -> Ratelimit:
        """How a request fared that has just ended."""
        job, now = record.call, self.worker.clock()
        if job.dispatched_at is None:
            return Ratelimit(state, now - job.submitted_at)
        latency = now - job.sent_at
        if state == "done":
            self._latency = latency if self._latency is None else self._latency + 0.1 * (latency - self._latency)
        tries = job.attempts + job.refusals + (state == "done")
        return Ratelimit(state, job.dispatched_at - job.submitted_at, latency, max(1, tries))

    def usage(self, record: Record, result: Any) -> Usage | None:
        """The tokens that an answer used, as its processor read them."""
        return record.call.used  # type: ignore[no-any-return]

    def reset_after_fork(self) -> None:
        """In the child of a fork: a thread that is not here may have held the lock."""
        self._lock = threading.Lock()

    def _outlook(self, group: Any) -> Outlook:
        survey = self.worker.survey(group)
        tokens, requests = self._expected
        mean = tokens / max(1, requests)
        flows = tuple(
            Flow(each.dimension, each.remaining, each.limit / each.period, need)
            for each in survey.standings
            if (need := 1.0 if each.dimension in ("rpm", "rpd") else mean) > 0.0
        )
        return Outlook(flows, survey.holding, self._latency)

    @property
    def groups(self) -> dict[str, Any]:
        """The pools that were used, by the name of their group."""
        with self._lock:
            return {group.name: group for group in self._groups.values()}


def _own(payload: Any, depth: int = 0) -> Any:
    """A payload with its own dicts and lists, so that what the caller changes later changes nothing."""
    if depth > DEEPEST:
        raise ValueError(f"the payload is nested more than {DEEPEST} levels deep, or contains itself")
    if type(payload) is dict:
        return {name: _own(each, depth + 1) for name, each in payload.items()}
    if type(payload) is list:
        return [_own(each, depth + 1) for each in payload]
    return payload
