"""The limiter's contract: reserve, observe and settle, and what each of them promises."""

from __future__ import annotations

import math

import pytest

from ratelimited_llm.core.claims import MAX_WAIT
from ratelimited_llm.core.feedback import ANSWERED, Feedback, Kind, Outcome, Reading
from ratelimited_llm.core.limiter import PATIENCE, Limiter
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.core.mirrors import Mirrors, charges, correction
from ratelimited_llm.core.request import Cost, Usage
from ratelimited_llm.exceptions import BudgetExceeded

COST = Cost(reserved=150, expected=150, input_tokens=100, output_tokens=50)
OK = Feedback(ANSWERED, (), Usage(100, 50))


def refusal(wait: float | None = None, *readings: Reading, **told: object) -> Feedback:
    """A 429."""
    return Feedback(Outcome(Kind.LIMITED, wait, status=429, **told), readings)  # type: ignore[arg-type]


def standing(limiter: Limiter, name: str, now: float) -> float:
    """What is left of one limit."""
    return next(each.remaining for each in limiter.standings(now) if each.dimension == name)


def refuse(limiter: Limiter, key: int, feedback: Feedback, now: float) -> None:
    """Let a call be refused, as a dispatcher does it."""
    limiter.observe(key, feedback, now)
    limiter.settle(key, None, now, Kind.LIMITED)


def test_reserving_the_same_key_twice_counts_once() -> None:
    """A driver that asks again after a crash of its own does not pay twice."""
    limiter = Limiter(RateLimits(rpm=60), ramp=False)
    assert limiter.reserve(1, COST, 0.0) == 0.0
    assert limiter.reserve(1, COST, 0.0) == 0.0
    assert limiter.in_flight == 1
    assert standing(limiter, "rpm", 0.0) >= 53.0


def test_settling_twice_and_settling_strangers_does_no_harm() -> None:
    """Only the first counts."""
    limiter = Limiter(RateLimits(tpm=10_000), charge="settle", ramp=False)
    cost = Cost(5_000, 150, 100, 50)
    limiter.reserve(1, cost, 0.0)
    limiter.settle(1, Usage(100, 50), 1.0)
    before = standing(limiter, "tpm", 1.0)
    limiter.settle(1, Usage(100, 50), 1.0)
    limiter.settle(99, Usage(100, 50), 1.0)
    assert (standing(limiter, "tpm", 1.0), limiter.in_flight) == (before, 0)


def test_all_limits_are_taken_together_or_none() -> None:
    """Tokens that do not fit leave the requests untouched."""
    limiter = Limiter(RateLimits(rpm=60, tpm=400), ramp=False)
    assert limiter.reserve(1, Cost(300, 300, 300, 0), 0.0) == 0.0
    before = standing(limiter, "rpm", 0.0)
    assert limiter.reserve(2, Cost(300, 300, 300, 0), 0.0) > 0.0
    assert standing(limiter, "rpm", 0.0) == before


def test_a_wait_is_exact_when_nobody_else_takes() -> None:
    """After the wait that it answered, the call fits."""
    limiter = Limiter(RateLimits(tpm=6_000), ramp=False)
    cost = Cost(5_000, 5_000, 5_000, 0)
    assert limiter.reserve(1, cost, 0.0) == 0.0
    wait = limiter.reserve(2, cost, 0.0)
    assert limiter.reserve(2, cost, wait - 0.01) > 0.0
    assert limiter.reserve(2, cost, wait + 1e-6) == 0.0


def test_what_can_never_fit_is_refused_with_its_numbers() -> None:
    """More than a whole limit; and exactly the whole limit goes."""
    limiter = Limiter(RateLimits(tpm=1_000), ramp=False)
    with pytest.raises(BudgetExceeded) as caught:
        limiter.reserve(1, Cost(1_001, 1_001, 1_001, 0), 0.0)
    assert "1001" in str(caught.value).replace(",", "")
    assert limiter.reserve(2, Cost(1_000, 1_000, 1_000, 0), 0.0) == 0.0


