"""A batch from its first line to its last: reads ahead a little, submits, and writes what is answered.

The calling thread does all of it. Futures leave themselves in one queue when they are done, and that queue is the only
place where it waits; nothing is kept of a line that has ended.
"""

from __future__ import annotations

import math
import queue
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from ..books.spending import Unpriced
from ..engine.gates import slices
from ..exceptions import CostLimitReached, QueueFull, WorkerStopped
from .files import Files
from .interrupts import told_of_interrupts
from .lines import BadLine, Line
from .output import Past
from .result import BatchInterrupted, BatchResult
from .rows import answer_row, bad_row, failure_row
from .sending import Answer, Calls
from .source import Lines

__all__ = ["Run", "look"]

# Calls open at once, queued ones included, and the bytes of their lines. As many can be in flight from one client as
# 4,096 (`transport.WIDTH`); the rest is what waits behind them, so that a model at its limit does not hold another up.
WINDOW = 6_000
WINDOW_BYTES = 64 * 2**20
TURN = 64  # lines that are submitted before it is looked whether something is done
# Seconds for what is in flight: it is paid for, so a cap on the time is no reason to be as short as after Ctrl-C.
AFTER_INTERRUPT, AFTER_TIME = 5.0, 30.0
# Failures in a row that no other call could escape (a wrong key, no credit, a cap on a cost that nobody knows): more of
# them tell nothing new.
HOPELESS = 25


class _Counts(Counter[str]):
    """The counts of `BatchResult`, by their names, while the batch runs."""

    def of(self, **more: Any) -> BatchResult:
        return BatchResult(**{**self, **more})

    def wants(self, line: Line, past: Past, retry_failed: bool) -> bool:
        """Whether this line is to be sent; if not, it is counted."""
        if line.custom_id in past.answered:
            self["skipped"] += 1
        elif line.custom_id in past.failed and not retry_failed:
            self["failed_before"] += 1
        else:
            return True
        return False


def look(
    lines: Iterable[Line | BadLine], past: Past, retry_failed: bool, path: str | None, errors: str | None
) -> BatchResult:
    """What a run would do, without doing it: what it would send counts as unfinished."""
    began = time.monotonic()
    counts = _Counts()
    for line in lines:
        counts["total"] += 1
        if isinstance(line, BadLine):
            counts["bad"] += 1
        else:
            counts["unfinished"] += counts.wants(line, past, retry_failed)
    return counts.of(seconds=time.monotonic() - began, path=path, errors_path=errors)


