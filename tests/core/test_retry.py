"""Whether a call goes again, and when."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimited_llm.core.feedback import Kind, Outcome
from ratelimited_llm.core.retry import RetryBudget, RetryPolicy

POLICY = RetryPolicy(max_retries=2)


@pytest.mark.parametrize("kind", [Kind.EXHAUSTED, Kind.TOO_LARGE, Kind.REJECTED])
def test_what_waiting_cannot_mend_is_not_tried_again(kind: Kind) -> None:
    """Quota, size and bad requests fail at once."""
    assert POLICY.rest(Outcome(kind, retry_after=1.0), 1, 0, 0.5) is None


@pytest.mark.parametrize("kind", [Kind.OVERLOADED, Kind.DROPPED])
def test_a_failure_is_tried_again_as_often_as_promised(kind: Kind) -> None:
    """Two retries are three attempts."""
    outcome = Outcome(kind)
    assert [POLICY.rest(outcome, attempts, 0, 0.5) is not None for attempts in (1, 2, 3)] == [True, True, False]


def test_a_refusal_is_no_attempt_and_rests_with_its_pool() -> None:
    """However many attempts were made, a refused call goes again, and the pool does the waiting."""
    assert POLICY.rest(Outcome(Kind.LIMITED, retry_after=30.0), 3, 1, 0.5) == 0.0


def test_a_call_that_is_refused_for_ever_is_given_up() -> None:
    """A provider that never lets a call go gets rid of it in the end."""
    policy = RetryPolicy(max_refusals=3)
    outcome = Outcome(Kind.LIMITED)
    assert [policy.rest(outcome, 0, refusals, 0.0) for refusals in (3, 4)] == [0.0, None]


@given(st.integers(1, 10_000), st.floats(0.0, 1.0, exclude_max=True), st.floats(0.0, 1e9))
def test_a_back_off_is_bounded_below_and_above(attempts: int, jitter: float, told: float) -> None:
    """It lasts what the provider asked for (up to two minutes) and at most eight seconds longer."""
    rest = RetryPolicy(max_retries=10_000).rest(Outcome(Kind.OVERLOADED, retry_after=told), attempts, 0, jitter)
    assert rest is not None
    assert min(told, 120.0) <= rest <= min(told, 120.0) + 8.0
    assert math.isfinite(rest)


class Pool:
    """Limits of some provider."""

    def __init__(self, host: str) -> None:
        self.host = host


def test_a_back_off_doubles() -> None:
    """Half a second, one, two: with the same chance."""
    policy = RetryPolicy(max_retries=9)
    rests = [policy.rest(Outcome(Kind.DROPPED), attempts, 0, 0.5) for attempts in range(1, 8)]
    assert rests == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_an_outage_makes_no_storm() -> None:
    """When everything fails, retries are a tenth of the calls beyond the reserve."""
    budget = RetryBudget(reserve=10.0)
    retries = 0
    for _ in range(1_000):
        budget.earn("a pool")
        retries += budget.spend("a pool")
    assert retries <= 10 + 100 + 1


def test_the_reserve_comes_back_after_a_quiet_time() -> None:
    """A hundred good calls earn ten retries, never more than the reserve."""
    budget = RetryBudget(reserve=5.0)
    while budget.spend("a pool"):
        pass
    for _ in range(1_000):
        budget.earn("a pool")
    assert sum(budget.spend("a pool") for _ in range(20)) == 5


def test_an_outage_takes_no_retry_from_another_provider() -> None:
    """Pools of one host share a budget; those that name none have each their own."""
    one, same, other, unnamed = Pool("a.example"), Pool("a.example"), Pool("b.example"), Pool("")
    budget = RetryBudget(reserve=5.0)
    while budget.spend(one):
        pass
    assert not budget.spend(same)
    assert budget.spend(other)
    assert budget.spend(unnamed)
    for _ in range(11):
        budget.earn(same)
    assert budget.spend(one)
