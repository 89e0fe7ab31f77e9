"""`map_calls`: run a blocking function on many items, with results in their order, or as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Any

from .crew import Crew, Item
from .items import OnError, check_on_error, end_of, label, labels_of, note, outcome, refuse_single

__all__ = ["Answers", "begun", "map_calls"]

SHAPES = ("list", "generator", "generator_unordered")  # joblib's words
# Threads that wait for a network cost little, and with 256 of them 20 s of latency still make 768 calls a minute.
MOST_THREADS = 256
LOOK_AHEAD = 64  # items that are read beforehand from an endless iterable while there are few threads


def map_calls(
    fn: Callable[..., Any],
    *iterables: Iterable[Any],
    return_as: str = "list",
    on_error: OnError = "raise",
    max_workers: int | None = None,
    timeout: float | None = None,
) -> Any:
    """Run a blocking function on each set of items, as many at a time as the limits can use.

    Calls that any of our clients makes in it wait and return plain objects, so an old function works as it is:
    `df["label"] = client.map(classify, df.text)`.

    Args:
        fn: called with one item of each iterable, on threads, with the caller's context variables.
        *iterables: as for the built-in map, the shortest ends it. They are read in the caller's thread, some items
            ahead, so that they may be endless.
        return_as: "list"; "generator" for an iterator that has each result when it and those before it are there; or
            "generator_unordered" for one that has each at once. An iterator that is closed or forgotten starts nothing
            more.
        on_error: what becomes of an item that fails, see `gather`; with "raise" nothing more is started after it.
        max_workers: threads at most; None for 256. They start when they are of use, and are gone at the end.
        timeout: seconds from now for all of them; None for no bound.

    An interrupt, an error and a timeout end it: what was not started is dropped, and what runs ends by itself.

    Raises:
        TimeoutError: not all were done in time (`concurrent.futures.TimeoutError` on Python 3.10).
        TypeError, ValueError: for an argument that makes no sense, at once.
    """
    answers = begun(fn, *iterables, return_as=return_as, on_error=on_error, max_workers=max_workers, timeout=timeout)
    return list(answers) if return_as == "list" else answers


def begun(
    fn: Callable[..., Any],
    *iterables: Iterable[Any],
    return_as: str,
    on_error: OnError,
    max_workers: int | None,
    timeout: float | None,
) -> Answers:
    """`map_calls`, with its arguments checked and its first items under way."""
    check_on_error(on_error)
    if return_as not in SHAPES:
        raise ValueError(f"return_as must be one of {', '.join(map(repr, SHAPES))}, not {return_as!r}")
    if not callable(fn):
        raise TypeError(f"map() needs a function first, not {fn!r}")
    most = MOST_THREADS if max_workers is None else max_workers
    if isinstance(most, bool) or not isinstance(most, int):
        raise TypeError(f"max_workers must be a whole number or None, not {max_workers!r}")
    if most < 1:
        raise ValueError(f"max_workers must be 1 or more, or None, not {max_workers!r}")
    end = end_of(timeout)
    if not iterables:
        raise TypeError("map() needs at least one iterable after the function: client.map(classify, texts)")
    for iterable in iterables:
        refuse_single(iterable, "map")
    return Answers(fn, iterables, most, on_error, end, return_as)


class Answers(Iterator[Any]):
    """What `map_calls` iterates over: feeds the crew and takes what it has done, all in the caller's thread."""

    def __init__(
        self, fn: Callable[..., Any], iterables: tuple[Any, ...], most: int, on_error: OnError, end: float | None,
        shape: str,
    ) -> None:  # fmt: skip
        self._crew = Crew(fn, most)
        self._most = most
        self._on_error = on_error
        self._end = end
        self._ordered = shape != "generator_unordered"
        self._keeps = shape == "list"  # whatever has ended is kept anyway, so it does not count as read ahead
        self._labels = labels_of(iterables[0])
        self._source: Iterator[Any] | None = zip(*iterables, strict=False)
        self._total = min(map(len, iterables)) if all(hasattr(type(each), "__len__") for each in iterables) else 0
        self._fed = 0
        self._closed = False
        self._source_error: Exception | None = None
        self._open = 0  # items that were fed and not handed out
        self._next = 0  # the place of the next to hand out, in order
        self._early: dict[int, Item] = {}  # those that ended before their turn
        try:
            self._feed()
        except BaseException:
            self.close()
            raise

    def __next__(self) -> Any:
        try:
            self._feed()  # what was handed out has made room
            if not self._open:
                raise self._source_error or StopIteration
            item = self._take()
            self._open -= 1
            if item.error is None:
                return item.value
            if not isinstance(item.error, Exception):
                raise item.error
            note(item.error, f"item {item.index}{label(self._labels, item.index)} of map()")
            return outcome(item.error, self._on_error)
        except BaseException as error:
            self._finish(error)
            raise
        finally:
            item = None  # type: ignore[assignment]  # an error must not hold itself by way of this frame

    def close(self) -> None:
        """Start nothing more; what runs ends by itself. Safe to call twice, and from anywhere."""
        self._closed, self._source, self._open = True, None, 0
        self._crew.stop()
        self._crew.wake()

    def __del__(self) -> None:
        with suppress(AttributeError):  # its arguments were refused
            self.close()

    def _finish(self, error: BaseException) -> None:
        self._source = None
        dropped = self._crew.stop()
        if isinstance(error, KeyboardInterrupt):
            self._crew.left_over = dropped + max(0, self._total - self._fed)
        self._open = 0
        self._source_error = None
        if isinstance(error, StopIteration) and not self._closed:
            self._crew.wait(None)  # they have nothing left to do

    def _feed(self) -> None:
        """Read ahead twice as many items as there are threads; and, before there are many, enough for more."""
        while self._source is not None:
            size = max(self._crew.size, min(self._most, LOOK_AHEAD // 2))
            if self._open - (len(self._early) if self._keeps else 0) >= 2 * size:
                return
            try:
                args = next(self._source)
            except StopIteration:
                self._source = None
            except Exception as error:  # raised when what was read before it has been handed out
                self._source, self._source_error = None, error
            else:
                self._open += 1
                self._fed += 1
                self._crew.feed(Item(self._fed - 1, args))

    def _take(self) -> Item:
        """Block until the next item may be handed out, and answer it."""
        while self._next not in self._early:
            self._feed()
            item = self._crew.next_ended(None if self._end is None else self._end - time.monotonic())
            if item is None:
                if self._closed:  # by another thread
                    raise StopIteration
                raise FutureTimeoutError(f"{self._next} items were done in time, the others were not")
            if item.error is not None and self._on_error == "raise":
                self._source = None
                self._crew.stop()  # those before it have been started, in order
            if not self._ordered:
                self._next += 1
                return item
            self._early[item.index] = item
        self._next += 1
        return self._early.pop(self._next - 1)
