"""Who remembers what was spent: one backend per file, behind one small seam.

`Budget` is what a dispatcher asks before it sends. The memory backend keeps it in this process.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from ..core.feedback import Feedback, Kind
from ..core.limiter import Limiter, Survey
from ..core.request import Cost, Usage

__all__ = ["Budget", "LimitedPool"]


class LimitedPool(Hashable, Protocol):
    """Whose limits a call spends: a hashable that knows how to make its limiter."""

    def limiter(self) -> Limiter:
        """A fresh limiter with this pool's configured limits and its provider's rules."""


class Budget(Protocol):
    """The limits of any number of pools. Called by one driver at a time; waits are durations in seconds."""

    def reserve(self, pool: LimitedPool, key: int, cost: Cost, now: float, *, urgent: bool = False) -> float:
        """Take a cost out of every limit of the pool at once (0.0), or answer the seconds to wait.

        Reserving the same key twice counts once. Raises BudgetExceeded when it can never fit.
        """

    def observe(self, pool: LimitedPool, key: int, feedback: Feedback, now: float) -> None:
        """Take in what an answer told, before `settle`; unknown keys are ignored."""

    def settle(self, pool: LimitedPool, key: int, usage: Usage | None, now: float, kind: Kind = Kind.OK) -> None:
        """Give the place back and correct the charge; settling twice counts once."""

    def after_fork(self) -> None:
        """In the child of a fork: be usable again; what was spent stays spent. May be called more than once."""

    def survey(self, pool: LimitedPool, now: float) -> Survey:
        """Every known limit of the pool as it stands, and what holds its calls back; looking spends nothing."""
