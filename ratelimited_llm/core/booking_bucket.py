"""One limit that several processes share: what is left of it when everything that is booked has been sent.

Bookings have turns. `level` is what is left right after the last of them, at the moment `stamp`, which may lie in the
future. In front of it there may be room, since somebody gave something back, or since patient calls leave something to
urgent ones. Three numbers bound that room from below, so that no call that was booked before is ever cheated:

    spare    units that are free at any moment up to `since`; from then on it grows with the refill
    later    units that are free at the turn of every booking after `since`

Whoever goes in front takes from both. When `spare` has grown to `later`, `later` takes its place and begins anew.

A bucket is one line of text in a store, eleven numbers, which others may have spoilt: what is no finite number is read
as nothing left, and what is out of bounds is drawn to them. `stores/book.lua` has the same in Lua.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .booking import Part

__all__ = ["AHEAD", "LARGEST", "MEMORY", "Bucket", "finite", "within"]

BEYOND = 1e18  # units: what `later` is while there is no booking that it could be about
LARGEST = 1e15  # units: no limit is above it, and a number above it was spoilt
LEAST = 1e-6  # units, or seconds: what is below it would vanish in the arithmetic
LONGEST = 1e7  # seconds: no period is above it
MINUTE = 60.0
AHEAD = 600.0  # seconds: nothing is booked further ahead, whatever the limit
MEMORY = 60.0  # seconds that a process which asks no more, and what it stated, are remembered


def finite(value: object, otherwise: float) -> float:
    """A number out of a store or an order, or what to take when it is none."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return otherwise
    return number if math.isfinite(number) else otherwise


def within(value: float, low: float, high: float) -> float:
    """The nearest number that is in bounds."""
    return max(low, min(value, high))


def _known(value: object, most: float = LARGEST) -> float:
    """A positive number that can be; 0.0 for none."""
    number = finite(value, 0.0)
    return number if LEAST <= number <= most else 0.0


