"""A limit that nobody tells: measured from what goes through between two refusals.

A bucket is empty at each refusal. So between two of them, T seconds apart, with A admitted, its refill is between
(A - 1) / T and (A + 1) / T. Sending at the upper bound never leaves refill unused, and is refused again only after
about as long as has been measured already: each refusal doubles what is known, and they grow rare by themselves.
"""

from __future__ import annotations

from collections import deque

from .meter import Meter

__all__ = ["Calibrator"]

FIRST_PROBE = 0.5  # seconds after a first refusal that named no wait
SEARCH_RATE = 20.0  # sends per second while only one refusal is known
BASELINE = 60.0  # seconds of refusals that count; older ones may speak of another limit


class Calibrator:
    """Keeps a meter's limit and capacity at what refusals measure.

    Args:
        period: seconds of the meter it makes.
    """

    __slots__ = ("_admitted", "_last", "_refusals", "_started", "meter", "period")

    def __init__(self, period: float) -> None:
        self.period = period
        self.meter: Meter | None = None
        self._started: float | None = None  # when the first request left: the bucket was full then
        self._admitted = 0.0
        self._last = -1.0  # when the newest refusal came back
        self._refusals: deque[tuple[float, float]] = deque(maxlen=64)  # (when it left, admitted by then)

    def sent(self, now: float) -> None:
        """One left; it counts as admitted until it is refused."""
        if self._started is None:
            self._started = now
        self._admitted += 1.0
        if self.meter is not None:
            self._press_on(self.meter, now)

    def refused(self, sent_at: float, retry_after: float | None, now: float) -> float:
        """Learn from a refusal without numbers; answer the seconds to wait before the next send."""
        self._admitted -= 1.0
        if sent_at <= self._last:
            return 0.0  # it left before the last refusal was known: the same news again
        self._last = now
        self._refusals.append((sent_at, self._admitted))
        while len(self._refusals) > 2 and sent_at - self._refusals[0][0] > BASELINE:
            self._refusals.popleft()
        if self.meter is None:
            capacity = max(1.0, self._admitted)
            self.meter = Meter(capacity, capacity / SEARCH_RATE, now, guarded=False)
        rate = self._upper_bound()
        self.meter.period = self.meter.limit / rate
        self.meter.level = 0.0
        self.meter.stamp = now
        if retry_after is not None:
            return retry_after
        return 1.0 / rate if len(self._refusals) > 1 else FIRST_PROBE

    def _upper_bound(self) -> float:
        (first, before), (last, after) = self._refusals[0], self._refusals[-1]
        if last <= first:
            return SEARCH_RATE
        return (after - before + 1.0) / (last - first)

    def _press_on(self, meter: Meter, now: float) -> None:
        """No refusal for twice as long as was measured: the limit has grown, so the pace doubles."""
        if len(self._refusals) < 2:
            return
        measured = self._refusals[-1][0] - self._refusals[0][0]
        if now - self._last > 2.0 * measured + 2.0:
            meter.period /= 2.0
            self._last = now
            self._refusals.clear()
            self._refusals.append((now, self._admitted))
