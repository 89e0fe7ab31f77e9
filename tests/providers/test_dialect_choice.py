"""Which dialect answers for which host, and which models share a limit."""

from __future__ import annotations

import pytest

from ratelimited_llm.providers import DIALECTS, dialect_for


@pytest.mark.parametrize(
    ("provider", "base_url", "name"),
    [
        ("openai", "https://api.openai.com/v1/", "openai"),
        ("openai", "https://eu.api.openai.com/v1/", "openai"),
        ("openai", "", "openai"),
        ("openai", "https://api.groq.com/openai/v1", "groq"),
        ("openai", "https://API.GROQ.COM:443/openai/v1", "groq"),
        ("openai", "https://my-name.openai.azure.com/openai/v1/", "azure"),
        ("azure", "https://my-name.cognitiveservices.azure.com/", "azure"),
        ("azure", "https://my-name.services.ai.azure.com/models", "azure"),
        ("azure", "https://proxy.example/azure", "azure"),
        ("openai", "https://models.github.ai/inference", "azure"),
        ("groq", "http://127.0.0.1:8000", "groq"),
        ("anthropic", "https://api.anthropic.com", "anthropic"),
        ("openai", "https://api.anthropic.com/v1/", "anthropic"),
        ("openai", "https://api.mistral.ai/v1", "mistral"),
        ("openai", "https://generativelanguage.googleapis.com/v1beta/openai/", "gemini"),
        ("openai", "https://api.together.xyz/v1", "together"),
        ("openai", "https://api.cerebras.ai/v1", "cerebras"),
        ("openai", "https://openrouter.ai/api/v1", "openrouter"),
        ("openai", "https://api.deepseek.com", "deepseek"),
        ("openai", "http://localhost:11434/v1", "compatible"),
        ("openai", "https://api.openai.com.evil.example/v1", "compatible"),
        ("openai", "https://notapi.openai.com/v1", "compatible"),
        (None, "https://api.openai.com/v1/", "openai"),
        (None, "api.groq.com/openai/v1", "groq"),
        (None, "", "compatible"),
        ("nobody", "https://example.com", "compatible"),
        ("openai", "http://[::1", "openai"),
        ("cerebras", "http://localhost:1", "cerebras"),
    ],
)
def test_the_host_decides_and_then_the_door(provider, base_url, name):
    """OpenAI's client pointed at Groq talks to Groq; an unknown host is only compatible."""
    assert dialect_for(provider, base_url).name == name


def test_dialects_are_singletons():
    """Every client of a provider shares one stateless instance."""
    assert dialect_for("groq", "") is dialect_for("openai", "https://api.groq.com/openai/v1")


def test_how_tokens_are_charged_is_only_claimed_where_it_is_known():
    """Where it is None, the limiter finds out by running three mirrors."""
    charges = {name: dialect.charge for name, dialect in DIALECTS.items()}
    assert charges["openai"] == charges["azure"] == "reserve"
    assert charges["groq"] == "settle"
    assert charges["anthropic"] == "actual"
    assert charges["compatible"] is None


@pytest.mark.parametrize(
    ("name", "model", "family"),
    [
        ("openai", "gpt-4.1-mini-2025-04-14", "gpt-4.1-mini"),
        ("openai", "gpt-4.1-mini", "gpt-4.1-mini"),
        ("openai", "ft:gpt-4o-mini:org::id", "gpt-4o-mini"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:org:name:id", "gpt-4o-mini"),
        ("openai", "gpt-4-0613", "gpt-4-0613"),
        ("openai", "gpt-4o-mini", "gpt-4o-mini"),
        ("openai", "ft:", "ft:"),
        ("openai", "o3-2025-04-16-preview", "o3-2025-04-16-preview"),
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4"),
        ("anthropic", "claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("anthropic", "claude-sonnet-4-5", "claude-sonnet-4"),
        ("anthropic", "claude-opus-4-1-20250805", "claude-opus-4"),
        ("anthropic", "claude-3-5-sonnet-20241022", "claude-3-5-sonnet-20241022"),
        ("anthropic", "claude-sonnet-4-5-fast", "claude-sonnet-4-5-fast"),
        ("groq", "llama-3.3-70b-versatile", "llama-3.3-70b-versatile"),
        ("azure", "gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
        ("openrouter", "openai/gpt-4o-2024-08-06", "openai/gpt-4o-2024-08-06"),
    ],
)
def test_models_share_a_pool_only_where_the_provider_says_so(name, model, family):
    """Snapshots, fine-tunes and model classes merge; everything else keeps its own name."""
    assert DIALECTS[name].family(model) == family
