"""One limit of one provider as arithmetic: a leaking bucket, a counter cleared each window, or a sliding log.

No clock and no I/O: every method is told `now`, in seconds of any clock that does not run backwards. What all
three kinds promise:

1. `wait(amount, now) == 0.0` means that `take(amount, now)` stays inside the limit.
2. Otherwise the answer is exact: after that many seconds, if nobody else takes, it fits.
3. A call that is larger than the capacity of a *smoothed* limit goes when that limit is untouched, and what it
   took too much is missing afterwards. A provider has to do that, or such a call could never be answered.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

__all__ = ["Bucket", "FixedWindow", "Meter", "SlidingWindow"]

# Floats that were added and subtracted differ in their last digits; a millionth of a token is nobody's limit.
EPSILON = 1e-6
# The same for moments: a caller that sleeps exactly until a boundary must find itself behind it.
INSTANT = 1e-9


class Meter:
    """What the three kinds have in common.

    Attributes:
        limit: the whole limit per `period`, as the provider writes it in its headers.
        period: seconds that `limit` is meant for (60, or 86,400).
        span: seconds over which it is really enforced; shorter than `period` when the provider smooths.
        capacity: what fits into one span.
        charged: everything that was taken since the start, corrections included.
    """

    def __init__(self, limit: float, period: float, span: float, *, offset: float = 0.0) -> None:
        self.limit = limit
        self.period = period
        self.span = span
        self.offset = offset
        self.charged = 0.0
        self._used = 0.0
        self._granted = 0.0
        self._mark: float | None = None

    @property
    def capacity(self) -> float:
        return self.limit * self.span / self.period

    @property
    def rate(self) -> float:
        """Units per second in the long run."""
        return self.limit / self.period

    def start(self, now: float) -> None:
        """Begin to count what could have been admitted; only the first call has an effect."""
        if self._mark is None:
            self._mark = now

    def used(self, now: float) -> float:
        """What counts against the limit at `now`; more than the capacity when it is in debt."""
        raise NotImplementedError

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` fits, 0.0 when it does."""
        raise NotImplementedError

    def take(self, amount: float, now: float) -> Any:
        """Charge `amount`, whether it fits or not; the answer is the stamp that `correct` wants back."""
        raise NotImplementedError

    def correct(self, stamp: Any, delta: float, now: float) -> None:
        """Charge `delta` more for the taking that `stamp` stands for, or give it back when negative."""
        raise NotImplementedError

    def until_full(self, now: float) -> float:
        """Seconds until nothing is used any more."""
        raise NotImplementedError

    def admissible(self, now: float) -> float:
        """The most that could have been admitted from the start until `now`."""
        raise NotImplementedError

    def change(self, limit: float, now: float) -> None:
        """Set another limit from `now` on."""
        raise NotImplementedError

    def _free(self, amount: float, used: float) -> bool:
        capacity = self.capacity
        return used + min(amount, capacity) <= capacity + EPSILON


class Bucket(Meter):
    """A bucket that holds `capacity` and is refilled all the time at limit / period."""

    def __init__(self, limit: float, period: float, span: float, *, offset: float = 0.0) -> None:
        super().__init__(limit, period, span, offset=offset)
        self._at = -math.inf
        self._granted = self.capacity

    def used(self, now: float) -> float:
        if now > self._at:
            if self._used:
                self._used = max(0.0, self._used - self.rate * (now - self._at))
            self._at = now
        return self._used

    def wait(self, amount: float, now: float) -> float:
        used = self.used(now)
        if self._free(amount, used):
            return 0.0
        capacity = self.capacity
        return (used + min(amount, capacity) - capacity) / self.rate

    def take(self, amount: float, now: float) -> None:
        self._used = self.used(now) + amount
        self.charged += amount

    def correct(self, stamp: None, delta: float, now: float) -> None:
        self._used = max(0.0, self.used(now) + delta)
        self.charged += delta

    def until_full(self, now: float) -> float:
        return self.used(now) / self.rate

    def admissible(self, now: float) -> float:
        return self._granted + (0.0 if self._mark is None else self.rate * max(0.0, now - self._mark))

    def change(self, limit: float, now: float) -> None:
        """Set another limit: what is left stays left, as far as it fits, and refills at the new rate.

        So a bucket that was empty when its limit is halved does not owe the other half.
        """
        if self._mark is not None:
            self._granted, self._mark = self.admissible(now), now
        left = self.capacity - self.used(now)
        self.limit = limit
        self._used = self.capacity - min(left, self.capacity)
        if self._mark is None:
            self._granted = self.capacity


