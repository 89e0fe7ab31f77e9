"""What the gateway adds: a queue with priorities, tenants, deadlines, a cap; clients that leave; errors of its own."""

from __future__ import annotations

import json
import socket
import threading

import openai
import pytest
from serving_gateways import CHAT, in_thread, say
from waiting import wait_until

from ratelimited_llm import Journal

CHAT_PATH = "/v1/chat/completions"


def asked(running, text, ended=None, **headers):
    """Ask beside; `ended` is told the text when the answer is there."""

    def ask():
        running.ask(CHAT_PATH, say(text), **headers)
        if ended is not None:
            ended.append(text)

    return in_thread(ask)


def test_priority_and_tenant_by_header_decide_who_goes_first(serving):
    running = serving(max_concurrency=1)
    running.ask(CHAT_PATH, CHAT)
    running.ask("/v1/queue/pause", {})
    threads, ended = [], []
    for text, headers in (
        ("low 1", {"x-ratelimited-priority": "low"}), ("normal", {}), ("low 2", {"x-ratelimited-priority": "8"}),
        ("high", {"x-ratelimited-priority": "high", "x-ratelimited-client": "acme"}),
    ):  # fmt: skip
        threads.append(asked(running, text, ended, **headers))
        wait_until(lambda: running.gateway.queued == len(threads))
    told = running.ask("/v1/queue/stats").json
    assert told["state"] == "paused"
    assert {name: each["queued"] for name, each in told["by_priority"].items()} == {"high": 1, "normal": 1, "low": 2}
    assert told["by_tenant"]["acme"] == {"queued": 1, "in_flight": 0}
    running.ask("/v1/queue/resume", {})
    for thread in threads:
        thread.join(5)
    assert ended == ["high", "normal", "low 1", "low 2"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("priority", "urgent"), ("priority", "77"), ("deadline", "soon"), ("deadline", "-1"), ("deadline", "nan"),
     ("client", "x" * 300)],
)  # fmt: skip
def test_headers_that_make_no_sense_are_refused_with_a_reason(gateway, name, value):
    answered = gateway.ask(CHAT_PATH, CHAT, **{f"x-ratelimited-{name}": value})
    assert answered.status == 400
    assert name in answered.json["error"]["message"]


def test_a_full_queue_is_a_429_with_retry_after_and_nothing_else_is(serving):
    running = serving(max_queue=2)
    running.ask(CHAT_PATH, CHAT)
    running.ask("/v1/queue/pause", {})
    threads = [asked(running, "m"), asked(running, "m")]
    wait_until(lambda: running.gateway.queued == 2)
    refused = running.ask(CHAT_PATH, CHAT)
    assert (refused.status, refused.json["error"]["code"]) == (429, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    assert running.ask("/readyz").status == 503
    running.ask("/v1/queue/resume", {})
    for thread in threads:
        thread.join(5)
    assert running.ask(CHAT_PATH, CHAT).status == 200
    assert running.ask("/v1/queue/stats").json["totals"]["queue_full"] == 1


def test_a_refusal_of_the_provider_is_waited_out_and_never_reaches_the_client(gateway, providers):
    refused = {"kind": "status", "status": 429, "headers": {"retry-after-ms": "30"}}
    before = providers["openai"].counters.requests
    seen = []

    def once(text):
        seen.append(text)
        return len(seen) == 1

    # The trouble strikes the first time only: the second attempt of the same body finds it over.
    faults = providers["openai"]._service.faults
    real = faults._ask
    faults._ask = lambda number, body: real(number, body) if once(number) else None
    try:
        answered = gateway.ask(CHAT_PATH, say("!" + json.dumps(refused)))
    finally:
        faults._ask = real
    assert answered.status == 200
    assert answered.headers["x-ratelimited-attempts"] == "2"
    assert providers["openai"].counters.requests - before == 2


def test_a_deadline_that_passes_in_the_queue_is_a_504(serving):
    running = serving()
    running.ask(CHAT_PATH, CHAT)
    running.ask("/v1/queue/pause", {})
    answered = running.ask(CHAT_PATH, CHAT, **{"x-ratelimited-deadline": "0.05"})
    assert (answered.status, answered.json["error"]["code"]) == (504, "deadline_exceeded")
    assert answered.headers["x-should-retry"] == "false"


def test_a_request_beyond_a_whole_limit_is_refused_at_once_as_too_large(serving):
    running = serving(tpm=50)
    answered = running.ask(CHAT_PATH, say("word " * 400))
    assert answered.status == 413
    assert "tpm" in answered.json["error"]["message"]
    messages = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "word " * 400}]}
    assert running.ask("/v1/messages", messages).json["error"]["type"] == "request_too_large"


def test_a_client_that_leaves_while_it_waits_is_not_sent(serving, providers):
    running = serving()
    running.ask(CHAT_PATH, CHAT)
    running.ask("/v1/queue/pause", {})
    before = providers["openai"].counters.requests
    with raw_request(running, CHAT):
        wait_until(lambda: running.gateway.queued == 1)
    wait_until(lambda: running.gateway.queued == 0 and not running.gateway.open)
    running.ask("/v1/queue/resume", {})
    running.ask(CHAT_PATH, CHAT)
    assert providers["openai"].counters.requests - before == 1


