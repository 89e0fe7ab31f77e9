"""What the limiter reaches against providers of every kind, in virtual time: how much it uses, and what that costs.

The targets are those of `tests/benchmarks/limits.py`, on shorter runs. "Used" is the share of what the provider could
have admitted to anybody.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
from crowded import Crowded
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimited_llm.core.feedback import Kind, Outcome, Reading
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.core.request import State
from ratelimited_llm.simulator import Enforcement
from ratelimited_llm.testing import Call, Run, call, simulate

NONE = RateLimits()
RPM = RateLimits(rpm=600)
TOLD = ("everything", "headers", "wait", "seconds", "nothing")
# Derandomized: the same cases in each run. New ones are looked for by hand, with more examples.
thoroughly = settings(deadline=None, max_examples=25, derandomize=True)


def saturate(limits: RateLimits, provider: Enforcement, until: float, **options: Any) -> tuple[float, Run]:
    """Ask for more than the provider gives; answer the share used, and the run."""
    calls = options.pop("calls", None) or [call()] * 4_000
    run = simulate(limits, calls, provider=provider, until=until, **options)
    return provider.share_used(until), run


def most_in_a_second(run: Run) -> int:
    """The most calls that were sent within one second of the clock."""
    return max(len(list(group)) for _, group in itertools.groupby(run.sends, key=lambda send: math.floor(send[0])))


def heavy(count: int) -> list[Call]:
    """Prompts of which a few are very long."""
    chance = random.Random(1)
    return [call(prompt=min(20_000, int(chance.paretovariate(1.2) * 100)), output=100) for _ in range(count)]


@pytest.mark.parametrize("rpm", [60, 600, 3_000])
def test_a_known_request_limit_is_used_up_without_a_refusal(rpm: int) -> None:
    """Requests per minute: 0.995 of the limit, nothing refused."""
    used, run = saturate(RateLimits(rpm=rpm), Enforcement(rpm=rpm), 180.0, calls=[call()] * (5 * rpm))
    assert (used >= 0.995, run.refused) == (True, 0)


@pytest.mark.parametrize("calls", [[call(prompt=300)] * 900, heavy(900)], ids=["uniform", "heavy tailed"])
@pytest.mark.parametrize("rpm", [None, 300])
def test_known_token_limits_are_used_up_without_a_refusal(calls: list[Call], rpm: int | None) -> None:
    """Tokens per minute, alone and beside requests: 0.99 of the limit, nothing refused."""
    used, run = saturate(RateLimits(rpm=rpm, tpm=60_000), Enforcement(rpm=rpm, tpm=60_000), 180.0, calls=calls)
    assert (used >= 0.99, run.refused) == (True, 0)


def test_limits_that_headers_tell_are_learned_without_a_probe_or_a_refusal() -> None:
    """Nothing configured: the first real call teaches the limits, and 0.98 of them is used."""
    used, run = saturate(NONE, Enforcement(rpm=600, tpm=90_000), 180.0, tells="headers")
    assert (used >= 0.98, run.refused) == (True, 0)
    assert [index for _, index in run.sends] == list(range(len(run.sends)))


@pytest.mark.parametrize("told", TOLD)
@pytest.mark.parametrize("smooth", [1.0, 10.0])
def test_a_provider_that_smooths_a_known_limit_refuses_fifteen_calls_at_most(smooth: float, told: str) -> None:
    """600 a minute judged over 1 or 10 seconds, whatever the refusals tell: 0.97 used."""
    used, run = saturate(RPM, Enforcement(rpm=600, smooth=smooth), 240.0, tells=told)
    assert used >= 0.97
    assert run.refused <= 15


@pytest.mark.parametrize("told", ["everything", "headers", "nothing"])
@pytest.mark.parametrize("smooth", [1.0, 10.0])
def test_a_provider_that_smooths_an_unknown_limit_refuses_fifteen_calls_at_most(smooth: float, told: str) -> None:
    """The same with nothing configured; bare waits are dearer, see the next test."""
    used, run = saturate(NONE, Enforcement(rpm=600, smooth=smooth), 180.0, tells=told)
    assert used >= 0.97
    assert run.refused <= 15


@pytest.mark.parametrize("told", ["wait", "seconds"])
def test_a_provider_that_smooths_and_tells_only_waits_is_still_used(told: str) -> None:
    """One second of capacity and waits rounded to seconds: each wait costs a part of a bucket, so a little is lost."""
    used, run = saturate(NONE, Enforcement(rpm=600, smooth=1.0), 300.0, tells=told)
    assert used >= 0.95
    assert run.refused <= 35


@pytest.mark.parametrize("told", ["everything", "headers", "wait", "seconds"])
@pytest.mark.parametrize("limits", [RPM, NONE], ids=["known", "unknown"])
def test_fixed_windows_are_used_up(limits: RateLimits, told: str) -> None:
    """Minute windows that begin at some moment of their own: 0.99 used, about ten refused at most."""
    provider = Enforcement(rpm=600, window="fixed", window_offset=17.0)
    used, run = saturate(limits, provider, 300.0, tells=told)
    assert used >= 0.99
    assert run.refused <= (10 if limits else 12)


@pytest.mark.parametrize("charge", ["same", None])
@pytest.mark.parametrize("rule", ["reserve", "settle", "actual"])
@pytest.mark.parametrize("latency", [0.5, 5.0])
def test_every_charging_rule_is_followed_and_found_out(rule: str, charge: str | None, latency: float) -> None:
    """max_tokens 4096 of which 200 are used: 0.93 of the limit, nothing refused, whether the rule is known or not."""
    calls = [call(prompt=200, output=200, max_tokens=4_096)] * 3_000
    used, run = saturate(
        RateLimits(tpm=240_000),
        Enforcement(tpm=240_000, admission=rule),  # type: ignore[arg-type]
        180.0,
        calls=calls,
        charge=rule if charge else None,
        latency=latency,
    )
    assert used >= 0.93
    assert run.refused <= (0 if charge else 15)


@pytest.mark.parametrize(("told", "most"), [("everything", 3), ("headers", 3), ("seconds", 15), ("nothing", 15)])
def test_a_limit_that_is_halved_in_mid_run_is_followed(told: str, most: int) -> None:
    """Configured 600, and 300 from the hundredth second on: few refusals, and the new limit is used at once."""
    provider = Enforcement(rpm=600)
    _, run = saturate(RPM, provider, 240.0, tells=told, events=[(60.0, lambda p, now: p.change(now, rpm=300))])
    assert run.refused <= most
    settled = sum(1 for moment in run.finished_at if 65.0 <= moment < 185.0)
    assert settled >= 0.97 * 600


@pytest.mark.parametrize("told", ["headers", "seconds", "nothing"])
def test_an_unknown_limit_that_is_doubled_is_followed(told: str) -> None:
    """By headers at once; otherwise by pressing on when no refusal comes for long."""
    provider = Enforcement(rpm=600)
    events = [(60.0, lambda p, now: p.change(now, rpm=1_200))]
    used, run = saturate(NONE, provider, 300.0, tells=told, events=events, calls=[call()] * 7_000)
    assert used >= 0.97
    assert run.refused <= (0 if told == "headers" else 80)


@pytest.mark.parametrize("told", ["wait", "seconds", "nothing"])
def test_a_bucket_that_tells_its_limit_only_by_refusing_is_learned_in_one_run(told: str) -> None:
    """120 calls at once into 30 per 6 seconds: all answered in 1.05 of the ideal time, 12 refused at most."""
    provider = Enforcement(rpm=300, smooth=6.0)
    run = simulate(NONE, [call()] * 120, provider=provider, tells=told, network=(0.005, 0.005), latency=0.2)
    assert run.answered == 120
    assert run.refused <= 12
    assert run.ended_at <= 1.05 * (18.0 + 0.2)


@pytest.mark.parametrize(("told", "most", "ideals"), [("wait", 12, 1.05), ("seconds", 12, 1.05), ("nothing", 20, 1.6)])
def test_small_windows_that_tell_their_limit_only_by_refusing_are_learned(told: str, most: int, ideals: float) -> None:
    """The same in windows of six seconds; where not even a wait is told, their length has to be guessed."""
    provider = Enforcement(rpm=300, smooth=6.0, window="fixed")
    run = simulate(NONE, [call()] * 120, provider=provider, tells=told, network=(0.005, 0.005), latency=0.2)
    assert run.answered == 120
    assert run.refused <= most
    assert run.ended_at <= ideals * (18.0 + 0.2) + 0.5


@pytest.mark.parametrize("told", ["headers", "seconds", "nothing"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_somebody_else_on_the_key_costs_neither_budget_nor_many_refusals(share: float, told: str) -> None:
    """0.3 or 0.6 of the limit gone, on and off: together 0.99 is used, with about five refusals a minute at most."""
    used, run = saturate(RPM, Crowded(share, 600.0), 300.0, tells=told)
    assert used >= 0.99
    assert run.refused <= 30


@pytest.mark.parametrize("network", [(0.02, 0.02), (0.05, 0.1), (0.2, 0.3)])
def test_a_slow_and_jittery_network_costs_little(network: tuple[float, float]) -> None:
    """Half a second each way, give or take as much: 0.99 used, and hardly a refusal."""
    used, run = saturate(RPM, Enforcement(rpm=600), 180.0, network=network)
    assert used >= 0.99
    assert run.refused <= 6


def test_latencies_with_a_long_tail_cost_nothing() -> None:
    """From 0.2 to 20 seconds: 0.99 used, nothing refused."""
    chance = random.Random(3)
    calls = [call(latency=min(20.0, 0.2 + 0.3 * chance.paretovariate(1.1))) for _ in range(3_000)]
    used, run = saturate(RateLimits(rpm=600, tpm=90_000), Enforcement(rpm=600, tpm=90_000), 180.0, calls=calls)
    assert (used >= 0.99, run.refused) == (True, 0)


def test_three_calls_a_minute_are_three_calls_a_minute() -> None:
    """The smallest limit there is: nothing refused, and nothing lost but the last fraction."""
    _, run = saturate(RateLimits(rpm=3), Enforcement(rpm=3), 300.0, calls=[call()] * 30)
    assert (run.answered, run.refused) == (17, 0)


def test_a_day_limit_trickles_and_is_used() -> None:
    """A hundred thousand tokens a day beside six thousand a minute, learned from headers."""
    used, run = saturate(NONE, Enforcement(tpm=6_000, tpd=100_000), 1_800.0, calls=[call(prompt=150)] * 1_000)
    assert (used >= 0.98, run.refused) == (True, 0)


def test_input_and_output_limits_are_used_side_by_side() -> None:
    """Anthropic's three limits, of which output binds."""
    calls = [call(prompt=800, output=300, max_tokens=1_000)] * 1_000
    provider = Enforcement(rpm=1_000, itpm=80_000, otpm=16_000, admission="actual")
    used, run = saturate(NONE, provider, 180.0, calls=calls, charge="actual")
    assert (used >= 0.98, run.refused) == (True, 0)


