"""A running sum that is asked about the past."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ratelimited_llm.core.running_sum import HISTORY, RunningSum


@given(
    steps=st.lists(st.floats(0.0, 2.0), max_size=30),
    first=st.floats(-1.0, 40.0),
    more=st.floats(0.0, 5.0),
)
def test_around_is_since_at_both_moments(steps: list[float], first: float, more: float) -> None:
    """One look at the sums instead of two."""
    sums, now = RunningSum(), 0.0
    for number, step in enumerate(steps):
        now += step
        sums.add(float(number), now)
    assert sums.around(first, first + more) == (sums.since(first), sums.since(first + more))


def test_around_answers_none_for_what_is_not_remembered() -> None:
    """The older half of a long history goes."""
    sums = RunningSum()
    for moment in range(2 * HISTORY + 1):
        sums.add(1.0, float(moment))
    assert sums.around(0.0, 1.0) is None
    assert sums.around(2.0 * HISTORY - 3.0, 2.0 * HISTORY - 1.0) == (3.0, 1.0)
    assert sums.around(1e9, 2e9) == (0.0, 0.0)
