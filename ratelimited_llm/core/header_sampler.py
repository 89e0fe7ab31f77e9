"""How often the headers of answers are looked at: all of them when a limit is near, some when it is far away.

A thousand answers in a second say the same of a limit of which more than half is left. So one of them is read in each
fiftieth of a second, which costs the others a tenth of their time less.
"""

from __future__ import annotations

from .feedback import Reading

__all__ = ["HeaderSampler"]

FRESH = 0.02  # seconds that a reading stands for those that come with it
PLENTY = 0.5  # of a limit left


class HeaderSampler:
    """When the limits of one pool were read last. Told the time; a race between threads reads once more at worst."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = float("-inf")

    def due(self, now: float) -> bool:
        """Whether the next answer's headers are to be read."""
        return now >= self._until

    def read(self, readings: tuple[Reading, ...], now: float) -> None:
        """Take in limits that were just read: how much is left of them decides when they are read again."""
        plenty = bool(readings) and all(
            each.limit is not None and each.remaining is not None and each.remaining > PLENTY * each.limit
            for each in readings
        )
        self._until = now + FRESH if plenty else now
