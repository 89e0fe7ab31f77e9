"""Requests by id over HTTP, and what operators do."""

from __future__ import annotations

import pytest
from serving_gateways import say, until


def enqueue(running, text="kept", **more):
    return running.ask("/v1/queue/requests", {"endpoint": "/v1/chat/completions", "body": say(text), **more})


def looked(running, request_id):
    return running.ask(f"/v1/queue/requests/{request_id}").json


def test_a_request_is_answered_by_id(gateway):
    accepted = enqueue(gateway, priority="high", tenant="acme")
    assert accepted.status == 202
    request_id = accepted.json["id"]
    until(lambda: looked(gateway, request_id)["status"] == "completed")
    told = looked(gateway, request_id)
    assert told["result"]["choices"][0]["message"]["content"] == "kept"
    assert (told["priority"], told["tenant"], told["attempts"]) == ("high", "acme", 1)


def test_a_request_that_fails_tells_why(gateway):
    request_id = enqueue(gateway, '!{"kind": "status", "status": 418}').json["id"]
    until(lambda: looked(gateway, request_id)["status"] == "failed")
    assert looked(gateway, request_id)["error_type"] == "APIStatusError"


def test_anthropic_requests_find_their_upstream(gateway):
    body = {"model": "claude-opus-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "to claude"}]}
    request_id = gateway.ask("/v1/queue/requests", {"endpoint": "/v1/messages", "body": body}).json["id"]
    until(lambda: looked(gateway, request_id)["status"] == "completed")
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
    until(lambda: looked(running, request_id)["status"] == "cancelled")


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
