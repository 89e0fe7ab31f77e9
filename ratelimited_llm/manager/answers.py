"""What a manager's methods answer: ordinary values that may also be awaited, so that both faces are one.

`id = manager.enqueue_request(...)` in a thread and `id = await manager.enqueue_request(...)` in a coroutine are the
same call, and neither waits: enqueueing takes microseconds. Awaiting such a value yields the plain one at once.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

__all__ = ["RequestId", "StatusDict", "Told"]

T = TypeVar("T")


def _at_once(value: T) -> Generator[None, None, T]:
    """What `await` asks for: it ends without having waited."""
    yield from ()
    return value


class RequestId(str):
    """The id of a request: a string."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, str]:
        return _at_once(str(self))


class Told(int):
    """True or False, as an int that says so; bool itself cannot be subclassed."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, bool]:
        return _at_once(bool(self))

    def __repr__(self) -> str:
        return repr(bool(self))

    __str__ = __repr__


class StatusDict(dict[str, Any]):
    """The status of a request: a dict of what JSON knows."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, dict[str, Any]]:
        return _at_once(dict(self))
