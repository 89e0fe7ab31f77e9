"""Calls that answer plainly, whatever their client's mode: `map` runs blocking functions, which were written for that.

The switch belongs to a thread, so that nothing else in the process notices. It also says who of these threads stands in
a queue, since more of them are of no use then.
"""

from __future__ import annotations

import threading
from typing import Protocol

__all__ = ["IN_QUEUE", "Crowd", "answers_here", "crowd_here", "wants_answers"]

_here = threading.local()


class Crowd(Protocol):
    """Some threads whose calls answer plainly; each tells it when it begins to wait for its turn."""

    def joins_queue(self) -> None:
        """The current thread is about to wait for its turn, or for room in a full queue."""

    def leaves_queue(self) -> None:
        """It has its turn, or has given up."""


def wants_answers() -> bool:
    """Whether calls made in this thread wait and return plain objects, whatever the mode of their client."""
    return bool(getattr(_here, "depth", 0))


def crowd_here() -> Crowd | None:
    """The crowd that this thread is of; None when it is of none."""
    return getattr(_here, "crowd", None)


class answers_here:
    """Within the `with` block, every call of this thread waits and returns the SDK's plain object.

    Args:
        crowd: who is told when this thread waits for its turn; None for nobody. An inner block's hides the outer one's.
    """

    __slots__ = ("_crowd", "_outer")

    def __init__(self, crowd: Crowd | None = None) -> None:
        self._crowd = crowd

    def __enter__(self) -> None:
        self._outer = crowd_here()
        _here.crowd = self._crowd
        _here.depth = getattr(_here, "depth", 0) + 1

    def __exit__(self, *error: object) -> None:
        _here.depth -= 1
        _here.crowd = self._outer


class _InQueue:
    """Marks this thread as one that waits for its turn, for as long as the `with` block lasts."""

    __slots__ = ()

    def __enter__(self) -> None:
        crowd = crowd_here()
        if crowd is not None:
            crowd.joins_queue()

    def __exit__(self, *error: object) -> None:
        crowd = crowd_here()
        if crowd is not None:
            crowd.leaves_queue()


IN_QUEUE = _InQueue()
