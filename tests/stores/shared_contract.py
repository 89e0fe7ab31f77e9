"""What every shared store promises. A new one is finished when it passes.

class TestMyStore(SharedStoreContract):
    @pytest.fixture
    def open_store(self): ...  # makes stores over the same thing; takes clock=; all are closed at the end
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from booking_cases import NOON, part

from ratelimited_llm.core.booking import Order
from ratelimited_llm.stores.shared_store import Control, SharedStore

SLOW = part(amount=60.0)


class Clock:
    """The moment that a test says."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def order(number: int = 1, *parts: Any, member: str = "a", **more: Any) -> Order:
    """An order for one request, or what a test says."""
    return Order(member, number, parts or (part(),), **more)


class SharedStoreContract:
    """The promises, one by one."""

    @pytest.fixture
    def open_store(self) -> Callable[..., SharedStore]:
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, open_store, clock) -> SharedStore:
        return open_store(clock=clock)

    def test_two_processes_share_one_bucket(self, open_store, clock, store) -> None:
        """What one has booked, the other has to wait for."""
        other = open_store(clock=clock)
        assert store.book("pool", order(1, SLOW)).wait == 0.0
        answer = other.book("pool", order(1, member="b"))
        assert answer.wait == pytest.approx(1.0, abs=1e-5)
        assert answer.members == 2

    def test_it_has_a_clock_of_its_own(self, open_store) -> None:
        """Nobody has to tell it the time."""
        store = open_store()
        store.book("pool", order(1, SLOW))
        assert 0.0 < store.book("pool", order(2)).wait <= 1.0

    @pytest.mark.parametrize("name", ["", "a b", "{x}", "pool:orders", "ü\n\0*?[", "x" * 5000, "\udcff"])
    def test_a_pool_has_any_name(self, store, name) -> None:
        """Names are apart from each other, and come back as they were."""
        store.book(name, order(1, SLOW))
        assert store.book(name + ":orders", order(1)).wait == 0.0
        assert store.book(name, order(2)).wait > 0.0
        assert {pool.name for pool in store.pools()} == {name, name + ":orders"}

    def test_members_are_any_text(self, store) -> None:
        """A host may be called anything."""
        for number, member in enumerate(["", "a b", "ü", "x" * 300, "a\0b"], 1):
            assert store.book("pool", order(1, member=member)).members == number
            assert store.book("pool", order(1, member=member)).members == number

    def test_threads_and_connections_book_no_unit_twice(self, open_store) -> None:
        """Eight threads on two stores take sixty units at once, and no more."""
        stores = [open_store(), open_store()]
        waits: list[float] = []

        def take(place: int) -> None:
            for number in range(1, 11):
                one = order(number, part(amount=1.0, limit=60.0), member=f"m{place}")
                waits.append(stores[place % 2].book("pool", one).wait)

        threads = [threading.Thread(target=take, args=(place,)) for place in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(waits) == 80
        assert 60 <= sum(wait == 0.0 for wait in waits) <= 65  # some refill while they run

    def test_pools_are_looked_at_without_changing_them(self, store, clock) -> None:
        """Their limits and pauses are told as they stand."""
        store.book("pool", order(1, SLOW, pause=0.0))
        clock.now += 6.0
        store.book("pool", order(2, pause=4.0))
        for _ in range(2):
            [pool] = store.pools()
            assert (pool.name, pool.pause) == ("pool", pytest.approx(4.0))
            [limit] = pool.limits
            assert (limit.dimension, limit.limit, limit.level) == ("rpm", 60.0, pytest.approx(6.0))
        clock.now += 86_500.0
        assert store.pools() == []

    def test_a_look_says_whose_number_each_limit_is(self, store, clock) -> None:
        """Stated by a user, learned from the provider (and when), or lowered by an operator; whichever counts."""

        def learn(number: int, dimension: str, limit: float, *more: Any) -> None:
            store.book("pool", order(number, part(dimension, 0.0, limit, configured=False), *more))

        def looked() -> dict[str, tuple[float, str, Any]]:
            return {each.dimension: (each.limit, each.source, each.learned) for each in store.pools()[0].limits}

        learn(1, "tpm", 9_000.0, part(amount=0.0, limit=60.0))
        clock.now += 5.0
        assert looked() == {"rpm": (60.0, "stated", None), "tpm": (9_000.0, "learned", pytest.approx(5.0))}
        learn(2, "rpm", 40.0)
        assert looked()["rpm"] == (40.0, "learned", pytest.approx(0.0))
        store.control(limits={"rpm": 10.0})
        clock.now += 1.0
        assert looked()["rpm"] == (10.0, "lowered", pytest.approx(1.0))
        store.control(limits={"rpm": None})
        learn(3, "rpm", 600.0)
        assert looked()["rpm"] == (60.0, "stated", pytest.approx(0.0))
        clock.now += 120.0
        assert looked()["rpm"] == (600.0, "learned", pytest.approx(120.0))

    def test_members_report_and_are_forgotten(self, store, clock) -> None:
        """Who has reported in the last minute is there, with what it said."""
        store.report("a", {"queued": 3, "priorities": {"high": 1}, "role": "worker"})
        clock.now += 30.0
        store.report("b", {})
        found = {member.name: member for member in store.members()}
        assert found["a"].facts == {"queued": 3, "priorities": {"high": 1}, "role": "worker"}
        assert (found["a"].seen, found["b"].seen) == (pytest.approx(30.0), pytest.approx(0.0))
        clock.now += 45.0
        assert [member.name for member in store.members()] == ["b"]
        store.report("b", {"queued": 1})
        store.leave("b")
        assert store.members() == []

    def test_who_leaves_is_not_counted(self, store) -> None:
        """A process that ends takes no share any more."""
        store.book("pool", order(1))
        assert store.book("pool", order(1, member="b")).members == 2
        store.leave("a")
        store.leave("never there")
        assert store.book("pool", order(2, member="b")).members == 1

    def test_what_operators_want_reaches_everybody(self, open_store, store, clock) -> None:
        """Each change has a new number, which comes with bookings and reports."""
        other = open_store(clock=clock)
        assert store.control() == store.report("a", {}) == Control()
        first = other.control(paused=True)
        assert store.report("a", {}) == first
        assert (first.paused, first.limits, first.cancelled) == (True, {}, ())
        answer = store.book("pool", order(1))
        assert (answer.booked, answer.wait, answer.news) == (False, 0.5, first.news)
        clock.now += 1.0
        second = store.control(paused=False, limits={"rpm": 30, "tpm": 6e3}, cancel="nightly ü")
        assert second.news > first.news
        assert (second.paused, second.limits) == (False, {"rpm": 30.0, "tpm": 6000.0})
        assert second.cancelled == (("nightly ü", pytest.approx(clock.now), second.news),)
        answer = other.book("pool", order(2))
        assert (answer.limits[0].limit, answer.news) == (30.0, second.news)
        third = other.control(limits={"rpm": None}, cancel="b")
        assert third.limits == {"tpm": 6000.0}
        assert [tag for tag, _, _ in third.cancelled] == ["b", "nightly ü"]
        assert store.control() == third

    def test_tags_that_were_cancelled_are_forgotten_and_bounded(self, store, clock) -> None:
        """A hundred of the last day."""
        for number in range(105):
            control = store.control(cancel=f"tag {number}")
        assert [tag for tag, _, _ in control.cancelled] == [f"tag {number}" for number in range(104, 4, -1)]
        clock.now += 86_401.0
        assert store.control().cancelled == ()

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"limits": {"rpm": 0}}, ValueError), ({"limits": {"rpm": -1}}, ValueError),
            ({"limits": {"rpm": float("nan")}}, ValueError), ({"limits": {"rpm": "5"}}, TypeError),
            ({"limits": {"rpm": True}}, TypeError), ({"limits": {"rpx": 5}}, ValueError),
            ({"cancel": ""}, ValueError), ({"cancel": "x" * 300}, ValueError), ({"cancel": 5}, ValueError),
        ],
    )  # fmt: skip
    def test_changes_that_cannot_be_are_refused(self, store, change, error) -> None:
        """At once, and nothing is changed."""
        with pytest.raises(error):
            store.control(paused=True, **change)
        assert store.control() == Control()

    def test_reports_that_cannot_be_are_refused(self, store) -> None:
        """Too large, or no JSON."""
        with pytest.raises(ValueError, match="65,536 is the most"):
            store.report("a", {"x": "y" * 70_000})
        with pytest.raises(TypeError):
            store.report("a", {"x": object()})

    def test_an_order_for_nothing_tells_how_things_stand(self, store) -> None:
        """No parts, no booking."""
        store.book("pool", order(1, SLOW))
        answer = store.book("pool", Order("b", 1, ()))
        assert (answer.booked, answer.wait, [each.dimension for each in answer.limits]) == (True, 0.0, ["rpm"])

    def test_closing_twice_is_closing(self, open_store) -> None:
        """And it goes on when it is used again."""
        store = open_store()
        store.book("pool", order(1))
        store.close()
        store.close()
        assert store.book("pool", order(2)).booked

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_child_of_a_fork_shares_the_limits_and_no_socket_or_lock(self, open_store) -> None:
        """Parent and child ask at the same time; both get answers to what they asked."""
        store = open_store()
        store.book("pool", order(1, SLOW))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                answers = [store.book("pool", order(number, member="child")) for number in range(1, 30)]
                store.close()
                status = 0 if all(answer.wait > 0.0 and answer.members == 2 for answer in answers) else 2
            finally:
                os._exit(status)
        answers = [store.book("pool", order(number)) for number in range(2, 31)]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert all(answer.wait > 0.0 for answer in answers)
        assert store.book("pool", order(31)).wait == pytest.approx(59.0, abs=1.0)
