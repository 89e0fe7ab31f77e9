"""What a client's calls cost so far, what they will have cost in the end, and whether one more keeps under a cap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..core.checks import number
from ..core.estimate import BYTES_PER_TOKEN
from ..core.request import Cost, Usage
from ..exceptions import CostLimitReached
from ..providers.base import Dialect
from .bills import Bill, Group
from .prices import Prices

__all__ = ["Spending", "most_output"]

MOST_OUTPUT_AT_FIRST = 4_096  # tokens that an answer has at most while none has come, if the call states no maximum;
TIMES_LIKELY = 4.0  # or so many times what it probably has, if that is more
TIMES_MEAN = 2.0  # the same after that: so many times the mean, ...
TIMES_LONGEST = 1.25  # ... and so many times the longest so far, whichever is more
ROUNDING = 1e-9  # of the cap: sums of many small dollars are not exact

_ANY = Dialect()


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

    Not thread-safe: its owner holds a lock around it, but for `group`.

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
        self._groups: dict[tuple[str, str], Group] = {}
        self._flying = 0
        self._total = 0  # calls that there will be, as far as anybody said
        self._planned = 0
        self._replayed = 0
        self._spent = 0.0
        self._doubtful = 0.0  # perhaps paid, and counted against the cap
        self._at_risk = 0.0  # what is in flight, at its worst

    # -- what happens -------------------------------------------------------------------------------------------------

    def group(self, model: str, provider: str) -> Group:
        """The books of one model. Thread-safe; the first look takes half a second, so let it hold nobody up.

        Args:
            model: as the request states it.
            provider: who serves it, as for `Prices.rate`.
        """
        key = (model, provider)
        group = self._groups.get(key)
        if group is None:
            group = self._groups.setdefault(key, Group(model, provider, self.prices.rate(model, provider)))
        return group

    def expect(self, total: int) -> None:
        """So many calls there will be in all, replayed ones included, as far as it is known now."""
        self._total = total

    def replayed(self, count: int = 1) -> None:
        """Calls of `expect` that cost nothing, since the journal had their answers."""
        self._replayed += count

    def planned(self, bill: Bill, cost: Cost) -> None:
        """A call was submitted; its bill has its group.

        Raises:
            ValueError: there is a cap, and nobody knows what this call costs; it is not counted.
        """
        group = bill.group
        if group.price is None and self.max_cost is not None:
            raise Unpriced(_unknown(group.model))
        self._planned += 1
        bill.estimated_cost = estimated = group.likely(cost)
        group.open += 1
        group.open_cost += estimated

    def dropped(self, bill: Bill) -> None:
        """A planned call will not be sent (again): it was cancelled, or its time was over."""
        bill.group.close(bill.estimated_cost)
        self._planned -= 1

    def worst(self, group: Group, cost: Cost, most_input: int | None, most_output: int | None) -> float:
        """US dollars that a call costs at most; 0.0 when nobody knows its price.

        Args:
            group: its model's.
            cost: the tokens that it will probably use.
            most_input: bytes of its prompt, since no text has more tokens than bytes; None: four times the estimate.
            most_output: the most tokens that it can be answered with (see the function); None when it does not say.
        """
        prompt, output = most_input, most_output
        if prompt is None:
            prompt = math.ceil(BYTES_PER_TOKEN * cost.input_tokens)
        if output is None:
            if group.answered:
                output = math.ceil(max(TIMES_MEAN * group.output / group.answered, TIMES_LONGEST * group.longest))
            else:
                output = max(MOST_OUTPUT_AT_FIRST, math.ceil(TIMES_LIKELY * cost.output_tokens))
            output = max(output, cost.output_tokens)
        return self.prices.cost(group.model, group.provider, Usage(max(prompt, cost.input_tokens), output)) or 0.0

    def may_start(self, worst: float) -> bool:
        """Whether a call that costs so much at worst can be sent without any chance to pass the cap.

        The class says what that promises. False may turn into True when a call in flight ends. When none is (`idle`),
        it never will: see `refusal`.
        """
        return self.max_cost is None or self.committed + worst <= self.max_cost * (1.0 + ROUNDING)

    def refusal(self, worst: float) -> CostLimitReached:
        """The error for a call that `may_start` does not let go."""
        assert self.max_cost is not None
        return CostLimitReached(self.max_cost, self._spent + self._doubtful, worst)

    def started(self, bill: Bill, cost: Cost, worst: float = 0.0) -> None:
        """A planned call was sent, and costs so much at worst. Starting one twice counts once."""
        if bill.worst_cost is not None:
            return
        group = bill.group
        estimated = group.likely(cost)
        group.open_cost += estimated - bill.estimated_cost
        bill.estimated_cost, bill.worst_cost = estimated, worst
        self._flying += 1
        self._at_risk += worst

    def answered(self, bill: Bill, usage: Usage | None) -> float | None:
        """A call was answered; one that is not in flight is ignored.

        Args:
            bill: the call's.
            usage: what it used; None when nobody told: it is taken to have cost its estimate, and at worst its worst.

        Returns:
            What it cost, US dollars; None when nobody knows.
        """
        worst = self._land(bill)
        if worst is None:
            return None
        group, estimated = bill.group, bill.estimated_cost
        group.close(estimated)
        if group.price is None:
            return None
        if usage is None:
            dollars = estimated * group.ratio
            self._doubtful += max(0.0, worst - dollars)
        else:
            dollars = self.prices.cost(group.model, group.provider, usage) or 0.0
            group.learn(estimated, dollars, usage.output_tokens)
        group.spent += dollars
        self._spent += dollars
        return dollars

    def failed(self, bill: Bill, *, again: bool, perhaps_paid: bool = False) -> None:
        """An attempt ended without an answer; of a call that is not in flight it is ignored.

        Args:
            bill: the call's.
            again: it waits to be sent again (a refusal, a retry); False: it has failed for good.
            perhaps_paid: the provider may have answered, and nobody heard it: a timeout, a broken connection.
        """
        worst = self._land(bill)
        if worst is None:
            return
        if perhaps_paid:
            self._doubtful += worst
        if not again:
            bill.group.close(bill.estimated_cost)

    def _land(self, bill: Bill) -> float | None:
        """It is in flight no more; answers its worst cost, or None when it was not."""
        worst = bill.worst_cost
        if worst is not None:
            bill.worst_cost = None
            self._flying -= 1
            self._at_risk = self._at_risk - worst if self._flying else 0.0
        return worst

    # -- what it comes to ---------------------------------------------------------------------------------------------

    @property
    def spent(self) -> float | None:
        """US dollars for the answers so far; None when no price is known of any model that was asked."""
        return self._spent if self._known else None

    def spent_on(self, model: str) -> float | None:
        """Of `spent`, what one model cost; None when nobody knows its price."""
        groups = [group for group in self._all if group.model == model and group.price is not None]
        return sum(group.spent for group in groups) if groups else None

    @property
    def expected(self) -> float | None:
        """US dollars for everything in the end; None as for `spent`.

        That is what was spent, the open calls by their estimates (times what answers have cost over theirs), and for
        calls that were announced and not yet planned the mean of the others.
        """
        if not self._known:
            return None
        dollars = self._spent + sum(group.open_cost * group.ratio for group in self._all)
        to_come = self._total - self._replayed - self._planned
        return dollars * (1.0 + to_come / self._planned) if to_come > 0 and self._planned else dollars

    @property
    def committed(self) -> float:
        """US dollars that will be spent at worst when all that is in flight has ended."""
        return self._spent + self._doubtful + self._at_risk

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight, so that no answer can make room under the cap."""
        return not self._flying

    @property
    def _known(self) -> bool:
        return any(group.price is not None for group in self._all)

    @property
    def _all(self) -> list[Group]:
        return list(self._groups.values())  # in one step: `group` may add one in another thread


def most_output(path: str, body: Mapping[str, Any]) -> int | None:
    """The most tokens that a request can be answered with, all its answers together; None when it does not say.

    Args:
        path: of the URL ("/chat/completions").
        body: the request.
    """
    if not _ANY.cost(path, {}, 0, 1).output_tokens:
        return 0  # embeddings, moderations
    return _ANY.cost(path, body, 0, 0).reserved or None


class Unpriced(ValueError):
    """A cap on the cost is set, and the price of this model is not known: nor will it be for the next call to it."""


def _unknown(model: str) -> str:
    return (
        f"max_cost is set, but nobody knows what {model!r} costs: give its price in US dollars per million tokens, "
        f'prices={{"{model}": (input, output)}}, or install the price list: pip install "ratelimited-llm[cost]"'
    )
