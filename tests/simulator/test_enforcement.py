"""The provider model in virtual time: what it admits, refuses, gives back, and how long it says to wait."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimited_llm.simulator import Allowance, Enforcement

# Arrivals: (seconds since the one before, tokens); gaps of 0 are bursts, gaps of a minute let everything refill.
ARRIVALS = st.lists(
    st.tuples(st.floats(0, 2) | st.floats(0, 90) | st.just(0.0), st.integers(1, 400)), min_size=1, max_size=150
)
# Derandomized: the same cases in each run. New ones are looked for by hand, with more examples.
thoroughly = settings(deadline=None, max_examples=60, derandomize=True)
WINDOWS = st.sampled_from(["bucket", "fixed", "sliding"])


def drive(provider: Enforcement, arrivals: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Send the arrivals, settle each at once, and return what was let in."""
    now = 1000.0
    for gap, tokens in arrivals:
        now += gap
        verdict = provider.admit(now, reserved=tokens, input_tokens=tokens)
        if verdict.ticket is not None:
            provider.settle(verdict.ticket, now, input_tokens=tokens, output_tokens=0)
    assert provider.admitted_log is not None
    return provider.admitted_log


def spent(log: list[tuple[float, int]], start: float, end: float) -> int:
    return sum(tokens for at, tokens in log if start <= at < end)


@thoroughly
@given(ARRIVALS, st.sampled_from([None, 1.0, 10.0]))
def test_bucket_never_admits_more_than_capacity_plus_refill(arrivals, smooth):
    """In any stretch of one period, a bucket lets in at most what it holds plus what flows in meanwhile."""
    provider = Enforcement(rpm=30, tpm=3000, smooth=smooth, keep_log=True)
    log = drive(provider, arrivals)
    holds = 1.0 if smooth is None else smooth / 60
    for start, _ in log:
        # What a smoothed limit lets in too much at once is one call, the one that found it untouched.
        extra = 0 if smooth is None else 400
        assert spent(log, start, start + 60) <= 3000 * holds + 3000 + extra
        assert sum(start <= at < start + 60 for at, _ in log) <= 30 * holds + 30 + 1


@thoroughly
@given(ARRIVALS, st.floats(0, 59))
def test_fixed_window_never_admits_more_than_its_limit(arrivals, offset):
    """Between two clearings of the counter at most the limit is let in, wherever the windows begin."""
    provider = Enforcement(rpm=30, tpm=3000, window="fixed", window_offset=offset, keep_log=True)
    log = drive(provider, arrivals)
    for window in range(16, 300):
        start = offset + (window - 1) * 60
        assert spent(log, start, start + 60) <= 3000
        assert sum(start <= at < start + 60 for at, _ in log) <= 30


@thoroughly
@given(ARRIVALS)
def test_sliding_window_never_admits_more_than_its_limit_in_any_period(arrivals):
    """In every stretch of one period, a sliding log lets in at most the limit."""
    provider = Enforcement(rpm=30, tpm=3000, window="sliding", keep_log=True)
    log = drive(provider, arrivals)
    for start, _ in log:
        assert spent(log, start, start + 60 - 1e-6) <= 3000
        assert sum(start <= at < start + 60 - 1e-6 for at, _ in log) <= 30


@thoroughly
@given(ARRIVALS, WINDOWS, st.sampled_from([None, 1.0, 10.0]), st.sampled_from(["reserve", "settle", "actual"]))
def test_retry_after_is_exact(arrivals, window, smooth, admission):
    """A refused call fits after exactly the wait it was told, and not a hundredth of it earlier."""
    provider = Enforcement(rpm=30, tpm=3000, window=window, smooth=smooth, admission=admission)
    now = 1000.0
    for gap, tokens in arrivals:
        now += gap
        verdict = provider.admit(now, reserved=tokens, input_tokens=tokens)
        if verdict.admitted:
            provider.settle(verdict.ticket, now, input_tokens=tokens, output_tokens=tokens)
            continue
        wait = verdict.retry_after
        assert wait is not None
        assert wait > 0
        if wait > 0.01:
            early = provider.admit(now + wait * 0.99 - 1e-3, reserved=tokens, input_tokens=tokens)
            assert not early.admitted
        now += wait
        again = provider.admit(now, reserved=tokens, input_tokens=tokens)
        assert again.admitted
        provider.settle(again.ticket, now, input_tokens=tokens, output_tokens=tokens)


