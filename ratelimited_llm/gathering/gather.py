"""`gather`: wait for calls that are queued, and return their answers in the order of what was given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from .items import OnError, check_on_error, end_of, is_future, label, labels_of, note, outcome, refuse_single

__all__ = ["gather"]


def gather(
    futures: Iterable[Any],
    fn: Callable[[Any], Any] | None = None,
    *,
    on_error: OnError = "raise",
    timeout: float | None = None,
) -> list[Any]:
    """Wait for calls that were queued, and return their answers in order.

    Args:
        futures: what queued calls returned, in a list, a pandas Series, a one-dimensional array, a generator, or a
            mapping (its values; or its keys, when these are the futures). What is no future is an answer already.
        fn: makes something of each answer, as it arrives: `lambda a: a.choices[0].message.content`. When it fails,
            its item has failed.
        on_error: what becomes of an item that failed or was cancelled. "raise": its error is raised, the first in
            order. "none": None in its place. "return": the exception in its place. A function: what it makes of the
            exception in its place.
        timeout: seconds for all of them; None for no bound.

    Nothing is cancelled, whatever happens: what has failed, timed out or was interrupted may be gathered again. An
    error says in a note which item it belongs to.

    Raises:
        TimeoutError: not all were done in time (`concurrent.futures.TimeoutError` on Python 3.10).
        TypeError, ValueError: for an argument that makes no sense, before anything is waited for.
    """
    check_on_error(on_error)
    if fn is not None and not callable(fn):
        raise TypeError(f"fn must be a function of the answer, or None, not {fn!r}")
    end = end_of(timeout)
    given, labels = _items_of(futures)
    results = []
    for index, item in enumerate(given):
        try:
            answer = _answer_of(item, end, index, len(given)) if is_future(item) else item
            results.append(answer if fn is None else fn(answer))
        except _TimeIsUp as error:
            raise FutureTimeoutError(str(error)) from None
        except Exception as error:
            note(error, f"item {index}{label(labels, index)} of gather()")
            results.append(outcome(error, on_error))
    return results


class _TimeIsUp(Exception):
    """No item's own error: the time for all of them is over."""


def _answer_of(future: Future[Any], end: float | None, index: int, total: int) -> Any:
    try:
        # Not result(): an error that a future holds is told from one that strikes this thread, like Ctrl-C.
        error = future.exception(None if end is None else max(0.0, end - time.monotonic()))
    except CancelledError:
        raise
    except FutureTimeoutError:
        if future.done():  # just now
            return _answer_of(future, None, index, total)
        raise _TimeIsUp(f"{index} of {total} answers were there in time, the next one was not") from None
    if error is not None and not isinstance(error, Exception):
        raise error
    try:
        return future.result()
    finally:
        del future, error  # else a failure holds its future: exception -> traceback -> this frame -> future


def _items_of(futures: Any) -> tuple[list[Any], Any]:
    """The items in order, and their labels, if they have any."""
    refuse_single(futures, "gather")
    if not isinstance(futures, Mapping):
        return list(futures), labels_of(futures)
    keys, values = list(futures), list(futures.values())
    if any(map(is_future, keys)):  # as `as_completed` is used: {future: what it is about}
        return keys, values
    return values, keys
