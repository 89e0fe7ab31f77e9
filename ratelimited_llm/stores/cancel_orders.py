"""Which calls an operator's `cancel` means: those with the tag that were submitted before it, told by our own clock."""

from __future__ import annotations

import datetime
from collections.abc import Callable

from .shared_store import Control

__all__ = ["CancelOrders"]


def _wall_clock() -> float:
    return datetime.datetime.now().timestamp()


class CancelOrders:
    """Remembers which orders were carried out, and tells their moments on the clock that calls are submitted by.

    An order carries the store's wall-clock time, and clocks differ. But it is certain that it came after the last look
    that did not show it, and before this one: what the clocks say is clamped to that.

    Args:
        now: the present moment, monotonic seconds. What was ordered before it is about other processes' calls.
        wall_clock: seconds since 1970.
    """

    def __init__(self, now: float, wall_clock: Callable[[], float] = _wall_clock) -> None:
        self._looked_at = now
        self._wall_clock = wall_clock
        self._done: set[tuple[str, float, int]] = set()

    def new(self, control: Control, now: float) -> list[tuple[str, float]]:
        """The tags whose calls are to be cancelled now, each with the moment before which they were submitted."""
        offset = now - self._wall_clock()
        orders = [
            (order[0], min(max(order[1] + offset, self._looked_at), now))
            for order in control.cancelled
            if order not in self._done
        ]
        self._done = set(control.cancelled)
        self._looked_at = now
        return orders
