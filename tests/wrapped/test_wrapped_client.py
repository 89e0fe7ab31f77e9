"""queued(): what is queued, what is passed through, what comes back, and what the queue learns."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from concurrent.futures import Future, as_completed
from types import SimpleNamespace

import openai
import pytest

from ratelimited_llm import BudgetExceeded, OpenAI, RequestExpired, budgets
from ratelimited_llm.simulator import Fault
from ratelimited_llm.wrapped import queued


def ask(client, text="hello", **options):
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], **options)


class Bedrock:
    """A client as boto3 makes them: methods at the top that return dicts, errors that carry dicts."""

    def __init__(self, answers=()):
        self.answers = list(answers)
        self.calls = []
        self.region = "here"
        self.lock = threading.Lock()

    def converse(self, **body):
        with self.lock:
            self.calls.append((body, threading.current_thread().name))
            answer = self.answers.pop(0) if self.answers else {"usage": {"inputTokens": 7, "outputTokens": 3}}
        if isinstance(answer, Exception):
            raise answer
        return answer

    def list_models(self):
        return ["m"]


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, code, status):
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


# -- against a provider


def test_a_wrapped_client_sends_many_at_once_and_none_is_refused(simulator, plain):
    """Calls return at once, side by side, and the limits that nobody stated are learned from the headers."""
    provider = simulator(rpm=30, period=1.0, latency=0.02, answer="echo")
    with queued(plain(provider)) as client:
        answers = [ask(client, f"n{number}") for number in range(40)]
        assert all(isinstance(answer, Future) for answer in answers)
        assert [answer.choices[0].message.content for answer in answers] == [f"n{number}" for number in range(40)]
    assert provider.counters.answered == 40
    assert provider.counters.refused == 0


def test_blocking_mode_sends_in_the_callers_thread_and_returns_the_plain_object(simulator, plain):
    """mode="blocking": no hand-over; what a tracer keeps per thread is there."""
    provider = simulator(latency=0.0)
    seen = []
    inner = plain(provider)
    inner.chat.completions.create = _spied(inner.chat.completions.create, seen)
    client = queued(inner, mode="blocking")
    assert type(ask(client)).__name__ == "ChatCompletion"
    assert seen == [threading.current_thread()]
    assert isinstance(ask(client.with_options(mode="future")), Future)
    client.close()
    assert seen[1] is not threading.current_thread()


def _spied(method, seen):
    def create(*args, **kwargs):
        seen.append(threading.current_thread())
        return method(*args, **kwargs)

    return create


@pytest.mark.parametrize("mode", ["future", "blocking"])
def test_a_refusal_is_waited_out_and_the_call_is_sent_again(simulator, plain, mode):
    """Who else spends the key's limits: a 429 is no answer, and nobody's error, in both modes."""
    refusal = Fault(status=429, code="rate_limit_exceeded", headers={"retry-after-ms": "20"}, first=1)
    provider = simulator(faults=[refusal])
    client = queued(plain(provider))
    assert ask(client.with_options(mode=mode)).choices
    assert dict(provider.counters.by_status) == {429: 1, 200: 1}


def test_limits_are_shared_with_our_own_client_of_the_same_key(simulator, plain):
    """One key, one budget: whatever client its calls go through."""
    provider = simulator(rpm=1_000, latency=0.0)
    client = queued(plain(provider), rpm=60)
    ask(client).result()
    ours = OpenAI(api_key="sk-test-secret", base_url=provider.base_url, rpm=60)
    ask(ours).result()
    ours.close()
    pool = client._queued_queue.account.pool("m")  # an underscore name of ours, which no client has
    standing = next(each for each in budgets.memory.survey(pool, time.monotonic()).standings if each.dimension == "rpm")
    assert standing.remaining < 58.5


def test_what_spends_nothing_passes_straight_through(simulator, plain):
    """models.list() and attributes are the client's own; files and batches are made, not queued."""
    provider = simulator(latency=0.0)
    inner = plain(provider)
    client = queued(inner)
    assert not isinstance(client.models.list(), Future)
    assert client.base_url is inner.base_url
    assert client.api_key == inner.api_key
    assert client.files.create.__func__ is inner.files.create.__func__
    client.api_key = "sk-other"
    assert inner.api_key == "sk-other"


