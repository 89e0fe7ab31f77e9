"""How each provider counts and talks: pure dialects; headers, error bodies and usage in, values out.

A `Dialect` is a stateless singleton. It answers, without a clock, I/O or an SDK import,

- before a call: `cost` (what the provider will hold against the limit) and `family` (whose limit it spends);
- after it: `readings` (limits in the headers), `classify` (what to do about an error) and `usage`;
- about a stream: `stream_usage` event by event, and `classify_event` for an error inside a 200.

Everything that came over the wire is untrusted: whatever is in it, nothing raises, every number is finite and
bounded, and the time is too. `dialect_for` picks one. A new provider is a subclass with the few methods in which it
differs, and a line in the table below.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from .anthropic import AnthropicDialect
from .azure import AzureDialect
from .base import Dialect
from .compatible import (
    CerebrasDialect,
    CompatibleDialect,
    DeepSeekDialect,
    GeminiDialect,
    MistralDialect,
    OpenRouterDialect,
    TogetherDialect,
)
from .groq import GroqDialect
from .openai import OpenAIDialect

__all__ = ["DIALECTS", "Dialect", "dialect_for"]

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        OpenAIDialect(),
        AzureDialect(),
        GroqDialect(),
        AnthropicDialect(),
        MistralDialect(),
        GeminiDialect(),
        TogetherDialect(),
        CerebrasDialect(),
        OpenRouterDialect(),
        DeepSeekDialect(),
        CompatibleDialect(),
    )
}
"""Every dialect there is, by its name."""

# A host belongs to the first line that it equals or is a subdomain of (eu.api.openai.com, my-name.openai.azure.com).
_HOSTS = (
    ("api.openai.com", "openai"),
    ("openai.azure.com", "azure"),
    ("openai.azure.us", "azure"),
    ("cognitiveservices.azure.com", "azure"),
    ("cognitive.microsoft.com", "azure"),
    ("services.ai.azure.com", "azure"),
    ("inference.ai.azure.com", "azure"),
    ("models.github.ai", "azure"),
    ("api.groq.com", "groq"),
    ("api.anthropic.com", "anthropic"),
    ("api.mistral.ai", "mistral"),
    ("generativelanguage.googleapis.com", "gemini"),
    ("api.together.xyz", "together"),
    ("api.together.ai", "together"),
    ("api.cerebras.ai", "cerebras"),
    ("openrouter.ai", "openrouter"),
    ("api.deepseek.com", "deepseek"),
)


def dialect_for(provider: str | None, base_url: str) -> Dialect:
    """Pick the dialect of whoever will answer.

    Args:
        provider: what the door calls it: "openai", "azure", "groq", "anthropic", or any name in `DIALECTS`; None
            when only the URL is known.
        base_url: where the calls go, as text or an SDK's URL object; "" for the door's default.

    Returns:
        The host's own dialect where the host is known, whatever the door: OpenAI's client is how most people call
        the others. Otherwise the door's; but through OpenAI's door an unknown host is only OpenAI-compatible.
    """
    host = _host(base_url)
    for known, name in _HOSTS:
        if host == known or host.endswith("." + known):
            return DIALECTS[name]
    if provider == "openai" and host:
        return DIALECTS["compatible"]
    return DIALECTS.get(provider or "", DIALECTS["compatible"])


def _host(base_url: object) -> str:
    text = str(base_url or "")
    try:
        return (urlsplit(text if "//" in text else f"//{text}").hostname or "").rstrip(".")
    except ValueError:  # an unclosed bracket: the client will say so when it connects
        return ""
