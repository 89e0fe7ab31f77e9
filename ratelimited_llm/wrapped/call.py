"""One call of a client that is not ours: what it costs, how it is queued, and one attempt at it."""

from __future__ import annotations

import contextvars
import copy
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..core.estimate import prompt_bytes
from ..core.feedback import ANSWERED, Feedback, Kind, Outcome, Reading
from ..core.request import Cost
from ..engine.jobs import SENDING, Answer, AttemptFailed, FutureJob, in_call
from ..engine.steps import NEVER_AGAIN
from ..engine.submission_site import submitted_at
from ..engine.turn_jobs import TurnJob
from ..functions.function_job import OWNER
from ..future import ResponseFuture
from ..providers.parsing import field
from ..telemetry.genai import request_attributes
from ..telemetry.meters import operation_of
from .answers import headers_of, hearing, outcome_of, usage_of

if TYPE_CHECKING:
    from ..books.tally import Tally
    from .client_queue import Queue

__all__ = ["WrappedCall"]

# What methods do that are named for it, rather than for what they make (`chat.completions.create`).
METHODS = {
    "chat_completion": "chat", "complete": "text_completion", "converse": "chat", "converse_stream": "chat",
    "embed_content": "embeddings", "embed_documents": "embeddings", "embed_query": "embeddings",
    "generate_content": "generate_content", "generate_content_stream": "generate_content",
    "generate_images": "image_generation", "stream_chat": "chat", "stream_complete": "text_completion",
}  # fmt: skip


class Anything:
    """What the answer of a call is declared as: nobody knows, so its future can what any of them can.

    Without a length and a truth of its own: `list()` would trust the one, and `if answer:` has to mean something.
    """

    __iter__ = __getitem__ = __contains__ = __enter__ = __exit__ = lambda self, *args: None  # only their names count


