"""The budget of several processes, with a pure store in the place of a server: locks, round trips, losses, orders."""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from contract import NOTHING, BudgetContract, Pool, tokens
from pure_store import PureStore
from waiting import wait_until

from ratelimited_llm.core.feedback import ANSWERED, Feedback, Kind, Outcome, Reading
from ratelimited_llm.core.limiter import Limiter
from ratelimited_llm.core.request import Usage
from ratelimited_llm.exceptions import BudgetExceeded, SharedStoreLost
from ratelimited_llm.stores import Budget
from ratelimited_llm.stores.cancel_orders import CancelOrders
from ratelimited_llm.stores.shared_budget import SharedBudget
from ratelimited_llm.stores.shared_store import Control
from ratelimited_llm.testing import VirtualClock


class Shared(Pool):
    """A pool that is shared by its name."""

    @property
    def shared_name(self) -> str:
        return self.name


class Learned(Shared):
    """One that is learned from answers."""

    def limiter(self) -> Limiter:
        return Limiter(self.limits, charge="settle", ramp=False)


class Follows(SharedBudget):
    """One whose store's clock is that of the drivers: the moments that they name."""

    def __init__(self, clock: VirtualClock, store: PureStore, **options: Any) -> None:
        super().__init__(lambda: store, clock=lambda: -math.inf, **options)
        self.store, self.virtual = store, clock

    def reserve(self, pool: Any, key: int, cost: Any, now: float, *, urgent: bool = False) -> float:
        self.virtual.now = max(self.virtual.now, now)
        return super().reserve(pool, key, cost, now, urgent=urgent)


@pytest.fixture
def make() -> Iterator[Callable[..., Follows]]:
    """Makes budgets that share one store, and closes them."""
    clock, made = VirtualClock(), []
    store = PureStore(clock)

    def new(**options: Any) -> Follows:
        made.append(Follows(clock, store, **options))
        made[-1]._upkeep._start = lambda: None  # type: ignore[method-assign]
        return made[-1]

    yield new
    for each in made:
        store.gone = False
        each.close()


class TestSharedBudget(BudgetContract):
    """It keeps every promise of a budget, for pools that are shared."""

    @pytest.fixture(autouse=True)
    def _all_pools_are_shared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Pool, "shared_name", property(lambda pool: pool.name), raising=False)

    @pytest.fixture
    def budget(self, make: Callable[..., Follows]) -> Budget:
        return make()

    def make(self) -> Budget:
        raise NotImplementedError

    def test_all_limits_are_taken_together_or_none(self, budget: Follows) -> None:
        """Of calls that have to wait, one is booked, whoever it will be."""
        pool = Shared(rpm=5, tpm=100)
        assert budget.reserve(pool, 1, tokens(100), 0.0) == 0.0
        for key in range(2, 20):
            assert budget.reserve(pool, key, tokens(50), 0.0) > 0.0
        assert budget.store.shared("pool", "rpm").level == pytest.approx(1.5), "5 - 2, with what 30 s will bring"

    def test_settling_corrects_the_charge(self, budget: Follows) -> None:
        """When there is room for one more, nobody waits for the time that was booked."""
        pool = Shared(tpm=100)
        assert budget.reserve(pool, 1, tokens(100), 0.0) == 0.0
        assert budget.reserve(pool, 2, tokens(30), 0.0) > 0.0
        budget.settle(pool, 1, Usage(10, 10), 0.0)
        budget.flush(pool, 0.0)
        assert budget.reserve(pool, 2, tokens(30), 0.0) == 0.0


class TestPoolsOfThisProcess(BudgetContract):
    """Pools that nobody else can know are kept in memory."""

    @pytest.fixture
    def budget(self, make: Callable[..., Follows]) -> Budget:
        return make()

    def make(self) -> Budget:
        raise NotImplementedError


# -- two processes ----------------------------------------------------------------------------------------------------


def test_two_processes_spend_one_limit(make):
    """What one has spent, the other has not."""
    one, two, pool = make(), make(), Shared(rpm=60)
    taken = sum(budget.reserve(pool, key, NOTHING, 0.0) == 0.0 for key in range(50) for budget in (one, two))
    assert taken == 60
    assert one.survey(pool, 0.0).standings[0].remaining == 0.0


