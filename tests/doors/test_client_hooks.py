"""What the SDKs' own suites taught about the seam: one pass for all attempts, no name twice, bodies left be."""

from __future__ import annotations

import anthropic
import groq
import openai
import pytest
from talking import Stub, ask, chat_body

from ratelimited_llm import Anthropic, AzureOpenAI, Groq, OpenAI

AZURE = {"azure_endpoint": "http://127.0.0.1:9", "api_version": "1"}
HOOKS = {
    "_build_request", "_make_status_error_from_response", "_process_response", "_should_retry", "_sleep_for_retry",
    "close", "request",
}  # fmt: skip


def trouble(times, status=500):
    """Fail so often, then answer."""
    return lambda number, body: (status, {}, {}) if number <= times else (200, chat_body(), {})


@pytest.mark.parametrize(
    ("cls", "options"),
    [(OpenAI, {}), (AzureOpenAI, AZURE), (Groq, {}), (Anthropic, {})],
    ids=["openai", "azure", "groq", "anthropic"],
)
def test_no_name_of_ours_is_one_of_the_sdks(cls, options):
    """But for the hooks, which are meant: openai 3.54 has a `_provider` of its own."""
    parts = [part for part in cls.__mro__[1:] if part.__module__.startswith("ratelimited_llm")]
    ours = {name for part in parts for name in {*vars(part), *part.__annotations__} if not name.startswith("__")}
    with cls._base(api_key="sk-test", **options) as plain:
        declared = set().union(*(vars(base).get("__annotations__", {}) for base in cls._base.__mro__))
        assert ours & ({*dir(plain), *vars(plain)} | declared) == HOOKS


@pytest.mark.parametrize("cls", [OpenAI, Groq])
def test_a_blocking_call_is_one_pass_through_the_sdk(door, monkeypatch, cls):
    """Middleware, traces and `retries_taken` see one call with its attempts, as without us."""
    sdk = openai if cls is OpenAI else groq
    passes = []
    plain = cls._base.request
    monkeypatch.setattr(cls._base, "request", lambda *args, **more: passes.append(1) or plain(*args, **more))
    stub = Stub(trouble(2), sdk)
    client = door(cls, mode="blocking", max_retries=2, http_client=stub.client)
    raw = client.chat.completions.with_raw_response.create(model="m", messages=[])
    assert (len(passes), raw.retries_taken) == (1, 2)
    assert [request.headers["x-stainless-retry-count"] for request in stub.requests] == ["0", "1", "2"]


def test_anthropics_middleware_counts_the_attempts(door):
    """It runs once per attempt and is told which one that is."""
    seen = []

    def middleware(request, call_next):
        seen.append(request.retries_taken)
        return call_next(request)

    stub = Stub(lambda number, body: (500, {}, {}) if number < 3 else (200, {"id": "msg_1"}, {}), anthropic)
    try:
        client = door(Anthropic, mode="blocking", max_retries=2, http_client=stub.client, middleware=[middleware])
    except TypeError:
        pytest.skip("this anthropic has no middleware")
    client.messages.create(model="m", max_tokens=1, messages=[])
    assert seen == [0, 1, 2]


def test_a_blocking_call_ends_with_the_sdks_last_error(door):
    """The last attempt's error is raised by the SDK itself."""
    stub = Stub(trouble(9, 503))
    client = door(OpenAI, mode="blocking", max_retries=1, http_client=stub.client)
    with pytest.raises(openai.InternalServerError):
        ask(client)
    assert len(stub.requests) == 2
    client.wait(0)
    assert client._runtime.worker.pending == 0


def test_refusals_are_no_attempts_of_a_blocking_call(door):
    """Three 429 and two 500 are within max_retries=2."""
    statuses = [429, 500, 429, 500, 429]
    stub = Stub(
        lambda number, body: (
            (statuses[number - 1], {}, {"retry-after-ms": "1"}) if number <= len(statuses) else (200, chat_body(), {})
        )
    )
    client = door(OpenAI, mode="blocking", max_retries=2, http_client=stub.client)
    assert ask(client).id
    assert len(stub.requests) == 6


@pytest.mark.parametrize("mode", ["future", "blocking"])
def test_the_body_of_a_stream_keeps_what_httpx_has_on_it(simulator, door, mode):
    """`elapsed` is there when the stream has been read."""
    stream = ask(door(OpenAI, simulator(), mode=mode), stream=True)
    assert list(stream)
    assert stream.response.elapsed.total_seconds() >= 0
