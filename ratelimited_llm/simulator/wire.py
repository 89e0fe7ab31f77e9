"""How providers write a length of time, a moment and a number; pure text, shared by the profiles."""

from __future__ import annotations

import math
import time

__all__ = ["go_duration", "rfc3339", "started", "thousands", "whole"]


def go_duration(seconds: float, *, step: float = 0.001, up: bool = False) -> str:
    """Write seconds as Go does: "6m0s", "7.66s", "12ms", "2h3m4.5s", "0s".

    Args:
        seconds: at least 0.
        step: the finest unit written, in seconds (OpenAI and Groq write milliseconds in headers).
        up: round up; otherwise truncate, as captured reset headers do.
    """
    # The small number keeps 0.12 s, which is 119.99999 steps of a millisecond, from becoming 119 of them.
    steps = math.ceil(seconds / step - 1e-6) if up else math.floor(seconds / step + 1e-6)
    seconds = round(steps * step, 9)
    if seconds <= 0:
        return "0s"
    if seconds < 1:
        return f"{_short(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{_short(rest)}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def rfc3339(moment: float) -> str:
    """Write a Unix time as Anthropic does, whole seconds in UTC: "2025-02-24T22:25:47Z"."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(math.ceil(moment)))


def whole(number: float) -> str:
    """Write a limit or a count the way headers do, without a fraction, rounded down (-0 is 0)."""
    return str(int(number + 1e-6))


def started(number: float) -> str:
    """Write what is used as a refusal does: begun units count ("Limit 3, Used 3, Requested 1")."""
    return str(math.ceil(number - 1e-6))


def thousands(number: float) -> str:
    """Write a count with separators, as Anthropic's messages do: "30,000"."""
    return f"{int(number):,}"


def _short(number: float) -> str:
    return f"{number:.9f}".rstrip("0").rstrip(".")
