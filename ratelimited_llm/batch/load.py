"""What a forecast is made of: the calls of a pool in sum and in a sample, and the terms that hold them back."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core.limits import PERIODS, RateLimits
from ..core.request import Cost

__all__ = ["Load", "Terms"]

REMEMBERED = 16_000  # calls, at most; never fewer than half of it when there are more


@dataclass(frozen=True)
class Terms:
    """What holds the calls of a pool back.

    Attributes:
        limits: configured or learned, concurrency included.
        charge: how the provider charges tokens, see `Dialect.charge`.
        smoothing: seconds over which it judges requests, see `Dialect.request_smoothing`.
        latency: seconds from dispatch to answer.
        remaining: of a limit, what is left of it now, where that is known; the others are full.
    """

    limits: RateLimits
    charge: str | None = "reserve"
    smoothing: float | None = None
    latency: float = 2.0
    remaining: Mapping[str, float] = field(default_factory=dict)

    def rule(self, name: str) -> str:
        """How a call is charged against a limit."""
        return {"rpm": "requests", "rpd": "requests", "itpm": "input", "otpm": "output"}.get(
            name, self.charge or "reserve"
        )

    def limit(self, name: str) -> float:
        """A limit that there is, per its period."""
        return float(getattr(self.limits, name))

    def capacity(self, name: str) -> float:
        """What the limit holds when it is full."""
        limit = self.limit(name)
        if name == "rpm" and self.limits.burst is not None:
            return min(limit, float(self.limits.burst))
        if name == "rpm" and self.smoothing is not None:
            return max(1.0, limit * self.smoothing / PERIODS[name])
        return limit

    @property
    def names(self) -> list[str]:
        """The limits there are, concurrency apart."""
        return [name for name in PERIODS if getattr(self.limits, name) is not None]


class Load:
    """The calls of a pool: how many, what they ask of it in all, and a sample in their order. Memory is bounded."""

    def __init__(self, seed: int = 0) -> None:
        self.count = 0
        self.reserved = self.expected = self.input = self.output = 0
        self.most_reserved = self.most_input = 0
        self.sample: list[Cost] = []
        self._share = 1.0
        self._chance = random.Random(seed)

    def add(self, cost: Cost) -> None:
        """Count one more call."""
        self.count += 1
        self.reserved += cost.reserved
        self.expected += cost.expected
        self.input += cost.input_tokens
        self.output += cost.output_tokens
        if cost.reserved > self.most_reserved:
            self.most_reserved = cost.reserved
        if cost.input_tokens > self.most_input:
            self.most_input = cost.input_tokens
        if self._share == 1.0 or self._chance.random() < self._share:
            self.sample.append(cost)
            if len(self.sample) > REMEMBERED:
                # Every one stays with the same chance: no pattern in the file can hide from it.
                self.sample = [each for each in self.sample if self._chance.random() < 0.5]
                self._share /= 2.0

    def mean(self, rule: str) -> float:
        """What a call is charged in the end under a rule of `core.mirrors`, on average."""
        if rule == "requests":
            return 1.0
        total = {"reserve": self.reserved, "input": self.input, "output": self.output}.get(rule, self.expected)
        return total / self.count if self.count else 0.0

    def held(self, rule: str) -> float:
        """What a call takes up while it is in flight, on average."""
        return self.reserved / self.count if rule == "settle" and self.count else self.mean(rule)

    def most(self, rule: str) -> float:
        """What the largest call is charged when it leaves."""
        return (
            1.0 if rule == "requests" else float(self.most_input if rule in ("actual", "input") else self.most_reserved)
        )
