"""The arithmetic of one limit: a bucket that refills continuously, or a window that is refilled all at once.

    bucket   level(now) = min(capacity, level + rate * (now - stamp))     rate = limit / period, units per second
    window   level      = capacity, minus what left since, at every `boundary`; the next one is `span` seconds later

A call of `amount` units fits when  amount + pledge + held_back + margin + pledged <= level,  where

    pledge      what this call will still be charged when it ends, and `pledged` the same of those in flight
    held_back   what patient calls leave to urgent ones
    margin      what is kept back while somebody else spends the same limit, since we hear of it late

Whatever is larger than the whole bucket goes when it is full, and leaves a debt: the level falls below zero.
"""

from __future__ import annotations

import math

from .running_sum import RunningSum

__all__ = ["GUARD", "TRUSTED_WINDOWS", "UNTOLD", "Bucket"]

GUARD = 0.1  # seconds of refill kept back: 0.998 of a limit used and no refusal in simulation, at 60 to 3,000 rpm
GUARD_AT_FIRST = 0.3  # the same before the first answer: the first requests also wait for connections
UNTOLD = 1e12  # units per period of a limit that nobody has told: no limit, until a refusal measures one
TRIAL = 0.3  # seconds in which a first call of a window would be refused, if the window had not begun
TRUSTED_WINDOWS = 10  # that a measured, untold limit is believed before it is tried again: it may have grown
LOOK_AGAIN = 1.0  # seconds until a limit that nobody has told is looked at again, should it ever seem used up
ROUNDING = 1e-9  # of what is asked: less is missing than the sums of floats can tell