def test_a_client_that_leaves_a_stream_frees_its_place(serving, providers):
    running = serving(max_concurrency=1)
    with raw_request(running, say("!" + json.dumps({"kind": "stall", "after": 2}), stream=True)) as leaving:
        assert b"200 OK" in leaving.recv(4000)
        wait_until(lambda: running.gateway.status()["streams"] == 1)
    assert running.ask(CHAT_PATH, CHAT).status == 200  # the only place is free again
    wait_until(lambda: not running.gateway.open)
    assert running.gateway.status()["in_flight"] == 0


def raw_request(running, body):
    """A connection whose request was sent, and whose answer nobody has read."""
    connection = socket.create_connection(("127.0.0.1", running.socket_port))
    data = json.dumps(body).encode()
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def test_stream_chunks_come_as_they_are_made(gateway):
    """The first bytes are there although the provider holds the rest back for ever."""
    with raw_request(gateway, say("!" + json.dumps({"kind": "stall", "after": 1}), stream=True)) as connection:
        connection.settimeout(5)
        seen = b""
        while b"data:" not in seen:
            seen += connection.recv(4000)
    wait_until(lambda: not gateway.gateway.open)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'"text"', b'{"a": NaN}', b"[" * 100_000, b"\xff\xfe", b'{"messages": ["\\ud800"]}']
)
def test_a_body_that_is_no_json_is_a_400_in_the_providers_shape(gateway, body):
    for path in (CHAT_PATH, "/v1/messages"):
        answered = gateway.ask(path, body, method="POST")
        assert answered.status == 400
        assert answered.json["error"]["type"] == "invalid_request_error"


def test_a_body_beyond_the_cap_is_a_413_whether_or_not_it_states_its_length(serving):
    running = serving(max_body=1000)
    assert running.ask(CHAT_PATH, b"x" * 1001).status == 413
    with socket.create_connection(("127.0.0.1", running.socket_port)) as connection:
        head = f"POST {CHAT_PATH} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + b"7d0\r\n" + b"x" * 2000 + b"\r\n")
        assert b" 413 " in connection.recv(4000)


@pytest.mark.parametrize("path", ["/", "/nothing", "/v1/../healthz", "/v1//x", "/openai/", "/v1/%2e%2e/admin", "/v1/"])
def test_unknown_paths_are_404_in_a_shape_that_sdks_read(gateway, path):
    answered = gateway.ask(path)
    assert answered.status in (404, 200 if path == "/" else 404)
    if answered.status == 404:
        assert answered.json["error"]["code"] == "not_found"


def test_an_upstream_that_cannot_be_reached_is_a_502_and_one_without_a_key_a_503(serving):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    running = serving(base_urls={"openai": dead}, api_keys={"openai": "sk-secret"})
    answered = running.ask(CHAT_PATH, CHAT)
    assert (answered.status, answered.json["error"]["code"]) == (502, "upstream_unreachable")
    unset = running.ask("/openai/v1/chat/completions", CHAT)
    assert unset.status == 503
    assert "GROQ_API_KEY" in unset.json["error"]["message"]
    assert "sk-secret" not in answered.body.decode() + unset.body.decode()


def test_a_journal_answers_the_same_requests_after_a_restart(serving, providers, tmp_path):
    requests = [say("once"), say("once", stream=True)]
    journal = Journal(tmp_path / "journal.sqlite")
    first = serving(journal=journal)
    answered = [first.ask(CHAT_PATH, request).body for request in requests]
    first.stop()
    journal.close()
    before = providers["openai"].counters.requests
    with Journal(tmp_path / "journal.sqlite") as journal:
        second = serving(journal=journal)
        again = [second.ask(CHAT_PATH, request) for request in requests]
        second.stop()
    assert [each.body for each in again] == answered
    assert [each.headers["x-ratelimited-attempts"] for each in again] == ["0", "0"]
    assert providers["openai"].counters.requests == before


def test_many_clients_at_once_share_one_budget(serving, providers):
    providers["openai"].change(rpm=600)
    before = providers["openai"].counters.refused
    try:
        running = serving(rpm=600)
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(running.ask(CHAT_PATH, CHAT).status)) for _ in range(40)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        providers["openai"].change(rpm=None)
    assert answers == [200] * 40
    assert providers["openai"].counters.refused == before


def test_each_clients_own_key_goes_upstream_when_keys_pass_through(serving, providers):
    running = serving(pass_through_keys=True, api_keys={})
    with openai.OpenAI(base_url=running.url + "/v1", api_key="sk-of-the-client", max_retries=0) as client:
        assert client.chat.completions.create(**CHAT).choices
    assert running.ask(CHAT_PATH, CHAT).status == 401  # no key at all
    assert "sk-of-the-client" not in json.dumps(running.gateway.status()) + repr(running.gateway.settings)
