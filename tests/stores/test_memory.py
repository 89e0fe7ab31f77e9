"""The budget of one process."""

from __future__ import annotations

from contract import NOTHING, BudgetContract, Pool

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
