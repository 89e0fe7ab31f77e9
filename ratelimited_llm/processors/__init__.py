"""Processor: how a `QueueManager` talks to a provider that has no SDK door. Subclass it, and write `process`.

    class Echo(Processor):
        required_fields = ("prompt",)

        async def process(self, payload):
            return {"text": payload["prompt"]}

Everything else has a default that reads what most libraries have in common; each method may be replaced alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any, ClassVar

from ..core.feedback import Kind, Outcome
from ..core.request import Cost, Usage
from ..functions.error_outcomes import outcome_of
from ..providers import dialect_for

__all__ = ["Processor", "judged"]

# What the connection errors and timeouts of HTTP libraries are called: none of them derives from the built-in ones.
_DROPPED = frozenset({
    "APIConnectionError", "ConnectTimeout", "ConnectionError", "EndpointConnectionError", "HTTPClientError",
    "ReadTimeout", "ReadTimeoutError", "ServerDisconnectedError", "ServerTimeoutError", "Timeout", "TimeoutError",
    "TimeoutException", "TransportError",
})  # fmt: skip
_GENERIC = dialect_for(None, "")


class Processor:
    """Validates, measures and sends the requests of one provider or endpoint, and reads what comes back.

    `validate` and `estimate_tokens` run in the thread that enqueues; the others run on sending threads, several at
    once, so they must be thread-safe. Each may be `async def`: such methods run on one event loop in a background
    thread of the manager's, so a client that belongs to a loop can be made in the first call and kept.

    Class attributes:
        provider: who answers, in metrics and traces; "" for the name of the class.
        required_fields: names that every payload must have; one that is no mapping, or lacks one, is refused.
        learn_limits: whether limits that were not configured are measured from refusals, beginning with one call; for
            real providers. Otherwise the limits are only what the manager was told, and a refusal pauses everybody.
    """

    provider: ClassVar[str] = ""
    required_fields: ClassVar[tuple[str, ...]] = ()
    learn_limits: ClassVar[bool] = False

    def validate(self, payload: Any) -> Any:
        """Refuse a payload that can never be processed, before it is queued. Here: by `required_fields`.

        Returns:
            Nothing; False is read as a refusal too.

        Raises:
            ValueError: what is wrong with it; whoever enqueues it gets this.
        """
        if not self.required_fields:
            return
        if not isinstance(payload, Mapping):
            raise ValueError(f"the payload must be a mapping with {', '.join(self.required_fields)}, not {payload!r}")
        missing = [name for name in self.required_fields if payload.get(name) is None]
        if missing:
            raise ValueError(f"the payload has no {', '.join(missing)}")

    def estimate_tokens(self, payload: Any) -> int | Cost | Awaitable[int | Cost | None] | None:
        """Model tokens that the request will probably use, answer included; or a `Cost`, to tell the parts apart.

        None, as here, leaves it to the manager: text bytes over four and `max_tokens` at first, and then what the
        answers' `usage` teaches about this endpoint and model.
        """
        return None

    def limit_group(self, payload: Any) -> str:
        """Whose limits it spends: requests of different groups never wait for one another. Here all are one group."""
        return ""

    def process(self, payload: Any, *, timeout: float | None = None) -> Any:
        """Send one request and return its answer: one attempt, no retries and no waiting for limits.

        Args:
            payload: as it was when it was enqueued.
            timeout: seconds that the attempt may take, counted from now; None for no bound. Leave the parameter out,
                and an async process is cancelled after that time, and a sync one is not bounded. A parameter
                `endpoint` gets the endpoint that was enqueued.

        Raises:
            Exception: it failed; `classify_error` says whether it is worth another try.
        """
        raise NotImplementedError(f"{type(self).__name__} must define process()")

    def classify_error(self, error: Exception) -> Outcome | Kind | None:
        """What an exception of `process` means: `Kind.LIMITED` (wait for the limit, no attempt is used up),
        `OVERLOADED` or `DROPPED` (try again after a pause), anything else or None (final).

        Here: by the status that the errors of requests, httpx, aiohttp, urllib and the SDKs carry, and by timeouts and
        broken connections.
        """
        return judged(error)

    def usage(self, result: Any) -> Usage | None:
        """The tokens that an answer used, or None when it does not say.

        Here: its `usage`, as OpenAI and Anthropic write it, in a mapping or an object.
        """
        return _GENERIC.usage(result)


def judged(error: Exception) -> Outcome:
    """What an exception says about another try, by its status, its class, and the Retry-After of its response."""
    outcome = outcome_of(error, (Exception,))
    if outcome is None:
        return Outcome(Kind.REJECTED, status=429)  # a refusal that no waiting helps
    if outcome.kind is Kind.LIMITED:
        return outcome
    if outcome.status is not None and outcome.status >= 400:
        headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None) or {}
        with suppress(Exception):  # the attributes of some other library's error may be anything
            return _GENERIC.classify(outcome.status, headers, b"")
    # By name, since in Python 3.10 there are three classes called TimeoutError.
    named = any(base.__name__ in _DROPPED for base in type(error).__mro__)
    return Outcome(Kind.DROPPED if named else Kind.REJECTED, status=outcome.status)
