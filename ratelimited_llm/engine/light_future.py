"""LightFuture: `concurrent.futures.Future` to the letter, for a hundred bytes instead of a thousand.

A million calls may be queued and only a few are waited for at one moment, so what a wait needs is made by the wait:

1. Until somebody waits, a future has no lock of its own: its steps happen under one of the few locks of this module.
2. `wait()` and `as_completed()` hold the locks of many futures at a time, so the first use of `_condition` gives the
   future its own lock, for life; from then on its steps happen under that one; `_atomically` takes the right one.
3. The module's locks are the innermost: nothing else is taken while one is held, and nobody's code runs under it.
4. A finished future never changes again, so one that ended without a lock needs none: its `_condition` guards nothing.

`concurrent.futures` only ever locks and unlocks `_condition` from outside the class (3.10 to 3.14); the waiting half of
a Condition would cost a kilobyte, so here each waiting thread sleeps at a gate, a plain lock, instead.

Longer than a file should be, because these rules can only be checked with every step in sight.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ratelimited_llm.engine.room import sleep_at
from ratelimited_llm.engine.submission_site import add_note_of_submission

__all__ = ["LightFuture", "Owner", "abandon", "begin", "callbacks_later", "pass_on", "pause"]

T = TypeVar("T")
R = TypeVar("R")

_contract_log = logging.getLogger("concurrent.futures")  # where a Future reports its callbacks' errors
_log = logging.getLogger("ratelimited_llm")

_OVER = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED})
_FINAL = frozenset({CANCELLED_AND_NOTIFIED, FINISHED})


# A script that reads none of two thousand failures is told of each kind and place once, of the first few at most.
MOST_UNREAD_SHOWN = 5
_unread: set[tuple[str, str]] = set()
_more_unread = itertools.count()

# Reentrant, because a signal handler or a finalizer may cancel futures while its own thread is in a step. Several,
# because with one, threads that end futures one after the other meet there, and then go on meeting at each (a convoy).
_LOCKS = 64
_locks = [threading.RLock() for _ in range(_LOCKS)]


def _renew_locks_after_fork() -> None:
    # A thread that is not in the child may have held one.
    _locks[:] = [threading.RLock() for _ in range(_LOCKS)]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks_after_fork)


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


class _Waits:
    """What those who wait for one future left with it; made when the first of them comes."""

    __slots__ = ("callbacks", "gates", "lock", "waiters")

    def __init__(self) -> None:
        self.lock: Any = None  # its own lock, or None while one of the module's serves
        self.gates: list[Any] = []  # one locked lock for each thread in result() or exception()
        self.waiters: list[Any] = []  # of wait() and as_completed()
        self.callbacks: list[Callable[[Any], object]] = []


class _Unguarded:
    """The `_condition` and the `_waiters` of a future that is over: there is nothing left to guard or to announce."""

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return True

    def release(self) -> None:
        pass

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *error: object) -> None:
        pass

    def append(self, waiter: object) -> None:
        pass

    def remove(self, waiter: object) -> None:
        pass


_UNGUARDED: Any = _Unguarded()


class _Failure:
    """Kept beside the exception of a failed future: the traceback it came with, and whether anybody looked."""

    __slots__ = ("kind", "read", "traceback", "where")

    def __init__(self, exception: BaseException, where: str | None) -> None:
        self.kind = type(exception).__name__
        self.traceback: TracebackType | None = getattr(exception, "__traceback__", None)
        self.where = where
        self.read = False

    def __del__(self) -> None:
        # It may run anywhere, so it takes no lock but logging's own, which is reentrant; and the interpreter may be
        # half gone. The error's text stays out: it may quote the prompt.
        if not self.read:
            with suppress(Exception):
                told = (self.kind, self.where or "an unknown place")
                news = told not in _unread and len(_unread) < MOST_UNREAD_SHOWN
                level = logging.WARNING if news else logging.DEBUG
                _log.log(level, "unread_failure: nobody read the %s of a call that was submitted at %s", *told)
                if news:
                    _unread.add(told)
                elif next(_more_unread) == 0:
                    _log.warning("unread_failure: and of more calls; RATELIMITED_LLM_LOG=debug shows each")


class LightFuture(Future[T]):
    """A Future whose lock and lists are made when somebody first waits.

    Args:
        call: the driver's own object, kept as `_call` until the future ends and not a moment longer.
        owner: who is told that it was cancelled or is waited for; see `Owner`.
        where: the user's line that submitted it; see `submitted_at`.
    """

    # These shadow the instance attributes of the base, whose __init__ is never called. `_result` and `_exception`
    # are unset until it is finished; the `_result` of a failed one is its _Failure.
    __slots__ = ("_call", "_exception", "_owner", "_result", "_state", "_waits", "_where")

    if TYPE_CHECKING:
        _call: Any
        _owner: Owner | None
        _waits: _Waits | None
        _where: str | None

    def __init__(self, call: Any = None, owner: Owner | None = None, where: str | None = None) -> None:
        _set_state(self, PENDING)
        _set_waits(self, None)
        _set_call(self, call)
        _set_owner(self, owner)
        _set_where(self, where)

    # -- asking: an attribute is read in one piece, so these need no lock

    def cancelled(self) -> bool:
        """Return True if it was cancelled."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        """Return True while it is being sent or answered."""
        return self._state == RUNNING

    def done(self) -> bool:
        """Return True if it was cancelled or is finished."""
        return self._state in _OVER

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
        if type(failure) is not _Failure:
            return None
        failure.read = True
        return failure.traceback

    def _wait(self, timeout: float | None) -> None:
        """Return when it is finished; raise when it was cancelled, or is not finished in time."""
        if self._state not in _OVER and (timeout is None or timeout > 0):
            owner = self._owner  # once: it is dropped by the thread that ends this future
            watch = None if owner is None else owner.waiting(self)
            gate = threading.Lock()
            gate.acquire()
            if self._atomically(_open_gate_later, gate, _Waits()):
                try:
                    if watch is None:
                        sleep_at(gate, timeout)
                    else:
                        watch(partial(sleep_at, gate), timeout)
                finally:
                    if self._state not in _OVER:  # it was left too early; whoever ends it forgets all gates
                        self._atomically(_forget_gate, gate)
        if self._state != FINISHED:
            raise CancelledError if self._state in _OVER else FutureTimeoutError

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call `fn(future)` when it is done, in the thread that ends it; at once if it is done already."""
        if not self._atomically(_call_later, fn, _Waits()):
            self._call_back([fn])

    # -- ending

    def cancel(self) -> bool:
        """Cancel it if it is still queued; False if it is running or finished."""
        state, callbacks = self._atomically(_cancel)
        if state is not PENDING:
            return state in (CANCELLED, CANCELLED_AND_NOTIFIED)
        try:
            owner = self._owner
            if owner is not None:
                owner.cancelled(self)
        except Exception:
            _log.exception("owner_failed: telling it that %r is cancelled", self)
        _set_owner(self, None)
        _set_call(self, None)
        self._call_back(callbacks)
        return True

    def set_running_or_notify_cancel(self) -> bool:
        """Mark it as running; or, if it was cancelled, tell those who wait for it and return False.

        Raises:
            RuntimeError: it was already called, or the future has ended.
        """
        state = self._atomically(_start)
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
            self._finish(_Failure(exception, self._where), exception)

    def _finish(self, result: Any, exception: BaseException | None) -> None:
        ended, call, callbacks = self._atomically(_end, result, exception)
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

    # -- locking

    def _atomically(self, step: Callable[..., R], *args: Any) -> R:
        """Take a step under this future's lock."""
        waits = self._waits
        while waits is None or waits.lock is None:
            with _locks[(id(self) >> 4) % _LOCKS]:
                waits = self._waits
                if waits is None or waits.lock is None:  # if not, it was given its own while we waited for this one
                    return step(self, *args)
        with waits.lock:
            return step(self, *args)

    def _own_lock(self) -> Any:
        """Made by the first who asks: wait() and as_completed() hold it while they settle in."""
        waits = self._waits
        if waits is None or waits.lock is None:
            waits = self._atomically(_give_lock, threading.RLock(), _Waits())
        return _UNGUARDED if waits is None else waits.lock

    def _own_waiters(self) -> Any:
        return _UNGUARDED if self._waits is None else self._waits.waiters

    def _no_other(self, value: Any) -> None:
        raise AttributeError("a LightFuture makes its own lock and its own list of waiters")

    if not TYPE_CHECKING:  # as_completed() is typed for what a Future says it has: attributes
        _condition = property(_own_lock, _no_other)
        _waiters = property(_own_waiters, _no_other)


