"""The states of a call, and the values that it is made of."""

from __future__ import annotations

import itertools

import pytest

from ratelimited_llm.core.queue_caps import QueueCaps
from ratelimited_llm.core.request import TRANSITIONS, Cost, Lane, Priority, QueuedRequest, State

FINAL = {State.DONE, State.FAILED, State.CANCELLED}


def request_in(state: State) -> QueuedRequest:
    """A call that is in this state, however it got there."""
    request = QueuedRequest(1, "pool", Cost())
    request.state = state
    return request


@pytest.mark.parametrize(("was", "to"), list(itertools.product(State, State)), ids=lambda state: state.value)
def test_a_call_moves_only_as_the_table_says(was: State, to: State) -> None:
    """Every pair of states is either in the table, or raises and leaves the call where it was."""
    request = request_in(was)
    if to in TRANSITIONS[was]:
        request.move(to)
        assert request.state is to
    else:
        with pytest.raises(RuntimeError, match=f"from {was.value} to {to.value}"):
            request.move(to)
        assert request.state is was


def test_no_way_leads_out_of_the_last_states() -> None:
    """Done, failed and cancelled are for ever, and every other state leads to one of them."""
    assert {state for state in State if not TRANSITIONS[state]} == FINAL
    assert all(TRANSITIONS[state] & FINAL for state in set(State) - FINAL)
    assert set(TRANSITIONS) == set(State)


def test_a_state_is_found_in_the_table_without_running_python() -> None:
    """The hash of a state is the one of every object, since each call looks its moves up three times."""
    assert State.__hash__ is object.__hash__
    assert len({*State}) == len(State)


def test_a_lane_cannot_be_left_twice() -> None:
    """A lane knows the calls that it carries by number."""
    lane = Lane(width=1)
    lane.carried.add(7)
    lane.carried.discard(7)
    lane.carried.discard(7)
    assert lane.in_flight == 0


@pytest.mark.parametrize(("given", "number"), [("high", 1), ("LOW", 8), (0, 0), (10, 10), (Priority.NORMAL, 5)])
def test_a_priority_is_read_as_people_write_it(given: object, number: int) -> None:
    """Names in any case and numbers from 0 to 10."""
    assert Priority.parse(given) == number


@pytest.mark.parametrize("given", ["urgent", 11, -1, True, 1.0, None, ""])
def test_what_is_no_priority_is_refused_with_the_names(given: object) -> None:
    """The error names what is accepted."""
    with pytest.raises(ValueError, match='"high"'):
        Priority.parse(given)


def test_a_full_queue_says_its_cap() -> None:
    """The error carries the number, and the tenant when it is the tenant's share."""
    bounds = QueueCaps(max_queue=2, max_queue_per_tenant=1)
    assert bounds.enter(1, "a") is None
    full = bounds.enter(2, "a")
    assert full is not None
    assert (full.limit, full.tenant) == (1, "a")
    assert bounds.enter(3, "b") is None
    full = bounds.enter(4, "c")
    assert full is not None
    assert (full.limit, full.tenant) == (2, None)


def test_leaving_a_queue_twice_makes_room_once() -> None:
    """However often a call is said to have left, one place comes free."""
    bounds = QueueCaps(max_queue=2)
    bounds.enter(1, "a")
    bounds.enter(2, "a")
    assert bounds.leave(1, "a")
    assert not bounds.leave(1, "a")
    assert bounds.enter(3, "a") is None
    assert bounds.enter(4, "a") is not None


def test_a_forced_call_counts_like_any_other() -> None:
    """It enters a full queue, and its leaving makes no room until the queue is below its cap."""
    bounds = QueueCaps(max_queue=1)
    bounds.enter(1, "a")
    bounds.force(2, "b")
    assert bounds.leave(1, "a")
    assert bounds.enter(3, "a") is not None
    assert bounds.leave(2, "b")
    assert bounds.enter(4, "a") is None
