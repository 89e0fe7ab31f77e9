"""What a provider's answer told: the values that dialects read out of it and that limiter and retry act on."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .request import Usage

__all__ = ["Feedback", "Kind", "Outcome", "Reading"]


class Kind(enum.Enum):
    """How one attempt ended, as far as anybody has to act differently."""

    OK = "ok"  # answered
    LIMITED = "limited"  # refused by a rate limit: wait, then send again; no attempt was used
    OVERLOADED = "overloaded"  # the provider has trouble (408, 409, 5xx, 529, "slow_down"): back off, one attempt used
    DROPPED = "dropped"  # timeout or broken connection: back off, one attempt used, and perhaps paid
    EXHAUSTED = "exhausted"  # quota, credit or spend cap: waiting does not help
    TOO_LARGE = "too_large"  # more than a whole limit in one call
    REJECTED = "rejected"  # auth, bad request, and every other final answer


@dataclass(frozen=True, slots=True)
class Reading:
    """One limit as one answer told it.

    Attributes:
        dimension: "rpm", "rpd", "tpm", "tpd", "itpm" or "otpm".
        limit: the whole limit per its period; None when not told.
        remaining: what is left of it; None when not told.
        reset: seconds until it is full again, never a wait; None when not told.
        resolution: to how much `remaining` was rounded (1000 for Anthropic's token counts).
    """

    dimension: str
    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None
    resolution: float = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended.

    Attributes:
        kind: what to do about it.
        retry_after: the longest wait that any part of the answer asked for, in seconds; None when none did. Finite
            and >= 0, not yet capped.
        dimension: which limit refused it ("rpm", "tpm", ...), when it was said.
        limit, used, requested: the numbers of a refusal ("Limit 6000, Used 4093, Requested 3531"), when said.
        status: the HTTP status, or None when there was no answer.
        code: the provider's own error code, for messages and logs.
    """

    kind: Kind
    retry_after: float | None = None
    dimension: str | None = None
    limit: float | None = None
    used: float | None = None
    requested: float | None = None
    status: int | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """Everything that one attempt taught: how it ended, the limits it told, and the tokens it used."""

    outcome: Outcome
    readings: tuple[Reading, ...] = ()
    usage: Usage | None = None


ANSWERED = Outcome(Kind.OK, status=200)
