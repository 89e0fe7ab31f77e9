"""Ctrl-C in the calling thread, at each of the points where the interpreter looks for it: after every call."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import ratelimited_llm
from ratelimited_llm import RateLimitedExecutor
from ratelimited_llm.core.feedback import ANSWERED, Feedback
from ratelimited_llm.core.request import Cost
from ratelimited_llm.engine.turn_jobs import TurnJob
from ratelimited_llm.gathering.gather import gather
from ratelimited_llm.gathering.mapping import map_calls
from ratelimited_llm.worker import RateLimitedWorker

PATIENCE = 10.0
PLACES = (str(Path(ratelimited_llm.__file__).parent), threading.__file__)  # nowhere else, in no test above all


class Interrupter:
    """Raises KeyboardInterrupt once, at the n-th point at which this thread might hear of it."""

    def __init__(self, point: int) -> None:
        self.left = point
        self.struck = False

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        # The interpreter hears of a signal when a function begins, and when a call of C code has returned.
        if event not in ("call", "c_return") or not frame.f_code.co_filename.startswith(PLACES):
            return
        self.left -= 1
        if self.left < 0:
            sys.setprofile(None)
            self.struck = True
            raise KeyboardInterrupt

    @contextmanager
    def striking(self) -> Iterator[None]:
        gc.disable()  # a finalizer would swallow it
        sys.setprofile(self)
        try:
            yield
        except (KeyboardInterrupt, RuntimeError) as error:
            # Inside of Thread.start, a Condition that was torn raises RuntimeError in place of it.
            if not self.struck or KeyboardInterrupt not in (type(error), type(error.__context__)):
                raise
        finally:
            sys.setprofile(None)
            gc.enable()


def submits(executor: RateLimitedExecutor) -> None:
    executor.submit(int)


def submits_and_waits(executor: RateLimitedExecutor) -> None:
    executor.submit(int).result(PATIENCE)


def queues_and_cancels(executor: RateLimitedExecutor) -> None:
    futures = [executor.submit(int) for _ in range(3)]
    for future in futures:
        future.cancel()


def cancels_the_queue(executor: RateLimitedExecutor) -> None:
    for _ in range(3):
        executor.submit(int)
    executor._worker.cancel_queued()


def waits(executor: RateLimitedExecutor) -> None:
    executor.submit(int)
    executor._worker.wait(PATIENCE)


def takes_a_turn(executor: RateLimitedExecutor) -> None:
    worker, pool = executor._worker, executor._terms.pool
    job = TurnJob(worker, worker.next_sequence(), pool, Cost(), submitted_at=worker.clock())
    worker.submit(job)
    try:
        job.wait()
        worker.answered(job, Feedback(ANSWERED))
    except BaseException:
        worker.unsent(job)
        raise


def gathers(executor: RateLimitedExecutor) -> None:
    gather([executor.submit(int) for _ in range(2)], str, timeout=PATIENCE)


ACTIONS = [submits, submits_and_waits, queues_and_cancels, cancels_the_queue, waits, takes_a_turn, gathers]


def everything_works(executor: RateLimitedExecutor) -> None:
    """Nothing is pending, and the only place and the whole queue are free."""
    worker: RateLimitedWorker = executor._worker
    assert worker.wait(PATIENCE)
    assert (worker.pending, worker.in_flight, worker.queued) == (0, 0, 0)
    assert [future.result(PATIENCE) for future in [executor.submit(int) for _ in range(4)]] == [0] * 4
    takes_a_turn(executor)
    assert worker.wait(PATIENCE)


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
def test_an_interrupt_at_any_point_loses_nothing(action: Callable[[RateLimitedExecutor], None], bounded: bool) -> None:
    """Wherever it strikes: no lock stays taken, no place is lost, nothing stays pending for ever."""
    options = {"max_queue": 4} if bounded else {}
    executor = RateLimitedExecutor(max_concurrency=1, rpm=1e9, **options)  # type: ignore[arg-type]
    everything_works(executor)
    point, struck = 0, True
    while struck:
        interrupter = Interrupter(point)
        with interrupter.striking():
            action(executor)
        everything_works(executor)
        struck = interrupter.struck
        point += 1
    assert point > 20
    executor.shutdown()


def test_an_interrupt_during_the_first_call_loses_nothing() -> None:
    """Also while the threads are started."""
    point, struck = 0, True
    while struck:
        executor = RateLimitedExecutor(max_concurrency=1)
        interrupter = Interrupter(point)
        with interrupter.striking():
            submits_and_waits(executor)
        everything_works(executor)
        executor.shutdown()
        struck = interrupter.struck
        point += 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # where it strikes a finalizer
def test_an_interrupt_at_any_point_of_a_map_leaves_no_thread() -> None:
    """However far it got: what it started ends, and the next one works."""
    point, struck = 0, True
    while struck:
        interrupter = Interrupter(point)
        with interrupter.striking():
            map_calls(int, range(3), max_workers=2, timeout=PATIENCE)
        assert map_calls(int, range(3), max_workers=2, timeout=PATIENCE) == [0, 1, 2]
        struck = interrupter.struck
        point += 1
    assert point > 20
    gc.collect()  # what a torn call has left
    end = time.monotonic() + PATIENCE
    # Where it strikes inside of Thread.start, threading itself goes on listing a thread that never ran.
    while any(each.is_alive() for each in threading.enumerate() if each.name.startswith("ratelimited-llm-map-")):
        assert time.monotonic() < end
        time.sleep(0.001)
