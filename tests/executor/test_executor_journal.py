"""An executor with a journal: what a function has computed once is found again by the next run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ratelimited_llm import RateLimitedExecutor
from ratelimited_llm.stores.journal_keys import Occurrences

Start = Callable[..., RateLimitedExecutor]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Make an executor as a new run of the script would: the journal is opened again."""
    made: list[RateLimitedExecutor] = []

    def close() -> None:
        for executor in made:
            executor.shutdown()
            assert executor._memory is not None
            executor._memory.journal.close()
        made.clear()

    def make(key: Callable[..., Any] = lambda item: item) -> RateLimitedExecutor:
        close()
        made.append(RateLimitedExecutor(journal=tmp_path / "run.db", key=key))
        return made[0]

    yield make
    close()


class Counted:
    """A function that knows how often it was called, and fails when it is told to."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.fail = False

    def __call__(self, item: Any) -> Any:
        self.calls.append(item)
        if self.fail:
            raise OSError("out of order")
        return {"item": item, "list": [1, 2.5, None, True, "ü"]}


def test_the_next_run_computes_only_what_is_missing(start: Start) -> None:
    double = Counted()
    first = list(start().map(double, ["a", "b"]))
    assert list(start().map(double, ["a", "b", "c"]))[:2] == first
    assert (sorted(double.calls[:2]), double.calls[2:]) == (["a", "b"], ["c"])  # two threads begin at once


def test_functions_are_told_apart_and_so_are_repeated_calls(start: Start) -> None:
    def one(item: int) -> str:
        return f"one {item}"

    def two(item: int) -> str:
        return f"two {item}"

    executor = start()
    assert [executor.submit(fn, 1).result() for fn in (one, two, one)] == ["one 1", "two 1", "one 1"]
    executor = start()
    assert [executor.submit(fn, 1).result() for fn in (two, one)] == ["two 1", "one 1"]
    assert executor._memory is not None
    assert executor._memory.journal.stats().answered == 3


def test_a_failure_is_tried_again_by_the_next_run(start: Start) -> None:
    double = Counted()
    double.fail = True
    with pytest.raises(OSError, match="out of order"):
        start().submit(double, "a").result()
    double.fail = False
    assert start().submit(double, "a").result()["item"] == "a"
    assert double.calls == ["a", "a"]


@pytest.mark.parametrize(
    "value",
    [{1, 2}, (1, 2), {1: "a"}, float("nan"), object(), b"x"],
    ids=["set", "tuple", "int key", "nan", "object", "bytes"],
)
def test_what_json_would_change_is_delivered_and_not_kept(
    start: Start, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    executor = start()
    assert [executor.submit(lambda item: value, 1).result() is value for _ in range(2)] == [True, True]
    assert executor._memory is not None
    assert executor._memory.journal.stats().answered == 0
    assert sum("not_kept" in record.message for record in caplog.records) == 1


def test_equal_calls_at_the_same_time_are_computed_once_for_each_number(start: Start) -> None:
    executor = start()
    assert executor._memory is not None
    go, calls = threading.Event(), []

    def slow(item: str) -> str:
        calls.append(item)
        assert go.wait(10)
        return item.upper()

    first = executor.submit(slow, "a")
    executor._memory.journal._occurrences = Occurrences()  # as the next execution of a notebook's cell
    second = executor.submit(slow, "a")
    assert not second.done()
    go.set()
    assert (first.result(), second.result(), calls) == ("A", "A", ["a"])


def test_a_key_and_a_journal_need_each_other(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="key="):
        RateLimitedExecutor(journal=tmp_path / "run.db")
    with pytest.raises(TypeError, match="journal="):
        RateLimitedExecutor(key=str)


def test_a_key_that_is_no_json_is_refused_at_the_call(start: Start) -> None:
    with pytest.raises(TypeError):
        start(key=lambda item: {1, 2}).submit(print, "a")