@thoroughly
@given(ARRIVALS, WINDOWS, st.sampled_from([None, 5.0]))
def test_share_used_never_exceeds_what_was_admissible(arrivals, window, smooth):
    """Nothing is admitted beyond what the model itself says could have been, one outsized call aside."""
    provider = Enforcement(rpm=30, tpm=3000, window=window, smooth=smooth)
    now = 1000.0
    for place, (gap, tokens) in enumerate(arrivals):
        now += gap
        if place == len(arrivals) // 2:
            provider.change(now, rpm=60, tpm=1500)
        provider.admit(now, reserved=tokens, input_tokens=tokens)
        for name, most in provider.admissible(now).items():
            outsized = 0 if smooth is None else {"rpm": 1, "tpm": 400}[name]
            assert provider.charged()[name] <= most + outsized + 1e-3


def test_all_limits_are_taken_together_or_not_at_all():
    """A call that the token limit refuses has not used up a request."""
    provider = Enforcement(rpm=10, tpm=100)
    assert provider.admit(0.0, reserved=100, input_tokens=100).admitted
    refused = provider.admit(0.0, reserved=60, input_tokens=60)
    assert (refused.dimension, refused.used, refused.requested) == ("tpm", 100, 60)
    assert refused.retry_after == pytest.approx(36.0)
    assert provider.reading(0.0)["rpm"][1] == 9


def test_the_longest_wait_is_reported():
    """When two limits refuse, the numbers are those of the one that takes longer to wait for."""
    provider = Enforcement(rpm=1, tpm=100)
    provider.admit(0.0, reserved=10, input_tokens=10)
    refused = provider.admit(0.0, reserved=91, input_tokens=91)
    assert (refused.dimension, refused.retry_after) == ("rpm", pytest.approx(60.0))


def test_bucket_refills_all_the_time():
    """At 60 rpm an emptied bucket has room for one call a second later, and says so."""
    provider = Enforcement(rpm=60)
    assert all(provider.admit(0.0, reserved=0, input_tokens=0).admitted for _ in range(60))
    assert provider.admit(0.0, reserved=0, input_tokens=0).retry_after == pytest.approx(1.0)
    assert provider.reading(0.0)["rpm"] == pytest.approx((60, 0, 60))
    assert provider.admit(1.0, reserved=0, input_tokens=0).admitted


def test_smoothing_holds_one_second_of_the_limit():
    """60 rpm smoothed to a second lets one call a second in, however long nobody called."""
    provider = Enforcement(rpm=60, smooth=1.0)
    assert [provider.admit(100.0, reserved=0, input_tokens=0).admitted for _ in range(3)] == [True, False, False]


def test_smoothing_can_leave_tokens_alone():
    """With smooth_dimensions, only the named limits are smoothed."""
    provider = Enforcement(rpm=600, tpm=6000, smooth=1.0, smooth_dimensions=("rpm",))
    assert provider.admit(0.0, reserved=5000, input_tokens=5000).admitted
    assert provider.admit(0.0, reserved=1000, input_tokens=1000).admitted


def test_a_call_larger_than_the_smoothed_limit_goes_alone():
    """It is let in when the limit is untouched, and the next one waits for what it took too much."""
    provider = Enforcement(tpm=6000, smooth=1.0)
    assert provider.admit(0.0, reserved=500, input_tokens=500).admitted
    assert provider.admit(0.0, reserved=100, input_tokens=100).retry_after == pytest.approx(5.0)
    strict = Enforcement(tpm=6000, smooth=1.0, strict=True)
    assert strict.admit(0.0, reserved=500, input_tokens=500).too_large


def test_more_than_a_whole_limit_is_too_large():
    """Such a call never fits: no wait, and nothing is charged."""
    provider = Enforcement(rpm=10, tpm=100)
    refused = provider.admit(0.0, reserved=101, input_tokens=1)
    assert (refused.too_large, refused.retry_after, refused.dimension) == (True, None, "tpm")
    assert provider.charged() == {"rpm": 0, "tpm": 0}


@pytest.mark.parametrize(("admission", "left"), [("reserve", 0), ("settle", 700), ("actual", 700)])
def test_settling_follows_the_admission_rule(admission, left):
    """Of 1000 tokens reserved and 300 used, only a reserving provider keeps all."""
    provider = Enforcement(tpm=1000, admission=admission)
    ticket = provider.admit(0.0, reserved=1000, input_tokens=100).ticket
    provider.settle(ticket, 0.0, input_tokens=100, output_tokens=200)
    assert provider.reading(0.0)["tpm"][1] == left


