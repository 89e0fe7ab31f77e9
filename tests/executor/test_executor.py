"""What RateLimitedExecutor adds to an Executor: limits, tokens, retries, options for single calls."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, as_completed, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import wait_until_collected

from ratelimited_llm import (
    BudgetExceeded,
    QueueFull,
    RateLimitedExecutor,
    RateLimits,
    RequestExpired,
    WorkerStopped,
    report_usage,
)
from ratelimited_llm.core.feedback import Kind
from ratelimited_llm.functions.error_outcomes import outcome_of
from ratelimited_llm.worker import RateLimitedWorker

PATIENCE = 10.0


class Refused(Exception):
    """What an SDK raises when a limit refuses."""

    status_code = 429

    def __init__(self, **headers: str) -> None:
        super().__init__("too many requests")
        self.response = SimpleNamespace(headers=headers, status_code=429, content=b"")


def left_of(executor: RateLimitedExecutor, dimension: str) -> float:
    """What is left of a limit, when nothing is in flight."""
    worker = executor._worker
    assert worker.wait(PATIENCE)
    standings = worker.budget.survey(executor._terms.pool, worker.clock()).standings
    return next(standing.remaining for standing in standings if standing.dimension == dimension)


def test_limits_are_given_by_name_or_as_a_value() -> None:
    """Both mean the same, and the repr shows them."""
    assert RateLimitedExecutor(rpm=60, tpm=1000).limits == RateLimitedExecutor(RateLimits(rpm=60, tpm=1000)).limits
    assert "rpm=60" in repr(RateLimitedExecutor(rpm=60))
    with pytest.raises(TypeError, match="rpn"):
        RateLimitedExecutor(rpn=60)


def test_no_more_calls_start_than_the_limit_allows() -> None:
    """Of ten calls, three may start in the first minute."""
    executor = RateLimitedExecutor(rpm=3)
    futures = [executor.submit(int) for _ in range(10)]
    assert len(wait(futures[:3], PATIENCE).done) == 3
    assert executor._worker.engine.machine.next(time.monotonic()).until > time.monotonic() + 15  # type: ignore[union-attr]
    assert not any(future.done() for future in futures[3:])
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures[3:])


def test_two_thousand_calls_are_in_flight_at_once() -> None:
    """All of them wait for one event, and end."""
    go, begun = threading.Event(), threading.Semaphore(0)

    def waits(number: int) -> int:
        begun.release()
        go.wait(PATIENCE)
        return number

    with RateLimitedExecutor() as executor:
        futures = [executor.submit(waits, number) for number in range(2_000)]
        for _ in range(2_000):
            assert begun.acquire(timeout=PATIENCE)
        assert executor._worker.in_flight == 2_000
        go.set()
        assert [future.result(PATIENCE) for future in futures] == list(range(2_000))


# -- tokens


@pytest.mark.parametrize("tokens", [30, lambda text: len(text)], ids=["number", "function"])
def test_calls_are_charged_the_tokens_they_are_said_to_cost(tokens: Any) -> None:
    """A number, or what a function of the call's own arguments answers."""
    with RateLimitedExecutor(tpm=100, tokens=tokens) as executor:
        wait([executor.submit(str.upper, "x" * 30) for _ in range(3)], PATIENCE)
        assert left_of(executor, "tpm") == pytest.approx(10, abs=2)


def test_with_options_changes_the_calls_and_shares_the_rest() -> None:
    """Tokens, priority, tenant and deadline; the queue and the limits are one."""
    with RateLimitedExecutor(tpm=100, tokens=1) as executor:
        dear = executor.with_options(tokens=50, priority="high", tenant="acme")
        assert dear.submit(int).result(PATIENCE) == 0
        assert dear._worker is executor._worker
        assert executor.submit(int).result(PATIENCE) == 0
        assert left_of(executor, "tpm") == pytest.approx(49, abs=2)
        with pytest.raises(ValueError, match="priority"):
            executor.with_options(priority="urgent")


def test_a_call_that_can_never_fit_is_refused_at_once() -> None:
    """With the numbers, and nothing is spent."""
    with RateLimitedExecutor(tpm=100, tokens=len) as executor:
        with pytest.raises(BudgetExceeded) as caught:
            executor.submit(str.upper, "x" * 101)
        assert caught.value.requested == 101
        assert executor.submit(str.upper, "x" * 100).result(PATIENCE) == "X" * 100


@pytest.mark.parametrize("tokens", [-1, 1.5, True, "many"])
def test_tokens_that_make_no_sense_are_refused(tokens: Any) -> None:
    """As a number at once, as an answer of the function at submit."""
    error = ValueError if tokens == -1 else TypeError
    with pytest.raises(error, match="tokens must be a whole number"):
        RateLimitedExecutor(tokens=tokens)
    with RateLimitedExecutor(tokens=lambda: tokens) as executor, pytest.raises(error, match="tokens must be"):
        executor.submit(int)


