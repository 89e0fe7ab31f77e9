"""Streams that break: what they tell reaches the limits, and nothing of them is kept."""

from __future__ import annotations

import asyncio
import time
import weakref

import pytest
from talking import ask, text_of
from waiting import wait_until_collected

from ratelimited_llm import Anthropic, AsyncOpenAI, Groq, OpenAI
from ratelimited_llm.simulator import Fault

BREAKS = [Fault("truncate", first=1), Fault("malformed", first=1), Fault("error_event", first=1)]


def texts(stream):
    return [chunk.choices[0].delta.content for chunk in stream if chunk.choices]


@pytest.mark.parametrize("fault", BREAKS, ids=lambda fault: fault.kind)
def test_a_stream_that_broke_keeps_nothing_of_its_reader(simulator, fault):
    """Its error holds the frames that it passed through, so who held the error would hold what the reader had, too."""

    class Kept:
        """Something that a reader of the stream has."""

    def read():
        kept = Kept()
        client = OpenAI(api_key="sk", base_url=provider.base_url)
        with client:
            with pytest.raises(Exception, match=r".") as caught:
                texts(ask(client, "word " * 50, stream=True))
            assert not isinstance(caught.value, AssertionError)
            del caught
        return weakref.ref(kept)

    provider = simulator(answer="echo", faults=[fault])
    reference = read()
    wait_until_collected(lambda: reference() is None)


@pytest.mark.parametrize(("cls", "name"), [(OpenAI, "openai"), (Groq, "groq"), (Anthropic, "anthropic")])
def test_a_limit_that_strikes_inside_a_stream_holds_the_pool_back(simulator, door, cls, name):
    """The stream itself is lost; its "try again in" is a wait for the next call, whichever SDK closes it first."""
    fault = Fault("error_event", message="Rate limit reached. Please try again in 0.4s.", first=1)
    client = door(cls, simulator(name, faults=[fault]))
    with pytest.raises(Exception, match="Rate limit reached"):
        read_stream(client)
    began = time.monotonic()
    read_stream(client)
    assert time.monotonic() - began >= 0.3


def read_stream(client):
    if isinstance(client, Anthropic):
        message = {"role": "user", "content": "hello"}
        return list(client.messages.create(model="m", max_tokens=50, messages=[message], stream=True))
    return texts(ask(client, stream=True))


def test_it_does_so_for_tasks(simulator):
    """The same with AsyncOpenAI."""
    fault = Fault("error_event", message="Rate limit reached. Please try again in 0.4s.", first=1)
    provider = simulator(faults=[fault])

    async def run():
        async with AsyncOpenAI(api_key="sk", base_url=provider.base_url) as client:
            with pytest.raises(Exception, match="Rate limit reached"):
                async for _ in await ask(client, stream=True):
                    pass
            began = time.monotonic()
            assert text_of(await ask(client))
            return time.monotonic() - began

    assert asyncio.run(run()) >= 0.3
