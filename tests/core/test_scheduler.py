"""Who is next: priorities, turns, ageing, and calls that leave the queue in other ways than by being sent."""

from __future__ import annotations

import gc
import math
import weakref
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimited_llm.core import scheduler as scheduling
from ratelimited_llm.core.request import Cost, QueuedRequest, State
from ratelimited_llm.core.scheduler import Candidate, Scheduler, Wait


class Numbers:
    """Makes calls with rising numbers."""

    def __init__(self) -> None:
        self.last = -1

    def __call__(self, pool: str = "p", cost: int = 0, **options: Any) -> QueuedRequest:
        self.last += 1
        return QueuedRequest(self.last, pool, Cost(cost, cost, cost, 0), **options)


@pytest.fixture
def make() -> Numbers:
    return Numbers()


def sent(scheduler: Scheduler, now: float = 0.0, most: float = math.inf) -> list[int]:
    """Send everything that the scheduler offers, in its order."""
    order: list[int] = []
    while len(order) < most and isinstance(found := scheduler.next(now), Candidate):
        scheduler.started(found.request)
        order.append(found.request.sequence)
    return order


def test_equals_go_in_the_order_they_came(make: Numbers) -> None:
    """First in, first out inside a priority and a tenant."""
    scheduler = Scheduler()
    for _ in range(100):
        scheduler.add(make())
    assert sent(scheduler) == list(range(100))
    assert len(scheduler) == 0


def test_a_lower_number_goes_first(make: Numbers) -> None:
    """Priorities 8, 5, 1, 0 and 10 go as 0, 1, 5, 8, 10."""
    scheduler = Scheduler()
    for priority in (8, 5, 1, 0, 10):
        scheduler.add(make(priority=priority))
    assert sent(scheduler) == [3, 2, 1, 0, 4]


def test_tenants_take_turns(make: Numbers) -> None:
    """One that floods waits for its turns like the others."""
    scheduler = Scheduler()
    for _ in range(6):
        scheduler.add(make(tenant="flood"))
    for _ in range(2):
        scheduler.add(make(tenant="a"))
        scheduler.add(make(tenant="b"))
    assert sent(scheduler) == [0, 6, 7, 1, 8, 9, 2, 3, 4, 5]


def test_turns_are_weighed_by_cost(make: Numbers) -> None:
    """A tenant whose calls cost ten times as much gets a tenth as many."""
    scheduler = Scheduler()
    for _ in range(100):
        scheduler.add(make(tenant="big", cost=999))
        scheduler.add(make(tenant="small", cost=99))
    owner = [("big", "small")[number % 2] for number in sent(scheduler, most=55)]
    assert 4 <= Counter(owner)["big"] <= 6


def test_twice_the_weight_gets_twice_the_turns(make: Numbers) -> None:
    """Weights are shares."""
    scheduler = Scheduler(weights={"gold": 2.0})
    for _ in range(100):
        scheduler.add(make(tenant="gold"))
        scheduler.add(make(tenant="plain"))
    served = Counter("gold" if number % 2 == 0 else "plain" for number in sent(scheduler, most=90))
    assert served == {"gold": 60, "plain": 30}


