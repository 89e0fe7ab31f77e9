"""A manager in front of a client of ours, against the simulator: endpoints, shared limits, a queue of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from parts import PATIENCE
from waiting import wait_until

from ratelimited_llm import OpenAI
from ratelimited_llm.manager import QueueManager
from ratelimited_llm.simulator import Simulator

Make = Callable[..., QueueManager]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def provider() -> Iterator[Simulator]:
    with Simulator("openai", rpm=600, tpm=100_000, answer="echo") as simulator:
        yield simulator


@pytest.fixture
def client(provider: Simulator) -> Iterator[Any]:
    with OpenAI(base_url=provider.base_url, api_key="sk-test") as made:
        yield made


@pytest.mark.parametrize(
    "endpoint", ["chat.completions", "/v1/chat/completions", "/chat/completions", "chat/completions.create"]
)
def test_an_endpoint_is_read_as_the_provider_or_the_sdk_writes_it(make: Make, client: Any, endpoint: str) -> None:
    """The result is what the SDK answers with."""
    manager = make(client=client)
    answer = manager.get_result(manager.enqueue_request(endpoint, CHAT), PATIENCE)
    assert type(answer).__name__ == "ChatCompletion"
    assert answer.choices[0].message.content == "hello"


def test_other_endpoints_work_and_unknown_ones_are_refused(make: Make, client: Any) -> None:
    """With the known ones."""
    manager = make(client=client)
    answer = manager.get_result(manager.enqueue_request("/v1/embeddings", {"model": "e", "input": "x"}), PATIENCE)
    assert len(answer.data) == 1
    for unknown in ("/v1/files", "models.list", "chat", "__class__", "/messages"):
        with pytest.raises(ValueError, match=r"chat\.completions"):
            manager.enqueue_request(unknown, {})


def test_the_limits_are_the_clients_and_the_queue_is_not(make: Make, client: Any, provider: Simulator) -> None:
    """A pause of the manager holds nobody else, and what others spend counts."""
    manager = make(client=client)
    manager.pause()
    request_id = manager.enqueue_request("/chat/completions", CHAT)
    assert client.chat.completions.create(**CHAT).choices[0].message.content == "hello"
    assert manager.get_request_status(request_id)["status"] == "queued"
    manager.resume()
    assert manager.get_result(request_id, PATIENCE).usage.total_tokens > 0
    wait_until(lambda: "m" in manager.get_queue_status()["rate_limits"])
    limits = manager.get_queue_status()["rate_limits"]["m"]
    assert (limits["rpm"]["limit"], limits["tpm"]["limit"]) == (600, 100_000)
    assert limits["rpm"]["remaining"] < 599
    assert provider.counters.refused == 0
    manager.stop()
    assert client.chat.completions.create(**CHAT).choices[0].message.content == "hello"


def test_priority_tenant_and_place_are_told(make: Make, client: Any) -> None:
    """In the words of the documents, and as JSON."""
    manager = make(client=client, size_classes=True)
    manager.pause()
    manager.enqueue_request("/chat/completions", CHAT, priority="low")
    high = manager.enqueue_request("/chat/completions", CHAT, 20_000, priority="high", tenant="acme")
    found = manager.get_next_request()
    assert found is not None
    assert (found["request_id"], found["tenant"], found["payload"]) == (high, "acme", CHAT)
    assert found["task_type"] == "medium"
    wait_until(lambda: manager.get_request_status(high)["position"] == 1)
    assert manager.get_queue_length() == {"high": 1, "normal": 0, "low": 1, "total": 2}
    status = manager.get_request_status(high)
    assert json.loads(json.dumps(status)) == status
    assert manager.cancel_request(high)
    assert manager.get_request_status(high)["status"] == "cancelled"
    manager.resume()
    manager.stop()
    assert manager.get_metrics()["completed_total"] == 1
    assert manager.get_metrics()["token_usage"]["output_tokens"] > 0


def test_the_providers_error_is_the_very_error(make: Make, client: Any) -> None:
    """And a payload that the SDK does not take fails at the call."""
    manager = make(client=client)
    with pytest.raises(TypeError):
        manager.enqueue_request("/chat/completions", {"model": "m"})
    with pytest.raises(TypeError, match="mapping"):
        manager.enqueue_request("/chat/completions", "hello")
    assert manager.get_queue_length()["total"] == 0
    with Simulator("openai", api_key="sk-right") as strict, OpenAI(base_url=strict.base_url, api_key="sk-x") as wrong:
        other = make(client=wrong)
        request_id = other.enqueue_request("/chat/completions", CHAT)
        with pytest.raises(openai.AuthenticationError):
            other.get_result(request_id, PATIENCE)
        assert other.get_request_status(request_id)["status"] == "failed"
        assert "sk-x" not in json.dumps(other.get_request_status(request_id)) + repr(other)


def test_streams_and_blocking_clients_work(make: Make, provider: Simulator) -> None:
    """A stream is a result; a client in blocking mode is queued all the same."""
    with OpenAI(base_url=provider.base_url, api_key="sk-test", mode="blocking") as client:
        manager = make(client=client)
        manager.pause()
        request_id = manager.enqueue_request("/chat/completions", {**CHAT, "stream": True})
        assert manager.get_request_status(request_id)["status"] == "queued"
        manager.resume()
        with manager.get_result(request_id, PATIENCE) as stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        assert text == "hello"


def test_it_starts_again_after_a_stop(make: Make, client: Any) -> None:
    """With a queue that is new, and limits that are not."""
    manager = make(client=client)
    for _ in range(2):
        assert manager.get_result(manager.enqueue_request("/chat/completions", CHAT), PATIENCE).choices
        manager.stop()
        manager.start()


def test_limits_beside_a_client_are_refused(client: Any) -> None:
    """They are the client's."""
    with pytest.raises(TypeError, match="client's"):
        QueueManager(client=client, rpm=10)
