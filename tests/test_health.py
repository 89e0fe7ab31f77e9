"""The score of a queue's health: what costs points, and what does not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimited_llm.books.health import DEGRADED, OK, UNHEALTHY, Vitals, health


def test_a_queue_that_does_its_work_is_at_a_hundred() -> None:
    """A long queue is no illness, if nobody waits too long."""
    verdict = health(Vitals(answered=500, queued=9_000, max_queue=None, wait=60.0))
    assert (verdict.score, verdict.status, verdict.reasons) == (100, OK, ())
    assert verdict.ready
    assert verdict.alive


def test_one_failure_of_one_call_is_no_verdict() -> None:
    """Few calls say little."""
    assert health(Vitals(failed=1)).status == OK


def test_failures_alone_make_it_unhealthy() -> None:
    """When all calls fail, nothing else has to be wrong."""
    verdict = health(Vitals(failed=100))
    assert verdict.status == UNHEALTHY
    assert verdict.reasons == ("100 of 100 calls failed",)
    assert verdict.alive  # a restart would not help against an outage


def test_refusals_cost_less_than_failures() -> None:
    """No call is lost by a 429."""
    refused, failed = health(Vitals(answered=90, refused=10)), health(Vitals(answered=90, failed=10))
    assert failed.score < refused.score < 100


@pytest.mark.parametrize(
    ("vitals", "words"),
    [
        (Vitals(wait=240.0), "wait"),
        (Vitals(queued=95, max_queue=100), "places"),
        (Vitals(budget_lost=True), "shared budget"),
        (Vitals(paused=True), "paused"),
        (Vitals(answered=90, rejected=10), "never sent"),
    ],
)
def test_each_trouble_is_named_and_costs_points(vitals: Vitals, words: str) -> None:
    """A score without its reasons helps nobody."""
    verdict = health(vitals)
    assert verdict.score < 100
    assert len(verdict.reasons) == 1
    assert words in verdict.reasons[0]


def test_the_worst_trouble_comes_first() -> None:
    """Reasons are in the order of their points."""
    assert "paused" in health(Vitals(paused=True, answered=90, refused=10)).reasons[0]


def test_a_pause_is_degraded_and_two_troubles_are_unhealthy() -> None:
    """A pause that somebody ordered is no illness by itself."""
    assert health(Vitals(paused=True)).status == DEGRADED
    assert health(Vitals(paused=True, budget_lost=True)).status == UNHEALTHY


def test_a_full_queue_and_an_end_are_not_ready() -> None:
    """A load balancer sends new calls elsewhere; a supervisor restarts nothing."""
    for vitals in (Vitals(queued=100, max_queue=100), Vitals(draining=True)):
        assert not health(vitals).ready
        assert health(vitals).alive


def test_a_dead_worker_is_at_nought() -> None:
    """Then a restart helps."""
    verdict = health(Vitals(answered=10_000, alive=False))
    assert (verdict.score, verdict.alive, verdict.ready) == (0, False, False)


anything = st.one_of(st.none(), st.integers(), st.floats(), st.just(10**400))


@given(anything, anything, anything, anything, anything, anything, st.booleans())
def test_any_numbers_make_a_score(a, b, c, wait, queued, cap, paused) -> None:  # type: ignore[no-untyped-def]
    """NaN, infinities, negatives and absurdly large ones."""
    verdict = health(Vitals(a, b, c, c, wait, math.nan if cap is None else 60.0, queued, cap, paused))
    assert 0 <= verdict.score <= 100
    assert all(len(reason) < 200 for reason in verdict.reasons)


def test_more_failures_never_raise_the_score() -> None:
    """Nor more of anything else that is bad."""
    scores = [health(Vitals(answered=100, failed=failed, refused=failed)).score for failed in range(0, 200, 10)]
    assert scores == sorted(scores, reverse=True)
