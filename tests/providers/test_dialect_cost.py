"""What each provider holds against the limit when a call is admitted."""

from __future__ import annotations

import pytest

from ratelimited_llm.core.request import Cost
from ratelimited_llm.providers import DIALECTS
from ratelimited_llm.providers.parsing import MOST_TOKENS

CHAT = "/chat/completions"


@pytest.mark.parametrize(
    ("name", "reserved"),
    [
        ("openai", 500),
        ("azure", 600),
        ("groq", 600),
        ("anthropic", 100),
        ("gemini", 100),
        ("cerebras", 600),
        ("compatible", 600),
    ],
)
def test_admission_follows_the_providers_rule(name, reserved):
    """OpenAI takes the larger of prompt and max_tokens, Anthropic and Gemini the prompt, the others the sum."""
    cost = DIALECTS[name].cost(CHAT, {"max_tokens": 500}, 100, 40)
    assert cost == Cost(reserved=reserved, expected=140, input_tokens=100, output_tokens=40)


@pytest.mark.parametrize(
    ("name", "reserved"),
    [("openai", 100), ("azure", 140), ("groq", 140), ("anthropic", 100), ("cerebras", 8192), ("compatible", 140)],
)
def test_without_a_maximum_the_expected_answer_is_reserved(name, reserved):
    """An unset max_tokens costs what is expected; Cerebras takes a whole sequence, OpenAI its documented 16."""
    assert DIALECTS[name].cost(CHAT, {}, 100, 40).reserved == reserved


def test_openai_charges_a_short_prompt_sixteen():
    """The guide's own sample: 149984 of 150000 are left after one short call without max_tokens."""
    assert DIALECTS["openai"].cost("/completions", {}, 3, None).reserved == 16


@pytest.mark.parametrize("parameter", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_every_spelling_of_the_maximum_counts(parameter):
    """Chat, its successor and the responses API each have their own name for it."""
    assert DIALECTS["groq"].cost("/v1/responses", {parameter: 500}, 100, 40).reserved == 600


def test_the_expected_answer_is_no_longer_than_the_maximum():
    """A call capped at 10 tokens is not expected to use 400, whatever others did."""
    assert DIALECTS["groq"].cost(CHAT, {"max_tokens": 10}, 100, 400).expected == 110


@pytest.mark.parametrize(
    ("body", "reserved"),
    [
        ({"max_tokens": 50, "n": 3}, 250),
        ({"max_tokens": 50, "best_of": 4, "n": 2}, 300),
        ({"max_tokens": 50, "prompt": ["a", "b", "c"]}, 250),
        ({"max_tokens": 50, "prompt": [1, 2, 3]}, 150),
    ],
)
def test_every_answer_that_is_asked_for_counts(body, reserved):
    """n, best_of and a list of prompts multiply the output; a list of token numbers is one prompt."""
    assert DIALECTS["azure"].cost("/completions", body, 100, 40).reserved == reserved


@pytest.mark.parametrize(
    "path", ["/embeddings", "/v1/moderations", "/images/generations?x=1", "/v1/messages/count_tokens"]
)
def test_calls_without_generated_text_cost_their_input(path):
    """Nothing is reserved for output where none is generated."""
    for name, dialect in DIALECTS.items():
        assert dialect.cost(path, {"max_tokens": 50}, 100, 40) == Cost(100, 100, 100, 0), name


def test_a_deployments_name_is_not_taken_for_the_endpoint():
    """An Azure deployment may be called anything, "images" included."""
    path = "/openai/deployments/images/chat/completions?api-version=1"
    assert DIALECTS["azure"].cost(path, {"max_tokens": 50}, 100, 40).reserved == 150


@pytest.mark.parametrize("value", ["abc", None, -1, True, float("nan"), [], {}, object()])
def test_a_maximum_that_makes_no_sense_counts_as_unset(value):
    """The provider refuses such a body with a better message than ours could have."""
    body = {"max_tokens": value, "max_completion_tokens": value, "max_output_tokens": value, "n": value}
    for name, dialect in DIALECTS.items():
        assert dialect.cost(CHAT, body, 100, 40) == dialect.cost(CHAT, {}, 100, 40), name


@pytest.mark.parametrize("value", [10**30, float("inf"), 1e300])
def test_a_huge_maximum_is_clamped(value):
    """No cost leaves the bounds that the limiter can add up."""
    cost = DIALECTS["groq"].cost(CHAT, {"max_tokens": value, "n": value}, 10**30, 10**30)
    assert cost == Cost(MOST_TOKENS, MOST_TOKENS, MOST_TOKENS, MOST_TOKENS)
