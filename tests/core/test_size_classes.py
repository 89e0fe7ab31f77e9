"""Size classes: turns of small, medium and large calls, and that nobody starves by them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimited_llm import RateLimitedExecutor, RateLimits
from ratelimited_llm.core.request import Cost, QueuedRequest, State
from ratelimited_llm.core.scheduler import SPARE, Candidate, Scheduler, Wait
from ratelimited_llm.core.size_classes import SizeClasses
from ratelimited_llm.shared_workers import QueueSettings, worker_for
from ratelimited_llm.testing import call, simulate

USUAL = SizeClasses()
SMALL, MEDIUM, LARGE = 1_000, 20_000, 100_000
LETTERS = {SMALL: "s", MEDIUM: "m", LARGE: "l"}
CASES = settings(max_examples=60, derandomize=True, deadline=None)


def request(number: int, tokens: int, **options: Any) -> QueuedRequest:
    return QueuedRequest(number, "p", Cost(tokens, tokens, tokens, 0), **options)


def filled(*tokens: int, sizes: SizeClasses = USUAL) -> Scheduler:
    """A scheduler with one call of each amount."""
    scheduler = Scheduler(sizes=sizes)
    for number, amount in enumerate(tokens):
        scheduler.add(request(number, amount))
    return scheduler


def sent(scheduler: Scheduler, most: int = 10_000) -> list[QueuedRequest]:
    """Send everything that the scheduler offers, in its order."""
    order: list[QueuedRequest] = []
    while len(order) < most and isinstance(found := scheduler.next(0.0), Candidate):
        scheduler.started(found.request)
        order.append(found.request)
    return order


def letters(requests: list[QueuedRequest]) -> str:
    return "".join(LETTERS[each.cost.expected] for each in requests)


# -- the classes


@pytest.mark.parametrize(
    ("tokens", "expected"), [(0, 0), (14_999, 0), (15_000, 1), (75_000, 1), (75_001, 2), (10_000_000, 2)]
)
def test_small_is_below_the_first_bound_and_large_above_the_last(tokens: int, expected: int) -> None:
    """Fewer than 15,000 tokens, up to 75,000, and more."""
    assert USUAL.of(Cost(expected=tokens)) == expected


def test_there_may_be_two_classes_or_five() -> None:
    """One more class than bounds."""
    assert [SizeClasses((100,), (1, 1)).of(Cost(expected=each)) for each in (99, 100, 101)] == [0, 0, 1]
    five = SizeClasses((10, 20, 30, 40), (5, 4, 3, 2, 1))
    assert [five.of(Cost(expected=each)) for each in (9, 10, 20, 39, 40, 41)] == [0, 1, 2, 3, 3, 4]


@pytest.mark.parametrize(
    ("bounds", "weights"),
    [((), (1,)), ((0,), (1, 1)), ((5, 5), (1, 1, 1)), ((9, 5), (1, 1, 1)), ((5,), (1,)), ((5,), (1, 0)),
     ((5,), (1, 1.5)), ((5,), (True, 1)), ((float("nan"),), (1, 1)), ((float("inf"),), (1, 1)), (("a",), (1, 1))],
)  # fmt: skip
def test_classes_that_make_no_sense_are_refused(bounds: Any, weights: Any) -> None:
    """At once, and with what is wrong."""
    with pytest.raises(ValueError, match=r"bounds|weights|weight"):
        SizeClasses(bounds, weights)


def test_they_are_a_value() -> None:
    """Comparable, hashable (clients with equal ones share a queue), and read from True."""
    assert SizeClasses([10], [2, 1]) == SizeClasses((10,), (2, 1))  # type: ignore[arg-type]
    assert hash(USUAL) == hash(SizeClasses())
    assert (SizeClasses.read(True), SizeClasses.read(None), SizeClasses.read(False)) == (USUAL, None, None)
    with pytest.raises(TypeError, match="size_classes"):
        SizeClasses.read((3, 2, 1))
    with pytest.raises(TypeError, match="bounds"):
        SizeClasses(5)  # type: ignore[arg-type]


# -- the turns


def test_a_cycle_is_three_small_two_medium_one_large() -> None:
    """When there are enough of each."""
    scheduler = filled(*[LARGE] * 4, *[MEDIUM] * 8, *[SMALL] * 12)
    assert letters(sent(scheduler)) == "sssmml" * 4


def test_an_empty_class_costs_no_turn() -> None:
    """What is left shares all turns."""
    assert letters(sent(filled(*[LARGE] * 3, *[SMALL] * 5))) == "ssslssll"
    assert letters(sent(filled(*[LARGE] * 3))) == "lll"
    assert letters(sent(filled(*[MEDIUM] * 4, LARGE))) == "mmlmm"


def test_a_class_that_was_away_gets_no_credit() -> None:
    """Small calls that come late begin with their three turns, and no more."""
    scheduler = filled(*[LARGE] * 6)
    assert letters(sent(scheduler, 3)) == "lll"
    for number in range(6, 14):
        scheduler.add(request(number, SMALL))
    assert letters(sent(scheduler)) == "ssslssslssl"


def test_a_large_call_that_waits_for_budget_keeps_its_turn_but_not_for_ever() -> None:
    """Others of its pool wait with it; a better priority does not; and once it is dropped, the cycle goes on."""
    scheduler = filled(LARGE, SMALL)
    first = sent(scheduler, 1)
    assert letters(first) == "s"
    found = scheduler.next(0.0)
    assert isinstance(found, Candidate)
    scheduler.deferred(found.request, 30.0)
    scheduler.add(request(2, SMALL))
    assert scheduler.next(1.0) == Wait(30.0) or scheduler.next(1.0) == Candidate(found.request)
    scheduler.add(request(3, SMALL, priority=1))
    urgent = scheduler.next(1.0)
    assert isinstance(urgent, Candidate)
    assert urgent.request.sequence == 3
    scheduler.started(urgent.request)
    scheduler.drop(found.request)
    assert [each.sequence for each in sent(scheduler)] == [2]


def test_a_call_that_was_put_back_goes_before_every_class() -> None:
    """It has had its turn: it takes nobody's."""
    scheduler = filled(*[SMALL] * 4, LARGE)
    first = sent(scheduler, 1)[0]
    scheduler.put_back(first, 0.0)
    assert [each.sequence for each in sent(scheduler)] == [0, 1, 2, 4, 3]


