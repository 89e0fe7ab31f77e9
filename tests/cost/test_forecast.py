"""How long calls will take: a sample, scaled and extrapolated, must end when the full simulation does."""

from __future__ import annotations

import random

import pytest

from ratelimited_llm.batch import forecast as module
from ratelimited_llm.batch.forecast import forecast
from ratelimited_llm.batch.load import REMEMBERED, Load, Terms
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.core.request import Cost


def cost(prompt=100, output=50, reserved=None):
    return Cost(prompt + output if reserved is None else reserved, prompt + output, prompt, output)


def heavy(count, seed=1):
    """Prompts of which a few are very long."""
    chance = random.Random(seed)
    return [cost(min(20_000, int(chance.paretovariate(1.2) * 100)), 100) for _ in range(count)]


def loaded(costs):
    load = Load()
    for each in costs:
        load.add(each)
    return load


def fully(terms, costs):
    """The end, with every call simulated."""
    return module._simulated(terms, costs).ended_at


@pytest.fixture
def small(monkeypatch):
    """Samples so small that the full simulation of what they stand for is quick."""
    monkeypatch.setattr(module, "EXACT", 480)
    monkeypatch.setattr(module, "SAMPLE", 480)
    monkeypatch.setattr(module, "SHORT_CALLS", 480)


RUNS = {
    "rpm": (RateLimits(rpm=600), [cost()] * 1_200, {}),
    "a low rpm, mostly extrapolated": (RateLimits(rpm=60), [cost()] * 1_200, {}),
    "tpm": (RateLimits(tpm=60_000), [cost()] * 1_200, {}),
    "a low tpm and a few very long prompts": (RateLimits(tpm=40_000), heavy(1_200), {}),
    "rpm and tpm": (RateLimits(rpm=300, tpm=120_000), heavy(1_200), {}),
    "the long ones last": (RateLimits(rpm=300, tpm=120_000), sorted(heavy(1_200), key=lambda c: c.expected), {}),
    "a day's requests": (RateLimits(rpm=300, rpd=720), [cost()] * 1_200, {}),
    "a day's tokens": (RateLimits(rpm=300, tpd=120_000), [cost()] * 1_200, {}),
    "settled": (RateLimits(tpm=60_000), [cost(200, 200, 4_296)] * 1_200, {"charge": "settle"}),
    "settled, of slow answers": (RateLimits(tpm=60_000), [cost(200, 200, 4_296)] * 1_200,
                                 {"charge": "settle", "latency": 5.0}),
    "output charged as produced": (RateLimits(itpm=50_000, otpm=8_000), [cost()] * 1_200, {"charge": "actual"}),
    "a rule to be found out": (RateLimits(tpm=60_000), [cost()] * 1_200, {"charge": None}),
    "in flight": (RateLimits(max_concurrency=10), [cost()] * 1_200, {}),
    "rpm and in flight": (RateLimits(rpm=600, max_concurrency=15), [cost()] * 1_200, {}),
    "an interval": (RateLimits(min_interval=0.1), [cost()] * 1_200, {}),
    "no burst": (RateLimits(rpm=600, burst=1), [cost()] * 1_200, {}),
    "judged by ten seconds": (RateLimits(rpm=600), [cost()] * 1_200, {"smoothing": 10.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_the_end_is_within_two_percent_of_the_full_simulation_and_so_many_in_flight_suffice(name, small):
    limits, costs, options = RUNS[name]
    terms = Terms(limits, **options)
    found, end = forecast(terms, loaded(costs)), fully(terms, costs)
    assert found.seconds == pytest.approx(end, rel=0.02)
    assert found.concurrency <= (limits.max_concurrency or len(costs))
    narrow = Terms(limits.replace(max_concurrency=found.concurrency), **options)
    assert fully(narrow, costs) <= 1.03 * end


def test_a_small_run_is_simulated_exactly():
    terms, costs = Terms(RateLimits(rpm=100)), [cost()] * 150
    assert forecast(terms, loaded(costs)).seconds == fully(terms, costs)


def test_a_big_run_that_is_short_keeps_its_ramp(small, monkeypatch):
    monkeypatch.setattr(module, "SHORT_CALLS", 2_000)
    terms, costs = Terms(RateLimits(rpm=12_000)), [cost()] * 1_600
    assert forecast(terms, loaded(costs)).seconds == pytest.approx(fully(terms, costs), rel=0.02)


def test_the_limit_that_binds_is_the_slowest_alone():
    found = forecast(Terms(RateLimits(rpm=600, tpm=20_000)), loaded([cost()] * 1_000))
    assert found.binds == "tpm"
    assert found.alone["tpm"] == found.seconds > found.alone["rpm"]


def test_nothing_binds_what_fits_at_once():
    found = forecast(Terms(RateLimits(rpm=600)), loaded([cost()] * 20))
    assert found.binds is None
    assert found.seconds < 3.0


def test_no_calls_take_no_time():
    found = forecast(Terms(RateLimits(rpm=1)), Load())
    assert (found.seconds, found.binds, found.concurrency) == (0.0, None, 0)


def test_what_is_left_of_a_limit_counts_and_not_the_whole():
    full = forecast(Terms(RateLimits(rpm=60)), loaded([cost()] * 100))
    empty = forecast(Terms(RateLimits(rpm=60), remaining={"rpm": 0.0}), loaded([cost()] * 100))
    assert empty.seconds - full.seconds == pytest.approx(60.0, abs=0.1)


def test_a_load_remembers_a_bounded_sample_whose_sums_are_exact():
    load, chance = Load(), random.Random(2)
    total = 0
    for _ in range(100_000):
        prompt = chance.randrange(1, 1_000)
        total += prompt
        load.add(cost(prompt, 0))
    assert REMEMBERED / 2 - 500 <= len(load.sample) <= REMEMBERED
    assert load.input == total
    mean = sum(each.input_tokens for each in load.sample) / len(load.sample)
    assert mean == pytest.approx(total / 100_000, rel=0.03)


def test_a_pattern_in_the_file_does_not_hide_from_the_sample():
    load = loaded(cost(1_000 if number % 2 else 10, 0) for number in range(100_000))
    long = sum(each.input_tokens == 1_000 for each in load.sample)
    assert long == pytest.approx(len(load.sample) / 2, rel=0.05)
