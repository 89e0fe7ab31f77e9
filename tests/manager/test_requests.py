"""The life of a request: order, limits, retries, cancelling, pauses, results that are kept, and bad input."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import pytest
from parts import PATIENCE, AsyncEcho, Echo, Failing, Held, StatusError
from waiting import wait_until

from ratelimited_llm import BudgetExceeded, RequestExpired, WorkerStopped
from ratelimited_llm.core.feedback import Kind
from ratelimited_llm.core.request import Cost
from ratelimited_llm.core.size_classes import SizeClasses
from ratelimited_llm.manager import QueueManager
from ratelimited_llm.processors import Processor

Make = Callable[..., QueueManager]


# -- order and limits


def test_higher_priorities_go_first_and_equals_in_order(make: Make) -> None:
    """All high ones, all normal ones, all low ones."""
    echo = Echo()
    manager = make(echo, max_concurrency=1)
    manager.pause()
    for number, priority in enumerate(("low", "normal", "high", "low", "high", "normal")):
        manager.enqueue_request("/x", number, 1, priority=priority)
    manager.resume()
    manager.stop()
    assert echo.seen == [2, 4, 1, 5, 0, 3]


def test_tenants_take_turns(make: Make) -> None:
    """One that floods waits for its turns."""
    echo = Echo()
    manager = make(echo, max_concurrency=1)
    manager.pause()
    for number in range(4):
        manager.enqueue_request("/x", f"flood{number}", 1, tenant="flood")
    manager.enqueue_request("/x", "other", 1, tenant="other")
    manager.resume()
    manager.stop()
    assert echo.seen == ["flood0", "other", "flood1", "flood2", "flood3"]


def test_size_classes_take_turns(make: Make) -> None:
    """3-2-1 by the tokens that were said."""
    echo = Echo()
    manager = make(echo, max_concurrency=1, size_classes=True)
    manager.pause()
    for letter, tokens, count in (("l", 80_000, 2), ("m", 20_000, 4), ("s", 10, 6)):
        for _ in range(count):
            manager.enqueue_request("/x", letter, tokens)
    found = manager.get_next_request()
    assert found is not None
    assert found["task_type"] == "low"
    manager.resume()
    manager.stop()
    assert "".join(echo.seen) == "sssmml" * 2
    assert make(echo, size_classes=SizeClasses((10,), (1, 1))).get_metrics()["class_1_completed"] == 0


def test_no_more_requests_start_than_the_limit_allows(make: Make) -> None:
    """Of five, two may start in the first minute; the third says what it waits for, and for how long."""
    manager = make(Echo(), rpm=2)
    ids = [manager.enqueue_request("/x", {}, 1) for _ in range(5)]
    assert [manager.get_result(each, PATIENCE) for each in ids[:2]] == [{"echo": {}}] * 2
    wait_until(lambda: manager.get_request_status(ids[2])["held_by"] == "rpm")
    status = manager.get_request_status(ids[2])
    assert (status["status"], status["position"]) == ("queued", 1)
    assert 20 < status["eta"] < 31
    with pytest.raises(FutureTimeoutError):
        manager.get_result(ids[2], 0)


def test_a_request_for_more_than_a_whole_limit_is_refused_at_once(make: Make) -> None:
    """With the numbers, and nothing is left of it."""
    manager = make(Echo(), tpm=1_000)
    with pytest.raises(BudgetExceeded):
        manager.enqueue_request("/x", {}, 1_001)
    assert manager.get_metrics()["enqueued_total"] == 0


def test_tokens_are_charged_as_they_were_used(make: Make) -> None:
    """An estimate of 900 that turned out to be 100 leaves room for another."""

    class Used(Processor):
        def process(self, payload: Any) -> Any:
            return {"usage": {"prompt_tokens": 60, "completion_tokens": 40}}

    manager = make(Used(), tpm=1_000)
    for _ in range(2):
        manager.get_result(manager.enqueue_request("/x", {}, 900), PATIENCE)
    assert manager.get_metrics()["token_usage"]["input_tokens"] == 120


# -- retries


@pytest.mark.parametrize("error", [StatusError(500), StatusError(503), TimeoutError(), ConnectionResetError()])
def test_what_may_pass_is_tried_again(make: Make, error: Exception) -> None:
    """Server errors, timeouts and broken connections."""
    failing = Failing(error)
    manager = make(failing)
    request_id = manager.enqueue_request("/x", "p", 1)
    assert manager.get_result(request_id, PATIENCE) == "p"
    assert manager.get_request_status(request_id)["attempts"] == 2


def test_a_refusal_waits_and_is_no_attempt(make: Make) -> None:
    """Even with max_retries=0."""
    manager = make(Failing(StatusError(429, "slow down", **{"retry-after-ms": "20"})), max_retries=0)
    assert manager.get_result(manager.enqueue_request("/x", "p", 1), PATIENCE) == "p"


@pytest.mark.parametrize("error", [StatusError(400), StatusError(401), ValueError("no"), KeyError("x")])
def test_what_is_final_fails_at_once_with_the_very_error(make: Make, error: Exception) -> None:
    """And its status says so."""
    failing = Failing(error)
    manager = make(failing)
    request_id = manager.enqueue_request("/x", "p", 1)
    with pytest.raises(type(error)) as caught:
        manager.get_result(request_id, PATIENCE)
    assert caught.value is error
    status = manager.get_request_status(request_id)
    assert (status["status"], status["error_type"], failing.tries) == ("failed", type(error).__name__, 1)
    assert manager.get_metrics()["success_rate_percent"] == 0.0
    assert manager.get_metrics()["system_health"] == {"status": "unhealthy", "score": 0}


def test_retries_end(make: Make) -> None:
    """After max_retries more attempts."""
    failing = Failing(*[StatusError(500) for _ in range(5)])
    manager = make(failing, max_retries=1)
    with pytest.raises(StatusError):
        manager.get_result(manager.enqueue_request("/x", "p", 1), PATIENCE)
    assert failing.tries == 2


# -- cancelling


def test_a_cancelled_request_is_not_sent_and_says_so(make: Make) -> None:
    """Its result raises CancelledError."""
    echo = Echo()
    manager = make(echo)
    manager.pause()
    request_id = manager.enqueue_request("/x", "p", 1)
    assert manager.cancel_request(request_id)
    with pytest.raises(CancelledError):
        manager.get_result(request_id)
    manager.resume()
    manager.stop()
    assert (echo.seen, manager.get_metrics()["cancelled_total"]) == ([], 1)


def test_what_is_being_processed_goes_on(make: Make) -> None:
    """Cancelling it answers False."""
    held = Held()
    manager = make(held)
    request_id = manager.enqueue_request("/x", "p", 1)
    assert held.arrived.acquire(timeout=PATIENCE)
    assert not manager.cancel_request(request_id)
    held.go.set()
    assert manager.get_result(request_id, PATIENCE) == "p"


def test_one_that_waits_for_another_try_can_be_cancelled(make: Make) -> None:
    """A refusal that asks for a minute is no reason to wait for one."""
    manager = make(Failing(StatusError(429, **{"retry-after": "60"})))
    request_id = manager.enqueue_request("/x", "p", 1)
    wait_until(lambda: manager.get_request_status(request_id)["attempts"] == 1)
    wait_until(lambda: manager.get_request_status(request_id)["status"] == "queued")
    assert manager.cancel_request(request_id)
    with pytest.raises((CancelledError, WorkerStopped)):
        manager.get_result(request_id, PATIENCE)
    assert manager.get_request_status(request_id)["status"] == "cancelled"


# -- pause, stop, start


def test_a_pause_sends_nothing_and_lets_what_is_in_flight_end(make: Make) -> None:
    """And `resume` goes on at once."""
    held = Held()
    manager = make(held)
    first = manager.enqueue_request("/x", 1, 1)
    assert held.arrived.acquire(timeout=PATIENCE)
    manager.pause()
    second = manager.enqueue_request("/x", 2, 1)
    held.go.set()
    assert manager.get_result(first, PATIENCE) == 1
    assert manager.get_request_status(second)["status"] == "queued"
    assert not held.arrived.acquire(timeout=0.05)
    began = time.monotonic()
    manager.resume()
    assert manager.get_result(second, PATIENCE) == 2
    assert time.monotonic() - began < 0.1 + 0.4  # at once, on a busy machine too


def test_deadlines_pass_during_a_pause(make: Make) -> None:
    """A request that is not worth sending any more fails with RequestExpired."""
    manager = make(Echo())
    manager.pause()
    with pytest.raises(RequestExpired):
        manager.get_result(manager.enqueue_request("/x", 1, 1, deadline=0.02), PATIENCE)


@pytest.mark.parametrize("paused", [False, True])
def test_stop_processes_what_was_accepted(make: Make, paused: bool) -> None:
    """Or cancels it when asked to; a pause ends with it."""
    echo = Echo()
    manager = make(echo)
    if paused:
        manager.pause()
    ids = [manager.enqueue_request("/x", number, 1) for number in range(20)]
    manager.stop()
    assert sorted(manager.get_result(each, 0)["echo"] for each in ids) == list(range(20))
    with pytest.raises(WorkerStopped):
        manager.enqueue_request("/x", 1, 1)


def test_stop_with_cancel_pending_ends_the_waiting_ones(make: Make) -> None:
    """Everybody hears of it."""
    manager = make(Echo())
    manager.pause()
    ids = [manager.enqueue_request("/x", number, 1) for number in range(20)]
    manager.stop(cancel_pending=True)
    assert {manager.get_request_status(each)["status"] for each in ids} == {"cancelled"}
    assert manager.get_queue_length()["total"] == 0


def test_it_can_be_started_again_and_remembers_what_it_spent(make: Make) -> None:
    """And the results of before are still there."""
    manager = make(Echo(), rpm=2)
    before = manager.enqueue_request("/x", 1, 1)
    manager.stop()
    manager.start()
    after = manager.enqueue_request("/x", 2, 1)
    assert [manager.get_result(each, PATIENCE)["echo"] for each in (before, after)] == [1, 2]
    third = manager.enqueue_request("/x", 3, 1)
    wait_until(lambda: manager.get_request_status(third)["held_by"] == "rpm")


def test_a_with_block_ends_when_everything_has() -> None:
    """As an executor's does."""
    echo = Echo()
    with QueueManager(echo) as manager:
        for number in range(10):
            manager.enqueue_request("/x", number, 1)
    assert sorted(echo.seen) == list(range(10))
    assert not manager.running


