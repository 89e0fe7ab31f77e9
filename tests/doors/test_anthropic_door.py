"""The Anthropic door: the same promises for messages, and Anthropic's own rules."""

from __future__ import annotations

from concurrent.futures import Future

import anthropic
import pytest
from anthropic.types import Message
from waiting import wait_until

from ratelimited_llm import Anthropic
from ratelimited_llm.simulator import Fault


def say(client, text="hello", **options):
    options.setdefault("max_tokens", 100)
    return client.messages.create(model="claude", messages=[{"role": "user", "content": text}], **options)


def text_of(message):
    return message.content[0].text


def test_a_list_of_calls_is_answered_within_the_limits(simulator, door):
    """Two meters, input and output: none refused, each reply its caller's."""
    provider = simulator("anthropic", rpm=1000, itpm=20_000, otpm=4000, output_tokens=5, answer="echo")
    client = door(Anthropic, provider)
    answers = [say(client, f"call {i}") for i in range(40)]
    assert [text_of(answer) for answer in answers] == [f"call {i}" for i in range(40)]
    assert (provider.counters.refused, provider.counters.requests) == (0, 40)


def test_the_answer_is_a_future_of_anthropics_type(simulator, door):
    """It is a Message at once, and a future."""
    answer = say(door(Anthropic, simulator("anthropic")))
    assert isinstance(answer, Message)
    assert issubclass(type(answer), Future)
    assert answer.usage.output_tokens > 0


@pytest.mark.parametrize("status", [500, 529])
def test_an_overloaded_provider_is_tried_again(simulator, door, status):
    """One failure, one answer; the retry count says so."""
    provider = simulator("anthropic", faults=[Fault(status=status, first=1)])
    assert say(door(Anthropic, provider)).id
    assert [record.retry_count for record in provider.log] == [0, 1]


def test_an_overload_that_stays_is_anthropics_own_error(simulator, door):
    """After the retries the SDK's own class is raised."""
    provider = simulator("anthropic", faults=[Fault(status=529)])
    with pytest.raises(anthropic.APIStatusError) as caught:  # of a subclass that is not the same in all its versions
        say(door(Anthropic, provider, max_retries=1)).result()
    assert caught.value.status_code == 529
    assert provider.counters.requests == 2


def test_a_spend_limit_is_not_waited_for(simulator, door):
    """The 429 that no waiting ends is raised at once."""
    provider = simulator("anthropic", faults=[Fault("exhausted")])
    with pytest.raises(anthropic.RateLimitError):
        say(door(Anthropic, provider)).result()
    assert provider.counters.requests == 1


def test_streams_and_the_stream_helper_arrive_whole(simulator, door):
    """Events of `stream=True`, and text and final message of `messages.stream`."""
    client = door(Anthropic, simulator("anthropic", answer="echo"))
    events = list(say(client, "one two three", stream=True))
    assert events[0].type == "message_start"
    assert "".join(e.delta.text for e in events if e.type == "content_block_delta") == "one two three"
    with client.messages.stream(
        model="claude", max_tokens=50, messages=[{"role": "user", "content": "in order"}]
    ) as stream:
        assert "".join(stream.text_stream) == "in order"
        assert stream.get_final_message().usage.output_tokens > 0
    wait_until(lambda: client._runtime.worker.in_flight == 0)


def test_counting_tokens_spends_nothing(simulator, door):
    """`count_tokens` is no message: it passes straight through, also while messages wait."""
    client = door(Anthropic, simulator("anthropic"), rpm=1)
    assert say(client).id
    waiting = say(client)
    counted = client.messages.count_tokens(model="claude", messages=[{"role": "user", "content": "hello"}])
    assert not issubclass(type(counted), Future)
    assert counted.input_tokens > 0
    assert not waiting.done()


def test_options_and_raw_answers(simulator, door):
    """`with_options` and `with_raw_response` are the SDK's own, queued."""
    client = door(Anthropic, simulator("anthropic", rpm=50, answer="echo")).with_options(priority="high")
    assert type(client) is Anthropic
    raw = client.messages.with_raw_response.create(
        model="claude", max_tokens=9, messages=[{"role": "user", "content": "raw"}]
    )
    assert raw.headers["anthropic-ratelimit-requests-limit"] == "50"
    assert raw.parse().content[0].text == "raw"


def test_errors_say_where(simulator, door):
    """The SDK's own class, with a note of the line."""
    provider = simulator("anthropic", faults=[Fault(status=400)])
    with pytest.raises(anthropic.BadRequestError) as caught:
        say(door(Anthropic, provider)).result()
    assert [note for note in caught.value.__notes__ if "test_anthropic_door.py" in note]
