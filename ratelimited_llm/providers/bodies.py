"""Error bodies in all the shapes that providers, gateways and SDKs give them, brought into one."""

from __future__ import annotations

import json
from dataclasses import dataclass

from .parsing import field

__all__ = ["ErrorFacts", "read_error"]

_BODY = 262_144  # bytes of a body that are decoded: a real error has hundreds, and JSON of this size takes 2 ms
_ENVELOPES = frozenset({"error", "response.failed", "response.incomplete", "response.error"})


@dataclass(frozen=True, slots=True)
class ErrorFacts:
    """One error, wherever its parts were found; every text is lower case but the message.

    Attributes:
        code: the provider's own code, "" when it gave none (an int becomes its digits).
        type: the error's type, or Google's status; "" when it gave none.
        detail: Anthropic's `error.details.error_code`; "" nearly always.
        message: the prose, at most 4096 characters; a body that is no JSON is all prose,
            and a page of HTML is none.
        raw: the innermost error object, for a dialect with more to read out of it.
    """

    code: str = ""
    type: str = ""
    detail: str = ""
    message: str = ""
    raw: object = None

    def names(self) -> tuple[str, str, str]:
        """Everything in it that names the kind of error, the most specific first."""
        return self.detail, self.code, self.type


def read_error(body: object) -> ErrorFacts:
    """Read an error out of raw bytes or text, decoded JSON, or an SDK object; never raises.

    Understands `{"error": {...}}`, `{"error": "text"}`, the bare error object (what openai's `APIError.body` holds),
    Google's array around it, Anthropic's `{"type": "error", "error": {...}}`, and the events of a stream that failed
    (`response.failed`, `error`).
    """
    value = _decoded(body)
    if isinstance(value, (list, tuple)):
        value = next((item for item in value[:16] if isinstance(item, dict)), None)
    if isinstance(value, str):
        return ErrorFacts(message=value, raw=value)
    value = field(field(value, "response"), "error") or value
    inner = field(value, "error")
    if isinstance(inner, str) and inner:
        code, message = field(value, "code"), field(value, "message")
        return ErrorFacts(code=_name(code), message=f"{inner} {_prose(message)}".strip()[:4096], raw=value)
    error = inner or value
    kind = _name(field(error, "type"))
    return ErrorFacts(
        code=_name(field(error, "code")),
        type=_name(field(error, "status")) if not kind or kind in _ENVELOPES else kind,
        detail=_name(field(field(error, "details"), "error_code")),
        message=_prose(field(error, "message")) or _prose(field(error, "detail")),
        raw=error,
    )


def _decoded(body: object) -> object:
    if isinstance(body, (bytearray, memoryview)):
        body = bytes(body[:_BODY])
    if not isinstance(body, (bytes, str)):
        return body
    try:
        if len(body) <= _BODY:
            return json.loads(body)
    except (ValueError, RecursionError):  # no JSON, no Unicode, or ten thousand brackets
        pass
    text = body[:4096].decode("utf-8", "replace") if isinstance(body, bytes) else body[:4096]
    return "" if text.lstrip().startswith("<") else text  # a proxy's page: its numbers are not the provider's


def _name(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if 0 <= value < 1_000_000 else ""
    return value[:100].strip().lower() if isinstance(value, str) else ""


def _prose(value: object) -> str:
    return value[:4096] if isinstance(value, str) else ""
