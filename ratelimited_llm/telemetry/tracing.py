"""One call as OpenTelemetry sees it: a span from its dispatch to its answer, inside of whatever its caller was doing.

The span is made on the thread that sends, with the caller's context of the moment of submitting for its parent, and is
the current one while the SDK sends: spans of an instrumented HTTP client nest in it. Where the SDK makes such a span
itself (anthropic does), there is only one about the wait in our queue.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..core.feedback import Kind
from ..core.request import Usage
from .genai import FUNCTION, RESPONSE_MODEL, Attributes, call_attributes, read_answer, usage_attributes
from .listening import Listener, listener
from .prometheus import priority_name
from .reasons import error_type, reason_of
from .span_thread import prepare, tell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..engine.jobs import AttemptFailed

__all__ = ["CallTrace", "Traced", "new_trace"]

WAIT_TIME = "ratelimited_llm.queue.wait_time"
QUEUE_SPAN = "ratelimited_llm.queue"
REFUSED, RETRY = "ratelimited_llm.refused", "ratelimited_llm.retry"

_log = logging.getLogger("ratelimited_llm.metrics")
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Traced(Protocol):
    """What has to be known of a call to tell about it.

    Attributes:
        pool: whose limits it spends.
        submitted_at, dispatched_at, sent_at: when it was accepted, first sent, and last sent; monotonic seconds.
    """

    @property
    def pool(self) -> Any: ...
    @property
    def submitted_at(self) -> float: ...
    @property
    def dispatched_at(self) -> float: ...
    @property
    def sent_at(self) -> float: ...

    def kind(self) -> tuple[str, str, int]:
        """Its model, what it does with it ("chat", ...), and its priority."""

    def asked(self) -> Mapping[str, Any]:
        """Attributes of its span that say how it asks, and never what."""

    def traced_by_sdk(self) -> bool:
        """Whether what sends it makes a span of its own."""


def new_trace() -> CallTrace | None:
    """Who tells about a call that its caller is submitting now; None when nobody listens."""
    heard = listener()
    return None if heard is None else _begin(heard)


def _begin(heard: Listener) -> CallTrace:
    from opentelemetry import context

    if heard.tracer is not None:
        prepare()
    return CallTrace(heard, context.get_current())


def harmless(method: F) -> F:
    """Whatever an exporter, a sampler or a span processor raises: the call goes on."""

    @functools.wraps(method)
    def safe(*args: Any, **kwargs: Any) -> None:
        try:
            method(*args, **kwargs)
        except Exception:
            _log.debug("trace_failed", exc_info=True)

    return safe  # type: ignore[return-value]


class CallTrace:
    """Tells about one call. It holds no call, which holds it; each method is told whose it is.

    Args:
        heard: who listens.
        parent: the caller's context when it was submitted.
    """

    __slots__ = ("_answer", "_ended", "_heard", "_kind", "_left", "_parent", "_span", "_streamed", "_token")

    def __init__(self, heard: Listener, parent: Any) -> None:
        self._heard = heard
        self._parent = parent
        self._kind: Attributes | None = None  # until its first dispatch
        self._span: Any = None
        self._token: Any = None
        self._answer: Attributes = {}
        self._left = 0.0  # when its last attempt ended
        self._streamed = self._ended = False

    # -- its attempts -------------------------------------------------------------------------------------------------

    @harmless
    def sending(self, call: Traced) -> None:
        """An attempt begins, in this context."""
        if self._kind is None:
            self._begin(call)
        if self._span is not None:
            from opentelemetry import context, trace

            self._token = context.attach(trace.set_span_in_context(self._span))

    def _begin(self, call: Traced) -> None:
        model, operation, rank = call.kind()
        kind = self._kind = call_attributes(call.pool, model, operation)
        waited = max(0.0, call.dispatched_at - call.submitted_at)
        if self._heard.instruments is not None:
            self._heard.instruments.waited(waited, {**kind, "priority": priority_name(rank)})
        tracer = self._heard.tracer
        if tracer is None:
            return
        from opentelemetry.trace import SpanKind

        asked = call.asked()
        told = {**kind, **asked, WAIT_TIME: waited}
        if call.traced_by_sdk():
            began = time.time_ns() - int(waited * 1e9)
            tracer.start_span(QUEUE_SPAN, self._parent, SpanKind.INTERNAL, told, start_time=began).end()
            return
        name = f"{operation} {model or asked.get(FUNCTION, '')}".strip()
        self._span = tracer.start_span(name, self._parent, SpanKind.CLIENT, told)

    @harmless
    def sent(self) -> None:
        """The attempt has ended, somehow; in the context that it began in."""
        self._left = time.monotonic()
        token, self._token = self._token, None
        if token is not None:
            from opentelemetry import context

            context.detach(token)

    def around(self, call: Traced, send: Callable[[], T]) -> T:
        """An attempt from its beginning to its end, in this thread."""
        self.sending(call)
        try:
            return send()
        finally:
            self.sent()

    @harmless
    def came_back(self, failure: AttemptFailed) -> None:
        """It failed, and may be repeated."""
        if self._span is None or self._ended:
            return
        outcome, reason = failure.feedback.outcome, reason_of(failure)
        if outcome.kind is Kind.LIMITED:
            wait = {} if outcome.retry_after is None else {"ratelimited_llm.retry_after": outcome.retry_after}
            self._span.add_event(REFUSED, {"ratelimited_llm.limit.type": reason, **wait})
        else:
            self._span.add_event(RETRY, {"error.type": reason})

    # -- its end ------------------------------------------------------------------------------------------------------

    @harmless
    def answered(self, call: Traced, value: object, usage: Usage | None, response: Any = None) -> None:
        """Its answer is there, in full.

        Args:
            call: whose.
            value: what the SDK made of it.
            usage: what it used.
            response: of HTTP, and read; looked into when the value says nothing, as the raw one does.
        """
        read_answer(value, self._answer)
        if not self._answer and response is not None and "json" in response.headers.get("content-type", ""):
            read_answer(response.json(), self._answer)
        self._over(call, usage, self._left)

    @harmless
    def chunk(self, call: Traced, chunk: object) -> None:
        """Some more of its stream."""
        if not self._streamed:
            self._streamed = True
            if self._heard.instruments is not None and self._kind is not None:
                self._heard.instruments.began(time.monotonic() - call.sent_at, self._kind)
        read_answer(chunk, self._answer)

    def stream_over(self, call: Traced, engine: Any, usage: Usage | None, error: BaseException | None) -> None:
        """Its stream has ended; may be called from a finalizer, so that the engine hands it on."""
        over = functools.partial(harmless(self._over), call, usage, time.monotonic(), error, ended_at=time.time_ns())
        engine.post(_hand_over, None, over)

    @harmless
    def failed(self, call: Traced, error: BaseException) -> None:
        """It has ended without an answer."""
        self._over(call, None, self._left, error)

    def _over(
        self, call: Traced, usage: Usage | None, at: float, error: BaseException | None = None,
        ended_at: int | None = None,
    ) -> None:  # fmt: skip
        if self._ended or self._kind is None:
            return
        self._ended = True
        kind = self._kind if error is None else {**self._kind, "error.type": error_type(error)}
        if self._span is not None:
            ended_at = time.time_ns() if ended_at is None else ended_at
            tell(functools.partial(harmless(self._finish), kind.get("error.type"), usage, ended_at))
        if self._heard.instruments is not None and at:
            if RESPONSE_MODEL in self._answer:
                kind = {**kind, RESPONSE_MODEL: self._answer[RESPONSE_MODEL]}
            self._heard.instruments.ended(max(0.0, at - call.sent_at), kind, usage)

    def _finish(self, failed: str | None, usage: Usage | None, ended_at: int) -> None:
        span = self._span
        span.set_attributes({**self._answer, **usage_attributes(usage)})
        if failed is not None:
            from opentelemetry.trace import StatusCode

            span.set_attribute("error.type", failed)
            span.set_status(StatusCode.ERROR)  # without the error's text, which may quote the prompt
        span.end(ended_at)


def _hand_over(job: None, over: Callable[[], None], now: float) -> None:
    """Under the engine's `core`, where nothing may hold things up."""
    tell(over)