def test_reported_usage_corrects_the_charge() -> None:
    """What a call did not use can be used by others; the last report counts."""

    def answers() -> str:
        report_usage(99)
        report_usage(input_tokens=4, output_tokens=6)
        return "text"

    with RateLimitedExecutor(tpm=100, tokens=100) as executor:
        assert executor.submit(answers).result(PATIENCE) == "text"
        assert left_of(executor, "tpm") == pytest.approx(90, abs=2)


def test_a_report_outside_of_a_call_does_nothing() -> None:
    """So that the function can be called directly too; and nonsense is refused even there."""
    report_usage(5)
    with pytest.raises(ValueError, match="input_tokens"):
        report_usage(-5)
    with pytest.raises(ValueError, match="output_tokens"):
        report_usage(output_tokens=1.5)  # type: ignore[arg-type]


def test_a_report_of_one_call_is_not_the_next_ones() -> None:
    """Threads are used again."""
    with RateLimitedExecutor(tpm=1000, tokens=10, max_concurrency=1) as executor:
        executor.submit(report_usage, 500).result(PATIENCE)
        for _ in range(3):
            executor.submit(int).result(PATIENCE)
        assert left_of(executor, "tpm") == pytest.approx(470, abs=20)


# -- retries


class Flaky:
    """Raises what it is given, one after the other, and answers then how often it was called."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.calls


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off for no time."""
    monkeypatch.setattr("ratelimited_llm.engine.steps.random.random", lambda: 0.0)


@pytest.mark.usefixtures("impatient")
def test_errors_worth_it_are_tried_again() -> None:
    """`max_retries` times; a single class needs no tuple."""
    with RateLimitedExecutor(retry_on=OSError, max_retries=2) as executor:
        assert executor.submit(Flaky(OSError(), ConnectionError())).result(PATIENCE) == 3
        third = OSError("third")
        spent = Flaky(OSError(), OSError(), third)
        assert executor.submit(spent).exception(PATIENCE) is third
        assert spent.calls == 3
        other = Flaky(ValueError())
        assert isinstance(executor.submit(other).exception(PATIENCE), ValueError)
        assert other.calls == 1


def test_nothing_is_tried_again_unasked() -> None:
    """As in the standard library."""
    with RateLimitedExecutor() as executor:
        flaky = Flaky(OSError())
        assert isinstance(executor.submit(flaky).exception(PATIENCE), OSError)
        assert flaky.calls == 1


def test_a_refusal_waits_for_the_limit_and_is_no_attempt() -> None:
    """However few retries there are, a 429 is waited out."""
    with RateLimitedExecutor(max_retries=0) as executor:
        assert executor.submit(Flaky(Refused(**{"retry-after-ms": "10"}))).result(PATIENCE) == 2


def test_a_final_refusal_is_the_callers() -> None:
    """A quota that is used up does not come back by waiting."""
    refused = Refused()
    refused.response.content = b'{"error": {"code": "insufficient_quota", "type": "insufficient_quota"}}'
    with RateLimitedExecutor(retry_on=Refused) as executor:
        assert executor.submit(Flaky(refused)).exception(PATIENCE) is refused


class _Raising:
    @property
    def status_code(self) -> int:
        raise RuntimeError("not read yet")


def error_with(**attributes: Any) -> Exception:
    error = Exception("x")
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (error_with(status_code=429), Kind.LIMITED),  # openai, groq, anthropic
        (error_with(response=SimpleNamespace(status_code=429)), Kind.LIMITED),  # requests, httpx
        (error_with(status=429, headers={}), Kind.LIMITED),  # aiohttp
        (error_with(code=429), Kind.LIMITED),  # urllib, google
        (error_with(status_code=429, response=_Raising(), body=object()), Kind.LIMITED),
        (error_with(status_code="429"), None),
        (error_with(status_code=True), None),
        (error_with(response=_Raising()), None),
        (error_with(status_code=500), None),
        (Exception(), None),
    ],
)
def test_a_status_is_found_where_libraries_keep_it(error: Exception, kind: Kind | None) -> None:
    """And strange attributes of an error are no error of ours."""
    outcome = outcome_of(error, ())
    assert (outcome.kind if outcome else None) is kind


def test_a_failure_keeps_its_wait() -> None:
    """An overloaded provider that says how long is heard."""
    error = error_with(status_code=503)
    outcome = outcome_of(error, (Exception,))
    assert outcome is not None
    assert (outcome.kind, outcome.status) == (Kind.OVERLOADED, 503)


@pytest.mark.parametrize("options", [{"max_retries": -1}, {"max_retries": 1.5}, {"ageing": 0}, {"weights": {"a": 0}}])
def test_values_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    """At once."""
    with pytest.raises(TypeError if options == {"max_retries": 1.5} else ValueError, match="must be"):
        RateLimitedExecutor(**options)


def test_retry_on_takes_classes() -> None:
    """Not instances, nor names."""
    with pytest.raises(TypeError, match="exception class"):
        RateLimitedExecutor(retry_on=(OSError, "ValueError"))  # type: ignore[arg-type]


# -- the queue


@pytest.fixture
def held() -> Iterator[tuple[RateLimitedExecutor, threading.Event]]:
    """An executor whose only place is taken until the event."""
    executor, go, begun = RateLimitedExecutor(max_concurrency=1, max_queue=3, on_full="raise"), threading.Event(), []

    def holds() -> None:
        begun.append(1)
        assert go.wait(PATIENCE)

    executor.submit(holds)
    while not begun:
        executor._worker.wait(0.001)
    yield executor, go
    go.set()
    executor.shutdown()


