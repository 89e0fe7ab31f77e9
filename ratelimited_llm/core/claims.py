"""What a provider claims about its limits, and how far it is believed: headers and refusals are untrusted input."""

from __future__ import annotations

import math
from typing import TypeGuard

from .feedback import Outcome, Reading
from .limits import MINUTE, PERIODS
from .meter import WINDOW_FROM
from .request import Cost

__all__ = ["MAX_WAIT", "plausible", "sane", "told_wait", "window_end"]

LARGEST = 1e10  # units per period: more than any provider gives to anybody
MAX_WAIT = 120.0  # seconds: the longest wait that a bare Retry-After can impose (the openai SDK's own bound)


def sane(limit: float | None) -> TypeGuard[float]:
    """Whether a limit that was told can be one; 0, -1 and NaN are seen in the wild."""
    return limit is not None and 1.0 <= limit < LARGEST


def plausible(name: str, limit: float, cost: Cost) -> bool:
    """Whether a limit can be, where this call was let in: one that is smaller than the call is none."""
    return name in ("rpm", "rpd", "otpm") or limit >= cost.input_tokens


def told_wait(outcome: Outcome, period: float, amount: float) -> float | None:
    """The wait that a refusal asks for, as far as it is to be believed; None when it names none.

    A bare wait is believed up to two minutes. One that comes with its reasons ("Limit 100000, Used 99922, Requested
    710") may be longer, and no longer than they say.
    """
    told = outcome.retry_after
    short = math.nan
    if outcome.used is not None and sane(outcome.limit):
        short = outcome.used + (outcome.requested or amount) - outcome.limit
    if outcome.limit is None or not 0.0 < short < math.inf:
        return None if told is None else min(told, MAX_WAIT)
    exact = short * period / outcome.limit
    return exact if told is None else min(told, max(exact + 1.0, MINUTE))


def window_end(readings: tuple[Reading, ...], name: str, age: float) -> float | None:
    """When nothing is left, the time until all is there again: a whole period in a bucket, less in a window."""
    for reading in readings:
        if reading.dimension != name or reading.reset is None or reading.remaining is None or not sane(reading.limit):
            continue
        period = PERIODS[name]
        full = (reading.limit - reading.remaining) * period / reading.limit
        if 0.0 <= reading.reset <= period + WINDOW_FROM and abs(reading.reset - full) > WINDOW_FROM + 0.05 * full:
            return max(0.0, reading.reset - age)
    return None
