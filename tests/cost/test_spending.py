"""The books: what was spent, what it will come to, and a cap that is never passed."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass

import pytest

from ratelimited_llm.books.prices import Prices
from ratelimited_llm.books.spending import Bill, Spending, most_output
from ratelimited_llm.core.request import Cost, Usage
from ratelimited_llm.exceptions import CostLimitReached, RateLimitedLLMError
from ratelimited_llm.providers import DIALECTS

DOLLAR = Prices({"m": (1_000_000, 1_000_000), "half": (500_000, 500_000)})  # a dollar a token


@dataclass(frozen=True)
class Quote:
    """What a call may cost."""

    model: str
    provider: str
    cost: Cost
    most_input: int | None = None
    most_output: int | None = None


def quote(prompt=10, output=5, model="m", **most):
    """A call that probably uses so much."""
    return Quote(model, "openai", Cost(prompt + output, prompt + output, prompt, output), **most)


class Books:
    """Calls as numbers and quotes, and the bills that a ledger would keep with them."""

    def __init__(self, prices, max_cost):
        self.spending = Spending(prices, max_cost)
        self.bills = defaultdict(Bill)
        self.waiting = defaultdict(list)  # bills of calls that were planned, by model

    def __getattr__(self, name):
        return getattr(self.spending, name)

    def bill(self, quote):
        bill = Bill()
        bill.group = self.spending.group(quote.model, quote.provider)
        return bill

    def worst(self, quote):
        bill = self.bill(quote)
        return self.spending.worst(bill.group, quote.cost, quote.most_input, quote.most_output)

    def planned(self, quote):
        bill = self.bill(quote)
        self.spending.planned(bill, quote.cost)
        self.waiting[quote.model].append(bill)

    def dropped(self, quote):
        self.spending.dropped(self.waiting[quote.model].pop())

    def may_start(self, quote):
        return self.spending.may_start(self.worst(quote))

    def refusal(self, quote):
        return self.spending.refusal(self.worst(quote))

    def started(self, key, quote):
        worst = 0.0 if self.spending.max_cost is None else self.worst(quote)
        if key not in self.bills:
            self.bills[key] = self.waiting[quote.model].pop()
        self.spending.started(self.bills[key], quote.cost, worst)

    def answered(self, key, usage):
        return self.spending.answered(self.bills[key], usage)

    def failed(self, key, **how):
        self.spending.failed(self.bills[key], **how)


def books(max_cost=None):
    return Books(DOLLAR, max_cost)


def test_what_was_answered_is_spent():
    spending = books()
    spending.planned(quote())
    spending.started(1, quote())
    assert spending.answered(1, Usage(12, 4)) == pytest.approx(16)
    assert spending.spent == pytest.approx(16)
    assert spending.spent_on("m") == pytest.approx(16)
    assert spending.spent_on("half") is None


def test_nothing_is_known_of_models_without_a_price():
    spending = books()
    spending.planned(quote(model="other"))
    spending.started(1, quote(model="other"))
    assert spending.answered(1, Usage(12, 4)) is None
    assert (spending.spent, spending.expected) == (None, None)


def test_what_is_open_is_expected_by_its_estimate():
    spending = books()
    for key in range(4):
        spending.planned(quote())
        if key < 2:
            spending.started(key, quote())
    assert spending.expected == pytest.approx(60)


def test_answers_correct_what_is_expected_of_the_others():
    spending = books()
    for _ in range(10):
        spending.planned(quote())
    spending.started(1, quote())
    spending.answered(1, Usage(20, 10))
    assert spending.expected == pytest.approx(300)


def test_calls_that_were_only_announced_are_expected_to_cost_the_mean():
    spending = books()
    spending.expect(100)
    for _ in range(10):
        spending.planned(quote())
    assert spending.expected == pytest.approx(1_500)
    spending.replayed(50)
    assert spending.expected == pytest.approx(750)


def test_a_dropped_call_is_expected_no_more():
    spending = books()
    spending.planned(quote())
    spending.planned(quote())
    spending.dropped(quote())
    assert spending.expected == pytest.approx(15)


def test_a_failed_call_costs_nothing_and_one_that_goes_again_still_will():
    spending = books()
    for key in (1, 2):
        spending.planned(quote())
        spending.started(key, quote())
    spending.failed(1, again=True)
    spending.failed(2, again=False)
    assert spending.expected == pytest.approx(15)
    assert spending.idle


def test_in_the_end_what_was_expected_is_what_was_spent():
    spending, chance = books(), random.Random(3)
    for key in range(1_000):
        spending.planned(quote(chance.randrange(100), chance.randrange(100)))
        spending.started(key, quote(chance.randrange(100)))  # the estimate has changed while it waited
        if key % 7 == 0:
            spending.failed(key, again=True)
            spending.started(key, quote())
        spending.answered(key, Usage(chance.randrange(100), chance.randrange(100)))
    assert spending.expected == pytest.approx(spending.spent)
    assert spending.committed == pytest.approx(spending.spent)


def test_calls_that_are_not_in_flight_change_nothing_and_nothing_counts_twice():
    spending = books()
    spending.planned(quote())
    spending.started(1, quote())
    spending.started(1, quote())
    assert spending.answered(1, Usage(10, 5)) == pytest.approx(15)
    assert spending.answered(1, Usage(10, 5)) is None
    spending.failed(1, again=True)
    spending.failed(99, again=True)
    assert spending.spent == spending.expected == pytest.approx(15)


def test_an_answer_that_tells_no_usage_costs_its_estimate_and_its_worst_counts_against_the_cap():
    spending = books(1_000.0)
    spending.planned(quote(most_input=40, most_output=20))
    spending.started(1, quote(most_input=40, most_output=20))
    assert spending.answered(1, None) == pytest.approx(15)
    assert spending.spent == pytest.approx(15)
    assert spending.committed == pytest.approx(60)


def test_an_attempt_that_was_perhaps_paid_counts_against_the_cap_and_is_not_spent():
    spending = books(100.0)
    one = quote(most_input=40, most_output=20)
    spending.planned(one)
    spending.started(1, one)
    spending.failed(1, again=True, perhaps_paid=True)
    assert spending.spent == 0
    assert spending.committed == pytest.approx(60)
    assert not spending.may_start(one)


def test_one_that_costs_just_what_is_left_may_start():
    spending = books(30.0)
    one = quote(most_input=10, most_output=5)
    for key in (1, 2):
        spending.planned(one)
        assert spending.may_start(one)
        spending.started(key, one)
    assert not spending.may_start(one)


def test_an_answer_cheaper_than_its_worst_makes_room_for_another():
    spending = books(100.0)
    one = quote(most_input=40, most_output=20)
    spending.planned(one)
    spending.started(1, one)
    assert not spending.may_start(one)
    assert not spending.idle
    spending.answered(1, Usage(10, 5))
    assert spending.may_start(one)


def test_without_a_cap_everything_may_start_whatever_it_costs():
    assert books().may_start(quote(10**9, 10**9))
    assert books().may_start(quote(model="other"))


def test_a_cap_with_a_model_that_nobody_knows_is_refused_at_its_first_call():
    spending = books(1.0)
    with pytest.raises(ValueError, match=r"'other'.*prices=.*ratelimited-llm\[cost\]"):
        spending.planned(quote(model="other"))
    assert spending.expected is None


@pytest.mark.parametrize(
    ("cap", "error"),
    [
        ("5", TypeError),
        (True, TypeError),
        ([1], TypeError),
        (0, ValueError),
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
    ],
)
def test_a_cap_that_makes_no_sense_is_refused(cap, error):
    with pytest.raises(error, match="max_cost"):
        Spending(DOLLAR, cap)


def test_the_refusal_carries_its_numbers_and_says_what_to_change():
    spending = books(10.0)
    error = spending.refusal(quote(most_input=40, most_output=20))
    assert isinstance(error, CostLimitReached)
    assert isinstance(error, RateLimitedLLMError)
    assert isinstance(error, RuntimeError)
    assert (error.max_cost, error.spent, error.needed) == (10.0, 0.0, 60.0)
    assert "raise max_cost=" in str(error)


def test_a_tiered_price_counts_at_its_higher_tier_before_the_call_goes():
    spending = Books(Prices(), 1.0)
    long = Quote("gemini-2.5-pro", "gemini", Cost(0, 0, 300_000, 0), most_input=300_000, most_output=0)
    if spending.prices.rate("gemini-2.5-pro", "gemini") is None:
        pytest.skip("genai-prices is not installed")
    assert spending.refusal(long).needed == pytest.approx(spending.prices.cost(long.model, "gemini", Usage(300_000)))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("stated", [True, False])
def test_the_cap_is_never_passed_when_calls_state_their_maximum(seed, stated):
    """With 20 in flight, wrong estimates, failures and a provider that uses what it may."""
    chance = random.Random(seed)
    cap = float(chance.randrange(500, 5_000))
    spending, open_calls = books(cap), {}
    for key in range(2_000):
        size, most = chance.randrange(4, 400), chance.randrange(1, 60)
        one = quote(size // 4, chance.randrange(most), most_input=size, most_output=most if stated else None)
        spending.planned(one)
        if spending.may_start(one):
            spending.started(key, one)
            open_calls[key] = size, most
        else:
            spending.dropped(one)
            if spending.idle:
                break
        if len(open_calls) > 20 or (chance.random() < 0.5 and open_calls):
            ended = chance.choice(list(open_calls))
            size, most = open_calls.pop(ended)
            if chance.random() < 0.1:
                spending.failed(ended, again=False, perhaps_paid=True)
            elif stated:
                spending.answered(ended, Usage(chance.choice([size, size // 4]), chance.choice([most, most // 2])))
            else:
                spending.answered(ended, Usage(size // 4, 20))  # by experience: answers of one length
    for key, (size, most) in open_calls.items():
        spending.answered(key, Usage(size, most) if stated else Usage(size // 4, 20))
    assert spending.spent <= cap * (1 + 1e-6)


def test_without_a_maximum_the_worst_is_learned_from_answers():
    spending = books(1e9)
    one = quote(most_input=0)
    assert spending.refusal(one).needed == pytest.approx(4_096 + 10)
    spending.planned(one)
    spending.started(1, one)
    spending.answered(1, Usage(10, 100))
    assert spending.refusal(one).needed == pytest.approx(200 + 10)
    spending.planned(one)
    spending.started(2, one)
    spending.answered(2, Usage(10, 1_000))
    assert spending.refusal(one).needed == pytest.approx(1_250 + 10)


@pytest.mark.parametrize(
    ("path", "body", "most"),
    [
        ("/chat/completions", {"max_tokens": 100}, 100),
        ("/chat/completions", {"max_completion_tokens": 100, "n": 3}, 300),
        ("/v1/chat/completions", {}, None),
        ("/chat/completions", {"max_tokens": "many"}, None),
        ("/responses", {"max_output_tokens": 7}, 7),
        ("/completions", {"max_tokens": 5, "prompt": ["a", "b"]}, 10),
        ("/embeddings", {"input": "a"}, 0),
        ("/v1/messages", {"max_tokens": 9}, 9),
    ],
)
def test_the_most_output_is_what_the_request_states(path, body, most):
    assert most_output(path, body) == most


def test_bytes_are_never_fewer_than_tokens_so_an_estimate_cannot_hide_any():
    """The worst of an English prompt is four times its estimate; dialects give the estimate."""
    cost = DIALECTS["openai"].cost("/chat/completions", {"max_tokens": 10}, 100, None)
    assert books(1.0).refusal(Quote("m", "openai", cost, most_output=10)).needed == pytest.approx(410)
