"""The HTTP client's connections in groups: reused when few, many when needed, never shared with a child."""

from __future__ import annotations

import gc
import math
import os
import threading
from typing import ClassVar

import anthropic
import groq
import openai
import pytest
from forking import said_in_child
from talking import Stub, ask, httpx_of
from waiting import wait_until

from ratelimited_llm import Anthropic, Groq, OpenAI
from ratelimited_llm.calls.transport import PER_SHARD, ShardedTransport, widen

SDKS = [openai.OpenAI, groq.Groq, anthropic.Anthropic]


@pytest.fixture
def make(simulator):
    """Make an SDK's plain client; closed at the end."""
    made = []

    def start(cls, **options):
        made.append(cls(api_key="sk", **options))
        return made[-1]

    yield start
    for client in made:
        client.close()


def sdk_of(cls):
    return {"openai": openai, "groq": groq, "anthropic": anthropic}[cls.__module__.partition(".")[0]]


@pytest.mark.parametrize("cls", SDKS)
def test_the_client_that_an_sdk_made_is_widened_in_place(make, cls):
    """It stays a transport of its own httpx, begins with the original, and a second time changes nothing."""
    client = make(cls)
    original = client._client._transport
    width = widen(client._client)
    wide = client._client._transport
    assert isinstance(wide, ShardedTransport)
    assert isinstance(wide, httpx_of(sdk_of(cls)).HTTPTransport)
    assert wide._pool is original._pool
    assert width == wide.width > 700
    assert widen(client._client) == width
    assert client._client._transport is wide


@pytest.mark.parametrize("cls", SDKS)
def test_siblings_have_the_settings_of_the_original(make, cls):
    """TLS context, socket options, retries and expiry are the first one's; only the size is ours."""
    client = make(cls)
    widen(client._client)
    wide = client._client._transport
    first, second = wide._pool, wide._make(**wide._settings)._pool
    names = ("_ssl_context", "_socket_options", "_retries", "_local_address", "_uds", "_http1", "_keepalive_expiry")
    for name in names:
        assert getattr(second, name) == getattr(first, name), name
    assert second._ssl_context is first._ssl_context
    assert second._max_connections == PER_SHARD


def test_what_the_user_brought_is_untouched(make):
    """A client, a default client of the SDK, a transport, any object: used as given, with its own width."""
    httpx = httpx_of(openai)
    for mine, width in (
        (httpx.Client(limits=httpx.Limits(max_connections=7)), 7),
        (httpx.Client(limits=httpx.Limits(max_connections=None)), math.inf),
        (openai.DefaultHttpxClient(), 1000),
        (httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200))), math.inf),
    ):
        transport = mine._transport
        assert widen(mine) == width
        assert mine._transport is transport
        mine.close()
    assert widen(object()) == math.inf


def test_a_proxy_is_used_as_it_is(make, monkeypatch):
    """Where the environment sets a proxy for the provider, nothing is changed; where it makes an exception, it is."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    through = make(openai.OpenAI)
    assert widen(through._client) == 1000
    assert not isinstance(through._client._transport, ShardedTransport)
    around = make(openai.OpenAI, base_url="http://127.0.0.1:1/v1")
    assert widen(around._client) > 700


@pytest.mark.parametrize("cls", [OpenAI, Groq, Anthropic])
def test_every_door_widens_its_own_client_only(door, cls):
    """A door without `http_client` has room for thousands; one with it has what that has."""
    assert door(cls)._runtime.lane.width > 700
    httpx = httpx_of(cls._sdk)
    mine = httpx.Client(limits=httpx.Limits(max_connections=5))
    client = door(cls, http_client=mine)
    assert client._runtime.lane.width == 5
    assert not isinstance(mine._transport, ShardedTransport)


def test_one_call_at_a_time_uses_one_connection(simulator, door):
    """Ten calls, one after the other, over the same connection."""
    provider = simulator()
    client = door(OpenAI, provider)
    assert all(ask(client).id for _ in range(10))
    assert provider.counters.connections == 1


def test_few_calls_use_few_connections(simulator, door):
    """Forty calls, four in flight, open four connections at most."""
    provider = simulator()
    client = door(OpenAI, provider, max_concurrency=4)
    assert all(answer.id for answer in [ask(client) for _ in range(40)])
    assert provider.counters.connections <= 4


class Held:
    """A transport whose answers are held until they are let go, in place of the real one's siblings."""

    made: ClassVar[list] = []

    def __init__(self, **settings):
        self.calls = 0
        self.closed = False
        self._pool = type("Pool", (), {"_max_keepalive_connections": 20, "_connections": []})()
        Held.made.append(self)

    def handle_request(self, request):
        self.calls += 1
        if request == "fail":
            raise OSError("broken")
        stream = type("Bytes", (), {"__iter__": lambda self: iter([b"x"]), "close": lambda self: None})()
        return type("Response", (), {"stream": stream})()

    def close(self):
        self.closed = True


@pytest.fixture
def sharded():
    """A sharded transport over stubs."""
    Held.made = []
    httpx = httpx_of(openai)
    from ratelimited_llm.calls.transport import _Stream

    stream = type("ShardStream", (_Stream, httpx.SyncByteStream), {})
    cls = type("Sharded", (ShardedTransport,), {"_stream_class": stream})
    return cls(Held(), {}, width=4 * PER_SHARD)


