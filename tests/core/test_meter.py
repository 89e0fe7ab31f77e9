"""One limit as we believe it stands: its arithmetic, its guard, and what readings and refusals may do to it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimited_llm.core.bucket import GUARD, GUARD_AT_FIRST
from ratelimited_llm.core.drift import Drift
from ratelimited_llm.core.meter import AMBIGUITY, Meter
from ratelimited_llm.core.running_sum import HISTORY, RunningSum

thoroughly = settings(deadline=None, max_examples=60, derandomize=True)


def spend(meter: Meter, count: int, now: float, amount: float = 1.0) -> None:
    """Charge some calls at one moment."""
    for _ in range(count):
        meter.take(amount, 0.0, now)


def test_a_fresh_meter_is_full_and_refills_at_its_rate() -> None:
    """Sixty a minute: sixty fit at once, and then one a second, later by the guard."""
    meter = Meter(60, 60.0, 0.0)
    assert meter.wait(60.0, 0.0, 0.0) == 0.0
    spend(meter, 60, 0.0)
    assert meter.wait(1.0, 0.0, 0.0) == pytest.approx(1.0 + GUARD_AT_FIRST)


def test_an_unguarded_meter_of_one_keeps_exact_intervals() -> None:
    """A minimum interval is our own, so there is nothing to guard against."""
    meter = Meter(1.0, 2.5, 0.0, guarded=False)
    spend(meter, 1, 0.0)
    assert meter.wait(1.0, 0.0, 0.0) == pytest.approx(2.5)
    assert meter.wait(1.0, 0.0, 2.5) == 0.0


def test_the_guard_also_spaces_a_bucket_of_one() -> None:
    """Strict spacing leaves no room for a guard inside the bucket, so it lengthens the interval."""
    meter = Meter(60, 60.0, 0.0, capacity=1.0)
    meter.guard = GUARD
    spend(meter, 1, 0.0)
    assert meter.wait(1.0, 0.0, 0.0) == pytest.approx(1.0 + GUARD)


def test_a_call_larger_than_the_bucket_goes_when_it_is_full() -> None:
    """It leaves a debt, and the next ones wait for it."""
    meter = Meter(600, 60.0, 0.0, capacity=10.0)
    assert meter.wait(50.0, 0.0, 0.0) == 0.0
    meter.take(50.0, 0.0, 0.0)
    assert meter.wait(1.0, 0.0, 0.0) >= 4.1


def test_pledges_that_leave_no_room_wait_for_a_call_that_ends() -> None:
    """However long we wait, only an end frees what calls in flight will still be charged."""
    meter = Meter(100, 60.0, 0.0)
    meter.take(0.0, 90.0, 0.0)
    assert meter.wait(5.0, 15.0, 0.0) == math.inf
    meter.pledged -= 90.0
    assert meter.wait(5.0, 15.0, 0.0) == 0.0


def test_a_snapshot_only_clamps() -> None:
    """Inside what it leaves possible the level stays; beyond it the level is moved to the nearer end."""
    meter = Meter(600, 60.0, 0.0)
    spend(meter, 100, 0.0)
    before = meter.level
    meter.read(500.0, 0.0, 1.0, 0.0)
    assert meter.level == before
    meter.read(100.0, 0.0, 1.0, 0.05)
    assert 100.0 <= meter.level <= 203.0


def test_a_snapshot_with_little_left_lowers_the_level() -> None:
    """Somebody else took it: what is left, what came back since, and one of slack."""
    meter = Meter(600, 60.0, 0.0)
    spend(meter, 1, 0.0)
    meter.read(50.0, 0.0, 1.0, 1.0)
    assert meter.level <= 50.0 + 10.0 + 2.1


def test_a_snapshot_never_fills_a_bucket_that_is_smaller_than_the_limit() -> None:
    """`remaining` of a minute says nothing about the second that requests are judged over."""
    meter = Meter(600, 60.0, 0.0, capacity=10.0)
    spend(meter, 10, 0.0)
    before = meter.level
    meter.read(590.0, 0.0, 1.0, 0.0)
    assert meter.level == before


def test_a_refused_call_was_never_charged() -> None:
    """Its charge disappears from the past too, so that later readings do not count it."""
    meter = Meter(60, 60.0, 0.0)
    spend(meter, 2, 1.0)
    meter.undo(1.0, 1.0, 1.2)
    assert meter.spent.total == 1.0
    assert meter.spent.since(0.5) == 1.0


def test_a_refusal_soon_after_a_full_bucket_measures_its_capacity() -> None:
    """Ten went through, the eleventh did not."""
    meter = Meter(600, 60.0, 0.0)
    spend(meter, 11, 0.0)
    meter.undo(1.0, 0.0, 0.05)
    meter.take(1.0, 0.0, 0.06)
    meter.undo(1.0, 0.06, 0.1)
    meter.refused(1.0, 0.06, 0.05, 0.1, fresh=True)
    assert 8.0 <= meter.capacity <= 12.0


def test_a_long_wait_betrays_a_window() -> None:
    """A bucket would have had one call's worth in a tenth of a second, not in forty."""
    meter = Meter(600, 60.0, 0.0)
    spend(meter, 600, 0.0)
    meter.undo(1.0, 0.0, 0.1)
    meter.refused(1.0, 0.0, 40.0, 0.1, fresh=True)
    assert meter.windowed
    assert meter.wait(1.0, 0.0, 0.1) == pytest.approx(40.0 + GUARD)


def test_a_day_is_never_taken_for_a_window() -> None:
    """Waits of minutes are what a day's bucket gives."""
    meter = Meter(1_000, 86_400.0, 0.0)
    spend(meter, 1_000, 0.0)
    meter.undo(1.0, 0.0, 0.1)
    meter.refused(1.0, 0.0, 100.0, 0.1, fresh=True)
    assert not meter.windowed