def test_a_learned_capacity_never_makes_a_call_impossible() -> None:
    """A call that is larger than a burst goes when the bucket is full."""
    limiter = Limiter(RateLimits(rpm=600, burst=1), ramp=False)
    assert limiter.reserve(1, COST, 0.0) == 0.0
    assert limiter.reserve(2, COST, 0.0) == pytest.approx(0.1)


def test_a_limit_smaller_than_a_call_that_was_let_in_is_not_believed() -> None:
    """Headers that say 1 token a minute do not make every call impossible."""
    limiter = Limiter(RateLimits(), ramp=False)
    limiter.reserve(1, COST, 0.0)
    limiter.observe(1, Feedback(ANSWERED, (Reading("tpm", 1.0, 0.0, 1.0),)), 1.0)
    limiter.settle(1, Usage(100, 50), 1.0)
    assert limiter.reserve(2, COST, 1.0) == 0.0


def test_a_learned_limit_that_shuts_calls_out_is_doubted_after_a_minute() -> None:
    """One of them asks the provider, who says it again, and then it counts; or tells another limit."""
    limiter, large = Limiter(RateLimits(), ramp=False), Cost(5_000, 5_000, 5_000, 0)

    def tell(key: int, limit: float, now: float) -> None:
        limiter.observe(key, Feedback(ANSWERED, (Reading("tpm", limit, 0.0, 1.0),)), now)
        limiter.settle(key, None, now)

    limiter.reserve(1, COST, 0.0)
    tell(1, 1_000.0, 1.0)
    with pytest.raises(BudgetExceeded):
        limiter.reserve(2, large, 60.0)
    assert limiter.reserve(2, large, 65.0) == 0.0
    assert limiter.reserve(3, COST, 65.0) > 0.0  # nothing is left beside it
    limiter.observe(2, Feedback(Outcome(Kind.REJECTED, 413), (Reading("tpm", 1_000.0, 0.0, 1.0),)), 66.0)
    limiter.settle(2, None, 66.0, Kind.REJECTED)
    with pytest.raises(BudgetExceeded):
        limiter.reserve(4, large, 67.0)
    assert limiter.reserve(4, large, 127.0) == 0.0
    tell(4, 100_000.0, 128.0)
    assert limiter.reserve(5, large, 135.0) == 0.0


def test_nothing_known_means_one_call_goes_first() -> None:
    """The others wait for its answer, but not for ever."""
    limiter = Limiter(RateLimits())
    assert limiter.reserve(1, COST, 0.0) == 0.0
    assert limiter.reserve(2, COST, 0.0) == pytest.approx(PATIENCE)
    limiter.observe(1, OK, 0.5)
    assert limiter.reserve(2, COST, 0.5) == 0.0


def test_headers_teach_a_limit_with_what_is_on_its_way() -> None:
    """The call that brought the news is charged to the new mirror."""
    limiter = Limiter(RateLimits(), ramp=False)
    limiter.reserve(1, COST, 0.0)
    limiter.observe(1, Feedback(ANSWERED, (Reading("rpm", 60.0, 59.0, 1.0),)), 0.2)
    assert 50.0 <= standing(limiter, "rpm", 0.2) <= 59.5


def test_a_configured_limit_is_kept_when_headers_tell_of_more_and_lowered_when_of_less() -> None:
    """The caller may want to use less than there is, and cannot use more."""
    limiter = Limiter(RateLimits(rpm=60), ramp=False)
    limiter.reserve(1, COST, 0.0)
    limiter.observe(1, Feedback(ANSWERED, (Reading("rpm", 600.0, 599.0, 1.0),)), 0.1)
    assert next(iter(limiter.standings(0.1))).limit == 60.0
    limiter.observe(1, Feedback(ANSWERED, (Reading("rpm", 30.0, 29.0, 1.0),)), 0.1)
    assert next(iter(limiter.standings(0.1))).limit == 30.0