def in_flight(sharded):
    return [shard.in_flight for shard in sharded._shards]


def test_shards_are_made_when_the_others_are_full(sharded):
    """33 calls need two; their ends are counted, and the first has room before the second."""
    responses = [sharded.handle_request("ok") for _ in range(PER_SHARD + 1)]
    assert in_flight(sharded) == [PER_SHARD, 1]
    responses[0].stream.close()
    responses.append(sharded.handle_request("ok"))
    assert in_flight(sharded) == [PER_SHARD, 1]


def test_a_place_is_given_back_once(sharded):
    """However often an answer is closed; and when the call fails."""
    response = sharded.handle_request("ok")
    assert list(response.stream) == [b"x"]
    response.stream.close()
    response.stream.close()
    assert in_flight(sharded) == [0]
    with pytest.raises(OSError, match="broken"):
        sharded.handle_request("fail")
    assert in_flight(sharded) == [0]


def test_a_forgotten_answer_gives_its_place_back(sharded):
    """Collected without a close: the next call finds the place free."""
    response = sharded.handle_request("ok")
    del response
    gc.collect()
    kept = sharded.handle_request("ok")
    assert in_flight(sharded) == [1]
    kept.stream.close()


def test_more_than_the_width_waits_in_the_emptiest(sharded):
    """No more shards are made than the width needs."""
    responses = [sharded.handle_request("ok") for _ in range(4 * PER_SHARD + 2)]
    assert sorted(in_flight(sharded)) == [32, 32, 33, 33]
    for response in responses:
        response.stream.close()


def test_shards_that_are_not_needed_are_closed(sharded):
    """When little is left in flight, only as many are kept as the original kept connections."""
    responses = [sharded.handle_request("ok") for _ in range(3 * PER_SHARD)]
    for response in reversed(responses):
        response.stream.close()
    assert in_flight(sharded) == [0]
    assert [held.closed for held in Held.made] == [False, True, True]


def test_closing_closes_every_shard(sharded):
    """And what is still open gives its place back without harm."""
    responses = [sharded.handle_request("ok") for _ in range(PER_SHARD + 1)]
    sharded.close()
    assert [held.closed for held in Held.made] == [True, True]
    for response in responses:
        response.stream.close()


def test_many_threads_keep_the_books(sharded):
    """Eight threads, a thousand calls each way: nothing is left in flight, and no shard was overfilled."""
    seen = []

    def work():
        for _ in range(150):
            responses = [sharded.handle_request("ok") for _ in range(8)]
            seen.append(max(in_flight(sharded)))
            for response in responses:
                response.stream.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sharded.handle_request("ok").stream.close()
    assert sum(in_flight(sharded)) == 0
    assert max(seen) <= PER_SHARD


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_does_not_use_its_parents_connections(simulator, make):
    """Both go on, each over its own; the parent's stay open."""
    provider = simulator(answer="echo")
    client = make(openai.OpenAI, base_url=provider.base_url)
    widen(client._client)
    assert ask(client, "parent").id
    inherited = client._client._transport._pool
    child = said_in_child(lambda: (ask(client, "child").id != "", client._client._transport._pool is inherited))
    assert child == "(True, False)"
    assert ask(client, "parent").id
    assert provider.counters.connections == 2


def stream_of(client):
    ways = client.messages if isinstance(client, Anthropic) else client.chat.completions
    words = [{"role": "user", "content": "word " * 200}]
    return ways.create(model="m", max_tokens=500, messages=words, stream=True).result()


@pytest.mark.parametrize("read", [0, 1])
@pytest.mark.parametrize("cls", [OpenAI, Groq, Anthropic])
def test_a_stream_that_is_collected_while_its_own_pool_is_at_work_blocks_nobody(simulator, door, cls, read):
    """The collector may come in the middle of a pool's work, with the pool's lock in the hands of this very thread."""
    client = door(cls, simulator(cls.__name__.lower(), answer="echo"))
    stream = stream_of(client)
    chunks = iter(stream)
    for _ in range(read):
        next(chunks)
    pool = client._client._transport._pool
    assert len(pool.connections) == 1
    with pool._optional_thread_lock:
        del stream, chunks
        gc.collect()
    wait_until(lambda: not client.status().in_flight and not pool.connections)
    assert list(stream_of(client))


def test_a_hundred_at_once_are_answered_over_shards(simulator, door):
    """More calls than a shard has room for: each is answered, over more than one."""
    provider = simulator(latency=0.3, answer="echo")
    client = door(OpenAI, provider, rpm=100_000, tpm=100_000_000)
    answers = [ask(client, f"{i}") for i in range(80)]
    assert [answer.choices[0].message.content for answer in answers] == [f"{i}" for i in range(80)]
    assert provider.counters.max_in_flight <= provider.counters.connections <= 80


def test_a_stub_of_the_users_needs_no_pool(door):
    """A transport that is no pool has no width that we could know."""
    assert door(OpenAI, http_client=Stub().client)._runtime.lane.width == math.inf
