"""Trouble on purpose: what each kind looks like to an SDK, and which calls it strikes."""

from __future__ import annotations

import contextlib
import http.client
import json

import anthropic
import openai
import pytest

from ratelimited_llm.simulator import Fault, Faults, Simulator

HELLO = [{"role": "user", "content": "hello"}]


@contextlib.contextmanager
def struck(*faults, **options):
    """A simulator with faults, and its client."""
    with (
        Simulator(faults=faults, **options) as simulator,
        openai.OpenAI(base_url=simulator.base_url, api_key="any", max_retries=0, timeout=5) as client,
    ):
        yield simulator, client


def ask(client, **options):
    return client.chat.completions.create(model="m", messages=HELLO, **options)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (500, openai.InternalServerError), (503, openai.InternalServerError), (529, openai.InternalServerError),
        (401, openai.AuthenticationError), (409, openai.ConflictError), (429, openai.RateLimitError),
    ],
)  # fmt: skip
def test_statuses_raise_their_classes(status, error):
    """The first call fails with the status, the second is answered."""
    with struck(Fault(status=status, first=1, code="slow_down")) as (simulator, client):
        with pytest.raises(error) as caught:
            ask(client)
        assert caught.value.code == "slow_down"
        ask(client)
        assert (simulator.counters.failed, simulator.counters.answered) == (1, 1)


def test_exhausted_quota_is_a_429_with_its_code():
    """It looks like a rate limit, but its code says that waiting does not help."""
    with struck(Fault("exhausted")) as (_, client), pytest.raises(openai.RateLimitError) as caught:
        ask(client)
    assert caught.value.code == "insufficient_quota"


def test_a_proxy_answers_in_html():
    """A 502 whose body is no JSON."""
    with struck(Fault("html", status=502)) as (_, client), pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert caught.value.response.text.startswith("<html>")


@pytest.mark.parametrize("kind", ["reset", "truncate"])
def test_broken_connections_are_connection_errors(kind):
    """A reset before the answer, and an answer that ends half way."""
    with struck(Fault(kind, first=1)) as (simulator, client):
        with pytest.raises(openai.APIConnectionError):
            ask(client)
        ask(client)
        assert simulator.counters.in_flight == 0
        assert simulator.log[0].status == (None if kind == "reset" else 200)


def test_malformed_json_is_sent_as_if_it_were_whole():
    """The length is right, the JSON is not."""
    with struck(Fault("malformed")) as (_, client), pytest.raises((openai.OpenAIError, ValueError)):
        ask(client)


def test_a_stalled_answer_times_out():
    """Nothing arrives; the caller's own timeout ends it, and the place is freed."""
    with struck(Fault("stall", first=1)) as (simulator, client):
        with pytest.raises(openai.APITimeoutError):
            ask(client.with_options(timeout=0.1))
        ask(client)
        assert simulator.counters.abandoned == 1


def test_a_stall_can_end():
    """With seconds, the answer comes late, plain and streamed."""
    with struck(Fault("stall", seconds=0.02)) as (simulator, client):
        assert ask(client).choices
        assert len(list(ask(client, stream=True))) > 3
        assert simulator.counters.answered == 2


def test_a_stream_can_stall_or_end_half_way():
    """Some chunks arrive, then nothing, or the end of the connection."""
    # Which class a broken stream raises is the SDK's and its HTTP client's affair, and has changed.
    with struck(Fault("truncate", after=3)) as (_, client):
        stream = ask(client, stream=True)
        assert [next(stream) for _ in range(3)]
        with pytest.raises(Exception, match=r"(?i)incomplete|connection|closed"):
            next(stream)
    with struck(Fault("stall", after=3)) as (_, client):
        stream = ask(client.with_options(timeout=0.1), stream=True)
        assert [next(stream) for _ in range(3)]
        with pytest.raises(Exception, match=r"(?i)time"):
            next(stream)


def test_a_limit_can_strike_inside_a_200():
    """An error event ends the stream: chat, responses and messages each in their own form."""
    with struck(Fault("error_event", after=2)) as (simulator, client):
        stream = ask(client, stream=True)
        next(stream), next(stream)
        with pytest.raises(openai.APIError, match=r"try again in 11\.054s"):
            next(stream)
        events = list(client.responses.create(model="m", input="x", stream=True))
        assert events[-1].type == "response.failed"
        assert events[-1].response.error.code == "rate_limit_exceeded"
        with anthropic.Anthropic(base_url=simulator.url, api_key="any", max_retries=0) as claude:
            stream = claude.messages.create(model="m", max_tokens=9, messages=HELLO, stream=True)
            with pytest.raises(anthropic.APIStatusError) as caught:
                list(stream)
            assert caught.value.status_code == 200
        assert ask(client).choices


@pytest.mark.parametrize("lie", ["1e9", "nan", "-5", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_headers_lie_on_refusals_and_answers(lie):
    """Any header can be set, or removed, in whatever is answered."""
    fault = Fault("headers", headers={"Retry-After": lie, "x-ratelimit-remaining-requests": "-1", "x-request-id": None})
    with Simulator(rpm=1, period=3600, faults=fault) as simulator:
        connection = http.client.HTTPConnection("127.0.0.1", simulator.port, timeout=10)
        with contextlib.closing(connection):
            for status in (200, 429):
                connection.request("POST", "/v1/chat/completions", json.dumps({"model": "m", "messages": HELLO}))
                answer = connection.getresponse()
                assert answer.read()
                assert answer.status == status
                assert answer.headers.get_all("retry-after") == [lie]
                assert answer.headers["x-ratelimit-remaining-requests"] == "-1"
                assert "x-request-id" not in answer.headers


def test_failed_calls_count_against_the_limits_unless_told():
    """Unsuccessful requests spend the limit; with charged=False they do not."""
    for charged, left in ((True, "0"), (False, "1")):
        with struck(Fault(first=1, charged=charged), rpm=2, period=3600) as (_, client):
            with pytest.raises(openai.InternalServerError):
                ask(client)
            raw = client.chat.completions.with_raw_response.create(model="m", messages=HELLO)
            assert raw.headers["x-ratelimit-remaining-requests"] == left


def test_rules_strike_by_number_model_and_chance():
    """first, every, at, model and probability pick the calls; the same seed picks the same."""

    def hits(fault: Fault, seed: int = 0) -> list[int]:
        faults = Faults([fault], seed=seed)
        return [number for number in range(1, 1001) if faults.pick(number, {"model": "m"})]

    assert hits(Fault(first=3)) == [1, 2, 3]
    assert hits(Fault(every=400)) == [400, 800]
    assert hits(Fault(at=(2, 5))) == [2, 5]
    assert hits(Fault(model="other")) == []
    assert 60 < len(hits(Fault(probability=0.1))) < 140
    assert hits(Fault(probability=0.1)) == hits(Fault(probability=0.1))
    assert hits(Fault(probability=0.1)) != hits(Fault(probability=0.1), seed=1)


def test_rules_can_be_a_function():
    """A callable of number and body decides by itself."""
    faults = Faults(lambda number, body: Fault(status=503) if body["model"] == "bad" and number > 1 else None)
    assert faults.pick(1, {"model": "bad"}) is None
    assert faults.pick(2, {"model": "bad"}) == Fault(status=503)


def test_unknown_kinds_are_refused():
    """A misspelt kind is a ValueError with the known ones."""
    with pytest.raises(ValueError, match="unknown kind of fault 'rest': use status"):
        Fault("rest")
