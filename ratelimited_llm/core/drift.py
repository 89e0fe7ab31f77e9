"""Somebody else on the same key: what vanished between two snapshots beyond what we spent ourselves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .meter import Meter

__all__ = ["Drift"]

MEMORY = 3.0  # seconds over which the spending of others is smoothed
SPACING = 1.0  # seconds between the snapshots that are compared: ten times the ambiguity of either
AMBIGUITY = 0.1  # seconds around a snapshot in which the order of arrival is not known


class Drift:
    """Units per second that others spend of one limit.

    Attributes:
        rate: as learned so far; 0.0 while we are alone.
    """

    __slots__ = ("_anchor", "rate")

    def __init__(self) -> None:
        self.rate = 0.0
        self._anchor: tuple[float, float] | None = None  # the last snapshot that was compared: moment, remaining

    def learn(self, meter: Meter, remaining: float, sent_at: float) -> bool:
        """Take in a snapshot; True when it said something."""
        if self._anchor is None:
            self._anchor = (sent_at, remaining)
            return False
        since, before = self._anchor
        elapsed = sent_at - since
        if elapsed < SPACING:
            return False
        self._anchor = (sent_at, remaining)
        own = meter.spent.before(sent_at) - meter.spent.before(since)
        back = meter.returned.before(sent_at) - meter.returned.before(since)
        nominal = meter.limit / meter.period
        predicted = min(before + nominal * elapsed, meter.capacity) - own + back
        # What left around either snapshot may be counted in one and not the other: no evidence of anybody else.
        unsure = _around(meter, sent_at) + _around(meter, since) + 2.0 + 0.02 * own
        vanished = max(0.0, predicted - remaining - unsure) / elapsed
        self.rate += (1.0 - math.exp(-elapsed / MEMORY)) * (min(vanished, nominal) - self.rate)
        if self.rate < 0.01 * nominal:
            self.rate = 0.0
        return True


def _around(meter: Meter, moment: float) -> float:
    """Units that moved within the ambiguity of that moment."""
    first, last = moment - AMBIGUITY, moment + AMBIGUITY
    return sum(trail.before(last) - trail.before(first) for trail in (meter.spent, meter.returned))
