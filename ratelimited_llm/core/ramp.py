"""How fast a first burst may start: eight sends in the first tenth of a second, then ever faster.

A provider that allows 600 a minute may still judge it by the second. A ramp finds out at the price of a dozen refusals
instead of hundreds, and costs no budget: a bucket that is not full loses no refill while we hesitate.
"""

from __future__ import annotations

import math

__all__ = ["DOUBLING", "DOUBLING_UNTOLD", "Ramp"]

FIRST_RATE = 80.0  # sends per second: 8 in 0.1 s
DOUBLING = 0.1  # seconds in which the pace doubles where the limits are known
DOUBLING_UNTOLD = 2.0  # the same where the provider tells its limits only by refusing
OVER = 4_000.0  # sends per second from which on a ramp is no longer a ramp


class Ramp:
    """Spaces the first sends of a pool; the pace depends on how many have gone, so that a rest changes nothing.

    Args:
        doubling: seconds in which the pace doubles.
    """

    __slots__ = ("doubling", "next_at", "over", "sent")

    def __init__(self, doubling: float = DOUBLING) -> None:
        self.doubling = doubling
        self.sent = 0
        self.next_at = -math.inf
        self.over = False

    def wait(self, now: float) -> float:
        """Seconds until the next send keeps the pace."""
        return 0.0 if self.over else max(0.0, self.next_at - now)

    def send(self, now: float) -> None:
        """One went."""
        if self.over:
            return
        self.sent += 1
        # N sends after t seconds of a pace that doubles every d: dN/dt = first + N ln 2 / d.
        pace = FIRST_RATE + self.sent * math.log(2) / self.doubling
        self.next_at = max(now, self.next_at if math.isfinite(self.next_at) else now) + 1.0 / pace
        self.over = pace > OVER