@dataclass(slots=True)
class Bucket:
    """One limit's state; every moment is of the store's clock.

    Attributes:
        level, stamp, spare, since, later: see above; units and moments.
        period: seconds that the limit stands for.
        learned: units per period as a provider told somebody; 0.0 when nobody was told.
        stated: the lowest that users have configured, 0.0 for none; it counts until `stated_until`.
        learned_at: when somebody was told it; 0.0 when nobody was, or that was not noted.
        holds: units of a full bucket, as told last; 0.0 for a whole period's worth.
        limit, capacity: units per period, and of a full bucket, that count for the present order.
    """

    level: float
    stamp: float
    spare: float
    since: float
    later: float
    period: float = MINUTE
    learned: float = 0.0
    stated: float = 0.0
    stated_until: float = 0.0
    holds: float = 0.0
    learned_at: float = 0.0
    limit: float = 0.0
    capacity: float = 0.0

    @classmethod
    def new(cls, end: float) -> Bucket:
        """A limit that the store knows nothing of."""
        return cls(0.0, end, 0.0, end, BEYOND)

    @classmethod
    def read(cls, text: str, end: float) -> Bucket:
        """What `text` wrote, as far as it can be believed; else nothing is left at `end`, the turn of the last."""
        words = text.split()
        words += [""] * (11 - len(words))
        numbers = [finite(word, math.nan) for word in words[:5]]
        bucket = cls(*numbers) if not any(map(math.isnan, numbers)) else cls.new(end)
        bucket.period = _known(words[5], LONGEST) or MINUTE
        bucket.learned, bucket.stated = _known(words[6]), _known(words[7])
        bucket.stated_until, bucket.holds = finite(words[8], 0.0), _known(words[9])
        bucket.learned_at = finite(words[10], 0.0)
        return bucket

    def text(self) -> str:
        """The bucket as the line of ten numbers that a store keeps."""
        return (
            f"{self.level!r} {self.stamp!r} {self.spare!r} {self.since!r} {self.later!r} "
            f"{self.period!r} {self.learned!r} {self.stated!r} {self.stated_until!r} {self.holds!r} "
            f"{self.learned_at!r}"
        )

    @property
    def rate(self) -> float:
        """Units that come back in a second."""
        return self.limit / self.period

    def hear(self, part: Part, now: float) -> None:
        """A process says what it knows of the limit."""
        self.period = _known(part.period, LONGEST) or self.period
        self.holds = _known(part.capacity)
        told = _known(part.limit)
        if not told:
            return
        if not part.configured:
            self.learned, self.learned_at = told, now
        elif told <= self.stated or now >= self.stated_until:
            self.stated, self.stated_until = told, max(self.stated_until, now + MEMORY)

    def rule(self, at_most: float, now: float) -> None:
        """Settle which limit counts now: 0.0 when nobody knows any; an operator may have lowered it."""
        if self.stated and (now < self.stated_until or not self.learned):
            self.limit = min(self.stated, self.learned or math.inf, at_most)
        else:
            self.limit = min(self.learned, at_most)
        self.capacity = min(self.holds or self.limit, at_most)

    def source(self, now: float) -> str:
        """Whose number the limit is that `rule` has settled: "stated", "learned" or "lowered"."""
        if self.limit == self.stated and (now < self.stated_until or not self.learned):
            return "stated"
        return "learned" if self.limit == self.learned else "lowered"

    def fill(self, level: float) -> None:
        """It begins with so much, or with as much as it holds."""
        self.level = self.spare = within(finite(level, 0.0), -2.0 * self.capacity, self.capacity)

    def advance(self, now: float, end: float) -> None:
        """Bring it up to `end`, the turn of the pool's last booking; `now` when that is over."""
        capacity, rate = self.capacity, self.rate
        low = -2.0 * capacity
        self.stated_until = min(self.stated_until, now + AHEAD + MEMORY)
        self.level = within(self.level + rate * max(0.0, end - self.stamp), low, capacity)
        self.stamp = end
        if end <= now:
            self.spare, self.since, self.later = self.level, now, BEYOND
            return
        self.since = min(self.since, end)
        self.spare = within(self.spare, low, capacity)
        self.later = self.later if self.later >= BEYOND else within(self.later, low, capacity)
        if self.later < BEYOND and now >= self.since and self._grown(now) >= self.later:
            self.spare, self.since, self.later = self.later, end, BEYOND

    def correct(self, amount: float) -> None:
        """Charge so much for calls that have ended; below zero it is given back."""
        amount = within(finite(amount, 0.0), -self.capacity, self.capacity)
        self._shift(amount)
        self.level = within(self.level, -2.0 * self.capacity, self.capacity)
        self.spare = min(self.spare, self.capacity)

    def bound(self, most: float | None) -> None:
        """Lower what is left to `most`, as a header or refusal told; None: nothing did."""
        if most is not None and math.isfinite(most):
            most = max(0.0, most)
            self.level, self.spare = min(self.level, most), min(self.spare, most)
            if self.later < BEYOND:
                self.later = min(self.later, most)

    def turn(self, need: float) -> float:
        """Seconds after the last booking at which so much is there."""
        return max(0.0, (min(need, self.capacity) - self.level) / self.rate)

    def gap(self, need: float, now: float) -> float:
        """The moment at which so much could be taken in front of what is booked; math.inf when it cannot."""
        need = min(need, self.capacity)
        if self.later < need:
            return math.inf
        grown = self._grown(now)
        return now if grown >= need else max(now, self.since) + (need - grown) / self.rate

    def _grown(self, now: float) -> float:
        return min(self.spare + self.rate * max(0.0, now - self.since), self.capacity)

    def take_last(self, amount: float, now: float, moment: float) -> None:
        """Book so much for `moment`, behind everything that is booked."""
        self.level = min(self.level + self.rate * (moment - self.stamp), self.capacity) - amount
        self.stamp = moment
        if moment > now:
            self.later = min(self.later, self.level)
        else:
            self.spare, self.since, self.later = self.level, now, BEYOND

    def take_in_front(self, amount: float) -> None:
        """Book so much in front of what is booked already, where `gap` said that there is room."""
        if self.later <= self.spare:  # there is no use in waiting for the one to grow: begin anew with both as one
            self.spare, self.since, self.later = self.later, self.stamp, BEYOND
        self._shift(amount)

    def _shift(self, amount: float) -> None:
        self.level -= amount
        self.spare -= amount
        if self.later < BEYOND:
            self.later -= amount

    def left(self, now: float) -> float:
        """Units that are left; below zero when more is booked than there is."""
        level = within(self.level, -2.0 * self.capacity, self.capacity)
        return min(level + self.rate * max(-AHEAD, now - self.stamp), self.capacity)
