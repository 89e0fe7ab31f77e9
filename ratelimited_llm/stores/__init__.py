"""Who remembers: what was spent of the limits, and what was answered. May import `core` and `exceptions`.

`Budget` is what a dispatcher asks before it sends; `shared_store.SharedStore` what shared budgets are kept in. Drivers
of servers and files are imported by the file that needs them.

memory                          a budget of this process
remembering                     the same, beginning with the limits that earlier scripts have learned
shared_budget                   a budget of several processes; with
shared_link, shared_upkeep        the way to its store, and the thread that reports, probes and gives back
cancel_orders                     which calls an operator's `cancel` means
shared_store                    the seam to what processes share, and its values
sqlite_store, sqlite_opening    in a file of this machine
redis_store, redis_link         on a Redis or Valkey server; with book.lua and board.lua
control_lines                   what operators want and processes report, as every store keeps it
budget_spec, opening            what `budget=` may say, and the store that it names
journal                         every answer in a file, found again by the next run; with
journal_keys, journal_values      how a call is known again, and what is kept of it
journal_file, journal_opening     the SQLite file, and how it is opened
journal_rows, journal_commit      the rows, and one commit for many threads
journal_owners, journal_watch     which runs live, and waiting for those of other processes
journal_work, journal_upkeep      calls that are worked for, and deleting what is old
database                        what opening any SQLite file of ours takes
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
