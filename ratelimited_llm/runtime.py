"""What stands behind a client: its worker, limits, ledger and journal, which its copies share; and its own options."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from . import budgets
from .accounts import Account, CallPool
from .books.facts import facts_of
from .books.hints import SerialHint
from .books.ledger import Ledger
from .books.prices import Prices
from .books.spending import Spending
from .books.status import History, Status
from .books.survey import outlook_for, status_of
from .core.checks import amount
from .core.outlook import Outlook
from .core.request import Lane
from .display.progress import FIRST_SLICE, Progress
from .engine import lifecycle
from .options import (
    CALL_NAMES,
    LIMIT_NAMES,
    PREFIX,
    CallOptions,
    disabled,
    limits_from_environment,
    parse_amount,
    split_limits,
)
from .shared_workers import QueueSettings, worker_for
from .telemetry.autostart import serve_if_configured
from .telemetry.registry import watch

if TYPE_CHECKING:
    from .queues.submitting import RemoteQueue
    from .stores.journal import Journal

__all__ = ["OWN_NAMES", "Runtime"]

QUEUE_NAMES = tuple(each.name for each in fields(QueueSettings))
JOURNAL_NAMES = ("journal", "journal_max_age", "journal_store")
SINGLE_NAMES = ("queue", "limits", "estimator", "prices", "max_cost", "progress", "on_interrupt")
OWN_NAMES = frozenset({*LIMIT_NAMES, *QUEUE_NAMES, *CALL_NAMES, *JOURNAL_NAMES, *SINGLE_NAMES})


class Runtime:
    """What a client and its copies share: worker, limits and lane; and what only one of them has, its options.

    Args:
        provider: what the dialects call it.
        given: the options of ours that the client was made with.
    """

    def __init__(self, provider: str, given: Mapping[str, Any]) -> None:
        named = {name: given[name] for name in given if name in LIMIT_NAMES}
        limits = given.get("limits")
        if limits is None:
            stated = [name for name, value in named.items() if value is not None]
            named = {**limits_from_environment(besides=stated), **{name: named[name] for name in stated}}
        self.provider = provider
        self.limits = split_limits(limits, named)
        self.estimator = given.get("estimator")
        if self.estimator is not None and not callable(self.estimator):
            raise TypeError(f"estimator must be a function of the request body, not {self.estimator!r}")
        self.queue = QueueSettings.read(given)
        self.options = CallOptions.read(given)
        self.disabled = disabled()
        self.account: tuple[tuple[Any, ...], Account] | None = None  # whose the last call was
        self.lane = Lane()
        self.hint = SerialHint()
        max_cost, told = given.get("max_cost"), os.environ.get(PREFIX + "MAX_COST")
        if max_cost is None and told:
            max_cost = amount(PREFIX + "MAX_COST", parse_amount(told, PREFIX + "MAX_COST"), "a number of US dollars")
        self.ledger = Ledger(Spending(Prices(given.get("prices")), max_cost))
        self.progress = Progress(self.status, given.get("progress"), sliced=True)
        self.on_interrupt = given.get("on_interrupt")
        if self.on_interrupt not in (None, "cancel", "keep"):
            raise ValueError(f'on_interrupt must be "cancel", "keep" or None, not {self.on_interrupt!r}')
        self.journal = _journal(given)
        self.remote = _remote(given, capped=self.ledger.spending.max_cost is not None)
        self.worker = worker_for(self.queue)
        _all.add(self)
        watch(self.ledger, self.worker.budget)
        serve_if_configured()

    def with_options(self, changes: Mapping[str, Any]) -> Runtime:
        """The same queue with other options for its calls; itself when nothing changes (anthropic compares copies)."""
        options = self.options.replace(**changes)
        if options == self.options:
            return self
        twin = object.__new__(Runtime)
        twin.__dict__.update(self.__dict__)
        twin.options = options
        return twin

    def status(self) -> Status:
        """What has become of the calls of the client and its copies; never blocks for long."""
        return status_of(self.ledger, self.worker.budget.survey)

    def watch(self, wait: Callable[[float | None], bool], timeout: float | None) -> bool:
        """Wait, and show how far the calls are while it lasts.

        Args:
            wait: waits at most so many seconds (None: as long as it takes), and says whether it is there.
            timeout: seconds at most.
        """
        progress = self.progress
        with progress:
            if timeout is not None and timeout <= FIRST_SLICE:
                return wait(timeout)
            there = wait(FIRST_SLICE)
            if not there:
                progress.lasts()
                there = wait(None if timeout is None else timeout - FIRST_SLICE)
        if not self.ledger.open:
            progress.finish()
        return there

    def cancel(self) -> int:
        """Cancel the calls of the client and its copies that still wait; answers how many."""
        ledger = self.ledger
        return self.worker.cancel_queued(lambda job: _ledger_of(job) is ledger)

    def outlook(self, pool: CallPool) -> Outlook:
        """What the waiting calls to a pool have before them, as of the last half second."""
        return outlook_for(self.ledger, pool, self.worker.survey(pool))

    def history(self) -> History:
        """The course of the run."""
        with self.ledger.lock:
            return self.ledger.chronicle.history()


def _ledger_of(job: Any) -> Any:
    call = getattr(job, "call", None)
    return None if call is None else call.runtime.ledger


def _remote(given: Mapping[str, Any], *, capped: bool) -> RemoteQueue | None:
    where = given.get("queue")
    if where is None or where is False or where == "":
        return None
    if capped:
        raise TypeError("max_cost= cannot be kept with queue=, whose workers spend: give it to ratelimited-llm worker")
    from .queues.submitting import remote_queue  # redis and an engine are for those who use them

    return remote_queue(where)


def _journal(given: Mapping[str, Any]) -> Journal | None:
    where = given.get("journal")
    if where is None:
        where = os.environ.get(PREFIX + "JOURNAL") or None
    if where is None or where is False:
        for name in JOURNAL_NAMES[1:]:
            if given.get(name) is not None:
                raise TypeError(f"{name}= needs journal=, the path of the file that makes a run resumable")
        return None
    from .stores.journal import open_journal  # sqlite3 is for those who use it

    return open_journal(where, max_age=given.get("journal_max_age"), store=given.get("journal_store"))


# -- what is said after Ctrl-C ----------------------------------------------------------------------------------------

_all: weakref.WeakSet[Runtime] = weakref.WeakSet()


def _answered() -> int:
    """Calls of all clients that have their answer."""
    ledgers = {id(each.ledger): each.ledger for each in list(_all)}.values()
    return sum(ledger.answered_calls + ledger.replayed_calls for ledger in ledgers)


def _kept_in() -> str | None:
    """The journals of all clients."""
    paths = {str(each.journal.path) for each in list(_all) if each.journal is not None}
    return ", ".join(sorted(paths)) or None


def _facts(budget: Any) -> dict[str, Any]:
    """What this process reports to those who share a budget."""
    return facts_of(budget, lambda shared: {each.ledger for each in list(_all) if each.worker.budget is shared})


budgets.facts_from(_facts)
lifecycle.answered_by(_answered)
lifecycle.resumes_with(_kept_in)
