"""What can be told of a client by looking at it: what is inside of it, whose package it is, whose limits it spends."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ..accounts import Account, account_for
from ..core.limits import RateLimits
from ..providers import dialect_for
from .answers import listen

__all__ = ["account_of", "clients_in", "package_of"]

PROVIDERS = ("openai", "groq", "anthropic")
MOST_INSIDE = 8  # wrappers of wrappers that are looked into

_numbers = itertools.count()


def clients_in(client: Any) -> list[Any]:
    """The client, and the clients that it was made around, as far as they are where wrappers keep them."""
    found: list[Any] = [client]
    for each in found:
        for kept in (getattr(each, "__dict__", None), getattr(each, "__pydantic_private__", None)):
            if not isinstance(kept, Mapping):
                continue
            for name in ("client", "_client", "root_client"):
                inner = kept.get(name)
                if inner is not None and not any(inner is known for known in found) and len(found) < MOST_INSIDE:
                    found.append(inner)
    return found


def account_of(client: Any, limits: RateLimits) -> Account:
    """Whose limits its calls spend: those of its key at its URL, shared with our own clients, or nobody else's."""
    for each in clients_in(client):
        provider = package_of(each)
        base_url = getattr(each, "base_url", None)
        if provider not in PROVIDERS or base_url is None:
            continue
        if "Azure" in type(each).__name__:
            provider = "azure"
        listen(getattr(each, "_client", None))
        names = ("api_key", "auth_token", "organization", "project")
        key = "\n".join(value for value in (getattr(each, name, None) for name in names) if isinstance(value, str))
        return account_for(provider, str(base_url), key, limits, dialect_for(provider, str(base_url)))
    name = f"{package_of(client)}-{next(_numbers)}"
    return account_for(package_of(client), "", name, limits, dialect_for(None, ""))


def package_of(value: Any) -> str:
    module = value.__name__ if isinstance(value, ModuleType) else type(value).__module__
    return str(module).partition(".")[0]
