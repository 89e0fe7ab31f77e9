"""Anthropic: separate buckets for requests, input tokens and output tokens, per model class.

Sources: https://platform.claude.com/docs/en/api/rate-limits and /api/errors; captured headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..core.feedback import Reading
from ..core.request import Usage
from .base import Dialect
from .parsing import all_of, count, field, moment, reading, until

__all__ = ["AnthropicDialect"]

_CLASS = re.compile(r"(claude-(?:opus|sonnet|haiku)-[0-9]{1,2})(?:-[0-9]{1,2})?(?:-20[0-9]{6})?", re.ASCII)
_ROUNDED = 1000.0  # token remainders are "rounded to the nearest thousand"
_TELLING = frozenset({"message_start", "message_delta", "message_stop"})


class AnthropicDialect(Dialect):
    """api.anthropic.com, the native API and its OpenAI-compatible one.

    Input is estimated at admission; output is "evaluated in real time as output tokens are produced", and max_tokens
    "does not factor in". Input written to the cache counts, input read from it does not (except with Haiku 3.5,
    which this does not look at).
    """

    name = "anthropic"
    charge = "actual"
    counts_cached = False

    def _reserved(self, prompt: int, most: int | None, output: int) -> int:
        """Input only: max_tokens is not reserved (documented; keys of early 2025 were seen to reserve it)."""
        return prompt

    def readings(self, headers: Mapping[str, str]) -> tuple[Reading, ...]:
        """`anthropic-ratelimit-{requests,input-tokens,output-tokens}-{limit,remaining,reset}`.

        `tokens-*` is the most restrictive limit, or the sum of both, and is only used where neither is sent. Resets
        are RFC 3339 moments, made durations by the answer's own Date header; None without one, 0 when past.
        """
        requests = _told(headers, "requests", "rpm", 1.0)
        each = [_told(headers, f"{way}-tokens", f"{way[0]}tpm", _ROUNDED) for way in ("input", "output")]
        return all_of(requests, *each) if any(each) else all_of(requests, _told(headers, "tokens", "tpm", _ROUNDED))

    def family(self, model: str) -> str:
        """The model class, whose versions share one limit ("Sonnet 4.x"): "claude-sonnet-4-5-20250929" is
        "claude-sonnet-4". Names of the 3.x form are left alone: their snapshots were listed one by one.
        """
        match = _CLASS.fullmatch(model) if isinstance(model, str) else None
        return match[1] if match else super().family(model)

    def stream_usage(self, event: object, so_far: Usage | None) -> Usage | None:
        """Input in `message_start.message.usage`; output, cumulative, in `message_delta.usage`."""
        kind = field(event, "type")
        if not isinstance(kind, str):
            return super().stream_usage(event, so_far)  # the OpenAI-compatible API
        if kind not in _TELLING:
            return so_far
        used = field(event, "usage") or field(field(event, "message"), "usage")
        told = self._tokens(used)
        if told is None:
            return so_far
        if so_far is None:
            return told
        return Usage(  # all are cumulative, and message_delta need not repeat the input
            max(so_far.input_tokens, told.input_tokens),
            max(so_far.output_tokens, told.output_tokens),
            max(so_far.cached_tokens, told.cached_tokens),
        )

    def _tokens(self, used: object) -> Usage | None:
        fresh, output = count(field(used, "input_tokens")), count(field(used, "output_tokens"))
        if fresh is None and output is None:
            return super()._tokens(used)
        written = count(field(used, "cache_creation_input_tokens")) or 0
        read = count(field(used, "cache_read_input_tokens")) or 0  # in neither of the other two
        return Usage((fresh or 0) + written + read, output or 0, read)


def _told(headers: Mapping[str, str], what: str, dimension: str, resolution: float) -> Reading | None:
    prefix = f"anthropic-ratelimit-{what}-"
    limit, remaining = headers.get(prefix + "limit"), headers.get(prefix + "remaining")
    if limit is None and remaining is None:
        return None
    return reading(dimension, limit, remaining, until(moment(headers.get(prefix + "reset")), headers), resolution)
