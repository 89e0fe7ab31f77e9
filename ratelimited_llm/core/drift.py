"""Somebody else on the same key: what vanished between two snapshots beyond what we spent ourselves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .meter import Meter

__all__ = ["Drift"]

MEMORY = 3.0  # seconds over which the spending of others is smoothed
COMPANY = 300.0  # seconds that somebody who spent noticeably is remembered
SPACING = 1.0  # seconds between the snapshots that are compared: ten times the ambiguity of either


class Drift:
    """Units per second that others spend of one limit.

    Attributes:
        rate: as learned so far; 0.0 while we are alone.
        company: whether there has been somebody else lately, who may come back at any moment.
    """

    __slots__ = ("_anchor", "_seen_at", "company", "rate")

    def __init__(self) -> None:
        self.rate = 0.0
        self.company = False
        self._seen_at = -math.inf
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
        elif self.rate > 0.05 * nominal:
            self._seen_at = sent_at
        self.company = sent_at - self._seen_at < COMPANY
        return True


def _around(meter: Meter, moment: float) -> float:
    """Units that moved within the ambiguity of that moment."""
    first, last = moment - meter.ambiguity, moment + meter.ambiguity
    return sum(trail.before(last) - trail.before(first) for trail in (meter.spent, meter.returned))
