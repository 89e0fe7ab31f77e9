"""One limit as we believe it stands at the provider: a mirror of its bucket, kept true by what answers tell.

A mirror is charged when a request leaves, and the provider charges when it arrives; a guard of a tenth of a second's
refill covers the difference (measured in simulation: 0.998 of the limit used and no refusal, where a margin in percent
costs that percent for ever). What an answer tells (`remaining`) is a snapshot of some moment near the departure of
that request: what left within a tenth of a second of it may or may not be counted in. So a reading is an interval
that the mirror is clamped into, never an assignment.
"""

from __future__ import annotations

import math
from bisect import bisect_right

__all__ = ["AMBIGUITY", "GUARD", "GUARD_AT_FIRST", "Meter"]

GUARD = 0.1  # seconds of refill kept back, once the provider has answered
GUARD_AT_FIRST = 0.3  # the same before the first answer: the first requests also wait for connections
GUARD_IN_DRIFT = 1.0  # the same while somebody else spends the same limit
AMBIGUITY = 0.1  # seconds around a snapshot in which the order of arrival is not known
DRIFT_MEMORY = 3.0  # seconds over which the spending of others is smoothed
HISTORY = 4_096  # charges remembered, to tell what left since a snapshot


class Meter:
    """A bucket that refills continuously (or, once found to, all at once at the end of a window).

    Args:
        limit: units per period; requests or model tokens.
        period: seconds.
        now: the moment from which it is full.
        capacity: units that a full bucket holds; None for a whole period's worth.
        guarded: whether to keep the guard band (not for limits that are our own, like a minimum interval).
    """

    __slots__ = (
        "_anchor", "_base", "_cumulative", "_history", "_times", "boundary", "capacity", "drift", "error", "full_since",
        "guard", "guarded", "level", "limit", "period", "pledged", "snapshots", "stamp", "windowed",
    )  # fmt: skip

    def __init__(
        self, limit: float, period: float, now: float, *, capacity: float | None = None, guarded: bool = True
    ) -> None:
        self.limit = limit
        self.period = period
        self.capacity = min(limit, capacity) if capacity is not None else limit
        self.level = self.capacity
        self.stamp = now
        self.full_since = now
        self.pledged = 0.0  # what calls in flight will still be charged when they end
        self.guarded = guarded
        self.guard = GUARD_AT_FIRST if guarded else 0.0
        self.drift = 0.0  # units per second that others spend
        self.windowed = False
        self.boundary = math.inf  # when the window ends, if it is one
        self.error = 0.0  # how far snapshots were from what this mirror predicted, smoothed
        self.snapshots = 0
        self._anchor: tuple[float, float, float] | None = None  # the last snapshot: moment, remaining, charged
        self._times: list[float] = []
        self._history: list[float] = []  # what had been charged by each of those times
        self._base = 0.0  # what had been charged before the first of them
        self._cumulative = 0.0

    @property
    def rate(self) -> float:
        """Units per second that come back to us."""
        return max(self.limit / self.period - self.drift, 0.02 * self.limit / self.period)

    def refill(self, now: float) -> None:
        """Bring the level up to `now`."""
        if now <= self.stamp:
            return
        if self.windowed:
            if now >= self.boundary:
                periods = math.floor((now - self.boundary) / self.period) + 1
                self.boundary += periods * self.period
                self.level = self.capacity
        else:
            self.level = min(self.capacity, self.level + self.rate * (now - self.stamp))
        if self.level >= self.capacity:
            self.full_since = now
        self.stamp = now

    def wait(self, amount: float, pledge: float, now: float, held_back: float = 0.0) -> float:
        """Seconds until `amount` (and its pledge) fits beside what is held back; math.inf: when a call ends."""
        self.refill(now)
        guard = 0.0 if self.windowed else self.guard * self.rate
        target = min(amount + pledge + guard + held_back, self.capacity)
        missing = target + self.pledged - self.level
        if missing <= 1e-9 * max(1.0, self.capacity):
            return 0.0
        if self.windowed:
            return max(self.boundary - now, 1e-3)
        if target + self.pledged > self.capacity + 1e-9 and self.pledged > 0:
            return math.inf  # the pledges of those in flight leave no room, however long we wait
        return missing / self.rate

    def take(self, amount: float, pledge: float, now: float) -> None:
        """Charge what leaves now, and remember what it will be charged when it ends."""
        self.pledged += pledge
        self.charge(amount, now)

    def charge(self, amount: float, now: float) -> None:
        """Take (or, below zero, give back) units at this moment; debt is allowed, as providers allow it."""
        self.refill(now)
        if not amount:
            return
        self.level = min(self.level - amount, self.capacity)
        self._cumulative += amount
        self._times.append(now)
        self._history.append(self._cumulative)
        if len(self._times) > 2 * HISTORY:
            self._base = self._history[HISTORY - 1]
            del self._times[:HISTORY], self._history[:HISTORY]

    def relimit(self, limit: float) -> None:
        """Follow a limit that changed; a learned capacity keeps its length in seconds."""
        if limit == self.limit:
            return
        share = limit / self.limit
        self.capacity = limit if self.capacity == self.limit else self.capacity * share
        self.level = min(self.level, self.capacity) if share < 1 else self.level
        self.limit = limit
        self._anchor = None
        self.drift = 0.0

    def read(self, remaining: float, sent_at: float, own: float, now: float, resolution: float = 1.0) -> None:
        """Clamp the level into what a snapshot leaves possible.

        Args:
            remaining: units left, as the answer said.
            sent_at: when the request left that the answer belongs to.
            own: what that request was charged when it left (the snapshot has it counted in).
            now: the present moment.
            resolution: to how much `remaining` is rounded.
        """
        self.refill(now)
        self.guard = GUARD if self.guarded else 0.0
        before, after = sent_at - AMBIGUITY, sent_at + AMBIGUITY
        if self._base and before < self._times[0]:
            return  # too old to say what has left since
        surely = self._charged_since(after)
        perhaps = self._charged_since(before) - own
        age = max(0.0, now - sent_at)
        slack = max(1.0, resolution) + 0.01 * own
        regained = 0.0 if self.windowed else self.rate * age
        at_most = min(remaining + regained, self.capacity) - min(surely, perhaps) + slack
        # Nobody says whether the snapshot is of the arrival or of the answer, so nothing is counted as come back.
        at_least = min(remaining - max(surely, perhaps, 0.0) - slack, self.capacity)
        if self.windowed and at_least > self.level + 0.5 * self.capacity:
            self.boundary = now + self.period  # it was refilled: a new window has begun, no later than now
        self._learn(remaining, sent_at)
        self.level = max(min(self.level, at_most), at_least)

    def _charged_since(self, moment: float) -> float:
        """Net units charged after that moment, as far back as is remembered."""
        index = bisect_right(self._times, moment)
        return self._cumulative - (self._history[index - 1] if index else self._base)

    def _learn(self, remaining: float, sent_at: float) -> None:
        """Compare this snapshot with the one before: how true is this mirror, and is somebody else spending?"""
        charged = self._cumulative - self._charged_since(sent_at)
        anchor = self._anchor
        if anchor is None:
            self._anchor = (sent_at, remaining, charged)
            return
        elapsed = sent_at - anchor[0]
        if elapsed <= 0:
            return
        plain_rate = 0.0 if self.windowed else self.limit / self.period
        predicted = min(anchor[1] + plain_rate * elapsed, self.capacity) - (charged - anchor[2])
        self.error += 0.1 * (abs(predicted - remaining) - self.error)
        self.snapshots += 1
        if elapsed < 10 * AMBIGUITY:
            return
        # What left around either snapshot may be counted in one and not the other: no evidence of anybody else.
        unsure = self._around(sent_at) + self._around(anchor[0]) + 2.0 + 0.02 * (charged - anchor[2])
        vanished = max(0.0, predicted - remaining - unsure) / elapsed if not self.windowed else 0.0
        weight = 1.0 - math.exp(-elapsed / DRIFT_MEMORY)
        self.drift += weight * (min(vanished, plain_rate) - self.drift)
        if self.drift < 0.01 * plain_rate:
            self.drift = 0.0
        elif self.guarded:
            self.guard = GUARD_IN_DRIFT
        self._anchor = (sent_at, remaining, charged)

    def _around(self, moment: float) -> float:
        return abs(self._charged_since(moment - AMBIGUITY) - self._charged_since(moment + AMBIGUITY))

    def charged_between(self, start: float, end: float) -> float:
        """Net units charged from `start` up to, and not including, `end`."""
        return self._charged_since(start - 1e-9) - self._charged_since(end - 1e-9)
