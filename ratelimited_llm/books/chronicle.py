"""The course of a run in equal slices of time: some hundred of them, however long it lasts. Told the time."""

from __future__ import annotations

import statistics

from .status import History, Moment

__all__ = ["Chronicle", "Slice"]

MOST_SLICES = 600  # then two become one: a run of a week has slices of half an hour
MOST_SAMPLES = 1_000
SAMPLES_OF_A_SLICE = 16


class Slice:
    """What is counted in one slice, and the last known state at its end."""

    __slots__ = ("answered", "failed", "in_flight", "latencies", "queued", "refused", "sent", "tokens")

    def __init__(self) -> None:
        self.sent = self.answered = self.failed = self.refused = self.tokens = 0
        self.queued = self.in_flight = -1  # as at the end of the slice before
        self.latencies: list[float] = []

    def join(self, later: Slice) -> None:
        """Add the counts of the slice that follows; the state at its end becomes ours."""
        for name in ("sent", "answered", "failed", "refused", "tokens"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        if later.queued >= 0:
            self.queued, self.in_flight = later.queued, later.in_flight
        self.latencies = (self.latencies + later.latencies)[-SAMPLES_OF_A_SLICE:]

    def moment(self, at: float, before: Moment) -> Moment:
        queued, flying = (self.queued, self.in_flight) if self.queued >= 0 else (before.queued, before.in_flight)
        middle = statistics.median(self.latencies) if self.latencies else None
        return Moment(at, self.sent, self.answered, self.failed, self.refused, self.tokens, queued, flying, middle)


class Chronicle:
    """Takes notes of a run; guarded by its owner's lock. Every `now` is in seconds of the same monotonic clock.

    Args:
        seconds: the length of a slice at first; it doubles when there are too many.
    """

    __slots__ = (
        "_begins", "_current", "_ends", "_every", "_limits", "_samples", "_seen", "_slices", "_told", "seconds",
        "since",
    )  # fmt: skip

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.since: float | None = None
        self._slices: list[Slice] = []
        self._current = Slice()  # the one that was asked for last, ...
        self._begins = self._ends = 0.0  # ... and from when until when it is the one
        self._samples: list[float] = []
        self._seen = 0
        self._every = 1
        self._limits: list[tuple[float, str, float]] = []
        self._told: dict[str, float] = {}

    def slice(self, now: float, queued: int, in_flight: int) -> Slice:
        """The slice of this moment, to count in; calls waiting and in flight are as after what is counted."""
        current = self._current if self._begins <= now < self._ends else self._at(now)
        current.queued, current.in_flight = queued, in_flight
        return current

    def _at(self, now: float) -> Slice:
        if self.since is None:
            self.since = now
        index = max(0, int((now - self.since) / self.seconds))
        while index >= MOST_SLICES:
            self._halve()
            index = int((now - self.since) / self.seconds)
        slices = self._slices
        while len(slices) <= index:
            slices.append(Slice())
        self._begins, self._ends = now, self.since + (index + 1) * self.seconds
        self._current = slices[index]
        return self._current

    def _halve(self) -> None:
        """Make slices of twice the length; gaps of a long silence cost nothing."""
        halved = []
        for first in range(0, len(self._slices), 2):
            joined = self._slices[first]
            if first + 1 < len(self._slices):
                joined.join(self._slices[first + 1])
            halved.append(joined)
        self._slices = halved
        self.seconds *= 2.0

    def latency(self, current: Slice, seconds: float) -> None:
        """A call was answered after so many seconds: every k-th is kept, so that the samples spread over the run."""
        if len(current.latencies) < SAMPLES_OF_A_SLICE:
            current.latencies.append(seconds)
        self._seen += 1
        if self._seen % self._every == 0:
            self._samples.append(seconds)
            if len(self._samples) >= MOST_SAMPLES:
                self._samples = self._samples[1::2]
                self._every *= 2

    def limit(self, dimension: str, limit: float, now: float) -> None:
        """A limit as it is now; only a change is noted."""
        if self._told.get(dimension) != limit and len(self._limits) < MOST_SLICES:
            self._told[dimension] = limit
            self._limits.append((0.0 if self.since is None else max(0.0, now - self.since), dimension, limit))

    def history(self) -> History:
        """The slices and samples so far as a value."""
        moments: list[Moment] = []
        before = Moment(0.0)
        for number, each in enumerate(self._slices):
            before = each.moment(number * self.seconds, before)
            moments.append(before)
        return History(self.seconds, tuple(moments), tuple(sorted(self._samples)), tuple(self._limits))
