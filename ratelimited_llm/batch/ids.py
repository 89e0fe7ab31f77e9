"""A set of texts that keeps 8 to 16 bytes of each: their 64-bit hashes, in one flat table."""

from __future__ import annotations

from array import array
from collections.abc import Hashable

__all__ = ["IdSet"]

_MASK = 2**64 - 1


class IdSet:
    """Knows what was added; among a million texts, a wrong "it is there" has a chance of 1 in 37 million.

    A plain set of a million ints takes 100 MB, this 16.
    """

    __slots__ = ("_count", "_size", "_table")

    def __init__(self) -> None:
        self._size = 1024  # a power of two
        self._table = array("Q", bytes(8 * self._size))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, text: Hashable) -> bool:
        key = _key(text)
        return self._table[self._place(key)] == key

    def add(self, text: Hashable) -> bool:
        """Take it in; False when it was there."""
        key = _key(text)
        place = self._place(key)
        if self._table[place] == key:
            return False
        self._table[place] = key
        self._count += 1
        if self._count * 2 > self._size:
            self._grow()
        return True

    def _place(self, key: int) -> int:
        """The index of a hash in the table; of the free slot that it would take when it is not there."""
        table, last = self._table, self._size - 1
        place = key & last
        while table[place] not in (0, key):
            place = (place + 1) & last
        return place

    def _grow(self) -> None:
        old = self._table
        self._size *= 2
        self._table = array("Q", bytes(8 * self._size))
        for key in old:
            if key:
                self._table[self._place(key)] = key


def _key(text: Hashable) -> int:
    return hash(text) & _MASK or 1  # 0 is an empty place
