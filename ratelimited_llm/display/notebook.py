"""Live displays in Jupyter: the panel of a client, the box of a pending future, and the progress of a cell that waits.

Each is one display that is updated in place, as HTML and as text: it needs no widget, and keeps its last state when the
notebook is opened again. Nothing here waits for a call, and IPython is only used when it is there already.

An answer must not be shown in a cell that was run again since: a display is given up when its cell shows another one in
a later execution.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from html import escape
from typing import Any

from ..books.status import Ratelimit, Status
from .answer_text import texts
from .modes import in_kernel
from .number_text import span
from .panel import panel
from .ticker import INTERVAL, Ticker

__all__ = ["NotebookProgress", "interrupted", "show_client", "show_future", "wake"]

PATIENCE = 2.0  # seconds that a cell has waited before its progress is shown
LINGER = 1.0  # seconds without a wait after which a cell is taken to do something else
LONGEST = 50_000  # characters of an answer

ticker = Ticker()
_lock = threading.RLock()
_open: list[_Shown] = []  # every display that may change once more


def _forget() -> None:
    """In the child of a fork: its displays are the parent's, and the lock may be held by a thread that is not there."""
    global _lock
    _lock = threading.RLock()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


# -- for the doors ----------------------------------------------------------------------------------------------------


def show_client(name: str, status: Callable[[], Status]) -> None:
    """Show the panel of a client, and keep it up to date while calls are open, until the client is collected.

    In a terminal it is the line of text, once.

    Args:
        name: what the panel is called.
        status: a bound method, whose object is held weakly.
    """
    if not in_kernel():
        print(panel(status(), name=name, closing=None)[1])  # noqa: T201 - IPython asked for it to be shown
        return
    shown = _Panel(name, _weakly(status))
    shown.begin()


def show_future(future: Any) -> None:
    """Show a future: its answer when there is one, or else a box that becomes the answer. Never waits."""
    if future.done() and not future.cancelled() and future.exception(0) is None:
        from IPython.display import display

        display(future.result(0))  # type: ignore[no-untyped-call]
    elif not in_kernel():
        print(repr(future))  # noqa: T201 - IPython asked for it to be shown
    else:
        _Box(future).begin()


def wake() -> None:
    """Calls go on after none was open: panels that rest are looked at again. Costs nothing when there is none."""
    if _open:
        with _lock:
            resting = [shown for shown in _open if isinstance(shown, _Panel)]
        for shown in resting:
            ticker.add(shown)


def interrupted(queued: int) -> str:
    """What to say when somebody interrupted a wait."""
    if queued == 0:
        return "stopped waiting; no request is queued any more."
    requests = "1 request is" if queued == 1 else f"{queued:,} requests"
    return f"stopped waiting; {requests} still queued. client.cancel() drops them, client.wait() waits again."


# -- displays ---------------------------------------------------------------------------------------------------------


def _shell() -> Any:
    ipython: Any = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _execution() -> tuple[Any, Any]:
    """(the cell, this execution of it), as far as the front end tells; None for what it does not."""
    with suppress(Exception):
        parent = _shell().parent_header
        return parent.get("metadata", {}).get("cellId"), parent.get("header", parent).get("msg_id")
    return None, None


class _Shown:
    """One display: made once, updated when what it shows has changed, and looked at by the ticker until it is final."""

    def __init__(self) -> None:
        self.cell, self.execution = _execution()
        self.handle: Any = None
        self.bundle: dict[str, str] | None = None
        self.lock = threading.RLock()  # what is published last is what was asked last

    def look(self) -> bool:
        raise NotImplementedError

    def begin(self) -> None:
        """Show it, and have it looked at from now on if it can change."""
        with _lock:
            earlier = [one for one in _open if self._replaces(one)]
            _open[:] = [one for one in _open if one not in earlier and one.lasts()]
            _open.append(self)
        for one in earlier:
            ticker.drop(one)
        if self.look():
            ticker.add(self)

    def lasts(self) -> bool:
        """Whether it may still change."""
        return True

    def _replaces(self, other: _Shown) -> bool:
        return self.cell is not None and other.cell == self.cell and other.execution != self.execution

    def end(self) -> None:
        """Forget this display: it will not change any more."""
        with _lock:
            if self in _open:
                _open.remove(self)

    def show(self, html: str, text: str) -> None:
        from IPython.display import display

        bundle = {"text/html": html, "text/plain": text}
        if self.handle is None:
            self.handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        elif bundle != self.bundle:
            self.handle.update(bundle, raw=True)
        self.bundle = bundle


