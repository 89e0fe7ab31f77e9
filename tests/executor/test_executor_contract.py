"""The contract of every `concurrent.futures.Executor`: what runs on ThreadPoolExecutor runs on ours.

Each test here runs against both, so that the contract is the standard library's and not our reading of it.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest
from waiting import wait_until_collected

from ratelimited_llm import RateLimitedExecutor

PATIENCE = 10.0
MAKERS = {
    "ThreadPoolExecutor": lambda: ThreadPoolExecutor(5),
    "unlimited": lambda: RateLimitedExecutor(),
    "limited": lambda: RateLimitedExecutor(max_concurrency=5, rpm=1e7),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[], Executor]:
    return MAKERS[request.param]


@pytest.fixture
def executor(make: Callable[[], Executor]) -> Iterator[Executor]:
    with make() as executor:
        yield executor


def multiply(x: int, y: int = 1) -> int:
    return x * y


def captured(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


class Watched:
    """Something that a weak reference can point to."""

    def run(self) -> Watched:
        return self


def test_submit_runs_a_function_with_its_arguments(executor: Executor) -> None:
    """By position and by name, names that the methods use themselves included."""
    assert executor.submit(pow, 2, 8).result(PATIENCE) == 256
    assert executor.submit(captured, 1, self=2, fn=3).result(PATIENCE) == ((1,), {"self": 2, "fn": 3})
    with pytest.raises(TypeError):
        executor.submit(fn=captured)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        executor.submit()  # type: ignore[call-arg]


def test_a_future_is_the_standard_librarys(executor: Executor) -> None:
    """With its states and its errors."""
    future = executor.submit(multiply, 3, y=4)
    assert isinstance(future, Future)
    assert future.result(PATIENCE) == 12
    assert future.done()
    assert not future.running()
    assert not future.cancel()
    assert future.exception(0) is None


def test_map_keeps_the_order_of_the_items(executor: Executor) -> None:
    """Like the built-in map, and as far as the shortest iterable."""
    assert list(executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
    assert list(executor.map(multiply, range(10), itertools.count(1))) == [n * (n + 1) for n in range(10)]
    assert list(executor.map(multiply, [])) == []
    assert list(executor.map(multiply, range(5), chunksize=3)) == list(range(5))


def test_map_submits_before_it_is_asked(executor: Executor) -> None:
    """The iterables are read, and the calls run, without anybody's asking for an answer."""
    ran = threading.Semaphore(0)
    answers = executor.map(lambda _: ran.release(), range(7))
    for _ in range(7):
        assert ran.acquire(timeout=PATIENCE)
    assert list(answers) == [None] * 7


def test_map_raises_where_the_answer_would_be(executor: Executor) -> None:
    """The answers before it are there."""
    answers = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert [next(answers), next(answers)] == [(0, 1), (0, 1)]
    with pytest.raises(ZeroDivisionError):
        next(answers)


def test_map_times_out(executor: Executor) -> None:
    """The answers that were there in time come first."""
    go = threading.Event()
    answers = executor.map(lambda event: event and event.wait(PATIENCE), [None, None, go], timeout=0.05)
    assert [next(answers), next(answers)] == [None, None]
    with pytest.raises(futures.TimeoutError):
        next(answers)
    go.set()


def test_what_a_function_raises_is_raised(executor: Executor) -> None:
    """The very object, with the lines that led to it."""
    error = ValueError("own")

    def fails() -> None:
        raise error

    future = executor.submit(fails)
    assert future.exception(PATIENCE) is error
    with pytest.raises(ValueError, match="own") as caught:
        future.result(PATIENCE)
    assert any(entry.name == "fails" for entry in caught.traceback)


def test_wait_and_as_completed_know_our_futures(executor: Executor) -> None:
    """Finished, failed and cancelled ones."""
    pending = [executor.submit(multiply, number) for number in range(20)] + [executor.submit(divmod, 1, 0)]
    done, not_done = futures.wait(pending, PATIENCE)
    assert (len(done), len(not_done)) == (21, 0)
    assert set(futures.as_completed(pending, PATIENCE)) == set(pending)
    go = threading.Event()
    slow = executor.submit(go.wait, PATIENCE)
    quick = executor.submit(multiply, 1)
    done, not_done = futures.wait([slow, quick], PATIENCE, futures.FIRST_COMPLETED)
    assert (done, not_done) == ({quick}, {slow})
    failing = executor.submit(divmod, 1, 0)
    done, _ = futures.wait([slow, failing], PATIENCE, futures.FIRST_EXCEPTION)
    assert failing in done
    go.set()


