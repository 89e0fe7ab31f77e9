"""The seam to what several processes share: bookings out of common limits, who is there, and what operators want.

Every method makes one round trip at most, never blocks for longer than its own timeouts (well below a second), and
raises `SharedStoreLost` when it cannot be done, with a message that holds no secret. Thread-safe. No method retries,
but `book` once, under the same number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..core.booking import Answer, Order

__all__ = ["Control", "Member", "PoolFacts", "SharedStore"]


@dataclass(frozen=True, slots=True)
class Control:
    """What operators want of every process; it holds until it is changed.

    Attributes:
        news: a number that changes with every change.
        paused: whether nobody sends anything.
        limits: units per period by dimension that lower the limits of every pool; empty for none.
        cancelled: tags whose waiting calls are to be cancelled, each with the wall-clock moment of the order (seconds
            since the epoch, the store's clock) and the number of `news` that it came with.
    """

    news: int = 0
    paused: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    cancelled: tuple[tuple[str, float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """A process that shares the limits.

    Attributes:
        name: what it calls itself: host, process id and a random part.
        seen: seconds since it reported last.
        facts: what it reported: "queued", "in_flight", "rpm", "tpm", "wait_p50", "wait_p95", "refused", "answered",
            "failed", "spent" (US dollars), "version", "role" ("script", "worker", "gateway"), "priorities" (queued
            calls by priority), each JSON.
    """

    name: str
    seen: float
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """A pool of limits that processes share: its name, seconds of pause left, and its limits as in `Answer`."""

    name: str
    pause: float
    limits: tuple[Any, ...]


class SharedStore(Protocol):
    """Where several processes keep what they share: a file on one machine, or a server for many."""

    def book(self, pool: str, order: Order) -> Answer:
        """Book every part of an order or none, on the store's own clock; see `core.booking`."""

    def report(self, member: str, facts: Mapping[str, Any]) -> Control:
        """Say that this process lives and how it fares; answers what operators want. Forgotten after a minute."""

    def leave(self, member: str) -> None:
        """Forget this process: its orders, and its report."""

    def members(self) -> list[Member]:
        """Who has reported in the last minute."""

    def pools(self) -> list[PoolFacts]:
        """Every pool that was used in the last day, looked at without changing it."""

    def control(
        self, *, paused: bool | None = None, limits: Mapping[str, float | None] | None = None, cancel: str | None = None
    ) -> Control:
        """Change what operators want: None leaves a thing as it is; a limit of None lifts it."""

    def after_fork(self) -> None:
        """In the child of a fork: share no socket, file or lock with the parent."""

    def close(self) -> None:
        """Let go of everything. May be called more than once."""
