"""What every budget backend promises. A new one is finished when it passes.

class TestMyBudget(BudgetContract):
    def make(self) -> Budget: ...
"""

from __future__ import annotations

import math
from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any

import pytest

from ratelimited_llm.core.feedback import ANSWERED, Feedback, Kind, Outcome
from ratelimited_llm.core.limiter import Limiter
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.core.request import Cost, Usage
from ratelimited_llm.exceptions import BudgetExceeded
from ratelimited_llm.stores import Budget

NOTHING = Cost()


class Pool:
    """A pool by name: equal names are the same limits."""

    def __init__(self, name: str = "pool", **limits: Any) -> None:
        self.name = name
        self.limits = RateLimits(**limits)

    def limiter(self) -> Limiter:
        return Limiter(self.limits, charge="settle", learn=False, ramp=False)

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pool) and other.name == self.name


def tokens(amount: int) -> Cost:
    return Cost(amount, amount, amount, 0)


class BudgetContract:
    """The promises, one by one."""

    def make(self) -> Budget:
        """A fresh backend."""
        raise NotImplementedError

    @pytest.fixture
    def budget(self) -> Budget:
        return self.make()

    def test_what_fits_is_reserved_at_once(self, budget: Budget) -> None:
        """0.0 means taken."""
        assert budget.reserve(Pool(rpm=60), 1, NOTHING, 0.0) == 0.0

    def test_no_carries_when(self, budget: Budget) -> None:
        """What does not fit is answered with the seconds after which it does."""
        pool = Pool(rpm=60, burst=1)
        assert budget.reserve(pool, 1, NOTHING, 100.0) == 0.0
        wait = budget.reserve(pool, 2, NOTHING, 100.0)
        assert 0.0 < wait <= 1.5
        assert budget.reserve(pool, 2, NOTHING, 100.0 + wait) == 0.0

    def test_only_an_end_can_help_when_all_places_are_taken(self, budget: Budget) -> None:
        """Then the wait is infinite, and over when one has settled."""
        pool = Pool(max_concurrency=1)
        assert budget.reserve(pool, 1, NOTHING, 0.0) == 0.0
        assert budget.reserve(pool, 2, NOTHING, 0.0) == math.inf
        budget.settle(pool, 1, None, 1.0)
        assert budget.reserve(pool, 2, NOTHING, 1.0) == 0.0

    def test_all_limits_are_taken_together_or_none(self, budget: Budget) -> None:
        """A call that one limit refuses spends nothing of the others."""
        pool = Pool(rpm=2, tpm=100)
        assert budget.reserve(pool, 1, tokens(100), 0.0) == 0.0
        for key in range(2, 20):
            assert budget.reserve(pool, key, tokens(50), 0.0) > 0.0
        left = {standing.dimension: standing.remaining for standing in budget.survey(pool, 0.0).standings}
        assert left["rpm"] == pytest.approx(1.0, abs=0.1)

    def test_reserving_twice_counts_once(self, budget: Budget) -> None:
        """A key that is reserved already is reserved."""
        pool = Pool(max_concurrency=2)
        assert [budget.reserve(pool, key, NOTHING, 0.0) for key in (1, 1, 2)] == [0.0, 0.0, 0.0]

    def test_settling_twice_counts_once(self, budget: Budget) -> None:
        """And settling what was never reserved does nothing."""
        pool = Pool(max_concurrency=2)
        for key in (1, 2):
            budget.reserve(pool, key, NOTHING, 0.0)
        for _ in range(3):
            budget.settle(pool, 1, None, 1.0)
            budget.settle(pool, 77, None, 1.0)
            budget.settle(Pool("unknown"), 1, None, 1.0)
        assert budget.reserve(pool, 3, NOTHING, 1.0) == 0.0
        assert budget.reserve(pool, 4, NOTHING, 1.0) == math.inf

    def test_what_can_never_fit_raises(self, budget: Budget) -> None:
        """With the limit and what was asked for; and it spends nothing."""
        pool = Pool(tpm=100)
        with pytest.raises(BudgetExceeded) as caught:
            budget.reserve(pool, 1, tokens(101), 0.0)
        assert (caught.value.dimension, caught.value.limit, caught.value.requested) == ("tpm", 100, 101)
        assert budget.reserve(pool, 2, tokens(100), 0.0) == 0.0

    def test_settling_corrects_the_charge(self, budget: Budget) -> None:
        """What a call did not use can be spent by others."""
        pool = Pool(tpm=100)
        assert budget.reserve(pool, 1, tokens(100), 0.0) == 0.0
        assert budget.reserve(pool, 2, tokens(50), 0.0) > 0.0
        budget.settle(pool, 1, Usage(10, 10), 0.0)
        assert budget.reserve(pool, 2, tokens(50), 0.0) == 0.0

    def test_a_refusal_gives_its_charge_back_and_holds_the_pool(self, budget: Budget) -> None:
        """After a 429 nobody of the pool goes before its wait is over."""
        pool = Pool(rpm=60)
        budget.reserve(pool, 1, NOTHING, 0.0)
        refused = Feedback(Outcome(Kind.LIMITED, retry_after=5.0, status=429))
        budget.observe(pool, 1, refused, 0.1)
        budget.settle(pool, 1, None, 0.1, Kind.LIMITED)
        assert 4.0 <= budget.reserve(pool, 2, NOTHING, 0.1) <= 6.0

    def test_observing_what_is_unknown_does_nothing(self, budget: Budget) -> None:
        """An answer of a call that was never reserved, or of a pool that was never seen."""
        budget.observe(Pool("unknown"), 1, Feedback(ANSWERED), 0.0)
        pool = Pool(rpm=60)
        budget.reserve(pool, 1, NOTHING, 0.0)
        budget.observe(pool, 2, Feedback(Outcome(Kind.LIMITED, retry_after=99.0)), 0.0)
        assert budget.reserve(pool, 3, NOTHING, 0.0) == 0.0

    def test_pools_know_nothing_of_each_other(self, budget: Budget) -> None:
        """One pool's spending takes nothing from another's limits."""
        one, two = Pool("one", max_concurrency=1), Pool("two", max_concurrency=1)
        assert budget.reserve(one, 1, NOTHING, 0.0) == 0.0
        assert budget.reserve(two, 1, NOTHING, 0.0) == 0.0
        assert budget.reserve(one, 2, NOTHING, 0.0) == math.inf

    def test_equal_pools_are_one(self, budget: Budget) -> None:
        """What counts is equality, not identity."""
        assert budget.reserve(Pool("same", max_concurrency=1), 1, NOTHING, 0.0) == 0.0
        assert budget.reserve(Pool("same", max_concurrency=1), 2, NOTHING, 0.0) == math.inf

    def test_looking_at_the_standings_spends_nothing(self, budget: Budget) -> None:
        """Nor does it make a pool."""
        pool = Pool(rpm=60)
        assert list(budget.survey(pool, 0.0).standings) == []
        budget.reserve(pool, 1, NOTHING, 0.0)
        looks = [next(iter(budget.survey(pool, 0.0).standings)).remaining for _ in range(3)]
        assert looks[0] == looks[1] == looks[2]

    def test_after_a_fork_it_can_be_used_and_what_was_spent_stays_spent(self, budget: Budget) -> None:
        """However often it is told."""
        pool = Pool(max_concurrency=1)
        budget.reserve(pool, 1, NOTHING, 0.0)
        for _ in range(2):
            budget.after_fork()
        assert budget.reserve(pool, 2, NOTHING, 0.0) == math.inf
        budget.settle(pool, 1, None, 0.0)
        assert budget.reserve(pool, 2, NOTHING, 0.0) == 0.0

    def test_threads_cannot_spend_more_than_there_is(self, budget: Budget) -> None:
        """Eight real threads race for a hundred places, and get a hundred."""
        pool, start, got = Pool(max_concurrency=100), Barrier(8), [0] * 8

        def race(number: int) -> None:
            start.wait()
            got[number] = sum(budget.reserve(pool, number * 1_000 + key, NOTHING, 0.0) == 0.0 for key in range(50))

        run_all([lambda number=number: race(number) for number in range(8)])  # type: ignore[misc]
        assert sum(got) == 100


def run_all(functions: list[Callable[[], None]]) -> None:
    """Run each in a thread of its own, and wait for all."""
    threads = [Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