def test_streams_and_raw_responses_come_through(simulator, plain):
    """A future of a stream is iterated as the stream; with_raw_response gives headers."""
    provider = simulator(latency=0.0, answer="echo")
    client = queued(plain(provider))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, "a b c", stream=True) if chunk.choices)
    assert text == "a b c"
    raw = client.chat.completions.with_raw_response.create(model="m", messages=[{"role": "user", "content": "x"}])
    assert raw.headers["content-type"] == "application/json"
    with client.with_options(mode="blocking").chat.completions.stream(
        model="m", messages=[{"role": "user", "content": "x"}]
    ) as stream:
        assert list(stream)


def test_an_error_of_the_provider_is_its_own(simulator, plain):
    """What is no refusal is handed on, once, as the SDK's very exception."""
    provider = simulator(latency=0.0)
    client = queued(plain(provider))
    wrong = client.chat.completions.create(model="m", messages=[])
    with pytest.raises(openai.BadRequestError):
        wrong.result()
    with pytest.raises(openai.BadRequestError):
        client.with_options(mode="blocking").chat.completions.create(model="m", messages=[])
    assert provider.counters.requests == 2


def test_copies_of_the_client_stay_queued(simulator, plain):
    """with_options() of the SDK and of ours, together."""
    provider = simulator(latency=0.0)
    client = queued(plain(provider), rpm=600)
    other = client.with_options(timeout=5.0, priority="high")
    assert other.timeout == 5.0
    assert isinstance(ask(other), Future)
    assert isinstance(ask(client.copy()), Future)
    client.close()
    with pytest.raises(TypeError, match="no_such"):
        client.with_options(no_such=1)


# -- any object


def test_a_client_that_returns_dicts_is_used_as_before():
    """Bedrock's shape: the future of a dict is indexed, iterated and asked `in`."""
    client = queued(Bedrock(), rpm=600)
    answers = [client.converse(modelId="m", messages=[]) for _ in range(5)]
    assert {answer["usage"]["outputTokens"] for answer in as_completed(answers)} == {3}
    assert "usage" in answers[0]
    assert client.list_models() == ["m"]
    assert client.region == "here"


def test_a_throttled_bedrock_call_waits_and_goes_again():
    """botocore's errors keep the status in a dict; a wrapper's error has the refusal as its cause."""
    inner = Bedrock([ClientError("ThrottlingException", 400), _caused(ClientError("Whatever", 429))])
    client = queued(inner, rpm=6_000)
    assert client.converse(modelId="m")["usage"]
    assert len(inner.calls) == 3


def _caused(cause):
    error = ValueError("the wrapper gave up")
    error.__cause__ = cause
    return error


def test_other_errors_go_again_only_when_asked():
    """retry_on names the classes; everything else is final."""
    final = Bedrock([KeyError("x")])
    with pytest.raises(KeyError):
        queued(final).converse().result()
    patient = Bedrock([TimeoutError(), TimeoutError()])
    assert queued(patient, retry_on=TimeoutError).converse().result()
    assert (len(final.calls), len(patient.calls)) == (1, 3)


def test_usage_is_learned_from_any_of_the_usual_places():
    """Bedrock's, LangChain's, instructor's: the next estimate is what the last answers had."""
    for answer in (
        {"usage": {"inputTokens": 40, "outputTokens": 900}},
        SimpleNamespace(usage_metadata={"input_tokens": 40, "output_tokens": 900}),
        ("model", SimpleNamespace(usage=SimpleNamespace(prompt_tokens=40, completion_tokens=900))),
        SimpleNamespace(_raw_response=SimpleNamespace(usage=SimpleNamespace(prompt_tokens=40, completion_tokens=900))),
    ):
        client = queued(Bedrock([answer]), tpm=1_000_000)
        client.converse(modelId="m", messages=[{"role": "user", "content": "x" * 80}]).result()
        assert client._queued_queue.account.estimator.output_tokens(("m", "converse")) == 900


def test_a_call_that_can_never_fit_fails_at_once():
    """tokens= counts, and the error names the parameter."""
    with pytest.raises(BudgetExceeded, match="tpm="):
        queued(Bedrock(), tpm=100, tokens=lambda **body: 101).converse()