def test_a_reservation_is_one_round_trip_however_long_it_waits(make):
    """It is booked for a moment to come, and needs no second question."""
    budget, pool = make(), Shared(rpm=60)
    for key in range(60):
        budget.reserve(pool, key, NOTHING, 0.0)
    assert budget.store.booked == 60
    wait = budget.reserve(pool, 60, NOTHING, 0.0)
    for _ in range(5):
        assert budget.reserve(pool, 60, NOTHING, 0.5 * wait) == pytest.approx(0.5 * wait)
    assert budget.reserve(pool, 60, NOTHING, wait) == 0.0
    assert budget.store.booked == 61


def test_a_booking_is_used_by_whoever_comes_first(make):
    """An urgent call that arrives before its time takes the slot of the patient one."""
    budget, pool = make(), Shared(rpm=60)
    for key in range(60):
        budget.reserve(pool, key, NOTHING, 0.0)
    wait = budget.reserve(pool, 60, NOTHING, 0.0)
    assert budget.reserve(pool, 61, NOTHING, wait, urgent=True) == 0.0
    assert budget.reserve(pool, 60, NOTHING, wait) > 0.0
    assert budget.store.booked == 62


def test_an_urgent_call_orders_for_itself_when_it_finds_only_a_patient_booking(make):
    """At most one booking of either kind is held."""
    budget, pool = make(), Shared(rpm=60)
    for key in range(60):
        budget.reserve(pool, key, NOTHING, 0.0)
    patient = budget.reserve(pool, 60, NOTHING, 0.0)
    urgent = budget.reserve(pool, 61, NOTHING, 0.0, urgent=True)
    assert (budget.store.booked, budget.store.orders[-1][1].urgent) == (62, True)
    assert budget.reserve(pool, 62, NOTHING, 0.0, urgent=True) == min(patient, urgent)
    assert budget.store.booked == 62


def test_a_larger_call_orders_the_rest_and_a_smaller_one_gives_back(make):
    """The booking of 100 tokens is taken over by a call of 150, and then one of 10 by another."""
    budget, pool = make(), Shared(tpm=6_000)
    budget.reserve(pool, 1, tokens(6_000), 0.0)
    wait = budget.reserve(pool, 2, tokens(100), 0.0)
    rest = budget.reserve(pool, 3, tokens(150), wait)
    assert (rest, budget.store.orders[-1][1].parts[0].amount) == (pytest.approx(0.5), 50.0)
    assert budget.reserve(pool, 3, tokens(150), wait + rest) == 0.0
    later = budget.reserve(pool, 4, tokens(100), wait + rest)
    assert budget.reserve(pool, 5, tokens(10), wait + rest + later) == 0.0
    budget.flush(pool, wait + rest + later)
    assert budget.store.orders[-1][1].parts[0].correction == pytest.approx(-90)


def test_a_booking_that_nobody_uses_is_given_back(make):
    """A quarter of a second after its time; the other process has it then."""
    budget, pool = make(), Shared(rpm=60)
    for key in range(60):
        budget.reserve(pool, key, NOTHING, 0.0)
    wait = budget.reserve(pool, 60, NOTHING, 0.0)
    budget.flush(pool, wait + 0.1)
    level = budget.store.shared("pool", "rpm").level
    budget.virtual.now = wait + 0.3
    budget.flush(pool, wait + 0.3)
    assert budget.store.shared("pool", "rpm").level == pytest.approx(level + 1 + wait + 0.3)


