"""What one script has learned of limits is known to the next."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from contract import BudgetContract, tokens
from test_shared import Learned

from ratelimited_llm.core.feedback import ANSWERED, Feedback, Reading
from ratelimited_llm.exceptions import BudgetExceeded
from ratelimited_llm.stores.remembering import RememberingBudget
from ratelimited_llm.stores.sqlite_store import SqliteStore


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Makes budgets, each of which is another script's, with one file."""
    made = []

    def new() -> RememberingBudget:
        made.append(RememberingBudget(lambda: SqliteStore(tmp_path / "budget.db")))
        return made[-1]

    yield new
    for each in made:
        each.close()


class TestRememberingBudget(BudgetContract):
    """It keeps every promise of a budget."""

    @pytest.fixture
    def budget(self, make: Any) -> RememberingBudget:
        return make()  # type: ignore[no-any-return]


def learn(budget: RememberingBudget, **limits: float) -> None:
    """One call is answered, with headers."""
    pool = Learned()
    assert budget.reserve(pool, 1, tokens(1), 0.0) == 0.0
    budget.observe(
        pool, 1, Feedback(ANSWERED, tuple(Reading(name, limit, limit - 1) for name, limit in limits.items())), 0.1
    )
    budget.settle(pool, 1, None, 0.1)


def test_the_next_script_starts_with_what_was_learned(make):
    """Several calls go at once, where the first script let one go ahead."""
    learn(make(), rpm=600, tpm=9_000)
    second = make()
    assert [second.reserve(Learned(), key, tokens(1), 0.0) for key in range(5)] == [0.0] * 5
    assert {each.dimension: each.limit for each in second.survey(Learned(), 0.0).standings} == {
        "rpm": 600,
        "tpm": 9_000,
    }


def test_a_limit_that_was_remembered_refuses_no_call(make):
    """The account may have grown; only what an answer of this run told is a reason."""
    learn(make(), tpm=1_000)
    second, pool = make(), Learned()
    assert second.reserve(pool, 1, tokens(5), 0.0) == 0.0
    assert 0.0 < second.reserve(pool, 2, tokens(5_000), 0.0) < 1.0, "the first answer will tell"
    second.settle(pool, 1, None, 1.0)
    assert second.reserve(pool, 2, tokens(5_000), 1.0) == 0.0
    second.observe(pool, 2, Feedback(ANSWERED, (Reading("tpm", 6_000, 1_000),)), 2.0)
    with pytest.raises(BudgetExceeded):
        second.reserve(pool, 3, tokens(7_000), 2.0)


def test_without_the_file_everything_is_learned_anew(caplog, tmp_path):
    """It is said once, for those who debug."""
    (tmp_path / "budget.db").mkdir()
    budget = RememberingBudget(lambda: SqliteStore(tmp_path / "budget.db"))
    with caplog.at_level(logging.DEBUG, "ratelimited_llm"):
        learn(budget, rpm=600)
    assert [each.event for each in caplog.records] == ["budget_memory_failed"]
    assert budget.survey(Learned(), 1.0).standings[0].limit == 600
