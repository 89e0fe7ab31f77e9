"""Live displays in Jupyter: the panel of a client, and the box of a pending future. Nothing here waits for a call."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from html import escape
from typing import Any

from ..books.status import Ratelimit, Status
from .answer_text import texts
from .displays import Shown, clock, ending, now_open, opened, ticker
from .modes import in_kernel
from .number_text import span
from .panel import panel

__all__ = ["Panel", "interrupted", "show_client", "show_future", "wake"]

LONGEST = 50_000  # characters of an answer


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
    Panel(name, _weakly(status)).begin()


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
    for shown in now_open() if opened else ():
        if isinstance(shown, Panel):
            ticker.add(shown)


def interrupted(queued: int) -> str:
    """What to say when somebody interrupted a wait."""
    if queued == 0:
        return "stopped waiting; no request is queued any more."
    requests = "1 request is" if queued == 1 else f"{queued:,} requests"
    return f"stopped waiting; {requests} still queued. client.cancel() drops them, client.wait() waits again."


class Panel(Shown):
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
                self.closing = ending(status, seen=before is not None)
            self._draw(status)
            return not status.over

    def lasts(self) -> bool:
        return self.status() is not None

    def _lose(self) -> None:
        """The client was collected; nobody's calls are open then."""
        if self.last is not None and self.closing is None:
            self.closing = f"the client is gone, as of {clock(self.last.at)}"
            self._draw(self.last)
        self.end()

    def _draw(self, status: Status) -> None:
        self.show(*panel(status, name=self.name, closing=self.closing))


class _Box(Shown):
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
