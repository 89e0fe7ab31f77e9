"""What `gather` and `map_calls` have in common: what may be given, until when to wait, what becomes of a failure."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from numbers import Real
from typing import Any

from ..core.checks import number

__all__ = ["OnError", "check_on_error", "end_of", "is_future", "label", "labels_of", "note", "outcome", "refuse_single"]

OnError = str | Callable[[BaseException], Any]

WAYS = ("raise", "none", "return")


def outcome(error: Exception, on_error: OnError) -> Any:
    """What stands in the place of an item that failed: see `gather`; "raise" raises its error."""
    if callable(on_error):
        return on_error(error)
    if on_error == "raise":
        raise error
    return None if on_error == "none" else error


def is_future(item: Any) -> bool:
    """Whether an item is to be waited for."""
    return issubclass(type(item), Future)  # not isinstance: a future says it is its response, and vice versa


def note(error: BaseException, text: str) -> None:
    """Note on the error which item it belongs to, once: it may be looked at again, and be of several items."""
    notes = getattr(error, "__notes__", ())
    if any(str(note).startswith("item ") for note in notes):
        return
    with suppress(Exception):  # a class may refuse new attributes; the failure itself matters more
        if sys.version_info >= (3, 11):
            error.add_note(text)
        else:  # Python 3.10 does not print it; pytest and rich do
            vars(error)["__notes__"] = [*notes, text]


def label(labels: Any, index: int) -> str:
    """The label of an item in brackets, cut to 60 characters; "" where items have none."""
    if labels is None:
        return ""
    text = repr(labels[index])
    return f" ({text if len(text) <= 60 else text[:57] + '...'})"


def labels_of(iterable: Any) -> Any:
    """The index of a pandas Series, known by its shape, since pandas need not be there; None for anything else."""
    if isinstance(iterable, Mapping) or not hasattr(type(iterable), "iloc"):
        return None
    return list(iterable.index)


def refuse_single(iterable: Any, name: str) -> None:
    """Refuse what could be iterated over and is meant as one thing: a string, a table, a future."""
    if is_future(iterable):
        raise TypeError(f"{name}() takes many futures, in a list for instance; one has its own .result()")
    if isinstance(iterable, (str, bytes, bytearray)):
        raise TypeError(f"{name}() takes a list of items, not one {type(iterable).__name__}")
    if hasattr(type(iterable), "iterrows"):
        raise TypeError(f'{name}() takes one column of a DataFrame, df["column"], not all of it')
    dimensions = iterable.ndim if hasattr(type(iterable), "ndim") else 1
    if dimensions != 1:
        raise ValueError(f"{name}() takes an array of one dimension, not of {dimensions}: use array.ravel()")
    if not hasattr(type(iterable), "__iter__") and not hasattr(type(iterable), "__getitem__"):
        raise TypeError(f"{name}() takes a list of items, not one {type(iterable).__name__}")


def check_on_error(on_error: Any) -> None:
    """Refuse (ValueError) what `on_error` cannot be."""
    if not callable(on_error) and on_error not in WAYS:
        raise ValueError(f"on_error must be one of {', '.join(map(repr, WAYS))}, or a function, not {on_error!r}")


def end_of(timeout: Any) -> float | None:
    """The moment, on the monotonic clock, at which a timeout in seconds is over; None for no bound.

    Raises:
        TypeError, ValueError: it is no number of seconds.
    """
    if timeout is None:
        return None
    if isinstance(timeout, int):
        timeout = number("timeout", timeout, "a number of seconds")
    if not isinstance(timeout, Real) or math.isnan(timeout):
        raise TypeError(f"timeout must be seconds or None, not {timeout!r}")
    seconds = float(timeout)
    return None if seconds >= threading.TIMEOUT_MAX else time.monotonic() + seconds