def test_limits_that_another_process_has_learned_are_known(make):
    """The second one starts with no call that goes alone, and refuses what can never fit."""
    one, two, pool = make(), make(), Learned()
    assert one.reserve(pool, 1, tokens(10), 0.0) == 0.0
    assert one.reserve(pool, 2, tokens(10), 0.0) > 0.0
    told = (Reading("rpm", 600, 599), Reading("tpm", 1_000, 990))
    one.observe(pool, 1, Feedback(ANSWERED, told), 0.5)
    one.settle(pool, 1, Usage(5, 5), 0.5)
    one.flush(pool, 0.5)
    assert [two.reserve(pool, key, tokens(10), 1.0) for key in range(5)] == [0.0] * 5
    with pytest.raises(BudgetExceeded):
        two.reserve(pool, 9, tokens(1_001), 1.0)
    assert {each.dimension: each.limit for each in two.survey(pool, 1.0).standings} == {"rpm": 600, "tpm": 1_000}


def test_what_a_fresh_process_asks_for_too_much_is_given_back(make):
    """Its first order finds out about the limit."""
    one, two, pool = make(), make(), Learned()
    one.reserve(pool, 1, tokens(10), 0.0)
    one.observe(pool, 1, Feedback(ANSWERED, (Reading("tpm", 1_000, 990),)), 0.0)
    one.flush(pool, 0.0)
    with pytest.raises(BudgetExceeded):
        two.reserve(pool, 1, tokens(5_000), 0.0)
    two.flush(pool, 0.0)
    assert two.store.shared("pool", "tpm").level > 900


def test_a_refusal_pauses_every_process(make):
    """The pause goes to the store at once, with what was measured."""
    one, two, pool = make(), make(), Shared(rpm=600)
    assert one.reserve(pool, 1, NOTHING, 0.0) == two.reserve(pool, 1, NOTHING, 0.0) == 0.0
    one.observe(pool, 1, Feedback(Outcome(Kind.LIMITED, retry_after=5.0, status=429)), 0.1)
    one.settle(pool, 1, None, 0.1, Kind.LIMITED)
    one.flush(pool, 0.1)
    assert two.reserve(pool, 2, NOTHING, 0.1) == pytest.approx(5.0, abs=0.2)
    assert one.reserve(pool, 2, NOTHING, 0.1) == pytest.approx(5.0, abs=0.2)
    assert two.reserve(pool, 2, NOTHING, 5.5) == 0.0
    assert 0.1 < two.reserve(pool, 3, NOTHING, 5.5) < 0.3, "one goes first, and the others follow"


def test_headers_lower_what_is_left_and_never_raise_it(make):
    """Somebody else has spent 500 of 600."""
    budget, pool = make(), Learned(rpm=600)
    budget.reserve(pool, 1, NOTHING, 0.0)
    budget.observe(pool, 1, Feedback(ANSWERED, (Reading("rpm", 600, 100),)), 0.0)
    budget.flush(pool, 0.0)
    level = budget.store.shared("pool", "rpm").level
    assert 95 < level <= 102
    budget.reserve(pool, 2, NOTHING, 0.0)
    budget.observe(pool, 2, Feedback(ANSWERED, (Reading("rpm", 600, 600),)), 0.0)
    budget.flush(pool, 0.0)
    assert budget.store.shared("pool", "rpm").level <= level


def test_a_share_of_the_limits_is_this_process_own(make):
    """The store hears of the whole, and this process takes no more than its part."""
    one, two = make(), make()
    pool, whole = Shared(rpm=100, share=0.3), Shared(rpm=100)
    assert sum(one.reserve(pool, key, NOTHING, 0.0) == 0.0 for key in range(100)) == 30
    assert one.store.shared("pool", "rpm").limit == 100
    assert sum(two.reserve(whole, key, NOTHING, 0.0) == 0.0 for key in range(100)) == 70


def test_an_operators_pause_holds_and_ends(make):
    """While it lasts the store is asked every half second."""
    budget, pool = make(), Shared(rpm=600)
    budget.store.control(paused=True)
    assert budget.reserve(pool, 1, NOTHING, 0.0) == 0.5
    budget.store.control(paused=False)
    assert budget.reserve(pool, 1, NOTHING, 0.5) == 0.0


# -- without the store ------------------------------------------------------------------------------------------------


def spend(budget: Any, pool: Any, keys: range, now: float) -> int:
    """How many are let in at this moment."""
    return sum(budget.reserve(pool, key, NOTHING, now) == 0.0 for key in keys)


