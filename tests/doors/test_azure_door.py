"""The Azure door: deployments, fixed windows, waits in milliseconds."""

from __future__ import annotations

from concurrent.futures import Future

import openai
import pytest
from talking import ask, text_of

from ratelimited_llm import AzureOpenAI
from ratelimited_llm.simulator import Fault


@pytest.fixture
def azure(simulator, door):
    """Make a client and its provider."""

    def make(*, client=None, **options):
        provider = simulator("azure", answer="echo", **options)
        return door(AzureOpenAI, provider, api_version="2024-10-21", **(client or {})), provider

    return make


def test_a_list_of_calls_is_answered_by_the_deployment(azure):
    """Each reply is its caller's, and the model is in the path."""
    client, provider = azure()
    answers = [ask(client, f"call {i}", model="gpt-deployed") for i in range(10)]
    assert [text_of(answer) for answer in answers] == [f"call {i}" for i in range(10)]
    assert all("/deployments/gpt-deployed/chat/completions" in record.path for record in provider.log)
    assert issubclass(type(answers[0]), Future)


def test_a_wait_in_milliseconds_is_kept(azure):
    """Azure says `retry-after-ms`, and 50 of them are no 50 seconds."""
    fault = Fault(status=429, headers={"retry-after-ms": "50"}, first=1)
    client, provider = azure(faults=[fault])
    assert ask(client).id
    assert [record.status for record in provider.log] == [429, 200]
    assert 0.05 <= provider.log[1].arrived - provider.log[0].arrived < 4


def test_errors_are_the_sdks_own(azure):
    """A wrong key is openai's own AuthenticationError, once."""
    client, provider = azure(api_key="right", client={"api_key": "wrong"})
    with pytest.raises(openai.AuthenticationError):
        ask(client).result()
    assert provider.counters.requests == 1


def test_deployments_have_limits_of_their_own(azure):
    """A deployment that waits does not hold up another."""
    client, _ = azure(client={"rpm": 6})  # judged in parts of a minute: one call, and the next in ten seconds
    busy = [ask(client, model="first") for _ in range(2)]
    assert busy[0].id
    assert ask(client, model="second").id
    assert not busy[1].done()