def test_options_of_calls_count():
    """A deadline ends the waiting; what was not sent can be cancelled."""
    slow = queued(Bedrock(), rpm=1, burst=1)
    slow.converse().result()
    with pytest.raises(RequestExpired):
        slow.with_options(max_wait=0.05).converse().result()
    waiting = slow.converse()
    assert waiting.cancel()
    slow.close()


def test_the_methods_that_are_queued_can_be_named():
    """By name, by path, and the client itself when it is called."""

    class Odd:
        def answer(self):
            return 1

        def create(self):
            return 2

        def __call__(self):
            return 3

    client = queued(Odd(), calls=["answer", "__call__"])
    assert (client.answer().result(), client.create(), client().result()) == (1, 2, 3)
    assert queued(Odd(), calls="inner.answer").answer() == 1
    assert queued(Odd())() == 3


def test_arguments_are_taken_as_they_are_at_the_call():
    """What the caller changes while the call waits changes nothing."""
    inner = Bedrock()
    client = queued(inner, rpm=600, burst=1, min_interval=0.05)
    body, futures = [{"role": "user"}], []
    for number in range(3):
        body[0]["content"] = str(number)
        futures.append(client.converse(messages=body))
    client.close()
    assert [call[0]["messages"][0]["content"] for call in inner.calls] == ["0", "1", "2"]


# -- what it looks like, and what it refuses


def test_the_proxy_passes_for_the_client_and_shows_no_key(simulator, plain):
    """isinstance, dir and signature are the client's; the repr names limits and mode only."""
    inner = plain(simulator(latency=0.0))
    client = queued(inner, rpm=60)
    assert isinstance(client, openai.OpenAI)
    assert "chat" in dir(client)
    assert client.chat.completions.create.__name__ == "create"
    assert repr(client).startswith("<queued OpenAI RateLimits(rpm=60")
    assert "secret" not in repr(client) + repr(client.chat.completions) + str(client)
    with pytest.raises(AttributeError, match="no_such"):
        client.no_such  # noqa: B018


def test_what_cannot_be_done_is_said_at_once(simulator, plain):
    """Pickling and copying, ours, async ones, and what is no client."""
    provider = simulator(latency=0.0)
    client = queued(plain(provider))
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            attempt(client)
    with pytest.raises(TypeError, match="queued already"):
        queued(client)
    with OpenAI(api_key="k", base_url=provider.base_url) as ours:
        with pytest.raises(TypeError, match="it is queued already"):
            queued(ours)
        with pytest.raises(TypeError, match="inside of it"):
            queued(_holding(ours))
    with pytest.raises(TypeError, match="async"):
        queued(openai.AsyncOpenAI(api_key="k"))
    for wrong in (None, 3, "x", openai.OpenAI, print):
        with pytest.raises(TypeError, match="takes a client"):
            queued(wrong)


def _holding(client):
    class Wrapper:
        def __init__(self):
            self.client = client

    return Wrapper()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"rpm": 0}, ValueError), ({"no_such": 1}, TypeError), ({"mode": "x"}, ValueError),
        ({"max_retries": -1}, ValueError), ({"retry_on": "x"}, TypeError), ({"calls": []}, TypeError),
        ({"calls": [1]}, TypeError), ({"tokens": -1}, ValueError), ({"priority": "x"}, ValueError),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(options, error):
    """At the call that brought them."""
    with pytest.raises(error):
        queued(Bedrock(), **options)


def test_async_methods_are_refused_in_both_modes():
    """Known by the function, or by what it returns; no coroutine is left behind."""

    class Half:
        async def create(self):
            return 1

        def generate(self):
            return self.create()

    client = queued(Half(), mode="blocking")
    with pytest.raises(TypeError, match="create is async"):
        client.create()
    with pytest.raises(TypeError, match="async"):
        client.generate()
    with pytest.raises(TypeError, match="async"):
        client.with_options(mode="future").generate().result()


def test_an_exit_of_the_block_waits_and_then_leaves_the_client():
    """The client's own __exit__ comes last; an object without one can be used with `with` too."""

    class Closing(Bedrock):
        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.calls.append("closed")

    inner = Closing()
    with queued(inner, rpm=600) as client:
        client.converse()
    assert inner.calls[-1] == "closed"
    assert len(inner.calls) == 2
    with queued(Bedrock()) as client:
        future = client.converse()
    assert future.done()
