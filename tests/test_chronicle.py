"""The course of a run, in slices and in its last minute."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ratelimited_llm.books.chronicle import MOST_SAMPLES, MOST_SLICES, Chronicle
from ratelimited_llm.books.minute import Minute


def test_each_slice_has_what_happened_in_it_and_silence_keeps_the_state_before_it() -> None:
    chronicle = Chronicle()
    chronicle.slice(100.0, queued=3, in_flight=0)
    chronicle.slice(100.5, queued=1, in_flight=2).sent += 2
    chronicle.slice(103.2, queued=0, in_flight=1).answered += 1
    moments = chronicle.history().moments
    assert [moment.at for moment in moments] == [0.0, 1.0, 2.0, 3.0]
    assert [moment.sent for moment in moments] == [2, 0, 0, 0]
    assert [moment.answered for moment in moments] == [0, 0, 0, 1]
    assert [(moment.queued, moment.in_flight) for moment in moments] == [(1, 2), (1, 2), (1, 2), (0, 1)]


@given(st.lists(st.floats(0, 3_000_000), max_size=60))
def test_a_run_of_any_length_has_some_hundred_slices_and_loses_no_count(moments: list[float]) -> None:
    chronicle = Chronicle()
    for now in sorted(moments):
        chronicle.slice(now, 0, 0).sent += 1
    history = chronicle.history()
    assert len(history.moments) <= MOST_SLICES
    assert sum(moment.sent for moment in history.moments) == len(moments)


def test_samples_of_latency_spread_over_the_whole_run() -> None:
    chronicle = Chronicle()
    for number in range(10_000):
        chronicle.latency(chronicle.slice(number / 100, 0, 0), float(number))
    samples = chronicle.history().latencies
    assert MOST_SAMPLES / 2 <= len(samples) <= MOST_SAMPLES
    assert samples[0] < 100
    assert samples[-1] > 9_900
    assert list(samples) == sorted(samples)


def test_a_limit_is_noted_when_it_changes() -> None:
    chronicle = Chronicle()
    chronicle.slice(10.0, 0, 0)
    for now, limit in ((11.0, 600.0), (12.0, 600.0), (13.0, 300.0)):
        chronicle.limit("rpm", limit, now)
    assert chronicle.history().limits == ((1.0, "rpm", 600.0), (3.0, "rpm", 300.0))


def test_a_run_that_never_began_has_no_history() -> None:
    history = Chronicle().history()
    assert (history.moments, history.latencies, history.limits) == ((), (), ())


@given(st.lists(st.tuples(st.floats(0, 300), st.integers(0, 100)), max_size=100), st.floats(300, 400))
def test_the_last_minute_is_sixty_seconds_to_the_second(notes: list[tuple[float, int]], now: float) -> None:
    minute = Minute()
    for moment, amount in sorted(notes):
        minute.add(moment, amount)
    expected = sum(amount for moment, amount in notes if int(moment) > int(now) - 60)
    assert minute.sums(now, 1) == [expected]


def test_what_is_taken_back_never_shows_as_less_than_nothing() -> None:
    minute = Minute()
    minute.add(0.0, 1, 100)
    minute.add(61.0, -1, -100)
    assert minute.sums(61.0, 2) == [0, 0]


@given(st.lists(st.integers(0, 8_000).map(lambda quarters: quarters / 4), min_size=1, max_size=60))
def test_every_note_is_in_the_slice_of_its_moment_whatever_was_noted_before(moments: list[float]) -> None:
    """Also those that come late: streams are noted when somebody looks."""
    chronicle = Chronicle()
    for now in moments:
        chronicle.slice(now, queued=0, in_flight=0).sent += 1
    history = chronicle.history()
    since = moments[0]
    expected: Counter[int] = Counter(max(0, int((now - since) / history.slice_seconds)) for now in moments)
    assert {index: each.sent for index, each in enumerate(history.moments) if each.sent} == expected


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=50))
def test_notes_of_a_minute_that_come_late_are_counted_at_their_own_second(notes: list[tuple[int, int]]) -> None:
    minute = Minute()
    for moment, amount in notes:
        minute.slot(float(moment), 1)[0] += amount
    for now in (60.0, 80.0):
        assert minute.sums(now, 1) == [sum(amount for moment, amount in notes if moment > now - 60)]
