"""Scheduler, budget and retries as one machine; whole runs in virtual time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimited_llm.core.dispatcher import Dispatcher, Impossible, Send, Wait
from ratelimited_llm.core.feedback import ANSWERED, Feedback, Kind, Outcome
from ratelimited_llm.core.limiter import Limiter, Standing
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.core.queue_caps import QueueCaps
from ratelimited_llm.core.request import Cost, Lane, Priority, QueuedRequest, State, Usage
from ratelimited_llm.core.retry import RetryBudget, RetryPolicy
from ratelimited_llm.core.scheduler import Scheduler
from ratelimited_llm.exceptions import BudgetExceeded
from ratelimited_llm.stores.memory import MemoryBudget
from ratelimited_llm.testing import Call, call, simulate


class Pool:
    """Limits that are the test's own."""

    def __init__(self, **limits: Any) -> None:
        self.limits = RateLimits(**limits)

    def limiter(self) -> Limiter:
        return Limiter(self.limits, charge="settle", learn=False, ramp=False)


class LanedRequest(QueuedRequest):
    """A call that goes out through something narrow."""

    lane: Lane | None

    __slots__ = ("lane",)


def machine_of(**options: Any) -> Dispatcher:
    return Dispatcher(Scheduler(), MemoryBudget(), **options)


def send_all(machine: Dispatcher, now: float = 0.0) -> list[QueuedRequest]:
    """Everything that may go now."""
    gone = []
    while isinstance(found := machine.next(now), Send):
        gone.append(found.request)
    return gone


def test_a_call_that_can_never_fit_fails_and_lets_the_others_go() -> None:
    """It comes out as Impossible, with the numbers and its own."""
    machine, pool = machine_of(), Pool(tpm=100)
    big, small = QueuedRequest(1, pool, Cost(101, 101, 101, 0)), QueuedRequest(2, pool, Cost(100, 100, 100, 0))
    machine.submit(big)
    machine.submit(small)
    found = machine.next(0.0)
    assert isinstance(found, Impossible)
    assert isinstance(found.error, BudgetExceeded)
    assert found.error.request_id == 1
    assert big.state is State.FAILED
    assert send_all(machine) == [small]


def test_a_store_that_fails_costs_the_call_and_not_the_queue() -> None:
    """The error of a broken budget is the error of the call that met it."""

    class Broken(MemoryBudget):
        def reserve(self, pool: Any, key: int, cost: Cost, now: float, *, urgent: bool = False) -> float:
            if key == 1:
                raise OSError("the disk is full")
            return super().reserve(pool, key, cost, now, urgent=urgent)

    machine, pool = Dispatcher(Scheduler(), Broken()), Pool()
    for number in (1, 2):
        machine.submit(QueuedRequest(number, pool, Cost()))
    found = machine.next(0.0)
    assert isinstance(found, Impossible)
    assert isinstance(found.error, OSError)
    assert [request.sequence for request in send_all(machine)] == [2]


def test_at_once_serves_only_when_nobody_waits() -> None:
    """A call that needs no queue reserves like any other, and never overtakes."""
    machine, pool = machine_of(), Pool(max_concurrency=1)
    first, second, third = (QueuedRequest(number, pool, Cost()) for number in range(3))
    assert machine.at_once(first, 0.0)
    assert first.state is State.SENDING
    assert not machine.at_once(second, 0.0)
    assert second.state is State.NEW
    machine.submit(second)
    machine.finished(first, None, 1.0)
    assert not machine.at_once(third, 1.0)
    assert send_all(machine, 1.0) == [second]


def test_unsent_gives_everything_back_however_often_it_is_said() -> None:
    """A call whose caller has left frees its place and its lane, once."""
    machine, pool, lane = machine_of(), Pool(max_concurrency=1, rpm=1, burst=1), Lane(1)
    request = LanedRequest(1, pool, Cost())
    request.lane = lane
    machine.submit(request)
    assert send_all(machine) == [request]
    machine.unsent(request, 0.0)
    machine.unsent(request, 0.0)
    assert request.state is State.CANCELLED
    assert lane.in_flight == 0
    another = LanedRequest(2, pool, Cost())
    another.lane = lane
    machine.submit(another)
    assert send_all(machine) == [another]


def test_a_full_lane_holds_back_its_calls_until_one_ends() -> None:
    """No more go out through an HTTP client than it carries, whatever the limits allow."""
    machine, pool, lane = machine_of(), Pool(), Lane(2)
    requests = [LanedRequest(number, pool, Cost()) for number in range(4)]
    for request in requests:
        request.lane = lane
        machine.submit(request)
    assert send_all(machine) == requests[:2]
    machine.finished(requests[0], None, 1.0)
    assert send_all(machine, 1.0) == requests[2:3]
    assert lane.in_flight == 2