# A subclass that overrides __setattr__ would have every store below run through it; a slot's own setter does not.
_set_state, _set_waits, _set_call, _set_owner, _set_where, _set_result, _set_exception = (
    LightFuture.__dict__[name].__set__
    for name in ("_state", "_waits", "_call", "_owner", "_where", "_result", "_exception")
)


# The steps: each runs under the lock of its future, and runs nobody else's code.


def _waits_of(future: LightFuture[Any], fresh: _Waits) -> _Waits:
    # `fresh` was made before the lock was taken: making an object can start the collector, and with it any finalizer.
    if future._waits is None:
        _set_waits(future, fresh)
        return fresh
    return future._waits


def _open_gate_later(future: LightFuture[Any], gate: Any, fresh: _Waits) -> bool:
    if future._state in _OVER:
        return False
    _waits_of(future, fresh).gates.append(gate)
    return True


def _forget_gate(future: LightFuture[Any], gate: Any) -> None:
    waits = future._waits
    if waits is not None and gate in waits.gates:
        waits.gates.remove(gate)


def _call_later(future: LightFuture[Any], fn: Callable[[Any], object], fresh: _Waits) -> bool:
    if future._state in _OVER:
        return False
    _waits_of(future, fresh).callbacks.append(fn)
    return True


def _give_lock(future: LightFuture[Any], lock: Any, fresh: _Waits) -> _Waits | None:
    if future._state in _FINAL and (future._waits is None or future._waits.lock is None):
        return None
    waits = _waits_of(future, fresh)
    if waits.lock is None:
        waits.lock = lock
    return waits


