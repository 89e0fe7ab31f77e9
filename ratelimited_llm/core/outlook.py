"""How soon waiting calls will go, by what their limits give: for a place in the queue, and for the whole of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Flow", "Outlook"]


@dataclass(frozen=True, slots=True)
class Flow:
    """One limit as a flow.

    Attributes:
        dimension: "rpm", "tpm", ...; or "concurrency".
        ready: units that can be spent at this moment.
        rate: units that come back per second.
        need: units that a waiting call needs, on average.
    """

    dimension: str
    ready: float
    rate: float
    need: float

    def wait(self, calls: float) -> float:
        """Seconds until the last of so many calls may go, if nothing else held them."""
        missing = calls * self.need - self.ready
        if missing <= 0.0:
            return 0.0
        return missing / self.rate if self.rate > 0.0 else math.inf


@dataclass(frozen=True, slots=True)
class Outlook:
    """What one pool's waiting calls have before them; a value, so that ten thousand places are told from one look.

    Attributes:
        flows: its limits.
        held: seconds that nobody goes, whatever it costs (a refusal's pause), and by what; None when nothing holds.
        latency: seconds from dispatch to answer, on average; None before the first answer.
    """

    flows: tuple[Flow, ...] = ()
    held: tuple[str, float] | None = None
    latency: float | None = None

    def wait(self, calls: float) -> tuple[float, str | None]:
        """Seconds until the last of so many calls may go, and what holds it longest (None: nothing)."""
        seconds, by = 0.0, None
        if self.held is not None:
            by, seconds = self.held
            if not math.isfinite(seconds):
                seconds = 0.0
        for flow in self.flows:
            wait = flow.wait(calls)
            if wait > seconds:
                seconds, by = wait, flow.dimension
        return seconds, by

    def answered_in(self, calls: float) -> float | None:
        """Seconds until the last of so many calls is answered; None when no limit is known to tell it by."""
        if not self.flows:
            return None
        seconds = self.wait(calls)[0] + (self.latency or 0.0)
        return seconds if math.isfinite(seconds) else None
