"""What a light future is inside: its state, its lock, those who wait for it, and the steps that change them.

A million calls may be queued and only a few are waited for at one moment, so what a wait needs is made by the wait:

1. Until somebody waits, a future has no lock of its own: its steps happen under one of the few locks of this module.
2. `wait()` and `as_completed()` hold the locks of many futures at a time, so the first use of `_condition` gives the
   future its own lock, for life; from then on its steps happen under that one; `_atomically` takes the right one.
3. The module's locks are the innermost: nothing else is taken while one is held, and nobody's code runs under it.
4. A finished future never changes again, so one that ended without a lock needs none: its `_condition` guards nothing.

`concurrent.futures` only ever locks and unlocks `_condition` from outside the class (3.10 to 3.14); the waiting half of
a Condition would cost a kilobyte, so here each waiting thread sleeps at a gate, a plain lock, instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, TypeVar

from ..forks import at_fork

__all__ = [
    "OVER", "FutureState", "Waits", "adding_callback", "adding_gate", "cancelling", "ending", "passing_on", "pausing",
    "removing_gate", "starting", "store_call", "store_owner",
]  # fmt: skip

T = TypeVar("T")
R = TypeVar("R")

OVER = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED})
_FINAL = frozenset({CANCELLED_AND_NOTIFIED, FINISHED})


# Reentrant, because a signal handler or a finalizer may cancel futures while its own thread is in a step. Several,
# because with one, threads that end futures one after the other meet there, and then go on meeting at each (a convoy).
_LOCKS = 64
_locks = [threading.RLock() for _ in range(_LOCKS)]


def _renew_locks_after_fork() -> None:
    # A thread that is not in the child may have held one.
    _locks[:] = [threading.RLock() for _ in range(_LOCKS)]


at_fork(_renew_locks_after_fork)


class Waits:
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


class FutureState(Future[T]):
    """The slots of a light future, and its lock; see the rules above. What users call is in `LightFuture`."""

    # These shadow the instance attributes of the base, whose __init__ is never called. `_result` and `_exception`
    # are unset until it is finished; the `_result` of a failed one is its Failure.
    __slots__ = ("_call", "_exception", "_owner", "_result", "_state", "_waits", "_where")

    if TYPE_CHECKING:
        _call: Any
        _owner: Any
        _waits: Waits | None
        _where: str | None

    def __init__(self, call: Any = None, owner: Any = None, where: str | None = None) -> None:
        store_state(self, PENDING)
        store_waits(self, None)
        store_call(self, call)
        store_owner(self, owner)
        store_where(self, where)

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
            waits = self._atomically(giving_lock, threading.RLock(), Waits())
        return _UNGUARDED if waits is None else waits.lock

    def _own_waiters(self) -> Any:
        return _UNGUARDED if self._waits is None else self._waits.waiters

    def _no_other(self, value: Any) -> None:
        raise AttributeError("a LightFuture makes its own lock and its own list of waiters")

    if not TYPE_CHECKING:  # as_completed() is typed for what a Future says it has: attributes
        _condition = property(_own_lock, _no_other)
        _waiters = property(_own_waiters, _no_other)


# A subclass that overrides __setattr__ would have every store below run through it; a slot's own setter does not.
store_state, store_waits, store_call, store_owner, store_where, store_result, store_exception = (
    FutureState.__dict__[name].__set__
    for name in ("_state", "_waits", "_call", "_owner", "_where", "_result", "_exception")
)


# The steps: each runs under the lock of its future, and runs nobody else's code.


def _waits_of(future: FutureState[Any], fresh: Waits) -> Waits:
    # `fresh` was made before the lock was taken: making an object can start the collector, and with it any finalizer.
    if future._waits is None:
        store_waits(future, fresh)
        return fresh
    return future._waits


def adding_gate(future: FutureState[Any], gate: Any, fresh: Waits) -> bool:
    if future._state in OVER:
        return False
    _waits_of(future, fresh).gates.append(gate)
    return True


def removing_gate(future: FutureState[Any], gate: Any) -> None:
    waits = future._waits
    if waits is not None and gate in waits.gates:
        waits.gates.remove(gate)


def adding_callback(future: FutureState[Any], fn: Callable[[Any], object], fresh: Waits) -> bool:
    if future._state in OVER:
        return False
    _waits_of(future, fresh).callbacks.append(fn)
    return True


def giving_lock(future: FutureState[Any], lock: Any, fresh: Waits) -> Waits | None:
    if future._state in _FINAL and (future._waits is None or future._waits.lock is None):
        return None
    waits = _waits_of(future, fresh)
    if waits.lock is None:
        waits.lock = lock
    return waits


def cancelling(future: FutureState[Any]) -> tuple[str, list[Callable[[Any], object]]]:
    state = future._state
    if state != PENDING:
        return state, []
    store_state(future, CANCELLED)
    return state, _wake(future)


def starting(future: FutureState[Any]) -> str:
    state = future._state
    if state == PENDING:
        store_state(future, RUNNING)
    elif state == CANCELLED:
        store_state(future, CANCELLED_AND_NOTIFIED)
        for waiter in future._waiters if future._waits else ():
            waiter.add_cancelled(future)
    return state


def ending(
    future: FutureState[Any], result: Any, exception: BaseException | None
) -> tuple[bool, Any, list[Callable[[Any], object]]]:
    if future._state in OVER:
        return True, None, []
    store_result(future, result)
    store_exception(future, exception)
    store_state(future, FINISHED)  # last: others read it without the lock
    kept = (future._call, future._owner)
    store_call(future, None)
    store_owner(future, None)
    waits = future._waits
    if waits is None:
        return False, kept, []
    for waiter in waits.waiters:
        if exception is None:
            waiter.add_result(future)
        else:
            waiter.add_exception(future)
    return False, kept, _wake(future)


def _wake(future: FutureState[Any]) -> list[Callable[[Any], object]]:
    """Open the gates, and hand out the callbacks, which are called when the lock is free again."""
    waits = future._waits
    if waits is None:
        return []
    for gate in waits.gates:
        gate.release()
    callbacks = waits.callbacks
    waits.gates, waits.callbacks = [], []
    if waits.lock is None and future._state == FINISHED:
        store_waits(future, None)
    return callbacks


def pausing(future: FutureState[Any]) -> None:
    if future._state == RUNNING:
        store_state(future, PENDING)


def passing_on(future: FutureState[Any], call: Any) -> None:
    if future._state not in OVER:
        store_call(future, call)