def test_each_limit_says_whose_number_it_is_and_when_it_was_learned() -> None:
    """What answers repeat is no news; what they change is; what others told is neither stated nor learned here."""
    limiter = Limiter(RateLimits(rpm=60), ramp=False)
    limiter.reserve(1, COST, 0.0)

    def told(now: float, **limits: float) -> dict[str, tuple[float, str, float | None]]:
        readings = tuple(Reading(name, limit, limit - 1.0, 1.0) for name, limit in limits.items())
        limiter.observe(1, Feedback(ANSWERED, readings), now)
        return {each.dimension: (each.limit, each.source, each.learned_at) for each in limiter.standings(now)}

    assert told(0.0) == {"rpm": (60.0, "stated", None)}
    assert told(1.0, tpm=9_000.0) == {"rpm": (60.0, "stated", None), "tpm": (9_000.0, "learned", 1.0)}
    assert told(2.0, tpm=9_000.0, rpm=600.0)["tpm"] == (9_000.0, "learned", 1.0)
    assert told(3.0, tpm=8_000.0, rpm=30.0) == {"rpm": (30.0, "learned", 3.0), "tpm": (8_000.0, "learned", 3.0)}
    limiter.tell("tpd", 1e6, 4.0)
    limiter.tell("tpm", 7_000.0, 4.0)
    assert told(4.0)["tpd"] == (1e6, "shared", None)
    assert told(4.0)["tpm"] == (7_000.0, "shared", None)
    assert told(5.0, tpm=7_000.0)["tpm"] == (7_000.0, "learned", 5.0)


def test_limits_that_are_the_callers_own_learn_nothing() -> None:
    """With `learn=False` answers do not add limits."""
    limiter = Limiter(RateLimits(rpm=60), learn=False)
    limiter.reserve(1, COST, 0.0)
    limiter.observe(1, Feedback(ANSWERED, (Reading("tpm", 1_000.0, 0.0, 60.0),)), 0.1)
    assert [each.dimension for each in limiter.standings(0.1)] == ["rpm"]


def test_a_refusal_holds_back_the_whole_pool_until_its_wait_is_over() -> None:
    """And then one goes first."""
    limiter = Limiter(RateLimits(rpm=600), ramp=False)
    limiter.reserve(1, COST, 0.0)
    refuse(limiter, 1, refusal(1.4), 0.1)
    assert limiter.reserve(2, COST, 0.1) == pytest.approx(1.4)
    assert limiter.reserve(2, COST, 1.5) == 0.0
    assert limiter.reserve(3, COST, 1.5) > 0.0
    assert limiter.refusals == 1


def test_a_bare_wait_is_believed_for_two_minutes_and_one_with_reasons_for_longer() -> None:
    """Used 99922 of 100000 and 710 more asked for explains nine minutes; 1e9 seconds of nothing explain none."""
    bare, reasoned = Limiter(RateLimits(rpm=60), ramp=False), Limiter(RateLimits(tpd=100_000), ramp=False)
    bare.reserve(1, COST, 0.0)
    refuse(bare, 1, refusal(1e9), 0.0)
    assert bare.reserve(2, COST, 0.0) == pytest.approx(MAX_WAIT)
    reasoned.reserve(1, Cost(710, 710, 710, 0), 0.0)
    told = refusal(546.0, dimension="tpd", limit=100_000.0, used=99_922.0, requested=710.0)
    refuse(reasoned, 1, told, 0.0)
    assert reasoned.reserve(2, COST, 0.0) == pytest.approx(546.0, abs=2.0)


def test_numbers_bound_a_wait_that_is_too_long_for_them() -> None:
    """Half a call's worth is short of 600 a minute, and an hour is asked for: a minute is enough."""
    limiter = Limiter(RateLimits(rpm=600), ramp=False)
    limiter.reserve(1, COST, 0.0)
    refuse(limiter, 1, refusal(3_600.0, dimension="rpm", limit=600.0, used=600.0, requested=1.0), 0.0)
    assert limiter.reserve(2, COST, 0.0) <= 61.0


