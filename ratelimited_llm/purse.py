"""The money of a ledger's calls: whether one more may go under the cap on their cost, and who waits for that."""

from __future__ import annotations

from collections.abc import Callable

from .books import Noted
from .core.request import Cost
from .spending import Quote, Spending

__all__ = ["Purse"]


class Purse:
    """Asks the books of what calls cost. Guarded by its ledger's lock.

    Args:
        spending: the books.
    """

    __slots__ = ("_again", "spending")

    def __init__(self, spending: Spending) -> None:
        self.spending = spending
        self._again: Callable[[], None] | None = None

    def quote(self, call: Noted, cost: Cost) -> Quote:
        """What a call may cost."""
        most = None if self.spending.max_cost is None else call.most_output()
        return Quote(call.model, call.pool.dialect.name, cost, call.size, most)

    def too_dear(self, quote: Quote, again: Callable[[], None] | None) -> bool:
        """See `Ledger.too_dear`."""
        spending = self.spending
        if spending.may_start(quote):
            return False
        if spending.idle or again is None:
            raise spending.refusal(quote)
        self._again = again
        return True

    def call_ended(self) -> None:
        """A call in flight has ended: whoever waits for that asks again."""
        if self._again is not None:
            again, self._again = self._again, None
            again()
