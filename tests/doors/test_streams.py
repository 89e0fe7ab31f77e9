"""Streams: they arrive in order, hold their place until they end in whatever way, and are never sent twice."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys

import openai
import pytest
from talking import ask, httpx_of, text_of
from waiting import wait_until, wait_until_collected

from ratelimited_llm import OpenAI
from ratelimited_llm.simulator import Fault


def words(stream):
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


@pytest.fixture
def narrow(simulator, door):
    """A client with one place, and its provider; `free()` is whether the place is."""
    provider = simulator(answer="echo", per_token_latency=0.0)
    client = door(OpenAI, provider, max_concurrency=1)
    return client, provider


def is_free(client):
    return client._runtime.lane.in_flight == 0


def test_a_stream_arrives_in_order(narrow):
    """Its chunks are the text, and it is the SDK's Stream at once."""
    client, _ = narrow
    stream = ask(client, "one two three", stream=True)
    assert isinstance(stream, openai.Stream)
    assert words(stream) == "one two three"


def test_a_stream_holds_its_place_until_it_is_read(narrow):
    """With one place, the next call goes when the stream has ended."""
    client, provider = narrow
    stream = ask(client, "first", stream=True)
    first = next(stream)
    second = ask(client, "second")
    assert provider.counters.requests == 1
    assert not second.done()
    assert first.choices[0].delta.role == "assistant"
    assert words(stream) == "first"
    assert text_of(second) == "second"


def end_by_close(stream):
    next(stream)
    stream.close()


def end_by_with(stream):
    with stream as inner:
        next(inner)


def end_by_break(stream):
    for _ in stream:
        break
    stream.close()


def end_unread(stream):
    stream.close()


@pytest.mark.parametrize("end", [end_by_close, end_by_with, end_by_break, end_unread])
def test_a_place_is_free_when_the_stream_is_closed(narrow, end):
    """Closed in the middle, by `with`, after `break`, or before anything was read."""
    client, _ = narrow
    end(ask(client, "word " * 200, stream=True))
    assert text_of(ask(client, "next")) == "next"
    wait_until(lambda: is_free(client))


def test_a_stream_that_is_asked_for_by_its_path_alone_is_the_clients_stream(narrow):
    """`client.post` without a `stream_cls`: the SDK takes its client's own, and so does the future at once."""
    client, _ = narrow
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    stream = client.post("/chat/completions", cast_to=object, body=body, stream=True)
    assert isinstance(stream, openai.Stream)
    assert len(list(stream)) > 1


def test_a_place_is_free_when_the_stream_is_forgotten(narrow):
    """Left after `break` and collected, without a close."""
    client, _ = narrow
    stream = ask(client, "word " * 200, stream=True)
    for _ in stream:
        break
    del stream, _
    wait_until_collected(lambda: is_free(client))
    assert text_of(ask(client, "next")) == "next"


def test_a_stream_that_is_forgotten_at_the_bottom_of_a_recursion_gives_its_place_back(narrow, monkeypatch):
    """From where even the SDK cannot close it any more, and says so, as it does by itself."""
    client, _ = narrow
    monkeypatch.setattr(sys, "unraisablehook", lambda error: None)

    def forget(streams, calls):
        if calls:
            forget(streams, calls - 1)
        else:
            streams.clear()
            gc.collect()

    def room():
        try:
            return 1 + room()
        except RecursionError:
            return 0

    for left in range(5, 16):
        streams = [ask(client, "word " * 200, stream=True)]
        streams[0].result()
        forget(streams, room() - left)
        wait_until_collected(lambda: is_free(client))  # what broke off half way would not be tried again
        assert text_of(ask(client, "next")) == "next"


def test_a_stream_that_nobody_touched_gives_its_place_back(narrow):
    """Its future is forgotten before anything was read."""
    client, _ = narrow
    stream = ask(client, "word " * 200, stream=True)
    stream.result()
    del stream
    wait_until_collected(lambda: is_free(client))
    assert text_of(ask(client, "next")) == "next"


def test_streaming_responses_hold_and_free_their_place(narrow):
    """`with_streaming_response` waits, and its place is free when its block ends, read or not."""
    client, _ = narrow
    streaming = client.chat.completions.with_streaming_response
    messages = [{"role": "user", "content": "lines"}]
    with streaming.create(model="m", messages=messages) as response:
        assert json.loads("".join(response.iter_text()))["choices"]
    with streaming.create(model="m", messages=messages) as response:
        assert response.status_code == 200
        assert not is_free(client)
    assert text_of(ask(client, "next")) == "next"


