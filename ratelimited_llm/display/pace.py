"""When something is said to somebody who waits: pure arithmetic over moments and seconds of waiting."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["IN_PLACE", "LINE_BY_LINE", "LINGER", "LONGEST", "Pace", "Waiting", "pause"]

LINGER = 1.0  # seconds after the last wait in which another one finds the ticker still there
BETWEEN = 0.1  # seconds from look to look when something is due and nobody waits at this very moment
LONGEST = 1.0  # seconds between two looks, so that it is soon noticed that nobody waits any longer


@dataclass(frozen=True, slots=True)
class Pace:
    """How often something is said.

    Attributes:
        first: seconds that were waited in a row before anything is said (2 s is git's habit).
        every: seconds from one time to the next.
        gap: seconds without a wait that end a row.
    """

    first: float
    every: float
    gap: float


IN_PLACE = Pace(first=2.0, every=0.5, gap=1.0)
LINE_BY_LINE = Pace(first=30.0, every=30.0, gap=60.0)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How somebody has waited so far.

    Attributes:
        since: the moment the present wait began, or None between two.
        left: the moment the latest wait ended.
        before: seconds waited in the present row of waits, without the present wait.
        said: the moment of the last word in this row, or None.
    """

    since: float | None
    left: float
    before: float
    said: float | None = None


def pause(pace: Pace, waiting: Waiting, now: float) -> float | None:
    """Return the seconds until the next look; 0.0 when something is to be said now, None when nobody waits any more."""
    present = 0.0 if waiting.since is None else now - waiting.since
    if waiting.since is None and now - waiting.left >= LINGER:
        return None
    left = pace.first - waiting.before - present
    if waiting.said is not None:
        left = waiting.said + pace.every - now  # the row has begun to speak, so `first` is behind it
    if left <= 0:
        return BETWEEN if waiting.since is None else 0.0
    return min(LONGEST, max(left, BETWEEN)) if waiting.since is None else min(LONGEST, left)