class WrappedCall:
    """The arguments of one call, and what it will cost.

    Args:
        queue: whose limits and options count.
        path: how it was reached from the client ("chat.completions.create").
        method: what makes it.
        args, kwargs: its arguments.
    """

    def __init__(
        self, queue: Queue, path: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.queue = queue
        self.method = method
        self.args = args
        self.kwargs = kwargs
        body = _body(args, kwargs)
        model = next((body[name] for name in ("model", "modelId", "model_id") if isinstance(body.get(name), str)), "")
        self.path = path
        self.model = model
        self.pool = queue.account.pool(model)
        self.key = (self.pool.family, path)
        self.size = prompt_bytes(body)
        self.cost = self._cost("/" + "/".join(path.split(".")[:-1]), body)
        queue.limits.check(self.cost)

    def _cost(self, endpoint: str, body: Mapping[str, Any]) -> Cost:
        tokens = self.queue.tokens
        if tokens is not None:
            amount = tokens(*self.args, **self.kwargs) if callable(tokens) else tokens
            if isinstance(amount, bool) or not isinstance(amount, int) or amount < 0:
                raise ValueError(f"tokens must be a whole number from 0 up, not {amount!r}")
            return Cost(amount, amount, amount, 0)
        estimator = self.queue.account.estimator
        prompt = estimator.prompt_tokens(self.key, self.size)
        return self.queue.account.dialect.cost(endpoint, body, prompt, estimator.output_tokens(self.key))

    def operation(self) -> str:
        """What it does, as `operation_of` says it."""
        *parts, method = self.path.split(".")
        return METHODS.get(method) or operation_of("/".join(parts) or method)

    # -- its two faces ------------------------------------------------------------------------------------------------

    def as_future(self) -> ResponseFuture[Any]:
        """Queue it as it is now; returns at once with its future."""
        self.args = tuple(_kept(value) for value in self.args)
        self.kwargs = {name: _kept(value) for name, value in self.kwargs.items()}
        worker = self.queue.worker
        job = WrappedJob(worker.next_sequence(), self.pool, self.cost, **self._options())
        job.worker, job.call, job.context = worker, self, contextvars.copy_context()
        future: ResponseFuture[Any] = ResponseFuture.of(Anything)(job, OWNER, submitted_at())
        job.future = future
        worker.submit(job, nested=worker.bounded and in_call())
        job.prepare()
        return future

    def in_own_thread(self) -> Any:
        """Wait for its turn, make it in this thread, and return what it returns."""
        nested = in_call()
        if nested and self.queue.limits.max_concurrency is not None:
            return self.method(*self.args, **self.kwargs)  # its outer call may hold the only place
        worker = self.queue.worker
        job = WrappedTurn(worker, worker.next_sequence(), self.pool, self.cost, **self._options())
        job.call = self
        worker.submit(job, nested=nested)
        while True:
            job.wait()
            try:
                with SENDING:
                    answer = job.tally.around(job, self.attempt)
            except AttemptFailed as failure:
                worker.failed(job, failure.feedback, failure.policy, failure.error)
                del failure
                continue
            worker.answered(job, answer.feedback)
            return answer.value

    def _options(self) -> dict[str, Any]:
        options, now = self.queue.options, self.queue.worker.clock()
        wait = options.allowed_wait
        return {
            "priority": options.rank,
            "tenant": options.tenant,
            "submitted_at": now,
            "expires_at": None if wait is None else now + wait,
        }

    # -- making it ----------------------------------------------------------------------------------------------------

    def attempt(self) -> Answer:
        """Make it once, in this thread.

        Raises:
            AttemptFailed: it failed; whether for good is in its policy.
        """
        with hearing() as heard:
            try:
                value = self.method(*self.args, **self.kwargs)
                if hasattr(type(value), "__await__"):
                    value = _refuse_async(value)
                readings = self._readings(headers_of(value), heard)
            except BaseException as error:
                raise self._failure(error, self._readings(headers_of(error), heard)) from None
        account = self.queue.account
        usage = usage_of(value, account.dialect)
        if usage is not None:
            account.estimator.learn(self.key, self.size, usage)
        account.news.answered(self.pool.family, readings)
        return Answer(value, Feedback(ANSWERED, readings, usage))

    def _failure(self, error: BaseException, readings: tuple[Reading, ...]) -> AttemptFailed:
        """What an exception means: a refusal, something that is worth another try, or the last word."""
        queue = self.queue
        outcome = outcome_of(error, queue.retry_on) if isinstance(error, Exception) else None
        if outcome is None:
            return AttemptFailed(Feedback(Outcome(Kind.REJECTED), readings), NEVER_AGAIN, error)
        if outcome.kind is Kind.LIMITED:
            queue.account.news.refused(self.pool.family, outcome)
        return AttemptFailed(Feedback(outcome, readings), queue.policy, error)

    def _readings(self, headers: Any, heard: list[Any]) -> tuple[Reading, ...]:
        if headers is None and heard:
            headers = heard[-1]  # of the last attempt that the client made by itself
        return () if headers is None else self.queue.account.dialect.readings(headers)


class OfCall:
    """What the jobs of such a call have in common; goes before a kind of job."""

    __slots__ = ()

    call: WrappedCall
    priority: int

    @property
    def tag(self) -> str:
        return self.call.queue.options.tag

    @property
    def tally(self) -> Tally:
        return self.call.queue.tally

    @property
    def traced_by_sdk(self) -> bool:
        return self.call.queue.traced_by_sdk

    def kind(self) -> tuple[str, str, int]:
        return self.call.model, self.call.operation(), self.priority

    def asked(self) -> Mapping[str, Any]:
        return request_attributes(_body(self.call.args, self.call.kwargs))


class WrappedTurn(OfCall, TurnJob):
    """Such a call whose caller waits for its turn."""

    __slots__ = ("call", "note")


class WrappedJob(OfCall, FutureJob):
    """Such a call on its way to a future."""

    __slots__ = ("call", "context", "note")

    context: contextvars.Context

    def attempt(self) -> Answer:
        return self.context.run(super().attempt)

    def send(self) -> Answer:
        return self.call.attempt()


def _refuse_async(awaitable: Any) -> Any:
    with suppress(Exception):
        awaitable.close()  # a coroutine that nobody will await
    raise TypeError(
        "this client is async: queued() is for clients that wait. Wrap its blocking twin (OpenAI for AsyncOpenAI)"
    )


def _body(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    body = {"input": list(args), **kwargs} if args else dict(kwargs)
    most = field(body.get("inferenceConfig"), "maxTokens")  # Bedrock
    if most is not None:
        body.setdefault("max_tokens", most)
    return body


def _kept(value: Any) -> Any:
    """A container as it is now; what cannot be copied is used as it is then."""
    if not isinstance(value, (dict, list)):
        return value
    with suppress(Exception):
        return copy.deepcopy(value)
    return value