def jain(shares: list[float]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32))
def test_ten_tenants_one_flooding_share_alike(seed: int) -> None:
    """Whatever each tenant's calls cost, Jain's index of what they were served is at least 0.99."""
    random = Random(seed)
    scheduler, numbers = Scheduler(), Numbers()
    calls: dict[int, tuple[int, int]] = {}
    for tenant in range(10):
        typical = random.randint(10, 1_000)
        for _ in range(10_000 if tenant == 0 else 200_000 // typical):
            request = numbers(tenant=str(tenant), cost=random.randint(typical // 2, typical))
            calls[request.sequence] = (tenant, request.cost.expected + 1)
            scheduler.add(request)
    served = [0.0] * 10
    while sum(served) < 10 * 50_000:  # a quarter of what the others have, so nobody runs out
        for number in sent(scheduler, most=1):
            tenant, cost = calls[number]
            served[tenant] += cost
    assert jain(served) >= 0.99


def test_who_was_away_gets_no_credit(make: Numbers) -> None:
    """A tenant that comes late starts level with the others, not with all that it might have had."""
    scheduler = Scheduler()
    for _ in range(50):
        scheduler.add(make(tenant="early"))
    sent(scheduler, most=40)
    late = [make(tenant="late") for _ in range(10)]
    for request in late:
        scheduler.add(request)
    numbers = {request.sequence for request in late}
    turns = [number in numbers for number in sent(scheduler)]
    assert 4 <= sum(turns[:10]) <= 6


def test_many_tenants_that_come_once_cost_no_more_each(make: Numbers) -> None:
    """Ten thousand tenants with a call each are served without looking at all of them each time."""
    scheduler = Scheduler()
    for number in range(10_000):
        scheduler.add(make(tenant=str(number)))
    assert sent(scheduler) == list(range(10_000))  # quadratic work would take longer than the suite's timeout


def test_low_calls_wait_as_long_as_there_are_better_ones_without_ageing(make: Numbers) -> None:
    """Priority is strict unless ageing is asked for."""
    scheduler = Scheduler()
    scheduler.add(make(priority=10))
    for moment in range(100):
        scheduler.add(make(priority=5, submitted_at=float(moment)))
        assert sent(scheduler, now=float(moment), most=1) == [moment + 1]


def test_ageing_starves_nobody(make: Numbers) -> None:
    """A call of the lowest priority goes after ten times `ageing` seconds, whatever HIGH calls keep coming."""
    scheduler = Scheduler(ageing=2.0)
    scheduler.add(make(priority=10, submitted_at=0.0))
    gone = []
    for moment in range(40):
        scheduler.add(make(priority=1, submitted_at=float(moment)))
        gone += sent(scheduler, now=float(moment), most=1)
    assert gone.index(0) <= 9 * 2 + 1


def test_ageing_never_passes_critical_calls(make: Numbers) -> None:
    """However old, a call does not go before one of priority 0."""
    scheduler = Scheduler(ageing=0.001)
    scheduler.add(make(priority=10, submitted_at=0.0))
    scheduler.add(make(priority=0, submitted_at=1e6))
    assert sent(scheduler, now=1e6) == [1, 0]


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_ageing_and_weights_that_make_no_sense_are_refused(value: float) -> None:
    """Zero, negative and infinite are errors at once, by name."""
    with pytest.raises(ValueError, match="ageing"):
        Scheduler(ageing=value)
    with pytest.raises(ValueError, match="weight of 'a'"):
        Scheduler(weights={"a": value})


def test_a_pool_that_waits_holds_up_nobody_else(make: Numbers) -> None:
    """While one pool's best call waits for budget, other pools go on."""
    scheduler = Scheduler()
    scheduler.add(make("slow"))
    scheduler.add(make("slow"))
    scheduler.add(make("fast"))
    found = scheduler.next(0.0)
    assert isinstance(found, Candidate)
    scheduler.deferred(found.request, 10.0)
    assert sent(scheduler) == [2]
    assert scheduler.next(0.0) == Wait(10.0)
    assert sent(scheduler, now=10.0) == [0, 1]


def test_a_big_call_is_not_overtaken_by_its_equals(make: Numbers) -> None:
    """What waits for budget holds its turn: smaller calls behind it wait too."""
    scheduler = Scheduler()
    scheduler.add(make(cost=10_000))
    scheduler.deferred(scheduler.next(0.0).request, 5.0)  # type: ignore[union-attr]
    for _ in range(10):
        scheduler.add(make(cost=1))
        assert scheduler.next(1.0) == Wait(5.0)
    assert sent(scheduler, now=5.0) == list(range(11))


def test_a_better_call_is_looked_at_while_its_pool_waits(make: Numbers) -> None:
    """A higher priority that arrives is asked about at once."""
    scheduler = Scheduler()
    scheduler.add(make(cost=10_000))
    scheduler.deferred(scheduler.next(0.0).request, 5.0)  # type: ignore[union-attr]
    scheduler.add(make(priority=8))
    assert scheduler.next(1.0) == Wait(5.0)
    scheduler.add(make(priority=1))
    assert sent(scheduler, now=1.0, most=1) == [2]


def test_a_release_is_looked_at_at_once(make: Numbers) -> None:
    """When something about a pool changes, its best call is a candidate again."""
    scheduler = Scheduler()
    scheduler.add(make())
    scheduler.deferred(scheduler.next(0.0).request, math.inf)  # type: ignore[union-attr]
    assert scheduler.next(0.0) == Wait(math.inf)
    scheduler.release("p")
    scheduler.release("unknown")
    assert sent(scheduler) == [0]


def test_a_call_that_was_put_back_goes_before_the_others_when_it_has_rested(make: Numbers) -> None:
    """It keeps its place; while it rests, the others go on."""
    scheduler = Scheduler()
    first = make()
    scheduler.add(first)
    sent(scheduler)
    for _ in range(2):
        scheduler.add(make())
    scheduler.put_back(first, 1.0)
    assert sent(scheduler, now=0.5, most=1) == [1]
    assert scheduler.next(0.5) != Wait(1.0)
    assert sent(scheduler, now=1.0) == [0, 2]


def test_the_moment_to_come_back_is_the_earliest(make: Numbers) -> None:
    """Of a rest, a deadline and a wait for budget."""
    scheduler = Scheduler()
    rested = make()
    scheduler.add(rested)
    sent(scheduler)
    scheduler.put_back(rested, 7.0)
    assert scheduler.next(0.0) == Wait(7.0)
    scheduler.add(make("other", expires_at=5.0))
    scheduler.deferred(scheduler.next(0.0).request, 9.0)  # type: ignore[union-attr]
    assert scheduler.next(0.0) == Wait(5.0)


def test_nested_calls_go_before_their_equals(make: Numbers) -> None:
    """`first` puts a call before the waiting ones of its priority, behind other such calls."""
    scheduler = Scheduler()
    for _ in range(2):
        scheduler.add(make())
    scheduler.add(make(), first=True)
    scheduler.add(make(), first=True)
    scheduler.add(make(priority=1))
    assert sent(scheduler) == [4, 2, 3, 0, 1]


def test_dropping_counts_once_wherever_the_call_is(make: Numbers) -> None:
    """The length is true after drops of new, waiting, sent and dropped calls."""
    scheduler = Scheduler()
    new, waiting, gone = make(), make(), make()
    scheduler.add(gone)
    sent(scheduler)
    scheduler.add(waiting)
    assert scheduler.drop(new)
    scheduler.add(new)
    assert len(scheduler) == 1
    assert not scheduler.drop(gone)
    assert scheduler.drop(waiting)
    assert not scheduler.drop(waiting)
    assert len(scheduler) == 0
    assert list(scheduler) == []
    assert scheduler.next(0.0) == Wait(math.inf)


def test_expired_calls_are_taken_out_once(make: Numbers) -> None:
    """Those whose moment has come, resting ones included, and no others."""
    scheduler = Scheduler()
    resting = make(expires_at=2.0)
    scheduler.add(resting)
    sent(scheduler)
    scheduler.put_back(resting, 100.0)
    for moment in (3.0, 1.0, None):
        scheduler.add(make(expires_at=moment))
    assert [request.sequence for request in scheduler.expired(2.0)] == [2, 0]
    assert scheduler.expired(2.0) == []
    assert len(scheduler) == 2
    assert resting.state is State.FAILED


def test_drop_all_answers_in_the_order_of_submission(make: Numbers) -> None:
    """Whatever pool or priority they are in."""
    scheduler = Scheduler()
    for number in range(12):
        scheduler.add(make(f"p{number % 3}", priority=number % 2))
    dropped = scheduler.drop_all(lambda request: request.sequence % 4 != 0)
    assert [request.sequence for request in dropped] == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    assert sorted(sent(scheduler)) == [0, 4, 8]


class _Bodied(QueuedRequest):
    """A call that can be watched."""

    __slots__ = ("__weakref__",)


def test_ended_calls_are_not_kept_until_their_turn_or_deadline(make: Numbers) -> None:
    """Of calls that were dropped, or sent long before their deadline, no more are kept than wait."""
    scheduler = Scheduler()
    kept = [_Bodied(number, "p", Cost(), expires_at=1e9) for number in range(10)]
    watched = weakref.WeakSet(_Bodied(number, "p", Cost(), expires_at=1e9) for number in range(0))
    for request in kept:
        scheduler.add(request)
    for number in range(10, 2_000):
        request = _Bodied(number, "p", Cost(), expires_at=1e9)
        watched.add(request)
        scheduler.add(request)
        scheduler.drop(request)
        del request
    gc.collect()
    assert len(watched) <= 200
    for number in range(2_000, 4_000):
        request = _Bodied(number, "q", Cost(), priority=0, expires_at=1e9)
        watched.add(request)
        scheduler.add(request)
        assert sent(scheduler, most=1) == [number]
        del request
    gc.collect()
    assert len(watched) <= 400


def test_who_is_next_is_asked_of_the_pools_that_changed_only(make: Numbers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 500 pools, half of which wait, each send looks at the one that it came from."""
    looks = 0
    best = scheduling._Pool.best

    def counted(*args: Any) -> QueuedRequest | None:
        nonlocal looks
        looks += 1
        return best(*args)

    monkeypatch.setattr(scheduling._Pool, "best", counted)
    scheduler = Scheduler()
    for number in range(1_000):
        scheduler.add(make(str(number % 500)))
    for _ in range(250):
        found = scheduler.next(0.0)
        assert isinstance(found, Candidate)
        scheduler.deferred(found.request, 60.0)
    looks = 0
    assert len(sent(scheduler, most=400)) == 400
    assert looks <= 2 * 400
    looks = 0
    assert len(sent(scheduler, now=60.0)) == 600
    assert looks <= 2 * 600 + 500


ACTIONS = ["add", "add", "add", "next", "next", "defer", "back", "end", "drop", "expire"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_traffic_leaves_the_queue_exactly_once(data: st.DataObject) -> None:
    """Over random adds, sends, deferrals, put-backs, drops and expiries: order, counts and ends are right."""
    scheduler = Scheduler(ageing=data.draw(st.sampled_from([None, None, 3.0])))
    make, now = Numbers(), 0.0
    waiting: dict[int, QueuedRequest] = {}
    flying: dict[int, QueuedRequest] = {}
    ended: list[int] = []
    for _ in range(data.draw(st.integers(1, 60))):
        now += data.draw(st.sampled_from([0.0, 0.5, 2.0]))
        action = data.draw(st.sampled_from(ACTIONS))
        if action == "add":
            request = make(
                data.draw(st.sampled_from("pq")), data.draw(st.sampled_from([0, 50])),
                priority=data.draw(st.sampled_from([0, 1, 5, 10])), tenant=data.draw(st.sampled_from("ab")),
                submitted_at=now, expires_at=data.draw(st.sampled_from([None, now + 3.0])),
            )  # fmt: skip
            scheduler.add(request, first=data.draw(st.booleans()))
            waiting[request.sequence] = request
        elif action in ("next", "defer"):
            found = scheduler.next(now)
            if isinstance(found, Wait):
                assert found.until > now or any((r.expires_at or math.inf) <= now for r in waiting.values())
            elif action == "defer":
                scheduler.deferred(found.request, now + 1.0)
            else:
                scheduler.started(found.request)
                flying[found.request.sequence] = waiting.pop(found.request.sequence)
        elif action == "back" and flying:
            number = data.draw(st.sampled_from(sorted(flying)))
            scheduler.put_back(flying[number], now + data.draw(st.sampled_from([0.0, 1.0])))
            waiting[number] = flying.pop(number)
        elif action == "end" and flying:
            number = data.draw(st.sampled_from(sorted(flying)))
            flying.pop(number).move(State.DONE)
            ended.append(number)
        elif action == "drop" and waiting:
            number = data.draw(st.sampled_from(sorted(waiting)))
            assert scheduler.drop(waiting.pop(number))
            ended.append(number)
        elif action == "expire":
            for request in scheduler.expired(now):
                assert request.expires_at is not None
                assert request.expires_at <= now
                del waiting[request.sequence]
                ended.append(request.sequence)
        assert len(scheduler) == len(waiting)
        assert {request.sequence for request in scheduler} == set(waiting)
    while waiting:  # time passes: everything that is left goes
        now += 1.0
        for request in scheduler.expired(now):
            ended.append(waiting.pop(request.sequence).sequence)
        for number in sent(scheduler, now):
            ended.append(waiting.pop(number).sequence)
    ended += list(flying)
    assert sorted(ended) == list(range(make.last + 1))
