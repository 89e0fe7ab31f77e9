"""A sum and its past: what was added since, before or around a moment, so that old snapshots can be compared."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right

__all__ = ["RunningSum"]

HISTORY = 4_096  # entries that are always remembered; twice as many are held before the older half goes


class RunningSum:
    """Amounts added in the order of time. Every answer takes O(log n); `strike` O(n) of what came later.

    Attributes:
        total: the sum of everything that was added and not struck.
    """

    __slots__ = ("_base", "_sums", "_times", "total")

    def __init__(self) -> None:
        self.total = 0.0
        self._times: list[float] = []
        self._sums: list[float] = []  # the total after each entry
        self._base = 0.0  # the total before the first of them

    def add(self, amount: float, now: float) -> None:
        """Something was added at this moment, which is no earlier than the one before."""
        self.total += amount
        self._times.append(now)
        self._sums.append(self.total)
        if len(self._times) > 2 * HISTORY:
            self._base = self._sums[HISTORY - 1]
            del self._times[:HISTORY], self._sums[:HISTORY]

    def strike(self, amount: float, moment: float) -> None:
        """What was added at that moment turned out not to count: the past is corrected, not the present."""
        self.total -= amount
        for index in range(bisect_left(self._times, moment), len(self._sums)):
            self._sums[index] -= amount

    def since(self, moment: float) -> float:
        """The sum of what was added after that moment, as far back as is remembered."""
        index = bisect_right(self._times, moment)
        return self.total - (self._sums[index - 1] if index else self._base)

    def around(self, first: float, last: float) -> tuple[float, float] | None:
        """`since(first)` and `since(last)`, of two moments in this order; None when the first is not remembered."""
        times = self._times
        if not times or times[-1] <= first:
            return (0.0, 0.0)
        if self._base and first < times[0]:
            return None
        total, sums = self.total, self._sums
        index = bisect_right(times, first)
        after = bisect_right(times, last, index)
        return (
            total - (sums[index - 1] if index else self._base),
            total - (sums[after - 1] if after else self._base),
        )

    def before(self, moment: float) -> float:
        """The total of what was added before that moment."""
        index = bisect_left(self._times, moment)
        return self._sums[index - 1] if index else self._base

    def until(self, moment: float) -> float:
        """The total of what was added up to and at that moment."""
        return self.total - self.since(moment)

    def next_after(self, moment: float) -> float:
        """The moment of the first addition after that one; math.inf when there was none."""
        index = bisect_right(self._times, moment)
        return self._times[index] if index < len(self._times) else math.inf

    def remembers(self, moment: float) -> bool:
        """Whether nothing that was added since has been forgotten."""
        return not self._base or moment >= self._times[0]
