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
        waiting, waiting_cost: calls that are planned and not in flight, and dollars for them by their estimates.
        flying, flying_cost: the same for those in flight.
        answered: answers that told their usage; of these the following.
        estimated, cost: dollars as they were estimated, and as they turned out.
        output, longest: tokens of all, and of the longest.
    """

    __slots__ = ("_input", "_output", "_request", "answered", "cost", "estimated", "flying", "flying_cost", "longest",
                 "model", "output", "price", "provider", "spent", "waiting", "waiting_cost")  # fmt: skip

    def __init__(self, model: str, provider: str, price: Price | None) -> None:
        self.model = model
        self.provider = provider
        self.price = price
        self._request = 0.0 if price is None else price.cost(Usage())
        # Dollars a token, since every call is estimated several times.
        self._input, self._output = (0.0, 0.0) if price is None else (price.input / MILLION, price.output / MILLION)
        self.spent = 0.0
        self.waiting = self.flying = 0
        self.waiting_cost = self.flying_cost = 0.0
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

    def enter(self, estimated: float) -> None:
        self.waiting += 1
        self.waiting_cost += estimated

    def leave(self) -> None:
        """A call waits no more. It takes a mean share along, as its estimate may have changed while it waited."""
        if self.waiting:
            self.waiting_cost -= self.waiting_cost / self.waiting
            self.waiting -= 1
        if not self.waiting:
            self.waiting_cost = 0.0  # no dust from subtractions

    def take_off(self, estimated: float) -> None:
        self.flying += 1
        self.flying_cost += estimated

    def land(self, estimated: float) -> None:
        self.flying -= 1
        self.flying_cost = self.flying_cost - estimated if self.flying else 0.0

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
        estimated_cost: US dollars as it was sent; None while it is not in flight.
        worst_cost: US dollars that it costs at most, as it was sent; 0.0 without a cap.
    """

    __slots__ = ("estimated_cost", "group", "worst_cost")

    group: Group

    def __init__(self) -> None:
        self.estimated_cost: float | None = None
        self.worst_cost = 0.0
