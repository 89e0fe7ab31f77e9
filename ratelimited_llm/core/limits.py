"""The limits as people state them: a value, checked once, comparable, with a repr that can be pasted back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..exceptions import BudgetExceeded
from .request import Cost

__all__ = ["PERIODS", "RateLimits"]

MINUTE = 60.0
DAY = 86_400.0
# Seconds over which each limit is counted, by its name.
PERIODS: dict[str, float] = {"rpm": MINUTE, "tpm": MINUTE, "itpm": MINUTE, "otpm": MINUTE, "rpd": DAY, "tpd": DAY}

ALIASES = {
    "max_requests_per_minute": "rpm",
    "max_tokens_per_minute": "tpm",
    "max_requests_per_day": "rpd",
    "max_tokens_per_day": "tpd",
    "max_input_tokens_per_minute": "itpm",
    "max_output_tokens_per_minute": "otpm",
}


@dataclass(frozen=True, kw_only=True)
class RateLimits:
    """What may be spent; None is "no such limit", and -1 is read as None.

    Attributes:
        rpm, rpd: requests per minute, per day.
        tpm, tpd: model tokens per minute, per day (input and output together).
        itpm, otpm: input tokens and output tokens per minute, for providers that count them apart.
        max_concurrency: calls in flight at once.
        min_interval: seconds from one send to the next.
        burst: requests that may go at once after a pause; None for a whole minute's worth, as providers allow.

    Raises:
        ValueError: for 0, a negative number or NaN, with the name of the limit.
        TypeError: for what is no number.
    """

    rpm: float | None = None
    tpm: float | None = None
    rpd: float | None = None
    tpd: float | None = None
    itpm: float | None = None
    otpm: float | None = None
    max_concurrency: int | None = None
    min_interval: float | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _checked(field.name, getattr(self, field.name)))

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> RateLimits:
        """Build the limits from keyword arguments, long names (`max_requests_per_minute`) included."""
        given: dict[str, Any] = {}
        for name, value in options.items():
            short = ALIASES.get(name, name)
            if given.get(short) is not None and value is not None:
                raise TypeError(f"{name}= and {short}= are the same limit: give one of them")
            if value is not None or short not in given:
                given[short] = value
        return cls(**given)

    def check(self, cost: Cost) -> None:
        """Refuse a call that alone asks for more than a whole limit.

        Raises:
            BudgetExceeded: with the limit, what was asked for, and what to change.
        """
        for name, asked in (("tpm", cost.reserved), ("tpd", cost.reserved), ("itpm", cost.input_tokens)):
            limit = getattr(self, name)
            if limit is not None and asked > limit:
                raise BudgetExceeded(name, limit, asked)

    def __bool__(self) -> bool:
        """Whether anything is limited."""
        return any(getattr(self, field.name) is not None for field in fields(self))

    def __repr__(self) -> str:
        given = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) is not None)
        return f"RateLimits({', '.join(given)})"

    replace = replace


def _checked(name: str, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number or None, not {value!r}")
    if value == -1:
        return None
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be above 0, not {value!r}; None (or leaving it out) means no such limit")
    if name in ("max_concurrency", "burst") and (value < 1 or value != int(value)):
        raise ValueError(f"{name} must be a whole number from 1 up, not {value!r}")
    return value
