"""LightFuture: `concurrent.futures.Future` to the letter, for a hundred bytes instead of a thousand.

What it is inside, and the rules of its locks, are in `future_state`. The functions at the end are for whoever drives
it; users see none of them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .future_state import (
    OVER,
    FutureState,
    Waits,
    adding_callback,
    adding_gate,
    cancelling,
    ending,
    passing_on,
    pausing,
    removing_gate,
    starting,
    store_call,
    store_owner,
)
from .gates import sleep_at
from .submission_site import add_note_of_submission
from .unread_failures import Failure

__all__ = ["LightFuture", "Owner", "abandon", "begin", "callbacks_later", "pass_on", "pause"]

T = TypeVar("T")

_contract_log = logging.getLogger("concurrent.futures")  # where a Future reports its callbacks' errors
_log = logging.getLogger("ratelimited_llm")

Wait = Callable[[float | None], bool]
Watch = Callable[[Wait, float | None], bool]


class Owner(Protocol):
    """Who answers a future; one object may own any number of them. No lock is held during these calls."""

    def cancelled(self, future: LightFuture[Any]) -> None:
        """The user cancelled it while it was queued; `future._call` is still there, and is dropped after this."""

    def waiting(self, future: LightFuture[Any]) -> Watch | None:
        """A thread, the current one, is about to block on it; called once for each such wait.

        Returns:
            What is to do the waiting, given a function that waits at most so many seconds (None: as long as it takes)
            and says whether it has an end, and how long at most; or None, for nobody cares.
        """

    def describe(self, future: LightFuture[Any]) -> str:
        """Say in at most 33 ASCII characters how far it is: "queued 812/1990 ~1m38s". Must not block."""


class LightFuture(FutureState[T]):
    """A Future whose lock and lists are made when somebody first waits.

    Args:
        call: the driver's own object, kept as `_call` until the future ends and not a moment longer.
        owner: who is told that it was cancelled or is waited for; see `Owner`.
        where: the user's line that submitted it; see `submitted_at`.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        _owner: Owner | None

    # -- asking: an attribute is read in one piece, so these need no lock

    def cancelled(self) -> bool:
        """Return True if it was cancelled."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        """Return True while it is being sent or answered."""
        return self._state == RUNNING

    def done(self) -> bool:
        """Return True if it was cancelled or is finished."""
        return self._state in OVER

    def result(self, timeout: float | None = None) -> T:
        """Return the response, waiting for it at most `timeout` seconds (None: as long as it takes).

        Raises:
            CancelledError: it was cancelled.
            TimeoutError: it was not done in time (`concurrent.futures.TimeoutError` on Python 3.10).
            Exception: the very object that the call failed with.
        """
        try:
            if self._state != FINISHED:
                self._wait(timeout)
            if self._exception is None:
                return self._result  # type: ignore[return-value]
            # Raising adds to the traceback of the one exception: without the reset it grows with each look at it.
            raise self._exception.with_traceback(self._read_failure())
        finally:
            del self  # else: exception -> traceback -> this frame -> future -> exception

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call failed with, or None, waiting at most `timeout` seconds (None: as long as it takes).

        Raises:
            CancelledError: it was cancelled.
            TimeoutError: it was not done in time (`concurrent.futures.TimeoutError` on Python 3.10).
        """
        if self._state != FINISHED:
            self._wait(timeout)
        if self._exception is not None:
            self._read_failure()
        return self._exception

    def _read_failure(self) -> TracebackType | None:
        failure: Any = self._result
        if type(failure) is not Failure:
            return None
        failure.read = True
        return failure.traceback

    def _wait(self, timeout: float | None) -> None:
        """Return when it is finished; raise when it was cancelled, or is not finished in time."""
        if self._state not in OVER and (timeout is None or timeout > 0):
            owner = self._owner  # once: it is dropped by the thread that ends this future
            watch = None if owner is None else owner.waiting(self)
            gate = threading.Lock()
            gate.acquire()
            if self._atomically(adding_gate, gate, Waits()):
                try:
                    if watch is None:
                        sleep_at(gate, timeout)
                    else:
                        watch(partial(sleep_at, gate), timeout)
                finally:
                    if self._state not in OVER:  # it was left too early; whoever ends it forgets all gates
                        self._atomically(removing_gate, gate)
        if self._state != FINISHED:
            raise CancelledError if self._state in OVER else FutureTimeoutError

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call `fn(future)` when it is done, in the thread that ends it; at once if it is done already."""
        if not self._atomically(adding_callback, fn, Waits()):
            self._call_back([fn])

    # -- ending

    def cancel(self) -> bool:
        """Cancel it if it is still queued; False if it is running or finished."""
        state, callbacks = self._atomically(cancelling)
        if state is not PENDING:
            return state in (CANCELLED, CANCELLED_AND_NOTIFIED)
        try:
            owner = self._owner
            if owner is not None:
                owner.cancelled(self)
        except Exception:
            _log.exception("owner_failed: telling it that %r is cancelled", self)
        store_owner(self, None)
        store_call(self, None)
        self._call_back(callbacks)
        return True

    def set_running_or_notify_cancel(self) -> bool:
        """Mark it as running; or, if it was cancelled, tell those who wait for it and return False.

        Raises:
            RuntimeError: it was already called, or the future has ended.
        """
        state = self._atomically(starting)
        if state not in (PENDING, CANCELLED):
            _contract_log.critical("Future %s in unexpected state: %s", id(self), state)
            raise RuntimeError("Future in unexpected state")
        return state == PENDING

    def set_result(self, result: T) -> None:
        """End it with the response.

        Raises:
            InvalidStateError: it has ended before.
        """
        self._finish(result, None)

    def set_exception(self, exception: BaseException | None) -> None:
        """End it with what the call failed with, which gets a note that says where the call was submitted.

        Raises:
            InvalidStateError: it has ended before.
        """
        if exception is None:
            self._finish(None, None)
        else:
            add_note_of_submission(exception, self._where)
            self._finish(Failure(exception, self._where), exception)

    def _finish(self, result: Any, exception: BaseException | None) -> None:
        ended, call, callbacks = self._atomically(ending, result, exception)
        if ended:
            if exception is not None:
                result.read = True  # this failure is not kept, so it has nothing to complain of
            raise InvalidStateError(f"{self._state}: {self!r}")
        del call  # here, where no lock is held: it may be the last reference to the request and its body
        self._call_back(callbacks)

    def _call_back(self, callbacks: list[Callable[[Any], object]]) -> None:
        if not callbacks:
            return
        later: callbacks_later | None = getattr(_ending, "later", None)
        if later is not None:
            later.kept.append((self, callbacks))
            return
        for callback in callbacks:
            try:
                callback(self)
            except Exception:
                _contract_log.exception("exception calling callback for %r", self)


_ending = threading.local()


class callbacks_later:
    """Within the `with` block, the callbacks of futures that this thread ends are kept; `call` calls them."""

    __slots__ = ("kept", "outer")

    def __init__(self) -> None:
        self.kept: list[tuple[LightFuture[Any], list[Callable[[Any], object]]]] = []

    def __enter__(self) -> callbacks_later:
        self.outer: callbacks_later | None = getattr(_ending, "later", None)
        _ending.later = self
        return self

    def __exit__(self, *error: object) -> None:
        _ending.later = self.outer

    def call(self) -> None:
        """Call what was kept back."""
        kept, self.kept = self.kept, []
        for future, callbacks in kept:
            future._call_back(callbacks)


# -- for whoever drives it ---------------------------------------------------------------------------------------------


def begin(future: LightFuture[Any]) -> bool:
    """Mark it as running, or tell those who wait that it was cancelled: `set_running_or_notify_cancel` for our code.

    Whoever cancels and whoever sends may meet here, so that a second time is no error.

    Returns:
        True if it is to be sent, for the first time or again.
    """
    return future._atomically(starting) in (PENDING, RUNNING)


def pause(future: LightFuture[Any]) -> None:
    """Mark it as queued again, and so as one that can be cancelled: it was about to be sent, and was not."""
    future._atomically(pausing)


def pass_on(future: LightFuture[Any], call: Any) -> None:
    """Let another call of the driver answer it from now on; does nothing if it is over."""
    future._atomically(passing_on, call)


def abandon(future: LightFuture[Any], exception: BaseException) -> None:
    """In the child of a fork, end an inherited future that nobody will answer here; does nothing if it is over.

    Whoever held its lock, or that of a `wait()` for it, at the moment of the fork is not in the child, so those locks
    are replaced first. Its owner is not told, and nobody is blamed for not looking: the call is still the parent's.
    """
    store_owner(future, None)
    waits = future._waits
    if waits is not None:
        if waits.lock is not None:
            waits.lock = threading.RLock()
        for waiter in waits.waiters:
            _renew_waiter(waiter)
    with suppress(InvalidStateError):
        if future._state == CANCELLED:
            future.set_running_or_notify_cancel()
        future.set_exception(exception)
        future._read_failure()


def _renew_waiter(waiter: Any) -> None:
    was_set = waiter.event.is_set()
    waiter.event = threading.Event()
    if was_set:
        waiter.event.set()
    if hasattr(waiter, "lock"):
        waiter.lock = threading.Lock()
