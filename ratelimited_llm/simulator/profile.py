"""What a profile is: how a provider words limits, waits and errors, as most of them do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .enforcement import Admission, Verdict, Window
from .wire import go_duration, started, whole

__all__ = ["UNITS", "Headers", "Problem", "Profile", "Readings", "numbers"]

Headers = list[tuple[str, str]]
Readings = Mapping[str, tuple[float, float, float]]

UNITS = {
    "rpm": ("requests", "requests per min (RPM)"),
    "rpd": ("requests", "requests per day (RPD)"),
    "tpm": ("tokens", "tokens per min (TPM)"),
    "tpd": ("tokens", "tokens per day (TPD)"),
    "itpm": ("tokens", "input tokens per min (ITPM)"),
    "otpm": ("tokens", "output tokens per min (OTPM)"),
    "concurrency": ("requests", "concurrent requests"),
}
TYPES = {400: "invalid_request_error", 401: "invalid_request_error", 404: "invalid_request_error"}


@dataclass(frozen=True)
class Problem:
    """An error answer, ready to be sent: status, headers of its own, and the JSON body."""

    status: int
    headers: Headers
    body: Any


@dataclass(frozen=True)
class Profile:
    """How a provider speaks; the others change what they do otherwise.

    Attributes:
        name: what it is chosen by.
        path: what follows the host in the base URL that its SDK is given.
        admission, window: how it counts, when not told otherwise.
        smooth: share of a "minute" over which request limits are enforced; None is the whole.
        tell_limits: limits are told in the headers of every answer.
        tell_wait: a refusal carries Retry-After.
        tell_in_body: a refusal's text carries the numbers and the wait.
        told: of each unit that has headers, the limits that they may tell; the first that there is is told.
    """

    name: str = "generic"
    path: str = "/v1"
    admission: Admission = "reserve"
    window: Window = "bucket"
    smooth: float | None = None
    tell_limits: bool = True
    tell_wait: bool = True
    tell_in_body: bool = True
    told: ClassVar[tuple[tuple[str, tuple[str, ...]], ...]] = ()

    def reserve(self, input_tokens: int, max_output: int | None) -> int:
        """Tokens that are held when a call arrives; `max_output` is None when the call did not say."""
        return input_tokens + (max_output or 0)

    def limits(self, readings: Readings, *, wall: float, stream: bool, used: int) -> Headers:
        """The headers that tell the limits.

        Args:
            readings: dimension -> (limit, remaining, seconds until full).
            wall: the Unix time, for providers that write moments.
            stream: the answer is a stream.
            used: tokens that this answer used, 0 when not known yet.
        """
        headers: Headers = []
        for unit, dimensions in self.told:
            found = next((readings[name] for name in dimensions if name in readings), None)
            if found is not None:
                limit, remaining, reset = found
                headers += [
                    (f"x-ratelimit-limit-{unit}", whole(limit)),
                    (f"x-ratelimit-remaining-{unit}", whole(remaining)),
                    (f"x-ratelimit-reset-{unit}", self.reset(reset)),
                ]
        return headers

    def reset(self, seconds: float) -> str:
        """How the header writes the time until a limit is whole again."""
        return go_duration(seconds)

    def wait(self, seconds: float) -> Headers:
        """The headers that tell how long to wait."""
        return [("retry-after", str(max(1, math.ceil(seconds - 1e-6))))]

    def refusal(self, verdict: Verdict, model: str) -> Problem:
        """The answer to a call that a limit refused."""
        wait = self.wait(verdict.retry_after) if self.tell_wait and verdict.retry_after is not None else []
        return self._refusal(verdict, model, wait)

    def error(self, status: int, message: str, *, code: str | None = None, type: str | None = None) -> Problem:
        """Any other error, in the provider's own form."""
        kind = type or TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
        return Problem(status, [], {"error": {"message": message, "type": kind, "param": None, "code": code}})

    def exhausted(self) -> Problem:
        """The 429 that no waiting ends: the quota or the credit is used up."""
        text = "You exceeded your current quota, please check your plan and billing details."
        return self.error(429, text, code="insufficient_quota", type="insufficient_quota")

    def stream_error(self, code: str, message: str) -> dict[str, Any]:
        """The error that arrives in a stream whose status was 200."""
        return {"error": {"message": message, "type": "server_error", "param": None, "code": code}}

    def _refusal(self, verdict: Verdict, model: str, wait: Headers) -> Problem:
        text = "Too many requests" if not self.tell_in_body else numbers(verdict, "Rate limit reached", model, "")
        return Problem(429, wait, {"error": {"message": text, "type": None, "param": None, "code": 429}})


def numbers(verdict: Verdict, lead: str, model: str, where: str) -> str:
    """A refusal with its numbers and its wait, as OpenAI words it."""
    words = UNITS[verdict.dimension or "rpm"][1]
    text = f"{lead} for {model}{where} on {words}: Limit {whole(verdict.limit)}, Used {started(verdict.used)}, "
    text += f"Requested {whole(verdict.requested)}."
    if verdict.retry_after is not None:
        text += f" Please try again in {go_duration(verdict.retry_after, up=True)}."
    return text
