"""The limits as people state them: a value, checked once, comparable, with a repr that can be pasted back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..exceptions import BudgetExceeded
from .checks import number
from .request import Cost

__all__ = ["PERIODS", "RateLimits"]

MINUTE = 60.0
DAY = 86_400.0
# Seconds over which each limit is counted, by its name.
PERIODS: dict[str, float] = {"rpm": MINUTE, "tpm": MINUTE, "itpm": MINUTE, "otpm": MINUTE, "rpd": DAY, "tpd": DAY}

PARTS = ("share", "safety_margin")

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
        share: the part of each limit per minute or day that this process may use, above 0 and up to 1.0 (0.4 for 40 %),
            of those that are configured and of those that are learned alike; None for all of it. The last three are
            this process's own, and are not divided.
        safety_margin: the part of that which is kept back, from 0 to below 1.0; None for none. What a guard against
            refusals needs is kept without it: this is for those who want to stay further away from their limits.

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
    share: float | None = None
    safety_margin: float | None = None

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
                given[short] = value if short not in PERIODS else _checked(name, value)
        return cls(**given)

    @property
    def part(self) -> float:
        """How much of each limit per minute or day this process may use: the share without the safety margin."""
        return (self.share or 1.0) * (1.0 - (self.safety_margin or 0.0))

    def part_of(self, name: str, limit: float) -> float:
        """What this process may use of one whole limit; one request per period at least."""
        part = round(limit * self.part, 6)  # 500 * 0.4 * 0.9 is 180, and not 180.00000000000003
        return max(1.0, part) if name in ("rpm", "rpd") else part

    def spendable(self) -> RateLimits:
        """The limits as this process may use them up: with every part taken, and nothing left to divide."""
        if self.part == 1.0:
            return self
        given = {name: getattr(self, name) for name in PERIODS}
        parts = {name: self.part_of(name, limit) for name, limit in given.items() if limit is not None}
        return self.replace(share=None, safety_margin=None, **parts)

    def check(self, cost: Cost) -> None:
        """Refuse a call that alone asks for more than a whole limit, as far as that is ours to use.

        Raises:
            BudgetExceeded: with the limit, what was asked for, and what to change.
        """
        if self.tpm is None and self.tpd is None and self.itpm is None:
            return
        for name, asked in (("tpm", cost.reserved), ("tpd", cost.reserved), ("itpm", cost.input_tokens)):
            limit = getattr(self, name)
            if limit is not None and asked > limit * self.part:
                raise BudgetExceeded(name, limit * self.part, asked)

    def __bool__(self) -> bool:
        """Whether anything is limited. A share alone limits nothing yet: nobody knows of what."""
        return any(getattr(self, f.name) is not None for f in fields(self) if f.name not in PARTS)

    def __repr__(self) -> str:
        given = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) is not None)
        return f"RateLimits({', '.join(given)})"

    replace = replace


def _checked(name: str, value: Any) -> Any:
    if value is None:
        return None
    number(name, value)
    if name in PARTS:
        return _checked_part(name, value)
    if value == -1:
        return None
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be above 0, not {value!r}; None (or leaving it out) means no such limit")
    if name in ("max_concurrency", "burst") and (value < 1 or value != int(value)):
        raise ValueError(f"{name} must be a whole number from 1 up, not {value!r}")
    return value


def _checked_part(name: str, value: float) -> float | None:
    if name == "share" and not 0.0 < value <= 1.0:
        raise ValueError(f"share must be above 0 and at most 1.0 (0.4 for 40 % of every limit), not {value!r}")
    if name == "safety_margin" and not 0.0 <= value < 1.0:
        raise ValueError(f"safety_margin must be from 0 to below 1.0 (0.1 keeps 10 % back), not {value!r}")
    return value or None