def test_a_refused_call_keeps_its_place_and_uses_no_attempt() -> None:
    """It goes first when the wait is over, and has failed never."""
    machine, pool = machine_of(), Pool(rpm=600)
    requests = [QueuedRequest(number, pool, Cost()) for number in range(3)]
    machine.submit(requests[0])
    send_all(machine)
    for request in requests[1:]:
        machine.submit(request)
    refused = Feedback(Outcome(Kind.LIMITED, retry_after=2.0, status=429))
    assert machine.failed(requests[0], refused, 0.0, RetryPolicy(max_retries=0), 0.5)
    found = machine.next(0.0)
    assert isinstance(found, Wait)
    assert found.until >= 2.0
    later = found.until
    while isinstance(found := machine.next(later), Wait):
        later = found.until
    assert isinstance(found, Send)
    assert found.request is requests[0]
    assert (requests[0].attempts, requests[0].refusals) == (0, 1)


def test_a_failure_is_tried_again_and_then_given_up() -> None:
    """With one retry there are two attempts, and the second failure is final."""
    machine, pool, policy = machine_of(), Pool(), RetryPolicy(max_retries=1)
    request = QueuedRequest(1, pool, Cost())
    machine.submit(request)
    dropped = Feedback(Outcome(Kind.DROPPED))
    send_all(machine)
    assert machine.failed(request, dropped, 0.0, policy, 0.5)
    assert machine.next(0.0) == Wait(0.25)
    assert send_all(machine, 0.25) == [request]
    assert not machine.failed(request, dropped, 0.25, policy, 0.5)
    assert request.state is State.FAILED


def test_without_retry_budget_nothing_is_tried_again() -> None:
    """The bound that all calls share comes before each call's own."""
    machine, pool = machine_of(retries=RetryBudget(reserve=0.0)), Pool()
    request = QueuedRequest(1, pool, Cost())
    machine.submit(request)
    send_all(machine)
    assert not machine.failed(request, Feedback(Outcome(Kind.DROPPED)), 0.0, RetryPolicy(), 0.5)


def test_an_open_stream_keeps_its_place_until_it_ends() -> None:
    """Its place is free when it is finished, not when its headers are there."""
    machine, pool = machine_of(), Pool(max_concurrency=1)
    first, second = (QueuedRequest(number, pool, Cost()) for number in range(2))
    machine.submit(first)
    machine.submit(second)
    send_all(machine)
    machine.answered(first, Feedback(ANSWERED), 1.0)
    machine.streaming(first)
    assert send_all(machine, 1.0) == []
    machine.finished(first, Usage(1, 1), 2.0)
    assert send_all(machine, 2.0) == [second]


# -- whole runs in virtual time


def test_calls_keep_the_interval() -> None:
    """At 60 rpm without burst, three calls start one second apart."""
    run = simulate(RateLimits(rpm=60, burst=1), [call(at=0.0)] * 3)
    assert run.started_at == [0.0, 1.0, 2.0]


def test_a_big_call_is_not_overtaken_for_ever_while_others_keep_their_turns() -> None:
    """A stream of small calls does not starve one that needs the whole budget, nor does that stop other pools."""
    small = [call(at=0.5 * number, prompt=90, output=10, tenant="small") for number in range(400)]
    big = call(at=10.0, prompt=9_000, output=900, tenant="big")
    other = [call(at=0.5 * number, prompt=10, output=10, pool="other") for number in range(400)]
    limits = RateLimits(tpm=10_000)
    run = simulate(limits, [big, *small, *other], learn=False, ramp=False, charge="reserve", latency=0.1)
    assert run.answered == 801
    assert run.started_at[0] - 10.0 <= 61.0
    waits = [start - given.at for start, given in zip(run.started_at[401:], other, strict=True)]
    assert max(waits) <= 0.2


def test_one_flooding_tenant_costs_the_others_nothing() -> None:
    """Ten tenants, one with a hundred times the calls: Jain's index of the shares is at least 0.99."""
    calls = [call(tenant="flood") for _ in range(3_000)]
    calls += [call(tenant=str(number)) for number in range(9) for _ in range(60)]
    run = simulate(RateLimits(rpm=60, burst=1), calls, learn=False, ramp=False, until=590.0)
    shares = dict.fromkeys([each.tenant for each in calls], 0.0)
    for _, index in run.sends:
        shares[calls[index].tenant] += 1.0
    total = list(shares.values())
    assert sum(total) ** 2 / (len(total) * sum(share * share for share in total)) >= 0.99