class Run:
    """One run: the calls that are open, and how many of the others became what.

    Args:
        calls: sends lines.
        events: where done futures leave themselves, and the input and Ctrl-C a None.
        files: takes the rows.
        retry_failed: whether calls that failed in an earlier run are sent.
    """

    def __init__(self, calls: Calls, events: queue.SimpleQueue[Any], files: Files, retry_failed: bool) -> None:
        self._calls = calls
        self._events = events
        self._files = files
        self._retry_failed = retry_failed
        self._counts = _Counts()
        self._open: dict[Any, Line] = {}
        self._bytes = 0  # of the lines that are open
        self._held: Line | None = None  # the next line, when the client's own queue had no room for it
        self._stopped: str | None = None
        self._until = math.inf  # when to stop; then, when to give up what is in flight
        self._interrupts = 0
        self._hopeless = 0  # failures in a row that others will share
        self._fatal: BaseException | None = None
        self._reason: str | None = None

    def go(self, lines: Lines, max_time: float | None) -> BatchResult:
        """Do it all.

        Raises:
            BatchInterrupted, OSError, Exception: see `run_batch`.
        """
        began = time.monotonic()
        self._until = began + max_time if max_time is not None else math.inf
        try:
            with told_of_interrupts(self._interrupt):
                while self._working(lines):
                    pass
            self._files.flush()
        except BaseException:
            self._cancel()
            raise
        self._counts["unfinished"] += len(self._open)
        result = self._counts.of(
            stopped=self._stopped, reason=self._reason, seconds=time.monotonic() - began, path=self._files.path,
            errors_path=self._files.errors_path,
        )  # fmt: skip
        if self._stopped == "interrupt":
            raise BatchInterrupted(result)
        if self._fatal is not None:
            raise self._fatal
        return result

    def _interrupt(self) -> None:
        """The first Ctrl-C is heard of in the loop; another ends it. May run between any two steps of it."""
        self._interrupts += 1
        if self._interrupts > 1:
            raise KeyboardInterrupt
        self._events.put(None)

    def _working(self, lines: Lines) -> bool:
        """Work to the end; True when it was interrupted by an exception, and is not to end yet."""
        try:
            while self._turn(lines):
                pass
        except KeyboardInterrupt:
            # Ours, the second; or one that a handler of somebody else raised.
            self._interrupts += 1
            self._stop("interrupt", AFTER_INTERRUPT)
            return self._interrupts == 1
        return False

    def _turn(self, lines: Lines) -> bool:
        """Submit some lines, then take in what is done, waiting for it if there is nothing else to do."""
        if self._interrupts and self._stopped != "interrupt":
            self._stop("interrupt", AFTER_INTERRUPT)
        more = self._stopped is None and self._submit_some(lines)
        if not self._open and (self._stopped is not None or lines.ended):
            return False
        if time.monotonic() >= self._until:
            return self._time_is_over()
        try:
            event = self._events.get_nowait() if more else self._next_event()
            while True:
                if event is not None:
                    self._done(event)
                event = self._events.get_nowait()
        except queue.Empty:
            return True

    def _next_event(self) -> Any:
        """Write what there is to write, and wait; raises queue.Empty when the time is over."""
        if self._events.empty():
            self._files.flush()
        for seconds in slices(self._until - time.monotonic()):
            with suppress(queue.Empty):
                return self._events.get(timeout=seconds)
        raise queue.Empty

    def _time_is_over(self) -> bool:
        """The cap on the time was reached, or what is in flight had time enough; whether to go on."""
        if self._stopped is not None:
            return False
        self._stop("time", AFTER_TIME)
        return True

    def _stop(self, why: str, patience: float = math.inf) -> None:
        """Send nothing more, and give what is in flight so many seconds."""
        self._stopped = why
        self._until = time.monotonic() + patience
        if self._held is not None:
            self._held = None
            self._counts["unfinished"] += 1
        self._cancel()

    def _cancel(self) -> None:
        for future in list(self._open):
            if future.cancel():
                self._bytes -= self._open.pop(future).size
                self._counts["unfinished"] += 1

    # -- lines in -----------------------------------------------------------------------------------------------------

    def _submit_some(self, lines: Lines) -> bool:
        """Take lines while there is room; whether there may be more to take at once."""
        for _ in range(TURN):
            if len(self._open) >= WINDOW or self._bytes >= WINDOW_BYTES or self._stopped is not None:
                return False
            line, self._held = self._held, None
            if line is None:
                taken = lines.take()
                if taken is None:
                    return False
                self._counts["total"] += 1
                if isinstance(taken, BadLine):
                    self._bad(taken)
                    continue
                if not self._counts.wants(taken, self._files.past, self._retry_failed):
                    continue
                line = taken
            if not self._submit(line):
                return False
        return True

    def _submit(self, line: Line) -> bool:
        """Send a line; False when there is no room for it until another call is done."""
        try:
            future = self._calls.send(line)
        except QueueFull as error:
            if self._open:
                self._held = line
                return False
            self._failed(line, error)
        except Exception as error:
            self._failed(line, error)
        else:
            if isinstance(future, Future):
                self._open[future] = line
                self._bytes += line.size
                future.add_done_callback(self._events.put)
            else:  # the queue is switched off, and each call waits
                self._answered(line, future)
                self._files.flush()
        return True

    def _bad(self, bad: BadLine) -> None:
        self._counts["bad"] += 1
        if self._retry_failed or ("line", bad.number) not in self._files.past.failed:
            self._files.failure(bad_row(bad), ("line", bad.number))

    # -- answers out --------------------------------------------------------------------------------------------------

    def _done(self, future: Any) -> None:
        line = self._open.pop(future, None)
        if line is None:
            return  # it was cancelled by us
        self._bytes -= line.size
        if future.cancelled():
            self._counts["unfinished"] += 1
            if self._stopped is None:
                self._stop("cancelled")
            return
        error = future.exception()
        if error is None:
            self._answered(line, future.result())
        else:
            self._failed(line, error)

    def _answered(self, line: Line, answer: Any) -> None:
        self._hopeless = 0
        if not isinstance(answer, Answer):  # the SDK's way with what is no JSON
            self._failed(line, ValueError("the answer is no JSON"))
            return
        self._counts["answered"] += 1
        self._files.answer(answer_row(line, answer.status, answer.request_id, answer.body), line)

    def _failed(self, line: Line, error: BaseException) -> None:
        if isinstance(error, CostLimitReached):
            self._reason = self._reason or str(error)
            self._give_up(line, "cost")
        elif isinstance(error, WorkerStopped):
            self._fatal = error
            self._give_up(line, "closed")
        elif _is_hopeless(error) and self._count_hopeless(error):
            self._give_up(line, "refused")
        else:
            self._counts["failed"] += 1
            self._files.failure(failure_row(line, error, self._calls.secret), line.custom_id, line)

    def _give_up(self, line: Line, why: str) -> None:
        """This call was not made, and the next would not be either."""
        self._counts["unfinished"] += 1
        if self._stopped is None:
            self._stop(why)

    def _count_hopeless(self, error: BaseException) -> bool:
        self._hopeless += 1
        if self._hopeless > HOPELESS:
            self._fatal = self._fatal or error
        return self._fatal is not None


def _is_hopeless(error: BaseException) -> bool:
    """Whether every other call would fail for the same reason: no such key, no credit, a cap and no price."""
    if isinstance(error, Unpriced):
        return True
    return getattr(error, "status_code", None) == 401 or getattr(error, "code", None) == "insufficient_quota"
