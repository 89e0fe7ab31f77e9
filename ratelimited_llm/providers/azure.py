"""Azure OpenAI, Azure AI Foundry and GitHub Models: deployments with counters that start anew each minute.

Sources: MicrosoftDocs azure-ai-docs, articles/foundry/openai/includes/quota-1.md and quota-2.md; captured headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ..core.feedback import Kind, Reading
from .base import Dialect
from .bodies import ErrorFacts
from .openai import LONG_PERIOD
from .parsing import LONGEST, all_of, duration, finite, header, header_reading, retry_after
from .refusals import LimitText

__all__ = ["AzureDialect"]

# GitHub Models and Foundry name the counter that refused: "UserByModelByMinuteUncachedInputTokens".
_COUNTER = re.compile(r"\bUser(?:By[A-Za-z]{1,40}|ConcurrentRequests)", re.ASCII)


class AzureDialect(Dialect):
    """A deployment on Azure; its own name is its pool, so `family` merges nothing.

    Requests are judged "over a small period of time, typically 1 or 10 seconds" (600 RPM is 10 per second): the
    stricter one is assumed. Tokens are added to "a running token count that is reset each minute" and are not given
    back; captured resets look like a continuous bucket instead. The documented form is the careful one.
    """

    name = "azure"
    charge = "reserve"
    window = "fixed"
    request_smoothing = 1.0

    def readings(self, headers: Mapping[str, str]) -> tuple[Reading, ...]:
        """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}` with whole seconds; -1 and 0 are no news.

        A limit is per minute even where its renewal period says 10 s (captured: 9000 with 1500000 TPM, which is the
        documented 6 RPM per 1000 TPM); a renewal period of a day makes it the day's.
        """
        found = []
        for what, minute, day in (("requests", "rpm", "rpd"), ("tokens", "tpm", "tpd")):
            period = finite(headers.get(f"x-ratelimit-renewalperiod-{what}")) or 60.0
            found.append(header_reading(headers, what, day if period > LONG_PERIOD else minute))
        return all_of(*found)

    def _kind(self, status: int, headers: Mapping[str, str], error: ErrorFacts, said: LimitText) -> Kind:
        kind = super()._kind(status, headers, error, said)
        # The service's own capacity also comes as a 429 with no code of its own; no budget of ours is short then.
        full = kind is Kind.LIMITED and said.dimension is None and "high demand" in error.message
        return Kind.OVERLOADED if full else kind

    def _refusal(self, headers: Mapping[str, str], error: ErrorFacts) -> LimitText:
        said = super()._refusal(headers, error)
        dimension = said.dimension or _named(header(headers, "x-ratelimit-type"), error.message)
        if said.wait is None and dimension != "concurrency" and retry_after(headers) is None:
            # Seen without any Retry-After (openai-python issue 937). In a fixed window the reset is the wait.
            reset = duration(headers.get("x-rate-limit-reset-tokens"))
            return replace(said, dimension=dimension, wait=min(reset, LONGEST) if reset else None)
        return replace(said, dimension=dimension)


def _named(limit_type: str, message: str) -> str | None:
    """The dimension by the header that names it, else by the message; None when neither does."""
    if limit_type in ("tokens", "requests"):
        return "tpm" if limit_type == "tokens" else "rpm"
    counter = _COUNTER.search(message)
    name = counter[0].lower() if counter else limit_type
    if "concurrent" in name:
        return "concurrency"
    if name.startswith("userby"):
        unit = "itp" if "inputtokens" in name else "tp" if "tokens" in name else "rp"
        dimension = unit + ("d" if "day" in name else "m")
        return None if dimension == "itpd" else dimension
    if "token rate limit" in message:
        return "tpm"
    return "rpm" if "call rate limit" in message else None
