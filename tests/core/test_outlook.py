"""How soon waiting calls will go, by what their limits give."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimited_llm.core.outlook import Flow, Outlook

RPM = Flow("rpm", ready=10.0, rate=1.0, need=1.0)
TPM = Flow("tpm", ready=0.0, rate=1_000.0, need=500.0)


@pytest.mark.parametrize(
    ("calls", "wait", "held_by"),
    [(1, 0.5, "tpm"), (10, 5.0, "tpm"), (30, 20.0, "rpm")],
)
def test_the_limit_that_takes_longest_is_the_one_that_holds(calls: int, wait: float, held_by: str) -> None:
    assert Outlook((RPM, TPM)).wait(calls) == (wait, held_by)


def test_what_fits_into_what_is_left_does_not_wait() -> None:
    assert Outlook((RPM,)).wait(10) == (0.0, None)


def test_a_pause_holds_until_it_is_over_whatever_the_limits_have() -> None:
    paused = Outlook((RPM,), held=("pause", 7.0))
    assert paused.wait(1) == (7.0, "pause")
    assert paused.wait(30) == (20.0, "rpm")


def test_a_full_concurrency_is_named_though_nobody_knows_its_seconds() -> None:
    assert Outlook((RPM,), held=("concurrency", math.inf)).wait(1) == (0.0, "concurrency")


def test_an_answer_comes_a_latency_after_its_dispatch() -> None:
    assert Outlook((RPM,), latency=2.0).answered_in(30) == 22.0
    assert Outlook((RPM,)).answered_in(30) == 20.0


def test_without_any_limit_nothing_is_foretold() -> None:
    assert Outlook((), latency=2.0).answered_in(30) is None


def test_a_limit_that_gives_nothing_is_never_over() -> None:
    assert Outlook((Flow("rpd", 0.0, 0.0, 1.0),)).answered_in(1) is None


@given(
    st.lists(
        st.builds(
            Flow,
            st.sampled_from(["rpm", "tpm", "concurrency"]),
            ready=st.floats(0, 1e6),
            rate=st.floats(0.001, 1e6),
            need=st.floats(0, 1e4),
        ),
        max_size=4,
    ),
    st.integers(1, 10_000),
)
def test_a_later_place_never_waits_less(flows: list[Flow], place: int) -> None:
    outlook = Outlook(tuple(flows))
    assert outlook.wait(place)[0] <= outlook.wait(place + 1)[0]
