"""What a client's calls cost so far, what they will have cost in the end, and whether one more keeps under a cap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .core.checks import number
from .core.estimate import BYTES_PER_TOKEN
from .core.request import Cost, Usage
from .exceptions import CostLimitReached
from .prices import Price, Prices
from .providers.base import Dialect

__all__ = ["Quote", "Spending", "most_output"]

MOST_OUTPUT_AT_FIRST = 4_096  # tokens that an answer has at most while none has come, if the call states no maximum;
TIMES_LIKELY = 4.0  # or so many times what it probably has, if that is more
TIMES_MEAN = 2.0  # the same after that: so many times the mean, ...
TIMES_LONGEST = 1.25  # ... and so many times the longest so far, whichever is more
ROUNDING = 1e-9  # of the cap: sums of many small dollars are not exact

_ANY = Dialect()


@dataclass(frozen=True, slots=True)
class Quote:
    """What one call may cost.

    Attributes:
        model: as its request states it.
        provider: who serves it, as for `Prices.rate`.
        cost: the tokens that it will probably use.
        most_input: bytes of its prompt, since no text has more tokens than bytes; None: four times the estimate.
        most_output: the most tokens that it can be answered with (see the function); None when it does not say.
    """

    model: str
    provider: str
    cost: Cost
    most_input: int | None = None
    most_output: int | None = None


@dataclass(slots=True)
class _Group:
    """The calls to one model of one provider: sums only, so that a million of them take no memory.

    Attributes:
        price: None when nobody knows it.
        spent: dollars for its answers.
        waiting, waiting_cost: calls that are planned and not in flight, and dollars for them by their estimates.
        answered: answers that told their usage; of these the following.
        estimated, cost: dollars as they were estimated, and as they turned out.
        output, longest: tokens of all, and of the longest.
    """

    price: Price | None
    spent: float = 0.0
    waiting: int = 0
    waiting_cost: float = 0.0
    answered: int = 0
    estimated: float = 0.0
    cost: float = 0.0
    output: int = 0
    longest: int = 0

    @property
    def ratio(self) -> float:
        """What a call costs, as a multiple of its estimate."""
        return self.cost / self.estimated if self.estimated > 0 else 1.0

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

    def learn(self, estimated: float, dollars: float, output: int) -> None:
        self.answered += 1
        self.estimated += estimated
        self.cost += dollars
        self.output += output
        self.longest = max(self.longest, output)


@dataclass(slots=True)
class _Flight:
    quote: Quote
    group: _Group
    estimated: float
    worst: float


class Spending:
    """Keeps the books of one client and its copies: told what becomes of each call, it answers in US dollars.

    A call is `planned` once; then it is `dropped`, or `started` each time that it is sent, and after each time
    `answered` or `failed`. What the journal answers is only `replayed`.

    What `max_cost` promises: before a call goes, what was spent, what the calls in flight cost at worst and what this
    one costs at worst come to no more than the cap. The worst of a call is a token for each byte of its prompt and the
    most output that it allows. So calls that state their maximum (max_tokens) and consist of text never pass the cap.
    Without a maximum the worst comes from experience: 4,096 tokens of output before a model's first answer, later
    twice the mean or 1.25 times the longest; an answer longer than that can pass the cap by its excess. An image counts
    four times its estimate. An attempt that was perhaps paid although it failed (a timeout) counts
    against the cap at its worst, and not as spent.

    Not thread-safe: its owner holds a lock around it. `Prices.rate` of a new model should be called before and outside
    of that lock, as the first look-up takes half a second.

    Args:
        prices: what tokens cost.
        max_cost: US dollars; None for no cap.

    Raises:
        TypeError: for a cap that is no number.
        ValueError: for one that is not above 0, or not finite.
    """

    def __init__(self, prices: Prices, max_cost: float | None = None) -> None:
        if max_cost is not None:
            number("max_cost", max_cost, "a number of US dollars")
            if not (math.isfinite(max_cost) and max_cost > 0):
                raise ValueError(f"max_cost must be above 0 US dollars, not {max_cost!r}; None means no cap")
        self.prices = prices
        self.max_cost = max_cost
        self._groups: dict[tuple[str, str], _Group] = {}
        self._flights: dict[int, _Flight] = {}
        self._total = 0  # calls that there will be, as far as anybody said
        self._planned = 0
        self._replayed = 0
        self._spent = 0.0
        self._doubtful = 0.0  # perhaps paid, and counted against the cap
        self._at_risk = 0.0  # what is in flight, at its worst

    # -- what happens -------------------------------------------------------------------------------------------------

    def expect(self, total: int) -> None:
        """So many calls there will be in all, replayed ones included, as far as it is known now."""
        self._total = total

    def replayed(self, count: int = 1) -> None:
        """Calls of `expect` that cost nothing, since the journal had their answers."""
        self._replayed += count

    def planned(self, quote: Quote) -> None:
        """A call was submitted.

        Raises:
            ValueError: there is a cap, and nobody knows what this call costs; it is not counted.
        """
        group = self._group(quote)
        if group.price is None and self.max_cost is not None:
            raise ValueError(_unknown(quote.model))
        self._planned += 1
        group.enter(_likely(group, quote.cost))

    def dropped(self, quote: Quote) -> None:
        """A planned call will not be sent (again): it was cancelled, or its time was over."""
        self._group(quote).leave()
        self._planned -= 1

    def may_start(self, quote: Quote) -> bool:
        """Whether a call can be sent without any chance to pass the cap; the class says what that promises.

        False may turn into True when a call in flight ends. When none is (`idle`), it never will: see `refusal`.
        """
        if self.max_cost is None:
            return True
        return self.committed + self._worst(self._group(quote), quote) <= self.max_cost * (1.0 + ROUNDING)

    def refusal(self, quote: Quote) -> CostLimitReached:
        """The error for a call that `may_start` does not let go."""
        assert self.max_cost is not None
        return CostLimitReached(self.max_cost, self._spent + self._doubtful, self._worst(self._group(quote), quote))

    def started(self, key: int, quote: Quote) -> None:
        """A planned call was sent; `key` is its number. Starting the same one twice counts once."""
        if key in self._flights:
            return
        group = self._group(quote)
        group.leave()
        worst = 0.0 if self.max_cost is None else self._worst(group, quote)
        self._flights[key] = _Flight(quote, group, _likely(group, quote.cost), worst)
        self._at_risk += worst

    def answered(self, key: int, usage: Usage | None) -> float | None:
        """A call was answered; unknown keys are ignored.

        Args:
            key: its number.
            usage: what it used; None when nobody told: it is taken to have cost its estimate, and at worst its worst.

        Returns:
            What it cost, US dollars; None when nobody knows.
        """
        flight = self._land(key)
        if flight is None or flight.group.price is None:
            return None
        group, quote = flight.group, flight.quote
        if usage is None:
            dollars = flight.estimated * group.ratio
            self._doubtful += max(0.0, flight.worst - dollars)
        else:
            dollars = self.prices.cost(quote.model, quote.provider, usage) or 0.0
            group.learn(flight.estimated, dollars, usage.output_tokens)
        group.spent += dollars
        self._spent += dollars
        return dollars

    def failed(self, key: int, *, again: bool, perhaps_paid: bool = False) -> None:
        """An attempt ended without an answer; unknown keys are ignored.

        Args:
            key: the call's number.
            again: it waits to be sent again (a refusal, a retry); False: it has failed for good.
            perhaps_paid: the provider may have answered, and nobody heard it: a timeout, a broken connection.
        """
        flight = self._land(key)
        if flight is None:
            return
        if perhaps_paid:
            self._doubtful += flight.worst
        if again:
            flight.group.enter(flight.estimated)

    # -- what it comes to ---------------------------------------------------------------------------------------------

    @property
    def spent(self) -> float | None:
        """US dollars for the answers so far; None when no price is known of any model that was asked."""
        return self._spent if self._known else None

    def spent_on(self, model: str) -> float | None:
        """Of `spent`, what one model cost; None when nobody knows its price."""
        groups = [group for (name, _), group in self._groups.items() if name == model and group.price is not None]
        return sum(group.spent for group in groups) if groups else None

    @property
    def expected(self) -> float | None:
        """US dollars for everything in the end; None as for `spent`.

        That is what was spent, the open calls by their estimates (times what answers have cost over theirs), and for
        calls that were announced and not yet planned the mean of the others. Takes time with the calls in flight.
        """
        if not self._known:
            return None
        dollars = self._spent + sum(group.waiting_cost * group.ratio for group in self._groups.values())
        dollars += sum(flight.estimated * flight.group.ratio for flight in self._flights.values())
        to_come = self._total - self._replayed - self._planned
        return dollars * (1.0 + to_come / self._planned) if to_come > 0 and self._planned else dollars

    @property
    def committed(self) -> float:
        """US dollars that will be spent at worst when all that is in flight has ended."""
        return self._spent + self._doubtful + self._at_risk

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight, so that no answer can make room under the cap."""
        return not self._flights

    @property
    def _known(self) -> bool:
        return any(group.price is not None for group in self._groups.values())

    # -- inside -------------------------------------------------------------------------------------------------------

    def _group(self, quote: Quote) -> _Group:
        key = (quote.model, quote.provider)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(self.prices.rate(*key))
        return group

    def _land(self, key: int) -> _Flight | None:
        flight = self._flights.pop(key, None)
        if flight is not None:
            self._at_risk = self._at_risk - flight.worst if self._flights else 0.0
        return flight

    def _worst(self, group: _Group, quote: Quote) -> float:
        """US dollars that a call costs at most; 0.0 when nobody knows its price."""
        cost, prompt, output = quote.cost, quote.most_input, quote.most_output
        if prompt is None:
            prompt = math.ceil(BYTES_PER_TOKEN * cost.input_tokens)
        if output is None:
            if group.answered:
                output = math.ceil(max(TIMES_MEAN * group.output / group.answered, TIMES_LONGEST * group.longest))
            else:
                output = max(MOST_OUTPUT_AT_FIRST, math.ceil(TIMES_LIKELY * cost.output_tokens))
            output = max(output, cost.output_tokens)
        worst = self.prices.cost(quote.model, quote.provider, Usage(max(prompt, cost.input_tokens), output))
        return worst or 0.0


def most_output(path: str, body: Mapping[str, Any]) -> int | None:
    """The most tokens that a request can be answered with, all its answers together; None when it does not say.

    Args:
        path: of the URL ("/chat/completions").
        body: the request.
    """
    if not _ANY.cost(path, {}, 0, 1).output_tokens:
        return 0  # embeddings, moderations
    return _ANY.cost(path, body, 0, 0).reserved or None


def _likely(group: _Group, cost: Cost) -> float:
    """US dollars that a call will probably cost."""
    return 0.0 if group.price is None else group.price.cost(Usage(cost.input_tokens, cost.output_tokens))


def _unknown(model: str) -> str:
    return (
        f"max_cost is set, but nobody knows what {model!r} costs: give its price in US dollars per million tokens, "
        f'prices={{"{model}": (input, output)}}, or install the price list: pip install "ratelimited-llm[cost]"'
    )