def test_a_forgotten_manager_answers_and_leaves_no_thread() -> None:
    """Its loop ends with it."""
    manager = QueueManager(AsyncEcho())
    manager.get_result(manager.enqueue_request("/x", 1, 1), PATIENCE)
    gone = weakref.ref(manager)
    del manager
    gc.collect()
    wait_until(lambda: gone() is None)
    wait_until(lambda: not [each for each in threading.enumerate() if each.name.startswith("ratelimited-llm-loop")])


# -- results


def test_results_are_kept_for_the_stated_time_and_number(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the id is not known any more."""
    manager = make(Echo(), keep_results=3_600.0, max_results=2)
    ids = [manager.enqueue_request("/x", number, 1) for number in range(3)]
    manager.stop()
    kept = [each for each in ids if manager.get_request_status(each)["status"] == "completed"]
    assert (len(kept), manager.get_metrics()["results_kept"]) == (2, 2)
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + 3_601)
    assert manager.get_request_status(kept[0])["status"] == "not_found"
    assert manager.get_metrics()["results_kept"] == 0
    with pytest.raises(KeyError, match="not kept"):
        manager.get_result(kept[0])


def test_a_result_can_be_taken_more_than_once_and_from_many_threads(make: Make) -> None:
    """It is the same object."""
    manager = make(Echo())
    request_id = manager.enqueue_request("/x", 1, 1)
    taken: list[Any] = []
    threads = [threading.Thread(target=lambda: taken.append(manager.get_result(request_id))) for _ in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE)
    assert len({id(each) for each in taken}) == 1


def test_the_payload_is_as_it_was_and_is_let_go(make: Make) -> None:
    """What the caller changes later changes nothing, and nothing keeps it afterwards."""

    class Text(str):
        __slots__ = ("__weakref__",)

    echo = Echo()
    manager = make(echo)
    manager.pause()
    text = Text("long")
    gone = weakref.ref(text)
    payload = {"messages": [{"content": text}]}
    request_id = manager.enqueue_request("/x", payload, 1)
    payload["messages"][0]["content"] = "changed"  # type: ignore[assignment]
    del text
    manager.resume()
    assert manager.get_result(request_id, PATIENCE) == {"echo": {"messages": [{"content": "long"}]}}
    manager.stop()
    manager._records.ended.clear()
    echo.seen.clear()
    gc.collect()
    assert gone() is None


def test_coroutines_take_results_without_stopping_their_loop(make: Make) -> None:
    """Giving up cancels nothing."""
    held = Held()
    manager = make(held)

    async def main() -> Any:
        request_id = await manager.enqueue_request("/x", 1, 1)
        assert type(request_id) is str
        with pytest.raises(FutureTimeoutError):
            await manager.get_result_async(request_id, 0.01)
        assert (await manager.get_request_status(request_id))["status"] in ("queued", "processing")
        held.go.set()
        assert await manager.cancel_request(request_id) is False
        assert await manager.ensure_processing() is True
        result = await manager.get_result_async(request_id, PATIENCE)
        await manager.stop_async()
        return result

    assert asyncio.run(main()) == 1


def test_async_with_starts_and_stops() -> None:
    """Everything has ended behind it."""

    async def main() -> Any:
        async with QueueManager(AsyncEcho()) as manager:
            request_id = await manager.enqueue_request("/x", 5, 1)
        return manager.get_result(request_id, 0)

    assert asyncio.run(main())["echo"] == 5


# -- bad input


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("", {}), {}, ValueError),
        ((None, {}), {}, ValueError),
        (("/x", {}, -1), {}, ValueError),
        (("/x", {}, 1.5), {}, TypeError),
        (("/x", {}, True), {}, TypeError),
        (("/x", {}, 1, "callback"), {}, TypeError),
        (("/x", {}, 1, lambda: None), {}, TypeError),
        (("/x", {}, 1, lambda a, b: None), {}, TypeError),
        (("/x", {}), {"tenant": 5}, TypeError),
        (("/x", {}), {"deadline": 0}, ValueError),
        (("/x", {}), {"timeout": -1}, ValueError),
        (("/x", {}), {"timeout": "1"}, TypeError),
    ],
)
def test_bad_input_is_refused_at_the_call(
    make: Make, arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception]
) -> None:
    """And nothing is left of it."""
    manager = make(Echo())
    with pytest.raises(error):
        manager.enqueue_request(*arguments, **options)
    assert manager.get_metrics()["enqueued_total"] == 0
    assert not manager._records.open


@pytest.mark.parametrize(
    "options",
    [{}, {"processor": Echo(), "client": object()}, {"client": object()}, {"processor": Echo},
     {"processor": {"/x": Echo}}, {"processor": Echo(), "keep_results": "1h"}],
)  # fmt: skip
def test_a_manager_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    """With what is wrong."""
    with pytest.raises(TypeError):
        QueueManager(**options)


@pytest.mark.parametrize(
    "options",
    [{"keep_results": 0}, {"max_results": 0}, {"max_retries": -1}, {"timeout": 0}, {"on_full": "drop"}, {"rpm": 0}],
)
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    """By name."""
    with pytest.raises(ValueError, match=next(iter(options))):
        QueueManager(Echo(), **options)
    with pytest.raises(ValueError, match="empty"):
        QueueManager({})


def test_a_payload_that_contains_itself_is_refused(make: Make) -> None:
    """And a huge one is not."""
    manager = make(Echo())
    payload: dict[str, Any] = {}
    payload["me"] = payload
    with pytest.raises(ValueError, match="contains itself"):
        manager.enqueue_request("/x", payload, 1)
    huge = ["x" * 100] * 100_000
    assert manager.get_result(manager.enqueue_request("/x", huge), PATIENCE) == {"echo": huge}


# -- processors


def test_a_mapping_has_a_processor_for_each_endpoint(make: Make) -> None:
    """Another endpoint is refused, with the known ones."""
    manager = make({"/a": Echo(), "/b": AsyncEcho()})
    assert "thread" in manager.get_result(manager.enqueue_request("/b", 1, 1), PATIENCE)
    with pytest.raises(ValueError, match=r"/a, /b"):
        manager.enqueue_request("/c", 1, 1)


class Whole(Processor):
    """Every method, each as a coroutine."""

    required_fields = ("prompt",)

    def __init__(self) -> None:
        self.threads: set[str] = set()
        self.failed = False

    def here(self) -> None:
        self.threads.add(threading.current_thread().name)

    async def validate(self, payload: Any) -> bool:
        self.here()
        super().validate(payload)
        return payload["prompt"] != "bad"

    async def estimate_tokens(self, payload: Any) -> Cost:
        self.here()
        return Cost(500, 20_000, 400, 100)

    async def process(self, payload: Any, *, timeout: float | None = None, endpoint: str = "") -> Any:
        self.here()
        if not self.failed:
            self.failed = True
            raise LookupError("the first time")
        return endpoint, timeout

    async def classify_error(self, error: Exception) -> Any:
        self.here()
        return Kind.LIMITED if isinstance(error, LookupError) else None

    async def usage(self, result: Any) -> None:
        self.here()


def test_every_method_of_a_processor_may_be_a_coroutine(make: Make) -> None:
    """All of them run on one loop of the manager's, and never on the caller's."""
    whole = Whole()
    manager = make(whole, max_retries=0, timeout=5.0)
    with pytest.raises(ValueError, match="refused"):
        manager.enqueue_request("/x", {"prompt": "bad"})
    with pytest.raises(ValueError, match="prompt"):
        manager.enqueue_request("/x", {})
    with pytest.raises(ValueError, match="mapping"):
        manager.enqueue_request("/x", "text")
    request_id = manager.enqueue_request("/x", {"prompt": "good"})
    assert manager.get_result(request_id, PATIENCE) == ("/x", 5.0)
    assert manager.get_request_status(request_id)["task_type"] == "medium"
    assert len(whole.threads) == 1
    assert next(iter(whole.threads)).startswith("ratelimited-llm-loop")


def test_an_async_processor_that_takes_no_timeout_is_cancelled_after_it(make: Make) -> None:
    """A timeout counts from dispatch, and is tried again."""

    class Slow(Processor):
        tries = 0

        async def process(self, payload: Any) -> Any:
            self.tries += 1
            if self.tries == 1:
                await asyncio.sleep(PATIENCE)
            return payload

    manager = make(Slow())
    assert manager.get_result(manager.enqueue_request("/x", 1, 1, timeout=0.05), PATIENCE) == 1


def test_a_classify_error_that_fails_or_answers_nonsense_makes_the_error_final(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """The error is the provider's, and what went wrong is logged."""

    class Wrong(Failing):
        def classify_error(self, error: Exception) -> Any:
            if isinstance(error, KeyError):
                return "retry"
            raise RuntimeError("broken")

    for error in (ValueError(), KeyError()):
        manager = make(Wrong(error))
        with pytest.raises(type(error)):
            manager.get_result(manager.enqueue_request("/x", 1, 1), PATIENCE)
    assert [each.message.split()[0] for each in caplog.records] == ["classify_error_failed:", "classify_error"]


def test_an_estimate_that_is_none_is_learned_from_usage(make: Make) -> None:
    """Ten times as many tokens as bytes would say: the next estimate knows."""

    class Used(Processor):
        def process(self, payload: Any) -> Any:
            return {"usage": {"prompt_tokens": 1_000, "completion_tokens": 7}}

    manager = make(Used())
    for _ in range(2):
        request_id = manager.enqueue_request("/x", {"prompt": "x" * 400})
        manager.get_result(request_id, PATIENCE)
    assert manager._records.ended[request_id].cost == Cost(1_007, 1_007, 1_000, 7)


def test_groups_of_a_processor_do_not_wait_for_one_another(make: Make) -> None:
    """Each has the limits for itself."""

    class Models(Echo):
        def limit_group(self, payload: Any) -> str:
            return str(payload)

    manager = make(Models(), rpm=1)
    for model in ("a", "b", "c"):
        assert manager.get_result(manager.enqueue_request("/x", model, 1), PATIENCE) == {"echo": model}
    assert set(manager.get_queue_status()["rate_limits"]) == {"a", "b", "c"}


@pytest.mark.parametrize("estimate", [-1, 1.5, True, "many"])
def test_an_estimate_that_is_none_is_refused(make: Make, estimate: Any) -> None:
    """At the call."""

    class Odd(Echo):
        def estimate_tokens(self, payload: Any) -> Any:
            return estimate

    with pytest.raises(ValueError, match="estimate_tokens"):
        make(Odd()).enqueue_request("/x", 1)


def test_a_processor_without_process_says_so(make: Make) -> None:
    """By name."""
    manager = make(Processor())
    with pytest.raises(NotImplementedError, match="Processor must define process"):
        manager.get_result(manager.enqueue_request("/x", 1), PATIENCE)