def test_who_waits_hears_of_a_cancelled_future(make: Callable[[], Executor]) -> None:
    """`wait` and `as_completed` count it as done when its turn would have come."""
    with make() as executor:
        go = threading.Event()
        running = [executor.submit(go.wait, PATIENCE) for _ in range(5)]
        queued = executor.submit(multiply, 1)
        if queued.cancel():  # without a limit it may run already
            heard: list[Future[Any]] = []
            thread = threading.Thread(target=lambda: heard.extend(futures.as_completed([queued], PATIENCE)))
            thread.start()
            go.set()
            thread.join(PATIENCE)
            assert heard == [queued]
        go.set()
        futures.wait(running, PATIENCE)


def test_submit_after_shutdown_raises(make: Callable[[], Executor]) -> None:
    """A RuntimeError, of submit and of map."""
    executor = make()
    executor.shutdown()
    with pytest.raises(RuntimeError):
        executor.submit(multiply, 1)
    with pytest.raises(RuntimeError):
        executor.map(multiply, [1])


def test_shutdown_waits_for_the_pending_calls(make: Callable[[], Executor]) -> None:
    """Also as the end of a `with` block."""
    with make() as executor:
        pending = [executor.submit(multiply, number) for number in range(100)]
    assert all(future.done() for future in pending)
    executor.shutdown()
    executor.shutdown(wait=False)


def test_shutdown_can_cancel_what_waits(make: Callable[[], Executor]) -> None:
    """What runs ends, what has not begun is cancelled."""
    executor, go, begun = make(), threading.Event(), threading.Semaphore(0)

    def runs() -> None:
        begun.release()
        assert go.wait(PATIENCE)

    pending = [executor.submit(runs) for _ in range(5)]
    for _ in range(5):
        assert begun.acquire(timeout=PATIENCE)
    pending += [executor.submit(runs) for _ in range(20)]
    executor.shutdown(wait=False, cancel_futures=True)
    go.set()
    executor.shutdown()
    assert all(future.done() for future in pending)
    assert not any(future.cancelled() for future in pending[:5])


def test_shutdown_without_waiting_lets_the_calls_end(make: Callable[[], Executor]) -> None:
    """They run on, and their futures are answered."""
    executor = make()
    answers = executor.map(multiply, range(20))
    executor.shutdown(wait=False)
    assert list(answers) == list(range(20))


def test_an_executor_keeps_nothing_of_a_call_that_has_ended(executor: Executor) -> None:
    """Neither its arguments nor its answer, when the caller has forgotten them."""
    watched = Watched()
    reference = weakref.ref(watched)
    future = executor.submit(Watched.run, watched)
    del watched
    assert isinstance(future.result(PATIENCE), Watched)
    del future
    wait_until_collected(lambda: reference() is None)


def test_map_keeps_no_answer_that_was_taken(executor: Executor) -> None:
    """While the next ones are waited for."""
    answers = executor.map(lambda _: Watched(), range(3))
    references = []
    for answer in answers:
        references.append(weakref.ref(answer))
        del answer
    wait_until_collected(lambda: not any(reference() for reference in references))


def test_an_error_makes_no_cycle_with_its_future(executor: Executor) -> None:
    """A failed future and its exception are gone with the last reference, without the collector."""
    gc.collect()
    gc.disable()
    try:
        future = executor.submit(divmod, 1, 0)
        with pytest.raises(ZeroDivisionError):
            future.result(PATIENCE)
        reference = weakref.ref(future)
        del future
        for _ in range(500):
            if reference() is None:
                break
            time.sleep(0.005)  # the thread that ran it may still be about to forget it
        assert reference() is None
    finally:
        gc.enable()


def test_asyncio_can_use_it(executor: Executor) -> None:
    """run_in_executor and wrap_future."""

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(executor, multiply, number, 2) for number in range(10)]
        calls.append(asyncio.wrap_future(executor.submit(multiply, 10, 2)))
        return list(await asyncio.gather(*calls))

    assert asyncio.run(main()) == [2 * number for number in range(11)]


def test_calls_may_submit_and_wait_for_more(executor: Executor) -> None:
    """As long as there are threads, or places, for all that wait."""

    def nested(depth: int) -> int:
        return 1 if not depth else executor.submit(nested, depth - 1).result(PATIENCE) + 1

    assert executor.submit(nested, 4).result(PATIENCE) == 5


def test_a_stress_of_short_calls_from_real_threads(make: Callable[[], Executor]) -> None:
    """Four threads, two thousand calls each, switching as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with make() as executor:
            sums: list[int] = []

            def submit_many() -> None:
                pending = [executor.submit(multiply, number) for number in range(500)]
                sums.append(sum(future.result(PATIENCE) for future in pending))

            threads = [threading.Thread(target=submit_many) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            assert sums == [sum(range(500))] * 4
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the standard library has buffersize from Python 3.14 on")
def test_buffersize_is_the_standard_librarys(executor: Executor) -> None:
    """Read ahead as far as that, and no further."""
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(10):
            read.append(number)
            yield number

    answers = executor.map(multiply, numbers(), buffersize=3)
    assert len(read) == 3
    assert next(answers) == 0
    assert len(read) == 4
