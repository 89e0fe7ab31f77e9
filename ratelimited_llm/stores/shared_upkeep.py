"""The thread that looks after a shared budget: what no call takes along, bookings nobody uses, reports, probes."""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ..exceptions import SharedStoreLost
from .cancel_orders import CancelOrders
from .shared_link import Link
from .shared_store import Control

if TYPE_CHECKING:
    from . import LimitedPool
    from .shared_budget import SharedBudget

__all__ = ["Upkeep"]

_log = logging.getLogger("ratelimited_llm")
REPORTS = 2.0  # seconds between reports of a process that does something, or has lately
LATELY = 60.0  # seconds
ENDS_WITHIN = 2.0  # seconds that `stop` waits for the thread: three of the store's timeouts


class Bell:
    """Wakes the one thread that waits for it; may be rung from anywhere, a finalizer too."""

    def __init__(self) -> None:
        self._alarm = threading.Lock()  # taken while nobody has rung
        self._alarm.acquire()

    def ring(self) -> None:
        """End the wait that is going on, or else the next one."""
        if self._alarm.locked():
            with suppress(RuntimeError):  # somebody else was quicker
                self._alarm.release()

    def wait(self, seconds: float) -> None:
        """Sleep until somebody rings, at most so long."""
        self._alarm.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))


class Upkeep:
    """Starts its thread with the first reservation; it ends when the budget is forgotten, closed, or idle for a minute.

    Args:
        budget: held weakly.
        link: its way to the store.

    Attributes:
        facts: what is reported; None for how many calls wait and are in flight.
    """

    def __init__(self, budget: SharedBudget, link: Link) -> None:
        self._budget = weakref.ref(budget)
        self._link = link
        self.facts: Callable[[SharedBudget], Mapping[str, Any]] | None = None
        self._orders = CancelOrders(budget._clock())
        self._begin()

    def _begin(self) -> None:
        self._thread: threading.Thread | None = None
        self._bell = Bell()
        self._due: dict[LimitedPool, float] = {}  # pools that are to be looked at, and when
        self._report_at = -math.inf
        self._used_at = -math.inf
        self._wakes_at = -math.inf

    # -- under the budget's lock --------------------------------------------------------------------------------------

    def used(self, now: float) -> None:
        """A reservation was made: the thread runs from now on, for a minute at least."""
        self._used_at = now
        if self._thread is None:
            self._start()

    def look_at(self, pool: LimitedPool, at: float, now: float) -> None:
        """Have a pool flushed at this moment, or before."""
        self._due[pool] = min(at, self._due.get(pool, math.inf))
        if at < self._wakes_at:
            self._wakes_at = at
            self._bell.ring()

    def hurry(self) -> None:
        """There is something to be asked of the store: report now, or probe."""
        self._report_at = -math.inf
        self._bell.ring()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        bell, link = self._bell, self._link
        # The callback rings, so that the thread of a budget that is forgotten ends at once.
        me = weakref.ref(self, lambda _: bell.ring())
        self._thread = thread = threading.Thread(
            target=_loop, args=(me, bell, link), name="ratelimited-llm-budget", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter ends: corrections then ride on orders alone
            self._thread = None

    def turn(self) -> float | None:
        """Do what is due; answers the seconds until something will be, None to end."""
        budget = self._budget()
        if budget is None or self._thread is not threading.current_thread():
            return None
        now = budget._clock()
        if self._link.lost:
            self._probe(budget, now)
        else:
            self._flush(budget, now)
            self._report(budget, now)
        with budget._ordering, budget._lock:
            if budget._clock() - self._used_at > LATELY and not budget.in_flight():
                self._thread = None
                self._link.end()
                return None
            now = budget._clock()
            due = self._link.probe_at if self._link.lost else min(self._report_at, *self._due.values(), math.inf)
            self._wakes_at = max(due, now)
            return max(due - now, 0.0)

    def _flush(self, budget: SharedBudget, now: float) -> None:
        with budget._lock:
            due = [pool for pool, at in self._due.items() if at <= now]
            for pool in due:
                del self._due[pool]
        for pool in due:
            budget.flush(pool, now)

    def _probe(self, budget: SharedBudget, now: float) -> None:
        if now >= self._link.probe_at:
            with suppress(SharedStoreLost):
                self._say(budget, now)

    def _report(self, budget: SharedBudget, now: float) -> None:
        if now >= self._report_at:
            self._report_at = now + REPORTS
            try:
                self._say(budget, now)
            except SharedStoreLost:
                budget.lose(budget._clock())

    def _say(self, budget: SharedBudget, now: float) -> None:
        control = self._link.report(self._facts(budget), now)
        budget.regain(now)
        self._obey(budget, control)

    def _facts(self, budget: SharedBudget) -> Mapping[str, Any]:
        if self.facts is not None:
            try:
                return self.facts(budget)
            except Exception:
                _log.exception("the facts for a report are missing", extra={"event": "budget_facts_failed"})
        return {"queued": budget.waiting(), "in_flight": budget.in_flight()}

    def _obey(self, budget: SharedBudget, control: Control) -> None:
        for tag, until in self._orders.new(control, budget._clock()):
            for each in list(budget._listeners):
                each.cancel_queued(partial(_is_meant, tag, until))

    # -- the end ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Have the thread end, and wait for it, briefly."""
        budget = self._budget()
        if budget is None:
            return
        with budget._lock:
            thread, self._thread = self._thread, None
            self._bell.ring()
        if thread is not None and thread is not threading.current_thread():
            thread.join(ENDS_WITHIN)

    def after_fork(self) -> None:
        """In the child of a fork there is no such thread."""
        self._begin()


def _is_meant(tag: str, until: float, job: Any) -> bool:
    return getattr(job, "tag", "") == tag and job.submitted_at <= until


def _loop(me: weakref.ref[Upkeep], bell: Bell, link: Link) -> None:
    """The thread: holds the budget only while it does something, so that a forgotten one can be collected."""
    while True:
        care = me()
        if care is None:
            link.end()
            return
        try:
            delay = care.turn()
        except Exception:  # a fault of ours, or of a store; the next turn may be better
            _log.exception("budget_care_failed")
            delay = REPORTS
        if delay is None:
            return
        del care
        bell.wait(delay)