class Windowed(Meter):
    """What both kinds of windows have in common: how much could have been admitted, whatever limits there were.

    `_mark` is when the windows of the present limit began to be counted, and `_peak` the largest limit of the first.
    """

    def __init__(self, limit: float, period: float, span: float, *, offset: float = 0.0) -> None:
        super().__init__(limit, period, span, offset=offset)
        self._peak = self.capacity

    def _gone(self, now: float) -> int:
        """Whole windows that are over since `_mark`."""
        raise NotImplementedError

    def admissible(self, now: float) -> float:
        return self._granted + self._peak + self._gone(now) * self.capacity

    def change(self, limit: float, now: float) -> None:
        """Set another limit: what was counted in this window stays counted."""
        self.used(now)
        gone, before = self._gone(now), self.capacity
        if self._mark is not None and gone:
            self._granted += self._peak + (gone - 1) * before
            self._mark += gone * self.span
            self._peak = before
        self.limit = limit
        self._peak = self.capacity if self._mark is None else max(self._peak, self.capacity)


class FixedWindow(Windowed):
    """A counter that is cleared whenever a window of `span` seconds ends, the same moments for everybody."""

    def __init__(self, limit: float, period: float, span: float, *, offset: float = 0.0) -> None:
        super().__init__(limit, period, span, offset=offset)
        self._window = -math.inf

    def _index(self, now: float) -> int:
        return math.floor((now - self.offset) / self.span + INSTANT)

    def _gone(self, now: float) -> int:
        return 0 if self._mark is None else max(0, self._index(now) - self._index(self._mark))

    def used(self, now: float) -> float:
        window = self._index(now)
        if window > self._window:
            # Only a smoothed limit remembers what it let through too much; see rule 3 above.
            owed = self._used - self.capacity * (window - self._window) if self.span < self.period else 0.0
            self._used = max(0.0, owed)
            self._window = window
        return self._used

    def wait(self, amount: float, now: float) -> float:
        used = self.used(now)
        if self._free(amount, used):
            return 0.0
        capacity = self.capacity
        windows = 1
        if self.span < self.period:
            windows = max(1, math.ceil((used + min(amount, capacity) - capacity - EPSILON) / capacity))
        return max(INSTANT, self.offset + (self._index(now) + windows) * self.span - now)

    def take(self, amount: float, now: float) -> float:
        self._used = self.used(now) + amount
        self.charged += amount
        return self._window

    def correct(self, stamp: float, delta: float, now: float) -> None:
        used = self.used(now)
        self.charged += delta
        # A window that is over has forgotten what was taken in it: there is nothing to give back to.
        if delta > 0 or stamp == self._window:
            self._used = max(0.0, used + delta)

    def until_full(self, now: float) -> float:
        used = self.used(now)
        if used <= 0:
            return 0.0
        windows = max(1, math.ceil(used / self.capacity - EPSILON)) if self.span < self.period else 1
        return max(0.0, self.offset + (self._index(now) + windows) * self.span - now)


class SlidingWindow(Windowed):
    """A log of the last `span` seconds; what is older has stopped to count."""

    def __init__(self, limit: float, period: float, span: float, *, offset: float = 0.0) -> None:
        super().__init__(limit, period, span, offset=offset)
        self._log: deque[list[float]] = deque()

    def used(self, now: float) -> float:
        log = self._log
        while log and log[0][0] <= now + INSTANT:
            self._used -= log.popleft()[1]
        if not log:
            self._used = 0.0
        return self._used

    def wait(self, amount: float, now: float) -> float:
        used = self.used(now)
        moment = now
        for ends, spent in self._log:
            if self._free(amount, used):
                break
            used, moment = used - spent, ends
        return moment - now

    def take(self, amount: float, now: float) -> list[float]:
        self.used(now)
        # An outsized call of a smoothed limit counts for as long as its size takes; see rule 3 above.
        ends = now + self.span * max(1.0, amount / self.capacity)
        entry = [ends if not self._log else max(ends, self._log[-1][0]), amount]
        self._log.append(entry)
        self._used += amount
        self.charged += amount
        return entry

    def correct(self, stamp: list[float], delta: float, now: float) -> None:
        self.used(now)
        self.charged += delta
        if stamp[0] > now + INSTANT:
            stamp[1] += delta
            self._used += delta
        elif delta > 0:
            self.take(delta, now)
            self.charged -= delta

    def until_full(self, now: float) -> float:
        self.used(now)
        return max(0.0, self._log[-1][0] - now) if self._log else 0.0

    def _gone(self, now: float) -> int:
        return 0 if self._mark is None else math.floor(max(0.0, now - self._mark) / self.span + INSTANT)