def test_resets_that_all_speak_of_one_moment_betray_a_window() -> None:
    """Two calls into a minute, a bucket would be full in a fifth of a second."""
    meter = Meter(600, 60.0, 0.0)
    for tick in range(10):
        now = 0.3 * tick
        meter.take(1.0, 0.0, now)
        meter.read(599.0 - tick, now, 1.0, now + 0.05, reset=40.0 - now + 0.0101)
    assert meter.windowed
    assert meter.boundary == pytest.approx(40.0 + GUARD, abs=0.1)


def test_resets_of_a_bucket_are_no_window() -> None:
    """They grow with what is used."""
    meter = Meter(600, 60.0, 0.0)
    for tick in range(200):
        now = 0.01 * tick
        meter.take(1.0, 0.0, now)
        meter.read(599.0 - tick, now, 1.0, now + 0.05, reset=(tick + 1) / 10.0)
    assert not meter.windowed


def test_a_new_limit_keeps_what_was_spent() -> None:
    """Halved: no more than the new limit is left; doubled: what is left stays left."""
    meter = Meter(600, 60.0, 0.0)
    spend(meter, 100, 0.0)
    meter.relimit(300)
    assert meter.level <= 300.0
    assert meter.rate == pytest.approx(5.0)
    level = meter.level
    meter.relimit(1_200)
    assert meter.level == level
    assert meter.capacity == 1_200


def test_an_untold_limit_is_no_limit_until_it_refuses() -> None:
    """A thousand calls and no wait."""
    meter = Meter(None, 60.0, 0.0)
    spend(meter, 1_000, 0.0)
    assert (meter.told, meter.wait(1.0, 0.0, 0.0)) == (False, 0.0)


def test_drift_is_what_vanished_beyond_our_own_spending() -> None:
    """Somebody else takes five a second of ten, while we take two."""
    meter, drift = Meter(600, 60.0, 0.0), Drift()
    remaining = 400.0
    for second in range(30):
        for call in range(2):
            meter.take(1.0, 0.0, second + 0.5 * call)
        remaining += 10.0 - 2.0 - 15.0
        drift.learn(meter, remaining, second + 0.95, AMBIGUITY)
    assert 8.0 <= drift.rate <= 10.0
    assert drift.company


def test_alone_there_is_no_drift() -> None:
    """Snapshots that our own spending explains teach nothing."""
    meter, drift = Meter(600, 60.0, 0.0), Drift()
    for second in range(30):
        meter.take(1.0, 0.0, float(second))
        drift.learn(meter, 600.0 - 1.0, second + 0.5, AMBIGUITY)
    assert (drift.rate, drift.company) == (0.0, False)


def test_a_sum_answers_for_the_past_and_forgets_the_oldest_half() -> None:
    """Sums since a moment, corrections of the past, and bounded memory."""
    sums = RunningSum()
    for moment in range(10):
        sums.add(2.0, float(moment))
    assert (sums.since(7.0), sums.until(7.0), sums.before(7.0), sums.next_after(7.0)) == (4.0, 16.0, 14.0, 8.0)
    sums.strike(2.0, 8.0)
    assert (sums.since(7.0), sums.until(7.0), sums.next_after(9.0)) == (2.0, 16.0, math.inf)
    for moment in range(10, 2 * HISTORY + 10):
        sums.add(1.0, float(moment))
    assert not sums.remembers(5.0)
    assert sums.remembers(2.0 * HISTORY)
    assert sums.since(2.0 * HISTORY) == 9.0


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["take", "correct", "give back", "read", "refuse", "relimit", "look"]),
        st.floats(0.0, 20.0) | st.just(0.0),
        st.floats(0.0, 400.0),
        st.none() | st.floats(0.0, 150.0),
    ),
    max_size=60,
)


def happen(meter: Meter, what: str, now: float, amount: float, told: float | None) -> None:
    """Let one thing happen to a meter."""
    if what == "take" and meter.wait(amount, 0.0, now) == 0.0:
        meter.take(amount, 0.0, now)
    elif what == "correct":
        meter.correct(amount, now)
    elif what == "give back":
        meter.correct(-amount, now)
    elif what == "read":
        meter.read(amount, now, 1.0, now + 0.1, reset=told)
    elif what == "relimit":
        meter.relimit(amount + 1.0)
    elif what == "refuse":
        meter.take(1.0, 0.0, now)
        meter.undo(1.0, now, now)
        meter.refused(1.0, now, told, now, fresh=True)
        meter.resynchronise(1.0, 1.0 if told is None else told, now, now)


@thoroughly
@given(events=EVENTS, limit=st.none() | st.floats(1.0, 1e6), capacity=st.none() | st.floats(1.0, 1e6))
def test_whatever_happens_the_level_stays_in_the_bucket_and_waits_are_sane(
    events: list[tuple[str, float, float, Any]], limit: float | None, capacity: float | None
) -> None:
    """Never above the capacity, never NaN, and a wait is never negative."""
    meter = Meter(limit, 60.0, 0.0, capacity=capacity if limit is not None else None)
    now = 0.0
    for what, gap, amount, told in events:
        if what in ("relimit", "read") and limit is None:
            continue  # a limit that was told is a new meter
        now += gap + 0.11
        happen(meter, what, now, amount, told)
        assert math.isfinite(meter.level)
        assert math.isfinite(meter.rate)
        assert meter.rate >= 0.0
        assert meter.level <= meter.capacity + 1e-6
        assert meter.capacity >= min(1.0, meter.limit)
        if meter.rate or meter.windowed or meter.level >= 1.0:
            assert meter.wait(1.0, 0.0, now) >= 0.0
