"""What has happened at a gateway lately: slices of five seconds over 15 minutes, for its health and its charts."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["RecentHistory", "Slice", "percentiles"]

SLICE = 5.0  # seconds
SLICES = 180
SAMPLES = 100  # latencies of one slice that are remembered
LATEST = 1_000  # requests whose waits and latencies are remembered


class Slice:
    """What happened in five seconds; see `stats` for the names."""

    __slots__ = (
        "answered", "at", "failed", "in_flight", "latencies", "number", "queued", "refused", "rejected", "requests",
        "waited",
    )  # fmt: skip

    def __init__(self, number: int, at: float, queued: int, in_flight: int) -> None:
        self.number = number
        self.at = at
        self.queued, self.in_flight = queued, in_flight  # at its begin
        self.latencies: list[float] = []
        self.requests = self.answered = self.failed = self.refused = self.rejected = 0
        self.waited = 0.0  # the longest wait of a request that was sent

    def told(self) -> dict[str, Any]:
        """The slice as JSON, by the names of `stats`."""
        return {
            "at": self.at, "requests": self.requests, "answered": self.answered, "failed": self.failed,
            "refused": self.refused, "rejected": self.rejected, "waited": round(self.waited, 3),
            "queued": self.queued, "in_flight": self.in_flight, **percentiles(self.latencies),
        }  # fmt: skip


class RecentHistory:
    """The slices so far, and the latest waits and latencies. Used from one event loop.

    Args:
        refusals: how many 429s there were in all, as of now.
        depth: how many requests wait, and how many are in flight; asked once in five seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        refusals: Callable[[], int],
        depth: Callable[[], tuple[int, int]] = lambda: (0, 0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._refusals = refusals
        self._depth = depth
        self._refused = 0
        self._clock = clock
        self._slices: deque[Slice] = deque(maxlen=SLICES)
        self.waits: deque[float] = deque(maxlen=LATEST)
        self.latencies: deque[float] = deque(maxlen=LATEST)

    def now(self) -> Slice:
        """The slice of this moment, with the refusals that nobody has counted yet."""
        number = int(self._clock() // SLICE)
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(Slice(number, round(time.time(), 3), *self._depth()))
        current = self._slices[-1]
        refused = self._refusals()
        current.refused += max(0, refused - self._refused)
        self._refused = refused
        return current

    def ended(self, outcome: str, waited: float | None, latency: float | None) -> None:
        """A request has ended.

        Args:
            outcome: "answered", "failed", "rejected" (never sent: full queue, expired, too large) or "gone".
            waited: seconds in the queue; None when it never left it.
            latency: seconds from dispatch to the answer, or to the begin of a stream; None when there was none.
        """
        current = self.now()
        if outcome != "gone":
            setattr(current, outcome, getattr(current, outcome) + 1)
        if waited is not None:
            current.waited = max(current.waited, waited)
            self.waits.append(waited)
        if latency is not None:
            self.latencies.append(latency)
            if len(current.latencies) < SAMPLES:
                current.latencies.append(latency)

    def sums(self, seconds: float) -> dict[str, float]:
        """The slices of the last so many seconds added up; of `waited` the longest."""
        self.now()
        first = int((self._clock() - seconds) // SLICE)
        late = [each for each in self._slices if each.number > first]
        names = ("requests", "answered", "failed", "refused", "rejected")
        sums: dict[str, float] = {name: sum(getattr(each, name) for each in late) for name in names}
        return {**sums, "waited": max((each.waited for each in late), default=0.0)}

    def told(self) -> list[dict[str, Any]]:
        """All slices as JSON, the oldest first; those in which nothing happened are left out."""
        self.now()
        return [each.told() for each in self._slices]


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Median and 95th percentile; None while there are no values."""
    if not values:
        return {"p50": None, "p95": None}
    ordered = sorted(values)
    last = len(ordered) - 1
    return {"p50": round(ordered[math.ceil(0.5 * last)], 6), "p95": round(ordered[math.ceil(0.95 * last)], 6)}
