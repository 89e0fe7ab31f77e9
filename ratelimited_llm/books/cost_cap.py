"""The money of a ledger's calls: whether one more may go under the cap on their cost, and who waits for that."""

from __future__ import annotations

from collections.abc import Callable

from ..core.request import Cost
from .call_records import CallRecord
from .spending import Spending

__all__ = ["CostCap"]


class CostCap:
    """Asks the books of what calls cost. Guarded by its ledger's lock.

    Args:
        spending: the books.
    """

    __slots__ = ("_again", "spending")

    def __init__(self, spending: Spending) -> None:
        self.spending = spending
        self._again: Callable[[], None] | None = None

    def started(self, call: CallRecord, cost: Cost) -> None:
        """A planned call was sent: what it could cost at most is held against the cap until it ends."""
        spending = self.spending
        spending.started(call, cost, 0.0 if spending.max_cost is None else self._worst(call, cost))

    def too_dear(self, call: CallRecord, cost: Cost, again: Callable[[], None] | None) -> bool:
        """See `Ledger.too_dear`."""
        spending, worst = self.spending, self._worst(call, cost)
        if spending.may_start(worst):
            return False
        if spending.idle or again is None:
            raise spending.refusal(worst)
        self._again = again
        return True

    def _worst(self, call: CallRecord, cost: Cost) -> float:
        return self.spending.worst(call.group, cost, call.size, call.most_output())

    def call_ended(self) -> None:
        """A call in flight has ended: whoever waits for that asks again."""
        if self._again is not None:
            again, self._again = self._again, None
            again()