def test_an_urgent_call_goes_within_a_slot_of_a_saturated_limit() -> None:
    """HIGH behind thousands of LOW at 120 a minute: typically at once, at worst one slot of the limit."""
    moments = [60.0 + 7.3 * index for index in range(15)]
    calls = [call(priority="low", prompt=1, output=1)] * 1_000
    calls += [call(at=moment, priority="high", prompt=1, output=1) for moment in moments]
    used, run = saturate(RateLimits(rpm=120), Enforcement(rpm=120), 180.0, calls=calls)
    waited = sorted(started - moment for started, moment in zip(run.started_at[1_000:], moments, strict=True))
    assert waited[len(waited) // 2] <= 0.05
    assert waited[-1] <= 0.5
    assert (used >= 0.99, run.refused) == (True, 0)


@pytest.mark.parametrize("limits", [NONE, RateLimits(max_concurrency=5)], ids=["unknown", "known"])
def test_a_limit_of_calls_in_flight_is_learned_from_refusals(limits: RateLimits) -> None:
    """Five at once are allowed: 300 calls of a second take about a minute, whether that was configured or not."""
    run = simulate(limits, [call()] * 300, provider=Enforcement(rpm=6_000, max_concurrency=5))
    assert run.answered == 300
    assert run.ended_at <= 70.0
    assert run.refused <= (0 if limits else 25)


LIES = {
    "no wait": Outcome(Kind.LIMITED, status=429),
    "a wait of nothing": Outcome(Kind.LIMITED, 0.0, status=429),
    "limit 0": Outcome(Kind.LIMITED, 0.0, "rpm", 0.0, 0.0, 1.0, 429),
    "limit 1e18": Outcome(Kind.LIMITED, None, "rpm", 1e18, 1e18, 1.0, 429),
    "nan": Outcome(Kind.LIMITED, 1.0, "rpm", math.nan, math.nan, math.nan, 429),
    "requested nan": Outcome(Kind.LIMITED, 1.0, "rpm", 600.0, 600.0, math.nan, 429),
    "another dimension": Outcome(Kind.LIMITED, None, "tpm", status=429),
    "no dimension of ours": Outcome(Kind.LIMITED, None, "images", status=429),
}


@pytest.mark.parametrize("limits", [NONE, RPM], ids=["unknown", "known"])
@pytest.mark.parametrize("lie", LIES)
def test_a_provider_that_refuses_everything_is_neither_hammered_nor_given_up(lie: str, limits: RateLimits) -> None:
    """Forty seconds of refusals: a handful of sends, no call lost, and back soon after."""
    calls = [call(at=0.05 * index) for index in range(200)]
    run = simulate(
        limits,
        calls,
        provider=Enforcement(rpm=600),
        faults=lambda now, request, chance: LIES[lie] if now < 40.0 else None,
    )
    assert run.answered == 200
    assert sum(1 for moment, _ in run.sends if moment < 40.0) <= 30
    assert run.ended_at <= 40.0 + 10.0 + 25.0
    assert sum(1 for moment in run.finished_at if moment <= 52.0) >= 1


def test_an_absurd_retry_after_is_cut_to_two_minutes() -> None:
    """`Retry-After: 1000000000` for the first five seconds: everything is answered soon after two minutes."""
    lie = Outcome(Kind.LIMITED, 1e9, status=429)
    run = simulate(
        RPM,
        [call()] * 100,
        provider=Enforcement(rpm=600),
        faults=lambda now, request, chance: lie if now < 5.0 else None,
    )
    assert run.answered == 100
    assert 120.0 <= run.ended_at <= 150.0


@pytest.mark.parametrize(
    "reading",
    [
        Reading("rpm", 0.0, 0.0, 0.0),
        Reading("rpm", -1.0, -1.0, None),
        Reading("rpm", math.nan, math.nan, math.nan),
        Reading("rpm", math.inf, math.inf, math.inf),
        Reading("rpm", 1e18, 1e18, 0.0),
        Reading("rpm", 600.0, 1e18, 1e9),
        Reading("images", 1.0, 0.0, 60.0),
        Reading("tpm", 1.0, 0.0, 1e9),
    ],
    ids=str,
)
def test_readings_that_cannot_be_true_do_not_stop_the_pool(reading: Reading) -> None:
    """Whatever the headers of good answers say, the calls go on at the configured pace."""
    provider = Enforcement(rpm=600)
    provider.reading = lambda now: {  # type: ignore[method-assign]
        reading.dimension: (reading.limit, reading.remaining, reading.reset)  # type: ignore[dict-item]
    }
    _, run = saturate(RPM, provider, 60.0)
    assert run.answered >= 1_000
    assert run.refused <= 25


@pytest.mark.parametrize("reset", [math.inf, math.nan, 0.0])
def test_a_provider_that_always_claims_to_have_much_left_is_believed_once_in_a_while(reset: float) -> None:
    """Half the limit left, it says for ever: one burst that is refused, and then readings only lower the level."""
    provider = Enforcement(rpm=600)
    provider.reading = lambda now: {"rpm": (600.0, 300.0, reset)}  # type: ignore[method-assign]
    _, run = saturate(RPM, provider, 60.0)
    assert run.answered >= 1_000
    assert run.refused <= 320


def test_remaining_zero_for_ever_slows_the_pool_and_never_stops_it() -> None:
    """A provider that always says that nothing is left is believed for the refill only."""
    provider = Enforcement(rpm=600)
    provider.reading = lambda now: {"rpm": (600.0, 0.0, 60.0)}  # type: ignore[method-assign]
    _, run = saturate(RPM, provider, 120.0)
    assert run.answered >= 200


def test_failures_of_an_outage_do_not_use_up_everybodys_attempts() -> None:
    """Half a minute of 503: the pool pauses, and nearly every call is answered afterwards."""
    outage = Outcome(Kind.OVERLOADED, status=503)
    run = simulate(
        RPM,
        [call(at=0.1 * index) for index in range(300)],
        provider=Enforcement(rpm=600),
        faults=lambda now, request, chance: outage if 5.0 < now < 20.0 else None,
    )
    assert run.answered >= 270
    assert most_in_a_second(run) <= 200


# -- whatever the traffic ------------------------------------------------------------------------------------------

TRAFFIC = st.lists(
    st.builds(
        Call,
        at=st.floats(0.0, 100.0) | st.just(0.0) | st.sampled_from([30.0, 60.0]),
        prompt=st.integers(1, 900),
        output=st.integers(0, 300),
        max_tokens=st.none() | st.integers(300, 1_000),
        priority=st.sampled_from(["high", "normal", "low"]),
        latency=st.none() | st.floats(0.01, 20.0),
    ),
    min_size=1,
    max_size=120,
)


def windows(spent: list[tuple[float, float]]) -> Iterator[float]:
    """What was spent in each sixty seconds that begin with a spending."""
    for index, (start, _) in enumerate(spent):
        yield sum(amount for moment, amount in spent[index:] if moment < start + 60.0)


@thoroughly
@given(calls=TRAFFIC, rpm=st.integers(5, 100))
def test_no_minute_spends_more_than_the_limit_and_one_burst(calls: list[Call], rpm: int) -> None:
    """A bucket allows twice its limit in one minute, full at first and refilled meanwhile; nobody ever more."""
    run = simulate(RateLimits(rpm=rpm, tpm=20_000), calls, seed=rpm)
    calls_in = list(windows([(moment, 1.0) for moment, _ in run.sends]))
    cost = [max(each.prompt + (each.output if each.max_tokens is None else each.max_tokens), 0) for each in calls]
    tokens_in = list(windows([(moment, float(cost[index])) for moment, index in run.sends]))
    assert max(calls_in) <= 2 * rpm + 1
    assert max(tokens_in) <= 2 * 20_000 + 1


@thoroughly
@given(
    calls=TRAFFIC,
    rpm=st.integers(5, 200),
    told=st.sampled_from(TOLD),
    window=st.sampled_from(["bucket", "fixed", "sliding"]),
    smooth=st.none() | st.sampled_from([1.0, 10.0]),
    limits=st.sampled_from([NONE, RateLimits(rpm=100), RateLimits(rpm=20, tpm=50_000), RateLimits(max_concurrency=3)]),
)
def test_every_call_ends_exactly_once(
    calls: list[Call], rpm: int, told: str, window: Any, smooth: float | None, limits: RateLimits
) -> None:
    """Whatever the provider is like and whatever we believe about it, no call is left, and nobody spins."""
    provider = Enforcement(rpm=rpm, window=window, smooth=smooth)
    run = simulate(limits, calls, provider=provider, tells=told, charge=None)
    assert run.lost == 0
    assert all(state in (State.DONE, State.FAILED) for state in run.states)
    assert len(run.sends) <= len(calls) * 17
