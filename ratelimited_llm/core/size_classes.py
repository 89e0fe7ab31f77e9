"""Turns between small and large calls: so many of each class in a cycle, as far as there are any.

Without them, a queue in which long documents stand before short questions answers the questions last; and with short
ones always first, the documents would wait for ever. In a cycle of 3, 2 and 1 neither happens.

The rules:

1. Inside a class calls go as they do without classes: tenants take turns, and each tenant's calls stay in order.
2. A class that has no call costs no turn: the cycle goes on to the next one that has. It gets no credit either.
3. Whoever is next stays next until it is sent or leaves. So a large call that has to wait for budget holds the turn of
   its pool and priority, as any call does: the bucket refills meanwhile, so nothing of the limit is lost, and small
   calls that slipped past would take the budget that it waits for, and it would wait for ever. It holds the cycle no
   longer than one whole limit takes to refill: a call that asks for more fails at once and leaves its turn.
4. Of every sum of all weights calls that are sent while no class is empty, each class has exactly its weight.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from .fair_queue import FairQueue
from .request import Cost, QueuedRequest

__all__ = ["SizeClasses", "SizedQueue"]


@dataclass(frozen=True)
class SizeClasses:
    """Classes of calls by the tokens that they probably use, and their turns in a cycle.

    Args:
        bounds: tokens between one class and the next, rising. The first class is below the first bound, the last one
            above the last bound; a call that is just as large as a bound is between.
        weights: calls of each class in one cycle, smallest class first; one more than there are bounds.

    Raises:
        ValueError: for bounds that do not rise from above 0, or weights that are not whole numbers from 1 up.
    """

    bounds: tuple[int, ...] = (15_000, 75_000)
    weights: tuple[int, ...] = (3, 2, 1)

    def __post_init__(self) -> None:
        for name in ("bounds", "weights"):
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)):
                raise TypeError(f"{name} must be a tuple of numbers, not {value!r}")
            object.__setattr__(self, name, tuple(value))
        numbers = all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in self.bounds)
        if not self.bounds or not numbers or not _rise((0, *self.bounds, math.inf)):
            raise ValueError(f"bounds must be tokens that rise from above 0, not {self.bounds!r}")
        if len(self.weights) != len(self.bounds) + 1:
            raise ValueError(f"{len(self.bounds)} bounds make {len(self.bounds) + 1} classes: give each a weight")
        if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 1 for each in self.weights):
            raise ValueError(f"weights must be whole numbers from 1 up (0 would starve a class), not {self.weights!r}")

    @classmethod
    def read(cls, value: object) -> SizeClasses | None:
        """What people give for it: the value itself, True for the usual classes, None or False for none."""
        if value is None or value is False:
            return None
        if value is True:
            return cls()
        if isinstance(value, cls):
            return value
        raise TypeError(f"size_classes must be a SizeClasses value, True or None, not {value!r}")

    def of(self, cost: Cost) -> int:
        """The class of a call, from 0 up, by the tokens that it is expected to use."""
        tokens = cost.expected
        return bisect_right(self.bounds[:-1], tokens) + (tokens > self.bounds[-1])

    def queue(self) -> SizedQueue:
        """An empty queue of equals that keeps these turns."""
        return SizedQueue(self)


def _rise(values: tuple[float, ...]) -> bool:
    return all(low < high for low, high in itertools.pairwise(values))


class SizedQueue:
    """Who is next among equals, by turns of the size classes; stands in for `FairQueue`, and is made of several."""

    __slots__ = ("_chosen", "_classes", "_current", "_left", "_returned", "_sizes")

    def __init__(self, sizes: SizeClasses) -> None:
        self._sizes = sizes
        self._classes = tuple(FairQueue() for _ in sizes.weights)
        self._returned = FairQueue()  # put back, so before everybody: their class has had its turn for them
        self._current = 0  # whose turn it is ...
        self._left = sizes.weights[0]  # ... for so many more calls
        self._chosen: int | None = None  # the class of the latest head; None for one that was put back

    def append(self, request: QueuedRequest) -> bool:
        """Take in a new call behind those of its class and tenant; True when it may be the next."""
        equals = self._classes[self._sizes.of(request.cost)]
        alone = equals.head() is None
        return equals.append(request) or alone

    def insert(self, request: QueuedRequest) -> bool:
        """Take in a call before everybody who was never sent; answers True."""
        return self._returned.insert(request)

    def head(self) -> QueuedRequest | None:
        """The next call; the same one each time until it was sent, has left, or one was put before it."""
        self._chosen = None
        request = self._returned.head()
        if request is not None:
            return request
        count = len(self._classes)
        first = self._current if self._left else self._current + 1
        for step in range(count):
            index = (first + step) % count
            request = self._classes[index].head()
            if request is not None:
                self._chosen = index
                # Here, and not when it is sent: a call that waits for budget keeps the turn that it has come to.
                if index != self._current or not self._left:
                    self._current, self._left = index, self._sizes.weights[index]
                return request
        return None

    def pop(self, weight: float) -> None:
        """Remove what `head` answered, and charge its tenant and its class for it."""
        if self._chosen is None:
            self._returned.pop(weight)
            return
        self._classes[self._chosen].pop(weight)
        self._left -= 1

    def sweep(self) -> None:
        """Forget the calls that have ended, of every class."""
        for equals in (self._returned, *self._classes):
            equals.sweep()

    def __iter__(self) -> Iterator[QueuedRequest]:
        yield from itertools.chain(self._returned, *self._classes)
