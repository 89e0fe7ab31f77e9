"""How far the calls are, shown under the cell that waits for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..books.status import Status
from .displays import Shown, clock, ending, execution, now_open, ticker
from .notebook import Panel
from .panel import panel
from .ticker import INTERVAL

__all__ = ["NotebookProgress"]

PATIENCE = 2.0  # seconds that a cell has waited before its progress is shown
LINGER = 1.0  # seconds without a wait after which a cell is taken to do something else


class NotebookProgress:
    """Shows how far the calls are to whoever waits in a cell: `with progress:` around every wait of the main thread.

    After two seconds of waiting in one execution of a cell, in all, it shows a panel there, and keeps it up to date
    while the cell waits. A short wait costs some microseconds.

    Args:
        status: tells how far the calls are; called by the ticker's thread, and when a wait of some length ends.
        clock: monotonic seconds.
    """

    def __init__(self, status: Callable[[], Status], clock: Callable[[], float] = time.monotonic) -> None:
        self._status = status
        self._clock = clock
        self._depth = 0
        self._since = self._left = 0.0
        self._waited = 0.0  # in this execution of the cell
        self._execution: Any = None
        self._panel: _Waiting | None = None

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        running = execution()[1]
        if running is None or running != self._execution:
            self._execution, self._panel, self._waited = running, None, 0.0
        self._since = self._clock()
        ticker.add(self)

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        self._left = self._clock()
        lasted = self._left - self._since
        self._waited += lasted
        stopped = bool(error) and isinstance(error[1], KeyboardInterrupt)
        if self._panel is not None and (stopped or lasted >= INTERVAL):
            with suppress(Exception):  # nothing that a display does may change how a wait ends
                self._panel.draw("interrupted" if stopped else "open")

    def look(self) -> bool:
        now = self._clock()
        if self._depth:
            if self._panel is not None:
                self._panel.draw("open")
            elif self._waited + now - self._since >= PATIENCE and not self._shown_already():
                self._panel = _Waiting(self._status)
                self._panel.draw("open")
            return True
        if now - self._left < LINGER:
            return True
        if self._panel is not None:
            self._panel.draw("left")
        return False

    def _shown_already(self) -> bool:
        """Whether this very execution shows the client's own panel."""
        owner = getattr(self._status, "__self__", self._status)
        shown = [one for one in now_open() if isinstance(one, Panel) and one.execution == self._execution]
        return any(getattr(one.status, "owner", lambda: None)() is owner for one in shown)


class _Waiting(Shown):
    """The panel of a cell that waits."""

    def __init__(self, status: Callable[[], Status]) -> None:
        super().__init__()
        self.status = status
        self.final: str | None = None

    def draw(self, state: str) -> None:
        """Show how far the calls are; `state` is "open" while it waits, "interrupted", or "left" a while ago."""
        with self.lock:
            if state == "left" and self.final is not None:
                return
            status = self.status()
            if state == "interrupted":
                self.final = f"stopped waiting at {clock(status.at)}; the calls go on"
            elif status.over:
                self.final = self.final or ending(status, seen=True)
            else:
                self.final = None if state == "open" else f"as of {clock(status.at)}; the other calls go on"
            self.show(*panel(status, name="waiting for answers", closing=self.final))