def test_without_the_store_a_process_takes_its_part_and_begins_with_nothing(make, caplog):
    """Two members: half of 60 a minute each, and no burst. It is said once."""
    one, two, pool = make(), make(), Shared(rpm=60)
    for key, budget in enumerate((one, two, one)):
        budget.reserve(pool, 1_000 + key, NOTHING, 0.0)
    one.store.gone = True
    with caplog.at_level(logging.WARNING, "ratelimited_llm"):
        assert one.lost is False
        assert spend(one, pool, range(100), 0.0) == 0
        assert spend(one, pool, range(100, 200), 60.0) == pytest.approx(30, abs=1)
        assert one.lost is True
    lost = [each for each in caplog.records if each.event == "budget_lost"]
    assert len(lost) == 1
    assert "1/2" in lost[0].getMessage()


def test_with_no_limit_known_it_still_learns_one_call_at_a_time(make):
    """Never unlimited: the first answer's headers are divided too."""
    budget, pool = make(), Learned()
    budget.store.gone = True
    assert budget.reserve(pool, 1, NOTHING, 0.0) == 0.0
    assert budget.reserve(pool, 2, NOTHING, 0.0) > 0.0
    budget._link.members = 4
    budget.observe(pool, 1, Feedback(ANSWERED, (Reading("rpm", 600, 599),)), 0.5)
    assert budget.survey(pool, 0.5).standings[0].limit == 600


def test_a_store_that_was_never_reached_counts_as_many_as_the_user_says(make):
    """Eight processes that all start without it stay inside of the limit together; and more that were told count."""
    pool = Shared(rpm=480)
    alone, told = make(), [make(at_least=8) for _ in range(8)]
    alone.store.gone = True
    assert alone.reserve(pool, 1, NOTHING, 0.0) > 0.0
    assert alone.survey(pool, 0.0).standings[0].limit == 480
    sent = sum(
        spend(each, pool, range(1_000 * moment, 1_000 * moment + 100), moment) for moment in range(61) for each in told
    )
    assert [each.survey(pool, 60.0).standings[0].limit for each in told] == [60.0] * 8
    assert 0.9 * 480 <= sent <= 480
    told[0]._link.members = 16
    assert told[0]._link.sharers == 16


def test_raise_fails_the_calls_at_once(make):
    """And asks the store no more until a probe has found it."""
    budget, pool = make(on_lost="raise"), Shared(rpm=60)
    budget.store.gone = True
    for _ in range(3):
        with pytest.raises(SharedStoreLost):
            budget.reserve(pool, 1, NOTHING, 0.0)
    budget.store.gone = False
    budget._upkeep._probe(budget, 1.0)
    assert budget.reserve(pool, 1, NOTHING, 1.0) == 0.0


def test_when_it_is_back_nobody_gets_what_was_spent_meanwhile(make, caplog):
    """The store has forgotten everything: it hears what there can be left at most."""
    one, two, pool = make(), make(), Shared(rpm=60)
    spend(one, pool, range(30), 0.0)
    spend(two, pool, range(20), 0.0)
    one.store.gone = True
    spend(one, pool, range(100, 200), 1.0)
    one.store.gone = False
    one.store.kept.clear()
    one.virtual.now = 2.0
    one._upkeep._probe(one, 2.0)
    assert [each.event for each in caplog.records] == ["budget_lost", "budget_back"]
    one.flush(pool, 2.0)
    assert one.store.shared("pool", "rpm").level < 3
    assert spend(one, pool, range(200, 300), 2.0) < 3


def test_a_store_that_was_restarted_empty_is_told_what_there_was(make):
    """By whoever asks first: limit and level."""
    budget, pool = make(), Learned()
    budget.reserve(pool, 1, NOTHING, 0.0)
    budget.observe(pool, 1, Feedback(ANSWERED, (Reading("rpm", 60, 59),)), 0.0)
    budget.flush(pool, 0.0)
    spend(budget, pool, range(2, 90), 0.0)
    budget.store.kept.clear()
    assert spend(budget, pool, range(100, 200), 2.0) <= 5


