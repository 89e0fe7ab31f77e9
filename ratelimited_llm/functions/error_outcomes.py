"""What an exception of any function means for another try: refused by a limit, worth another try, or final."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ..core.feedback import Kind, Outcome

__all__ = ["outcome_of"]


def outcome_of(error: Exception, retry_on: tuple[type[BaseException], ...]) -> Outcome | None:
    """Read an exception.

    Args:
        error: what the function raised.
        retry_on: the classes that are worth another try.

    Returns:
        A refusal if it carries status 429 (as the errors of the SDKs, requests, httpx, aiohttp and urllib do), a
        failure that may pass if it is of a class in `retry_on`, and None when it is the function's own affair.
    """
    outcome = _refusal(error) if _status(error) == 429 else None
    if outcome is not None and outcome.kind in (Kind.EXHAUSTED, Kind.TOO_LARGE):
        return None  # waiting does not help, whatever the class
    if outcome is not None and outcome.kind is Kind.LIMITED:
        return outcome
    if isinstance(error, retry_on):
        return Outcome(Kind.OVERLOADED, outcome.retry_after if outcome is not None else None, status=_status(error))
    return None


def _status(error: Exception) -> int | None:
    response = _get(error, "response")
    for holder, name in (
        (error, "status_code"), (response, "status_code"), (error, "status"), (response, "status"), (error, "code"),
    ):  # fmt: skip
        value = _get(holder, name)
        if isinstance(value, int) and not isinstance(value, bool):
            return int(value)
    return None


def _refusal(error: Exception) -> Outcome:
    from ..providers import dialect_for  # only a call that was refused needs it

    response = _get(error, "response")
    headers = _get(response, "headers") or _get(error, "headers") or {}
    body = _get(error, "body") or _get(response, "content") or b""
    with suppress(Exception):  # the attributes of some other library's error may be anything
        return dialect_for(None, "").classify(429, headers, body)
    return Outcome(Kind.LIMITED, status=429)


def _get(holder: Any, name: str) -> Any:
    with suppress(Exception):  # a property may raise whatever it likes
        return getattr(holder, name, None)
    return None
