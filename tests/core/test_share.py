"""A share of the limits for this process, and a margin: of what is configured and of what is learned alike."""

from __future__ import annotations

import pytest

from ratelimited_llm import RateLimits
from ratelimited_llm.core.feedback import ANSWERED, Feedback, Kind, Outcome, Reading
from ratelimited_llm.core.limiter import Limiter
from ratelimited_llm.core.request import Cost, Usage
from ratelimited_llm.exceptions import BudgetExceeded
from ratelimited_llm.options import LIMIT_NAMES, split_limits
from ratelimited_llm.simulator import Enforcement
from ratelimited_llm.testing import call, simulate

COST = Cost(150, 150, 100, 50)


def limit_of(limiter: Limiter, name: str) -> float:
    return {each.dimension: each.limit for each in limiter.standings(0.0)}[name]


def test_every_limit_per_period_is_divided_and_the_rest_is_not() -> None:
    """40 % of 1,000 requests are 400; places and pauses are this process's own."""
    limits = RateLimits(rpm=1_000, tpm=30_000, itpm=500, tpd=10_000, max_concurrency=8, burst=5, share=0.4)
    ours = limits.spendable()
    assert ours == RateLimits(rpm=400, tpm=12_000, itpm=200, tpd=4_000, max_concurrency=8, burst=5)
    assert RateLimits(rpm=10).spendable() == RateLimits(rpm=10)


def test_a_margin_is_kept_back_of_the_share() -> None:
    """A tenth of 40 % of 1,000: 360 are left."""
    assert RateLimits(rpm=1_000, share=0.4, safety_margin=0.1).spendable().rpm == pytest.approx(360)
    assert RateLimits(rpm=1_000, safety_margin=0).spendable().rpm == 1_000


def test_one_request_per_period_is_left_of_the_smallest_limit() -> None:
    """A share of less than one request would never send any."""
    assert RateLimits(rpm=1, rpd=2, share=0.1).spendable() == RateLimits(rpm=1, rpd=1)


@pytest.mark.parametrize("share", [0, -1, 1.01, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    """0 would send nothing, and more than all there is not."""
    with pytest.raises(ValueError, match="share"):
        RateLimits(share=share)


@pytest.mark.parametrize("margin", [-0.1, 1, 10, float("nan")])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    """10 is no 10 %."""
    with pytest.raises(ValueError, match="safety_margin"):
        RateLimits(safety_margin=margin)
    with pytest.raises(TypeError, match="share"):
        RateLimits(share="40 %")  # type: ignore[arg-type]


def test_clients_and_executors_take_both_by_name() -> None:
    """As the limits themselves, whose repr shows them."""
    assert {"share", "safety_margin"} <= LIMIT_NAMES
    assert split_limits(RateLimits(rpm=10), {"share": 0.5}) == RateLimits(rpm=10, share=0.5)
    assert repr(RateLimits(rpm=10, share=0.5)) == "RateLimits(rpm=10, share=0.5)"
    assert not RateLimits(share=0.5)


def test_a_call_that_is_larger_than_our_share_is_refused_with_our_numbers() -> None:
    """700 of 1,000 tokens never fit into 40 % of them."""
    with pytest.raises(BudgetExceeded) as caught:
        RateLimits(tpm=1_000, share=0.4).check(Cost(700, 700, 700, 0))
    assert (caught.value.limit, caught.value.requested) == (400, 700)


def test_a_learned_limit_is_divided_too() -> None:
    """What the first answer's headers tell is the whole; what is left of the whole is not ours alone."""
    limiter = Limiter(RateLimits(share=0.4))
    limiter.reserve(1, COST, 0.0)
    told = (Reading("rpm", 500, 100, 1.0), Reading("tpm", 60_000, 59_000, 1.0))
    limiter.observe(1, Feedback(ANSWERED, told, Usage(100, 50)), 0.0)
    assert (limit_of(limiter, "rpm"), limit_of(limiter, "tpm")) == (200, 24_000)
    assert {each.dimension: each.remaining for each in limiter.standings(0.0)}["rpm"] > 190


def test_of_a_configured_and_a_told_limit_the_smaller_is_divided() -> None:
    """The account allows less than was configured: 40 % of that."""
    limiter = Limiter(RateLimits(rpm=1_000, share=0.4))
    assert limiter.reserve(1, COST, 0.0) == 0.0
    limiter.observe(1, Feedback(ANSWERED, (Reading("rpm", 500, 499),)), 0.0)
    assert limit_of(limiter, "rpm") == 200


def test_a_limit_that_a_refusal_tells_is_divided() -> None:
    """ "Limit 100" in the text of a 429."""
    limiter = Limiter(RateLimits(share=0.5))
    limiter.reserve(1, COST, 0.0)
    limiter.observe(1, Feedback(Outcome(Kind.LIMITED, 1.0, "rpm", 100, 100, 1, 429)), 0.0)
    limiter.settle(1, None, 0.0, Kind.LIMITED)
    assert limit_of(limiter, "rpm") == 50


@pytest.mark.parametrize("known", [True, False])
def test_in_the_long_run_the_share_is_used_and_no_more(known: bool) -> None:
    """40 % of 600 requests a minute, configured or learned, for three minutes: nothing refused."""
    provider = Enforcement(rpm=600)
    limits = RateLimits(rpm=600 if known else None, share=0.4)
    run = simulate(limits, [call()] * 1_500, provider=provider, until=240.0)
    late = [moment for moment, _ in run.sends if 60.0 <= moment < 240.0]
    assert run.refused == 0
    assert len(late) == pytest.approx(240 * 3, rel=0.02)


def test_five_processes_with_a_fifth_each_are_never_refused() -> None:
    """The sum of the shares is the whole: what share= is for, where nothing else can be shared."""
    sends: list[float] = []
    for seed in range(5):
        run = simulate(RateLimits(rpm=600, share=0.2), [call()] * 400, provider=None, seed=seed, until=120.0)
        sends += [moment for moment, _ in run.sends]
    provider = Enforcement(rpm=600)
    refused = [moment for moment in sorted(sends) if not provider.admit(moment, reserved=1, input_tokens=1).admitted]
    assert refused == []
