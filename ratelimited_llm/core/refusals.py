"""What a refusal says: which limit refused, and how long there is nothing to be had of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .claims import MAX_WAIT, WINDOW_FROM, sane
from .feedback import Outcome, Reading
from .limits import MINUTE, PERIODS
from .meter import Meter
from .mirrors import Mirrors
from .pause import FIRST_PAUSE
from .request import Cost

__all__ = ["emptiest", "own_wait", "told_wait", "window_end"]

NEARLY_EMPTY = 10.0  # seconds of refill: a limit that has less left is likelier to have refused than an unmeasured one


def told_wait(outcome: Outcome, period: float, amount: float) -> float | None:
    """The wait that a refusal asks for, as far as it is to be believed; None when it names none.

    A bare wait is believed up to two minutes. One that comes with its reasons ("Limit 100000, Used 99922, Requested
    710") may be longer, and no longer than they say.
    """
    told = outcome.retry_after
    short = math.nan
    if outcome.used is not None and sane(outcome.limit):
        short = outcome.used + (outcome.requested or amount) - outcome.limit
    if outcome.limit is None or not 0.0 < short < math.inf:
        return None if told is None else min(told, MAX_WAIT)
    exact = short * period / outcome.limit
    return exact if told is None else min(told, max(exact + 1.0, MINUTE))


def window_end(readings: tuple[Reading, ...], name: str, age: float) -> float | None:
    """Seconds until a window ends, by the resets that a refusal told `age` seconds ago; None where they speak of none.

    When nothing is left, a bucket is full a whole period later, and a window sooner.
    """
    for reading in readings:
        if reading.dimension != name or reading.reset is None or reading.remaining is None or not sane(reading.limit):
            continue
        period = PERIODS[name]
        full = (reading.limit - reading.remaining) * period / reading.limit
        if 0.0 <= reading.reset <= period + WINDOW_FROM and abs(reading.reset - full) > WINDOW_FROM + 0.05 * full:
            return max(0.0, reading.reset - age)
    return None


def own_wait(meter: Meter, amount: float, now: float) -> float:
    """The wait when nobody said how long: until the window ends, or for one call's worth of refill."""
    if meter.windowed:
        return max(meter.boundary - now, 0.0)
    return min(amount / meter.rate, MAX_WAIT) if meter.rate else FIRST_PAUSE


def emptiest(mirrors_by_name: Mapping[str, Mirrors], readings: tuple[Reading, ...], cost: Cost) -> str | None:
    """The limit that refused a call when it was not named: the one with too little left, or the likeliest.

    None when no limit is known.
    """
    for reading in readings:
        mirrors = mirrors_by_name.get(reading.dimension)
        if mirrors is None or reading.remaining is None or not mirrors.meter.whole:
            continue
        if reading.remaining < mirrors.asked(cost):
            return reading.dimension
    return min(mirrors_by_name, key=lambda name: _seconds_left(mirrors_by_name[name].meter), default=None)


def _seconds_left(meter: Meter) -> float:
    return NEARLY_EMPTY if not meter.rate else max(0.0, meter.level) / meter.rate