def test_tenants_take_turns_inside_a_class() -> None:
    """One that floods a class waits for its turns there."""
    scheduler = Scheduler(sizes=USUAL)
    for number in range(4):
        scheduler.add(request(number, SMALL, tenant="flood"))
    scheduler.add(request(4, SMALL, tenant="other"))
    assert [each.sequence for each in sent(scheduler)] == [0, 4, 1, 2, 3]


def test_priorities_come_before_sizes() -> None:
    """A cycle is one of a priority: a large urgent call goes before small ones that are not."""
    scheduler = Scheduler(sizes=USUAL)
    scheduler.add(request(0, SMALL))
    scheduler.add(request(1, LARGE, priority=1))
    assert [each.sequence for each in sent(scheduler)] == [1, 0]


def test_ended_calls_are_forgotten() -> None:
    """Never are more kept that have ended than wait, but for a few."""
    scheduler = filled(*[SMALL, MEDIUM, LARGE] * 100)
    assert len(scheduler.drop_all(lambda each: each.cost.expected != MEDIUM)) == 200
    assert len(list(scheduler._pools["p"].levels[5])) <= 2 * 100 + SPARE
    assert letters(sent(scheduler)) == "m" * 100


AMOUNTS = st.integers(0, 200_000)
SIZES = st.lists(st.integers(1, 200_000), min_size=1, max_size=4, unique=True).flatmap(
    lambda bounds: st.builds(
        SizeClasses,
        st.just(tuple(sorted(bounds))),
        st.lists(st.integers(1, 5), min_size=len(bounds) + 1, max_size=len(bounds) + 1).map(tuple),
    )
)


@CASES
@given(SIZES, st.lists(AMOUNTS, max_size=80))
def test_every_call_goes_once_and_in_order_inside_its_class(sizes: SizeClasses, amounts: list[int]) -> None:
    """Whatever the classes and the calls."""
    order = sent(filled(*amounts, sizes=sizes))
    assert sorted(each.sequence for each in order) == list(range(len(amounts)))
    for number in range(len(sizes.weights)):
        inside = [each.sequence for each in order if sizes.of(each.cost) == number]
        assert inside == sorted(inside)


