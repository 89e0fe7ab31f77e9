"""The Groq door: the same promises on the other SDK, and Groq's own rules."""

from __future__ import annotations

from concurrent.futures import Future

import groq
import pytest
from groq.types.chat import ChatCompletion
from talking import Stub, ask, chat_body, text_of

from ratelimited_llm import Groq
from ratelimited_llm import groq as door_module
from ratelimited_llm.simulator import Fault


def test_a_list_of_calls_is_answered_within_the_limits(simulator, door):
    """Reserved and settled tokens, headers that mean the day: none refused, each reply its caller's."""
    provider = simulator("groq", rpm=1000, tpm=20_000, output_tokens=5, answer="echo")
    client = door(Groq, provider)
    answers = [ask(client, f"call {i}", max_tokens=500) for i in range(40)]
    assert [text_of(answer) for answer in answers] == [f"call {i}" for i in range(40)]
    assert (provider.counters.refused, provider.counters.requests) == (0, 40)


def test_the_answer_is_a_future_of_groqs_type(simulator, door):
    """It is Groq's ChatCompletion at once, and a future."""
    answer = ask(door(Groq, simulator("groq")))
    assert isinstance(answer, ChatCompletion)
    assert issubclass(type(answer), Future)
    assert answer.usage.total_tokens > 0


def test_the_modules_names_are_groqs_own(simulator, door):
    """Errors imported from the door are the SDK's own classes, and are what is raised."""
    provider = simulator("groq", faults=[Fault(status=401)])
    assert door_module.RateLimitError is groq.RateLimitError
    with pytest.raises(door_module.AuthenticationError) as caught:
        ask(door(Groq, provider)).result()
    assert type(caught.value) is groq.AuthenticationError
    assert provider.counters.requests == 1


def test_a_call_too_large_for_groq_is_sent_once(simulator, door):
    """Groq's 413 is handed on as it is: no waiting makes the call smaller."""
    provider = simulator("groq", tpm=1000)
    with pytest.raises(groq.APIStatusError) as caught:
        ask(door(Groq, provider), max_tokens=5000).result()
    assert caught.value.status_code == 413
    assert provider.counters.requests == 1


def test_a_wait_that_groqs_sdk_would_ignore_is_kept(simulator, door):
    """The refused call comes again when its wait is over, not after the SDK's half second."""
    fault = Fault(status=429, code="rate_limit_exceeded", headers={"retry-after": "1"}, first=1)
    provider = simulator("groq", faults=[fault])
    assert ask(door(Groq, provider)).id
    first, second = provider.log
    assert second.arrived - first.arrived >= 1.0
    assert (first.status, second.status) == (429, 200)


def test_streams_and_uploads_work(simulator, door, tmp_path):
    """A stream arrives in order; a transcription is sent before its file is closed."""
    client = door(Groq, simulator("groq", answer="echo"))
    chunks = ask(client, "one two three", stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"

    httpx = Stub(sdk=groq).httpx
    transport = httpx.MockTransport(lambda request: (request.read(), httpx.Response(200, json={"text": "spoken"}))[1])
    other = door(Groq, http_client=httpx.Client(transport=transport))
    sound = tmp_path / "sound.wav"
    sound.write_bytes(b"RIFF")
    with sound.open("rb") as file:
        assert other.audio.transcriptions.create(model="whisper", file=file).text == "spoken"


def test_a_users_pool_is_not_overfilled(door):
    """As many calls are in flight as the user's own HTTP client has connections for, and no more."""
    httpx = Stub(sdk=groq).httpx
    mine = httpx.Client(limits=httpx.Limits(max_connections=7))
    assert door(Groq, http_client=mine)._runtime.lane.width == 7


def test_options_and_raw_answers(simulator, door):
    """`with_options` and `with_raw_response` are the SDK's own, queued."""
    client = door(Groq, simulator("groq", tpm=6000, answer="echo"))
    copy = client.with_options(priority="high", timeout=5)
    assert type(copy) is Groq
    raw = copy.chat.completions.with_raw_response.create(model="m", messages=[{"role": "user", "content": "raw"}])
    assert raw.headers["x-ratelimit-limit-tokens"] == "6000"
    assert raw.parse().choices[0].message.content == "raw"


def test_a_stub_of_the_right_httpx_is_accepted(door):
    """The user's own client of Groq's httpx is used as it is."""
    stub = Stub(lambda number, body: (200, chat_body("stubbed"), {}), sdk=groq)
    assert text_of(ask(door(Groq, http_client=stub.client))) == "stubbed"