def test_a_high_call_behind_a_saturated_backlog_goes_soon() -> None:
    """At 120 rpm and with hundreds of low calls waiting, HIGH calls go in half a second at the worst."""
    low = [call(priority="low") for _ in range(600)]
    high = [call(at=70.0 + 7.3 * number, priority="high") for number in range(20)]
    run = simulate(RateLimits(rpm=120), low + high, learn=False, ramp=False)
    waits = sorted(start - given.at for start, given in zip(run.started_at[600:], high, strict=True))
    assert waits[-1] <= 0.5
    assert waits[10] <= 0.05


def traffic(random: Random) -> list[Call]:
    """Calls of all kinds."""
    calls = []
    for _ in range(random.randint(1, 60)):
        at = random.choice([0.0, random.uniform(0.0, 30.0)])
        calls.append(
            call(
                at=at,
                prompt=random.choice([1, 100, 900]),
                output=random.choice([0, 50]),
                priority=random.choice(list(Priority)),
                tenant=random.choice("abc"),
                pool=random.choice(["p", "p", "q"]),
                deadline=random.choice([None, None, random.uniform(0.1, 40.0)]),
                cancel_at=random.choice([None, None, None, at + random.uniform(0.0, 30.0)]),
            )
        )
    return calls


def faults_of(random: Random) -> Any:
    """Trouble at the provider: refusals, overload, broken connections, final errors."""
    share = random.choice([0.0, 0.1, 0.5])
    kinds = [Kind.LIMITED, Kind.OVERLOADED, Kind.DROPPED, Kind.REJECTED, Kind.EXHAUSTED]

    def fault(now: float, request: QueuedRequest, chance: float) -> Outcome | None:
        if chance >= share:
            return None
        return Outcome(kinds[int(chance / share * len(kinds))], retry_after=2.0, status=429)

    return fault


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_over_random_traffic_every_call_ends_once_and_nobody_starves(seed: int) -> None:
    """Whatever comes, goes wrong or is cancelled: all calls end, in order, inside their deadlines and the limits."""
    random = Random(seed)
    calls, rpm = traffic(random), random.choice([20, 60, 600])
    limits = RateLimits(rpm=rpm, tpm=random.choice([None, 2_000, 20_000]), max_concurrency=random.choice([None, 1, 3]))
    ageing = random.choice([None, 5.0])
    run = simulate(
        limits, calls, learn=False, ramp=False, seed=seed, scheduler=Scheduler(ageing=ageing), faults=faults_of(random)
    )
    assert run.lost == 0
    assert set(run.states) <= {State.DONE, State.FAILED, State.CANCELLED}
    for given_, state, started in zip(calls, run.states, run.started_at, strict=True):
        if not math.isnan(started):
            assert started >= given_.at
            assert given_.deadline is None or started <= given_.at + given_.deadline + 1e-6
        else:
            assert state is not State.DONE
    for pool in "pq":
        sends = [moment for moment, index in run.sends if calls[index].pool == pool]
        for first in range(len(sends) - rpm - 1):
            # A whole burst and what refills in the meantime, and not one call more.
            extra = len([moment for moment in sends[first:] if moment < sends[first] + 60.0])
            assert extra <= 2 * rpm + 1
    assert not _out_of_order(calls, run.sends)


def _out_of_order(calls: list[Call], sends: Iterable[tuple[float, int]]) -> list[tuple[int, int]]:
    """Pairs of equal calls of which the later one was sent first; only first sends count."""
    first: dict[int, int] = {}
    for place, (_, index) in enumerate(sends):
        first.setdefault(index, place)
    wrong = []
    for one in first:
        for two in first:
            a, b = calls[one], calls[two]
            equal = (a.pool, a.tenant, a.priority) == (b.pool, b.tenant, b.priority)
            if equal and (a.at, one) < (b.at, two) and first[one] > first[two]:
                wrong.append((one, two))
    return wrong


def test_calls_that_the_caps_refuse_are_not_queued() -> None:
    """With a cap of two a third call is not taken in; after one has left there is room."""
    calls = [call(at=0.0), call(at=0.0), call(at=0.0), call(at=0.0), call(at=1.5)]
    run = simulate(RateLimits(rpm=60, burst=1), calls, learn=False, ramp=False, bounds=QueueCaps(max_queue=2))
    assert [not math.isnan(moment) for moment in run.started_at] == [True, True, False, False, True]


@pytest.mark.parametrize("pool", ["p"])
def test_the_standings_of_a_pool_come_from_its_budget(pool: str) -> None:
    """What is left of a limit can be looked at without spending it."""
    machine, own = machine_of(), Pool(rpm=60)
    machine.submit(QueuedRequest(1, own, Cost()))
    send_all(machine)
    (standing,) = machine.budget.survey(own, 0.0).standings
    assert isinstance(standing, Standing)
    assert (standing.dimension, standing.limit) == ("rpm", 60)
    assert standing.remaining <= 59.0