@CASES
@given(SIZES)
def test_while_all_classes_are_full_each_has_its_weight_of_every_cycle(sizes: SizeClasses) -> None:
    """Of any run of one cycle's length."""
    cycle = sum(sizes.weights)
    samples = [0, *(bound + 1 for bound in sizes.bounds)]
    amounts = [amount for amount in samples for _ in range(5 * cycle)]
    by_class = Counter(sizes.of(Cost(expected=amount)) for amount in amounts)
    if len(by_class) < len(sizes.weights):
        return  # two bounds next to one another leave nothing between
    order = [sizes.of(each.cost) for each in sent(filled(*amounts, sizes=sizes), 4 * cycle)]
    for start in range(len(order) - cycle + 1):
        assert Counter(order[start : start + cycle]) == Counter(dict(enumerate(sizes.weights)))


@CASES
@given(st.lists(st.tuples(st.sampled_from((SMALL, MEDIUM, LARGE)), st.booleans()), max_size=120))
def test_no_waiting_class_is_passed_over_for_more_than_a_cycle(steps: list[tuple[int, bool]]) -> None:
    """Calls come and go in any order: a class that has a call waits for five others at most."""
    scheduler = Scheduler(sizes=USUAL)
    waiting: Counter[int] = Counter()
    passed: Counter[int] = Counter()
    for number, (amount, goes) in enumerate(steps):
        scheduler.add(request(number, amount))
        waiting[amount] += 1
        for each in sent(scheduler, 1) if goes else ():
            waiting[each.cost.expected] -= 1
            passed[each.cost.expected] = 0
            for other in waiting:
                if other != each.cost.expected and waiting[other]:
                    passed[other] += 1
                    assert passed[other] <= 5


def test_a_scheduler_that_is_paused_offers_nobody_and_lets_deadlines_pass() -> None:
    """And goes on where it stopped."""
    scheduler = filled(SMALL)
    scheduler.add(request(1, SMALL, expires_at=5.0))
    scheduler.paused = True
    assert scheduler.next(0.0) == Wait(5.0)
    assert [each.sequence for each in scheduler.expired(5.0)] == [1]
    scheduler.paused = False
    assert [each.sequence for each in sent(scheduler)] == [0]


def test_peek_answers_who_is_next_and_takes_nobody() -> None:
    """Whatever it waits for."""
    scheduler = filled(LARGE, SMALL)
    assert scheduler.peek(0.0) is scheduler.peek(0.0)
    assert scheduler.peek(0.0).sequence == 1  # type: ignore[union-attr]
    assert len(scheduler) == 2
    assert Scheduler().peek(0.0) is None


# -- under limits, in virtual time


def test_in_an_hour_no_class_starves_and_the_limit_is_used_up() -> None:
    """300,000 tokens per minute, more work than that in every class: whole cycles, and 0.99 of the limit."""
    calls = [call(prompt=amount, output=1) for amount in (LARGE, MEDIUM, SMALL) for _ in range(400)]
    run = simulate(
        RateLimits(tpm=300_000), calls, learn=False, ramp=False, scheduler=Scheduler(sizes=USUAL), until=3600
    )
    order = [calls[index].prompt for _, index in run.sends]
    counts = Counter(order)
    cycles = counts[LARGE]
    assert cycles > 100
    assert abs(counts[SMALL] - 3 * cycles) <= 3
    assert abs(counts[MEDIUM] - 2 * cycles) <= 2
    assert sum(order) >= 0.99 * 300_000 * 60


def test_a_call_that_asks_for_more_than_the_whole_limit_leaves_its_turn() -> None:
    """It fails, and everybody else is answered."""
    calls = [call(prompt=amount, output=1) for amount in (400_000, LARGE, SMALL, MEDIUM)]
    run = simulate(RateLimits(tpm=300_000), calls, learn=False, ramp=False, scheduler=Scheduler(sizes=USUAL))
    assert run.states == [State.FAILED, State.DONE, State.DONE, State.DONE]


# -- where they plug in


def test_workers_executors_and_clients_take_them() -> None:
    """As a value, or True for the usual ones."""
    with RateLimitedExecutor(size_classes=True) as executor:
        assert executor._worker.engine.machine.scheduler.sizes == USUAL
    settings = QueueSettings(size_classes=SizeClasses((10,), (2, 1)))
    worker = worker_for(settings)
    assert worker is worker_for(QueueSettings(size_classes=SizeClasses((10,), (2, 1))))
    assert worker is not worker_for(QueueSettings())
    with pytest.raises(TypeError, match="size_classes"):
        RateLimitedExecutor(size_classes=(3, 2, 1))  # type: ignore[arg-type]
