"""Progress: one line for whoever waits, drawn only while the main thread is blocked in our code.

So the user's own prints never meet it, and short scripts see nothing. The rules that this file keeps:

1. Only the main thread's waits count, and what they cost is some attributes. A wait that lasts starts one thread, the
   ticker, which serves all waits until nobody has waited for a while, and then ends by itself.
2. The ticker asks for the status, and writes while the main thread waits. It claims the stream by `_writing` before it
   looks whether somebody still waits; the main thread ends its wait before it looks at `_writing`. So whichever is
   second sees the other, and no lock is held while anybody writes.
3. Whatever goes wrong here stays here: a wait ends as it would have ended without it.

Longer than a file should be, because the second rule can only be checked with both sides in sight.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any

from ..books.status import Status
from ..forks import at_fork
from .line import line, summary
from .modes import AUTO, BAR, LOG, NONE, NOTEBOOK, chosen, fitting, in_kernel
from .pace import IN_PLACE, LINE_BY_LINE, LONGEST, Pace, Waiting, pause
from .screen import ERASE, columns, in_place, is_taken, put

__all__ = ["FIRST_SLICE", "Progress"]

FIRST_SLICE = 0.5  # seconds after which a wait is one that lasts
STEADY = 0.02  # seconds between two times that the line is put back, in a row of short waits
PATIENCE = 0.25  # seconds that the end of a wait allows a writer; a terminal that was stopped (Ctrl-S) takes for ever
WIDEST = 79
NAME = "ratelimited-llm-progress"

_log = logging.getLogger("ratelimited_llm.progress")
_all: weakref.WeakSet[Progress] = weakref.WeakSet()


class _Row:
    """A row of waits with short gaps, and the last word in it."""

    __slots__ = ("before", "pace", "said")

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.begin(0.0)

    def begin(self, waited: float) -> None:
        self.before = waited  # what had been waited in all when it began
        self.said: float | None = None


class Progress:
    """Shows how far the calls are to whoever waits for them: `with progress:` around every wait.

    Waits may be nested, and count once. Waits of other threads than the main one show nothing. On a terminal it is a
    line that is erased before the wait returns, after 2 s of waiting; elsewhere a plain line every 30 s.

    Args:
        status: tells how far the calls are; called from a thread of its own, at most twice a second.
        mode: "auto" (or True), "bar", "plain", "log", "notebook" or "none" (or False); None is what the environment
            says (`RATELIMITED_LLM_PROGRESS`, `TQDM_DISABLE`), or else "auto".
        stream: where to write; None is what `sys.stderr` is at that moment.
        clock: monotonic seconds.
        environ: the environment; None is `os.environ`.
        sliced: whether each wait calls `lasts()` when it is not over after `FIRST_SLICE` seconds. Then a short wait
            starts no thread; without it, the first wait in a while does.

    Raises:
        TypeError, ValueError: `mode` is none of these.
    """

    def __init__(
        self,
        status: Callable[[], Status],
        mode: bool | str | None = None,
        *,
        stream: Any = None,
        clock: Callable[[], float] = time.monotonic,
        environ: Mapping[str, str] | None = None,
        sliced: bool = False,
    ) -> None:
        self._status = status
        self._mode = chosen(mode, environ)
        self._given = stream
        self._clock = clock
        self._environ = environ
        self._eager = not sliced
        self._panel: Any = None  # what shows it in a notebook
        self._depth = 0
        self._frame: FrameType | None = None  # who waits
        self._since: float | None = None
        self._left = -math.inf
        self._waited = 0.0  # in all
        self._short, self._long = _Row(IN_PLACE), _Row(LINE_BY_LINE)
        self._told = False  # something was said since the last summary
        self._many = False  # and several calls were open then
        self._renew()
        _all.add(self)

    def _renew(self) -> None:
        """Start without a ticker: at first, and in the child of a fork."""
        self._main = None if self._mode == NONE else threading.main_thread().ident
        self._ticker: threading.Thread | None = None
        self._wake = threading.Event()
        self._lock = threading.RLock()  # who is the ticker; reentrant for the sake of signal handlers
        self._text = ""  # the line to put back
        self._put_back = -math.inf
        self._writing = False
        self._drawn: Any = None  # the stream that shows the line
        self._stuck = False

    # -- the main thread

    def __enter__(self) -> None:
        if threading.get_ident() != self._main:
            return
        frame = sys._getframe(1)
        if self._depth and self._is_waiting(frame):
            self._depth += 1
            return
        now = self._clock()
        # From here on nothing is called that a Ctrl-C could tear, but for what is undone.
        self._frame = frame
        self._depth = 1
        self._since = now
        if self._text or now - self._left > IN_PLACE.gap or (self._ticker is None and self._is_long()):
            try:
                self._arrive(now)
            except BaseException:
                self._depth = 0
                self._since = self._frame = None
                self._erase()
                raise

    def __exit__(self, *error: object) -> None:
        if threading.get_ident() != self._main:
            return
        if self._depth > 1:
            self._depth -= 1
            return
        since = self._since
        self._depth = 0
        self._since = self._frame = None
        if self._panel is not None:
            self._leave_panel(*error)
        if self._writing or self._drawn is not None:
            self._erase()
        if since is not None:
            self._left = self._clock()
            self._waited += self._left - since

    def lasts(self) -> None:
        """Say that the present wait is not over after its first slice; of no effect in other threads than the main."""
        if threading.get_ident() == self._main and self._since is not None and self._panel is None:
            self._start()

    def finish(self) -> None:
        """Say in one line how it ended, if anything was said before and no call is open; nothing otherwise.

        May be called after each wait: who reads each answer before the next call is made is told by `close()` alone.
        Prints in the main thread, and once, until something else is said.
        """
        if self._many:
            self._summarize()

    def _summarize(self) -> None:
        if not self._told or self._since is not None or threading.get_ident() != self._main:
            return
        with suppress(Exception):
            status = self._status()
            if status.over:
                self._told = self._many = False
                self._text = ""
                self._short.begin(self._waited)
                self._long.begin(self._waited)
                if self._mode == LOG:
                    _log.info("%s", summary(status), extra={"event": "progress_over"})
                else:
                    put(self._stream, f"{summary(status)}\n")

    def hush(self) -> None:
        """Say nothing more about the calls so far: somebody else tells how they ended."""
        self._told = False
        self._text = ""
        self._wake.set()

    def close(self) -> None:
        """Finish, and end the thread; another wait would begin anew. Never raises; may be called again."""
        self._summarize()
        self._wake.set()

    def _arrive(self, now: float) -> None:
        """What a wait has to do when it is not one more of a row of short ones."""
        if self._mode == AUTO and self._left == -math.inf and in_kernel():
            self._mode = NOTEBOOK
        if self._mode == NOTEBOOK:
            self._eager = True  # each wait is told to the panel
            self._enter_panel()
            return
        for row in (self._short, self._long):
            if now - self._left > row.pace.gap:
                row.begin(self._waited)
        if self._short.said is None:
            self._text = ""
        if self._text and now - self._put_back >= STEADY and not (self._stuck or is_taken()):
            # Between two short waits the line is erased, for the user to print; without this it would flicker.
            self._put_back = now
            self._drawn = self._stream
            put(self._drawn, in_place(self._text))
        if self._ticker is None and self._is_long():
            self._start()

    def _is_long(self) -> bool:
        """Whether the ticker is to look at a wait that begins now."""
        return self._eager or self._waited - self._short.before >= FIRST_SLICE

    def _erase(self) -> None:
        """Take the line away before the wait returns."""
        for _ in range(int(PATIENCE / 0.001)):
            if not self._writing:
                break
            time.sleep(0.001)
        else:
            self._stuck = True  # it would block us too: leave it
            return
        stream, self._drawn = self._drawn, None
        if stream is not None:
            put(stream, ERASE)

    def _is_waiting(self, top: FrameType | None) -> bool:
        """Whether the wait that was entered is still on the stack: a Ctrl-C as `__exit__` begins leaves it behind."""
        while top is not None:
            if top is self._frame:
                return True
            top = top.f_back
        return False

    def _enter_panel(self) -> None:
        try:
            from .waiting import NotebookProgress

            if self._panel is None:
                self._panel = NotebookProgress(self._status)
            self._panel.__enter__()
        except Exception:
            _log.warning("no_panel: the progress cannot be shown in this notebook", exc_info=True)
            self._mode, self._main, self._panel = NONE, None, None

    def _leave_panel(self, *error: Any) -> None:
        with suppress(Exception):
            self._panel.__exit__(*error)

    # -- the ticker

    def _start(self) -> None:
        with self._lock:
            if self._ticker is not None or self._stuck:
                return
            self._wake.clear()
            ticker = threading.Thread(target=self._run, name=NAME, daemon=True)
            self._ticker = ticker
            try:
                ticker.start()
            except BaseException as error:
                self._ticker = None  # if it runs nevertheless, it ends at once
                if not isinstance(error, Exception):
                    raise
                self._stuck = True  # no more threads, or the interpreter is about to end

    def _run(self) -> None:
        me = threading.current_thread()
        while self._ticker is me:
            seconds = None
            with suppress(Exception):
                if not self._wake.is_set():
                    seconds = self._step(self._clock())
            if seconds is not None:
                self._wake.wait(seconds)
            elif self._is_gone(me):
                return

    def _is_gone(self, me: threading.Thread) -> bool:
        """Stop being the ticker, unless somebody waits after all."""
        with self._lock:
            if self._ticker is not me:
                return True
            # First we are gone, then we look: who waits from now on sees that, and who does already is seen.
            self._ticker = None
            if self._stuck or self._waits_since() is None:
                return True
            self._ticker = me
            self._wake.clear()
        return False

    def _waits_since(self) -> float | None:
        """When the present wait began; None when there is none."""
        since = self._since
        if since is None or not self._is_waiting(sys._current_frames().get(self._main or 0)):
            return None
        return since

    def _step(self, now: float) -> float | None:
        """Say what is due, and return the seconds until the next look; None when nobody waits any more."""
        if self._stuck:
            return None
        style = fitting(self._mode, self._stream, self._environ)
        row = self._short if style == BAR else self._long
        waiting = Waiting(self._waits_since(), self._left, self._waited - row.before, row.said)
        seconds = pause(row.pace, waiting, now)
        if seconds == 0.0:
            row.said = now
            with suppress(Exception):
                self._say(style)
            seconds = min(LONGEST, row.pace.every)
        return seconds

    def _say(self, style: str) -> None:
        stream, status = self._stream, self._status()
        self._many = self._many or status.submitted - status.done > 1
        if style == BAR:
            width = min(WIDEST, columns(stream, self._environ) - 1)
            self._text = "" if is_taken() else line(status, width=width)
            if self._text:
                self._write(stream, in_place(self._text), stays=False)
        elif style == LOG:
            self._told = True
            _log.info("%s", line(status), extra={"event": "progress"})
        else:
            self._write(stream, f"{line(status)}\n", stays=True)

    def _write(self, stream: Any, text: str, *, stays: bool) -> None:
        """Write as the ticker, if somebody still waits."""
        self._writing = True
        try:
            if self._since is not None:
                self._told = True
                if not stays:
                    self._drawn = stream
                if not put(stream, text):
                    self._drawn = None
        finally:
            self._writing = False

    @property
    def _stream(self) -> Any:
        return sys.stderr if self._given is None else self._given


def _renew_after_fork() -> None:
    for progress in list(_all):
        progress._renew()


at_fork(_renew_after_fork)
