"""RateLimitedExecutor keeps the promises of `concurrent.futures.Executor`, and those of its own arguments."""

from __future__ import annotations

import concurrent.futures as cf
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ratelimited_llm import BudgetExceeded, QueueFull, RateLimitedExecutor, RateLimits, WorkerStopped, report_usage

PATIENCE = 10.0


@pytest.fixture
def executor() -> Iterator[RateLimitedExecutor]:
    """An executor without limits but for eight at a time."""
    with RateLimitedExecutor(max_concurrency=8) as made:
        yield made


def test_it_is_an_executor_and_gives_futures(executor: RateLimitedExecutor) -> None:
    """Whatever takes an Executor takes it."""
    assert isinstance(executor, cf.Executor)
    future = executor.submit(pow, 2, exp=5)
    assert isinstance(future, cf.Future)
    assert future.result(PATIENCE) == 32
    assert future.done()


def test_what_a_function_raises_is_the_very_object(executor: RateLimitedExecutor) -> None:
    """No wrapping: the exception is the function's own, and is not tried again."""
    error, calls = KeyError("x"), []

    def fail() -> None:
        calls.append(1)
        raise error

    assert executor.submit(fail).exception(PATIENCE) is error
    assert len(calls) == 1


def test_map_keeps_the_order_of_its_items(executor: RateLimitedExecutor) -> None:
    """Answers come in the order of the items, from as many iterables as the function has arguments."""
    assert list(executor.map(pow, range(10), [2] * 10)) == [n * n for n in range(10)]


def test_map_with_a_buffer_reads_no_further_ahead_than_it(executor: RateLimitedExecutor) -> None:
    """An endless iterable can be mapped."""
    taken = []

    def endless() -> Iterator[int]:
        for number in iter(int, 1):
            taken.append(number)
            yield number

    answers = executor.map(str, endless(), buffersize=3)
    assert [next(answers) for _ in range(4)] == ["0"] * 4
    assert len(taken) <= 8
    with pytest.raises(ValueError, match="buffersize"):
        executor.map(str, [], buffersize=0)


def test_map_past_its_timeout_raises_and_cancels_the_rest(executor: RateLimitedExecutor) -> None:
    """The error is the standard library's TimeoutError."""
    released = threading.Event()
    answers = executor.map(lambda _: released.wait(PATIENCE), range(20), timeout=0.05)
    with pytest.raises(cf.TimeoutError):
        next(answers)
    released.set()


def test_as_completed_and_wait_take_its_futures(executor: RateLimitedExecutor) -> None:
    """Both see every end, cancelled ones included."""
    futures = [executor.submit(int, n) for n in range(20)]
    assert {future.result() for future in cf.as_completed(futures, PATIENCE)} == set(range(20))
    assert cf.wait(futures, PATIENCE).not_done == set()


def test_a_queued_call_can_be_cancelled_and_a_running_one_cannot() -> None:
    """cancel() answers as the standard library's does, and those who wait hear of it."""
    began, released = threading.Event(), threading.Event()

    def hold() -> str:
        began.set()
        released.wait(PATIENCE)
        return "held"

    with RateLimitedExecutor(max_concurrency=1) as narrow:
        running = narrow.submit(hold)
        assert began.wait(PATIENCE)
        queued = narrow.submit(int)
        assert queued.cancel()
        assert not running.cancel()
        assert cf.wait([queued], PATIENCE).done == {queued}
        released.set()
        assert running.result(PATIENCE) == "held"


def test_shutdown_refuses_new_calls_and_can_drop_the_queued_ones() -> None:
    """Submitting afterwards is a RuntimeError, as everywhere."""
    released = threading.Event()
    closing = RateLimitedExecutor(max_concurrency=1)
    running = closing.submit(released.wait, PATIENCE)
    queued = [closing.submit(int) for _ in range(5)]
    closing.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(RuntimeError):
        closing.submit(int)
    with pytest.raises(WorkerStopped):
        closing.submit(int)
    released.set()
    closing.shutdown(wait=True)
    assert running.result(PATIENCE) is True
    assert all(future.cancelled() for future in queued)


