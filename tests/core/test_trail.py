"""A running sum that is asked about the past."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ratelimited_llm.core.trail import HISTORY, Trail


@given(
    steps=st.lists(st.floats(0.0, 2.0), max_size=30),
    first=st.floats(-1.0, 40.0),
    more=st.floats(0.0, 5.0),
)
def test_around_is_since_at_both_moments(steps: list[float], first: float, more: float) -> None:
    """One look at the trail instead of two."""
    trail, now = Trail(), 0.0
    for number, step in enumerate(steps):
        now += step
        trail.add(float(number), now)
    assert trail.around(first, first + more) == (trail.since(first), trail.since(first + more))


def test_around_answers_none_for_what_is_not_remembered() -> None:
    """The older half of a long history goes."""
    trail = Trail()
    for moment in range(2 * HISTORY + 1):
        trail.add(1.0, float(moment))
    assert trail.around(0.0, 1.0) is None
    assert trail.around(2.0 * HISTORY - 3.0, 2.0 * HISTORY - 1.0) == (3.0, 1.0)
    assert trail.around(1e9, 2e9) == (0.0, 0.0)
