"""Bodies that cannot be sent, or hardly: every door says so at the call that brought them, and answers the next one."""

from __future__ import annotations

import asyncio
import datetime
import math
import sys

import groq
import openai
import pytest
import requests as plain
from nested import cyclic, deep
from talking import Stub, ask, chat_body, text_of

from ratelimited_llm import Anthropic, AsyncOpenAI, Groq, OpenAI, queued, requests
from ratelimited_llm.calls.snapshot import ENCODERS

CANNOT = {
    "nan": math.nan, "inf": [math.inf], "bytes": b"x", "set": {1}, "object": object(), "function": len,
    "a complex number": 1j, "lone surrogate": "\ud83d", "key that is a surrogate": {"\udc00": 1},
    "key that is a tuple": {(1, 2): 3}, "key that is an object": {object(): 1}, "cyclic": cyclic(),
    "100,000 levels": deep(100_000),
}  # fmt: skip
# What JSON makes something of: the provider's affair.
CAN = {
    "keys that are no text": {1: 2, 2.5: 3, None: 4, False: 5}, "huge number": 10**400, "empty": {},
    "150 levels": deep(150), "NUL": "\0", "no character": "\uffff",
}  # fmt: skip


REFUSALS = (TypeError, ValueError, RecursionError)  # the last where the SDK itself makes the JSON, in blocking mode


def refuses(call, value):
    """The error of the call itself; None when it brought a future, or an answer."""
    try:
        call(value)
    except Exception as error:
        return error
    return None


def with_extra(client):
    return lambda value: ask(client, extra_body={"x": value})


def messages_of(client):
    def call(value):
        message = {"role": "user", "content": "hello"}
        return client.messages.create(model="m", max_tokens=5, messages=[message], extra_body={"x": value})

    return call


@pytest.mark.parametrize("mode", ["future", "blocking"])
@pytest.mark.parametrize(("cls", "sdk"), [(OpenAI, openai), (Groq, groq)], ids=["openai", "groq"])
def test_a_door_refuses_what_json_cannot_say_and_sends_the_rest(door, cls, sdk, mode):
    """One error for each at the call, nothing on the wire; the worker answers the next call."""
    stub = Stub(sdk=sdk)
    client = door(cls, http_client=stub.client, mode=mode)
    accepted = [name for name, value in CANNOT.items() if refuses(with_extra(client), value) is None]
    assert accepted == []
    kinds = {name: type(refuses(with_extra(client), value)) for name, value in CANNOT.items()}
    assert {kind for kind in kinds.values() if not issubclass(kind, REFUSALS)} == set()
    assert stub.requests == []
    for name, value in CAN.items():
        assert text_of(ask(client, extra_body={"x": value})) == "answer", name
    assert len(stub.requests) == len(CAN)


def test_what_newer_sdks_alone_make_json_of_is_refused_at_the_call_with_older_ones(door, monkeypatch):
    """A moment is an ISO text with a new one, and a TypeError with one that has no encoder of its own."""
    stub = Stub()
    client, moment = door(OpenAI, http_client=stub.client), datetime.datetime(2026, 11, 29)
    newer = any(name in sys.modules for name in ENCODERS)
    assert (refuses(with_extra(client), moment) is None) == newer
    assert client.wait(5)
    for name in ENCODERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert isinstance(refuses(with_extra(client), moment), TypeError)
    assert text_of(ask(client)) == "answer"
    assert len(stub.requests) == 1 + newer


def test_anthropics_door_refuses_them_too(simulator, door):
    """The same table through messages."""
    provider = simulator("anthropic")
    client = door(Anthropic, provider)
    refused = {name: refuses(messages_of(client), value) for name, value in CANNOT.items() if name != "set"}  # a list
    assert [name for name, error in refused.items() if not isinstance(error, REFUSALS)] == []
    assert provider.counters.requests == 0
    assert messages_of(client)({"next": 1}).content


def test_a_task_is_refused_them_where_it_awaits(simulator):
    """AsyncOpenAI raises the same, and the next call is answered."""
    provider = simulator(answer="echo")

    async def run():
        async with AsyncOpenAI(api_key="sk", base_url=provider.base_url) as client:
            refused = {}
            for name, value in CANNOT.items():
                try:
                    await ask(client, extra_body={"x": value})
                except Exception as error:
                    refused[name] = error
            return refused, text_of(await ask(client, "next"))

    refused, text = asyncio.run(run())
    assert [name for name in CANNOT if not isinstance(refused.get(name), REFUSALS)] == []
    assert (provider.counters.requests, text) == (1, "next")


def test_raw_requests_are_refused_what_requests_refuses(simulator):
    """The very errors of plain requests, at the call."""
    provider = simulator(answer="echo")
    url = f"{provider.base_url}/chat/completions"
    body = {"model": "m", "messages": [{"role": "user", "content": "next"}]}
    with requests.Session() as session, plain.Session() as theirs:
        for name, value in CANNOT.items():
            ours = refuses(lambda value: session.post(url, json={**body, "x": value}), value)
            if name in ("lone surrogate", "key that is a surrogate"):  # escaped, as json.dumps does by default
                continue
            as_plain = refuses(lambda value: theirs.post(url, json={**body, "x": value}), value)
            assert type(ours) is type(as_plain), name
            assert ours is not None, name
        answer = session.post(url, json=body)
        assert answer.json()["choices"][0]["message"]["content"] == "next"


def test_the_arguments_of_somebody_elses_client_are_looked_at_without_harm():
    """`queued` estimates from whatever is in the arguments, however deep, cyclic or strange."""

    class Client:
        def create(self, **kwargs):
            return "answer"

    client = queued(Client())
    for name, value in CANNOT.items():
        assert client.create(messages=value).result(timeout=5) == "answer", name


def test_fifty_megabytes_are_sent_once_and_whole(door):
    """As a single message; the estimate does not read it a character at a time."""
    sizes = []

    def answer(number, body):
        sizes.append(len(body["messages"][0]["content"]))
        return 200, chat_body(), {}

    client = door(OpenAI, http_client=Stub(answer).client)
    assert text_of(ask(client, "x" * 50_000_000)) == "answer"
    assert text_of(ask(client, "next")) == "answer"
    assert sizes == [50_000_000, 4]
