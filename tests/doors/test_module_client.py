"""`from ratelimited_llm import openai`: the module as scripts use it, `openai.api_key = ...` and all."""

from __future__ import annotations

from concurrent.futures import Future

import openai as plain
import pytest
from talking import ask, text_of

from ratelimited_llm import openai


@pytest.fixture
def module(simulator, monkeypatch):
    """The door with its settings at a provider that echoes, and without a client made before."""
    provider = simulator(answer="echo", rpm=1000)
    for name in ("api_key", "base_url", "api_type", "http_client"):
        monkeypatch.setattr(plain, name, getattr(plain, name))  # put back at the end
    openai.http_client = None
    openai._made.clear()
    openai.api_key = "sk-module"
    openai.base_url = provider.base_url + "/"  # as the SDK wants it here
    yield provider
    for client in openai._made:
        client.close()
    openai._made.clear()


def test_module_calls_are_queued(module):
    """`openai.chat.completions.create` returns futures, and each gets its own answer."""
    answers = [ask(openai, f"call {i}") for i in range(5)]
    assert all(issubclass(type(answer), Future) for answer in answers)
    assert [text_of(answer) for answer in answers] == [f"call {i}" for i in range(5)]
    assert module.log[0].key() == "sk-module"


def test_every_resource_of_the_module_works(module):
    """Embeddings, responses and moderations are queued; models pass through."""
    assert openai.embeddings.create(model="e", input="x").data
    assert openai.responses.create(model="m", input="x").output_text
    assert openai.moderations.create(input="x").results
    assert [model.id for model in openai.models.list()]


def test_settings_reach_the_sdk_while_it_runs(module):
    """A key that is set later is the one that is sent."""
    assert ask(openai).id
    openai.api_key = "sk-later"
    assert plain.api_key == "sk-later"
    assert ask(openai).id
    assert [record.key() for record in module.log] == ["sk-module", "sk-later"]


def test_the_plain_module_stays_plain(module):
    """What `import openai` gives elsewhere is not changed by ours."""
    assert text_of(ask(openai)) == "hello"
    assert plain._ModuleClient is not type(openai._made[0])
    assert plain.OpenAI is not openai.OpenAI


def test_names_are_the_sdks_own_objects():
    """Exceptions and types of the door are those of the SDK; names it has not are an AttributeError."""
    assert openai.RateLimitError is plain.RateLimitError
    assert openai.types is plain.types
    assert openai.AsyncStream is plain.AsyncStream
    assert openai.__version__ == plain.__version__
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = openai.no_such_name