def test_the_stream_helper_waits_and_frees_its_place(narrow):
    """`chat.completions.stream` gives events and the final completion."""
    client, _ = narrow
    with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "helped"}]) as stream:
        events = [event.type for event in stream]
        assert text_of(stream.get_final_completion()) == "helped"
    assert "content.delta" in events
    assert text_of(ask(client, "next")) == "next"


def test_a_responses_stream_arrives(narrow):
    """Events of the responses API, to its last."""
    client, _ = narrow
    events = list(client.responses.create(model="m", input="events", stream=True))
    assert events[-1].type == "response.completed"
    assert text_of(ask(client, "next")) == "next"


def test_a_streams_usage_is_settled(simulator, door):
    """What the last chunk says was used teaches the next estimates."""
    client = door(OpenAI, simulator(output_tokens=7))
    stream = ask(client, stream=True, stream_options={"include_usage": True})
    assert [chunk.usage for chunk in stream][-1].completion_tokens == 7
    account = client._account(client._runtime)
    wait_until(lambda: account.estimator.version > 0)


@pytest.mark.parametrize("kind", ["truncate", "malformed", "error_event"])
def test_a_broken_stream_is_never_sent_again(simulator, door, kind):
    """After its first chunk it ends with the error that the SDK raises, and the next call works."""
    message = "Rate limit reached. Please try again in 20ms." if kind == "error_event" else None
    provider = simulator(answer="echo", faults=[Fault(kind, first=1, message=message)])
    client = door(OpenAI, provider, max_concurrency=1)
    stream = ask(client, "word " * 50, stream=True)
    with pytest.raises((openai.APIError, httpx_of(openai).HTTPError, json.JSONDecodeError)):  # 2.x leaks httpx's own
        words(stream)
    assert provider.counters.requests == 1
    assert text_of(ask(client, "next")) == "next"


def test_a_stalled_stream_ends_with_its_timeout(simulator, door):
    """It stops in the middle: the SDK's own timeout ends it, and the next call works."""
    provider = simulator(answer="echo", faults=[Fault("stall", first=1)])
    client = door(OpenAI, provider, max_concurrency=1, timeout=0.2)
    stream = ask(client, "word " * 50, stream=True)
    with pytest.raises(Exception, match=r"(?i)time") as caught:
        words(stream)
    assert not isinstance(caught.value, AssertionError)
    assert provider.counters.requests == 1
    assert text_of(ask(client, "next")) == "next"


def test_a_stream_that_is_refused_is_waited_for(simulator, door):
    """Before its first chunk it is a call like any other."""
    fault = Fault(status=429, code="rate_limit_exceeded", headers={"retry-after-ms": "5"}, first=1)
    client = door(OpenAI, simulator(answer="echo", faults=[fault]), max_retries=0)
    assert words(ask(client, "after all", stream=True)) == "after all"


def test_many_streams_are_read_side_by_side(simulator, door):
    """Each gets its own chunks, in whatever order they are read."""
    client = door(OpenAI, simulator(answer="echo"))
    streams = [ask(client, f"stream {i} " * 20, stream=True) for i in range(8)]
    assert [words(stream).split()[1] for stream in reversed(streams)] == [str(i) for i in reversed(range(8))]


def test_a_script_that_ends_with_an_unread_stream_ends(simulator, warm_python):
    """Nobody will read it: what is open, and what opens while the queue drains, is not waited for."""
    provider = simulator(latency=0.05)
    script = """
from ratelimited_llm.openai import OpenAI
client = OpenAI(max_concurrency=1)
ask = [{"role": "user", "content": "hello"}]
streams = [client.chat.completions.create(model="m", messages=ask, stream=True) for _ in range(3)]
next(iter(streams[0]))
"""

    def ends(script):
        command, environ = [*warm_python, "-c", script], {**os.environ, **provider.env()}
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=15)

    done = ends(script)
    if done.returncode < 0:  # Python 3.13.0 has taken its datetime down by the time that httpx closes a stream
        assert provider.counters.requests == 3
        plain = script.replace("ratelimited_llm.openai", "openai").replace("max_concurrency=1", "")
        assert ends(plain).returncode == done.returncode
        pytest.skip("this Python crashes so with the plain SDK as well")
    assert (done.returncode, done.stderr) == (0, "")
    assert provider.counters.requests == 3
