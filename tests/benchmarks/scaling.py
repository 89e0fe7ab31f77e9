"""What a long queue costs: many waiting calls, of many tenants, to many pools of limits; and many that listen.

    python tests/benchmarks/scaling.py

Times are of this thread's own CPU: each line beside the first says how much of a cost grows with the queue.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

from ratelimited_llm import RateLimitedExecutor
from ratelimited_llm.core.dispatcher import Dispatcher, Wait
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.core.request import Cost, QueuedRequest
from ratelimited_llm.core.scheduler import Scheduler
from ratelimited_llm.functions.function_job import OwnLimits
from ratelimited_llm.stores.memory import MemoryBudget

SENDS = 2_000
CALLBACKS = 10_000
COST = Cost(10, 10, 5, 5)


def dispatching(queued: int, tenants: int, pools: int) -> None:
    """Queue so many, send some of them and end each at once; print what one of each costs."""
    machine = Dispatcher(Scheduler(), MemoryBudget())
    limits = [OwnLimits(RateLimits(rpm=1e6)) for _ in range(pools)]
    for number in range(pools):  # so that no limit is made in what is measured
        machine.submit(QueuedRequest(-1 - number, limits[number], COST))
        send(machine)
    began = time.thread_time()
    for number in range(queued):
        machine.submit(QueuedRequest(number, limits[number % pools], COST, tenant=f"tenant {number % tenants}"))
    submitted = time.thread_time()
    for _ in range(SENDS):
        send(machine)
    ended = time.thread_time()
    queueing, sending = (submitted - began) / queued * 1e6, (ended - submitted) / SENDS * 1e6
    print(f"{queued:>9,} calls, {tenants:>5,} tenants, {pools:>4} pools: ", end="")
    print(f"{queueing:6.1f} us to queue one,{sending:7.1f} us to send one")


def send(machine: Dispatcher) -> None:
    """Send the next call and end it."""
    found = machine.next(0.0)
    assert not isinstance(found, Wait)
    machine.finished(found.request, None, 0.0)


def callbacks() -> None:
    """How long it takes to call back so many who listen to one future."""
    called: list[Future[Any]] = []
    with RateLimitedExecutor(rpm=60, burst=1) as slow:
        slow.submit(int).result()
        future = slow.submit(time.thread_time)
        for _ in range(CALLBACKS):
            future.add_done_callback(called.append)
        future.add_done_callback(lambda future: took.append(time.thread_time() - future.result()))
        took: list[float] = []
    assert len(called) == CALLBACKS
    print(f"{CALLBACKS:,} callbacks of one future: {took[0] * 1e3:.1f} ms")


def status() -> None:
    """How long a look at a client with a long queue takes."""
    from ratelimited_llm import OpenAI

    client = OpenAI(api_key="sk-none", base_url="http://127.0.0.1:9/v1", progress=False)
    client._runtime.worker.pause()
    futures = [
        client.chat.completions.create(model=f"model-{number % 50}", messages=[{"role": "user", "content": "Hello"}])
        for number in range(20_000)
    ]
    began = time.thread_time()
    for _ in range(100):
        client.status()
    print(f"status() with {len(futures):,} calls to 50 models waiting: {(time.thread_time() - began) * 10:.2f} ms")
    client.cancel()


def main() -> None:
    """Measure everything and print it."""
    for queued, tenants, pools in ((2_000, 1, 1), (100_000, 1, 1), (100_000, 1_000, 1), (100_000, 1_000, 50),
                                   (100_000, 1, 500)):  # fmt: skip
        dispatching(queued, tenants, pools)
    callbacks()
    status()


if __name__ == "__main__":
    main()
