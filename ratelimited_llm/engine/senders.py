"""Threads that send: started when there is something to send and none is free, gone soon after there is nothing.

Each idle thread sleeps at a gate of its own, and work is given to the one that became idle last: the others get cold,
and leave. Nothing here waits while it holds something that others need, so it may be called from anywhere.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["SenderPool"]

IDLE_SECONDS = 2.0  # how long a thread waits for more before it goes
# Threads that stay while anything is pending: when the main one has ended, some Pythons start none (see `engine`), and
# these drain what is left. ThreadPoolExecutor keeps as many as its calls needed, at most 5 to 32.
KEPT = 16

_log = logging.getLogger("ratelimited_llm.worker")
_numbers = itertools.count()
_current = threading.local()

Work = Callable[[], None]


class _Sender:
    """One thread: the work it was given, and the gate that it sleeps at."""

    __slots__ = ("dismissed", "gate", "pool", "takes", "work")

    def __init__(self, pool: SenderPool) -> None:
        self.pool = pool
        self.work: deque[Work] = deque()
        self.gate: Any = threading.Lock()  # taken but for the moment in which somebody wakes it
        self.gate.acquire()
        self.takes = False  # it is about to be free, and takes the next work itself
        self.dismissed = False

    def wake(self) -> None:
        with suppress(RuntimeError):  # it is awake
            self.gate.release()


def _take_back(sender: _Sender) -> bool:
    try:
        sender.work.pop()
    except IndexError:
        return False
    return True


class SenderPool:
    """Runs work on as many threads as there is work at once; thread-safe.

    Args:
        pending: answers whether more is to come, so that a few threads stay for it.
        last_resort: told when there is work and no thread at all; it has `run_overdue_here` called somewhere.

    Attributes:
        idle_seconds: how long a thread waits for more before it goes.
        threads: those that exist.
        kept: of the idle ones, those that sleep until something happens, since something is pending.
    """

    def __init__(self, pending: Callable[[], bool], last_resort: Callable[[], None] = lambda: None) -> None:
        self.idle_seconds = IDLE_SECONDS
        self.threads: set[threading.Thread] = set()
        self._pending = pending
        self._last_resort = last_resort
        self._idle: list[_Sender] = []  # who is in here sleeps, and whoever takes it out wakes it
        self.kept: set[_Sender] = set()
        self._overdue: deque[Work] = deque()  # no thread could be had for it: for whoever comes free
        self._closed = False

    def prepare(self, wanted: int) -> None:
        """Have one more thread if there are fewer than that, or than are kept, for work that is about to come."""
        if len(self.threads) < min(wanted, KEPT):
            self._start()

    def run(self, work: Work) -> None:
        """Run `work` on a thread that has nothing else to do; when no thread can be had, on the next that comes free.

        On a thread of ours inside `taking`, that is the very thread.
        """
        me: _Sender | None = getattr(_current, "sender", None)
        if me is not None and me.takes and me.pool is self:
            me.takes = False
            me.work.append(work)
        elif not self._give(work) and not self._start(work):
            self._overdue.append(work)
            # A thread may have looked for overdue work just before there was some, and gone to sleep.
            with suppress(IndexError):
                self._idle.pop().wake()
            if not self.threads:
                self._last_resort()

    def taking(self, takes: bool) -> None:
        """Say on a sending thread that its work is done but for a step that gives out more, or that this is over."""
        me: _Sender | None = getattr(_current, "sender", None)
        if me is not None:
            me.takes = takes and not me.work

    def run_overdue_here(self) -> None:
        """On the worker's thread: when there is no thread at all, do the work that waits for one."""
        while self._overdue and not self.threads:
            self._do(self._overdue.popleft())

    def relax(self) -> None:
        """Nothing is pending any more: let the threads that were kept for it go soon."""
        for sender in list(self.kept):
            if self._withdraw(sender):
                sender.wake()

    def dismiss(self) -> None:
        """Let idle threads go now, as if they had been idle for `idle_seconds`."""
        for sender in list(self._idle):
            sender.dismissed = True
            if self._withdraw(sender):
                sender.wake()

    def close(self) -> None:
        """Nothing will come any more: let every thread go when it is idle. May be called from a finalizer."""
        self._closed = True
        self.dismiss()

    # -- giving out ---------------------------------------------------------------------------------------------------

    def _give(self, work: Work) -> bool:
        try:
            sender = self._idle.pop()
        except IndexError:
            return False
        sender.work.append(work)
        sender.wake()
        return True

    def _start(self, work: Work | None = None) -> bool:
        sender = _Sender(self)
        if work is not None:
            sender.work.append(work)
        thread = threading.Thread(
            target=self._serve, args=(sender,), name=f"ratelimited-llm-sender-{next(_numbers)}", daemon=True
        )
        try:
            self.threads.add(thread)
            thread.start()
        except BaseException as error:
            if not thread.is_alive():
                self.threads.discard(thread)
            if not isinstance(error, RuntimeError):
                raise
            _log.debug("thread_refused", exc_info=True)  # no more threads, or the interpreter is ending
            # Or Ctrl-C inside of start(), which can come out as this: then the thread may be there, and have begun.
            return work is not None and not _take_back(sender)
        return True

    # -- in the threads -----------------------------------------------------------------------------------------------

    def _serve(self, me: _Sender) -> None:
        _current.sender = me
        while True:
            while me.work:
                self._do(me.work.popleft())
            try:
                self._do(self._overdue.popleft())
            except IndexError:
                if not self._rest(me):
                    return

    def _do(self, work: Work) -> None:
        try:
            work()
        except BaseException:
            # Work reports its own errors; what arrives here is a fault of ours, and must not cost the thread.
            _log.exception("sender_failed")
        finally:
            del work  # this frame may be kept by a traceback

    def _rest(self, me: _Sender) -> bool:
        """Sleep until there is something to do; False when it is time to leave."""
        stays = me.dismissed = False
        while True:
            self._idle.append(me)
            if stays:
                self.kept.add(me)
            # Only now: whoever changes one of these from here on finds us in the list.
            if (self._overdue or self._closed or (stays and not self._pending())) and self._withdraw(me):
                me.wake()
            woken = me.gate.acquire(timeout=-1 if stays else self.idle_seconds)
            self.kept.discard(me)
            if not woken and not self._withdraw(me):
                # Somebody took us out of the list to give us work, which arrives any moment. (Or was stopped by Ctrl-C
                # just there; then it never does.)
                me.gate.acquire(timeout=self.idle_seconds)
                return True
            if me.work or self._overdue:
                return True
            if woken and not me.dismissed and not self._closed:
                stays = False  # nothing is pending any more: we have a while to live
                continue
            me.dismissed = False
            if self._may_go():
                return False
            stays = True

    def _withdraw(self, sender: _Sender) -> bool:
        """Take it out of the list of the idle; False when somebody else did."""
        try:
            self._idle.remove(sender)
        except ValueError:
            return False
        return True

    def _may_go(self) -> bool:
        """Leave, unless a few threads have to stay for what is pending."""
        thread = threading.current_thread()
        self.threads.discard(thread)
        # Who submits counts the call first and then the threads, we the other way round: one of us sees the other.
        if self._overdue or (not self._closed and len(self.threads) < KEPT and self._pending()):
            self.threads.add(thread)
            return False
        return True
