"""Who may use a gateway, and who may not."""

from __future__ import annotations

import anthropic
import openai
import pytest
from serving_gateways import CHAT, MESSAGES

from ratelimited_llm.gateway.guard import is_loopback
from ratelimited_llm.gateway.serving import serve

CHAT_PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def locked(providers):
    from serving_gateways import Running

    urls = {name: provider.base_url for name, provider in providers.items()}
    running = Running(base_urls=urls, api_keys=dict.fromkeys(providers, "sk-g"), token="the token")
    yield running
    running.stop()


def test_the_token_is_the_api_key_of_every_sdk(locked):
    with openai.OpenAI(base_url=locked.url + "/v1", api_key="the token", max_retries=0) as client:
        assert client.chat.completions.create(**CHAT).choices
    with anthropic.Anthropic(base_url=locked.url, api_key="the token", max_retries=0) as client:
        assert client.messages.create(model="claude-opus-4-6", max_tokens=9, messages=MESSAGES).content


def test_without_the_token_every_sdk_has_its_own_authentication_error(locked):
    with (
        openai.OpenAI(base_url=locked.url + "/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as seen,
    ):
        client.chat.completions.create(**CHAT)
    assert "the token" not in str(seen.value.body)
    with (
        anthropic.Anthropic(base_url=locked.url, api_key="wrong", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError) as told,
    ):
        client.messages.create(model="claude-opus-4-6", max_tokens=9, messages=MESSAGES)
    assert told.value.body["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("path", ["/v1/queue/stats", "/metrics", "/v1/models", "/v1/queue/requests/1", "/nowhere"])
def test_all_but_the_health_wants_the_token(locked, path):
    assert locked.ask(path).status == 401
    assert locked.ask(path, authorization="Bearer the token").status != 401
    assert locked.ask("/healthz").status == 200
    assert locked.ask("/readyz").status == 200


@pytest.mark.parametrize("what", ["pause", "resume"])
def test_a_page_of_another_port_cannot_give_orders(serving, what):
    """Any program of this machine may serve pages; its pages may ask, since they cannot read, but not stop a queue."""
    gateway = serving()
    for headers in ({"origin": "http://localhost:3000"}, {"sec-fetch-site": "cross-site"}):
        assert gateway.ask(f"/v1/queue/{what}", {}, **headers).status == 403
    assert gateway.ask(f"/v1/queue/{what}", {}).status == 200
    assert gateway.ask("/v1/queue/resume", {}).status == 200


def test_a_page_of_another_host_cannot_use_a_gateway_without_a_token(gateway):
    for headers in ({"host": "evil.example"}, {"host": "evil.example:8089"}, {"origin": "https://evil.example"},
                    {"origin": "null"}):  # fmt: skip
        for path, body in ((CHAT_PATH, CHAT), ("/v1/queue/pause", {}), ("/v1/queue/stats", None)):
            assert gateway.ask(path, body, **headers).status == 403
    for headers in ({"host": "localhost:1"}, {"host": "[::1]:8089"}, {"origin": "http://localhost:3000"}):
        assert gateway.ask(CHAT_PATH, CHAT, **headers).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.com"])
def test_beyond_loopback_it_does_not_start_without_a_token(host):
    with pytest.raises(ValueError, match="--token"):
        serve(host=host, port=0)


@pytest.mark.parametrize(
    ("host", "yes"),
    [("127.0.0.1", True), ("127.9.9.9:80", True), ("localhost", True), ("LOCALHOST:1", True), ("[::1]:1", True),
     ("::1", True), ("0.0.0.0", False), ("127.0.0.1.evil.example", False), ("localhost.evil.example", False),
     ("", False), ("evil.example", False), ("[::2]", False)],
)  # fmt: skip
def test_what_is_loopback(host, yes):
    assert is_loopback(host) is yes


def test_the_inner_sdk_cannot_be_steered_by_headers(gateway, providers):
    steering = {"x-stainless-raw-response": "stream", "____stainless_override_cast_to": "str", "authorization": "k",
                "x-ratelimited-client": "a"}  # fmt: skip
    answered = gateway.ask(CHAT_PATH, CHAT, **{"accept-encoding": "gzip", **steering})
    assert answered.status == 200
    assert answered.json["object"] == "chat.completion"
