"""Requests by id over HTTP, and what operators do."""

from __future__ import annotations

import pytest
from serving_gateways import CHAT, in_thread, say
from waiting import wait_until

from ratelimited_llm import OpenAI


def enqueue(running, text="kept", **more):
    return running.ask("/v1/queue/requests", {"endpoint": "/v1/chat/completions", "body": say(text), **more})


def looked(running, request_id):
    return running.ask(f"/v1/queue/requests/{request_id}").json


def test_a_request_is_answered_by_id(gateway):
    accepted = enqueue(gateway, priority="high", tenant="acme")
    assert accepted.status == 202
    request_id = accepted.json["id"]
    wait_until(lambda: looked(gateway, request_id)["status"] == "completed")
    told = looked(gateway, request_id)
    assert told["result"]["choices"][0]["message"]["content"] == "kept"
    assert (told["priority"], told["tenant"], told["attempts"]) == ("high", "acme", 1)


def test_a_request_that_fails_tells_why(gateway):
    request_id = enqueue(gateway, '!{"kind": "status", "status": 418}').json["id"]
    wait_until(lambda: looked(gateway, request_id)["status"] == "failed")
    assert looked(gateway, request_id)["error_type"] == "APIStatusError"


def test_anthropic_requests_find_their_upstream(gateway):
    body = {"model": "claude-opus-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "to claude"}]}
    request_id = gateway.ask("/v1/queue/requests", {"endpoint": "/v1/messages", "body": body}).json["id"]
    wait_until(lambda: looked(gateway, request_id)["status"] == "completed")
    assert looked(gateway, request_id)["result"]["content"][0]["text"] == "to claude"


def test_what_waits_can_be_cancelled_and_is_in_the_stats(serving):
    running = serving()
    running.ask("/v1/queue/pause", {})
    request_id = enqueue(running).json["id"]
    assert looked(running, request_id)["position"] == 1
    told = running.ask("/v1/queue/stats").json
    assert (told["queued"], told["by_priority"]["low"]["queued"]) == (1, 1)
    cancelled = running.ask(f"/v1/queue/requests/{request_id}", method="DELETE")
    assert cancelled.json["cancelled"] is True
    wait_until(lambda: looked(running, request_id)["status"] == "cancelled")


@pytest.mark.parametrize(
    "body",
    [{}, {"endpoint": 1, "body": {}}, {"endpoint": "/v1/chat/completions"}, {"endpoint": "/v1/nothing", "body": {}},
     {"endpoint": "/v1/chat/completions", "body": {}, "upstream": "evil"},
     {"endpoint": "/v1/chat/completions", "body": {"stream": True}},
     {"endpoint": "/v1/chat/completions", "body": {}, "priority": "urgent"},
     {"endpoint": "/v1/chat/completions", "body": {"extra_headers": {}}},
     {"endpoint": "/v1/chat/completions", "body": {"nonsense": 1}}, {"unknown": 1}, [], "text"],
)  # fmt: skip
def test_what_makes_no_sense_is_a_400(gateway, body):
    assert gateway.ask("/v1/queue/requests", body).status == 400


def test_an_unknown_id_is_a_404(gateway):
    assert gateway.ask("/v1/queue/requests/nope").status == 404
    assert gateway.ask("/v1/queue/requests/nope", method="DELETE").status == 404


def test_what_is_not_there_below_its_paths_is_not_asked_of_a_provider(gateway):
    assert gateway.ask("/v1/queue/stats", {}).json["error"]["code"] == "not_found"
    assert gateway.ask("/v1/queue/nothing").json["error"]["code"] == "not_found"


@pytest.mark.parametrize("first", ["http", "kept"])
def test_requests_by_id_and_over_http_wait_in_one_order(serving, providers, first):
    """A HIGH one of either kind goes before LOW ones of the other, whoever came first; and one cap counts both."""
    running = serving(max_concurrency=1, max_queue=6)
    running.ask("/v1/chat/completions", CHAT)
    warm = enqueue(running, "warm").json["id"]
    wait_until(lambda: looked(running, warm)["status"] == "completed")
    running.ask("/v1/queue/pause", {})
    began, threads = len(providers["openai"].log), []

    def http(text, priority):
        ask = running.ask
        threads.append(
            in_thread(lambda: ask("/v1/chat/completions", say(text), **{"x-ratelimited-priority": priority}))
        )

    def kept(text, priority):
        enqueue(running, text, priority=priority)

    low, high = (http, kept) if first == "http" else (kept, http)
    for number, (send, text, priority) in enumerate(
        ((low, "low 1", "low"), (low, "low 2", "low"), (high, "low 3", "low"), (high, "high 1", "high"),
         (low, "normal", "normal"), (low, "high 2", "high")), 1
    ):  # fmt: skip
        send(text, priority)
        wait_until(lambda number=number: running.gateway.queued == number)
    assert enqueue(running, "one too many").status == 429
    assert running.ask("/v1/chat/completions", CHAT).status == 429
    running.ask("/v1/queue/resume", {})
    for thread in threads:
        thread.join(10)
    wait_until(lambda: len(providers["openai"].log) == began + 6)
    order = [record.tag for record in providers["openai"].log[began:]]
    assert order == ["high 1", "high 2", "normal", "low 1", "low 2", "low 3"]


def test_a_gateway_that_ends_leaves_the_queue_of_other_clients_in_the_process(serving, providers):
    """Mounted in a service, it shares its queue with clients that have the same settings."""
    running = serving()
    kept = enqueue(running).json["id"]
    wait_until(lambda: looked(running, kept)["status"] == "completed")
    with OpenAI(api_key="sk-other", base_url=providers["openai"].base_url, rpm=1) as client:
        assert client.chat.completions.create(**CHAT).choices
        waiting = client.chat.completions.create(**CHAT)
        assert client._runtime.worker is running.gateway.workers[0]
        running.stop()
        assert not waiting.done()
        assert waiting.cancel()
