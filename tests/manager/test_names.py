"""Every public name of the seed documents' queue managers, and what it answers here: one table, one test each."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from parts import PATIENCE, Echo, Held

from ratelimited_llm import QueueFull, RateLimits
from ratelimited_llm.manager import QueueManager
from ratelimited_llm.manager.answers import RequestId, StatusDict, Told

# Name, its parameters with their defaults (as the documents have them, and then ours), and whether it may be awaited.
TABLE: list[tuple[str, dict[str, Any], bool]] = [
    ("start", {}, False),
    ("stop", {"wait": True, "cancel_pending": False}, False),
    ("ensure_processing", {}, True),
    (
        "enqueue_request",
        {"endpoint": ..., "payload": ..., "token_count": None, "callback": None, "priority": "low", "tenant": None},
        True,
    ),
    ("cancel_request", {"request_id": ...}, True),
    ("get_request_status", {"request_id": ...}, True),
    ("get_result", {"request_id": ..., "timeout": None}, False),
    ("get_next_request", {}, False),
    ("get_queue_length", {"priority": None, "tenant": None}, False),
    ("get_queue_status", {}, False),
    ("get_metrics", {}, False),
    ("pause", {}, False),
    ("resume", {}, False),
]


@pytest.fixture
def paused(make: Callable[..., QueueManager]) -> QueueManager:
    """A manager that waits."""
    manager = make(Echo(), rpm=600, tpm=100_000)
    manager.pause()
    return manager


@pytest.mark.parametrize(("name", "parameters", "awaited"), TABLE, ids=[row[0] for row in TABLE])
def test_a_name_takes_what_its_document_says(name: str, parameters: dict[str, Any], awaited: bool) -> None:
    """In that order, with those defaults; more of ours can only be given by name."""
    given = list(inspect.signature(getattr(QueueManager, name)).parameters.values())[1:]
    positional = {each.name: each.default for each in given if each.kind is not each.KEYWORD_ONLY}
    assert positional == {key: inspect.Parameter.empty if value is ... else value for key, value in parameters.items()}
    assert all(each.default is not inspect.Parameter.empty for each in given if each.kind is each.KEYWORD_ONLY)


def test_enqueue_request_answers_an_id(paused: QueueManager) -> None:
    """A string that no other request has, whether or not it is awaited."""
    ids = [paused.enqueue_request("/completions", {"prompt": "Hello"}, 10, None, "normal") for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(isinstance(each, str) and isinstance(each, RequestId) for each in ids)
    assert json.loads(json.dumps(ids)) == ids


@pytest.mark.parametrize("priority", ["urgent", 11, -1, None, 2.5, True])
def test_enqueue_request_refuses_an_unknown_priority(paused: QueueManager, priority: Any) -> None:
    """With ValueError, as documented, and the known ones."""
    with pytest.raises(ValueError, match="high"):
        paused.enqueue_request("/x", {}, 1, priority=priority)
    assert paused.get_queue_length()["total"] == 0


def test_get_queue_length_answers_a_dict_by_priority(paused: QueueManager) -> None:
    """With high, normal, low and total; or one number of one priority, or only a tenant's."""
    assert paused.get_queue_length() == {"high": 0, "normal": 0, "low": 0, "total": 0}
    for priority, tenant in (("high", "a"), ("low", "a"), ("low", "b"), ("background", "b"), (3, "b")):
        paused.enqueue_request("/x", {}, 1, priority=priority, tenant=tenant)
    lengths = {"high": 1, "normal": 0, "low": 2, "background": 1, "3": 1, "total": 5}
    assert paused.get_queue_length() == lengths
    assert (paused.get_queue_length("low"), paused.get_queue_length("low", "a")) == (2, 1)
    assert paused.get_queue_length(tenant="a") == {"high": 1, "normal": 0, "low": 1, "total": 2}
    with pytest.raises(ValueError, match="priority"):
        paused.get_queue_length("urgent")


def test_get_next_request_answers_the_request_and_leaves_it_there(paused: QueueManager) -> None:
    """Strictly by priority; None when none waits."""
    assert paused.get_next_request() is None
    paused.enqueue_request("/low", {"n": 1}, 1)
    high = paused.enqueue_request("/high", {"n": 2}, 7, priority="high")
    for _ in range(2):
        found = paused.get_next_request()
        assert found is not None
        assert (found["request_id"], found["endpoint"], found["payload"]) == (high, "/high", {"n": 2})
        assert (found["priority"], found["token_count"], found["status"]) == ("high", 7, "queued")
        assert found["position"] == 1
    assert paused.get_queue_length()["total"] == 2


def test_cancel_request_answers_whether_it_was_cancelled(paused: QueueManager) -> None:
    """True once; False for one that is not waiting, or not known."""
    request_id = paused.enqueue_request("/x", {}, 1)
    assert paused.cancel_request(request_id)
    assert not paused.cancel_request(request_id)
    assert not paused.cancel_request("unknown")
    assert repr(paused.cancel_request("unknown")) == "False"
    assert (Told(True), Told(False)) == (True, False)


