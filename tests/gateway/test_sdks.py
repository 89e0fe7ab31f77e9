"""Unmodified SDKs, and other clients, by base URL alone: what they get is what the provider sends."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import anthropic
import groq
import openai
import pytest
from pydantic import BaseModel
from serving_gateways import CHAT, MESSAGES, say
from waiting import wait_until

JS = Path(__file__).parent / "js"


class City(BaseModel):
    name: str


@pytest.fixture
def client(gateway):
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key="any", max_retries=0) as made:
        yield made


def test_openai_chat_embeddings_and_responses(client):
    assert client.chat.completions.create(**say("echo me")).choices[0].message.content == "echo me"
    assert len(client.embeddings.create(model="e", input=["a", "b"]).data) == 2
    assert client.responses.create(model="gpt-4.1-mini", input="hi").output_text


def test_openai_streams_with_usage(client, gateway):
    before = gateway.gateway.status()["totals"]["output_tokens"]
    stream = client.chat.completions.create(**say("a b c"), stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "a b c"
    used = chunks[-1].usage.completion_tokens
    assert used > 0
    wait_until(lambda: gateway.gateway.status()["totals"]["output_tokens"] - before == used)


def test_openai_async_client_streams_and_gathers(gateway):
    async def main():
        async with openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="any") as client:
            answers = await asyncio.gather(*[client.chat.completions.create(**say(str(n))) for n in range(20)])
            stream = await client.chat.completions.create(**say("x y"), stream=True)
            text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
            return [a.choices[0].message.content for a in answers], text

    texts, text = asyncio.run(main())
    assert texts == [str(n) for n in range(20)]
    assert text == "x y"


def test_openai_parse_makes_the_users_own_type(client):
    answer = client.chat.completions.parse(**say('{"name": "Lima"}'), response_format=City)
    assert answer.choices[0].message.parsed == City.model_validate_json(answer.choices[0].message.content)


def test_raw_responses_show_the_providers_headers_and_ours(client):
    raw = client.chat.completions.with_raw_response.create(**CHAT)
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.headers["x-ratelimited-attempts"] == "1"
    assert float(raw.headers["x-ratelimited-queued"]) < 5
    assert raw.request_id == raw.headers["x-request-id"]


def test_what_spends_no_limit_passes_straight_through(client, gateway):
    before = gateway.gateway.counts["requests"]
    assert client.models.list().data
    assert gateway.gateway.counts["requests"] == before


def test_groq(gateway):
    with groq.Groq(base_url=gateway.url, api_key="any", max_retries=0) as client:
        assert client.chat.completions.create(model="llama-3.1-8b-instant", messages=MESSAGES).usage.total_tokens
        stream = client.chat.completions.create(model="llama-3.1-8b-instant", messages=MESSAGES, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == "hello"


def test_anthropic(gateway):
    body = {"model": "claude-opus-4-6", "max_tokens": 20, "messages": MESSAGES}
    with anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0) as client:
        assert client.messages.create(**body).content[0].text == "hello"
        with client.messages.stream(**body) as stream:
            assert stream.get_final_text() == "hello"


def test_every_provider_has_a_prefix_too(gateway):
    for url, model in (("/openai", "gpt-4.1-mini"), ("/groq/v1", "llama-3.1-8b-instant")):
        assert gateway.ask(url + "/chat/completions", {"model": model, "messages": MESSAGES}).status == 200
    body = {"model": "claude-opus-4-6", "max_tokens": 20, "messages": MESSAGES}
    assert gateway.ask("/anthropic/v1/messages", body).json["type"] == "message"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 500])
def test_errors_are_the_providers_own(client, gateway, providers, status):
    trouble = say("!" + json.dumps({"kind": "status", "status": status, "message": "as the provider says"}))
    with pytest.raises(openai.APIStatusError) as seen:
        client.with_options(max_retries=0).chat.completions.create(**trouble)
    assert seen.value.status_code == status
    assert "as the provider says" in seen.value.message
    assert seen.value.request_id
    assert seen.value.response.headers["x-should-retry"] == "false"  # one retry authority, and it has tried


def test_an_exhausted_quota_is_handed_on_at_once(client):
    with pytest.raises(openai.RateLimitError) as seen:
        client.chat.completions.create(**say("!exhausted"))
    assert seen.value.code == "insufficient_quota"


def test_anthropic_errors_keep_their_shape(gateway):
    text = "!" + json.dumps({"kind": "status", "status": 400})
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0) as client,
        pytest.raises(anthropic.BadRequestError) as seen,
    ):
        client.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": text}])
    assert seen.value.body["type"] == "error"


def test_an_error_in_a_stream_ends_it_as_the_provider_did(client, gateway):
    stream = client.chat.completions.create(**say("!error_event"), stream=True)
    with pytest.raises(openai.APIError):
        list(stream)


def test_a_stream_that_breaks_off_breaks_off_for_the_client(gateway):
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key="any", max_retries=0) as client:
        stream = client.chat.completions.create(**say("!truncate"), stream=True)
        with pytest.raises(Exception, match=r"incomplete|closed|Connection"):
            list(stream)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(gateway):
    done = subprocess.run(
        ["curl", "-sS", "--fail", gateway.url + "/v1/chat/completions", "-d", json.dumps(say("from curl"))],
        capture_output=True, text=True, timeout=10, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "from curl"


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
@pytest.mark.skipif(not (JS / "node_modules" / "openai").is_dir(), reason="run `npm install` in tests/gateway/js")
def test_the_javascript_openai_package(gateway):
    done = subprocess.run(
        ["node", str(JS / "ask.mjs")], env={"OPENAI_BASE_URL": gateway.url + "/v1", "OPENAI_API_KEY": "any"},
        capture_output=True, text=True, timeout=15, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "answer": "from node", "streamed": "a b c", "raw": "1", "status": 418, "gathered": 20, "models": True,
    }  # fmt: skip
