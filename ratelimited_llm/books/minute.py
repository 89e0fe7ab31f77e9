"""What happened in the last sixty seconds, second by second. Told the time."""

from __future__ import annotations

__all__ = ["Minute"]

SECONDS = 60


class Minute:
    """Sums of the last 60 s; guarded by its owner's lock."""

    __slots__ = ("_latest", "_second", "_slots")

    def __init__(self) -> None:
        self._slots: dict[int, list[int]] = {}
        self._second: int | None = None  # of the slot that was asked for last
        self._latest: list[int] = []

    def slot(self, now: float, width: int) -> list[int]:
        """The sums of this second, `width` of them, to count in."""
        second = int(now)
        if second == self._second:
            return self._latest
        slot = self._slots.get(second)
        if slot is None:
            if len(self._slots) > 2 * SECONDS:
                self._slots = {at: kept for at, kept in self._slots.items() if at > second - SECONDS}
            slot = self._slots[second] = [0] * width
        self._second, self._latest = second, slot
        return slot

    def add(self, now: float, *amounts: int) -> None:
        """Count these at this moment; negative ones take back."""
        slot = self.slot(now, len(amounts))
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
