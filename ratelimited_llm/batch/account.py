"""Whose limits and prices an estimate counts with, and what this process has learned of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..books.prices import Prices
from ..core.estimate import TokenEstimator
from ..core.limits import RateLimits
from ..providers import Dialect, dialect_for

__all__ = ["Account"]

LATENCY = 2.0  # seconds an answer, when nobody says and none has come: a hundred tokens of a middling model


@dataclass
class Account:
    """Whose limits and prices count, and what is known of them.

    Attributes:
        lane: calls in flight that the client's HTTP connections carry.
        learned: of a model: the limits that its answers told, and what is left of each limit; empty without a client.
    """

    dialect: Dialect
    limits: RateLimits = field(default_factory=RateLimits)
    estimator: TokenEstimator = field(default_factory=TokenEstimator)
    count: Callable[[Any], int] | None = None
    prices: Prices = field(default_factory=Prices)
    latency: float = LATENCY
    lane: float = math.inf
    learned: Callable[[str], tuple[dict[str, float], dict[str, float]]] = lambda model: ({}, {})

    @classmethod
    def of(cls, client: Any, base_url: str) -> Account:
        if client is None:
            return cls(dialect_for("openai", base_url))
        runtime = getattr(client, "_runtime", None)
        if runtime is None:
            raise TypeError(f"client must be one of ratelimited_llm's, or None, not {type(client).__name__}")
        account, worker = client._account(runtime), runtime.worker

        def learned(model: str) -> tuple[dict[str, float], dict[str, float]]:
            survey = worker.budget.survey(account.pool(model), worker.clock())
            told = {each.dimension: each.limit for each in survey.standings}
            if survey.concurrency < math.inf:
                told["max_concurrency"] = survey.concurrency
            return told, {each.dimension: each.remaining for each in survey.standings}

        seen = runtime.status().latency
        made = cls(
            account.dialect, runtime.limits, account.estimator, runtime.estimator, runtime.ledger.spending.prices
        )
        made.latency, made.learned = LATENCY if seen is None else seen, learned
        made.lane = runtime.lane.width
        return made

    def restrict(self, limits: RateLimits | None, concurrency: int | None) -> None:
        """Put limits in the place of those there are, and a bound on the calls in flight."""
        if limits is not None:
            given = {name: getattr(limits, name) for name in limits.__dataclass_fields__}
            self.limits = self.limits.replace(**{name: value for name, value in given.items() if value is not None})
        if concurrency is not None:
            self.limits = self.limits.replace(
                max_concurrency=min(concurrency, self.limits.max_concurrency or concurrency)
            )
