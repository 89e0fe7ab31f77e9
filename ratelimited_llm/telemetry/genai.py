"""A call in the words of OpenTelemetry's GenAI conventions; never what was asked or answered. Pure.

The conventions are in development and have moved (open-telemetry/semantic-conventions-genai), so their names are
written out here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from ..core.request import Usage
from ..providers.parsing import count, field
from .registry import provider_of

__all__ = [
    "FUNCTION",
    "REQUEST_MODEL",
    "RESPONSE_MODEL",
    "call_attributes",
    "read_answer",
    "request_attributes",
    "usage_attributes",
]

OPERATION, PROVIDER = "gen_ai.operation.name", "gen_ai.provider.name"
REQUEST_MODEL, RESPONSE_MODEL = "gen_ai.request.model", "gen_ai.response.model"
RESPONSE_ID, FINISH_REASONS = "gen_ai.response.id", "gen_ai.response.finish_reasons"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHE_READ, REASONING = "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.reasoning.output_tokens"
FUNCTION = "code.function.name"
CAPS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
LONGEST = 200  # characters of anything that a server or a caller names
PORTS = {"https": 443, "http": 80}

Attributes = dict[str, Any]


def call_attributes(pool: Any, model: str, operation: str) -> Attributes:
    """What spans and metrics of a call have in common."""
    found: Attributes = {OPERATION: operation, PROVIDER: provider_of(pool)}
    if model:
        found[REQUEST_MODEL] = _text(model)
    found.update(_server(getattr(pool, "base_url", "")))
    return found


@lru_cache(maxsize=256)
def _server(base_url: str) -> Mapping[str, Any]:
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme)
    except ValueError:  # a port that is none
        return {}
    if not host:
        return {}
    return {"server.address": _text(host)} if port is None else {"server.address": _text(host), "server.port": port}


def request_attributes(body: Mapping[str, Any]) -> Attributes:
    """Of a request what is no content: numbers and whether it streams."""
    found: Attributes = {}
    most = next((amount for name in CAPS if (amount := count(body.get(name))) is not None), None)
    if most is not None:
        found["gen_ai.request.max_tokens"] = most
    temperature, seed = body.get("temperature"), body.get("seed")
    if isinstance(temperature, (int, float)) and not isinstance(temperature, bool) and math.isfinite(temperature):
        found["gen_ai.request.temperature"] = float(temperature)
    if isinstance(seed, int) and not isinstance(seed, bool) and abs(seed) < 1 << 63:
        found["gen_ai.request.seed"] = seed
    if body.get("stream") is True:
        found["gen_ai.request.stream"] = True
    return found


def read_answer(answer: object, so_far: Attributes) -> None:
    """Note what an answer, or one chunk or event of a stream, says about itself."""
    for holder in (answer, field(answer, "response"), field(answer, "message")):
        if holder is None:
            continue
        for name, attribute in (("id", RESPONSE_ID), ("model", RESPONSE_MODEL)):
            value = field(holder, name)
            if isinstance(value, str) and value:
                so_far[attribute] = _text(value)
        reasons = _reasons(holder)
        if reasons:
            so_far[FINISH_REASONS] = reasons
        _read_details(field(holder, "usage"), so_far)


def _reasons(holder: object) -> list[str]:
    choices = field(holder, "choices")
    told = [field(choice, "finish_reason") for choice in choices[:100]] if isinstance(choices, (list, tuple)) else []
    told += [field(holder, "stop_reason"), field(field(holder, "delta"), "stop_reason")]  # Anthropic
    return [_text(reason) for reason in told if isinstance(reason, str)]


def _read_details(usage: object, so_far: Attributes) -> None:
    if usage is None:
        return
    for attribute, places in (
        (CACHE_READ, (("prompt_tokens_details", "cached_tokens"), ("input_tokens_details", "cached_tokens"))),
        (REASONING, (("completion_tokens_details", "reasoning_tokens"), ("output_tokens_details", "reasoning_tokens"))),
    ):
        for details, name in places:
            amount = count(field(field(usage, details), name))
            if amount is not None:
                so_far[attribute] = amount
    cached = count(field(usage, "cache_read_input_tokens"))  # Anthropic
    if cached is not None:
        so_far[CACHE_READ] = cached


def usage_attributes(usage: Usage | None) -> Attributes:
    """The tokens that a call really used."""
    return {} if usage is None else {INPUT_TOKENS: usage.input_tokens, OUTPUT_TOKENS: usage.output_tokens}


def _text(text: str) -> str:
    return text[:LONGEST].encode("utf-8", "replace").decode("utf-8")
