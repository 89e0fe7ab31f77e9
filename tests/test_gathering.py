"""gather and map: answers in order, failures told apart, threads that are there when needed and gone afterwards."""

from __future__ import annotations

import contextvars
import gc
import itertools
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import pytest

from ratelimited_llm import RateLimitedExecutor
from ratelimited_llm.engine.plain_answers import IN_QUEUE, answers_here, wants_answers
from ratelimited_llm.gathering.crew import Crew, Item
from ratelimited_llm.gathering.gather import gather
from ratelimited_llm.gathering.mapping import map_calls

PATIENCE = 10.0


def done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def failed(error: BaseException) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def threads_of_maps() -> list[str]:
    # Without those that a Ctrl-C inside of Thread.start() left on CPython's list for ever, before they ran.
    started = [thread.name for thread in threading.enumerate() if thread.is_alive()]
    return [name for name in started if name.startswith("ratelimited-llm-map-")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    end = time.monotonic() + PATIENCE
    while threads_of_maps() and time.monotonic() < end:
        time.sleep(0.001)
    assert threads_of_maps() == []


# -- gather -----------------------------------------------------------------------------------------------------------


def test_gather_returns_the_answers_in_order_with_fn_applied() -> None:
    """Of lists, tuples, generators and nothing at all; what is no future is an answer already."""
    assert gather([done(1), 2, done(3)]) == [1, 2, 3]
    assert gather((done(n) for n in range(3)), str) == ["0", "1", "2"]
    assert gather(()) == []
    assert gather({"a": done(1), "b": done(2)}) == [1, 2]
    assert gather({done(1): "a", done(2): "b"}) == [1, 2]


def test_gather_waits_for_what_is_not_done() -> None:
    """However the calls end, one after the other."""
    with RateLimitedExecutor(min_interval=0.001) as executor:
        assert gather([executor.submit(int, n) for n in range(20)]) == list(range(20))


@pytest.mark.parametrize(
    ("way", "left"), [("none", None), (lambda error: f"<{error}>", "<no>")], ids=["none", "a function"]
)
def test_a_failure_leaves_its_place_to_what_was_asked_for(way: Any, left: Any) -> None:
    """And keeps nobody from the others."""
    assert gather([done(1), failed(ValueError("no")), done(3)], on_error=way) == [1, left, 3]


def test_a_failure_is_returned_itself_and_says_which_it_was() -> None:
    """With the label that its mapping gives it."""
    error = ValueError("no")
    assert gather([failed(error)], on_error="return") == [error]
    assert notes(error) == ["item 0 of gather()"]
    labelled = ValueError("no")
    gather({"first": done(1), "x" * 100: failed(labelled)}, on_error="none")
    assert notes(labelled) == [f"item 1 ('{'x' * 56}...) of gather()"]


def test_the_first_failure_in_order_is_raised() -> None:
    """The very object, though a later one failed too; and nothing is cancelled."""
    first, waiting = ValueError("first"), Future[Any]()
    with pytest.raises(ValueError, match="first") as caught:
        gather([done(1), failed(first), failed(KeyError("later")), waiting])
    assert caught.value is first
    assert not waiting.cancelled()


def test_a_failing_fn_is_its_items_failure() -> None:
    """With a note; and the others are still read."""
    results = gather([done(2), done(0), done(4)], lambda n: 8 // n, on_error="return")
    assert (results[0], results[2]) == (4, 2)
    assert isinstance(results[1], ZeroDivisionError)
    assert notes(results[1]) == ["item 1 of gather()"]


def test_a_cancelled_call_is_a_failure() -> None:
    """As `result()` has it."""
    cancelled: Future[Any] = Future()
    cancelled.cancel()
    assert gather([cancelled, done(1)], on_error="none") == [None, 1]
    with pytest.raises(CancelledError):
        gather([cancelled])


def test_a_timeout_is_for_all_and_no_failure_of_one() -> None:
    """Whatever `on_error` says; an item's own TimeoutError is its failure."""
    with pytest.raises(FutureTimeoutError, match="1 of 2 answers"):
        gather([done(1), Future()], on_error="none", timeout=0.01)
    assert gather([failed(FutureTimeoutError("own"))], on_error="none", timeout=5) == [None]
    assert gather([done(1)], timeout=-1) == [1]
    assert gather([done(1)], timeout=float("inf")) == [1]


def test_an_exit_that_a_call_ended_with_is_no_failure_to_pass_over() -> None:
    """SystemExit and its like are raised."""
    with pytest.raises(SystemExit):
        gather([failed(SystemExit(3))], on_error="none")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: gather("text"), TypeError, "not one str"),
        (lambda: gather(done(1)), TypeError, "has its own .result"),  # type: ignore[arg-type]
        (lambda: gather(7), TypeError, "not one int"),  # type: ignore[arg-type]
        (lambda: gather([], on_error="ignore"), ValueError, "'raise', 'none', 'return', or a function"),
        (lambda: gather([], 3), TypeError, "fn must be a function"),  # type: ignore[arg-type]
        (lambda: gather([], timeout="soon"), TypeError, "timeout must be seconds"),  # type: ignore[arg-type]
        (lambda: gather([], timeout=float("nan")), TypeError, "timeout must be seconds"),
        (lambda: map_calls(int), TypeError, "at least one iterable"),
        (lambda: map_calls(int, "text"), TypeError, "not one str"),
        (lambda: map_calls([1], int), TypeError, "needs a function first"),  # type: ignore[arg-type]
        (lambda: map_calls(int, [], return_as="set"), ValueError, "'generator_unordered'"),
        (lambda: map_calls(int, [], max_workers=0), ValueError, "1 or more"),
        (lambda: map_calls(int, [], max_workers=2.5), TypeError, "whole number"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_refused_where_it_is_given(call: Any, error: type[Exception], words: str) -> None:
    """With what would be right."""
    with pytest.raises(error, match=words):
        call()


def test_a_column_of_a_table_is_gathered_by_its_labels() -> None:
    """A pandas Series and a numpy array are lists; a whole table is refused."""
    pandas = pytest.importorskip("pandas")
    error = ValueError("no")
    frame = pandas.DataFrame({"r": [done(1), failed(error), done(3)]}, index=["a", "b", "c"])
    assert gather(frame.r, on_error="none") == [1, None, 3]
    assert notes(error) == ["item 1 ('b') of gather()"]
    assert gather(frame.r.to_numpy(), on_error="none") == [1, None, 3]
    with pytest.raises(TypeError, match="one column"):
        gather(frame)
    with pytest.raises(ValueError, match="one dimension"):
        gather(frame.to_numpy())
    assert map_calls(str, pandas.Series([1, 2], index=[7, 8])) == ["1", "2"]


# -- map --------------------------------------------------------------------------------------------------------------


def test_map_is_the_built_in_map_on_threads() -> None:
    """In order, the shortest ends it, and no thread is left at its end."""
    assert map_calls(pow, range(100), itertools.repeat(2)) == [n * n for n in range(100)]
    assert map_calls(int, []) == []
    assert threads_of_maps() == []


def test_calls_inside_are_made_for_answers() -> None:
    """In the threads of the map only."""
    assert map_calls(lambda _: wants_answers(), range(3)) == [True] * 3
    assert not wants_answers()
    with answers_here():
        assert wants_answers()
    assert not wants_answers()


def test_the_callers_context_is_seen_and_not_changed() -> None:
    """Each item has a copy of it."""
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("the caller's")

    def look(n: int) -> str:
        seen = variable.get()
        variable.set(f"{n}")
        return seen

    assert map_calls(look, range(20), max_workers=2) == ["the caller's"] * 20
    assert variable.get() == "the caller's"


def test_as_many_run_at_once_as_are_allowed() -> None:
    """All of them, when nothing else limits them."""
    barrier = threading.Barrier(8)
    assert sorted(map_calls(lambda _: barrier.wait(PATIENCE), range(16), max_workers=8)) == sorted([*range(8)] * 2)


def test_one_thread_waits_in_the_queue_and_not_all() -> None:
    """Who waits for a turn keeps others from starting; a turn that is taken lets one more in."""
    turns = threading.Semaphore(0)
    waiting = threading.Semaphore(0)
    release = threading.Event()

    def call(n: int) -> int:
        with IN_QUEUE:
            waiting.release()
            assert turns.acquire(timeout=PATIENCE)
        assert release.wait(PATIENCE)
        return n

    answers = map_calls(call, range(100), return_as="generator")
    for open_calls in range(1, 6):
        assert waiting.acquire(timeout=PATIENCE)
        assert len(threads_of_maps()) <= open_calls + 2
        turns.release()
    release.set()
    turns.release(100)
    assert list(answers) == list(range(100))


def test_a_map_inside_of_a_map_ends() -> None:
    """Each has threads of its own."""
    assert map_calls(lambda n: sum(map_calls(int, range(n), max_workers=2)), range(12), max_workers=2) == [
        sum(range(n)) for n in range(12)
    ]


def test_an_endless_iterable_is_read_a_little_ahead() -> None:
    """Twice as many items as there are threads; and nothing more after close()."""
    read = itertools.count()
    answers = map_calls(int, read, return_as="generator", max_workers=3)
    assert list(itertools.islice(answers, 50)) == list(range(50))
    assert next(read) <= 50 + 2 * 3
    answers.close()
    assert list(answers) == []


def test_a_generator_that_another_thread_closes_ends() -> None:
    """Though somebody waits for it."""
    gate, begun = threading.Event(), threading.Event()

    def call(n: int) -> None:
        begun.set()
        gate.wait(PATIENCE)

    answers = map_calls(call, range(3), return_as="generator", max_workers=1)

    def close() -> None:
        assert begun.wait(PATIENCE)
        answers.close()

    closer = threading.Thread(target=close)
    closer.start()
    assert list(answers) == []
    closer.join()
    gate.set()


def test_a_forgotten_generator_starts_nothing_more() -> None:
    """As a closed one."""
    started = []
    gate = threading.Event()

    def call(n: int) -> None:
        started.append(n)
        gate.wait(PATIENCE)

    answers = map_calls(call, itertools.count(), return_as="generator", max_workers=1)
    del answers
    gc.collect()
    gate.set()
    assert len(started) <= 1


def test_unordered_answers_come_as_they_are_done() -> None:
    """The first item is the last to end."""
    last = threading.Event()

    def call(n: int) -> int:
        if n == 0:
            assert last.wait(PATIENCE)
        return n

    answers = map_calls(call, range(5), return_as="generator_unordered")
    assert sorted(next(answers) for _ in range(4)) == [1, 2, 3, 4]
    last.set()
    assert list(answers) == [0]


def test_a_list_is_not_held_up_by_its_first_item() -> None:
    """What has ended out of order is kept, and makes room for more."""
    others = threading.Semaphore(0)

    def call(n: int) -> int:
        if n == 0:
            for _ in range(499):
                assert others.acquire(timeout=PATIENCE)
        else:
            others.release()
        return n

    assert map_calls(call, range(500), max_workers=2) == list(range(500))


def test_a_failure_ends_a_map_and_keeps_its_traceback() -> None:
    """Nothing is started after it; it says which item it was and where it was raised."""
    started = []

    def fails_at_ten(n: int) -> int:
        started.append(n)
        if n == 10:
            raise ValueError("ten")
        return n

    with pytest.raises(ValueError, match="ten") as caught:
        map_calls(fails_at_ten, range(10_000), max_workers=1)
    assert notes(caught.value) == ["item 10 of map()"]
    assert "fails_at_ten" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert max(started) < 20


def test_of_several_failures_the_first_in_order_is_raised() -> None:
    """Though a later one came before it."""
    later = threading.Event()

    def call(n: int) -> None:
        if n == 0:
            assert later.wait(PATIENCE)
        else:
            later.set()
        raise ValueError(f"item {n}")

    with pytest.raises(ValueError, match="item 0"):
        map_calls(call, range(2))


@pytest.mark.parametrize("shape", ["list", "generator", "generator_unordered"])
def test_failures_leave_their_places(shape: str) -> None:
    """As in gather."""
    results = map_calls(lambda n: 1 // n, range(3), return_as=shape, on_error="none")
    assert sorted(results, key=str) == [0, 1, None]


def test_an_iterable_that_fails_ends_the_map_after_what_it_gave() -> None:
    """Its error is the caller's, whatever `on_error` says."""

    def items() -> Iterator[int]:
        yield from range(5)
        raise KeyError("source")

    answers = map_calls(int, items(), return_as="generator", on_error="none")
    assert [next(answers) for _ in range(5)] == list(range(5))
    with pytest.raises(KeyError, match="source"):
        next(answers)


def test_a_map_is_over_when_its_time_is() -> None:
    """What runs goes on by itself."""
    gate = threading.Event()
    with pytest.raises(FutureTimeoutError):
        map_calls(lambda _: gate.wait(PATIENCE), range(5), timeout=0.02, on_error="none")
    gate.set()


def test_an_interrupt_ends_a_map_at_once() -> None:
    """What waits is dropped and counted, what runs goes on, and the thread that is interrupted waits for neither."""
    gate = threading.Event()
    ended = []

    def items() -> Iterator[int]:
        yield from range(3)
        raise KeyboardInterrupt

    def call(n: int) -> None:
        assert gate.wait(PATIENCE)
        ended.append(n)

    with pytest.raises(KeyboardInterrupt):
        map_calls(call, items(), max_workers=2)
    assert ended == []
    gate.set()


def test_a_crew_that_was_stopped_drops_what_it_has_not_begun() -> None:
    """And its threads end."""
    gate = threading.Event()
    crew = Crew(lambda: gate.wait(PATIENCE), 1)
    for index in range(5):
        crew.feed(Item(index, ()))
    while not crew.running:
        time.sleep(0.001)
    assert crew.stop() == 4
    assert not crew.wait(0.01)
    gate.set()
    assert crew.wait(PATIENCE)
    assert (crew.size, crew.running) == (0, 0)
