"""What makes no sense is refused where it is said, with the name of what is wrong; nothing is sent, nothing hangs."""

from __future__ import annotations

import math

import openai
import pytest
from nested import cyclic, deep
from talking import ask, text_of

from ratelimited_llm import OpenAI, RateLimits


@pytest.mark.parametrize("name", ["rpm", "tpm", "rpd", "tpd", "itpm", "otpm", "max_concurrency", "burst"])
@pytest.mark.parametrize("value", [0, -5, math.nan, "x", True])
def test_limits_that_are_none_are_refused(name, value):
    """Zero, negative, not a number, text: an error with the name of the limit, when the client is made."""
    with pytest.raises((ValueError, TypeError), match=name):
        OpenAI(api_key="sk", **{name: value})


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"priority": "urgent"}, "priority"), ({"priority": 11}, "priority"), ({"mode": "async"}, "mode"),
        ({"deadline": 0}, "deadline"), ({"deadline": -1}, "deadline"), ({"deadline": math.nan}, "deadline"),
        ({"deadline": "soon"}, "deadline"), ({"max_wait": 0}, "max_wait"), ({"tenant": 7}, "tenant"),
    ],
)  # fmt: skip
def test_options_of_calls_are_checked_where_they_are_said(simulator, door, options, word):
    """For the client, and for `with_options`."""
    with pytest.raises((ValueError, TypeError), match=word):
        OpenAI(api_key="sk", **options)
    client = door(OpenAI, simulator())
    with pytest.raises((ValueError, TypeError), match=word):
        client.with_options(**options)
    assert ask(client).id


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"max_queue": 0}, "max_queue"), ({"on_full": "drop"}, "on_full"), ({"limits": 5}, "limits"),
        ({"estimator": "gpt"}, "estimator"), ({"rpmm": 5}, "rpmm"),
        ({"rpm": 5, "max_requests_per_minute": 6}, "rpm"),
    ],
)  # fmt: skip
def test_options_of_the_client_are_checked(options, word):
    """Caps, unknown names, and one limit said twice."""
    with pytest.raises((ValueError, TypeError), match=word):
        OpenAI(api_key="sk", **options)


def test_limits_of_the_client_are_not_for_copies(simulator, door):
    """A limit in `with_options` is refused, since copies share one queue."""
    with pytest.raises(TypeError, match="rpm"):
        door(OpenAI, simulator()).with_options(rpm=5)


def test_minus_one_is_no_limit(simulator, door):
    """`-1` means what None means, as many tools write it."""
    client = door(OpenAI, simulator(), rpm=-1, limits=None)
    assert client._runtime.limits == RateLimits()


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        ({"x": math.nan}, ValueError), ({"x": math.inf}, ValueError), ({"x": b"bytes"}, TypeError),
        ({"x": {1, 2}}, TypeError), ({"x": object()}, TypeError), ({"x": "\ud800"}, ValueError),
        (cyclic(), ValueError), ({"x": deep(100_000)}, ValueError),
    ],
    ids=["nan", "inf", "bytes", "set", "object", "surrogate", "cyclic", "deep"],
)  # fmt: skip
def test_a_body_that_cannot_be_sent_is_refused_at_the_call(simulator, door, extra, error):
    """The error is raised by the call that brought it, nothing arrives at the provider, and the next call works."""
    provider = simulator(answer="echo")
    client = door(OpenAI, provider)
    with pytest.raises(error):
        ask(client, extra_body=extra)
    assert provider.counters.requests == 0
    assert text_of(ask(client, "next")) == "next"


def test_text_that_cannot_be_sent_is_refused_at_the_call(simulator, door):
    """Half a surrogate pair in a message is no text."""
    provider = simulator()
    with pytest.raises(ValueError, match="surrogate"):
        ask(door(OpenAI, provider), "\ud83d")
    assert provider.counters.requests == 0


@pytest.mark.parametrize("messages", [[], "text", None, [None], [{"role": "user"}], [{"content": 5}], 7])
def test_bodies_of_a_wrong_shape_are_the_providers_affair(simulator, door, messages):
    """Ours does not stumble over what it does not understand: an answer, or the SDK's or Python's own error."""
    client = door(OpenAI, simulator())
    error = None
    try:
        assert client.chat.completions.create(model="m", messages=messages).result(timeout=5).id
    except Exception as raised:
        error = raised
    assert error is None or isinstance(error, (openai.APIError, TypeError, ValueError, AttributeError))


def test_every_kind_of_unicode_arrives(simulator, door):
    """Emoji, right-to-left, combining marks, NUL: as they were sent."""
    text = "🙂 עברית e\u0301 \x00 \u2028 end"
    assert text_of(ask(door(OpenAI, simulator(answer="echo")), text)) == text


@pytest.mark.parametrize("estimate", [lambda body: -1, lambda body: "many", lambda body: 1.5, lambda body: None.x])
def test_an_estimator_that_fails_is_heard_of_at_the_call(simulator, door, estimate):
    """Its error, or what is wrong with its answer, is raised by the call."""
    provider = simulator()
    with pytest.raises((ValueError, AttributeError)):
        ask(door(OpenAI, provider, estimator=estimate))
    assert provider.counters.requests == 0
