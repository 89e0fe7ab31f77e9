"""A clock that is turned by hand."""

from __future__ import annotations

import math

from ..core.checks import number

__all__ = ["VirtualClock"]


class VirtualClock:
    """A clock that stands still until it is told to go; call it for the time, in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = _finite("now", now)

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Go forwards; a clock never goes back."""
        if _finite("seconds", seconds) < 0:
            raise ValueError(f"seconds must be 0 or more, not {seconds!r}: a clock cannot go back")
        self.now += seconds


def _finite(name: str, value: object) -> float:
    found = number(name, value, "a number of seconds")
    if not math.isfinite(found):
        raise ValueError(f"{name} must be a finite number of seconds, not {value!r}")
    return found
