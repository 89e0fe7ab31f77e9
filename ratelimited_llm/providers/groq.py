"""Groq: continuous buckets for every period; tokens reserved at admission, then corrected to what was used.

Sources: https://console.groq.com/docs/rate-limits, /docs/errors and /docs/flex-processing; arithmetic on refusals.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..core.feedback import Kind, Reading
from ..core.request import Usage
from .base import Dialect
from .bodies import ErrorFacts
from .parsing import all_of, field, header_reading
from .refusals import LimitText

__all__ = ["GroqDialect"]


class GroqDialect(Dialect):
    """api.groq.com.

    prompt + max_tokens is reserved ("Limit 8000, Requested 32979" for one-word prompts), and usage is charged
    afterwards: a bucket was seen in debt (Used 5747 of 5000). Cached tokens do not count (documented).
    """

    name = "groq"
    charge = "settle"
    counts_cached = False

    def readings(self, headers: Mapping[str, str]) -> tuple[Reading, ...]:
        """`-requests` is always the day and `-tokens` always the minute (documented).

        So the limit that usually binds, requests per minute, is in no header: only refusals tell it.
        """
        return all_of(header_reading(headers, "requests", "rpd"), header_reading(headers, "tokens", "tpm"))

    def stream_usage(self, event: object, so_far: Usage | None) -> Usage | None:
        """Like the others, and in `x_groq.usage` of the last chunk, without having been asked for."""
        used = super().stream_usage(event, None)
        if used is None:
            used = self._tokens(field(field(event, "x_groq"), "usage"))
        return so_far if used is None else used

    def _kind(self, status: int, headers: Mapping[str, str], error: ErrorFacts, said: LimitText) -> Kind:
        """498 is Groq's own: the flex tier is full (documented as worth a retry with backoff)."""
        return super()._kind(503 if status == 498 else status, headers, error, said)
