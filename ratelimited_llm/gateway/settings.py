"""What a gateway is told when it is made: a value, checked at once."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.checks import path_of, text, whole
from ..options import PREFIX, split_limits
from ..runtime import OWN_NAMES, Runtime
from ..stores.journal import Journal
from .upstreams import UPSTREAMS

__all__ = ["Settings"]

SAID_BY_PROVIDER = ("api_key", "base_url")  # of the SDK's client: one for all would be sent to everybody


@dataclass(frozen=True, kw_only=True)
class Settings:
    """See `create_app` for what each of them means."""

    limits: Mapping[str, Any] = field(default_factory=dict)
    base_urls: Mapping[str, str] = field(default_factory=dict)
    api_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    pass_through_keys: bool = False
    token: str | None = field(default=None, repr=False)
    hosts: str | Iterable[str] = ()
    max_queue: int | None = 10_000
    max_body: int = 64 * 1024 * 1024
    budget: Any = field(default=None, repr=False)  # a URL may have a password
    journal: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = {name: value for name, value in self.limits.items() if value is not None}
        split_limits(None, limits)  # raises for what makes no sense
        object.__setattr__(self, "limits", limits)
        if self.max_queue is not None:
            whole("max_queue", self.max_queue, 1, ", or None for no cap")
        whole("max_body", self.max_body, 1)
        if self.token is not None and not _secret("token", self.token).strip():
            raise ValueError("token must be a string that is not empty, or None for none")
        object.__setattr__(self, "hosts", _names(self.hosts))
        for name, given in (("base_urls", self.base_urls), ("api_keys", self.api_keys)):
            object.__setattr__(self, name, _by_provider(name, given))
        self._check_options()

    def _check_options(self) -> None:
        """Refuse now what would be refused when the first request makes a client."""
        door = importlib.import_module("ratelimited_llm.openai").OpenAI
        known = {*OWN_NAMES, *inspect.signature(door).parameters} - set(SAID_BY_PROVIDER)
        stranger = next((name for name in self.options if name not in known), None)
        if stranger is not None:
            raise TypeError(
                f"unexpected argument {stranger!r}: the options are those of OpenAI, as rpm=, tpm=, tenant="
            )
        if self.journal is not None and not isinstance(self.journal, Journal):
            path_of("journal", self.journal)
        given = {name: value for name, value in self.client_options().items() if name in OWN_NAMES}
        Runtime("gateway", {**given, "journal": False})

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


def _names(hosts: object) -> tuple[str, ...]:
    """Host names as a tuple; one alone is one."""
    found = (hosts,) if isinstance(hosts, str) else tuple(hosts) if isinstance(hosts, Iterable) else None
    if found is None or not all(isinstance(host, str) and host.strip() for host in found):
        raise TypeError(f'hosts must be names such as "llm.example.com", or "*" for any, not {hosts!r}')
    return tuple(text("hosts", host) for host in found)


def _by_provider(name: str, given: object) -> dict[str, str]:
    """A text for each provider that is named."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} must be a mapping from providers to texts, not {type(given).__name__}")
    stranger = next((provider for provider in given if provider not in UPSTREAMS), None)
    if stranger is not None:
        raise ValueError(f"{name}: unknown provider {stranger!r}: use {', '.join(UPSTREAMS)}")
    return {provider: _secret(f"{name} of {provider}", value) for provider, value in given.items() if value is not None}


def _secret(name: str, value: object) -> str:
    """The value, when it is text; what is wrong with it is told without it."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be text, and half a surrogate pair is none") from None
    return value
