"""The tokens that answers and streams say they used, as decoded JSON and as the SDKs' objects."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ratelimited_llm.core.request import Usage
from ratelimited_llm.providers import DIALECTS


def objects(value):
    """The same data with attributes instead of keys, as an SDK's models have them."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: objects(part) for name, part in value.items()})
    return [objects(part) for part in value] if isinstance(value, list) else value


CHAT = {
    "choices": [],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 64},
    },
}
RESPONSE = {
    "output": [],
    "usage": {"input_tokens": 100, "output_tokens": 20, "input_tokens_details": {"cached_tokens": 64}},
}
EMBEDDING = {"data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}}
MESSAGE = {
    "type": "message",
    "usage": {
        "input_tokens": 50,
        "output_tokens": 20,
        "cache_creation_input_tokens": 30,
        "cache_read_input_tokens": 1000,
    },
}


@pytest.mark.parametrize("shape", [dict, objects], ids=["json", "sdk object"])
@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        ("openai", CHAT, Usage(100, 20)),
        ("openai", RESPONSE, Usage(100, 20)),
        ("openai", EMBEDDING, Usage(8, 0)),
        ("groq", CHAT, Usage(100, 20, 64)),
        ("groq", RESPONSE, Usage(100, 20, 64)),
        ("compatible", CHAT, Usage(100, 20)),
        ("anthropic", MESSAGE, Usage(1080, 20, 1000)),
        ("anthropic", EMBEDDING, Usage(8, 0)),
        ("openai", {"id": "modr-1", "results": []}, None),
        ("openai", {"usage": None}, None),
        ("openai", {"usage": {}}, None),
        ("openai", {"usage": {"prompt_tokens": "7", "completion_tokens": True}}, None),
        ("openai", {"usage": {"prompt_tokens": -7, "completion_tokens": 5}}, None),
        ("openai", {"usage": {"prompt_tokens": 7, "completion_tokens": float("nan")}}, Usage(7, 0)),
        ("groq", {"usage": {"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 999}}}, Usage(7, 0, 7)),
    ],
)
def test_usage_counts_what_the_provider_counts(name, answer, expected, shape):
    """OpenAI counts cached input, Groq and Anthropic do not, and what is not said is None."""
    assert DIALECTS[name].usage(shape(answer)) == expected


@pytest.mark.parametrize(
    "answer", [None, "text", b"bytes", 3, [], [{"usage": 1}], object(), {"usage": [1]}, {"usage": "x"}]
)
def test_an_answer_without_usage_has_none(answer):
    """Audio, HTML or a list tells no usage, and that is no error."""
    for name, dialect in DIALECTS.items():
        assert dialect.usage(answer) is None, name
        assert dialect.stream_usage(answer, Usage(1, 2)) == Usage(1, 2), name


def test_usage_survives_an_object_whose_property_raises():
    """Accounting never breaks an answer, not even a strange one."""

    class Odd:
        @property
        def usage(self):
            raise RuntimeError("not yet")

    assert DIALECTS["openai"].usage(Odd()) is None


CHUNK = {"choices": [{"delta": {"content": "x"}}], "usage": None}
STREAMS = {
    "OpenAI chat": ("openai", [CHUNK, CHUNK, CHAT], Usage(100, 20)),
    "OpenAI chat, not asked for": ("openai", [CHUNK, CHUNK], None),
    "OpenAI responses": (
        "openai",
        [
            {"type": "response.created", "response": {"usage": None}},
            {"type": "response.output_text.delta", "delta": "x"},
            {"type": "response.completed", "response": RESPONSE},
        ],
        Usage(100, 20),
    ),
    "cumulative usage in every chunk": (
        "compatible",
        [
            {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}},
            {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
        ],
        Usage(5, 2),
    ),
    "Groq": ("groq", [CHUNK, {"choices": [], "x_groq": {"id": "r", "usage": CHAT["usage"]}}], Usage(100, 20, 64)),
    "Anthropic": (
        "anthropic",
        [
            {"type": "message_start", "message": MESSAGE | {"usage": MESSAGE["usage"] | {"output_tokens": 1}}},
            {"type": "content_block_delta", "delta": {"text": "x"}},
            {"type": "message_delta", "usage": {"output_tokens": 42}},
            {"type": "message_stop"},
        ],
        Usage(1080, 42, 1000),
    ),
    "Anthropic, broken off": (
        "anthropic",
        [{"type": "message_start", "message": MESSAGE}, {"type": "ping"}],
        Usage(1080, 20, 1000),
    ),
    "Anthropic through OpenAI's API": ("anthropic", [CHUNK, CHAT], Usage(100, 20, 64)),
}


@pytest.mark.parametrize("shape", [dict, objects], ids=["json", "sdk object"])
@pytest.mark.parametrize(("name", "events", "expected"), STREAMS.values(), ids=list(STREAMS))
def test_a_streams_usage_is_found_wherever_it_comes(name, events, expected, shape):
    """In the last chunk, in x_groq, in the completed response, or in two halves at start and end."""
    usage = None
    for event in events:
        usage = DIALECTS[name].stream_usage(shape(event), usage)
    assert usage == expected


def test_usage_reads_the_sdks_own_models():
    """The openai SDK's ChatCompletion and CompletionUsage, optional parts unset."""
    types = pytest.importorskip("openai.types.chat")
    answer = types.ChatCompletion.model_validate(
        {"id": "x", "object": "chat.completion", "created": 1, "model": "m", **CHAT}
    )
    assert DIALECTS["openai"].usage(answer) == Usage(100, 20)
    assert DIALECTS["groq"].usage(answer) == Usage(100, 20, 64)
