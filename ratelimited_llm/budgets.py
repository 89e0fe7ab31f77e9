"""Which budget people mean by `budget=`: one object for all who mean the same (`stores.budget_spec` reads it)."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .core.checks import text
from .engine import lifecycle
from .forks import at_fork
from .stores.budget_spec import checked_budget
from .stores.memory import MemoryBudget

if TYPE_CHECKING:
    from .stores.shared_budget import SharedBudget
    from .stores.shared_store import SharedStore

__all__ = ["budget_for", "checked_on_lost", "close_budgets", "facts_from", "forget_budgets", "memory", "own_budget"]

LOST_VARIABLE = "RATELIMITED_LLM_ON_BUDGET_LOST"
MOST_MEMBERS = 1_000_000  # processes that share a budget: more than anybody has, and no typing error

memory = MemoryBudget()  # of every client that says nothing, for as long as the process lives

_lock = threading.Lock()
_budgets: weakref.WeakValueDictionary[tuple[str, str], MemoryBudget] = weakref.WeakValueDictionary()


def checked_on_lost(given: object) -> str:
    """`on_budget_lost=` in its usual spelling: "local", "local/8" or "raise".

    What is not given is read from `RATELIMITED_LLM_ON_BUDGET_LOST`, and is "local" when that says nothing either.

    Raises:
        ValueError: for anything else.
    """
    name = "on_budget_lost"
    if given is None and (stated := os.environ.get(LOST_VARIABLE, "").strip()):
        given, name = stated, LOST_VARIABLE
    elif given is None:
        given = "local"
    how, _, count = given.partition("/") if isinstance(given, str) else ("", "", "")
    if how == "local" and count.isascii() and count.isdecimal() and len(count) < 9 and 0 < int(count) <= MOST_MEMBERS:
        return "local" if int(count) == 1 else f"local/{int(count)}"
    if given not in ("local", "raise"):
        raise ValueError(
            f'{name} must be "local", "local/8" (this process is one of 8 or fewer) or "raise", not {given!r}'
        )
    return str(given)


def own_budget(
    budget: str | None, name: str | None, on_lost: str | None, usual_name: str
) -> tuple[MemoryBudget | None, str | None]:
    """The budget of limits that are the caller's own, as of an executor, and what they are called in it.

    Limits of one's own have no account that tells them from those of other programs. So the environment, which speaks
    for all programs at once, counts only where a name was stated.

    Args:
        budget: as for `checked_budget`.
        name: as stated; every process that states it spends the same limits.
        on_lost: as for `checked_on_lost`.
        usual_name: what they are called when no name is stated.

    Returns:
        The budget, None for one of its own in memory; and the name, None when nothing is shared.

    Raises:
        TypeError, ValueError, ImportError: an argument makes no sense.
    """
    if name is not None and (not isinstance(name, str) or not name):
        raise TypeError(f"budget_name must be a string that names the limits, not {name!r}")
    text("budget_name", name or "")
    lost = checked_on_lost(on_lost)
    spec = checked_budget(budget, from_environment=name is not None)
    if spec in ("memory", "auto"):  # nothing of them is learned
        return None, None
    return budget_for(spec, lost), f"own|{usual_name if name is None else name}"


def budget_for(spec: str, on_lost: str = "local") -> MemoryBudget:
    """The budget of a spelling that `checked_budget` has answered; it lives as long as somebody holds it.

    No store is opened here: that is for the first reservation.
    """
    if spec == "memory":
        return memory
    with _lock:
        budget = _budgets.get((spec, on_lost))
        if budget is None:
            budget = _budgets[spec, on_lost] = _new_budget(spec, on_lost)
        return budget


def _new_budget(spec: str, on_lost: str) -> MemoryBudget:
    if spec == "auto":
        from .stores.remembering import RememberingBudget

        lifecycle.at_the_end(close_budgets)
        return RememberingBudget()
    from .stores.shared_budget import SharedBudget  # nothing of it is needed before

    if not spec.startswith("sqlite"):
        import redis  # noqa: F401 - it takes a third of a second, which the first call would have to wait for

    lifecycle.at_the_end(close_budgets)
    how, _, count = on_lost.partition("/")
    budget = SharedBudget(partial(_open, spec), on_lost=how, at_least=int(count or 1))
    if _facts is not None:
        budget.facts_from(_facts)
    return budget


def _open(spec: str) -> SharedStore:
    from .stores.opening import open_store

    return open_store(spec)


_facts: Callable[[SharedBudget], Mapping[str, Any]] | None = None


def facts_from(facts: Callable[[SharedBudget], Mapping[str, Any]]) -> None:
    """Have every shared budget report what this function answers about it (see `SharedBudget.facts_from`)."""
    global _facts
    _facts = facts


def forget_budgets() -> None:
    """Forget what was learned and spent, in this process; shared stores are left, and joined again when needed."""
    memory.clear()
    for budget in _all():
        _close(budget)
        budget.clear()


def close_budgets() -> None:
    """The process ends: what is booked and not used is given back, and stores are left. Takes a second or two."""
    for budget in _all():
        _close(budget)


def _all() -> list[MemoryBudget]:
    with _lock:
        return list(_budgets.values())


def _close(budget: MemoryBudget) -> None:
    close = getattr(budget, "close", None)
    if close is not None:
        close()


def _after_fork_in_child() -> None:
    # Threads that are not there may have held these.
    global _lock
    _lock = threading.Lock()
    memory.after_fork()
    for budget in _all():
        budget.after_fork()


at_fork(_after_fork_in_child)