def test_a_full_queue_raises(held: tuple[RateLimitedExecutor, threading.Event]) -> None:
    """And takes calls again when there is room."""
    executor, go = held
    futures = [executor.submit(int) for _ in range(3)]
    with pytest.raises(QueueFull):
        executor.submit(int)
    go.set()
    wait(futures, PATIENCE)
    assert executor.submit(int, 5).result(PATIENCE) == 5


def test_priorities_and_deadlines_are_kept(held: tuple[RateLimitedExecutor, threading.Event]) -> None:
    """The better call goes first, and one that is too late does not go at all."""
    executor, go = held
    ran: list[str] = []
    low = executor.with_options(priority="low").submit(ran.append, "low")
    high = executor.with_options(priority="high").submit(ran.append, "high")
    late = executor.with_options(deadline=0.01).submit(ran.append, "late")
    assert isinstance(late.exception(PATIENCE), RequestExpired)
    go.set()
    wait([low, high], PATIENCE)
    assert ran == ["high", "low"]


def test_a_cancelled_future_is_heard_of_at_once(held: tuple[RateLimitedExecutor, threading.Event]) -> None:
    """`wait` and `as_completed` need not wait for its turn."""
    executor, _ = held
    future = executor.submit(int)
    seen: list[Future[int]] = []
    thread = threading.Thread(target=lambda: seen.extend(as_completed([future], PATIENCE)))
    thread.start()
    assert future.cancel()
    thread.join(PATIENCE)
    assert seen == [future]
    assert future in wait([future], 0).done


def test_executors_can_share_a_worker() -> None:
    """One queue, and limits of their own; a shut worker takes calls of neither."""
    worker = RateLimitedWorker()
    one, two = RateLimitedExecutor(worker=worker, max_concurrency=1), RateLimitedExecutor(worker=worker)
    assert [one.submit(int, 1).result(PATIENCE), two.submit(int, 2).result(PATIENCE)] == [1, 2]
    one.shutdown()
    with pytest.raises(WorkerStopped):
        two.submit(int)


# -- map


def test_map_reads_ahead_no_further_than_its_buffer() -> None:
    """As ThreadPoolExecutor has it from Python 3.14 on."""
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(10):
            read.append(number)
            yield number

    with RateLimitedExecutor() as executor:
        answers = executor.map(abs, numbers(), buffersize=3)
        assert read == [0, 1, 2]
        assert next(answers) == 0
        assert read == [0, 1, 2, 3]
        assert list(answers) == list(range(1, 10))
        for wrong, error in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
            with pytest.raises(error, match="buffersize"):
                executor.map(abs, [], buffersize=wrong)  # type: ignore[arg-type]


def test_a_map_that_is_not_read_to_its_end_cancels_the_rest(held: tuple[RateLimitedExecutor, threading.Event]) -> None:
    """Closing the iterator, or an error in it, leaves no calls behind."""
    executor, go = held
    answers = executor.map(abs, range(3), timeout=0)
    with pytest.raises(FutureTimeoutError):
        next(answers)
    go.set()
    assert executor._worker.wait(PATIENCE)


# -- memory


class Body:
    """Something big that a call was given."""


def test_a_failed_call_does_not_keep_its_arguments() -> None:
    """Once its own frames are gone, an exception that is kept keeps nothing of ours."""

    def fails(body: Body) -> None:
        del body
        raise ValueError("kept")

    with RateLimitedExecutor() as executor:
        body = Body()
        reference = weakref.ref(body)
        future = executor.submit(fails, body)
        error = future.exception(PATIENCE)
        del body
        executor.submit(int).result(PATIENCE)
        assert executor._worker.wait(PATIENCE)
        wait_until_collected(lambda: reference() is None)
        assert error is not None
        assert error.__traceback__ is not None


def test_a_cancelled_call_does_not_keep_its_arguments_for_long() -> None:
    """Of many that were cancelled, most are forgotten before their turn comes."""
    executor = RateLimitedExecutor(rpm=1)
    executor.submit(int).result(PATIENCE)
    bodies = [Body() for _ in range(1_000)]
    references = [weakref.ref(body) for body in bodies]
    futures = [executor.submit(id, body) for body in bodies]
    del bodies
    assert all(future.cancel() for future in futures)
    assert executor._worker.wait(PATIENCE)
    gc.collect()
    assert sum(reference() is not None for reference in references) <= 100
    executor.shutdown()


def test_a_forgotten_executor_leaves_no_thread() -> None:
    """When nothing is pending; and what is pending ends first."""
    executor = RateLimitedExecutor(min_interval=0.001)
    futures = [executor.submit(int, number) for number in range(10)]
    engine = executor._worker.engine
    threads = [engine.thread, *engine.senders.threads]
    del executor, engine
    assert [future.result(PATIENCE) for future in futures] == list(range(10))
    wait_until_collected(lambda: not any(thread.is_alive() for thread in threads))
