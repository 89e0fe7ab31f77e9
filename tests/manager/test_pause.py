"""A worker that is paused: whoever uses it, nothing is sent, and every way to end it still ends it."""

from __future__ import annotations

import threading

import pytest
from parts import PATIENCE

from ratelimited_llm import RateLimitedExecutor


@pytest.mark.parametrize("before", [True, False])
def test_nothing_is_sent_from_the_moment_that_pause_returns(before: bool) -> None:
    """Neither by the worker's thread nor at once by the one that submits."""
    with RateLimitedExecutor() as executor:
        if not before:
            assert executor.submit(int).result(PATIENCE) == 0
        executor._worker.pause()
        futures = [executor.submit(int) for _ in range(20)]
        assert not executor._worker.wait(0.05)
        assert not any(future.running() or future.done() for future in futures)
        assert executor._worker.first() is not None
        executor._worker.resume()
        assert [future.result(PATIENCE) for future in futures] == [0] * 20
        assert executor._worker.first() is None


def test_pausing_and_resuming_from_many_threads_loses_nothing() -> None:
    """And what is paused last, stays so."""
    executor = RateLimitedExecutor(max_concurrency=4)
    worker = executor._worker
    futures = []

    def toggle() -> None:
        for _ in range(100):
            worker.pause()
            futures.append(executor.submit(int))
            worker.resume()

    threads = [threading.Thread(target=toggle) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE)
    assert [future.result(PATIENCE) for future in futures] == [0] * 400
    executor.shutdown()


@pytest.mark.parametrize("cancel", [True, False])
def test_shutdown_ends_a_pause(cancel: bool) -> None:
    """What waits is called, or cancelled: it could never end otherwise."""
    executor = RateLimitedExecutor()
    executor._worker.pause()
    future = executor.submit(int)
    executor.shutdown(cancel_futures=cancel)
    assert (future.cancelled(), future.done()) == (cancel, True)
