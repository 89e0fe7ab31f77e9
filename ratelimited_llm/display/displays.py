"""One display of a notebook: made once, updated in place, given up when its cell shows another in a later execution.

It is HTML and text, needs no widget, and keeps its last state when the notebook is opened again. IPython is only used
when it is there already.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from typing import Any

from ..books.status import Status
from ..forks import at_fork
from .number_text import span
from .ticker import Ticker

__all__ = ["Shown", "clock", "ending", "execution", "now_open", "opened", "ticker"]

ticker = Ticker()
opened: list[Shown] = []  # every display that may change once more
_lock = threading.RLock()


def now_open() -> list[Shown]:
    """Every display that may change once more, as a list of its own."""
    with _lock:
        return list(opened)


def execution() -> tuple[Any, Any]:
    """(the cell, this execution of it), as far as the front end tells; None for what it does not."""
    with suppress(Exception):
        parent = sys.modules["IPython"].get_ipython().parent_header
        return parent.get("metadata", {}).get("cellId"), parent.get("header", parent).get("msg_id")
    return None, None


class Shown:
    """One display: made once, updated when what it shows has changed, and looked at by the ticker until it is final."""

    def __init__(self) -> None:
        self.cell, self.execution = execution()
        self.handle: Any = None
        self.bundle: dict[str, str] | None = None
        self.lock = threading.RLock()  # what is published last is what was asked last

    def look(self) -> bool:
        raise NotImplementedError

    def begin(self) -> None:
        """Show it, and have it looked at from now on if it can change."""
        with _lock:
            earlier = [one for one in opened if self._replaces(one)]
            opened[:] = [one for one in opened if one not in earlier and one.lasts()]
            opened.append(self)
        for one in earlier:
            ticker.drop(one)
        if self.look():
            ticker.add(self)

    def lasts(self) -> bool:
        """Whether it may still change."""
        return True

    def _replaces(self, other: Shown) -> bool:
        return self.cell is not None and other.cell == self.cell and other.execution != self.execution

    def end(self) -> None:
        """Forget this display: it will not change any more."""
        with _lock:
            if self in opened:
                opened.remove(self)

    def show(self, html: str, text: str) -> None:
        from IPython.display import display

        bundle = {"text/html": html, "text/plain": text}
        if self.handle is None:
            self.handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        elif bundle != self.bundle:
            self.handle.update(bundle, raw=True)
        self.bundle = bundle


def clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def ending(status: Status, *, seen: bool) -> str | None:
    """When the last call ended: about now, if it was seen to end."""
    if not status.submitted:
        return None
    if not seen:
        return f"no call is open ({clock(status.at)})"
    return f"finished at {clock(status.at)}, after {span(status.elapsed)}"


def _forget() -> None:
    """In the child of a fork: its displays are the parent's, and the lock may be held by a thread that is not there."""
    global _lock
    _lock = threading.RLock()
    opened.clear()


at_fork(_forget)
