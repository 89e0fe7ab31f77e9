"""The server: refusals that the SDKs understand, limits in mid-run, the books, many connections, a clean end."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import socket
import threading
import time

import anthropic
import groq
import openai
import pytest
from waiting import wait_until

from ratelimited_llm.simulator import Simulator

HELLO = [{"role": "user", "content": "hello"}]
# Long enough that nothing refills while a test runs, so that no count depends on how fast the machine is.
HOUR = 3600.0


@contextlib.contextmanager
def running(provider="openai", **options):
    """A simulator and its openai client."""
    with (
        Simulator(provider, **options) as simulator,
        openai.OpenAI(base_url=f"{simulator.url}/v1", api_key="any", max_retries=0) as client,
    ):
        yield simulator, client


def post(simulator, body, path="/v1/chat/completions"):
    """One request without an SDK: (status, headers, JSON)."""
    connection = http.client.HTTPConnection("127.0.0.1", simulator.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", path, body)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), json.loads(answer.read())


def ask(client, **options):
    return client.chat.completions.create(**({"model": "m", "messages": HELLO} | options))


def test_rpm_is_enforced_and_refusals_are_rate_limit_errors():
    """The third call of two an hour raises RateLimitError with code, numbers and Retry-After."""
    with running(rpm=2, period=HOUR) as (simulator, client):
        ask(client), ask(client)
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client)
        assert caught.value.code == "rate_limit_exceeded"
        assert "Limit 2, Used 2, Requested 1" in str(caught.value)
        assert 1790 < int(caught.value.response.headers["retry-after"]) <= 1800
        assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
        seen = simulator.counters
        assert (seen.requests, seen.answered, seen.refused, dict(seen.by_status)) == (3, 2, 1, {200: 2, 429: 1})
        assert simulator.log[-1].dimension == "rpm"
        assert simulator.share_used() == pytest.approx(1.0, abs=0.01)


def test_tokens_are_held_by_the_provider_s_rule():
    """OpenAI holds max_tokens for good, Groq only until the answer shows what was used."""
    for provider, left in (("openai", 4000), ("groq", 4988)):
        with running(provider, tpm=5000, period=HOUR, output_tokens=10) as (_, client):
            ask(client, max_tokens=1000)
            headers = client.chat.completions.with_raw_response.create(model="m", messages=HELLO, max_tokens=1).headers
            held = 2 if provider == "openai" else 3
            assert int(headers["x-ratelimit-remaining-tokens"]) == left - held


def test_too_large_is_told_apart():
    """More than the whole limit: 429 with x-should-retry false at OpenAI, 413 at Groq."""
    with running(tpm=100) as (simulator, client):
        with pytest.raises(openai.RateLimitError, match="Request too large") as caught:
            ask(client, max_tokens=101)
        assert caught.value.response.headers["x-should-retry"] == "false"
    with (
        Simulator("groq", tpm=100) as simulator,
        groq.Groq(base_url=simulator.base_url, api_key="any", max_retries=0) as client,
    ):
        with pytest.raises(groq.APIStatusError) as refused:
            client.chat.completions.create(model="m", messages=HELLO, max_tokens=101)
        assert refused.value.status_code == 413


def test_anthropic_refuses_in_its_own_form():
    """An exhausted ITPM is a rate_limit_error with the limit in words."""
    with (
        Simulator("anthropic", itpm=1000, period=HOUR) as simulator,
        anthropic.Anthropic(base_url=simulator.base_url, api_key="any", max_retries=0) as client,
    ):
        call = {"model": "claude", "max_tokens": 5, "messages": [{"role": "user", "content": "x" * 2400}]}
        client.messages.create(**call)
        with pytest.raises(anthropic.RateLimitError, match="1,000 input tokens per minute"):
            client.messages.create(**call)


def test_a_provider_can_tell_its_limit_only_by_refusing():
    """Without headers, Retry-After and hints, a refusal is just a 429."""
    with running(rpm=1, period=HOUR, headers=False, retry_after=False, body_hint=False) as (_, client):
        assert (
            "x-ratelimit-limit-requests"
            not in client.chat.completions.with_raw_response.create(model="m", messages=HELLO).headers
        )
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client)
        assert "retry-after" not in caught.value.response.headers
        assert caught.value.message.count("again") == 0


def test_models_have_limits_of_their_own():
    """A blocked model does not block another, unless they share."""
    with running(rpm=1, period=HOUR) as (_, client):
        ask(client, model="a"), ask(client, model="b")
    with running(rpm=1, period=HOUR, per_model=False) as (_, client):
        ask(client, model="a")
        with pytest.raises(openai.RateLimitError):
            ask(client, model="b")


def test_limits_change_in_mid_run():
    """A raised limit holds at once for new models too; nonsense changes nothing."""
    with running(tpm=10, period=HOUR) as (simulator, client):
        simulator.change(tpm=1000)
        ask(client, max_tokens=500)
        with pytest.raises(ValueError, match="is no limit"):
            simulator.change(tpm=0)
        with pytest.raises(TypeError, match="no such limit"):
            simulator.change(tmp=5)
        simulator.change(tpm=None)
        ask(client, max_tokens=5000)


def test_streams_hold_their_place_until_they_end():
    """A stream counts as in flight while it is read, and its place is free after its last chunk."""
    with running(max_concurrency=1, per_token_latency=0.002, output_tokens=20) as (simulator, client):
        stream = ask(client, stream=True)
        next(stream)
        with pytest.raises(openai.RateLimitError):
            ask(client)
        assert len(list(stream)) > 1
        ask(client)
        assert simulator.counters.in_flight == 0


def test_a_caller_that_hangs_up_frees_its_place():
    """An abandoned call is settled and counted as abandoned."""
    with Simulator(max_concurrency=1, latency=30) as simulator:
        body = json.dumps({"model": "m", "messages": HELLO}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", simulator.port)) as caller:
            caller.sendall(head + body)
            wait_until(lambda: simulator.counters.in_flight == 1)
        wait_until(lambda: simulator.counters.in_flight == 0)
        assert (simulator.counters.abandoned, simulator.counters.answered) == (1, 0)


def test_wrong_keys_paths_and_bodies_are_refused_politely():
    """401, 404 and 400 are JSON errors that the SDK turns into its own classes."""
    with running(api_key="right") as (simulator, client):
        with pytest.raises(openai.AuthenticationError):
            ask(client)
        ask(client.with_options(api_key="right"))
        with pytest.raises(openai.NotFoundError):
            client.with_options(api_key="right").files.list()
    with Simulator() as simulator:
        assert post(simulator, b"{")[0] == 400
        assert post(simulator, b"[]")[0] == 400
        assert post(simulator, b'{"messages": 7}')[0] == 400
        assert post(simulator, b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": "5"}')[0] == 400
        assert post(simulator, b'{"tools": 3, "messages": [{"content": "x"}]}')[0] == 400
        status, _, error = post(simulator, b'{"messages": [{"content": "x"}]}', "/v1/messages")
        assert (status, error["type"]) == (400, "error")


def test_the_log_keeps_what_matters_and_no_key():
    """Model, tag, retry count and headers are there; the key is not."""
    with running() as (simulator, client):
        ask(client)
        record = simulator.log[0]
        assert (record.model, record.tag, record.status, record.retry_count) == ("m", "hello", 200, 0)
        assert record.finished >= record.arrived
        assert "authorization" not in record.headers
        assert "any" not in repr(record)


def call_bytes(text="hello"):
    """One request as it is on the wire, the last of its connection."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}"
    return f"{head}\r\n\r\n{body}".encode()


