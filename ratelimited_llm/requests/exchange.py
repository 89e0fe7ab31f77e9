"""One attempt on the wire: a request goes out through an adapter, and what comes back is judged before anybody sees it.

This is below hooks, redirects and cookies: `raise_for_status` as a response hook, say, never meets a 429 that is about
to be waited out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from time import perf_counter
from typing import Any

import requests as _requests
from requests.exceptions import ChunkedEncodingError, RetryError

from ..core.feedback import Feedback, Kind, Outcome, Reading
from ..core.retry import RetryPolicy
from ..engine.jobs import AttemptFailed
from ..providers import Dialect

__all__ = ["HTTPStatus", "exchange", "took", "within"]

# A connection that was refused or broke off, and a timeout. RetryError: the adapter's own retries are used up.
TRANSIENT = (_requests.ConnectionError, _requests.Timeout, ChunkedEncodingError, RetryError)


class HTTPStatus(Exception):
    """An answer with an error status on its way to whoever asked, who gets the Response in it and never this.

    Attributes:
        response: what requests would have returned.
        status_code, code: its status, and the provider's own word for it; for the list of errors in `status()`.
    """

    def __init__(self, response: _requests.Response, outcome: Outcome) -> None:
        super().__init__(response.status_code)
        self.response = response
        self.status_code = response.status_code
        self.code = outcome.code


def exchange(
    send: Callable[..., _requests.Response], request: Any, kwargs: dict[str, Any], dialect: Dialect, policy: RetryPolicy
) -> tuple[_requests.Response, tuple[Reading, ...]]:
    """Send once, and read the answer, but for one that is to be streamed.

    Args:
        send: of an adapter.
        request, kwargs: what it takes.
        dialect: how the provider talks.
        policy: whether there may be another attempt.

    Returns:
        The response, and the limits that its headers told.

    Raises:
        AttemptFailed: for an error status, with HTTPStatus; and for every exception, with that.
    """
    began = perf_counter()
    try:
        response = send(request, **kwargs)
        response._ratelimited_llm_took = timedelta(seconds=perf_counter() - began)  # type: ignore[attr-defined]
        if response.status_code < 400 and not kwargs.get("stream"):
            _ = response.content
    except BaseException as error:
        kind = Kind.DROPPED if isinstance(error, TRANSIENT) else Kind.REJECTED
        raise AttemptFailed(Feedback(Outcome(kind)), policy, error) from None
    readings = dialect.readings(response.headers)
    if response.status_code >= 400:
        body = b""
        with suppress(Exception):  # a connection that breaks here leaves the status and the headers to go by
            body = response.content
        outcome = dialect.classify(response.status_code, response.headers, body)
        raise AttemptFailed(Feedback(outcome, readings), policy, HTTPStatus(response, outcome))
    return response, readings


def took(response: _requests.Response) -> _requests.Response:
    """Have `elapsed` say how long the answer took from when the request was sent, without the time in the queue."""
    response.elapsed = getattr(response, "_ratelimited_llm_took", response.elapsed)
    return response


def within(left: float, timeout: Any) -> Any:
    """An attempt's timeout, no longer than what is left of the deadline."""
    if isinstance(timeout, tuple):
        return tuple(left if part is None else min(left, part) for part in timeout)
    if timeout is None or isinstance(timeout, (int, float)):
        return left if timeout is None else min(left, timeout)
    return timeout  # a Timeout of urllib3
