"""The way to a shared store: opened when it is first used, and whether there is one at the moment."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from ..core.booking import Answer, Order
from ..exceptions import SharedStoreLost
from .shared_store import Control, SharedStore

__all__ = ["Link"]

T = TypeVar("T")
_log = logging.getLogger("ratelimited_llm")
FIRST_PROBE = 0.5  # seconds after a loss at which it is looked whether the store is back; doubles
LAST_PROBE = 5.0  # seconds at most


class Link:
    """One process's way to a shared store. Thread-safe.

    Args:
        open_store: makes the store; called when it is first needed, and again after `end` or a fork.
        at_least: how many share it at least, whatever it told last.

    Attributes:
        member: what this process is called there: host, process id, and a random part.
        lost: whether the store could not be reached the last time; nobody waits for it until `probe_at`.
        members: processes that share it, this one included, as last told.
        news: the number of the last change by an operator that an answer has told of.
    """

    def __init__(self, open_store: Callable[[], SharedStore], at_least: int = 1) -> None:
        self._open = open_store
        self._at_least = at_least
        self._store: SharedStore | None = None
        self._lock = threading.Lock()
        self.member = _new_name()
        self.lost = False
        self.members = 1
        self.news = 0
        self.probe_at = 0.0
        self._pause = FIRST_PROBE

    @property
    def sharers(self) -> int:
        """How many to divide the limits by while there is no store: as last told, or more when the user said so."""
        return max(self.members, self._at_least)

    def book(self, pool: str, order: Order, now: float) -> Answer:
        """See `SharedStore.book`.

        Raises:
            SharedStoreLost: it cannot be reached, and from now on `lost` says so.
        """
        answer = self._reach(lambda store: store.book(pool, order), now)
        self.members = max(1, answer.members)
        return answer

    def report(self, facts: Mapping[str, Any], now: float) -> Control:
        """See `SharedStore.report`."""
        return self._reach(lambda store: store.report(self.member, facts), now)

    def _reach(self, ask: Callable[[SharedStore], T], now: float) -> T:
        try:
            result = ask(self._opened())
        except SharedStoreLost as error:
            self._lose(error, now)
            raise
        with self._lock:
            is_news, self.lost = self.lost, False
        if is_news:
            self._pause = FIRST_PROBE
            _log.warning("the shared budget is back", extra={"event": "budget_back"})
        return result

    def _opened(self) -> SharedStore:
        with self._lock:
            if self._store is None:
                self._store = self._open()
            return self._store

    def _lose(self, error: Exception, now: float) -> None:
        with self._lock:
            is_news, self.lost = not self.lost, True
            self._pause = FIRST_PROBE if is_news else min(2.0 * self._pause, LAST_PROBE)
            self.probe_at = now + self._pause
        if is_news:
            part = "all" if self.sharers == 1 else f"1/{self.sharers}"
            _log.warning(
                "the shared budget is lost (%s): this process goes on with %s of every limit that it knows",
                error,
                part,
                extra={"event": "budget_lost", "members": self.sharers},
            )

    def end(self) -> None:
        """Leave, and let go of everything; the next use begins anew. Takes no longer than the store's own timeouts."""
        store, self._store = self._store, None
        if store is not None:
            with suppress(Exception):
                if not self.lost:
                    store.leave(self.member)
            with suppress(Exception):
                store.close()

    def after_fork(self) -> None:
        """In the child of a fork: another process, which shares nothing with its parent."""
        self._lock = threading.Lock()
        self.member = _new_name()
        if self._store is not None:
            with suppress(Exception):
                self._store.after_fork()


def _new_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