def _cancel(future: LightFuture[Any]) -> tuple[str, list[Callable[[Any], object]]]:
    state = future._state
    if state != PENDING:
        return state, []
    _set_state(future, CANCELLED)
    return state, _wake(future)


def _start(future: LightFuture[Any]) -> str:
    state = future._state
    if state == PENDING:
        _set_state(future, RUNNING)
    elif state == CANCELLED:
        _set_state(future, CANCELLED_AND_NOTIFIED)
        for waiter in future._waiters if future._waits else ():
            waiter.add_cancelled(future)
    return state


def _end(
    future: LightFuture[Any], result: Any, exception: BaseException | None
) -> tuple[bool, Any, list[Callable[[Any], object]]]:
    if future._state in _OVER:
        return True, None, []
    _set_result(future, result)
    _set_exception(future, exception)
    _set_state(future, FINISHED)  # last: others read it without the lock
    kept = (future._call, future._owner)
    _set_call(future, None)
    _set_owner(future, None)
    waits = future._waits
    if waits is None:
        return False, kept, []
    for waiter in waits.waiters:
        if exception is None:
            waiter.add_result(future)
        else:
            waiter.add_exception(future)
    return False, kept, _wake(future)


def _wake(future: LightFuture[Any]) -> list[Callable[[Any], object]]:
    """Open the gates, and hand out the callbacks, which are called when the lock is free again."""
    waits = future._waits
    if waits is None:
        return []
    for gate in waits.gates:
        gate.release()
    callbacks = waits.callbacks
    waits.gates, waits.callbacks = [], []
    if waits.lock is None and future._state == FINISHED:
        _set_waits(future, None)
    return callbacks


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


def begin(future: LightFuture[Any]) -> bool:
    """Mark it as running, or tell those who wait that it was cancelled: `set_running_or_notify_cancel` for our code.

    Whoever cancels and whoever sends may meet here, so that a second time is no error.

    Returns:
        True if it is to be sent, for the first time or again.
    """
    return future._atomically(_start) in (PENDING, RUNNING)


def pause(future: LightFuture[Any]) -> None:
    """Mark it as queued again, and so as one that can be cancelled: it was about to be sent, and was not."""
    future._atomically(_pause)


def _pause(future: LightFuture[Any]) -> None:
    if future._state == RUNNING:
        _set_state(future, PENDING)


def pass_on(future: LightFuture[Any], call: Any) -> None:
    """Let another call of the driver answer it from now on; does nothing if it is over."""
    future._atomically(_pass_on, call)


def _pass_on(future: LightFuture[Any], call: Any) -> None:
    if future._state not in _OVER:
        _set_call(future, call)


def abandon(future: LightFuture[Any], exception: BaseException) -> None:
    """In the child of a fork, end an inherited future that nobody will answer here; does nothing if it is over.

    Whoever held its lock, or that of a `wait()` for it, at the moment of the fork is not in the child, so those locks
    are replaced first. Its owner is not told, and nobody is blamed for not looking: the call is still the parent's.
    """
    _set_owner(future, None)
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
