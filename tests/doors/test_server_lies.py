"""A provider whose headers and bodies lie: every call ends, with an answer or the SDK's own error; the next works."""

from __future__ import annotations

import json

import openai
import pytest
from talking import Stub, ask, chat_body, text_of

from ratelimited_llm import OpenAI, RequestExpired
from ratelimited_llm.simulator import Fault


@pytest.mark.parametrize("wait", ["nan", "-5", "inf", "soon", "", "٣", "0", "1e-9", "Mon, 01 Jan 1990 00:00:00 GMT"])
def test_a_wait_that_is_none_is_not_believed(simulator, door, wait):
    """The refused call comes again after a wait of ours, soon."""
    headers = {"retry-after": wait.encode("utf-8").decode("latin-1"), "retry-after-ms": None}
    provider = simulator("generic", faults=[Fault(status=429, message="busy", headers=headers, first=1)], answer="echo")
    client = door(OpenAI, provider)
    assert ask(client).result(timeout=10).id
    assert [record.status for record in provider.log] == [429, 200]


@pytest.mark.parametrize("wait", ["1e9", "86400", "Fri, 31 Dec 9999 23:59:59 GMT", "9" * 400])
def test_a_wait_without_end_ends_with_the_deadline(simulator, door, wait):
    """A call with a deadline is not held longer than that, whatever the header says."""
    fault = Fault(status=429, message="busy", headers={"retry-after": wait})
    provider = simulator("generic", faults=[fault])
    client = door(OpenAI, provider)
    answer = ask(client.with_options(deadline=0.3))
    with pytest.raises((RequestExpired, openai.RateLimitError)):
        answer.result(timeout=10)
    client.cancel()


@pytest.mark.parametrize(
    "lies",
    [
        {"x-ratelimit-limit-requests": "-1", "x-ratelimit-remaining-requests": "-1"},
        {"x-ratelimit-limit-requests": "0", "x-ratelimit-remaining-requests": "0"},
        {"x-ratelimit-limit-requests": "nan", "x-ratelimit-remaining-requests": "inf"},
        {"x-ratelimit-limit-requests": "1e400", "x-ratelimit-remaining-requests": "many"},
        {"x-ratelimit-limit-tokens": "100", "x-ratelimit-remaining-tokens": "999999999"},
        {"x-ratelimit-reset-requests": "99999999h", "x-ratelimit-reset-tokens": "-1s"},
        {"x-ratelimit-remaining-requests": "\xb2", "x-ratelimit-limit-requests": "\xbd"},
    ],
)
def test_headers_that_lie_hold_nothing_up(simulator, door, lies):
    """Limits of nothing, below nothing, and beyond all numbers: three calls are answered all the same."""
    provider = simulator(answer="echo", faults=[Fault("headers", headers=lies)])
    client = door(OpenAI, provider)
    for i in range(3):
        assert ask(client, f"{i}").result(timeout=5).choices[0].message.content == f"{i}"


def test_a_remaining_of_nothing_does_not_hold_for_ever(simulator, door):
    """A single answer that says nothing is left, with a limit of 600, costs a moment and not a minute."""
    lies = {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "0"}
    client = door(OpenAI, simulator(faults=[Fault("headers", headers=lies, first=1)]))
    assert ask(client).id
    assert ask(client).result(timeout=5).id


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("malformed", first=1), (json.JSONDecodeError, openai.APIError)),
        (Fault("truncate", first=1), openai.APIConnectionError),
        (Fault("html", status=502, first=1), openai.InternalServerError),
        (Fault("reset", first=1), openai.APIConnectionError),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_a_broken_answer_is_the_sdks_own_error(simulator, door, fault, error):
    """Without retries it is raised as the plain SDK raises it, and the next call is answered."""
    provider = simulator(answer="echo", faults=[fault])
    client = door(OpenAI, provider, max_retries=0, max_concurrency=1)
    with pytest.raises(error):
        ask(client).result(timeout=5)
    assert provider.counters.requests == 1
    assert text_of(ask(client, "next")) == "next"


def test_the_same_trouble_is_the_same_error_as_the_plain_sdks(simulator, door):
    """Fault by fault, class by class, as openai without us."""
    for kind, status in (("malformed", 200), ("truncate", 200), ("html", 502), ("reset", 500), ("status", 418)):
        provider = simulator(faults=[Fault(kind, status=status)])
        with openai.OpenAI(base_url=provider.base_url, api_key="sk", max_retries=0) as plain:
            expected = kind_of_failure(lambda plain=plain: ask(plain))
        ours = door(OpenAI, provider, max_retries=0)
        assert kind_of_failure(lambda ours=ours: ask(ours).result(timeout=5)) is expected, kind


def kind_of_failure(call):
    try:
        call()
    except Exception as error:
        return type(error)
    return None


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b'"text"', b"{}", b'{"usage": 5}', b'{"usage": {"prompt_tokens": "x"}}',
        b'{"usage": {"prompt_tokens": -7}}',
    ],
)  # fmt: skip
def test_an_answer_of_another_shape_is_handed_on(door, body):
    """Whatever the SDK makes of it, the call ends and the place is free."""
    stub = Stub(lambda number, sent: (200, body if number == 1 else chat_body(), {"content-type": "application/json"}))
    client = door(OpenAI, http_client=stub.client, max_concurrency=1)
    error = ask(client).exception(timeout=5)
    assert error is None or isinstance(error, (openai.APIError, json.JSONDecodeError))
    assert text_of(ask(client)) == "answer"


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[1]", b'{"error": null}', b'{"error": "words"}', b'{"error": {"code": 7}}', b"\xff"]
)
@pytest.mark.parametrize("status", [400, 429])
def test_an_error_of_another_shape_is_the_sdks_error(door, status, body):
    """The status decides; a 429 without words is waited out."""

    def answer(number, sent):
        headers = {"content-type": "application/json", "retry-after-ms": "1"}
        return (status, body, headers) if number == 1 else (200, chat_body(), {})

    client = door(OpenAI, http_client=Stub(answer).client)
    first = ask(client)
    if status == 400:
        with pytest.raises(openai.BadRequestError):
            first.result(timeout=5)
    else:
        assert first.result(timeout=5).id
    assert text_of(ask(client)) == "answer"


def test_a_stalled_answer_ends_with_the_timeout(simulator, door):
    """Nothing comes: the SDK's timeout, and the next call is answered."""
    client = door(OpenAI, simulator(faults=[Fault("stall", first=1)]), timeout=0.1, max_retries=0, max_concurrency=1)
    with pytest.raises(openai.APITimeoutError):
        ask(client).result(timeout=5)
    assert ask(client.with_options(timeout=5)).id
