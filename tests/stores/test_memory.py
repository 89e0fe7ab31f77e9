"""The budget of one process."""

from __future__ import annotations

from contract import NOTHING, BudgetContract, Pool

from ratelimited_llm.core.feedback import ANSWERED, Feedback, Reading
from ratelimited_llm.core.limiter import Limiter
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.stores.memory import MOST_POOLS, MemoryBudget


class TestMemoryBudget(BudgetContract):
    """It keeps every promise of a budget."""

    def make(self) -> MemoryBudget:
        return MemoryBudget()


def test_pools_that_nobody_uses_are_forgotten_before_they_become_too_many() -> None:
    """Names that somebody makes up do not fill the memory; what is in flight is kept."""
    budget = MemoryBudget()
    busy = Pool("busy", max_concurrency=1)
    budget.reserve(busy, 0, NOTHING, 0.0)
    for number in range(MOST_POOLS + 10):
        pool = Pool(f"made up {number}", rpm=60)
        budget.reserve(pool, 1, NOTHING, 0.0)
        budget.settle(pool, 1, None, 0.0)
    assert len(budget._limiters) <= MOST_POOLS
    assert busy in budget._limiters


def test_clearing_forgets_what_was_spent() -> None:
    """As after a new start of the process."""
    budget, pool = MemoryBudget(), Pool(max_concurrency=1)
    budget.reserve(pool, 1, NOTHING, 0.0)
    budget.clear()
    assert budget.reserve(pool, 2, NOTHING, 0.0) == 0.0


class Driver:
    """A worker that has calls waiting, as the budget knows it."""

    waiting = 1

    def __init__(self, budget: MemoryBudget) -> None:
        self.heard: list[object] = []
        budget.listen(self)

    def freed(self, pool: object) -> None:
        self.heard.append(pool)

    def cancel_queued(self, which: object) -> int:
        return 0


class LearningPool(Pool):
    """Its limits are what answers tell."""

    def limiter(self) -> Limiter:
        return Limiter(RateLimits(), charge="settle", ramp=False)


def test_a_worker_that_waits_long_hears_what_another_workers_answer_has_made_of_it() -> None:
    """A limit that was told as one call a minute (a lie, or an old tier) is told as another: nobody waits it out."""
    budget, pool = MemoryBudget(), LearningPool()
    one, other = Driver(budget), Driver(budget)

    def answered(key: int, limit: float, now: float) -> None:
        budget.observe(pool, key, Feedback(ANSWERED, (Reading("rpm", limit, limit - 1.0),)), now)
        budget.settle(pool, key, None, now)

    assert budget.reserve(pool, 1, NOTHING, 0.0) == 0.0
    answered(1, 1.0, 0.1)
    assert budget.reserve(pool, 2, NOTHING, 61.0) == 0.0
    assert budget.reserve(pool, 3, NOTHING, 61.1) > 30.0
    assert not one.heard
    answered(2, 6_000.0, 61.5)
    assert one.heard == other.heard == [pool]
    assert budget.reserve(pool, 3, NOTHING, 61.5) == 0.0
