"""The arithmetic of shared limits in Python: the table of cases, and what holds for whatever is asked."""

from __future__ import annotations

import math

import pytest
from booking_cases import CASES, NOON, Case, part, play
from booking_orders import LIMITS, Sent, judged, moves, orders_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimited_llm.core.booking import Answer, Order
from ratelimited_llm.core.booking_pool import Wishes, book


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_holds(case: Case) -> None:
    """Every case, step by step."""
    state: dict[str, str] = {}
    orders: dict[str, str] = {}
    wanted = {"paused": False, "limits": {}}

    def ask(now: float, order: Order) -> Answer:
        return book(state, orders, order, now, Wishes(1, **wanted))

    def want(paused: bool | None = None, limits: dict[str, float | None] | None = None) -> None:
        wanted["paused"] = wanted["paused"] if paused is None else paused
        wanted["limits"] = {name: limit for name, limit in (wanted["limits"] | (limits or {})).items() if limit}

    play(case, ask, state.__setitem__, want)


@given(st.lists(moves, max_size=60))
@settings(max_examples=80, deadline=None)
def test_never_is_more_sent_than_a_provider_allows(traffic) -> None:
    """Whoever asks in whatever order, urgent or not: sent at its moment, everything fits into the provider's bucket."""
    state: dict[str, str] = {}
    sent = []
    for now, order in orders_of(traffic):
        answer = book(state, {}, order, now)
        assert 0.0 <= answer.wait < math.inf
        if answer.booked:
            sent.append(Sent(now + answer.wait, {part.dimension: part.amount for part in order.parts}))
    for name, limit in LIMITS.items():
        assert judged(sent, name) >= -1e-6 * limit


@given(st.lists(st.sampled_from([1.0, 2.0, 7.0]), min_size=1, max_size=40))
def test_patient_calls_use_the_whole_limit(requests) -> None:
    """The last one goes at the moment at which the refill has paid for it, and no later."""
    state: dict[str, str] = {}
    for number, amount in enumerate(requests, 1):
        answer = book(state, {}, Order("a", number, (part(amount=amount),)), NOON)
    assert answer.wait == pytest.approx(max(0.0, sum(requests) - 60.0), abs=1e-4)


@given(st.lists(st.floats(0.0, 60.0), max_size=30))
def test_what_is_given_back_is_not_lost(amounts) -> None:
    """Booked and given back, again and again: everything is there at the end."""
    state: dict[str, str] = {}
    number = 0
    for amount in amounts:
        for change in (part(amount=amount), part(amount=0.0, correction=-amount)):
            number += 1
            answer = book(state, {}, Order("a", number, (change,)), NOON)
    assert not amounts or answer.limits[0].level == pytest.approx(60.0, abs=1e-6)


words = st.one_of(
    st.floats().map(repr),
    st.sampled_from(["", "nan", "1e999", "-", "0x10", "١", "1_0", str(NOON)]),
    st.text(max_size=5),
)


# What a line says of limits is not spoilt here: a low one can be what somebody has stated.
lines_of = st.dictionaries(st.sampled_from(["pool", "rpm", "tpm"]), st.lists(words, max_size=6).map(" ".join))


@given(lines_of, words)
def test_whatever_is_written_over_the_lines_it_neither_admits_all_nor_blocks_for_ever(lines, order) -> None:
    """No more than a minute's worth goes at once, and after some minutes everything goes again."""
    state, orders = dict(lines), {"b": order, "a": f"{order} 1 {order} 1"}
    third = part(amount=20.0)
    answers = [book(state, orders, Order("c", number, (third,)), NOON) for number in range(1, 6)]
    assert sum(answer.booked and answer.wait == 0.0 for answer in answers) <= 3
    assert all(0.0 <= answer.wait <= 600.0 for answer in answers)
    later = book(state, orders, Order("c", 100, (third,)), NOON + 800.0)
    assert (later.booked, later.wait) == (True, 0.0)
    assert 0.0 < later.limits[0].limit <= 60.0  # a lower one that was written in passes for one that was learned