def test_get_queue_status_has_lengths_running_and_rate_limits(paused: QueueManager) -> None:
    """As the document prints them; and it is JSON."""
    paused.enqueue_request("/x", {}, 1)
    status = paused.get_queue_status()
    assert status["queue_lengths"] == {"high": 0, "normal": 0, "low": 1, "total": 1}
    assert (status["running"], status["paused"], status["is_processing"]) == (True, True, False)
    assert json.loads(json.dumps(status)) == status
    paused.resume()
    paused.stop()
    status = paused.get_queue_status()
    assert (status["running"], status["rate_limits"]["all"]["rpm"]["limit"]) == (False, 600)
    assert status["rate_limits"]["all"]["tpm"]["limit"] == 100_000


def test_get_metrics_has_every_number_that_the_document_prints(make: Callable[..., QueueManager]) -> None:
    """Queue, success rate, tokens, health; completed and failed for low, medium and long requests."""
    manager = make(Echo(), tpm=1_000_000)
    for tokens in (10, 20_000, 20_000, 80_000):
        manager.get_result(manager.enqueue_request("/x", {}, tokens), PATIENCE)
    manager.stop()
    metrics = manager.get_metrics()
    assert (metrics["total_in_queue"], metrics["success_rate_percent"]) == (0, 100.0)
    assert [metrics[f"{size}_completed"] for size in ("low", "medium", "long")] == [1, 2, 1]
    assert [metrics[f"{size}_failed"] for size in ("low", "medium", "long")] == [0, 0, 0]
    assert 8.0 < metrics["token_usage"]["utilization_percent"] <= 12.1
    assert metrics["system_health"] == {"status": "stopped", "score": 100}
    assert json.loads(json.dumps(metrics)) == metrics


def test_get_request_status_uses_the_words_of_the_documents(make: Callable[..., QueueManager]) -> None:
    """queued, processing, completed, failed, cancelled; and it is JSON at every moment."""
    held = Held()
    manager = make(held, max_concurrency=1)
    first = manager.enqueue_request("/x", {}, 1)
    assert held.arrived.acquire(timeout=PATIENCE)
    second, third = (manager.enqueue_request("/x", {}, 1) for _ in range(2))
    assert [manager.get_request_status(each)["status"] for each in (first, second)] == ["processing", "queued"]
    manager.cancel_request(third)
    assert manager.get_request_status(third)["status"] == "cancelled"
    held.go.set()
    assert manager.get_result(second, PATIENCE) == {}
    for each in (first, second, third):
        status = manager.get_request_status(each)
        assert json.loads(json.dumps(status)) == status
    told = manager.get_request_status(second)
    assert told["status"] == "completed"
    assert told["created_at"] <= told["started_at"] <= told["ended_at"]
    assert isinstance(told, StatusDict)
    assert manager.get_request_status("nobody") == {"request_id": "nobody", "status": "not_found"}


def test_stop_and_start_say_whether_it_runs(make: Callable[..., QueueManager]) -> None:
    """It starts with the first request at the latest."""
    manager = make(Echo())
    assert (manager.running, repr(manager)) == (False, "<QueueManager new queued=0 in_flight=0>")
    manager.start()
    assert manager.running
    manager.stop()
    assert not manager.running
    assert manager.ensure_processing()
    assert manager.running


def test_a_full_queue_refuses_as_the_documents_do(make: Callable[..., QueueManager]) -> None:
    """At once, by an error that says so: of the queue, or of one tenant's share."""
    manager = make(Echo(), max_queue=3, max_queue_per_tenant=2)
    manager.pause()
    for tenant in ("a", "a", "b"):
        manager.enqueue_request("/x", {}, 1, tenant=tenant)
    with pytest.raises(QueueFull, match="max_queue"):
        manager.enqueue_request("/x", {}, 1, tenant="c")
    assert manager.get_queue_length()["total"] == 3


def test_limits_are_given_by_name_or_as_a_value(make: Callable[..., QueueManager]) -> None:
    """As to an executor; a share too."""
    given = make(Echo(), limits=RateLimits(rpm=10), share=0.5)._sent_by.limits  # type: ignore[union-attr]
    assert given == RateLimits(rpm=10, share=0.5)
    with pytest.raises(TypeError, match="rpn"):
        make(Echo(), rpn=10)


def test_nobody_polls(make: Callable[..., QueueManager]) -> None:
    """With a thousand requests waiting, the manager's threads sleep until something happens."""
    manager = make(Echo())
    manager.pause()
    for number in range(1_000):
        manager.enqueue_request("/x", number, 1)
    manager.get_next_request()
    turns = 0
    engine = manager._sent_by.worker.engine
    real = engine._turn

    def counted() -> float:
        nonlocal turns
        turns += 1
        return real()

    engine._turn = counted  # type: ignore[method-assign]
    threading.Event().wait(0.3)
    assert turns == 0
