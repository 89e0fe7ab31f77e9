"""Blocking mode: the call waits its turn in the same queue and returns the SDK's plain object."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import openai
import pytest
from openai.types.chat import ChatCompletion
from talking import Stub, ask, chat_body, text_of

from ratelimited_llm import BudgetExceeded, OpenAI, RequestExpired
from ratelimited_llm.simulator import Fault


def test_a_call_returns_the_plain_object(simulator, door):
    """Its class is the SDK's own, and it is no future."""
    answer = ask(door(OpenAI, simulator(answer="echo"), mode="blocking"), "plain")
    assert type(answer) is ChatCompletion
    assert text_of(answer) == "plain"


def test_the_mode_can_be_said_per_call_and_by_the_environment(simulator, door, monkeypatch):
    """`with_options(mode=)` either way, and RATELIMITED_LLM_MODE for scripts that cannot be changed."""
    provider = simulator()
    client = door(OpenAI, provider)
    assert type(ask(client.with_options(mode="blocking"))) is ChatCompletion
    monkeypatch.setenv("RATELIMITED_LLM_MODE", "blocking")
    waiting = door(OpenAI, provider)
    assert type(ask(waiting)) is ChatCompletion
    assert issubclass(type(ask(waiting.with_options(mode="future"))), Future)


def test_the_call_is_sent_in_the_callers_thread(door):
    """So thread-local state and tracebacks are as without us."""
    threads = []

    def answer(number, body):
        threads.append(threading.current_thread())
        return 200, chat_body(), {}

    client = door(OpenAI, http_client=Stub(answer).client, mode="blocking")
    assert text_of(ask(client)) == "answer"
    assert threads == [threading.current_thread()]


def test_calls_of_an_executor_share_the_limit(simulator, door):
    """`executor.submit(client...create)` from eight threads: none refused, each reply its own."""
    provider = simulator(rpm=120, answer="echo")
    client = door(OpenAI, provider, mode="blocking", rpm=120)
    with ThreadPoolExecutor(8) as executor:
        answers = list(executor.map(lambda i: text_of(ask(client, f"{i}")), range(121)))
    assert answers == [f"{i}" for i in range(121)]
    assert provider.counters.refused == 0


def test_errors_are_raised_by_the_call(simulator, door):
    """`except` around the call works: the SDK's own class, after the SDK's own retries."""
    provider = simulator(faults=[Fault(status=500)])
    client = door(OpenAI, provider, mode="blocking", max_retries=1)
    with pytest.raises(openai.InternalServerError):
        ask(client)
    assert [record.retry_count for record in provider.log] == [0, 1]


def test_a_refusal_is_waited_out(simulator, door):
    """It is no attempt, in this mode too."""
    fault = Fault(status=429, code="rate_limit_exceeded", headers={"retry-after-ms": "5"}, first=2)
    provider = simulator(faults=[fault])
    assert ask(door(OpenAI, provider, mode="blocking", max_retries=0)).id
    assert [record.retry_count for record in provider.log] == [0, 0, 0]


def test_deadlines_and_impossible_calls_raise_in_the_call(simulator, door):
    """What cannot be sent in time, or ever, is heard of where it is made."""
    client = door(OpenAI, simulator(), mode="blocking", rpm=1, tpm=500)
    assert ask(client, max_tokens=5).id
    with pytest.raises(RequestExpired):
        ask(client.with_options(deadline=0.05), max_tokens=5)
    with pytest.raises(BudgetExceeded):
        ask(client, "x" * 8000)


def test_streams_raw_and_parse_are_the_sdks_own(simulator, door):
    """Each shape comes back as the plain SDK would return it."""
    client = door(OpenAI, simulator(answer="echo"), mode="blocking", max_concurrency=1)
    stream = ask(client, "one two", stream=True)
    assert type(stream) is openai.Stream
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "one two"
    raw = client.chat.completions.with_raw_response.create(model="m", messages=[{"role": "user", "content": "raw"}])
    assert not issubclass(type(raw), Future)
    assert raw.parse().choices[0].message.content == "raw"


def test_both_modes_share_one_queue(door):
    """While a blocking call holds the only place, a future waits; then it goes."""
    release = threading.Event()

    def answer(number, body):
        if number == 1:
            release.wait(10)
        return 200, chat_body(body["messages"][0]["content"]), {}

    stub = Stub(answer)
    client = door(OpenAI, http_client=stub.client, max_concurrency=1)
    with ThreadPoolExecutor(1) as executor:
        first = executor.submit(ask, client.with_options(mode="blocking"), "first")
        stub.wait_for(1)
        second = ask(client, "second")
        assert not second.done()
        release.set()
        assert text_of(first.result(5)) == "first"
    assert text_of(second) == "second"
    assert stub.most == 1


def test_disabled_is_the_plain_sdk(simulator, door, monkeypatch):
    """RATELIMITED_LLM_DISABLE=1 sends every call as the SDK does, whatever the limits."""
    monkeypatch.setenv("RATELIMITED_LLM_DISABLE", "1")
    client = door(OpenAI, simulator(), rpm=1)
    assert [type(ask(client)) for _ in range(3)] == [ChatCompletion] * 3
