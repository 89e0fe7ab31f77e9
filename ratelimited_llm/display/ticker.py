"""One thread that keeps every live display of a notebook up to date, and ends when none is live.

It takes no more than a small share of one CPU in the long run: many displays are looked at more seldom. A moment in
which many of them change may use what was saved before.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import Protocol

from ..forks import at_fork

__all__ = ["INTERVAL", "Live", "Ticker"]

INTERVAL = 1 / 3  # seconds between two looks: VS Code and slow connections fall behind with more
SHARE = 0.01  # of one CPU; the kernel's own sending comes on top and costs about as much
SAVED = 0.5  # seconds of CPU that may be used at once: some hundred updates
NAME = "ratelimited-llm-display"

_log = logging.getLogger("ratelimited_llm.display")


class Live(Protocol):
    """What changes while somebody looks at it."""

    def look(self) -> bool:
        """Bring it up to date; True when it is to be looked at again. Called by the ticker's thread alone."""


class Ticker:
    """Calls `look()` of each live display about three times a second, and more slowly when that would cost much.

    All methods may be called from any thread, and none waits for a look.
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        self.interval = interval
        self._renew()
        at_fork(self._renew)  # the child has no thread, and no front end to show to

    def _renew(self) -> None:
        self._lock = threading.RLock()
        self._live: dict[int, Live] = {}  # by id: displays are compared by identity
        self._thread: threading.Thread | None = None
        self._credit, self._since = SAVED, time.monotonic()

    @property
    def live(self) -> int:
        """How many displays are looked at."""
        return len(self._live)

    def add(self, live: Live) -> None:
        """Look at it from now on; of no effect when that is done already."""
        with self._lock:
            self._live[id(live)] = live
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=NAME, daemon=True)
                with suppress(RuntimeError):  # no more threads: a display that stands still, and the calls go on
                    thread.start()
                    self._thread = thread

    def drop(self, live: Live) -> None:
        """Do not look at it again, apart from a look that is under way."""
        with self._lock:
            self._live.pop(id(live), None)

    def _run(self) -> None:
        while True:
            time.sleep(self._round())
            with self._lock:
                if not self._live:
                    self._thread = None
                    return

    def _round(self) -> float:
        """Look at each of them once; the seconds until the next time."""
        began = time.thread_time()
        with self._lock:
            displays = list(self._live.values())
        for live in displays:
            self._look(live)
        return self._pause(time.thread_time() - began)

    def _pause(self, spent: float) -> float:
        now = time.monotonic()
        self._credit = min(SAVED, self._credit + SHARE * (now - self._since)) - spent
        self._since = now
        return max(self.interval, -self._credit / SHARE)

    def _look(self, live: Live) -> None:
        with self._lock:
            if self._live.get(id(live)) is not live:
                return
            # Taken out first: whoever wants it looked at again meanwhile has it put back.
            del self._live[id(live)]
        try:
            again = live.look()
        except Exception:  # the front end is gone, or the kernel ends: nobody sees it any more
            _log.debug("display_lost", exc_info=True)
            return
        if again:
            with self._lock:
                self._live[id(live)] = live