def call_from_many(simulator, stack, number):
    """So many connections, with a request sent on each."""
    callers = [stack.enter_context(socket.create_connection(("127.0.0.1", simulator.port))) for _ in range(number)]
    for caller in callers:
        caller.sendall(call_bytes())
    return callers


def test_hundreds_of_calls_are_in_flight_at_once():
    """300 callers are all waiting together before the first is answered; stop() drops them all."""
    with Simulator(latency=60) as simulator, contextlib.ExitStack() as stack:
        call_from_many(simulator, stack, 300)
        wait_until(lambda: simulator.counters.in_flight == 300)
    assert (simulator.counters.connections, simulator.counters.abandoned) == (300, 300)


def test_hundreds_of_callers_are_all_answered():
    """Each of 300 connections gets its answer, and is closed as asked."""
    with Simulator(latency=(0.0, 0.02), answer="echo") as simulator, contextlib.ExitStack() as stack:
        callers = call_from_many(simulator, stack, 300)
        answers = [b"".join(iter(lambda c=caller: c.recv(65536), b"")) for caller in callers]
    assert all(answer.startswith(b"HTTP/1.1 200 OK") and b'"hello"' in answer for answer in answers)


def test_pipelined_requests_are_answered_in_order():
    """Requests that arrive before the first answer wait their turn on the connection."""
    with Simulator(answer="echo") as simulator, socket.create_connection(("127.0.0.1", simulator.port)) as caller:
        for place in range(3):
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": f"<{place}>"}]}).encode()
            last = "connection: close\r\n" if place == 2 else ""
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{last}content-length: {len(body)}\r\n\r\n"
            caller.sendall(head.encode() + body)
        answers = b"".join(iter(lambda: caller.recv(65536), b""))
    assert answers.index(b"<0>") < answers.index(b"<1>") < answers.index(b"<2>")