def test_settling_twice_counts_once():
    """A second settlement of the same call changes nothing."""
    provider = Enforcement(tpm=1000, admission="settle", max_concurrency=5)
    ticket = provider.admit(0.0, reserved=500, input_tokens=100).ticket
    for _ in range(2):
        provider.settle(ticket, 0.0, input_tokens=100, output_tokens=0)
    assert provider.in_flight == 0
    assert provider.reading(0.0)["tpm"][1] == 900


def test_actual_usage_can_bring_debt():
    """Output is charged when produced, beyond the limit too; the next call waits until the debt is paid."""
    provider = Enforcement(otpm=600, itpm=6000, admission="actual")
    ticket = provider.admit(0.0, reserved=0, input_tokens=10).ticket
    provider.settle(ticket, 0.0, input_tokens=10, output_tokens=900)
    refused = provider.admit(0.0, reserved=0, input_tokens=10)
    assert (refused.dimension, refused.used) == ("otpm", 900)
    assert refused.retry_after == pytest.approx(30.1)


def test_concurrency_is_freed_by_settling():
    """The third of two allowed is refused without a wait, and let in when one ends."""
    provider = Enforcement(max_concurrency=2)
    first = provider.admit(0.0, reserved=0, input_tokens=0)
    provider.admit(0.0, reserved=0, input_tokens=0)
    refused = provider.admit(0.0, reserved=0, input_tokens=0)
    assert (refused.dimension, refused.retry_after, refused.too_large) == ("concurrency", None, False)
    provider.settle(first.ticket, 1.0, input_tokens=0, output_tokens=0)
    assert provider.admit(1.0, reserved=0, input_tokens=0).admitted


def test_day_limits_are_1440_periods():
    """A day's bucket refills 1,440 times slower than the minute's, with a shrunk minute too."""
    provider = Enforcement(rpd=1440, period=1.0)
    provider.admit(0.0, reserved=0, input_tokens=0)
    assert provider.reading(0.0)["rpd"] == pytest.approx((1440, 1439, 1.0))


def test_halving_leaves_no_debt_and_doubling_no_gift():
    """What is left stays left when the limit changes; only the rate is another."""
    provider = Enforcement(rpm=60)
    for _ in range(60):
        provider.admit(0.0, reserved=0, input_tokens=0)
    provider.change(0.0, rpm=30)
    assert provider.admit(0.0, reserved=0, input_tokens=0).retry_after == pytest.approx(2.0)
    provider.change(0.0, rpm=120)
    assert provider.admit(0.0, reserved=0, input_tokens=0).retry_after == pytest.approx(0.5)


def test_limits_can_appear_and_disappear():
    """A limit set in mid-run is in force from then on, and None ends it."""
    provider = Enforcement()
    provider.admit(0.0, reserved=10, input_tokens=10)
    provider.change(0.0, tpm=5)
    assert provider.admit(0.0, reserved=10, input_tokens=10).too_large
    provider.change(0.0, tpm=None)
    assert provider.admit(0.0, reserved=10, input_tokens=10).admitted
    with pytest.raises(TypeError, match="no such limit: period"):
        provider.change(0.0, period=1)


def test_refused_calls_can_use_up_requests():
    """With charge_refused, insisting never gets in; without, one place is free after a second."""
    for charged, admitted in ((False, True), (True, False)):
        provider = Enforcement(rpm=60, charge_refused=charged)
        for _ in range(60):
            provider.admit(0.0, reserved=0, input_tokens=0)
        for tenth in range(1, 10):
            provider.admit(tenth / 10, reserved=0, input_tokens=0)
        assert provider.admit(1.01, reserved=0, input_tokens=0).admitted is admitted


def test_counts_say_which_limit_refused():
    """Refusals are counted for each dimension."""
    provider = Enforcement(rpm=1, tpm=100)
    provider.admit(0.0, reserved=1, input_tokens=1)
    provider.admit(0.0, reserved=1, input_tokens=1)
    provider.admit(0.0, reserved=200, input_tokens=1)
    assert (provider.admitted, provider.refused, provider.refused_by) == (1, 2, {"rpm": 1, "tpm": 1})
    assert repr(provider) == "<Enforcement rpm=1 tpm=100 bucket reserve: 1 admitted, 2 refused, 1 in flight>"


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf")])
def test_a_limit_has_to_be_above_zero(bad):
    """Zero, negative and infinite limits are refused with a sentence."""
    with pytest.raises(ValueError, match=r"rpm=.* is no limit: give a number above 0"):
        Allowance(rpm=bad)
