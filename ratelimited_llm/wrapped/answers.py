"""What the answers and errors of a client that is not ours tell: headers, tokens, and whether a limit refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..core.feedback import Kind, Outcome
from ..core.request import Usage
from ..functions.error_outcomes import outcome_of as function_outcome
from ..providers import Dialect
from ..providers.parsing import count, field

__all__ = ["headers_of", "hearing", "listen", "outcome_of", "usage_of"]

DEEPEST_CAUSE = 5  # errors that were raised from one another; those who wrap a client wrap its errors
# How botocore names a refusal by a limit, whatever its status.
THROTTLED = frozenset({"ThrottlingException", "TooManyRequestsException", "Throttling", "ThrottledException"})
# Where answers that do not look like OpenAI's or Anthropic's keep their tokens: LangChain, Bedrock, Gemini.
USAGE_NAMES = (
    ("input_tokens", "output_tokens"), ("inputTokens", "outputTokens"),
    ("prompt_token_count", "candidates_token_count"),
)  # fmt: skip
_heard = threading.local()


def listen(http_client: Any) -> None:
    """Hear the headers of all answers that come through an HTTP client; only `hearing` makes anything of them.

    Args:
        http_client: of httpx or httpx2; any other is left alone.
    """
    hooks = getattr(http_client, "event_hooks", None)
    if isinstance(hooks, dict) and _hear not in hooks.get("response", ()):
        http_client.event_hooks = {**hooks, "response": [*hooks.get("response", ()), _hear]}


@contextmanager
def hearing() -> Iterator[list[Any]]:
    """Within the `with` block, the headers that this thread's HTTP clients hear (see `listen`) are in this list."""
    heard: list[Any] = []
    outer, _heard.headers = getattr(_heard, "headers", None), heard
    try:
        yield heard
    finally:
        _heard.headers = outer


def _hear(response: Any) -> None:
    heard = getattr(_heard, "headers", None)
    if heard is not None:
        heard.append(response.headers)


def headers_of(told: Any) -> Any:
    """The headers that an answer or an error brought along; None when none can be reached."""
    meta = field(told, "ResponseMetadata") or field(field(told, "response"), "ResponseMetadata")  # botocore
    for headers in (field(meta, "HTTPHeaders"), field(field(told, "response"), "headers"), field(told, "headers")):
        if isinstance(headers, Mapping):
            return headers
    return None


def outcome_of(error: Exception, retry_on: tuple[type[BaseException], ...]) -> Outcome | None:
    """What an exception of a client means: a refusal, also one that it was raised from; or as of any function's."""
    for each in _causes(error):
        meta = field(field(each, "response"), "ResponseMetadata")
        code = field(field(field(each, "response"), "Error"), "Code")
        if field(meta, "HTTPStatusCode") == 429 or (isinstance(code, str) and code in THROTTLED):
            return Outcome(Kind.LIMITED, status=429)
        outcome = function_outcome(each, ()) if isinstance(each, Exception) else None
        if outcome is not None:
            return outcome
    return function_outcome(error, retry_on)


def _causes(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    for _ in range(DEEPEST_CAUSE):
        if each is None:
            return
        yield each
        each = each.__cause__


def usage_of(value: Any, dialect: Dialect) -> Usage | None:
    """The tokens that an answer says it used, wherever that kind of client keeps them; None when it does not say."""
    for holder in _holders(value):
        used = dialect.usage(holder)
        if used is not None:
            return used
        for told in (field(holder, "usage"), field(holder, "usage_metadata")):
            for names in USAGE_NAMES:
                prompt, output = (count(field(told, name)) for name in names)
                if prompt is not None:
                    return Usage(prompt, output or 0)
    return None


def _holders(value: Any) -> Iterator[Any]:
    """The answer, and what those who make something else of it leave beside it (instructor's pairs and models)."""
    for each in value[:4] if isinstance(value, tuple) else (value,):
        yield each
        raw = field(each, "_raw_response")
        if raw is not None:
            yield raw
