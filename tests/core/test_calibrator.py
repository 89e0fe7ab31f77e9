"""Limits that nobody tells: what refusals measure, how a burst starts, and what holds a pool back."""

from __future__ import annotations

import math

import pytest

from ratelimited_llm.core.calibrator import Calibrator, Window
from ratelimited_llm.core.pause import LONGEST_PAUSE, Pause
from ratelimited_llm.core.ramp import Ramp
from ratelimited_llm.core.running_sum import RunningSum


def test_two_refusals_bound_the_rate_from_above() -> None:
    """Twenty went through in the four seconds between: five a second, or a little more."""
    sums, calibrator = RunningSum(), Calibrator()
    calibrator.refused(1.0, 0.0, None, sums, 0.1, fresh=True, guess=True)
    assert calibrator.rate == math.inf
    for tick in range(20):
        sums.add(1.0, 0.2 * (tick + 1))
    calibrator.refused(1.0, 4.0, None, sums, 4.1, fresh=True, guess=True)
    assert calibrator.rate == pytest.approx(21 / 4.0, rel=0.02)


def test_an_exact_wait_bounds_the_rate_too() -> None:
    """An empty bucket that needs half a second for one call gives two a second at most."""
    sums, calibrator = RunningSum(), Calibrator()
    calibrator.refused(1.0, 0.0, 0.5, sums, 0.1, fresh=True, guess=True)
    sums.add(1.0, 0.6)
    calibrator.refused(1.0, 0.7, 0.45, sums, 0.8, fresh=True, guess=True)
    assert calibrator.rate == pytest.approx(2.0)


def test_more_than_a_bucket_could_have_gathered_betrays_a_window() -> None:
    """Thirty at once after a wait of six seconds for one."""
    sums, calibrator = RunningSum(), Calibrator()
    for _ in range(30):
        sums.add(1.0, 0.0)
    assert calibrator.refused(1.0, 0.4, 5.6, sums, 0.4, fresh=True, guess=True) is None
    for tick in range(30):
        sums.add(1.0, 6.0 + 0.02 * tick)
    found = calibrator.refused(1.0, 6.7, 5.3, sums, 6.7, fresh=True, guess=True)
    assert isinstance(found, Window)
    assert found.admitted == 30.0
    assert found.ends == pytest.approx(12.0)
    assert found.span == pytest.approx(6.0)


def test_a_long_quiet_raises_the_rate() -> None:
    """No refusal for much longer than was measured: the limit may have grown."""
    sums, calibrator = RunningSum(), Calibrator()
    calibrator.refused(1.0, 0.0, None, sums, 0.1, fresh=True, guess=True)
    for tick in range(10):
        sums.add(1.0, 0.2 * (tick + 1))
    calibrator.refused(1.0, 2.0, None, sums, 2.1, fresh=True, guess=True)
    before = calibrator.rate
    assert not calibrator.press_on(5.0)
    assert calibrator.press_on(10.0)
    assert calibrator.rate > before


def test_the_same_news_again_is_one_refusal() -> None:
    """Calls that left before a refusal was known measure nothing on their own."""
    sums, calibrator = RunningSum(), Calibrator()
    for moment in range(3):
        calibrator.refused(1.0, float(moment), None, sums, 3.0, fresh=moment == 0, guess=True)
    assert calibrator.rate == math.inf


def test_a_ramp_starts_with_eight_in_a_tenth_of_a_second_and_then_hurries() -> None:
    """A hundred calls take about a second; a rest changes nothing about the pace."""
    ramp, now, sent = Ramp.known(), 0.0, []
    for _ in range(100):
        now += ramp.wait(now)
        ramp.send(now)
        sent.append(now)
    assert 7 <= sum(moment < 0.1 for moment in sent) <= 9
    assert 0.6 <= now <= 1.2


def test_a_ramp_ends() -> None:
    """Thousands of sends later it is in nobody's way."""
    ramp = Ramp.known()
    for _ in range(8_000):
        ramp.send(0.0)
    assert ramp.over
    assert ramp.wait(0.0) == 0.0


def test_a_search_slows_down_where_the_last_one_was_refused() -> None:
    """What held thirty before holds thirty again, so the thirty-first is probably refused."""
    ramp = Ramp.search(30.0)
    for _ in range(20):
        ramp.send(0.0)
    fast = 1.0 / (ramp.first + 20 * math.log(2) / ramp.doubling)
    before = ramp.next_at
    for _ in range(10):
        ramp.send(0.0)
    assert ramp.next_at - before > 10 * fast


def test_after_a_pause_one_goes_first_and_the_others_follow_its_survival() -> None:
    """The probe is taken for admitted once its refusal would have been back."""
    pause = Pause()
    assert pause.refused(0.0, 0.1)
    pause.order(1.0)
    assert pause.wait(0.5) == 0.5
    assert pause.wait(1.0) == 0.0
    pause.sent(7, 1.0)
    assert 0.0 < pause.wait(1.0) <= 0.5
    assert pause.wait(2.0) == 0.0


def test_a_refusal_that_came_while_the_machine_slept_does_not_say_how_long_refusals_take() -> None:
    """Three hours later it is read; the call that goes first holds up the others for seconds, not for hours."""
    pause = Pause()
    pause.refused(0.0, 10_800.0)
    pause.order(10_801.0)
    pause.sent(7, 10_801.0)
    assert 0.0 < pause.wait(10_801.0) < 5.0


def test_each_refused_probe_doubles_our_own_wait() -> None:
    """Whatever is told; up to the longest back-off of the SDKs."""
    pause, waits, now = Pause(), [], 0.0
    for _ in range(8):
        assert pause.refused(now, now + 0.1)
        waits.append(pause.backoff())
        now += 1.0
    assert waits[:4] == [0.0, 0.5, 1.0, 2.0]
    assert waits[-1] == LONGEST_PAUSE


def test_an_answered_probe_ends_the_doubling() -> None:
    """One that was let in says that waiting has helped."""
    pause = Pause()
    pause.refused(0.0, 0.1)
    pause.refused(0.2, 0.3)
    pause.order(1.0)
    pause.sent(1, 1.0)
    pause.answered(1)
    pause.refused(2.0, 2.1)
    assert pause.backoff() == 0.0