# -- the thread -------------------------------------------------------------------------------------------------------


@pytest.fixture
def real() -> Iterator[tuple[SharedBudget, PureStore]]:
    """A budget with its thread, on the real clock."""
    store = PureStore(time.monotonic)
    budget = SharedBudget(lambda: store)
    yield budget, store
    budget.close()


def care_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "ratelimited-llm-budget"]


def test_corrections_are_told_soon_when_nobody_asks(real):
    """After 50 ms, by a thread that starts with the first reservation."""
    budget, store = real
    pool = Shared(tpm=60)
    assert not care_threads()
    budget.reserve(pool, 1, tokens(50), time.monotonic())
    budget.settle(pool, 1, Usage(5, 5), time.monotonic())
    wait_until(lambda: store.booked == 2)
    assert store.orders[1][1].parts[0].correction == -40
    assert store.reports >= 1


def test_the_end_leaves_the_store(real):
    """The thread has ended, and the store is closed; a new call begins anew."""
    budget, store = real
    pool = Shared(rpm=60, burst=1)
    budget.reserve(pool, 1, NOTHING, time.monotonic())
    assert budget.reserve(pool, 2, NOTHING, time.monotonic()) > 0.0
    for _ in range(2):
        budget.close()
    assert (store.closed, len(store.left), care_threads()) == (1, 1, [])
    assert budget.reserve(pool, 3, NOTHING, time.monotonic()) > 0.0


def test_a_forgotten_budget_leaves_no_thread_behind():
    """Nor a store that is open."""
    store, before = PureStore(time.monotonic), care_threads()
    budget = SharedBudget(lambda: store)
    budget.reserve(Shared(rpm=60), 1, NOTHING, time.monotonic())
    gone = weakref.ref(budget)
    del budget

    def is_gone():
        gc.collect()  # its thread holds it while it looks around
        return gone() is None

    wait_until(is_gone)
    wait_until(lambda: care_threads() == before)
    assert (store.closed, len(store.left)) == (1, 1)


def test_the_store_is_looked_for_again(real, caplog):
    """After half a second; then waiting calls go on."""
    budget, store = real
    pool = Shared(rpm=6_000)
    store.gone = True
    budget.reserve(pool, 1, NOTHING, time.monotonic())
    assert budget.lost
    store.gone = False
    wait_until(lambda: store.kept)
    assert not budget.lost


def test_reports_carry_facts_and_a_fault_in_them_stops_nothing(real):
    """What waits and flies is told then."""
    budget, store = real
    told: list[Any] = []
    store.report = lambda member, facts: (told.append(facts), Control())[1]  # type: ignore[method-assign]
    budget.facts_from(lambda budget: 1 / 0)
    budget.reserve(Shared(rpm=60), 1, NOTHING, time.monotonic())
    wait_until(lambda: told)
    assert told[0].keys() == {"queued", "in_flight"}


# -- orders -----------------------------------------------------------------------------------------------------------


def test_only_calls_from_before_an_order_are_cancelled():
    """By the clocks, as far as they can be right: after the last look, and before this one."""
    orders = CancelOrders(100.0, wall_clock=lambda: 5_000.0)
    assert orders.new(Control(0), 101.0) == []
    wishes = Control(1, cancelled=(("nightly", 4_999.5, 1),))
    assert orders.new(wishes, 102.0) == [("nightly", 101.5)]
    assert orders.new(wishes, 104.0) == [], "each is carried out once"
    skewed = Control(2, cancelled=(("nightly", 4_999.5, 1), ("a", 8_600.0, 2), ("b", 1_400.0, 2)))
    assert orders.new(skewed, 106.0) == [("a", 106.0), ("b", 104.0)], "a clock that is an hour off is clamped"


def test_an_order_from_before_this_process_cancels_nothing():
    """A list that is never emptied is read by every process that starts."""
    orders = CancelOrders(100.0, wall_clock=lambda: 5_000.0)
    assert orders.new(Control(1, cancelled=(("nightly", 4_000.0, 1),)), 101.0) == [("nightly", 100.0)]
