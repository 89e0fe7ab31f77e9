"""Several workers under one budget: who waits for a call to end hears of it, whoever sent that call."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

from parts import PATIENCE, Held
from waiting import wait_until

from ratelimited_llm import OpenAI, WorkerStopped
from ratelimited_llm.manager import QueueManager
from ratelimited_llm.processors import Processor
from ratelimited_llm.simulator import Simulator

Make = Callable[..., QueueManager]


def test_a_manager_that_was_started_again_goes_on_when_the_old_requests_end(make: Make) -> None:
    """The one place was taken before the stop."""
    held = Held()
    manager = make(held, max_concurrency=1)
    first = manager.enqueue_request("/x", 1, 1)
    assert held.arrived.acquire(timeout=PATIENCE)
    manager.stop(wait=False)
    manager.start()
    second = manager.enqueue_request("/x", 2, 1)
    assert manager.get_next_request()["request_id"] == second  # type: ignore[index]
    held.go.set()
    assert [manager.get_result(each, PATIENCE) for each in (first, second)] == [1, 2]


def test_a_client_and_its_manager_wait_for_one_another(make: Make) -> None:
    """One call in flight at most, from either queue: all are answered, and none at once with another."""
    with (
        Simulator("openai", latency=0.02, max_concurrency=1) as provider,
        OpenAI(base_url=provider.base_url, api_key="k", max_concurrency=1) as client,
    ):
        manager = make(client=client)
        chat = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        answers, ids = [], []
        for _ in range(5):
            answers.append(client.chat.completions.create(**chat))  # type: ignore[call-overload]
            ids.append(manager.enqueue_request("/chat/completions", chat))
        assert all(manager.get_result(each, PATIENCE).choices for each in ids)
        assert all(answer.choices for answer in answers)
        assert provider.counters.refused == 0


class Moody(Processor):
    """Answers, or does not."""

    def process(self, payload: Any) -> Any:
        if payload % 7 == 0:
            raise ValueError(payload)
        return payload


def test_whatever_many_threads_do_with_it_every_request_ends_once(make: Make) -> None:
    """They enqueue, cancel, pause, resume, look, stop and start."""
    manager = make(Moody(), max_concurrency=4, size_classes=True)
    called: list[str] = []
    ids: list[str] = []

    def user(seed: int) -> None:
        chance = random.Random(seed)
        for number in range(80):
            action = chance.choice(("enqueue",) * 8 + ("cancel", "pause", "resume", "look", "stop", "start"))
            try:
                if action == "enqueue":
                    tokens = chance.choice((1, 20_000, 90_000))
                    ids.append(manager.enqueue_request("/x", number, tokens, lambda i, r, e: called.append(i)))
                elif action == "cancel" and ids:
                    manager.cancel_request(chance.choice(ids))
                elif action == "look":
                    manager.get_next_request()
                    manager.get_metrics()
                    manager.get_queue_status()
                elif action == "stop":
                    manager.stop(wait=chance.random() < 0.5, cancel_pending=chance.random() < 0.3)
                elif action in ("pause", "resume", "start"):
                    getattr(manager, action)()
            except WorkerStopped:
                manager.start()

    threads = [threading.Thread(target=user, args=(seed,)) for seed in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE)
    assert not any(each.is_alive() for each in threads)
    manager.start()
    manager.resume()
    manager.stop()
    wait_until(lambda: len(called) == len(ids))  # the workers of before may still be at it
    metrics = manager.get_metrics()
    assert metrics["completed_total"] + metrics["failed_total"] + metrics["cancelled_total"] == len(ids)
    assert sorted(called) == sorted(ids)
