"""Which requests are queued, and with whose limits."""

import pytest
import requests as plain

from ratelimited_llm import Anthropic, AzureOpenAI, Groq, OpenAI
from ratelimited_llm.accounts import account_for
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.requests import configure
from ratelimited_llm.requests.hosts import identity_of, target_of

AZURE = "https://me.openai.azure.com/openai/"


@pytest.mark.parametrize(
    ("url", "provider", "base_url", "path", "dialect"),
    [
        ("https://api.openai.com/v1/responses", "openai", "https://api.openai.com/v1/", "/responses", "openai"),
        ("https://API.openai.com:443/v1/embeddings/", "openai", "https://api.openai.com/v1/", "/embeddings", "openai"),
        ("https://eu.api.openai.com/v1/images/edits", "openai", "https://eu.api.openai.com/v1/",
         "/images/edits", "openai"),
        (AZURE + "deployments/mini/chat/completions?api-version=1", "azure", AZURE, "/chat/completions", "azure"),
        (AZURE + "v1/chat/completions", "openai", AZURE + "v1/", "/chat/completions", "azure"),
        ("https://api.groq.com/openai/v1/chat/completions", "groq", "https://api.groq.com",
         "/openai/v1/chat/completions", "groq"),
        ("https://api.anthropic.com/v1/messages", "anthropic", "https://api.anthropic.com",
         "/v1/messages", "anthropic"),
        ("https://openrouter.ai/api/v1/chat/completions", "openai", "https://openrouter.ai/api/v1/",
         "/chat/completions", "openrouter"),
        ("https://api.mistral.ai/v1/fim/completions", "openai", "https://api.mistral.ai/v1/fim/",
         "/completions", "mistral"),
        ("https://api.together.xyz/v1/completions", "openai", "https://api.together.xyz/v1/",
         "/completions", "together"),
        ("https://api.cerebras.ai/v1/chat/completions", "openai", "https://api.cerebras.ai/v1/", "/chat/completions",
         "cerebras"),
        ("https://api.deepseek.com/chat/completions", "openai", "https://api.deepseek.com", "/chat/completions",
         "deepseek"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/chat/completions", "openai",
         "https://generativelanguage.googleapis.com/v1beta/openai/", "/chat/completions", "gemini"),
        ("http://localhost:11434/v1/completions", "openai", "http://localhost:11434/v1/", "/completions", "compatible"),
        ("http://[::1]:8000/v1/messages", "anthropic", "http://[::1]:8000", "/v1/messages", "anthropic"),
        ("http://127.0.0.1:80/chat/completions", "openai", "http://127.0.0.1", "/chat/completions", "compatible"),
    ],
)  # fmt: skip
def test_calls_that_spend_rate_limit_are_told_by_their_url(url, provider, base_url, path, dialect):
    """The URL is divided as the SDK of that provider does, so that raw posts and its clients share limits."""
    target = target_of("post", url)
    assert (target.provider, target.base_url, target.path, target.dialect.name) == (provider, base_url, path, dialect)


def test_a_deployments_name_is_the_model():
    """Azure's limits are those of the deployment, which only the URL names."""
    assert target_of("POST", AZURE + "deployments/mini/embeddings").model == "mini"


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "https://api.openai.com/v1/chat/completions"),
        ("POST", "https://api.openai.com/v1/files"),
        ("POST", "https://api.openai.com/v1/batches"),
        ("POST", "https://api.openai.com/v1/responses/resp_1/cancel"),
        ("POST", "https://api.anthropic.com/v1/messages/count_tokens"),
        ("POST", "https://api.anthropic.com/v1/messages/batches"),
        ("POST", "https://example.com/v1/chat/completions"),
        ("POST", "https://api.openai.com.example.com/v1/chat/completions"),
        ("POST", "https://example.com/?u=https://api.openai.com/v1/chat/completions"),
        ("POST", "http://localhost:5000/messages"),
        ("POST", "http://localhost:5000/app/responses"),
        ("POST", "ftp://api.openai.com/v1/chat/completions"),
        ("POST", "api.openai.com/v1/chat/completions"),
        ("POST", "https://[/v1/chat/completions"),
        ("POST", "https://api.openai.com:x/v1/chat/completions"),
        ("POST", ""),
        ("POST", None),
        (None, "https://api.openai.com/v1/chat/completions"),
    ],
)
def test_everything_else_is_none_of_our_business(method, url):
    """Other methods, endpoints and hosts; an app of the user's own on loopback; and what is no URL at all."""
    assert target_of(method, url) is None


