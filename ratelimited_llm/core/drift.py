"""Somebody else on the same key: what vanished between two snapshots beyond what we spent ourselves."""

from __future__ import annotations

import math

from .bucket import Bucket

__all__ = ["Drift"]

SMOOTHING = 3.0  # seconds over which the spending of others is smoothed
COMPANY = 300.0  # seconds that somebody who spent noticeably is remembered
SPACING = 1.0  # seconds between the snapshots that are compared: ten times the ambiguity of either
NOTHING = 0.01  # of the limit's own rate: less is taken for the noise of arrivals
NOTICEABLE = 0.05  # of it: more is somebody, who may come back at any moment


class Drift:
    """What others spend of one limit, learned from snapshots of a continuous bucket.

    Attributes:
        rate: units per second, smoothed; 0.0 while we are alone.
        company: whether somebody has spent noticeably in the last `COMPANY` seconds.
    """

    __slots__ = ("_anchor", "_seen_at", "company", "rate")

    def __init__(self) -> None:
        self.rate = 0.0
        self.company = False
        self._seen_at = -math.inf
        self._anchor: tuple[float, float] | None = None  # the last snapshot that was compared: moment, remaining

    def learn(self, bucket: Bucket, remaining: float, sent_at: float, ambiguity: float) -> bool:
        """Take in a snapshot of `sent_at`, give or take `ambiguity` seconds; True when it said something."""
        if self._anchor is None:
            self._anchor = (sent_at, remaining)
            return False
        since, before = self._anchor
        elapsed = sent_at - since
        if elapsed < SPACING:
            return False
        self._anchor = (sent_at, remaining)
        own = bucket.spent.before(sent_at) - bucket.spent.before(since)
        back = bucket.returned.before(sent_at) - bucket.returned.before(since)
        predicted = min(before + bucket.nominal * elapsed, bucket.capacity) - own + back
        # What left around either snapshot may be counted in one and not the other: no evidence of anybody else.
        unsure = _around(bucket, sent_at, ambiguity) + _around(bucket, since, ambiguity) + 2.0 + 0.02 * own
        self._smooth(max(0.0, predicted - remaining - unsure) / elapsed, elapsed, bucket.nominal, sent_at)
        return True

    def _smooth(self, vanished: float, elapsed: float, nominal: float, sent_at: float) -> None:
        """So many units per second have vanished for `elapsed` seconds."""
        self.rate += (1.0 - math.exp(-elapsed / SMOOTHING)) * (min(vanished, nominal) - self.rate)
        if self.rate < NOTHING * nominal:
            self.rate = 0.0
        elif self.rate > NOTICEABLE * nominal:
            self._seen_at = sent_at
        self.company = sent_at - self._seen_at < COMPANY


def _around(bucket: Bucket, moment: float, ambiguity: float) -> float:
    """Units that moved within the ambiguity of that moment."""
    first, last = moment - ambiguity, moment + ambiguity
    return sum(moved.before(last) - moved.before(first) for moved in (bucket.spent, bucket.returned))