def test_a_refusal_that_names_its_limit_teaches_it() -> None:
    """Groq's requests per minute are in no header, only in the text of the refusal."""
    limiter = Limiter(RateLimits(), ramp=False)
    limiter.reserve(1, COST, 0.0)
    refuse(limiter, 1, refusal(2.0, dimension="rpm", limit=30.0, used=30.0, requested=1.0), 0.1)
    assert next(each.limit for each in limiter.standings(0.1) if each.dimension == "rpm") == 30.0


def test_calls_in_flight_are_bounded() -> None:
    """The next one waits for an end, not for a time."""
    limiter = Limiter(RateLimits(rpm=600, max_concurrency=2), ramp=False)
    assert [limiter.reserve(key, COST, 0.0) for key in (1, 2, 3)] == [0.0, 0.0, math.inf]
    limiter.settle(1, None, 0.5)
    assert limiter.reserve(3, COST, 0.5) == 0.0


def test_a_minimum_interval_is_kept_exactly() -> None:
    """Half a second from one send to the next."""
    limiter = Limiter(RateLimits(min_interval=0.5), learn=False, ramp=False)
    assert limiter.reserve(1, COST, 0.0) == 0.0
    assert limiter.reserve(2, COST, 0.0) == pytest.approx(0.5)
    assert limiter.reserve(2, COST, 0.5) == 0.0


def test_patient_calls_leave_one_slot_once_urgent_ones_were_seen() -> None:
    """And not before, and not where one slot is much of the limit."""
    for rpm, held in ((60, True), (20, False)):
        limiter = Limiter(RateLimits(rpm=rpm), ramp=False)
        limiter.reserve(0, COST, 0.0, urgent=True)
        key = 1
        while limiter.reserve(key, COST, 0.0) == 0.0:
            key += 1
        assert (limiter.reserve(1_000, COST, 0.0, urgent=True) == 0.0) is held


def test_a_wait_is_never_too_short_for_a_clock() -> None:
    """What would vanish in the rounding of `now + wait` would make a driver spin."""
    limiter = Limiter(RateLimits(rpm=1e11, burst=1), learn=False, ramp=False)
    limiter.reserve(1, COST, 1e9)
    wait = limiter.reserve(2, COST, 1e9)
    assert 1e9 + wait > 1e9


@pytest.mark.parametrize("rule", ["requests", "reserve", "settle", "actual", "input", "output"])
def test_a_rule_charges_what_it_says_from_start_to_end(rule: str) -> None:
    """Charge and correction add up to what the table in `mirrors` promises."""
    cost, usage = Cost(4_296, 400, 200, 200), Usage(210, 150, 10)
    at_once, pledge = charges(rule, cost)
    total = at_once + correction(rule, cost, usage)
    assert total == {
        "requests": 1.0, "reserve": 4_296.0, "settle": 350.0, "actual": 350.0, "input": 200.0, "output": 150.0,
    }[rule]  # fmt: skip
    assert pledge >= 0.0


def test_the_careful_mirror_leads_until_snapshots_speak_clearly() -> None:
    """A provider that gives back is found out after some snapshots, and no sooner."""
    mirrors = Mirrors(None, 100_000, 60.0, 0.0)
    cost, usage = Cost(20_000, 200, 100, 100), Usage(100, 100)
    assert mirrors.rule == "reserve"
    for round_trip in range(10):
        now = 3.0 * round_trip
        held = [mirrors.take(cost, now) for _ in range(4)]
        for index, level in enumerate(held):
            left = 100_000.0 - 20_000.0 * (index + 1)
            mirrors.read(Reading("tpm", 100_000.0, left, 3.0), cost, now, level, now + 1.0)
        if round_trip == 0:
            assert mirrors.rule == "reserve"
        for _ in held:
            mirrors.settle(cost, usage, now + 1.0)
    assert mirrors.rule == "settle"
