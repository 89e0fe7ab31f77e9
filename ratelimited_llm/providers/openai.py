"""OpenAI: a continuous bucket per dimension, charged at admission and never given back.

Sources: https://developers.openai.com/api/docs/guides/rate-limits and https://help.openai.com/en/articles/5955604;
where they say nothing, arithmetic on captured headers and refusals.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..core.feedback import Reading
from .base import Dialect
from .parsing import all_of, header_reading

__all__ = ["LONG_PERIOD", "OpenAIDialect", "with_period"]

_DATED = re.compile(r"-20[0-9]{2}-[01][0-9]-[0-3][0-9]\Z", re.ASCII)
LONG_PERIOD = 2277.0  # seconds: the geometric mean of a minute and a day, so a rounded remainder cannot mislead
_DEFAULT_MAX_TOKENS = 16  # of the old completions endpoint; the documented sample's 149984 of 150000 is just it


def with_period(told: Reading) -> Reading:
    """Tell "rpm" from "rpd", which share one header name: by the rate at which the bucket refills.

    limit * reset / (limit - remaining) is the period in seconds. Captured: 10000, 9999 and 8.64 s are a day; 5000,
    4999 and 12 ms are a minute. A full bucket (or a reset of 0) decides nothing, and is read as "rpm".
    """
    whole, left = told.limit, told.remaining
    if whole is None or left is None or not told.reset or left >= whole:
        return told
    return Reading("rpd", whole, left, told.reset) if whole * told.reset / (whole - left) > LONG_PERIOD else told


class OpenAIDialect(Dialect):
    """api.openai.com."""

    name = "openai"
    charge = "reserve"

    def _reserved(self, prompt: int, most: int | None, output: int) -> int:
        """The larger of max_tokens and the estimate of the prompt, not their sum.

        "Your rate limit is calculated as the maximum of max_tokens and the estimated number of tokens based on the
        character count of your request" (guide). Without a maximum the guide's own sample charges 16.
        """
        return max(prompt, _DEFAULT_MAX_TOKENS if most is None else most)

    def readings(self, headers: Mapping[str, str]) -> tuple[Reading, ...]:
        """`x-ratelimit-{limit,remaining,reset}-{requests,tokens,project-tokens}`; resets are Go durations to full.

        Tokens are always those of the minute (the guide's sample, 6m0s, would say otherwise; every capture agrees).
        """
        requests, tokens = _told(headers, "requests", "rpm"), _told(headers, "tokens", "tpm")
        project = _told(headers, "project-tokens", "tpm")  # since 2026-06, "may be present"
        if tokens is None or (project is not None and _room(project) < _room(tokens)):
            tokens = project
        return all_of(None if requests is None else with_period(requests), tokens)

    def family(self, model: str) -> str:
        """Dated snapshots share the limit of their alias, and fine-tunes that of their base model.

        "gpt-4.1-mini-2025-04-14" and "ft:gpt-4.1-mini-2025-04-14:org::id" are both "gpt-4.1-mini". Four-digit
        snapshots ("gpt-4-0613") are left alone: some of them had limits of their own.
        """
        if not isinstance(model, str) or len(model) > 200:
            return super().family(model)
        if model.startswith("ft:"):
            model = model[3:].partition(":")[0] or model
        return _DATED.sub("", model)


def _told(headers: Mapping[str, str], what: str, dimension: str) -> Reading | None:
    return header_reading(headers, what, dimension) if f"x-ratelimit-limit-{what}" in headers else None


def _room(told: Reading) -> tuple[float, float]:
    """What is left, then the limit: the smaller is the one that will refuse first."""
    limit = told.limit or 0.0
    return (limit if told.remaining is None else told.remaining), limit