class Bucket:
    """One limit. Told the time: every `now` and `moment` is in seconds of one monotonic clock. Not thread-safe.

    Args:
        limit: units per period, requests or model tokens; None when nobody has told it.
        period: seconds.
        now: the moment from which it is full.
        capacity: units that it holds when full; None for a whole period's worth.
        guarded: whether to keep the guard band; not for limits that are our own, like a minimum interval.

    Attributes:
        level: units left at `stamp`; below zero in debt.
        full_since: when it was full last, or the window began.
        pledged: units that calls in flight will still be charged when they end.
        guard: seconds of refill that are kept back.
        margin: units that are kept back on top of that.
        rate: units per second that come back; 0.0 for an untold limit that no refusal has measured.
        boundary: when the window ends; math.inf for a bucket.
        span: seconds of a window.
        spent, returned: everything that was charged, and given back, with its moments.
    """

    __slots__ = (
        "_trial_until", "_trusted", "boundary", "capacity", "full_since", "guard", "guarded", "level", "limit",
        "margin", "period", "pledged", "rate", "returned", "span", "spent", "stamp",
    )  # fmt: skip

    def __init__(
        self, limit: float | None, period: float, now: float, *, capacity: float | None = None, guarded: bool = True
    ) -> None:
        self.limit = UNTOLD if limit is None else limit
        self.period = period
        self.capacity = self.limit if capacity is None else min(self.limit, capacity)
        self.level = self.capacity
        self.stamp = self.full_since = now
        self.pledged = 0.0
        self.guarded = guarded
        self.guard = GUARD_AT_FIRST if guarded else 0.0
        self.margin = 0.0
        self.rate = self.nominal if self.told else 0.0
        self.boundary = math.inf
        self.span = period
        self.spent = RunningSum()
        self.returned = RunningSum()
        self._trial_until = -math.inf  # until then one call tries whether a new window has really begun
        self._trusted = 0  # windows for which the measured capacity of an untold limit is still believed

    @property
    def told(self) -> bool:
        """Whether anybody has told the limit."""
        return self.limit != UNTOLD

    @property
    def nominal(self) -> float:
        """Units per second that the whole limit gives; what comes back to us (`rate`) may be less."""
        return self.limit / self.period

    @property
    def windowed(self) -> bool:
        """Whether it is refilled all at once, at `boundary`."""
        return self.boundary < math.inf

    @property
    def whole(self) -> bool:
        """Whether a full bucket holds a whole period's worth, so that `remaining` is what is left in the bucket."""
        return self.capacity >= self.limit

    def refill(self, now: float) -> None:
        """Bring the level up to `now`; a moment that is past changes nothing."""
        if now <= self.stamp:
            return
        if self.boundary < math.inf:
            if now >= self.boundary:
                self._begin_window(now)
        else:
            self.level += self.rate * (now - self.stamp)
            if self.level >= self.capacity:
                self.level = self.capacity
                self.full_since = now
        self.stamp = now

    def _begin_window(self, now: float) -> None:
        """Refill for the window that `now` is in; what left just before its start may have arrived in it."""
        start = self.boundary + math.floor((now - self.boundary) / self.span) * self.span
        self.boundary = start + self.span
        if not self.told and self.level <= 0.0:
            self._trusted -= 1
            if self._trusted < 0:
                self.capacity += max(1.0, 0.02 * self.capacity)  # all of it was let in: there may be more
        self.level = self.capacity - self.spent.since(start - 2 * GUARD)
        self.full_since = start
        # When it ends is known from answers that took their time, so it may not have yet: one call goes first.
        self._trial_until = start + TRIAL

    def wait(self, amount: float, pledge: float, now: float, held_back: float = 0.0) -> float:
        """Seconds until `amount` (and its pledge) fits beside what is held back; math.inf: when a call ends."""
        if now > self.stamp:
            self.refill(now)
        target = amount + pledge + held_back + self.margin
        target = (target if target < self.capacity else self.capacity) + self.pledged
        missing = target - self.level
        if missing <= 0.0 or missing <= ROUNDING * max(1.0, target):
            return max(0.0, self._trial_until - now) if self.level < self.capacity else 0.0
        if self.boundary < math.inf:
            return max(self.boundary - now, 1e-3)
        if target > self.capacity + ROUNDING and self.pledged > 0:
            return math.inf  # the pledges of those in flight leave no room, however long we wait
        return missing / self.rate if self.rate else LOOK_AGAIN

    def take(self, amount: float, pledge: float, now: float) -> None:
        """Charge what leaves now, and remember what it will be charged when it ends."""
        self.pledged += pledge
        if now > self.stamp:
            self.refill(now)
        if not amount:
            return
        # The guard: a full bucket begins to refill when a call arrives, not when it leaves. So the mirror is never
        # fuller than the provider's can be if this one takes as long as the guard to arrive, and the next no time.
        full = self.capacity - self.guard * self.rate
        self.level = (full if self.level > full and self.boundary == math.inf else self.level) - amount
        self.spent.add(amount, now)

    def correct(self, amount: float, now: float) -> None:
        """Charge (or, below zero, give back) what a call turned out to cost; debt is allowed, as providers do."""
        self.refill(now)
        if amount:
            self.level = min(self.level - amount, self.capacity)
            if amount > 0:
                self.spent.add(amount, now)
            else:
                self.returned.add(-amount, now)

    def undo(self, amount: float, sent_at: float, now: float) -> None:
        """Take back the charge of a call that left at `sent_at` and was refused: the provider never charged it."""
        self.refill(now)
        if amount:
            self.level = min(self.level + amount, self.capacity)
            self.spent.strike(amount, sent_at)

    def relimit(self, limit: float) -> None:
        """Follow a limit that changed; a capacity that was learned keeps its length in seconds."""
        share = limit / self.limit
        self.capacity = limit if self.whole else min(limit, max(1.0, self.capacity * share))
        self.level = min(self.level, self.capacity)
        self.limit = limit
        self.rate = self.nominal

    def turn_windowed(self, boundary: float, span: float | None = None) -> None:
        """From now on it is refilled all at once, the first time at `boundary`.

        `span` is the seconds of a window; None for as long as the bucket's capacity lasted: a learned capacity is what
        a window of its own length holds.
        """
        if span is None:
            span = self.period
            if not self.whole:
                span = max(1.0, float(round(self.capacity * self.period / self.limit)))
                self.capacity = self.limit * span / self.period
        self.span = span
        self.boundary = boundary + (GUARD if self.guarded else 0.0)
