"""Sums of money: what is noted on one call, and over all calls to one model. US dollars everywhere."""

from __future__ import annotations

from ..core.request import Cost, Usage
from .prices import MILLION, Price

__all__ = ["Bill", "Group"]


class Group:
    """The calls to one model of one provider: sums only, so that a million of them take no memory.

    Args:
        model: as the requests state it.
        provider: who serves it, as for `Prices.rate`.
        price: None when nobody knows it.

    Attributes:
        spent: dollars for its answers.
        open, open_cost: calls that are planned or in flight, and dollars for them by their estimates.
        answered: answers that told their usage; of these the following.
        estimated, cost: dollars as they were estimated, and as they turned out.
        output, longest: tokens of all, and of the longest.
    """

    __slots__ = ("_input", "_output", "_request", "answered", "cost", "estimated", "longest", "model", "open",
                 "open_cost", "output", "price", "provider", "spent")  # fmt: skip

    def __init__(self, model: str, provider: str, price: Price | None) -> None:
        self.model = model
        self.provider = provider
        self.price = price
        self._request = 0.0 if price is None else price.cost(Usage())
        # Dollars a token, since every call is estimated several times.
        self._input, self._output = (0.0, 0.0) if price is None else (price.input / MILLION, price.output / MILLION)
        self.spent = 0.0
        self.open = 0
        self.open_cost = 0.0
        self.answered = 0
        self.estimated = self.cost = 0.0
        self.output = self.longest = 0

    @property
    def ratio(self) -> float:
        """What a call costs, as a multiple of its estimate."""
        return self.cost / self.estimated if self.estimated > 0 else 1.0

    def likely(self, cost: Cost) -> float:
        """US dollars that a call will probably cost; 0.0 when nobody knows its price."""
        return cost.input_tokens * self._input + cost.output_tokens * self._output + self._request

    def close(self, estimated: float) -> None:
        """A call that was expected to cost so much is not open any more."""
        self.open -= 1
        self.open_cost = self.open_cost - estimated if self.open else 0.0  # no dust from subtractions

    def learn(self, estimated: float, dollars: float, output: int) -> None:
        self.answered += 1
        self.estimated += estimated
        self.cost += dollars
        self.output += output
        self.longest = max(self.longest, output)


class Bill:
    """What the books note on one call: kept with the call, so that thousands of them need no objects of their own.

    Attributes:
        group: whose price it has; see `Spending.group`.
        estimated_cost: US dollars as it was planned, or sent last.
        worst_cost: US dollars that it costs at most, as it was sent, 0.0 without a cap; None while it is not in flight.
    """

    __slots__ = ("estimated_cost", "group", "worst_cost")

    group: Group

    def __init__(self) -> None:
        self.estimated_cost = 0.0
        self.worst_cost: float | None = None
