"""What a gateway is told when it is made: a value, checked at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..options import PREFIX, split_limits

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """See `create_app` for what each of them means."""

    limits: Mapping[str, Any] = field(default_factory=dict)
    base_urls: Mapping[str, str] = field(default_factory=dict)
    api_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    pass_through_keys: bool = False
    token: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = ()
    max_queue: int | None = 10_000
    max_body: int = 64 * 1024 * 1024
    budget: Any = field(default=None, repr=False)  # a URL may have a password
    journal: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = {name: value for name, value in self.limits.items() if value is not None}
        split_limits(None, limits)  # raises for what makes no sense
        object.__setattr__(self, "limits", limits)
        for name, value in (("max_queue", self.max_queue), ("max_body", self.max_body)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number from 1 up, not {value!r}")
        if self.token is not None and (not isinstance(self.token, str) or not self.token.strip()):
            raise ValueError("token must be a string that is not empty, or None for none")

    def client_options(self) -> dict[str, Any]:
        """What every client of ours is made with beside its provider, key and base URL."""
        given: dict[str, Any] = {**self.options, **self.limits}
        for name in ("budget", "journal"):
            if getattr(self, name) is not None:
                given[name] = getattr(self, name)
        return given

    @property
    def budget_kind(self) -> str:
        """Who shares the limits, without where: "memory", "sqlite", "redis", ..."""
        budget = self.budget if self.budget is not None else os.environ.get(PREFIX + "BUDGET")
        if isinstance(budget, str) and budget:
            return budget.partition(":")[0].lower().partition("+")[0]
        return "memory" if budget is None or budget == "" else type(budget).__name__
