"""What a gateway answers on its own account, in the shape in which each SDK reads an error of its provider.

QueueFull               429 with Retry-After     the only 429 of our own: come back when there is room
RequestExpired          504                      its deadline passed; no use to repeat it
BudgetExceeded          413                      it asks for more than a whole limit
CostLimitReached        402                      the cap on the cost is reached
WorkerStopped           503 with Retry-After     draining
SharedStoreLost         503 with Retry-After     the shared budget is lost, and `on_budget_lost` is "raise"
CancelledError          503                      an operator cancelled it
the connection failed   502, or 504 after a timeout
a body that is no JSON  400
"""

from __future__ import annotations

import json
import math
from concurrent.futures import CancelledError
from dataclasses import dataclass, field

from ..exceptions import (
    BudgetExceeded,
    CostLimitReached,
    QueueFull,
    RequestExpired,
    SharedStoreLost,
    WorkerStopped,
)

__all__ = ["Refusal", "refusal_of"]

# What Anthropic calls an error of this status; other 4xx are an invalid_request_error, other 5xx an api_error.
_ANTHROPIC = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip
_OPENAI = {401: "authentication_error", 402: "insufficient_quota", 429: "rate_limit_error"}
NO_RETRY = ("x-should-retry", "false")  # the SDKs of all three obey it


@dataclass
class Refusal(Exception):
    """An answer of the gateway's own.

    Attributes:
        status: the HTTP status.
        message: what happened, and what to do; never a key or a prompt.
        code: a word for programs.
        retry_after: seconds until it is worth coming back; None when that changes nothing.
        headers: more of them.
    """

    status: int
    message: str
    code: str
    retry_after: float | None = None
    headers: tuple[tuple[str, str], ...] = field(default=())

    def body(self, shape: str) -> bytes:
        """The error as the SDK of a provider reads it; `shape` is "anthropic" or anything else for OpenAI's."""
        family = 4 if self.status < 500 else 5
        if shape == "anthropic":
            kind = _ANTHROPIC.get(self.status, "invalid_request_error" if family == 4 else "api_error")
            error = {"type": kind, "message": self.message, "code": self.code}
            told: dict[str, object] = {"type": "error", "error": error}
        else:
            kind = _OPENAI.get(self.status, "invalid_request_error" if family == 4 else "server_error")
            told = {"error": {"message": self.message, "type": kind, "param": None, "code": self.code}}
        return json.dumps(told).encode()

    def header_list(self) -> list[tuple[str, str]]:
        """The headers of the answer."""
        told = [("content-type", "application/json"), ("x-ratelimited-error", self.code), *self.headers]
        if self.retry_after is None:
            return [*told, NO_RETRY]
        return [*told, ("retry-after", str(max(1, math.ceil(min(self.retry_after, 3600.0)))))]


def refusal_of(error: BaseException, room_in: float | None = None) -> Refusal | None:
    """What to answer for an error of ours; None for any other.

    Args:
        error: what the door raised.
        room_in: seconds until the next waiting call goes, as far as that is known: when a full queue has room again.
    """
    text = str(error)
    if isinstance(error, QueueFull):
        whose = "" if error.tenant is None else f" of tenant {error.tenant!r}"
        message = f"the queue{whose} of this gateway holds {error.limit:,} requests, which is its cap"
        return Refusal(429, message, "queue_full", room_in or 1.0)
    if isinstance(error, RequestExpired):
        return Refusal(504, text, "deadline_exceeded")
    if isinstance(error, BudgetExceeded):
        return Refusal(413, text, "request_too_large")
    if isinstance(error, CostLimitReached):
        return Refusal(402, text, "cost_limit_reached")
    if isinstance(error, WorkerStopped):
        return Refusal(503, "this gateway is about to end: nothing new is accepted", "draining", 2.0)
    if isinstance(error, SharedStoreLost):
        return Refusal(503, "the shared budget is out of reach, and nothing is sent without it", "budget_lost", 5.0)
    if isinstance(error, CancelledError):
        return Refusal(503, "cancelled while it waited in the queue", "cancelled")
    return None
