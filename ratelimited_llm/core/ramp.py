"""How fast a burst into the unknown may start: a few sends at first, then ever faster.

A provider that allows 600 a minute may still judge it by the second. A ramp finds out at the price of a dozen refusals
instead of hundreds, and costs no budget: a bucket that is not full loses no refill while we hesitate.
"""

from __future__ import annotations

import math

__all__ = ["Ramp"]

LN_2 = math.log(2.0)
OVER = 4_000.0  # sends per second from which on a ramp is no longer a ramp


class Ramp:
    """Spaces the first sends of a pool; the pace depends on how many have gone, so that a rest changes nothing.

    Args:
        first: sends per second of the first ones.
        doubling: seconds in which the pace doubles.
        careful_at: how many may go before it is as slow as at first again, since as many went before a refusal.
    """

    __slots__ = ("careful_at", "doubling", "first", "most", "next_at", "over", "sent")

    def __init__(self, first: float = 80.0, doubling: float = 1.0, careful_at: float = math.inf) -> None:
        self.first = first
        self.doubling = doubling
        self.careful_at = careful_at
        self.most = math.inf  # sends per second that it never exceeds
        self.sent = 0
        self.next_at = -math.inf
        self.over = False

    @classmethod
    def known(cls) -> Ramp:
        """Where limits are known, or headers will tell them: 8 in the first tenth of a second, doubling each second."""
        return cls(80.0, 1.0)

    @classmethod
    def untold(cls) -> Ramp:
        """Where a limit shows only in refusals: what is on its way when the first comes back is refused as well."""
        return cls(40.0, 6.0)

    @classmethod
    def search(cls, before: float) -> Ramp:
        """After a refusal that told no limit: has one call's worth come back (a bucket), or a window full of them?

        As many as went through `before` is what a window would hold.
        """
        return cls(20.0, 0.35, 0.9 * before)

    def limit(self, rpm: float) -> None:
        """The limit is known: spread a whole minute's worth over a few seconds.

        Where it turns out to be counted in windows, what was refilled since the start is refused.
        """
        self.most = max(self.first, rpm / 5.0)

    def wait(self, now: float) -> float:
        """Seconds until the next send keeps the pace."""
        return 0.0 if self.over else max(0.0, self.next_at - now)

    def send(self, now: float) -> None:
        """A call leaves now: space the next one."""
        if self.over:
            return
        self.sent += 1
        # N sends after t seconds of a pace that doubles every d: dN/dt = first + N ln 2 / d.
        growth = self.sent * LN_2 / self.doubling if self.sent < self.careful_at else 0.0
        pace = min(self.first + growth, self.most)
        self.next_at = max(now, self.next_at) + 1.0 / pace
        self.over = self.first + growth > OVER