def test_stop_leaves_no_thread_and_no_socket():
    """After stop() the thread is gone, open connections are closed, the port is free and the books are readable."""
    before = threading.active_count()
    simulator = Simulator(latency=30).start()
    with pytest.raises(RuntimeError, match="runs already"):
        simulator.start()
    port = simulator.port
    with socket.create_connection(("127.0.0.1", port)) as caller:
        caller.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        caller.recv(10)
        simulator.stop()
        simulator.stop()
    assert threading.active_count() == before
    assert simulator.counters.requests == 1
    assert "stopped" in repr(simulator)
    with Simulator(port=port), pytest.raises(OSError, match="in use"):
        Simulator(port=port).start()


def test_unknown_names_are_refused_with_the_known_ones():
    """A misspelt provider, answer or rule is a ValueError that lists what there is."""
    for options in ({"provider": "opnai"}, {"answer": "ehco"}, {"window": "x"}, {"admission": "x"}, {"rpm": 0}):
        with pytest.raises(ValueError, match=r"use |above 0"):
            Simulator(**options)


def test_env_points_all_sdks_here():
    """With the variables of env(), every SDK finds the simulator without arguments."""
    with Simulator(port=0) as simulator, pytest.MonkeyPatch.context() as patch:
        for name, value in simulator.env().items():
            patch.setenv(name, value)
        with openai.OpenAI() as a, groq.Groq() as b, anthropic.Anthropic() as c, openai.AzureOpenAI() as d:
            for client in (a, b, d):
                ask(client)
            c.messages.create(model="m", max_tokens=3, messages=HELLO)
        assert simulator.counters.answered == 4


def test_a_connection_that_comes_as_it_stops_is_dropped_like_the_others(caplog):
    """Accepted in the very turn of the loop in which the server is told to stop."""
    provider = Simulator().start()
    busy = threading.Event()
    provider._loop.call_soon_threadsafe(lambda: (busy.set(), time.sleep(0.1)))
    assert busy.wait(5)
    with socket.create_connection(("127.0.0.1", provider.port)) as client:
        provider.stop()
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    gc.collect()  # a transport that was left open is heard of here
    assert caplog.records == []
