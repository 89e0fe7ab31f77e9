"""Callbacks: sync or async, with the response or with everything; each is called once, and harms nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest
from parts import PATIENCE, AsyncEcho, Echo, Failing
from waiting import wait_until

from ratelimited_llm.manager import QueueManager

Make = Callable[..., QueueManager]


def test_a_callback_with_one_parameter_gets_the_response(make: Make) -> None:
    """And the documents' dict when there is none."""
    got: list[Any] = []
    manager = make(Echo())
    manager.enqueue_request("/x", 1, 1, got.append)
    manager.stop()
    assert got == [{"echo": 1}]
    failing = make(Failing(ValueError("no good")))
    request_id = failing.enqueue_request("/x", 1, 1, got.append)
    failing.stop()
    assert got[1] == {"request_id": request_id, "success": False, "error": "no good"}


def test_a_callback_with_three_gets_id_result_and_error(make: Make) -> None:
    """Of which one of the last two is None."""
    got: list[Any] = []
    error = ValueError("no")
    manager = make(Failing(error))
    ids = []
    for number in range(2):
        ids.append(manager.enqueue_request("/x", number, 1, lambda *all_of_it: got.append(all_of_it)))
        wait_until(lambda: len(got) == len(ids))
    assert got == [(ids[0], None, error), (ids[1], 1, None)]


def test_a_cancelled_request_calls_back_too(make: Make) -> None:
    """Once, with CancelledError, in the thread that cancelled it."""
    got: list[Any] = []

    def note(request_id: str, result: Any, error: Any) -> None:
        got.append((result, type(error), threading.current_thread()))

    manager = make(Echo())
    manager.pause()
    assert manager.cancel_request(manager.enqueue_request("/x", 1, 1, note))
    assert got == [(None, CancelledError, threading.current_thread())]


def test_a_callback_that_raises_is_logged_and_harms_nobody(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Neither its own request nor the next; sync or async."""

    def wrong(response: Any) -> None:
        raise RuntimeError("sync")

    async def wrong_too(response: Any) -> None:
        raise RuntimeError("async")

    manager = make(Echo())
    ids = [manager.enqueue_request("/x", number, 1, fn) for number, fn in enumerate((wrong, wrong_too, None))]
    manager.stop()
    assert [manager.get_result(each)["echo"] for each in ids] == [0, 1, 2]
    logged = sorted(record.message for record in caplog.records)
    assert logged == sorted(f"callback_failed: request {each}" for each in ids[:2])


def test_a_result_is_there_when_its_callback_runs(make: Make) -> None:
    """So a callback may ask for it, for its status, and for more requests."""
    manager = make(Echo())
    got: list[Any] = []

    def again(request_id: str, result: Any, error: Any) -> None:
        got.append((manager.get_result(request_id, 0), manager.get_request_status(request_id)["status"]))
        if len(got) < 3:
            manager.enqueue_request("/x", len(got), 1, again)

    manager.enqueue_request("/x", 0, 1, again)
    wait_until(lambda: len(got) == 3)
    assert got == [({"echo": number}, "completed") for number in range(3)]


def test_a_coroutine_runs_on_the_loop_that_it_was_given_in(make: Make) -> None:
    """So it may use what belongs to that loop."""
    manager = make(Echo())

    async def main() -> tuple[Any, bool]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        mine = threading.current_thread()

        async def put(response: Any) -> None:
            await queue.put((response, threading.current_thread() is mine))

        await manager.enqueue_request("/x", 1, 1, put)
        return await asyncio.wait_for(queue.get(), PATIENCE)  # type: ignore[no-any-return]

    assert asyncio.run(main()) == ({"echo": 1}, True)


@pytest.mark.parametrize("given", ["no loop", "closed loop"])
def test_without_that_loop_it_runs_on_the_managers(make: Make, given: str) -> None:
    """And `stop` waits for it."""
    manager = make(AsyncEcho())
    names: list[str] = []

    async def note(response: Any) -> None:
        await asyncio.sleep(0.02)
        names.append(threading.current_thread().name)

    async def enqueue() -> None:
        manager.enqueue_request("/x", 1, 1, note)

    manager.pause()
    if given == "no loop":
        manager.enqueue_request("/x", 1, 1, note)
    else:
        asyncio.run(enqueue())
    manager.resume()
    manager.stop()
    assert [name.startswith("ratelimited-llm-loop") for name in names] == [True]


@pytest.mark.parametrize("coroutine", [False, True])
def test_a_callback_may_stop_its_manager(make: Make, coroutine: bool) -> None:
    """It does not wait for itself."""
    manager = make(Echo())
    stopped = threading.Event()

    def stop(response: Any) -> None:
        manager.stop()
        stopped.set()

    async def stop_too(response: Any) -> None:
        stop(response)

    manager.enqueue_request("/x", 1, 1, stop_too if coroutine else stop)
    assert stopped.wait(PATIENCE)
    assert not manager.running


def test_every_callback_of_many_is_called_once(make: Make) -> None:
    """From many threads, sync and async, answered, failed and cancelled ones."""
    count = 300
    got: list[str] = []
    manager = make(Failing(*[ValueError() for _ in range(40)]), max_concurrency=8)

    async def note_too(request_id: str, result: Any, error: Any) -> None:
        got.append(request_id)

    def note(request_id: str, result: Any, error: Any) -> None:
        got.append(request_id)

    ids: list[str] = []

    def enqueue(fn: Any) -> None:
        for number in range(count // 3):
            ids.append(manager.enqueue_request("/x", number, 1, fn))
            if number % 10 == 0:
                manager.cancel_request(ids[-1])

    threads = [threading.Thread(target=enqueue, args=(fn,)) for fn in (note, note_too, note)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE)
    manager.stop()
    assert sorted(got) == sorted(ids)
    assert len(set(ids)) == count
    metrics = manager.get_metrics()
    assert metrics["completed_total"] + metrics["failed_total"] + metrics["cancelled_total"] == count
