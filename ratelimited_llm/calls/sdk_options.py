"""What the options of an SDK's request say: whether the answer is wanted raw, how long it may take."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

__all__ = ["RAW_HEADER", "consumed_at_once", "copied", "raw_class", "raw_form", "shorter_timeout"]

RAW_HEADER = "x-stainless-raw-response"  # "true" or "raw" by with_raw_response, "stream" by with_streaming_response
CAST_HEADER = "____stainless_override_cast_to"
# What must be there when the call returns: C code and identity checks would meet the future instead.
PLAIN_TYPES = frozenset({str, bytes, bytearray, int, float, bool, dict, list, tuple, type(None), object})


def consumed_at_once(options: Any, cast_to: Any, stream: bool) -> bool:
    """Whether what the call returns is used by something that cannot be made to wait for it."""
    if options.files or getattr(options, "content", None) is not None:
        return True  # the caller may close its files as soon as the call returns
    headers = _headers(options)
    if headers and any(name.lower() == CAST_HEADER for name in headers):
        return True
    raw = raw_form(options)
    if raw is not None:
        return raw == "stream"  # a context manager takes the answer
    if stream:
        return False
    origin = getattr(cast_to, "__origin__", cast_to)
    if origin in PLAIN_TYPES:
        return True
    return not isinstance(origin, type) or not hasattr(origin, "model_fields")  # binary content, httpx.Response


def _headers(options: Any) -> Any:
    return options.headers if hasattr(options.headers, "items") else None


def raw_form(options: Any) -> str | None:
    """How the answer was asked for raw ("true", "raw", "stream"); None when it was not."""
    headers = _headers(options)
    if headers:
        for name, value in headers.items():
            if name.lower() == RAW_HEADER and isinstance(value, str):
                return value
    return None


def raw_class(sdk: Any, raw: str) -> Any:
    """The class of the SDK's that a raw answer of this form comes as."""
    if raw == "true":
        with suppress(AttributeError):
            return sdk._legacy_response.LegacyAPIResponse
    return sdk._response.APIResponse


def copied(options: Any, **changes: Any) -> Any:
    """The options with some of them changed, whichever pydantic made them."""
    return options.model_copy(update=changes) if hasattr(options, "model_copy") else options.copy(update=changes)


def shorter_timeout(left: float, timeout: Any, default: Any) -> Any:
    """An attempt's timeout, no longer than what is left of the deadline.

    Args:
        left: seconds until the deadline.
        timeout: of the call: seconds, None for none, a Timeout of httpx, or something that says that it was not given.
        default: the client's, for a call that was given none.
    """
    if timeout is None or isinstance(timeout, (int, float)):
        return left if timeout is None else min(left, timeout)
    if not hasattr(timeout, "connect"):  # not given: the client's
        return shorter_timeout(left, default, None)
    parts = {name: getattr(timeout, name) for name in ("connect", "read", "write", "pool")}
    return type(timeout)(**{name: left if value is None else min(left, value) for name, value in parts.items()})