class _Panel(_Shown):
    """The panel of a client; it rests while no call is open, and is looked at again by `wake`."""

    def __init__(self, name: str, status: Callable[[], Status | None]) -> None:
        super().__init__()
        self.name = name
        self.status = status
        self.last: Status | None = None
        self.closing: str | None = None

    def look(self) -> bool:
        with self.lock:
            status = self.status()
            if status is None:
                self._lose()
                return False
            before, self.last = self.last, status
            if not status.over:
                self.closing = None
            elif self.closing is None or (before is not None and before.submitted != status.submitted):
                self.closing = _ending(status, seen=before is not None)
            self._draw(status)
            return not status.over

    def lasts(self) -> bool:
        return self.status() is not None

    def _lose(self) -> None:
        """The client was collected; nobody's calls are open then."""
        if self.last is not None and self.closing is None:
            self.closing = f"the client is gone, as of {_clock(self.last.at)}"
            self._draw(self.last)
        self.end()

    def _draw(self, status: Status) -> None:
        self.show(*panel(status, name=self.name, closing=self.closing))


class _Box(_Shown):
    """A pending future, which becomes its answer."""

    def __init__(self, future: Any) -> None:
        super().__init__()
        self.future = future

    def look(self) -> bool:
        future = self.future
        if not future.done():
            self.show(*_boxed(_pending(future.ratelimit)))
            return True
        self.show(*_ended(future))
        self.end()
        self.future = None  # the notebook shows the answer; it need not be kept for that
        return False


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
        execution = _execution()[1]
        if execution is None or execution != self._execution:
            self._execution, self._panel, self._waited = execution, None, 0.0
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
        with _lock:
            shown = [one for one in _open if isinstance(one, _Panel) and one.execution == self._execution]
        return any(getattr(one.status, "owner", lambda: None)() is owner for one in shown)


class _Waiting(_Shown):
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
                self.final = f"stopped waiting at {_clock(status.at)}; the calls go on"
            elif status.over:
                self.final = self.final or _ending(status, seen=True)
            else:
                self.final = None if state == "open" else f"as of {_clock(status.at)}; the other calls go on"
            self.show(*panel(status, name="waiting for answers", closing=self.final))


# -- words ------------------------------------------------------------------------------------------------------------


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _ending(status: Status, *, seen: bool) -> str | None:
    """When the last call ended: about now, if it was seen to end."""
    if not status.submitted:
        return None
    if not seen:
        return f"no call is open ({_clock(status.at)})"
    return f"finished at {_clock(status.at)}, after {span(status.elapsed)}"


def _pending(fares: Ratelimit) -> str:
    """How a pending call fares: "queued 7 of 13 · ~7 s", "running 0.8 s · try 2"."""
    if fares.state != "queued":
        sent = "" if fares.sent_s is None else f" {fares.sent_s:.1f} s"
        return f"{fares.state}{sent}" + (f" · try {fares.attempts}" if fares.attempts > 1 else "")
    parts = ["queued" if fares.place is None else f"queued {fares.place:,} of {fares.of or fares.place:,}"]
    if fares.eta is not None:
        parts.append(f"~{fares.eta:.0f} s" if fares.eta < 59.5 else f"~{span(fares.eta)}")
    if fares.held_by is not None:
        parts.append(f"waits for {fares.held_by}")
    return " · ".join(parts)


def _boxed(text: str) -> tuple[str, str]:
    return f'<div style="opacity:.7;margin:2px 0">{escape(text)}</div>', text


def _ended(future: Any) -> tuple[str, str]:
    """What became of a future that is done."""
    if future.cancelled():
        return _boxed("cancelled")
    error = future.exception(0)
    if error is not None:
        text = _shortened(f"{type(error).__name__}: {error}")
        return f'<div style="margin:2px 0;overflow-wrap:anywhere">{escape(text)}</div>', text
    response = future.result(0)
    text = _shortened(next(texts(response), None) or _repr(response))
    style = "white-space:pre-wrap;overflow-wrap:anywhere;margin:2px 0"
    return f'<pre style="{style}">{escape(text)}</pre>', text


def _repr(response: Any) -> str:
    try:
        return repr(response)
    except Exception as error:
        return f"<{type(response).__name__}, whose repr failed: {type(error).__name__}>"


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST:,} more characters)"


def _weakly(status: Callable[[], Status]) -> Callable[[], Status | None]:
    """The same, without keeping its object; None when that was collected."""
    owner = getattr(status, "__self__", None)
    if owner is None:
        return status
    method: Any = weakref.WeakMethod(status)

    def ask() -> Status | None:
        bound = method()
        return None if bound is None else bound()

    ask.owner = weakref.ref(owner)  # type: ignore[attr-defined]
    return ask