def test_two_thousand_calls_are_in_flight_at_once() -> None:
    """Every one of them waits for all the others to be there, so they must be."""
    width = 2_000
    there = threading.Barrier(width)
    with RateLimitedExecutor() as wide:
        futures = [wide.submit(there.wait, PATIENCE) for _ in range(width)]
        assert sorted(future.result(2 * PATIENCE) for future in futures) == list(range(width))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"rpm": 0}, ValueError), ({"rpm": float("nan")}, ValueError), ({"tpm": "many"}, TypeError),
        ({"rmp": 5}, TypeError), ({"tokens": -1}, ValueError), ({"tokens": 1.5}, ValueError),
        ({"priority": "urgent"}, ValueError), ({"on_full": "wait"}, ValueError), ({"max_queue": 0}, ValueError),
        ({"deadline": 0}, ValueError),
    ],
)  # fmt: skip
def test_an_argument_that_makes_no_sense_is_told_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    """By the constructor, not by the first call."""
    with pytest.raises(error):
        RateLimitedExecutor(**options)


def test_a_call_that_can_never_fit_is_refused_by_submit() -> None:
    """With the numbers; a function of the arguments may say what a call costs."""
    with RateLimitedExecutor(tpm=100, tokens=len) as limited:
        assert limited.submit(str.upper, "abc").result(PATIENCE) == "ABC"
        with pytest.raises(BudgetExceeded) as told:
            limited.submit(str.upper, "x" * 101)
    assert (told.value.limit, told.value.requested) == (100, 101)


def test_reported_usage_gives_tokens_back() -> None:
    """A call that cost less than it was estimated leaves room for the next ones at once."""

    def cheap(number: int) -> int:
        report_usage(1)
        return number

    with RateLimitedExecutor(tpm=1_000, tokens=900, max_concurrency=1) as limited:
        # Each reserves nearly the whole minute: without the report the second would wait for most of one.
        assert list(limited.map(cheap, range(5), timeout=PATIENCE)) == list(range(5))


def test_report_usage_checks_its_numbers_and_does_nothing_outside() -> None:
    """A function that reports can be called directly too."""
    report_usage(5)
    with pytest.raises(ValueError, match="input_tokens"):
        report_usage(-1)


def test_a_full_queue_raises_when_asked_to() -> None:
    """on_full="raise" tells the cap."""
    released = threading.Event()
    with RateLimitedExecutor(max_concurrency=1, max_queue=2, on_full="raise") as small:
        running = small.submit(released.wait, PATIENCE)
        futures = [small.submit(int) for _ in range(2)]
        with pytest.raises(QueueFull) as told:
            small.submit(int)
        released.set()
        assert told.value.limit == 2
        assert running.result(PATIENCE)
        assert [future.result(PATIENCE) for future in futures] == [0, 0]


class Refused(Exception):
    """What an SDK raises for status 429."""

    status_code = 429


def test_a_refusal_waits_for_the_limit_and_is_no_attempt() -> None:
    """A function that raises what carries status 429 goes again, even with no retries at all."""
    answers = iter([Refused("slow down"), None])

    def call() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "answered"

    with RateLimitedExecutor(max_retries=0) as limited:
        assert limited.submit(call).result(PATIENCE) == "answered"


def test_retry_on_names_what_is_worth_another_try() -> None:
    """As often as max_retries says, and then the last exception is the call's."""
    calls = []

    def flaky() -> None:
        calls.append(1)
        raise ConnectionError(len(calls))

    with RateLimitedExecutor(max_retries=1, retry_on=(ConnectionError,)) as limited:
        error = limited.submit(flaky).exception(PATIENCE)
    assert isinstance(error, ConnectionError)
    assert len(calls) == 2


def test_limits_are_a_value_and_the_repr_a_status_line() -> None:
    """What was given can be read back."""
    with RateLimitedExecutor(RateLimits(rpm=60), tpm=1_000) as limited:
        assert limited.limits == RateLimits(rpm=60, tpm=1_000)
        assert "rpm=60" in repr(limited)