def test_hosts_can_be_added_with_whose_rules_they_follow():
    """A name means its subdomains and every port; a port means that port."""
    configure(hosts={"llm.example.com": None, "https://gateway.example.org:8443/v1": "groq"})
    assert target_of("POST", "https://llm.example.com/x/chat/completions").base_url == "https://llm.example.com/x/"
    assert target_of("POST", "https://eu.llm.example.com:1/chat/completions") is not None
    groq = target_of("POST", "https://gateway.example.org:8443/openai/v1/chat/completions")
    assert (groq.provider, groq.dialect.name, groq.base_url) == ("groq", "groq", "https://gateway.example.org:8443")
    assert target_of("POST", "https://gateway.example.org/openai/v1/chat/completions") is None


@pytest.mark.parametrize("hosts", ["", "two words", ["http://"], [1], {"a.example": "nobody"}, [None]])
def test_a_host_that_is_none_is_refused_at_once(hosts):
    """And nothing is changed by it."""
    with pytest.raises(ValueError, match=r"host|provider"):
        configure(hosts=hosts)


@pytest.mark.parametrize(
    ("headers", "identity"),
    [
        ({"Authorization": "Bearer sk-1"}, "sk-1"),
        ({"authorization": b"bearer  sk-1 "}, "sk-1"),
        ({"x-api-key": "sk-ant"}, "sk-ant"),
        ({"api-key": "azure"}, "azure"),
        ({"Authorization": "Bearer sk-1", "OpenAI-Organization": "org", "OpenAI-Project": "p"}, "sk-1\norg\np"),
        ({}, ""),
    ],
)
def test_the_key_is_what_the_headers_say(headers, identity):
    """In the order in which a client of the SDK has them."""
    request = plain.Request("POST", "https://api.openai.com/v1/chat/completions", headers=headers).prepare()
    assert identity_of(request) == identity


@pytest.mark.parametrize(
    ("make", "url", "headers"),
    [
        (lambda: OpenAI(api_key="k", organization="o"), "https://api.openai.com/v1/embeddings",
         {"Authorization": "Bearer k", "OpenAI-Organization": "o"}),
        (lambda: OpenAI(api_key="k", base_url="https://api.mistral.ai/v1"), "https://api.mistral.ai/v1/completions",
         {"Authorization": "Bearer k"}),
        (lambda: Groq(api_key="k"), "https://api.groq.com/openai/v1/chat/completions", {"Authorization": "Bearer k"}),
        (lambda: AzureOpenAI(api_key="k", azure_endpoint="https://me.openai.azure.com", api_version="1"),
         AZURE + "deployments/mini/chat/completions", {"api-key": "k"}),
    ],
)  # fmt: skip
def test_limits_are_those_of_the_sdks_own_client(make, url, headers):
    """A client with the same key has the very same account, with all that it has learned."""
    request = plain.Request("POST", url, headers=headers).prepare()
    target = target_of(request.method, request.url)
    account = account_for(target.provider, target.base_url, identity_of(request), RateLimits(), target.dialect)
    with make() as client:
        assert client._account(client._runtime) is account


def test_anthropics_place_is_that_of_its_client():
    """Provider and base URL are those that its client has."""
    target = target_of("POST", "https://api.anthropic.com/v1/messages")
    with Anthropic(api_key="k") as client:
        account = client._account(client._runtime)
    assert (target.provider, target.base_url, target.dialect) == (account.provider, account.base_url, account.dialect)
