"""What happened in the last sixty seconds, second by second. Told the time."""

from __future__ import annotations

__all__ = ["Minute"]

SECONDS = 60


class Minute:
    """Sums of the last 60 s; guarded by its owner's lock."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: dict[int, list[int]] = {}

    def add(self, now: float, *amounts: int) -> None:
        """Count these at this moment; negative ones take back."""
        second = int(now)
        slot = self._slots.get(second)
        if slot is None:
            if len(self._slots) > 2 * SECONDS:
                self._slots = {at: kept for at, kept in self._slots.items() if at > second - SECONDS}
            self._slots[second] = list(amounts)
        else:
            for index, amount in enumerate(amounts):
                slot[index] += amount

    def sums(self, now: float, width: int) -> list[int]:
        """The sum of each amount over the last 60 s; `width` of them."""
        first = int(now) - SECONDS
        sums = [0] * width
        for second, slot in self._slots.items():
            if second > first:
                for index, amount in enumerate(slot):
                    sums[index] += amount
        return [max(0, each) for each in sums]
